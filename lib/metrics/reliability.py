"""Whether a probability is worth what it says: reliability of calls that were held out."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lib.metrics.bootstrap import Estimate, percentile_interval

CHUNK = 2_000_000  # resampled values held at once


def reliability(confidence, right, bins: int = 10) -> pd.DataFrame:
    """Share of right calls by stated confidence, in bins of equal width; bins without a sample are left out.

    confidence: (n,) in [0, 1]; right: (n,) bool. Columns above, up_to, n, confidence (mean), right (share), low, high
    (Wilson, 95 %). Raises ValueError for NaN, values outside [0, 1], other lengths, or no bin. (Guo et al. 2017)
    """
    confidence, right = _checked(confidence, right, bins)
    which, rows = _bin(confidence, bins), []
    for i in np.unique(which):
        hits = right[which == i]
        low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
        mean = confidence[which == i].mean()
        rows.append((i / bins, (i + 1) / bins, len(hits), mean, hits.mean(), low, high))
    return pd.DataFrame(rows, columns=["above", "up_to", "n", "confidence", "right", "low", "high"])


def calibration_error(confidence, right, bins: int = 10, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Expected calibration error: mean |share of right calls − mean confidence| over bins weighted by samples.

    As `reliability`; the interval resamples samples. Binned like this it is above 0 for perfect calibration too.
    """
    confidence, right = _checked(confidence, right, bins)
    which, gap = _bin(confidence, bins), right - confidence
    rng, n = np.random.default_rng(seed), len(gap)

    def error(rows: np.ndarray) -> np.ndarray:
        cells = which[rows] + bins * np.arange(len(rows))[:, None]
        summed = np.bincount(cells.ravel(), gap[rows].ravel(), minlength=bins * len(rows))
        return np.abs(summed.reshape(len(rows), bins)).sum(axis=1) / n

    size = max(1, CHUNK // n)
    draws = [error(rng.integers(n, size=(min(size, n_boot - start), n))) for start in range(0, n_boot, size)]
    return Estimate(float(error(np.arange(n)[None])[0]), *percentile_interval(np.concatenate(draws)), n)


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Bin of every confidence: i / bins < confidence <= (i + 1) / bins."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def _checked(confidence, right, bins: int) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if confidence.ndim != 1 or confidence.shape != right.shape or not len(confidence) or bins < 1:
        raise ValueError(
            f"confidence: found shapes {confidence.shape} and {right.shape}, {bins} bins, expected n and n"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all() or not np.isin(right, (0, 1)).all():
        raise ValueError("confidence, right: found NaN or values out of range, expected 0 to 1 and true or false")
    return confidence, right
