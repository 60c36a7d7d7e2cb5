"""Growth of a metric with the number of training samples: gain per doubling, its curvature, and a bounded forecast.

Several trainings of one seed share a test part and a draw of the data: seeds are blocks. From three seeds on, every
one has its own curve and the interval is over the seeds; with fewer, all share one curve above intercepts of their own.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from lib.metrics.bootstrap import Estimate
from lib.metrics.repeats import FEWEST, MANY, SHARE, from_line, over_repeats, to_line


class Forecast(NamedTuple):
    """What one more training is expected to give, with its 95 % prediction interval."""

    value: float
    low: float
    high: float


def per_doubling(samples, values, seeds=None) -> Estimate:
    """Gain per doubling of the samples: slope on log2(samples), its interval, and the number of trainings.

    samples, values, seeds: one for each training. ValueError for fewer than 3 trainings or 2 sizes, or a NaN.
    """
    return _leading(*_checked(samples, values, seeds), degree=1)


def curvature(samples, values, seeds=None) -> Estimate:
    """How much the gain per doubling changes from one doubling to the next: below 0, returns diminish.

    As `per_doubling`; the interval is NaN where as many sizes as the parabola has parameters leave no residual.
    ValueError for fewer than 3 sizes, too.
    """
    checked = _checked(samples, values, seeds, sizes=3)
    return Estimate(*(2 * v for v in _leading(*checked, degree=2)[:3]), len(checked[0]))


def next_doubling(samples, values, seeds=None, bounds=SHARE, n=MANY) -> Estimate:
    """What the next doubling beyond the largest size would bring, by a line on the logit scale between `bounds`.

    n: units behind each value. The interval is that of the line's slope.
    """
    logits = to_line(values, bounds, n)
    slope = per_doubling(samples, logits, seeds)
    now = np.mean(logits[np.asarray(samples) == np.max(samples)])
    gains = from_line(now + np.array(slope[:3]), bounds) - from_line(now, bounds)
    return Estimate(*map(float, gains), slope.n)


def forecast(samples, values, at: float, seeds=None, bounds=SHARE, n=MANY) -> Forecast:
    """One more training with `at` samples, if a line on the logit scale between `bounds` holds that far (95 %)."""
    x, y, blocks = _checked(samples, to_line(values, bounds, n), seeds)
    at = np.log2(at)
    of_seeds = [blocks == level for level in np.unique(blocks)]
    if len(of_seeds) >= FEWEST:
        lines = [np.polyfit(x[own], y[own], 1) for own in of_seeds]
        found = np.array([np.polyval(line, at) for line in lines])
        left = [y[own] - np.polyval(line, x[own]) for own, line in zip(of_seeds, lines, strict=True)]
        residual = (np.concatenate(left) ** 2).sum() / max(len(x) - 2 * len(lines), 1)
        value, degrees = found.mean(), len(lines) - 1
        variance = found.var(ddof=1) * (1 + 1 / len(lines)) + residual
    else:
        slope, _, residual, degrees, spread = _blocked(x, y, blocks, 1)
        value = y.mean() + slope * (at - x.mean())
        variance = residual * (1 + 1 / len(x) + (at - x.mean()) ** 2 / spread)
    width = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    return Forecast(*(float(v) for v in from_line([value, value - width, value + width], bounds)))


def scatter(samples, values, seeds=None) -> float:
    """Standard deviation of single trainings about the straight line on log2(samples), blocks allowed for."""
    return float(np.sqrt(_blocked(*_checked(samples, values, seeds), 1)[2]))


def _checked(samples, values, seeds, sizes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2(samples), values, and the block of each training."""
    x, y = np.log2(np.asarray(samples, float)), np.asarray(values, float)
    blocks = np.zeros(len(x), int) if seeds is None else np.unique(np.asarray(seeds), return_inverse=True)[1]
    enough = len(x) == len(y) == len(blocks) and len(y) >= 3 and len(np.unique(x)) >= sizes
    if not enough or not np.isfinite([*x, *y]).all():
        raise ValueError(
            f"values: found {len(y)} for {len(np.unique(x))} sizes, expected at least 3 numbers, {sizes} sizes"
        )
    return x, y, blocks


def _leading(x: np.ndarray, y: np.ndarray, blocks: np.ndarray, degree: int) -> Estimate:
    """Coefficient of x^degree with its interval: over the seeds' own curves, or of the one that they share."""
    of_seeds = [blocks == level for level in np.unique(blocks)]
    fits = [np.polyfit(x[own], y[own], degree)[0] for own in of_seeds if len(np.unique(x[own])) > degree]
    if len(fits) >= FEWEST:
        return Estimate(*over_repeats(fits)[:3], len(x))
    slope, error, _, degrees, _ = _blocked(x, y, blocks, degree)
    width = stats.t.ppf(0.975, degrees) * error if degrees else np.nan
    return Estimate(float(slope), float(slope - width), float(slope + width), len(x))


def _blocked(x: np.ndarray, y: np.ndarray, blocks: np.ndarray, degree: int) -> tuple[float, float, float, int, float]:
    """Least squares with an intercept per block: leading coefficient, its standard error, residual variance, its
    degrees of freedom, and the sum of squares of x within blocks."""
    z = x - x.mean()
    intercepts = (blocks[:, None] == np.unique(blocks)).astype(float)
    design = np.column_stack([intercepts, *(z**power for power in range(1, degree + 1))])
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    degrees = max(len(y) - design.shape[1], 0)
    residual = ((y - design @ coefficients) ** 2).sum() / degrees if degrees else np.nan
    error = np.sqrt(residual * np.linalg.pinv(design.T @ design)[-1, -1])
    within = z - intercepts @ (intercepts.T @ z / intercepts.sum(axis=0))
    return coefficients[-1], error, residual, degrees, (within**2).sum()
