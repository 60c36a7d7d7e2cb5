"""Means over repeated trainings, with intervals that know of the spread between them, on scales that have bounds."""

import numpy as np
from scipy import stats

from lib.metrics.bootstrap import NO_ESTIMATE, SeedsEstimate

FEWEST = 3  # trainings behind an interval over trainings
MANY = 10**6
SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)  # what a metric's values lie between


def to_line(values, bounds: tuple[float, float], n=MANY) -> np.ndarray:
    """Logit of values between `bounds`; n: units behind each, so that a value at its bound is half a unit from it.

    (Smithson & Verkuilen 2006: (y (n - 1) + 1/2) / n.) Raises ValueError for a value outside of the bounds.
    """
    y = (np.asarray(values, float) - bounds[0]) / (bounds[1] - bounds[0])
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"values: found {np.min(values)} to {np.max(values)}, expected {bounds[0]} to {bounds[1]}")
    y = (y * (np.asarray(n, float) - 1) + 0.5) / n
    return np.log(y / (1 - y))


def from_line(logits, bounds: tuple[float, float]) -> np.ndarray:
    """Back from `to_line` to values between `bounds`."""
    return bounds[0] + (bounds[1] - bounds[0]) / (1 + np.exp(-np.asarray(logits, float)))


def over_repeats(values, bounds: tuple[float, float] | None = None, n: float = MANY) -> SeedsEstimate:
    """Mean of one value per training and its 95 % t interval over trainings (n: trainings); NaN values are left out.

    bounds: the interval is made on the logit scale between them, so that it stays inside; n: units behind each value
    (`to_line`). With fewer than three trainings their spread is unknown: the interval is NaN. A bootstrap of three
    values would be far too narrow.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return NO_ESTIMATE
    seeds = len(values)
    if seeds < FEWEST:
        return SeedsEstimate(float(values.mean()), np.nan, np.nan, seeds, seeds)
    on_line = values if bounds is None else to_line(values, bounds, n)
    width = stats.t.ppf(0.975, seeds - 1) * on_line.std(ddof=1) / np.sqrt(seeds)
    low, high = on_line.mean() - width, on_line.mean() + width
    if bounds is not None:
        low, high = from_line([low, high], bounds)
    value = float(values.mean())  # at a bound, where `to_line` moves values off it, the interval still holds it
    return SeedsEstimate(value, min(float(low), value), max(float(high), value), seeds, seeds)


def verdict(low: float, high: float, seeds: int) -> str:
    """ "up" or "down" where the interval of a difference over several trainings excludes 0; else why it is open."""
    if np.isnan(low) and seeds < 1:
        return "not estimable"
    if seeds < FEWEST:
        return "one training each, spread unknown" if seeds == 1 else f"{seeds} trainings each, too few"
    return "up" if low > 0 else "down" if high < 0 else "not distinguishable"
