"""The demo archives: the same bytes from the same seed, native formats, and a truth that holds."""

import gzip
import hashlib
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from lib import synthetic, synthetic_archives
from lib.calibration import RULES, calibration_table, correlation_quantiles, mean_variance_slope, most_alike
from lib.synthetic import SIZES, Demo, DemoSize, generate, mix
from lib.synthetic_vocabulary import GEO_PHRASES, PUBLISHED_TEST_COUNTS, TARGET_GROUPS

TINY = DemoSize(700, 200, 60, 700, 5, 80, 1.0, 0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("demo"), "smoke", seed=1)


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(SIZES["smoke"], seed=1)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes_other_seed_others(tmp_path):
    first, again, other = (digests(generate(tmp_path / n, TINY, seed)) for n, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert first == again
    assert first.keys() == other.keys()
    archives = synthetic_archives
    for name in (archives.TREEHOUSE, archives.DEPMAP, archives.GTEX, archives.ARCHS4, archives.TCGA, archives.TARGET):
        assert first[name] != other[name]


def test_no_temporary_file_is_left(folder):
    assert not list(folder.rglob("*.part"))


def test_unknown_size_and_too_few_genes_are_errors(tmp_path):
    with pytest.raises(ValueError, match="size: found 'huge', expected one of demo, smoke"):
        generate(tmp_path, "huge")
    with pytest.raises(ValueError, match="genes: found 100, expected more than"):
        Demo(DemoSize(genes=100), 0)


def test_alignment_archives_open_as_the_public_files_do(folder):
    tumours = pd.read_csv(folder / synthetic_archives.TREEHOUSE, sep="\t", index_col=0)
    clinical = pd.read_csv(folder / synthetic_archives.TREEHOUSE_CLINICAL, sep="\t")
    lines = pd.read_csv(folder / synthetic_archives.DEPMAP, index_col=0)
    info = pd.read_csv(folder / synthetic_archives.DEPMAP_INFO)
    assert list(tumours.columns) == list(clinical["th_sampleid"])
    assert list(lines.index) == list(info["DepMap_ID"]) and lines.index.str.startswith("ACH-").all()
    assert lines.columns.str.fullmatch(r"\S+ \(ENSG009\d{8}\)").all()
    assert {"ESR1", "ERBB2", "KRT5", "MKI67"} <= set(tumours.index)
    for log2 in (tumours.T, lines):
        assert np.isfinite(log2).all().all() and (log2 >= 0).all().all()
        assert (np.exp2(log2) - 1).sum(axis=1).between(0.85e6, 1.01e6).all()


def test_gtex_is_a_gct_with_duplicate_symbols(folder):
    with gzip.open(folder / synthetic_archives.GTEX, "rt") as stream:
        assert stream.readline() == "#1.2\n"
        n_genes, n_samples = map(int, stream.readline().split())
        tpm = pd.read_csv(stream, sep="\t")
    attributes = pd.read_csv(folder / synthetic_archives.GTEX_ATTRIBUTES, sep="\t")
    assert tpm.shape == (n_genes, n_samples + 2)
    assert list(tpm.columns[2:]) == list(attributes["SAMPID"])
    assert tpm["Name"].str.fullmatch(r"ENSG\d{11}\.\d+").all() and tpm["Name"].is_unique
    assert tpm["Description"].duplicated().sum() > 0


@pytest.mark.parametrize("archive", ["TCGA", "TARGET"])
def test_toil_matrices_are_log2_of_tpm_and_a_thousandth(folder, archive):
    matrix = pd.read_csv(folder / getattr(synthetic_archives, archive), sep="\t", index_col=0, compression="gzip")
    phenotype = pd.read_csv(folder / getattr(synthetic_archives, f"{archive}_PHENOTYPE"), sep="\t", compression="gzip")
    assert list(matrix.columns) == list(phenotype.iloc[:, 0])
    assert matrix.min().min() == pytest.approx(np.log2(0.001), abs=1e-4)
    assert (np.exp2(matrix) - 0.001).sum().between(0.85e6, 1.01e6).all()


def test_archs4_holds_counts_and_its_fields(folder):
    with h5py.File(folder / synthetic_archives.ARCHS4) as file:
        expression, samples = file["data/expression"], file["meta/samples"]
        truth = pd.read_csv(folder / synthetic_archives.TRUTH_ARCHS4, sep="\t")
        assert expression.dtype == np.uint32
        assert expression.shape == (len(file["meta/genes/symbol"]), len(truth))
        assert list(samples["geo_accession"].asstr()) == list(truth["geo_accession"])
        single = samples["singlecellprobability"][:] >= 0.5
        assert (single == (truth["kind"] == "single cell")).all() and 0.25 < single.mean() < 0.4
        depth = expression[:].sum(axis=0, dtype=float)
        assert np.median(depth[single]) < np.median(depth[~single]) / 10
        source = pd.Series(samples["source_name_ch1"].asstr()[:])
    assert source.isin([p for phrases in GEO_PHRASES.values() for p in phrases]).mean() > 0.3


def test_gtf_exons_add_up_to_the_gene_lengths(folder, demo):
    columns = ["chr", "by", "feature", "start", "end", "score", "strand", "frame", "attributes"]
    gtf = pd.read_csv(folder / synthetic_archives.GTF, sep="\t", comment="#", names=columns)
    exons = gtf[gtf["feature"] == "exon"]
    mine = exons[exons["attributes"].str.contains('gene_name "ESR1"')]
    covered = set()
    for exon in mine.itertuples():
        covered |= set(range(exon.start, exon.end + 1))
    assert len(covered) == demo.genes.at["ESR1", "length"]


def test_mixing_at_purity_one_is_the_programme(demo):
    tumour = demo.tumour_programme[:5]
    other = demo.line_programme[:5]
    half, one = np.full(5, 0.5, np.float32), np.ones(5, np.float32)
    response = np.full(len(demo.genes), 3.0, np.float32)
    np.testing.assert_allclose(mix(tumour, other, other, one, half, response, response), tumour, rtol=1e-5)
    mixed = mix(tumour, other, other, half, half, 0 * response, 0 * response)
    np.testing.assert_allclose(mixed, (tumour + other) / 2, rtol=1e-4, atol=1e-3)


def test_crosstalk_is_not_additive(demo):
    tumour, other = demo.tumour_programme[:3], demo.line_programme[:3]
    half, response = np.full(3, 0.5, np.float32), np.zeros(len(demo.genes), np.float32)
    response[::2] = 3
    additive = mix(tumour, other, other, half, half, 0 * response, 0 * response)
    assert np.abs(np.log2(mix(tumour, other, other, half, half, response, response) / additive)).max() > 0.3


def test_truth_goes_with_the_archives(folder, demo):
    truth = ad.read_h5ad(folder / synthetic_archives.TRUTH)
    tumours = pd.read_csv(folder / synthetic_archives.TREEHOUSE, sep="\t", index_col=0)
    lines = pd.read_csv(folder / synthetic_archives.DEPMAP, index_col=0)
    assert list(truth.obs_names) == [*tumours.columns, *lines.index]
    measured = tumours.T.reindex(columns=truth.var_names).to_numpy()
    true = truth[: len(measured)].X
    r = [np.corrcoef(a[~np.isnan(a)], b[~np.isnan(a)])[0, 1] for a, b in zip(measured, true, strict=True)]
    assert np.median(r) > 0.95
    line = truth.obs[truth.obs["sample_type"] == "cell line"]
    assert (line["purity"] == 1).all()
    assert ((line["cancer_type"] != line["true_type"]) == line["mislabelled"]).all() and line["mislabelled"].any()
    assert not (line["truly_aligns"] & line["mislabelled"]).any() and 0.1 < line["truly_aligns"].mean() < 0.9


def test_tumours_are_nearer_to_their_programme_the_purer_they_are(demo):
    log2 = np.log2(demo.tumour_profile + 1), np.log2(demo.tumour_programme + 1)
    distance = np.abs(log2[0] - log2[1]).mean(axis=1)
    assert np.corrcoef(distance, demo.patients["purity"])[0, 1] < -0.7


def test_26_cancer_types_and_one_paediatric_subtype_without_lines(demo):
    tumours = demo.patients[demo.patients["in_treehouse"]]
    assert tumours["cancer_type"].nunique() == demo.lines["cancer_type"].nunique() == 26
    assert "Wilms" in set(tumours["subtype"]) and "Wilms" not in set(demo.lines["true_subtype"])
    size = Demo(SIZES["demo"], 1)
    assert size.patients["in_treehouse"].sum() >= 1200 and len(size.lines) >= 250


def test_target_has_the_published_groups():
    groups = Demo(SIZES["demo"], 1).target["group"].value_counts()
    assert groups.to_dict() == {name: row[0] for name, row in TARGET_GROUPS.items()}
    assert groups.sum() == 734


def test_tissues_keep_the_published_imbalance():
    demo = Demo(SIZES["demo"], 1)
    archs4 = demo.archs4[demo.archs4["kind"] == "tissue"]["true_tissue"].value_counts()
    kept = (archs4 * demo.size.archs4_subset).add(demo.gtex["tissue"].value_counts(), fill_value=0)
    kept = kept.add(demo.tcga["tissue"].value_counts(), fill_value=0)
    published = pd.Series(PUBLISHED_TEST_COUNTS)
    assert len(kept) == 42 and kept.idxmax() == "blood" and kept.idxmin() in ("biliary tract", "pleura")
    assert kept.corr(published, method="spearman") > 0.95
    assert kept.sum() - max(0, 0.75 * kept["blood"] - 600) >= 5000


def test_studies_hold_one_tissue_and_differ(demo):
    samples = demo.archs4[demo.archs4["kind"] == "tissue"]
    assert (samples.groupby("study")["true_tissue"].nunique() == 1).all()
    assert samples.groupby("true_tissue")["study"].nunique().min() >= 3
    effects = [demo.study_effect(s) for s in samples["study"].unique()[:2]]
    assert np.std(effects[0] - effects[1]) > demo.p.study_sd / 2


def test_calibration_measures_what_it_says():
    rng = np.random.default_rng(0)
    mean = 10 ** rng.uniform(0, 4, 500)
    assert mean_variance_slope(rng.poisson(mean, (2000, 500))) == pytest.approx(1, abs=0.02)
    X = rng.normal(size=(6, 400)) * 0.3 + np.repeat(rng.normal(size=(2, 400)), 3, axis=0)
    r = correlation_quantiles(X, np.repeat(["a", "b"], 3))
    assert r["r within, 50%"] > 0.85 and abs(r["r between, 50%"]) < 0.2
    genes = rng.permutation(400)[:50]
    assert (most_alike(X[:, genes], X) == genes).all()


def test_calibration_table_flags_a_miss():
    real = {"tissues: zeros": 0.1}
    table = calibration_table(real, {1: {"tissues: zeros": 0.12}, 2: {"tissues: zeros": 0.16}})
    assert table.loc[0, "met"] == "no"
    assert calibration_table(real, {1: {"tissues: zeros": 0.14}}).loc[0, "met"] == "yes"
    assert len({rule.part for rule in RULES}) == len(RULES) == 8
    assert synthetic.SIZES["smoke"].genes < synthetic.SIZES["demo"].genes
