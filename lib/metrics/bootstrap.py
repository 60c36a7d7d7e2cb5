"""95 % percentile bootstrap intervals; every published number carries one, and its n."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lib.metrics.inputs import as_codes

CHUNK = 2_000_000  # resampled values held at once


class Estimate(NamedTuple):
    """A value, its 95 % bootstrap interval, and the number of samples (or of cancer types) behind it."""

    value: float
    low: float
    high: float
    n: int


class SeedsEstimate(NamedTuple):
    """An `Estimate` over one or several seeds; n: units per seed (their mean, where seeds differ)."""

    value: float
    low: float
    high: float
    n: int
    seeds: int


NO_ESTIMATE = SeedsEstimate(np.nan, np.nan, np.nan, 0, 0)  # of no values


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper percentile of bootstrap draws; draws without a value (NaN) are left out."""
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def interval(values, statistic=np.median, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Estimate `statistic` of `values` (n,) with its interval over resampled values.

    `statistic` takes `axis`, as NumPy's do. Raises ValueError for NaN or no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise ValueError(f"values: found shape {values.shape} with {np.isnan(values).sum()} NaN, expected n numbers")
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    draws = [
        statistic(values[rng.integers(len(values), size=(min(rows, n_boot - start), len(values)))], axis=1)
        for start in range(0, n_boot, rows)
    ]
    return Estimate(float(statistic(values, axis=0)), *percentile_interval(np.concatenate(draws)), len(values))


def interval_by_group(values, groups, statistic=np.median, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """One `interval` per group of samples: DataFrame (index group; columns value, low, high, n)."""
    values = np.asarray(values, dtype=np.float64)
    codes, levels = as_codes(groups, len(values), "groups")
    rows = [interval(values[codes == i], statistic, n_boot, seed) for i in range(len(levels))]
    return pd.DataFrame(rows, index=pd.Index(levels, name="group"), columns=Estimate._fields)


def interval_over_seeds(values, seeds, units, statistic=np.median, n_boot: int = 1000, seed: int = 0) -> SeedsEstimate:
    """Estimate `statistic` over units (lines, cancer types, tumours) that were measured under one or several seeds.

    values, seeds, units: one row per measurement, each unit at most once per seed. A unit of several seeds (the same
    line under other trainings) counts once, with its mean over them; so units that differ between seeds (the lines
    of another draw of the generator) need names of their own. Every bootstrap draw picks seeds with replacement, and
    then as many units as there are from those of the picked seeds. So neither do five trainings make five times the
    lines, nor does the spread between trainings go lost; with few seeds the interval is approximate. One seed: as
    `interval`. No values: `NO_ESTIMATE`. `statistic` takes `axis`. ValueError for NaN and a unit twice in a seed.
    (Two-way bootstrap: Owen 2007, "The pigeonhole bootstrap".)
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return NO_ESTIMATE
    seed_of, levels = as_codes(seeds, len(values), "seeds")
    unit_of, names = as_codes(units, len(values), "units")
    if len(pd.unique(seed_of + len(levels) * unit_of)) < len(values):
        raise ValueError("units: found a unit twice in a seed, expected every unit at most once per seed")
    if len(levels) == 1:
        return SeedsEstimate(*interval(values, statistic, n_boot, seed), 1)
    if np.isnan(values).any():
        raise ValueError(f"values: found {np.isnan(values).sum()} NaN, expected numbers")
    measured, present = np.zeros((2, len(levels), len(names)))
    measured[seed_of, unit_of], present[seed_of, unit_of] = values, 1
    rng = np.random.default_rng(seed)
    picked = rng.multinomial(len(levels), np.full(len(levels), 1 / len(levels)), size=n_boot)
    draws = [_drawn(weights, measured, present, statistic, rng) for weights in picked]
    value = float(statistic(measured.sum(axis=0) / present.sum(axis=0), axis=0))
    return SeedsEstimate(value, *percentile_interval(np.array(draws)), round(len(values) / len(levels)), len(levels))


def _drawn(weights: np.ndarray, measured: np.ndarray, present: np.ndarray, statistic, rng) -> float:
    """The statistic of units resampled from those of the picked seeds; weights: how often each seed was picked."""
    times = weights @ present  # how many of the picked seeds hold each unit
    units = np.searchsorted(np.cumsum(times), rng.uniform(0, times.sum(), len(times)), side="right")
    return float(statistic((weights @ measured)[units] / times[units], axis=0))


def share(hits) -> Estimate:
    """Share of true values with Wilson's 95 % interval, which has a width even where all are true or none is.

    hits: n booleans; NaN with n = 0 for none. (A bootstrap of n equal values has no width.)
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        return Estimate(np.nan, np.nan, np.nan, 0)
    return Estimate(float(hits.mean()), *_wilson(int(hits.sum()), len(hits)), len(hits))


def share_over_seeds(hits, seeds, units, n_boot: int = 1000, seed: int = 0) -> SeedsEstimate:
    """Share of true values over units that were measured under one or several seeds: arguments and errors as above.

    One seed: Wilson's interval. Several: that of `interval_over_seeds`, at least as wide as Wilson's for all units,
    so that it has a width where every share is 0 or 1.
    """
    over = interval_over_seeds(np.asarray(hits, dtype=bool), seeds, units, np.mean, n_boot, seed)
    if not over.seeds:
        return over
    n = len(set(units))
    low, high = _wilson(round(over.value * n), n)
    if over.seeds > 1:
        low, high = min(over.low, low), max(over.high, high)
    return over._replace(low=low, high=high)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return float(low), float(high)
