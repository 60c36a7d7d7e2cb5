"""Moderated t against limma (tests/golden/limma), gene-set files, and the generator's truth found again."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import enrichment, synthetic_gene_sets
from lib.synthetic import SIZES, Demo

GOLDEN = Path(__file__).parent / "golden/limma"


def two_groups(covariate: bool) -> pd.DataFrame:
    case = np.load(GOLDEN / "two_groups.npz", allow_pickle=False)
    design = pd.get_dummies(pd.Series(case["two"])).astype(float)
    contrast = pd.DataFrame({"poor - well": {"poor": 1.0, "well": -1.0}})
    if covariate:
        design["covariate"] = case["covariate"]
        contrast.loc["covariate"] = 0.0
    X = np.load(GOLDEN / "groups.npz", allow_pickle=False)["expression"]
    return enrichment.moderated_t(X, [f"g{i}" for i in range(X.shape[1])], design, contrast)


@pytest.mark.parametrize("case, covariate", [("plain", False), ("with_covariate", True)])
def test_moderated_t_is_limmas(case, covariate):
    golden = np.load(GOLDEN / "two_groups.npz", allow_pickle=False)[case]
    ours = two_groups(covariate)
    np.testing.assert_allclose(ours[["difference", "t", "p", "fdr"]], golden, rtol=1e-9, atol=1e-12)


def test_moderated_t_refuses_what_it_cannot_fit():
    X, design = np.random.default_rng(0).normal(size=(6, 4)), pd.DataFrame({"a": [1.0] * 6, "b": [2.0] * 6})
    contrasts = pd.DataFrame({"a": {"a": 1.0, "b": 0.0}})
    with pytest.raises(ValueError, match="found rank 1 for 2 coefficients"):
        enrichment.moderated_t(X, list("wxyz"), design, contrasts)
    with pytest.raises(ValueError, match="6 rows of the design and 3 genes"):
        enrichment.moderated_t(X, list("wxy"), design, contrasts)
    groups = pd.get_dummies(pd.Series([0, 0, 0, 1, 1, 1])).astype(float)
    with pytest.raises(ValueError, match="no gene that varies"):
        enrichment.moderated_t(groups.to_numpy()[:, [0, 0]], list("xy"), groups, pd.DataFrame({"d": {0: 1.0, 1: -1.0}}))


@pytest.fixture(scope="module")
def cohort():
    """Three types; lines differ from tumours by +1 in genes 0-19 everywhere, by +2 in genes 20-39 in type C only."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({
        "cancer_type": np.repeat(["A", "B", "C", "no lines"], [40, 40, 30, 10]),
        "sample_type": [*["tumour", "cell line"] * 55, *["tumour"] * 10],
    })  # fmt: skip
    is_line, X = (obs["sample_type"] == "cell line").to_numpy(), rng.normal(size=(120, 200))
    X[np.ix_(is_line, range(20))] += 1
    X[np.ix_(is_line & (obs["cancer_type"] == "C").to_numpy(), range(20, 40))] += 2
    X[:, 199] = 3.0
    return X, [f"G{i}" for i in range(200)], obs


def test_common_and_own_differences_are_told_apart(cohort):
    table = enrichment.lines_against_tumours(*cohort)
    mean = table.assign(block=table["gene"].str[1:].astype(int) // 20)
    mean = mean.groupby(["cancer_type", "scope", "block"])["difference"].mean()
    assert set(table["cancer_type"]) == {"A", "B", "C"}
    assert mean["A", "difference", 0] == pytest.approx(1, abs=0.2) and abs(mean["A", "own", 0]) < 0.2
    assert mean["C", "own", 1] == pytest.approx(2, abs=0.2) and mean["A", "own", 1] == pytest.approx(-1, abs=0.2)
    constant = table[table["gene"] == "G199"]
    assert (constant["t"] == 0).all() and (constant["p"] == 1).all() and not table.isna().any().any()


def test_differences_need_two_types_with_both_kinds(cohort):
    X, genes, obs = cohort
    one = (obs["cancer_type"] != "B") & (obs["cancer_type"] != "C")
    with pytest.raises(ValueError, match="found 1 cancer types with both kinds"):
        enrichment.lines_against_tumours(X[one], genes, obs[one])


def test_gmt_is_read_from_text_gz_and_zip(tmp_path):
    text = "First\tdescribed\tA\tB\tA\t\nSecond\t\tC\n\n"
    (tmp_path / "sets.gmt").write_text(text)
    (tmp_path / "sets.gmt.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "sets.zip", "w") as archive:
        archive.writestr("inner.gmt", text)
    for name in ("sets.gmt", "sets.gmt.gz", "sets.zip"):
        assert enrichment.read_gmt(tmp_path / name) == {"First": ["A", "B"], "Second": ["C"]}


@pytest.mark.parametrize("text, words", [
    ("Only\tdescription\n", "line 1: found 2 columns without a symbol"),
    ("A\t\tX\nA\t\tY\n", "line 2: found the set 'A' again"),
    ("\n", "found no gene set"),
])  # fmt: skip
def test_bad_gmt_is_refused(tmp_path, text, words):
    (tmp_path / "bad.gmt").write_text(text)
    with pytest.raises(ValueError, match=words):
        enrichment.read_gmt(tmp_path / "bad.gmt")


def test_unreadable_gmt_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no such file, expected gene sets"):
        enrichment.read_gmt(tmp_path / "none.gmt")
    for name, content in (("x.zip", b"no zip"), ("x.gmt.gz", b"no gzip"), ("x.gmt", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: found .*expected a GMT file"):
            enrichment.read_gmt(tmp_path / name)


def test_prerank_finds_the_ends_and_repeats_itself():
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(400)]
    ranking = pd.Series(np.sort(rng.normal(size=400))[::-1], index=genes)
    sets = {"top": genes[:30], "bottom": genes[-30:], "spread": genes[5::14], "small": genes[:5]}
    table = enrichment.prerank(ranking, sets, 200, 1)
    found = table.set_index("set")
    assert set(found.index) == {"top", "bottom", "spread"} and (found["fdr"] >= 1 / 200).all()
    assert found.loc["top", "nes"] > 1.5 and found.loc["bottom", "nes"] < -1.5 and found.loc["spread", "fdr"] > 0.2
    pd.testing.assert_frame_equal(table, enrichment.prerank(ranking, sets, 200, 1))
    assert enrichment.prerank(ranking, {"small": genes[:5]}, 50, 1).empty
    with pytest.raises(ValueError, match="found 1 NaN and 0 genes twice"):
        enrichment.prerank(ranking.mask(ranking.index == "G3"), sets, 50, 1)


@pytest.fixture(scope="module")
def demo():
    return Demo(SIZES["smoke"], 3)


def test_gene_sets_of_the_demo_are_its_programmes(demo, tmp_path):
    synthetic_gene_sets.write_gene_sets(demo, tmp_path)
    path = tmp_path / synthetic_gene_sets.GENE_SETS
    sets, first = enrichment.read_gmt(path), path.read_bytes()
    synthetic_gene_sets.write_gene_sets(demo, tmp_path)
    assert path.read_bytes() == first and sets == synthetic_gene_sets.gene_sets(demo)
    culture = pd.Series(demo.programmes.culture, index=demo.genes.index)
    assert culture[sets["Culture up"]].min() > 0 > culture[sets["Culture down"]].max()
    assert set(sets["Proliferation"]) & set(sets["Culture up"]) and set(sets["Stroma"]) & set(sets["Culture down"])


def test_culture_is_found_in_the_demo_s_lines(demo):
    """Measured as the archives are: culture and proliferation up, stroma and immune cells down, random sets not."""
    tumours, lines = demo.measured_alignment()
    patients = demo.patients[demo.patients["in_treehouse"]]
    obs = pd.DataFrame({
        "cancer_type": [*patients["cancer_type"], *demo.lines["cancer_type"]],
        "sample_type": ["tumour"] * len(tumours) + ["cell line"] * len(lines),
    })  # fmt: skip
    table = enrichment.lines_against_tumours(np.log2(np.vstack([tumours, lines]) + 1), demo.genes.index, obs)
    sets = synthetic_gene_sets.gene_sets(demo)
    for cancer_type in ("Breast", "Lung"):
        found = enrichment.prerank_types(table, sets, [cancer_type], 200, 0).query("scope == 'difference'")
        nes = found.set_index("set")["nes"]
        assert nes.idxmin() in ("Stroma", "Culture down", "Immune infiltrate")
        assert {"Proliferation", "Culture up"} & set(nes.nlargest(3).index)
        clear = set(found.loc[found["fdr"] < 0.01, "set"])
        assert {"Stroma", "Culture down", "Proliferation"} <= clear
    random = found[found["set"].str.startswith("Random")]
    assert len(random) == synthetic_gene_sets.RANDOM_SETS and (random["fdr"] < 0.01).sum() <= 1


def test_tables_over_methods(cohort):
    X, genes, obs = cohort
    tables = {m: enrichment.lines_against_tumours(Y, genes, obs) for m, Y in (("input", X), ("RNAlign", X / 2))}
    top = enrichment.gene_table(tables, ["C"], most=3)
    row = top.query("scope == 'own' and direction == 'higher in lines'").iloc[0]
    assert row["n_significant_input"] == row["n_significant_RNAlign"] > 10 and row["n"] == 200
    assert [int(g.split()[0][1:]) // 20 for g in row["genes"].split(", ")] == [1, 1, 1]
    sets = {"common": genes[:20], "own": genes[20:40]}
    enriched = enrichment.set_table({m: enrichment.prerank_types(t, sets, ["C"], 100, 0) for m, t in tables.items()})
    wide = enrichment.side_by_side(enriched)
    assert wide.query("scope == 'own'")["set"].iloc[0] == "own" and (wide["nes_input"] == wide["nes_RNAlign"]).all()
    assert enrichment.gene_table(tables, [])["remark"].item() == "no poorly aligned type has enough tumours and lines"
    assert enrichment.side_by_side(enrichment.set_table({}))["remark"].item() == "no gene set was tested"
    assert enrichment.side_by_side(enriched.assign(fdr=0.5))["remark"].item() == "no set with an FDR below 5 %"
    assert enrichment.sets_to_show(enriched.head(0)) == []
