"""PAM50 calls against genefu's (tests/golden/pam50), and what an alignment keeps of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import pam50

GOLDEN = Path(__file__).parent / "golden/pam50"
EXPRESSION = pd.read_csv(GOLDEN / "expression.csv.gz", index_col=0)
CALLS = pd.read_csv(GOLDEN / "calls.csv.gz", index_col=0)
NOT_MEASURED = ["CDCA1", "KNTC2", "ORC6L", "TMEM45B"]  # in the golden cases of 46 genes


@pytest.mark.parametrize("case", CALLS["standardise"].unique())
def test_calls_are_genefus(case):
    golden = CALLS[CALLS["standardise"] == case].drop(columns="standardise")
    measured = EXPRESSION.drop(columns=NOT_MEASURED) if "46" in case else EXPRESSION
    ours = pam50.call_subtypes(measured, case.split(",")[0])
    assert ours["subtype"].tolist() == golden["subtype"].tolist()
    np.testing.assert_allclose(ours.drop(columns="subtype"), golden.drop(columns="subtype"), atol=1e-12)


def test_symbols_of_today_and_order_of_genes_do_not_matter():
    today = EXPRESSION.rename(columns={"CDCA1": "NUF2", "KNTC2": "NDC80", "ORC6L": "ORC6"})
    shuffled = today[np.random.default_rng(0).permutation(today.columns)].assign(OTHER=1.0)
    pd.testing.assert_frame_equal(pam50.call_subtypes(shuffled), pam50.call_subtypes(EXPRESSION))
    assert (
        len(pam50.centroids()) == 50 and (pam50.centroids().index != pam50.centroids()["published_symbol"]).sum() == 3
    )


def test_a_centroid_is_its_own_subtype_and_missing_genes_are_left_out():
    centroids = pam50.centroids()[pam50.SUBTYPES].T
    assert pam50.call_subtypes(centroids)["subtype"].tolist() == pam50.SUBTYPES
    gaps = centroids.mask(np.random.default_rng(1).random(centroids.shape) < 0.2)
    calls = pam50.call_subtypes(gaps)
    assert calls["subtype"].tolist() == pam50.SUBTYPES and np.allclose(np.diag(calls.filter(like="cor_")), 1)


def test_constant_genes_and_samples():
    flat = EXPRESSION.assign(ESR1=3.0)
    without = EXPRESSION.drop(columns="ESR1")
    for standardise in ("scale", "robust"):
        pd.testing.assert_frame_equal(pam50.call_subtypes(flat, standardise), pam50.call_subtypes(without, standardise))
    same = EXPRESSION.copy()
    same.iloc[0] = 5.0
    first = pam50.call_subtypes(same).iloc[0]
    assert first["subtype"] is None and first.drop("subtype").isna().all()


def test_bad_input_is_one_clear_line():
    with pytest.raises(ValueError, match="found 10 of the 50 PAM50 genes, expected at least 25"):
        pam50.call_subtypes(EXPRESSION.iloc[:, :10])
    with pytest.raises(ValueError, match="found ESR1 more than once"):
        pam50.call_subtypes(pd.concat([EXPRESSION, EXPRESSION[["ESR1"]]], axis=1))
    with pytest.raises(ValueError, match="1 infinite"):
        pam50.call_subtypes(EXPRESSION.replace(EXPRESSION.iat[0, 0], np.inf))


def test_ranks_and_pairs_kept():
    X = EXPRESSION.to_numpy()
    assert np.allclose(pam50.ranks_kept(X, np.exp(X)), 1) and np.allclose(pam50.ranks_kept(X, -X), -1)
    assert np.isnan(pam50.ranks_kept(X, np.ones_like(X))).all()
    assert pam50.pairs_kept(X, 3 * X + 1, 20, 0)[:3] == pytest.approx((1, 1, 1))
    shuffled = np.random.default_rng(0).permuted(X, axis=0)
    found = pam50.pairs_kept(X, shuffled, 50, 0)
    assert abs(found.value) < 0.2 and found == pam50.pairs_kept(X, shuffled, 50, 0)
    assert np.isnan(pam50.pairs_kept(X, np.ones_like(X), 5, 0).value)


@pytest.fixture
def breast():
    """60 samples, half of them lines that are shifted tumours; their subtype is PAM50's own call."""
    obs = pd.DataFrame({"sample_type": ["tumour", "cell line"] * 30}, index=EXPRESSION.index)
    obs["subtype"] = pam50.call_subtypes(EXPRESSION, "median")["subtype"].map(pam50.IN_COMPENDIUM)
    X = EXPRESSION.to_numpy()
    other = np.random.default_rng(0).normal(size=(60, 30))
    return {"input": np.hstack([X, other]), "type mean": np.tile(np.hstack([X, other]).mean(axis=0), (60, 1))}, obs


def test_fidelity_of_the_input_and_of_a_collapse(breast):
    matrices, obs = breast
    genes = [*EXPRESSION.columns, *(f"G{i}" for i in range(30))]
    table = pam50.fidelity(matrices | {"RNAlign": 2 * matrices["input"]}, genes, obs, 50, 0)
    values = table.set_index(["quantity", "method", "kind"])["value"]
    assert values["gene ranks kept, PAM50", "RNAlign", "tumour"] == pytest.approx(1)
    calls = "subtype calls right, %, genes centred over both kinds"
    assert values[calls, "input", "tumour"] == 100 and values[calls, "type mean", "tumour"] == 0
    assert np.isnan(values["gene ranks kept, PAM50", "type mean", "cell line"])
    assert table.loc[table["value"].isna(), "remark"].str.len().gt(0).all() and table["n"].dtype == int
    assert "RNAlign keeps the order of the genes at 1.00 in tumours (n = 30)" in pam50.in_words(table, 50)


def test_too_few_genes_are_not_estimable_with_the_reason(breast):
    matrices, obs = breast
    few = {name: X[:, :12] for name, X in matrices.items()} | {"RNAlign": matrices["input"][:, :12]}
    table = pam50.fidelity(few, EXPRESSION.columns[:12], obs, 20, 0)
    calls = table[table["quantity"].str.startswith("subtype") & (table["method"] != "commonest subtype")]
    assert calls["value"].isna().all() and set(calls["remark"]) == {"12 of the 50 PAM50 genes, fewer than 25"}
    assert "not estimable**, since the genes kept hold 12 of the 50" in pam50.in_words(table, 12)


def test_a_sample_with_few_measured_genes_has_no_call():
    gaps = EXPRESSION.copy()
    gaps.iloc[0, 3:] = np.nan
    calls = pam50.call_subtypes(gaps)
    assert calls.iloc[0]["subtype"] is None and calls.iloc[0].drop("subtype").isna().all()
    assert calls["subtype"].iloc[1:].notna().all()
    assert pam50.call_subtypes(gaps, min_genes=3)["subtype"].notna().all()
    assert pam50.too_few(24) == "24 of the 50 PAM50 genes, fewer than 25" and pam50.too_few(25) == ""
