"""python -m lib on models of a few seconds: results, the layouts that it reads, and what it refuses."""

import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from puree_server import Puree
from scipy import sparse

from lib import cli, config, curation, model_card, own_file
from lib import purity as estimators
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE
from lib.own_cohort import score_cohort

GENES = [f"G{chr(65 + i // 10)}{i % 10}" for i in range(60)]
KINDS = {"tissue": ["blood", "brain"], "alignment": ["Breast", "Lung"]}


def drawn(kinds, seed):
    """Samples of two kinds that differ in half of the genes: log2(TPM+1), samples × genes."""
    rng = np.random.default_rng(seed)
    first = (np.asarray(kinds) == sorted(set(kinds))[0])[:, None]
    return np.clip(rng.normal(5 + 2 * first * (np.arange(60) < 30), 0.7, (len(kinds), 60)), 0.1, None).astype("float32")


def compendium(path, obs):
    X = drawn(obs["tissue" if "tissue" in obs else "cancer_type"], 1)
    train = X[obs["split"] == "train"]
    var = pd.DataFrame({"mean": train.mean(0).astype(float), "sd": train.std(0).astype(float)}, GENES)
    adata = ad.AnnData(X, obs=obs, var=var, uns={"unit": "log2(TPM+1)"})
    adata.write_h5ad(path)
    return curation.standardise(adata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run: compendia, models, and what they made."""
    folder = tmp_path_factory.mktemp("run")
    tissue = pd.DataFrame(
        {"tissue": np.tile(KINDS["tissue"], 60), "source": "GTEx", "split": ["train"] * 80 + ["test"] * 40}
    )
    tissue.index = [f"ref{i}" for i in range(120)]
    given = compendium(folder / "tissue.h5ad", tissue)
    settings = {"latent": 8, "hidden_factor": 0.5, "max_epochs": 25, "seed": 1, "device": "cpu"}
    vae = TissueVAE(**settings).fit(given[:80].to_memory())
    vae.save(folder / "models" / "tissue_vae")
    ad.AnnData(vae.embed(given), obs=tissue.assign(predicted=vae.predict(given))).write_h5ad(folder / "embedding.h5ad")
    labels = pd.DataFrame(
        {"cancer_type": np.tile(KINDS["alignment"], 50), "sample_type": ["tumour"] * 60 + ["cell line"] * 40}
    )
    labels["purity"] = np.r_[np.random.default_rng(2).uniform(0.3, 0.9, 60), np.ones(40)]
    labels = labels.assign(name=[f"N{i}" for i in range(100)], source="TCGA", donor="", split="train")
    labels.index = [f"s{i}" for i in range(100)]
    given = compendium(folder / "alignment.h5ad", labels)
    rnalign = RNAlign(hidden=32, latent=8, epochs=15, batch_size=32, device="cpu").fit(given)
    rnalign.save(folder / "models" / "rnalign")
    ad.AnnData(rnalign.transform(given), obs=labels).write_h5ad(folder / "aligned.h5ad")
    return folder


@pytest.fixture
def tpm():
    """Ten samples in TPM, the first half blood (or Breast), the others brain (or Lung)."""
    X = 2 ** drawn(["a"] * 5 + ["b"] * 5, 7) - 1
    return pd.DataFrame(X, [f"new{i}" for i in range(10)], GENES)


@pytest.fixture
def run(folder, tmp_path, capsys):
    """Runs a command on a table or a path; gives exit code, standard output and error."""

    def command(name, table, *options, **how):
        path = table
        if isinstance(table, pd.DataFrame):
            path = tmp_path / "in.csv"
            table.to_csv(path, index_label="sample", **how)
        try:
            code = cli.main([name, str(path), "--model", str(folder), *map(str, options)])
        except SystemExit as stopped:
            code = stopped.code
        return SimpleNamespace(code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return command


def test_classify_names_the_tissue_the_nearest_references_and_how_sure_it_is(run, tpm, tmp_path, folder):
    done = run("classify", tpm, "--out", tmp_path / "calls.csv")
    assert done.code == 0, done.err
    calls = pd.read_csv(tmp_path / "calls.csv", index_col="sample")
    assert list(calls["tissue"]) == ["blood"] * 5 + ["brain"] * 5
    assert calls["probability"].between(0.5, 1).all()
    assert all(re.fullmatch(r"(ref\d+ \(blood\)(; )?){5}", text) for text in calls["nearest_references"][:5])
    assert calls["note"].str.contains("not for diagnosis").all()
    assert "60 of the model's 60 genes found" in done.err
    assert json.loads((tmp_path / "calls.json").read_text())["unit"] == "TPM"
    reference = curation.standardise(curation.load(folder / "tissue.h5ad", "test"))
    model = TissueVAE.load(folder / "models" / "tissue_vae")
    scored = score_cohort(model, reference, ad.AnnData(np.log2(tpm + 1)))
    assert list(calls["neighbours_tissue"]) == list(scored.calls["called"])
    assert list(calls["too_far"]) == list(scored.calls["too_far"])


def test_a_sample_unlike_all_references_is_flagged(run, tpm):
    odd = np.random.default_rng(3).permutation(np.r_[np.full(30, 0.01), np.full(30, 9000)])
    tpm.iloc[0] = odd.astype(tpm.to_numpy().dtype)
    calls = pd.read_csv(io.StringIO(run("classify", tpm).out), index_col="sample")
    assert bool(calls.loc["new0", "too_far"])
    assert not calls["too_far"].iloc[1:].all()


def test_a_few_references_cannot_tell_what_is_too_far(run, tpm, folder, tmp_path):
    assert "too few to tell" not in run("classify", tpm).err
    few = tmp_path / "few"
    shutil.copytree(folder, few)
    tissue = ad.read_h5ad(folder / "tissue.h5ad")
    tissue[:83].copy().write_h5ad(few / "tissue.h5ad")
    done = run("classify", tpm, "--model", few)
    assert "too few to tell what is too far" in done.err
    assert not pd.read_csv(io.StringIO(done.out))["too_far"].any()


def test_either_orientation_and_every_harmonisation_agree(run, tpm, tmp_path):
    tpm.T.to_csv(tmp_path / "t.tsv.gz", sep="\t", index_label="")
    assert run("classify", tmp_path / "t.tsv.gz").out == run("classify", tpm).out
    for how in ("reference", "cohort"):
        calls = run("classify", tpm, "--harmonise", how).out.splitlines()[1:]
        assert [line.split(",")[1] for line in calls] == ["blood"] * 5 + ["brain"] * 5
    assert "--harmonise cohort: found 1 sample" in run("classify", tpm.iloc[:1], "--harmonise", "cohort").err


def test_empty_cells_at_the_ends_of_rows_are_no_header_without_a_corner(run, tpm, tmp_path):
    header, *rows = tpm.to_csv(index_label="sample").splitlines()
    (tmp_path / "e.csv").write_text("\n".join([header, *(f"{row}," for row in rows)]))
    assert run("classify", tmp_path / "e.csv").out == run("classify", tpm).out


def test_ensembl_ids_need_a_table_and_work_with_it(run, tpm, tmp_path):
    ids = [f"ENSG{i:011d}" for i in range(60)]
    table = pd.DataFrame(
        {"symbol": GENES, "ensembl_gene_id": ids, "entrez_id": "", "prev_symbol": "", "alias_symbol": ""}
    )
    table.to_csv(tmp_path / "hgnc.txt", sep="\t", index=False)
    versioned = tpm.set_axis([f"{i}.7" for i in ids], axis=1)
    refused = run("classify", versioned)
    assert refused.code == 2
    assert "--gene-ids" in refused.err
    assert run("classify", versioned, "--gene-ids", tmp_path / "hgnc.txt").out == run("classify", tpm).out


def test_align_gives_lines_of_the_type_with_intervals_and_estimates_a_missing_purity(run, tpm, tmp_path):
    labels = pd.DataFrame({"cancer_type": ["breast"] * 5 + ["LUNG"] * 5, "purity": [0.5] * 9 + [np.nan]}, tpm.index)
    labels.to_csv(tmp_path / "labels.csv", index_label="id")
    done = run("align", tpm, "--samples", tmp_path / "labels.csv", "--lines", 3, "--out", tmp_path / "a.csv")
    assert done.code == 0, done.err
    assert "purity of 1 samples estimated" in done.err
    assert "draws_low, draws_high: 95 % of draws" in done.err
    lines = pd.read_csv(tmp_path / "a.lines.csv")
    assert list(lines["rank"]) == [1, 2, 3] * 10
    assert list(lines["cancer_type"][::3]) == ["Breast"] * 5 + ["Lung"] * 5
    assert (lines["draws_low"] < lines["draws_high"]).all()
    assert lines["in_draws"].between(0, 1).all()
    aligned = pd.read_csv(tmp_path / "a.csv", index_col="sample")
    assert list(aligned.columns) == GENES
    assert (aligned >= 0).all(axis=None)


def test_align_says_which_cancer_types_there_are(run, tpm):
    assert "one of Breast, Lung" in run("align", tpm).err
    refused = run("align", tpm, "--cancer-type", "Bone")
    assert refused.code == 2
    assert "found 'Bone'" in refused.err


def test_drug_response_is_that_of_the_nearest_lines(run, tpm, tmp_path):
    answer = pd.DataFrame({"kills breast": np.tile([-3.0, 0.0], 20)}, [f"s{i}" for i in range(60, 100)])
    answer.to_csv(tmp_path / "prism.csv", index_label="")
    options = ("--cancer-type", "Breast", "--drug-response", tmp_path / "prism.csv", "--out", tmp_path / "a.csv")
    assert run("align", tpm.iloc[:5], *options).code == 0
    drugs = pd.read_csv(tmp_path / "a.drugs.csv")
    assert (drugs["predicted"] < drugs["lines_mean"]).all()
    assert (drugs["lines_n"] == 40).all()


def test_impute_keeps_what_was_measured_and_fills_in_the_rest(run, tpm, tmp_path):
    assert run("impute", tpm.iloc[:, 5:], "--hide", "GA9", "--out", tmp_path / "i.h5ad").code == 0
    filled = ad.read_h5ad(tmp_path / "i.h5ad")
    assert list(filled.var_names) == GENES
    measured = [g for g in GENES[5:] if g != "GA9"]
    np.testing.assert_allclose(filled[:, measured].X, np.log2(tpm[measured] + 1), rtol=1e-4)
    blood, brain = filled.X[:5, [0, 1, 9]].mean(), filled.X[5:, [0, 1, 9]].mean()
    assert blood > brain + 0.5
    assert "not for diagnosis" in filled.uns["note"]
    assert run("impute", tpm).code == 2


def test_embed_and_reconstruct_give_a_row_per_sample(run, tpm, tmp_path):
    codes = pd.read_csv(io.StringIO(run("embed", tpm).out), index_col=0)
    assert codes.shape == (10, 8)
    assert run("reconstruct", tpm, "--out", tmp_path / "r.h5ad").code == 0
    rebuilt = ad.read_h5ad(tmp_path / "r.h5ad")
    assert np.corrcoef(rebuilt.X.ravel(), np.log2(tpm + 1).to_numpy().ravel())[0, 1] > 0.5


def test_purity_is_estimated_here_or_asked_of_puree_once_the_user_says_yes(run, tpm, monkeypatch):
    done = run("purity", tpm)
    here = pd.read_csv(io.StringIO(done.out), index_col=0)["purity"]
    assert done.code == 0 and here.between(0, 1).all() and "cross-validated mean absolute error" in done.err
    with Puree(pending=0) as server:
        monkeypatch.setattr(estimators, "PUREE", server.url)
        monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
        refused = run("purity", tpm, "--puree")
        assert refused.code == 2 and "nothing was sent" in refused.err and not server.requests and not refused.out
        assert "10 tumours × 60 genes (gene names, samples without names) to 127.0.0.1. Send it?" in refused.err
        monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
        there = pd.read_csv(io.StringIO(run("purity", tpm, "--puree").out), index_col=0)["purity"]
    assert list(there.index) == list(tpm.index) and len(server.uploads) == 1
    assert np.allclose(there, np.clip(np.log2(tpm["GA0"] + 1) / 100, 0, 1), rtol=1e-3)


def test_a_bar_over_a_thousand_samples_only(run, tpm):
    many = pd.concat([tpm] * 101).set_axis([f"n{i}" for i in range(1010)])
    assert "1010/1010" in run("embed", many, float_format="%.2f").err
    assert "sample/s" not in run("embed", tpm).err


# --- what is refused -----------------------------------------------------------------------------------------


def change(table, how):
    """A table with one thing wrong."""
    table = table.copy()
    if how in ("nan", "negative", "zeros"):
        table.iloc[1, slice(None) if how == "zeros" else 5] = {"nan": np.nan, "negative": -3, "zeros": 0}[how]
    names = {"script": "<script>alert(1)</script>", "formula": "=cmd()", "twice": "new1", "control": "a\x1b[2J"}
    if how in names:
        table = table.rename(index={"new0": names[how]})
    genes = {"date": "1-Sep", "other": "XY1"}
    if how in genes:
        table = table.rename(columns={"GA3": genes[how]} if how == "date" else lambda g: f"X{g}")
    return table.iloc[:, :1] if how == "one gene" else table


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("nan", "expected a number"), ("negative", "negative values"), ("zeros", "only zeros in sample 'new1'"),
        ("script", "sample name"), ("formula", "sample name"), ("control", "sample name"),
        ("twice", "sample ids twice"), ("date", "turned into dates"),
        ("other", "0 of the model's 60 genes"), ("one gene", "1 of the model's 60 genes"),
    ],
)  # fmt: skip
def test_a_table_with_something_wrong_is_refused_in_a_line_and_leaves_nothing(run, tpm, tmp_path, how, reason):
    done = run("classify", change(tpm, how), "--out", tmp_path / "x.csv")
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert last.startswith("python -m lib: ")
    assert reason in last
    assert "in.csv" in last
    assert "\x1b" not in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == [tmp_path / "in.csv"]


TEXTS = {
    "empty": b"", "spreadsheet": b"PK\x03\x04", "old spreadsheet": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "cut": gzip.compress(b"sample,GA0\n" * 1000)[:20], "page": b"<!DOCTYPE html><html>", "bzip2": b"BZh91AY",
    "utf16": "sample,GA0\ns1,2\n".encode("utf-16"), "latin": "échantillon,GA0\n".encode("latin-1"),
    "old Mac": b"sample,GA0\rs1,2\r", "R": b'"GA0","GA1"\n"s1",2,3\n', "comma": b"sample;GA0;GA1\ns1;2,5;3\n",
    "binary": bytes(range(256)), "header": b"sample,GA0,GA1\n", "rows": b"sample,GA0\n" + b"s1,1\n" * 2_000_001,
    "columns": b"sample" + b",GA0" * 2_000_001 + b"\n", "line": b"sample,GA0\n" + b"1" * 2**26,
    "zip bomb": gzip.compress((b"s1" + b",1" * 10**5 + b"\n") * 50, 1) * 1000,
}  # fmt: skip


def write_hdf5(path, how):
    """An h5ad of four samples that is not what it says it is."""
    matrix = sparse.csr_matrix(np.ones((4, 60), "f4")) if how.startswith("sparse") else np.ones((4, 60), "f4")
    names = {"obs": pd.DataFrame(index=list("abcd")), "var": pd.DataFrame(index=GENES)}
    ad.AnnData(matrix, **names).write_h5ad(path)
    with h5py.File(path, "a") as file:
        if how.startswith("sparse"):
            file["X"]["indptr" if how == "sparse starts" else "indices"][2] = -1 if how == "sparse below" else 10**9
            return
        del file["X"]
        if how == "link":
            file["X"] = h5py.ExternalLink("/etc/hostname", "X")
            return
        kinds = {
            "bytes of another file": {"shape": (4, 60), "dtype": "u1", "external": [("/etc/hostname", 0, 240)]},
            "hdf5 bomb": {"shape": (10**5, 10**6), "chunks": (100, 100), "dtype": "f4"},
            "chunk": {"shape": (4, 60), "maxshape": (None, None), "chunks": (30000, 30000), "dtype": "f4"},
            "names": {"shape": 10**9, "chunks": 10**6, "dtype": "S1"},
        }
        file.create_dataset("X", **kinds[how])


def refused_file(run, path, options=()):
    done = run("classify", path, *options, "--out", path.with_name("x.csv"))
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert list(path.parent.iterdir()) == [path]
    return done.err


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", "an empty file"), ("spreadsheet", "a spreadsheet or a zip"), ("old spreadsheet", "an old spread"),
        ("cut", "truncated"), ("page", "a web page"), ("bzip2", "bzip2"), ("utf16", "UTF-16"), ("latin", "encoding"),
        ("old Mac", "old Macs"), ("R", "col.names=NA"), ("comma", "a number with a decimal point"),
        ("binary", "binary data"), ("header", "no rows"), ("rows", "more than 2,000,000 rows"),
        ("columns", "more than 2,000,000 columns"), ("line", "a line of"), ("zip bomb", "more than 0.05 GB once"),
    ],
)  # fmt: skip
def test_a_text_file_that_is_no_table_is_refused(run, tmp_path, how, reason):
    (tmp_path / "file").write_bytes(TEXTS[how])
    assert reason in refused_file(run, tmp_path / "file", ["--max-gb", 0.05] if how == "zip bomb" else [])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("link", "lies in another file"), ("bytes of another file", "lies in another file"),
        ("hdf5 bomb", "400.0 GB of data"), ("chunk", "3.6 GB of data"), ("names", "1,000,000,000 texts"),
        ("sparse above", "positions outside"), ("sparse below", "positions outside"),
        ("sparse starts", "positions outside"),
    ],
)  # fmt: skip
def test_an_hdf5_file_that_would_do_harm_is_refused(run, tmp_path, how, reason):
    write_hdf5(tmp_path / "file.h5ad", how)
    assert reason in refused_file(run, tmp_path / "file.h5ad")


def test_a_file_of_5_gb_is_refused_by_its_size(run, tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(5 * 10**9)
    assert "found 5.0 GB, expected at most 2" in refused_file(run, tmp_path / "file")


def test_paths_that_cannot_be_used_are_told_before_anything_is_read(run, tpm, tmp_path, monkeypatch):
    def refused(path, *options):
        done = run("classify", path, *options)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        return done.err

    assert "found a folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.csv")
    assert "no such file" in refused(tpm, "--gtf", tmp_path / "none.gtf")
    assert "found no folder" in refused(tpm, "--out", tmp_path / "none" / "x.csv")
    assert "the input" in refused(tpm, "--out", tmp_path / "in.csv", "--replace")
    (tmp_path / "x.json").write_text("mine")
    assert "x.json there" in refused(tpm, "--out", tmp_path / "x.csv")
    assert run("classify", tpm, "--out", tmp_path / "x.csv", "--replace").code == 0
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "permission" in refused(tpm)


def test_two_columns_of_gene_ids_are_one_id(run, tpm, tmp_path):
    two = tpm.T.rename_axis("gene_name").reset_index()
    two.insert(0, "gene_id", [f"ENSG{i:011d}.7" for i in range(60)])
    two.to_csv(tmp_path / "nf-core.tsv", sep="\t", index=False)
    assert run("classify", tmp_path / "nf-core.tsv").out == run("classify", tpm).out


def test_what_the_reader_cannot_use_gives_a_line_too(run, tmp_path):
    with h5py.File(tmp_path / "odd.h5ad", "w") as file:
        for name in ("X", "obs", "var"):
            file[name] = np.ones((2, 2))
    done = run("classify", tmp_path / "odd.h5ad")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


def test_options_are_checked_before_anything_is_read(run, tpm):
    for options in (
        ["--out", "x.xlsx"],
        ["--min-overlap", "2"],
        ["--unit", "RPKM"],
        ["--max-gb", "nan"],
        ["--no-such"],
    ):
        done = run("classify", tpm, *options)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1


def test_without_trained_models_it_says_what_trains_them(tmp_path, capsys):
    file = tmp_path / "x.csv"
    file.touch()
    assert cli.main(["classify", str(file), "--model", str(tmp_path)]) == 2
    assert "found no models/" in capsys.readouterr().err
    assert cli.main(["classify", str(file), "--profile", "no-such"]) == 2
    assert "no such profile" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_examples_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m lib {command} " in shown.partition("examples:")[2]


def test_it_is_a_module_that_python_runs():
    done = subprocess.run([sys.executable, "-m", "lib", "--help"], capture_output=True, text=True, cwd=config.ROOT)
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


# --- model card ----------------------------------------------------------------------------------------------


def test_the_card_says_what_the_models_are_and_that_demo_models_are_not_for_real_samples(folder, run, tpm):
    smoke = config.load("smoke")
    of = SimpleNamespace(
        processed=folder, name="smoke", title="t", seed=1, data=smoke.data, evaluation=smoke.evaluation
    )
    paths = {name: model_card.write(of, name) for name in ("rnalign", "tissue_vae")}
    cards = {name: model_card.read(path) for name, path in paths.items()}
    assert cards["tissue_vae"]["class_names"] == KINDS["tissue"]
    assert cards["rnalign"]["samples"] == {"train": 100}
    assert all(m["low"] <= m["value"] <= m["high"] for card in cards.values() for m in card["metrics"])
    assert cards["rnalign"]["sources"][0]["licence"]
    assert "60 genes" in (folder / "models" / "rnalign.md").read_text()
    assert "generated demo data (profile smoke, seed 1): not for real samples" in run("classify", tpm).err
    paths["rnalign"].write_text("[]")
    with pytest.raises(ValueError, match=r"card\.json: found no card"):
        model_card.read(paths["rnalign"])
    for path in paths.values():
        path.unlink()


def test_every_name_that_could_run_somewhere_is_unsafe():
    for name in ("=1+1", "+A1", "@SUM", "-cmd", "<b>", "a\nb", "a\u202eb"):
        assert own_file.UNSAFE_NAME.search(name)
    for name in ("TCGA-01", "sample 1", "-1", "5", "Ü+", "a=b"):
        assert not own_file.UNSAFE_NAME.search(name)
