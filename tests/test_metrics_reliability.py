"""Reliability against counts by hand, and against calls that are calibrated by construction."""

import numpy as np
import pytest

from lib.metrics.reliability import calibration_error, reliability


def test_bins_are_counted_as_by_hand():
    table = reliability([0.05, 0.1, 0.95, 1.0, 0.91, 0.97], [False, True, True, True, False, True])
    assert list(table["n"]) == [2, 4]
    assert table[["above", "up_to", "confidence", "right"]].to_numpy() == pytest.approx(
        np.array([[0, 0.1, 0.075, 0.5], [0.9, 1, 0.9575, 0.75]])
    )
    assert (table["low"] < table["right"]).all() and (table["right"] < table["high"]).all()


def test_the_error_is_the_weighted_gap():
    error = calibration_error([0.05, 0.1, 0.95, 1.0, 0.91, 0.97], [False, True, True, True, False, True])
    assert error.value == pytest.approx((2 * 0.425 + 4 * 0.2075) / 6)
    assert error.low <= error.value <= error.high
    assert error.n == 6


def test_calibrated_calls_lie_on_the_diagonal_and_overconfident_ones_do_not():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0, 1, 20000)
    assert calibration_error(confidence, rng.uniform(0, 1, 20000) < confidence).value < 0.02
    assert calibration_error(confidence, rng.uniform(0, 1, 20000) < confidence**2).low > 0.1


@pytest.mark.parametrize(
    ("confidence", "right"), [([], []), ([0.5, np.nan], [1, 0]), ([1.2], [1]), ([0.5], [1, 0]), ([0.5], [2])]
)
def test_values_that_are_no_probabilities_are_refused(confidence, right):
    with pytest.raises(ValueError, match="expected"):
        reliability(confidence, right)
