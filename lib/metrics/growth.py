"""Growth of a metric with the number of samples: a line on log2(samples), its slope and prediction, with intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Growth(NamedTuple):
    """A straight line through a metric against log2(samples): gain per doubling with its 95 % interval (t, n − 2)."""

    per_doubling: float
    low: float
    high: float
    points: int
    intercept: float
    residual: float  # standard deviation about the line
    mean_x: float
    spread_x: float  # sum of squared deviations of log2(samples)

    def at(self, samples: float) -> tuple[float, float, float]:
        """(value, low, high) that the line predicts for one more training with so many samples (95 %)."""
        x = np.log2(samples)
        value = self.intercept + self.per_doubling * x
        width = self.residual * np.sqrt(1 + 1 / self.points + (x - self.mean_x) ** 2 / self.spread_x)
        width *= stats.t.ppf(0.975, self.points - 2)
        return float(value), float(value - width), float(value + width)


def growth(samples, values) -> Growth:
    """Least squares of values (n,) on log2(samples). ValueError for fewer than 3 points or 2 sizes, or a NaN."""
    x, y = np.log2(np.asarray(samples, float)), np.asarray(values, float)
    if len(x) != len(y) or len(y) < 3 or len(np.unique(x)) < 2 or not np.isfinite([*x, *y]).all():
        raise ValueError(f"values: found {len(y)} for {len(np.unique(x))} sizes, expected at least 3 numbers, 2 sizes")
    fit = stats.linregress(x, y)
    spread = ((x - x.mean()) ** 2).sum()
    residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(y) - 2))
    width = stats.t.ppf(0.975, len(y) - 2) * residual / np.sqrt(spread)
    return Growth(fit.slope, fit.slope - width, fit.slope + width, len(y), fit.intercept, residual, x.mean(), spread)
