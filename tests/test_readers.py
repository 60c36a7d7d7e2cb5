"""Every format, gene id, unit and kind of damage that lib/readers.py has to know."""

import gzip
import tracemalloc
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from lib import readers
from lib.readers import common_genes, gene_lengths, harmonise_genes, open_expression

REAL = Path(__file__).parents[1].parent / "shared" / "real"
SYMBOLS = ["TP53", "ACTB", "GAPDH", "MYC", "EGFR"]
ENSEMBL = ["ENSG00000141510", "ENSG00000075624", "ENSG00000111640", "ENSG00000136997", "ENSG00000146648"]
ENTREZ = ["7157", "60", "2597", "4609", "1956"]
LOG = np.random.default_rng(0).gamma(2.0, 2.0, (4, 5)).clip(max=15).round(4)
COUNTS = np.random.default_rng(1).poisson(300, (4, 5))
SAMPLES = [f"TCGA-{i:02d}-01" for i in range(4)]

HGNC = pd.DataFrame(
    {
        "symbol": [*SYMBOLS, "SEPTIN1", "NSD2", "OTHER1", "OTHER2"],
        "ensembl_gene_id": [*ENSEMBL, "ENSG00000180096", "ENSG00000109685", "", ""],
        "entrez_id": [*ENTREZ, "1731", "7468", "", ""],
        "prev_symbol": ["", "", "", "", "ERBB", "SEPT1", "WHSC1", "TP53", ""],
        "alias_symbol": ["p53|LFS1", "", "", "", "HER1|SHARED", "", "MMSET", "SHARED", "EGFR"],
    }
)


def write_table(path, values, rows, columns, corner="", sep="\t"):
    lines = [sep.join([corner, *columns])] + [sep.join([r, *map(str, v)]) for r, v in zip(rows, values, strict=True)]
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_archs4(path, counts=COUNTS, transpose=True, **extra):
    with h5py.File(path, "w") as file:
        file["data/expression"] = (counts.T if transpose else counts).astype(np.uint32)
        file["meta/genes/symbol"] = SYMBOLS
        file["meta/genes/ensembl_gene"] = ENSEMBL
        file["meta/samples/geo_accession"] = [f"GSM{i}" for i in range(len(counts))]
        file["meta/samples/title"] = ["liver", "liver", "brain é", "Huh-7"]
        file["meta/samples/singlecellprobability"] = [0.1, 0.2, 0.9, 0.3]
    return path


def log_cpm(counts):
    return np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)


# --- formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz", "no_suffix"])
def test_xena(tmp_path, name):
    path = write_table(tmp_path / name, LOG.T, SYMBOLS, SAMPLES, "sample")
    with open_expression(path) as e:
        assert readers.guess_format(path) == "xena_tsv"
        assert list(e.samples) == SAMPLES and list(e.genes) == SYMBOLS
        np.testing.assert_allclose(e.read().X, LOG, atol=1e-6)


def test_depmap(tmp_path):
    header = [f"{s} ({e})" for s, e in zip(SYMBOLS, ENSEMBL, strict=True)]
    path = write_table(
        tmp_path / "CCLE_expression_full.csv", LOG, ["ACH-000001", "ACH-2", "ACH-3", "ACH-4"], header, sep=","
    )
    assert readers.guess_format(path) == "depmap_csv"
    with open_expression(path) as e:
        assert list(e.genes) == SYMBOLS and e.samples[0] == "ACH-000001" and e.unit == "log2(TPM+1)"
        np.testing.assert_allclose(e.read().X, LOG, atol=1e-6)


def write_gct(path, tpm, size=None):
    size = size or f"{tpm.shape[1]}\t{tpm.shape[0]}"
    rows = [f"{e}.7\t{s}\t" + "\t".join(map(str, v)) for e, s, v in zip(ENSEMBL, SYMBOLS, tpm.T, strict=True)]
    text = "\n".join(["#1.2", size, "Name\tDescription\t" + "\t".join(SAMPLES), *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_gct(tmp_path):
    tpm = np.array([[5000.5, 20, 1, 0, 3]] * 4) * np.arange(1, 5)[:, None]
    with open_expression(write_gct(tmp_path / "g.gct.gz", tpm)) as e:
        assert e.unit == "TPM" and list(e.genes) == SYMBOLS
        np.testing.assert_allclose(e.read().X, np.log2(tpm + 1), rtol=1e-6)
    with pytest.raises(ValueError, match="second line"):
        open_expression(write_gct(tmp_path / "cut.gct.gz", tpm, "9\t4"))


def test_archs4_counts_to_cpm_and_tpm(tmp_path):
    path = write_archs4(tmp_path / "human_gene_v2.5.h5")
    with open_expression(path) as e:
        assert e.unit == "counts" and "CPM" in e.unit_note and e.read().uns["unit"] == "log2(CPM+1)"
        assert e.obs["title"].tolist() == ["liver", "liver", "brain é", "Huh-7"]
        assert e.obs.loc["GSM2", "singlecellprobability"] == 0.9
        np.testing.assert_allclose(e.read().X, log_cpm(COUNTS), rtol=1e-6)
    lengths = pd.Series([1000, 2000, 500, 4000], index=SYMBOLS[:4])
    with open_expression(path, gene_lengths=lengths) as e:
        assert list(e.genes) == SYMBOLS[:4] and e.output_unit == "log2(TPM+1)"
        np.testing.assert_allclose(np.exp2(e.read().X) - 1, _tpm(COUNTS[:, :4], lengths.to_numpy()), rtol=1e-4)


def _tpm(counts, lengths):
    rate = counts / lengths
    return rate / rate.sum(axis=1, keepdims=True) * 1e6


@pytest.mark.parametrize("names", [("expression", "gene_symbols"), ("matrix", "feature_names")])
def test_flexynesis_layouts(tmp_path, names):
    path = tmp_path / "gex.h5"
    with h5py.File(path, "w") as file:
        file[names[0]] = (LOG - LOG.mean(0)).astype(np.float32)
        file[names[1]] = np.array(SYMBOLS, dtype="S")
        file["sample_ids"] = np.array(SAMPLES, dtype="S")
    with pytest.raises(ValueError, match="negative"):
        open_expression(path)
    with open_expression(path, unit="scaled") as e:
        assert list(e.samples) == SAMPLES and e.output_unit == "scaled"
        np.testing.assert_allclose(e.read().X, LOG - LOG.mean(0), atol=1e-6)
    with h5py.File(path, "r+") as file:
        file[names[0]][1, 2] = -np.inf
    with open_expression(path, unit="scaled") as e, pytest.raises(ValueError, match="found -inf, expected a finite"):
        e.read()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_h5ad_keeps_obs_and_declared_unit(tmp_path, kind):
    obs = pd.DataFrame({"tissue": ["liver", "brain", "skin", "lung"]}, index=SAMPLES)
    adata = ad.AnnData(kind(LOG.astype(np.float32)), obs, pd.DataFrame(index=SYMBOLS), uns={"unit": "log2(x+1); mixed"})
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_expression(tmp_path / "a.h5ad") as e:
        assert e.unit == "log2" and e.obs["tissue"].tolist() == obs["tissue"].tolist()
        np.testing.assert_allclose(e.read().X, LOG, atol=1e-6)


@pytest.mark.parametrize("ids", [SYMBOLS, ENSEMBL, [f"{e}.3" for e in ENSEMBL], ENTREZ])
@pytest.mark.parametrize("genes_in", ["rows", "columns"])
def test_delimited_finds_orientation_and_ids(tmp_path, ids, genes_in):
    rows, columns, values = (ids, SAMPLES, LOG.T) if genes_in == "rows" else (SAMPLES, ids, LOG)
    path = write_table(tmp_path / "x.csv", values, rows, columns, "id", ",")
    with open_expression(path, "delimited", gene_ids=HGNC) as e:
        assert list(e.genes) == SYMBOLS
        np.testing.assert_allclose(e.read().X, LOG, atol=1e-6)


def test_delimited_asks_when_the_axis_is_unclear(tmp_path):
    path = write_table(tmp_path / "x.csv", LOG, list("abcd"), list("efghi"), "id", ",")
    with pytest.raises(ValueError, match="head the first column 'gene' or 'sample'"):
        open_expression(path)
    with readers.delimited(path, genes_in="columns") as e:
        assert list(e.genes) == list("efghi")


def test_quoted_fields_and_byte_order_mark(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('\ufeff"","TP53","ACTB"\r\n"TCGA-1, a",1.5,2\r\n"TCGA-2",0,3.25\r\n', encoding="utf-8")
    with open_expression(path) as e:
        assert list(e.samples) == ["TCGA-1, a", "TCGA-2"] and e.read().X.tolist() == [[1.5, 2.0], [0.0, 3.25]]


# --- chunks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_add_up_to_read(tmp_path, size):
    with open_expression(write_archs4(tmp_path / "a.h5")) as e:
        parts = list(e.chunks(size))
        assert max(p.n_obs for p in parts) <= size
        assert np.array_equal(np.vstack([p.X for p in parts]), e.read().X) and parts[0].X.dtype == np.float32
        assert [n for p in parts for n in p.obs_names] == list(e.samples)


def test_samples_and_genes_in_the_order_asked_for(tmp_path):
    with open_expression(write_archs4(tmp_path / "a.h5")) as e:
        part = e.read(samples=["GSM3", "GSM0"], genes=["MYC", "TP53"])
        np.testing.assert_array_equal(part.X, e.read().X[[3, 0]][:, [3, 0]])
        assert part.obs["title"].tolist() == ["Huh-7", "liver"] and list(part.var_names) == ["MYC", "TP53"]
        assert e.read(samples=e.obs["singlecellprobability"] < 0.5).n_obs == 3
        with pytest.raises(ValueError, match="NOPE"):
            e.read(genes=["NOPE"])


def test_subset_of_genes_keeps_the_library_size(tmp_path):
    with open_expression(write_archs4(tmp_path / "a.h5")) as e:
        np.testing.assert_allclose(e.read(genes=["TP53"]).X[:, 0], log_cpm(COUNTS)[:, 0], rtol=1e-6)


def test_large_table_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK_VALUES", 64)
    values = np.random.default_rng(2).integers(1, 1000, (30, 40))
    values[:, 39] = 0
    path = write_table(tmp_path / "x.tsv", values.T, [f"GENE{i}" for i in range(40)], [f"TCGA-{i}" for i in range(30)])
    with open_expression(path) as e:
        np.testing.assert_allclose(e.read().X, log_cpm(values), rtol=1e-5)


def test_temporary_copy_goes_away(tmp_path):
    path = write_table(tmp_path / "x.tsv", LOG.T, SYMBOLS, SAMPLES)
    cache = tmp_path / "cache"
    cache.mkdir()
    e = open_expression(path, cache=cache)
    assert list(cache.iterdir())
    e.close()
    with pytest.raises(ValueError, match="number"):
        open_expression(write_table(tmp_path / "bad.tsv", [["x"] * 4] * 5, SYMBOLS, SAMPLES), cache=cache)
    assert not list(cache.iterdir())


def test_obs_table_is_joined(tmp_path):
    write_archs4(tmp_path / "a.h5")
    (tmp_path / "obs.csv").write_text("sample,tissue\nGSM1,skin\nGSM0,liver\n")
    with open_expression(tmp_path / "a.h5", obs=tmp_path / "obs.csv") as e:
        assert e.obs["tissue"].tolist()[:2] == ["liver", "skin"] and e.obs["tissue"].isna().sum() == 2
    with pytest.raises(ValueError, match="samples like other"):
        open_expression(tmp_path / "a.h5", obs=pd.DataFrame({"tissue": ["x"]}, index=["other"]))


# --- genes --------------------------------------------------------------------------------------------------


def test_harmonise_rules():
    ids = [
        "ENSG00000141510.16",
        "ACTB (ENSG00000075624)",
        "WHSC1",
        "MMSET",
        "ERBB",
        "SHARED",
        "SEPT1 (1731)",
        "UNKNOWN",
        "60",
    ]
    expected = ["TP53", "ACTB", "NSD2", "MMSET", "EGFR", "SHARED", "SEPTIN1", "UNKNOWN", "ACTB"]
    assert list(harmonise_genes(ids, HGNC)) == expected  # MMSET stays: NSD2 has a row of its own; SHARED has two genes
    assert list(harmonise_genes(["MMSET", "LFS1"], HGNC)) == ["NSD2", "TP53"]
    without = ["TP53", "ENSG00000141510", "ENSG00000002586", "7157"]
    assert list(harmonise_genes(["TP53 (7157)", "ENSG00000141510.2", "ENSG00000002586.20_PAR_Y", "7157"])) == without


def test_gene_table_from_file(tmp_path):
    HGNC.assign(status="Approved", locus_group="protein-coding gene").to_csv(
        tmp_path / "hgnc.txt", sep="\t", index=False
    )
    assert list(harmonise_genes(["7468"], tmp_path / "hgnc.txt")) == ["NSD2"]
    (tmp_path / "wrong.txt").write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="expected also symbol"):
        harmonise_genes(["7468"], tmp_path / "wrong.txt")


DATES = ["1-Sep", "2-Mar", "Sep-01", "2023-09-01", "1-Dec (ENSG00000173077)", "01. Mrz", "01.09.2023", "1-Sep-24"]


@pytest.mark.parametrize("symbol", DATES)
def test_spreadsheet_dates_are_refused(symbol):
    with pytest.raises(ValueError, match=r"dates by a spreadsheet.*SEPTIN1"):
        harmonise_genes(["TP53", symbol])


@pytest.mark.parametrize("unit, values", [("counts", COUNTS), ("log2(TPM+1)", LOG), ("log2(TPM+0.001)", LOG - 5)])
def test_rows_of_one_gene_are_summed_on_the_linear_scale(tmp_path, unit, values):
    ids = ["TP53", "ENSG00000141510.1", "GAPDH", "MYC", "EGFR"]
    with readers.xena_tsv(write_table(tmp_path / "x.tsv", values.T, ids, SAMPLES), unit, gene_ids=HGNC) as e:
        assert list(e.genes) == ["TP53", "GAPDH", "MYC", "EGFR"]
        found = np.exp2(e.read().X) - 1
    linear = {
        "counts": values,
        "log2(TPM+1)": np.exp2(values) - 1,
        "log2(TPM+0.001)": np.exp2(values) - 0.001,
    }[unit]
    merged = np.column_stack([linear[:, 0] + linear[:, 1], linear[:, 2:]]).clip(0)
    expected = merged / merged.sum(1, keepdims=True) * 1e6 if unit == "counts" else merged
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_common_genes(tmp_path):
    a = open_expression(write_archs4(tmp_path / "a.h5"))
    b = open_expression(write_table(tmp_path / "b.tsv", LOG[:, :3].T, ["X1", "MYC", "TP53"], SAMPLES, "sample"))
    c = open_expression(write_table(tmp_path / "c.tsv", LOG[:, :3].T, ["X1", "X2", "X3"], SAMPLES, "sample"))
    assert list(common_genes([a, b])) == ["TP53", "MYC"]
    with pytest.raises(ValueError, match=r"a\.h5.*c\.tsv.*0 genes in common"):
        common_genes([a, c])


def test_gene_lengths_are_the_union_of_exons(tmp_path):
    exon = 'chr1\tX\t{}\t{}\t{}\t.\t+\t.\tgene_id "{}.4"; transcript_id "T"; gene_name "{}";'
    rows = [
        ("gene", 1, 900, 0),
        ("exon", 1, 100, 0),
        ("exon", 51, 150, 0),
        ("exon", 301, 400, 0),
        ("exon", 320, 330, 0),
    ]
    rows += [("gene", 1, 9, 1), ("exon", 11, 20, 1)]
    text = "#!genome\n" + "".join(exon.format(f, a, b, ENSEMBL[g], SYMBOLS[g]) + "\n" for f, a, b, g in rows)
    (tmp_path / "g.gtf.gz").write_bytes(gzip.compress(text.encode()))
    assert gene_lengths(tmp_path / "g.gtf.gz", HGNC).to_dict() == {"TP53": 250, "ACTB": 10}


# --- units --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, unit",
    [
        (COUNTS, "counts"),
        (np.full((4, 5), 5e5) + 0.25, "counts"),  # fractions, but more than a million per sample
        (np.array([[9e5, 9e4, 9e3, 9e2, 0.5]] * 4), "TPM"),
        (np.log2(np.array([[9e5, 9e4, 9e3, 9e2, 0.5]] * 4) + 1), "log2(TPM+1)"),
        (LOG, "log2"),
    ],
)
def test_unit_is_told_by_the_values(tmp_path, values, unit):
    with open_expression(write_table(tmp_path / "x.tsv", values.T, SYMBOLS, SAMPLES, "sample")) as e:
        assert e.unit == unit


def test_toil_offset_is_converted_exactly(tmp_path):
    tpm = np.array([[0, 0.001, 1, 50.5, 3000]] * 4)
    values = np.log2(tpm + 0.001).round(4)
    path = write_table(tmp_path / "toil.tsv", values.T, ENSEMBL, SAMPLES, "sample")
    with pytest.raises(ValueError, match="unit declared"):
        open_expression(path)
    with open_expression(path, unit="log2(TPM+0.001)") as e:
        np.testing.assert_allclose(np.exp2(e.read().X) - 1, tpm, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"below -9\.97"):
        open_expression(write_table(tmp_path / "l.tsv", values.T - 1, ENSEMBL, SAMPLES), unit="log2(TPM+0.001)")


@pytest.mark.parametrize(
    "unit, values",
    [("log2(TPM+1)", COUNTS), ("TPM", np.full((4, 5), 5e5)), ("counts", -LOG), ("furlongs", LOG)],
)
def test_contradicted_unit_is_an_error(tmp_path, unit, values):
    path = write_table(tmp_path / "x.tsv", values.T, SYMBOLS, SAMPLES)
    with pytest.raises(ValueError, match="expected"):
        open_expression(path, unit=unit)


# --- as programs leave tables -------------------------------------------------------------------------------


def test_empty_ends_of_rows_and_empty_rows_of_a_spreadsheet_do_not_count(tmp_path):
    good = write_table(tmp_path / "x.csv", LOG.T, SYMBOLS, SAMPLES, "gene", ",")
    lines = good.read_text().splitlines()
    (tmp_path / "e.csv").write_text("\r\n".join([f"{line},," for line in lines] + [",,,"] * 3) + "\r\n")
    (tmp_path / "r.csv").write_text("\n".join(lines[:1] + [f"{line}," for line in lines[1:]]))
    for name in ("e.csv", "r.csv"):
        with open_expression(good) as a, open_expression(tmp_path / name) as b:
            assert list(b.samples) == SAMPLES
            np.testing.assert_array_equal(a.read().X, b.read().X)


def test_a_gct_s_description_is_a_symbol_only_where_it_looks_like_one(tmp_path):
    rows = [("TP53", "na"), ("ACTB", "beta actin"), ("7157_at", "GAPDH"), ("ENSG00000136997.19", "MYC")]
    table = "".join(f"{name}\t{said}\t1.5\t2\n" for name, said in rows)
    (tmp_path / "x.gct").write_text(f"#1.2\n4\t2\nName\tDescription\tS1\tS2\n{table}")
    with open_expression(tmp_path / "x.gct") as e:
        assert list(e.genes) == ["TP53", "ACTB", "GAPDH", "MYC"]


# --- bad input: one line with file, found and expected ------------------------------------------------------


def damage(folder):
    """name -> (path, exception, what the message must say)."""
    good = write_table(folder / "good.tsv.gz", np.tile(LOG.T, (1, 50)), SYMBOLS, [f"TCGA-{i}" for i in range(200)])
    cut = folder / "cut.tsv.gz"
    cut.write_bytes(good.read_bytes()[:-200])
    files = {
        "html": b"<!DOCTYPE html>\n<html><body>404</body></html>",
        "empty": b"",
        "header": b"gene\tTCGA-1\tTCGA-2\n",
        "twice": b"gene\tTCGA-1\tTCGA-1\nTP53\t1\t2\n",
        "text": b"gene\tTCGA-1\tTCGA-2\nTP53\t1\t2\nACTB\tabc\t2\n",
        "missing": b"gene\tTCGA-1\tTCGA-2\nTP53\t1\t\nACTB\t1\t2\n",
        "nan": b"gene\tTCGA-1\tTCGA-2\nTP53\t1\tNaN\nACTB\t1\t2\n",
        "negative": b"gene\tTCGA-1\tTCGA-2\nTP53\t1.5\t-2\nACTB\t1\t2\n",
        "ragged": b"gene\tTCGA-1\tTCGA-2\nTP53\t1\t2\nACTB\t1\n",
        "zeros": b"gene\tTCGA-1\tTCGA-2\nTP53\t0\t0\nACTB\t0\t0\n",
        "binary": bytes(range(128, 256)) * 20,
        "date": b"gene\tTCGA-1\tTCGA-2\nTP53\t1\t2\n1-Sep\t0\t3\n",
        "title": b"My cohort, TPM\ngene\tTCGA-1\tTCGA-2\nTP53\t1\t2\n",
        "comment": b"# featureCounts\ngene\tTCGA-1\tTCGA-2\nTP53\t1\t2\n",
        "padded": b"My cohort\t\t\ngene\tTCGA-1\tTCGA-2\nTP53\t1\t2\n",
        "unnamed": b"gene\t\tTCGA-2\nTP53\t1\t2\nACTB\t1\t2\n",
        "words": b"gene\tTCGA-1\tabout\nTP53\t1\ta gene\nACTB\t1\ta gene\n",
    }
    for name, content in files.items():
        (folder / f"{name}.tsv").write_bytes(content)
    (folder / "html.h5").write_bytes(files["html"])
    (folder / "no.h5").write_bytes(b"abc")
    (folder / "half.h5").write_bytes(write_archs4(folder / "whole.h5").read_bytes()[:1500])
    with h5py.File(folder / "other.h5", "w") as file:
        file["something"] = [1.0]
    write_archs4(folder / "turned.h5", transpose=False)
    value, os_error = ValueError, OSError
    return {
        folder / "absent.tsv": (FileNotFoundError, "no such file"),
        cut: (os_error, "truncated or damaged gzip"),
        folder / "html.tsv": (value, "HTML"),
        folder / "html.h5": (value, "HTML"),
        folder / "no.h5": (os_error, "HDF5"),
        folder / "half.h5": (os_error, "HDF5"),
        folder / "empty.tsv": (value, "empty"),
        folder / "header.tsv": (value, "no rows"),
        folder / "twice.tsv": (value, "TCGA-1"),
        folder / "text.tsv": (value, "'abc' in row 'ACTB', column 'TCGA-1'"),
        folder / "missing.tsv": (value, "'' in row 'TP53', column 'TCGA-2'"),
        folder / "nan.tsv": (value, "'NaN' in row 'TP53', column 'TCGA-2'"),
        folder / "negative.tsv": (value, "negative values"),
        folder / "ragged.tsv": (value, "1 values in row 2 ('ACTB'), expected 2"),
        folder / "zeros.tsv": (value, "only zeros"),
        folder / "binary.tsv": (value, "binary"),
        folder / "date.tsv": (value, "1-Sep"),
        folder / "title.tsv": (value, "expected"),
        folder / "comment.tsv": (value, "without a title"),
        folder / "padded.tsv": (value, "without a title"),
        folder / "unnamed.tsv": (value, "no name above column 2"),
        folder / "words.tsv": (value, "only samples and genes have columns"),
        folder / "other.h5": (value, "data/expression"),
        folder / "turned.h5": (value, "transposed"),
    }


CASES = """absent cut html.tsv html.h5 no half empty header twice text missing nan negative ragged zeros
binary date title comment padded unnamed words other turned"""


@pytest.mark.parametrize("case", CASES.split())
def test_bad_file_is_refused_in_one_line(tmp_path, case):
    cache = tmp_path / "cache"
    cache.mkdir()
    path, (error, words) = next((p, e) for p, e in damage(tmp_path).items() if p.name.startswith(case))
    with pytest.raises(error) as caught:
        open_expression(path, cache=cache)
    message = str(caught.value)
    assert str(path) in message and words in message and "expected" in message and "\n" not in message
    assert not list(cache.iterdir())


def test_archs4_without_expression_names_the_data_set(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["meta/samples/geo_accession"] = ["GSM1"]
    with pytest.raises(ValueError, match="no data/expression"):
        readers.archs4_h5(tmp_path / "x.h5")


@pytest.mark.parametrize("value", [np.nan, -3.0])
def test_bad_value_in_hdf5_is_found_when_read(tmp_path, value):
    values = np.tile(LOG, (100, 1)).astype(np.float32)
    values[201, 2] = value  # not among the samples that decide about the unit
    adata = ad.AnnData(values, pd.DataFrame(index=[f"s{i}" for i in range(400)]), pd.DataFrame(index=SYMBOLS))
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_expression(tmp_path / "a.h5ad") as e, pytest.raises(ValueError, match="'s201', gene 'GAPDH'"):
        list(e.chunks(64))


def test_no_code_is_run_from_a_file(tmp_path):
    import pickle

    (tmp_path / "x.h5ad").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(OSError, match="HDF5"):
        open_expression(tmp_path / "x.h5ad")


# --- metadata -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reader, header",
    [
        (readers.treehouse_clinical, "th_sampleid\tdisease\tage_at_dx"),
        (readers.celligner_info, "sampleID,lineage,subtype,type"),
        (readers.depmap_sample_info, "DepMap_ID,stripped_cell_line_name,lineage"),
        (readers.gtex_samples, "SAMPID\tSMTS\tSMTSD"),
    ],
)
def test_metadata_tables(tmp_path, reader, header):
    sep = "\t" if "\t" in header else ","
    values = sep.join(["GTEX-11AB-01-X", "b", "c", "d"][: len(header.split(sep))])
    (tmp_path / "m.txt").write_text(f"{header}\n{values}\n")
    assert list(reader(tmp_path / "m.txt").index) == ["GTEX-11AB-01-X"]
    (tmp_path / "m.txt").write_text(f"{header}\n{values}\n{values}\n")
    with pytest.raises(ValueError, match="twice"):
        reader(tmp_path / "m.txt")
    (tmp_path / "m.txt").write_text(f"a{sep}b\n1{sep}2\n")
    with pytest.raises(ValueError, match="expected also"):
        reader(tmp_path / "m.txt")


def test_gtex_donor(tmp_path):
    (tmp_path / "a.txt").write_text("SAMPID\tSMTS\tSMTSD\nGTEX-1117F-0226-SM-5GZZ7\tBlood\tWhole Blood\n")
    assert readers.gtex_samples(tmp_path / "a.txt")["donor"].tolist() == ["GTEX-1117F"]


# --- real files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, shape, unit",
    [
        ("alignment_192genes.h5ad", (991, 192), "log2"),
        ("leukaemia_counts.h5ad", (188, 17235), "counts"),
        ("gtex_v8_97genes_tpm.gct.gz", (14777, 97), "TPM"),
        ("gtexpanel_log2_entrez.csv.gz", (442, 467), "log2"),
        ("treehouse_counts.tsv.gz", (315, 787), "counts"),
        ("neuroblastoma_counts.csv.gz", (85, 1000), "counts"),
        ("tall_log2.csv.gz", (225, 417), "log2"),
    ],
)
def test_real_files(name, shape, unit):
    if not (REAL / name).exists():
        pytest.skip("real expression data are not beside the repository")
    with open_expression(REAL / name) as e:
        assert (len(e.samples), len(e.genes)) == shape and e.unit == unit
        assert np.isfinite(next(e.chunks(200)).X).all()


@pytest.mark.parametrize("format", ["flexynesis_h5", "xena_tsv"])
def test_memory_stays_bounded(tmp_path, format, monkeypatch):
    """A matrix of 8 MB (as float32) is opened and read with much less than that."""
    monkeypatch.setattr(readers, "BLOCK_VALUES", 2**14)
    samples, genes = [f"TCGA-{i}" for i in range(2000)], [f"GENE{i}" for i in range(1000)]
    path = tmp_path / "x"
    if format == "xena_tsv":
        write_table(path, np.full((1000, 1), "\t".join(["2.5"] * 2000)), genes, samples)
    else:
        with h5py.File(path, "w") as file:
            file["gene_symbols"], file["sample_ids"] = genes, samples
            file.create_dataset("expression", (2000, 1000), np.float32, chunks=(64, 1000), fillvalue=2.5)
    tracemalloc.start()
    with open_expression(path, format) as e:
        n = sum(chunk.n_obs for chunk in e.chunks(64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 2000 and peak < 4e6
