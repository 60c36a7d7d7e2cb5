import numpy as np
import pandas as pd
import pytest

from lib import comparison, config

BY = config.load("smoke").evaluation


@pytest.fixture
def cancers():
    """Three cancer types; lines are shifted; the truth is known."""
    rng = np.random.default_rng(0)
    types = np.repeat(["Breast", "Lung", "Skin"], 40)
    is_line = np.tile(np.arange(40) >= 28, 3)
    programme = rng.normal(size=(3, 50))[np.repeat([0, 1, 2], 40)] + 0.5 * rng.normal(size=(120, 50))
    observed = programme + 3 * is_line[:, None] * rng.normal(size=50)
    obs = pd.DataFrame({"sample_type": np.where(is_line, "cell line", "tumour"), "cancer_type": types})
    return observed, programme, obs


def type_means(X, obs):
    return pd.DataFrame(X).groupby(obs["cancer_type"].to_numpy()).transform("mean").to_numpy()


def test_the_input_keeps_all_variance_and_the_truth_is_the_best_alignment(cancers):
    observed, programme, obs = cancers
    given = comparison.alignment_scores(observed, observed, obs, programme, BY, 0)
    perfect = comparison.alignment_scores(programme, observed, obs, programme, BY, 0)
    assert given.loc["variance_kept", "value"] == pytest.approx(1)
    assert perfect.loc[["truth_tumours", "truth_lines"], "value"].to_numpy() == pytest.approx([1, 1])
    assert perfect.loc["delta_d", "value"] < 0.2 < given.loc["delta_d", "value"]


def test_a_collapse_is_seen_by_variance_and_not_by_match(cancers):
    observed, programme, obs = cancers
    collapsed = comparison.alignment_scores(type_means(observed, obs), observed, obs, programme, BY, 0)
    assert collapsed.loc["match", "value"] == 1
    assert collapsed.loc["delta_d", "value"] == pytest.approx(0, abs=1e-6)
    assert collapsed.loc["variance_kept", "value"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(collapsed.loc["delta_d_ratio", "value"])


def test_without_truth_its_scores_are_not_estimable(cancers):
    observed, _, obs = cancers
    scores = comparison.alignment_scores(observed, observed, obs, None, BY, 0)
    assert scores.loc[["truth_tumours", "truth_lines"], "value"].isna().all()
    assert list(scores.index) == list(comparison.SCORES)


def test_words_call_a_collapse_by_its_name(cancers):
    observed, programme, obs = cancers
    means = type_means(observed, obs)

    def said(aligned):
        methods = {"input": observed, "RNAlign": aligned, "type mean": means}
        tables = [
            comparison.alignment_scores(X, observed, obs, programme, BY, 0).assign(method=method)
            for method, X in methods.items()
        ]
        return comparison.alignment_in_words(pd.concat(tables).reset_index())

    assert "*collapsed*" in said(means + 1e-3)
    assert "beats it on both" in said(programme)


def test_paired_difference_has_the_sign_of_the_gain():
    truth = np.repeat(["a", "b"], 100)
    worse = truth.copy()
    worse[:30] = "b"
    table = comparison.tissue_scores(truth, {"tissue VAE": truth, "guess": worse}, "tissue VAE", BY, 0).assign(seed=0)
    row = table.set_index("method").loc["guess"]
    assert row["difference"] == pytest.approx(0.15)
    assert 0 < row["difference_low"] < 0.15 < row["difference_high"]
    assert "better than guess" in comparison.tissue_in_words(table)


def test_variable_genes_are_ranked_by_variance():
    X = np.random.default_rng(0).normal(size=(200, 5)) * [1, 5, 2, 4, 0]
    assert comparison.highly_variable(X, 2).tolist() == [1, 3]


def test_cohort_is_scored_only_where_the_model_could_be_right():
    cohort = pd.DataFrame({"group": ["AML", "AML", "new", "NBL"], "predicted": ["blood", "skin", "skin", "skin"]})
    expected = {"AML": ["blood", "bone marrow"], "NBL": ["nerve"]}
    table = comparison.cohort_calls(cohort, expected, {"blood", "skin"}).set_index("group")
    assert table.loc["AML", "called_as_expected"] == 0.5
    assert table.loc[["new", "NBL"], "called_as_expected"].isna().all()
    assert "nerve (not in training)" in table.loc["NBL", "expected"]


def test_one_source_cannot_be_mixed():
    Z = np.random.default_rng(0).normal(size=(60, 4))
    tissue = pd.Series(np.repeat(["liver", "skin"], 30))
    alone = comparison.source_mixing(Z, pd.Series([""] * 60), tissue, BY, 0)
    mixed = comparison.source_mixing(Z, pd.Series(["GTEx", "TCGA"] * 30), tissue, BY, 0)
    assert alone["mean"].isna().all()
    assert mixed["mean"].notna().all()
    assert mixed.loc[0, "mean"] == pytest.approx(mixed.loc[1, "mean"], abs=0.1)
