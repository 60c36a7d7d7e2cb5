"""Evidence on poorly aligned types: what is counted, and that every verdict can come out."""

import numpy as np
import pandas as pd
import pytest

from lib import claims, enrichment, evidence
from lib.metrics.alignment import delta_d

TYPES = ["Brain", "Thyroid", "Liver", "Bone", "Bile Duct", "Eye"]
GENE_SETS = {
    "Stroma": [f"G{i}" for i in range(20)],
    "Tissue: thyroid": [f"G{i}" for i in range(20, 40)],
    "Tissue: liver": [f"G{i}" for i in range(40, 60)],
    "Tissue: bone": [f"G{i}" for i in range(60, 80)],
    "Tissue: eye": [f"G{i}" for i in range(80, 100)],
    "Tissue: brain": [f"G{i}" for i in range(100, 120)],
}


@pytest.fixture(scope="module")
def cohort():
    """Six types of 20 tumours: brain's lines lack stroma, thyroid's their tissue, bile duct's differ widely."""
    rng = np.random.default_rng(0)
    lines = {"Brain": 8, "Thyroid": 8, "Liver": 8, "Bone": 6, "Bile Duct": 6, "Eye": 3}
    types = [*np.repeat(TYPES, 20), *np.repeat(list(lines), list(lines.values()))]
    kinds = ["tumour"] * 120 + ["cell line"] * 39
    obs = pd.DataFrame({"cancer_type": types, "sample_type": kinds, "purity": rng.uniform(0.4, 0.9, 159)})
    obs.index = [f"S{i}" for i in range(159)]
    X = rng.normal(size=(159, 160)) * 0.5
    for i, cancer_type in enumerate(TYPES):
        X[obs["cancer_type"] == cancer_type, 120 + 6 * i : 126 + 6 * i] += 3
    for cancer_type, genes, effect in (("Brain", range(20), -2), ("Thyroid", range(20, 40), -2)):
        X[np.ix_(of(obs, cancer_type, "cell line"), genes)] += effect
    spread = of(obs, "Bile Duct", "cell line")
    X[spread] += rng.normal(size=(6, 160)) * 1.5
    fibroblast_like = np.flatnonzero(of(obs, "Liver", "cell line"))[:3]
    X[fibroblast_like, 132:138] -= 3
    X[fibroblast_like, 138:144] += 3
    return X, obs


def of(obs, cancer_type, kind):
    return ((obs["cancer_type"] == cancer_type) & (obs["sample_type"] == kind)).to_numpy()


@pytest.fixture(scope="module")
def pages(cohort):
    X, obs = cohort
    genes = [f"G{i}" for i in range(160)]
    differences = enrichment.lines_against_tumours(X, genes, obs)
    sets = enrichment.prerank_types(differences, GENE_SETS, TYPES, 200, 0)
    after, lines = X.copy(), (obs["sample_type"] == "cell line").to_numpy()
    for i, cancer_type in enumerate(TYPES):  # every line becomes a tumour of the next type
        own = of(obs, cancer_type, "cell line")
        after[own] = X[of(obs, TYPES[i - 1], "tumour")][: own.sum()]
    truth = pd.DataFrame({"culture_strength": 1.5, "truly_aligns": False, "mislabelled": lines}, index=obs.index)
    table = evidence.evidence(X, after, obs, TYPES, differences, sets, GENE_SETS, 5, 0, truth)
    return table.set_index("cancer_type", drop=False)


def test_counts_match_and_published_values(cohort, pages):
    X, obs = cohort
    assert pages.loc["Brain", ["n_tumours", "n_lines"]].tolist() == [20, 8]
    calls = evidence.calls_of_lines(X, obs, 5)
    own = calls[calls["cancer_type"] == "Liver"]["called"]
    assert pages.loc["Liver", "match_input"] == pytest.approx(100 * (own == "Liver").mean())
    assert pages.loc["Liver", "goes_to_input"] == "Bone 3"
    assert pages.loc["Brain", "published_match"] == claims.published("a-match-brain")
    assert np.isnan(pages.loc["Bone", "published_match"])
    low, value, high = pages.loc["Eye", ["match_input_low", "match_input", "match_input_high"]]
    assert low < value <= high and high - low > 30  # three lines say little
    assert pages.loc["Brain", "mislabelled"] == 8 and pages.loc["Brain", "truly_align"] == 0


def test_what_the_alignment_lost_needs_no_biology(pages):
    assert (pages["match_RNAlign"] == 0).all() and pages.loc["Brain", "goes_to_RNAlign"] == "Eye 8"
    lost = (pages["match_input"] >= evidence.WELL_MATCHED) & (pages.index != "Bone")
    assert lost.any() and (pages.loc[lost, "verdict"] == "lost by the alignment").all()
    assert pages.loc["Bone", "verdict"] == "not in the paper"


def test_few_lines_and_spread_lines_are_found(cohort):
    X, obs = cohort
    assert evidence._rarity(obs, "Eye").verdict == "supports"
    assert evidence._rarity(obs, "Eye").why.startswith("3 lines; 0 of 5")
    assert evidence._spread_of_lines(X, obs, "Bile Duct").verdict == "supports"


def test_the_tissue_that_was_lost_is_found(cohort):
    X, obs = cohort
    differences = enrichment.lines_against_tumours(X, [f"G{i}" for i in range(160)], obs)
    loss = evidence.tissue_loss(differences, GENE_SETS)
    assert loss.idxmin() == "Thyroid" and loss["Thyroid"] == pytest.approx(-2, abs=0.3)
    assert evidence._tissue_lost("Thyroid", differences, GENE_SETS).verdict == "supports"
    assert evidence._tissue_lost("Bile Duct", differences, GENE_SETS).verdict == "cannot say"
    higher = differences.assign(difference=-differences["difference"])
    assert evidence._tissue_lost("Thyroid", higher, GENE_SETS).verdict == "contradicts"


@pytest.mark.parametrize("nes, fdr, own_fdr, expected", [
    (-2, 0.01, 0.01, "supports"), (-2, 0.01, 0.5, "cannot say"), (-1, 0.5, 0.5, "cannot say"),
    (1.5, 0.3, 0.5, "contradicts"),
])  # fmt: skip
def test_sets_lower_in_lines(nes, fdr, own_fdr, expected):
    chosen = pd.DataFrame({"set": "Stroma", "scope": ["difference", "own"], "nes": nes, "fdr": [fdr, own_fdr]})
    assert evidence._lower_sets(chosen, "stroma").verdict == expected
    assert evidence._lower_sets(chosen.head(0), "stroma").verdict == "cannot say"


@pytest.mark.parametrize("called, tumours, expected", [
    (["Liver"] * 4 + ["Bone"] * 3, {"Liver", "Bone"}, "supports"),
    (["Liver"] * 4 + ["Lung"] * 3, {"Liver", "Bone", "Lung"}, "contradicts"),
    (["Liver"] * 4 + ["Lung"] * 3, {"Liver", "Lung"}, "cannot say"),
    (["Bone"] * 2 + ["Lung"] * 5, {"Bone", "Lung"}, "cannot say"),
])  # fmt: skip
def test_two_groups(called, tumours, expected):
    calls = pd.DataFrame({"cancer_type": "Liver", "called": called})
    assert evidence._two_groups(calls, "Liver", tumours).verdict == expected


def test_delta_d_interval_holds_the_value_and_repeats(cohort):
    X, obs = cohort
    rows = (obs["cancer_type"] == "Brain").to_numpy()
    is_line = (obs["sample_type"] == "cell line").to_numpy()[rows]
    found = evidence.delta_d_interval(X[rows], is_line, 0)
    assert found.value == pytest.approx(delta_d(X[rows], is_line.astype(int)))
    assert found.low < found.value < found.high and found == evidence.delta_d_interval(X[rows], is_line, 0)
    assert np.isnan(evidence.delta_d_interval(X[rows][:22], is_line[:22], 0).value)


def test_pages_and_summary_are_words(pages):
    text = evidence.page(pages.loc["Brain"])
    assert "8 cell lines, 20 tumours" in text and "*published: 12 %*" in text and "the alignment loses some" in text
    assert "nan" not in " ".join(evidence.page(row) for _, row in pages.iterrows()).lower().replace("finance", "")
    summary = evidence.summary(pages.reset_index(drop=True), enrichment.set_table({}))
    assert "5 of the 7 types that the paper names" in summary


def test_poor_types_are_the_named_ones_and_those_at_zero():
    matches = pd.DataFrame({
        "cancer_type": ["Brain", "Lung", "Bone", "Eye", "Skin"], "n": [5, 9, 4, 0, 8],
        "match": [80.0, 50.0, 0.0, np.nan, 0.0], "n_tumours": 9,
    })  # fmt: skip
    assert evidence.poor_types(matches) == ["Brain", "Skin", "Bone"]
    assert evidence.poor_types(matches, most=2) == ["Brain", "Skin"]


def test_no_gene_sets_and_no_truth_are_fine(cohort):
    X, obs = cohort
    differences = enrichment.lines_against_tumours(X, [f"G{i}" for i in range(160)], obs)
    empty = enrichment.prerank_types(differences, {}, TYPES, 50, 0)
    table = evidence.evidence(X, X, obs.assign(purity=np.nan), ["Brain"], differences, empty, {}, 5, 0)
    row = table.iloc[0]
    assert "culture_strength" not in table and row["sets_lower"] == "not tested" and np.isnan(row["purity_of_type"])
    assert row["verdict"] in ("cannot say", "no failure") and "not estimable" in evidence.page(row)


def test_types_absent_from_the_data_have_a_page_that_says_so(cohort, pages):
    _, obs = cohort
    absent = evidence.absent_types(obs)
    assert absent["cancer_type"].tolist() == ["Esophagus", "Multiple Myeloma"]
    assert "no tumours and no cell lines" in evidence.page(absent.iloc[0])
    no_lines = evidence.absent_types(obs[~((obs["cancer_type"] == "Eye") & (obs["sample_type"] == "cell line"))])
    eye = no_lines.set_index("cancer_type", drop=False).loc["Eye"]
    assert eye["n_tumours"] == 20 and "the data have no cell lines of this type" in evidence.page(eye)
    both = pd.concat([pages.reset_index(drop=True), absent])
    nothing = pd.concat([pd.DataFrame([{"cancer_type": "none", "why": "no type is poor"}]), absent], ignore_index=True)
    assert evidence.page(nothing.iloc[1]).startswith("### Esophagus: 0 cell lines, 0 tumours\n")
    assert "none" not in evidence.summary(nothing, enrichment.set_table({})) and len(nothing) == 3
    summary = evidence.summary(both, enrichment.set_table({}))
    assert (
        "5 of the 7" in summary and "Without tumours or without cell lines here: Esophagus, Multiple Myeloma" in summary
    )
