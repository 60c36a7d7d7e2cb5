"""95 % percentile bootstrap intervals; every published number carries one, and its n."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.metrics.inputs import as_codes

CHUNK = 2_000_000  # resampled values held at once


class Estimate(NamedTuple):
    """A value, its 95 % bootstrap interval, and the number of samples (or of cancer types) behind it."""

    value: float
    low: float
    high: float
    n: int


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
