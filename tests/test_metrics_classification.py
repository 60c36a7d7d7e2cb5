"""Classification scores against scikit-learn, their intervals against direct resampling, bad input."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from lib.metrics.bootstrap import interval, interval_by_group
from lib.metrics.classification import (
    balanced_accuracy,
    confusion_table,
    knn_predict,
    paired_difference,
    paired_shares,
    per_class_accuracy,
    unpaired_difference,
    weighted_f1,
)

RNG = np.random.default_rng(0)
TRUE = RNG.choice(["blood", "brain", "lung", "skin"], 400, p=[0.6, 0.25, 0.13, 0.02])
CALLED = np.where(RNG.random(400) < 0.8, TRUE, RNG.choice(["blood", "brain", "other"], 400))
WORSE = np.where(RNG.random(400) < 0.6, TRUE, "blood")


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_scores_equal_scikit_learns():
    assert balanced_accuracy(TRUE, CALLED).value == pytest.approx(balanced_accuracy_score(TRUE, CALLED))
    assert weighted_f1(TRUE, CALLED).value == pytest.approx(f1_score(TRUE, CALLED, average="weighted"))
    assert balanced_accuracy(TRUE, CALLED).n == 400


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_intervals_equal_those_of_resampled_samples():
    rng = np.random.default_rng(1)
    draws = [rng.integers(400, size=400) for _ in range(1500)]
    expected = np.percentile([balanced_accuracy_score(TRUE[i], CALLED[i]) for i in draws], [2.5, 97.5])
    ours = balanced_accuracy(pd.Series(TRUE), pd.Categorical(CALLED), n_boot=3000)
    np.testing.assert_allclose(ours[1:3], expected, atol=0.02)
    assert ours == balanced_accuracy(list(TRUE), list(CALLED), n_boot=3000)
    assert ours[1:3] != balanced_accuracy(TRUE, CALLED, n_boot=3000, seed=1)[1:3]


@pytest.mark.parametrize(("name", "score"), [("balanced_accuracy", balanced_accuracy), ("weighted_f1", weighted_f1)])
def test_paired_difference_is_paired(name, score):
    difference = paired_difference(TRUE, CALLED, WORSE, name)
    assert difference.value == pytest.approx(score(TRUE, CALLED).value - score(TRUE, WORSE).value)
    assert difference.low < difference.value < difference.high
    assert paired_difference(TRUE, CALLED, CALLED, name)[:3] == (0, 0, 0)  # unpaired draws would differ


def test_per_class_accuracy_has_n_and_interval():
    table = per_class_accuracy(TRUE, CALLED)
    assert list(table.index) == ["blood", "brain", "lung", "skin"]
    for name, row in table.iterrows():
        right = CALLED[name == TRUE] == name
        assert (row["n"], row["correct"], row["accuracy"]) == (len(right), right.sum(), right.mean())
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    both_right = per_class_accuracy(["eye", "eye", "skin"], ["eye", "eye", "eye"]).loc["eye"]
    assert both_right["low"] < 0.4 and both_right["high"] == 1  # two of two


def test_knn_predict_is_scikit_learns():
    X, y = RNG.normal(size=(200, 6)) + 1, RNG.choice(["a", "b", "c"], 200)
    for metric in ("cosine", "euclidean"):
        model = KNeighborsClassifier(5, metric=metric, algorithm="brute").fit(X[:150], y[:150])
        assert (knn_predict(X[:150], pd.Series(y[:150]), X[150:], metric=metric) == model.predict(X[150:])).all()


def test_interval_over_values_covers_and_repeats():
    values = RNG.normal(3, 1, size=500)
    estimate = interval(values)
    assert estimate.low < np.median(values) == estimate.value < estimate.high
    assert estimate == interval(values) and estimate.high - estimate.low < 0.4
    assert interval(np.full(20, 2.0))[:3] == (2, 2, 2)
    table = interval_by_group(values, ["a"] * 490 + ["b"] * 10, statistic=np.mean)
    assert list(table["n"]) == [490, 10] and table.loc["b", "high"] - table.loc["b", "low"] > 0.3


@pytest.mark.parametrize(
    "call",
    [
        lambda: balanced_accuracy([], []),
        lambda: balanced_accuracy(TRUE, CALLED[:-1]),
        lambda: weighted_f1(["a", None], ["a", "b"]),
        lambda: paired_difference(TRUE, CALLED, WORSE, "accuracy"),
        lambda: knn_predict(np.eye(4), list("abab"), np.full((2, 4), np.nan)),
        lambda: knn_predict(np.eye(4), list("abab"), np.eye(3)),
        lambda: knn_predict(np.eye(4), list("abab"), np.eye(4), k=5),
        lambda: interval([1.0, np.nan]),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ValueError, match=r"^(y_true|y_pred|score|X|k|values): found .*, expected"):
        call()


def test_the_value_lies_in_its_interval_however_rare_the_classes():
    rng = np.random.default_rng(0)
    truth = np.array([f"class {i}" for i in range(40)] + ["common"] * 100)
    called = np.where(rng.random(140) < 0.6, truth, "common")
    for score in (balanced_accuracy, weighted_f1):
        value, low, high, n = score(truth, called)
        assert low <= value <= high and n == 140
    value, low, high, _ = paired_difference(truth, called, np.roll(called, 1))
    assert low <= value <= high


def test_a_gap_between_two_test_parts_resamples_whole_groups():
    rng = np.random.default_rng(0)
    truth, groups = np.repeat(["a", "b"], 200), np.arange(400) // 20
    wrong_study = np.isin(groups, [1, 2, 11, 12])  # errors come by study
    first, second = (truth, truth, groups), (truth, np.where(wrong_study, "c", truth), groups)
    gap = unpaired_difference(first, second, 2000)
    assert gap.value == pytest.approx(0.2)
    assert gap.n == 800
    alone = unpaired_difference(first, (truth, second[1], np.arange(400)), 2000)
    assert gap.high - gap.low > 3 * (alone.high - alone.low)
    shuffled = rng.permutation(400)
    assert unpaired_difference(second, tuple(each[shuffled] for each in second), 50).value == pytest.approx(0)


def test_confusion_rows_are_shares_of_the_true_class():
    table = confusion_table(["a", "a", "b", "b"], ["a", "b", "b", "z"])
    assert table.loc["a", ["a", "b", "other"]].tolist() == [0.5, 0.5, 0]
    assert table.loc["b", ["a", "b", "other"]].tolist() == [0, 0.5, 0.5]
    assert list(confusion_table(["a", "b"], ["a", "b"]).columns) == ["a", "b"]
    named_so = confusion_table(["other", "other", "b"], ["other", "z", "b"])
    assert named_so.loc["other"].to_dict() == {"b": 0, "other": 0.5, "no true class": 0.5}


def test_paired_shares_have_a_width_even_where_all_samples_change_alike():
    some = paired_shares([1, 1, 0, 1, np.nan], [0, 1, 0, 0, 1], n_boot=200)
    assert some.value == 0.5 and some.n == 4 and some.low < 0.5 < some.high
    assert paired_shares([1, 0, 1], [1, 0, 1])[:3] == pytest.approx((0, -0.561, 0.561), abs=1e-3)
    assert paired_shares(np.ones(3), np.zeros(3))[:3] == pytest.approx((1, 0.439, 1), abs=1e-3)
    none = paired_shares([np.nan], [1])
    assert np.isnan(none.value) and none.n == 0
