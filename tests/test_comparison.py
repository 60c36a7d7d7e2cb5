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


def test_cohort_is_scored_only_where_the_model_could_be_right():
    cohort = pd.DataFrame({"group": ["AML", "AML", "new", "NBL"], "predicted": ["blood", "skin", "skin", "skin"]})
    expected = {"AML": ["blood", "bone marrow"], "NBL": ["nerve"]}
    table = comparison.cohort_calls(cohort, expected, {"blood", "skin"}).set_index("group")
    assert table.loc["AML", "called_as_expected"] == 0.5 and 0 < table.loc["AML", "low"] < 0.5
    assert table.loc[["new", "NBL"], "called_as_expected"].isna().all()
    assert "nerve (can't be called)" in table.loc["NBL", "expected"]
