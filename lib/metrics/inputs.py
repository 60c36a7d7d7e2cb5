"""Checks that every metric makes of its input, so that bad input is named instead of measured."""

from numbers import Real

import numpy as np
import pandas as pd


def as_matrix(X, name: str, min_samples: int = 2) -> np.ndarray:
    """Return `X` as a samples × features array of finite numbers (float32 stays float32, all else float64).

    Raises ValueError naming the argument for another shape, too few samples, text, NaN or infinity.
    """
    X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"{name}: found {X.ndim} dimension(s), expected 2 (samples × features)")
    if X.shape[0] < min_samples or X.shape[1] == 0:
        raise ValueError(f"{name}: found shape {X.shape}, expected at least {min_samples} samples × 1 feature")
    try:
        X = X if X.dtype == np.float32 else X.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: found values of type {X.dtype}, expected numbers") from None
    check_finite(X, name)
    return X


def check_finite(X: np.ndarray, name: str) -> None:
    """Raise ValueError with the first position when `X` holds NaN or infinity."""
    with np.errstate(over="ignore"):
        if np.isfinite(X.sum(dtype=np.float64)):  # one pass and no mask in the usual case
            return
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        value = X[row, column]
        raise ValueError(
            f"{name}: found {len(bad)} values that are NaN or infinite (first: {value} in row {row}, "
            f"column {column}), expected finite numbers"
        )


def as_neighbours(k, most: int, name: str = "k") -> int:
    """Return the number of neighbours `k` as int; ValueError unless it is a whole number from 1 to `most`."""
    if not (isinstance(k, Real) and float(k).is_integer() and 1 <= k <= most):
        raise ValueError(f"{name}: found {k!r} neighbours, expected 1 to {most} for this number of samples")
    return int(k)


def all_identical(X: np.ndarray) -> bool:
    """Whether all samples have the same values, so that no distance tells them apart."""
    return bool((np.ptp(X, axis=0) == 0).all())


def as_codes(labels, n: int, name: str, min_levels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return integer codes (n,) and the sorted levels of `labels` (list, array, Series or categorical).

    Labels go by position: a Series' index is ignored, unused categories are dropped.
    Raises ValueError for another length, missing labels or fewer than `min_levels` levels.
    """
    values = np.asarray(labels)
    if values.ndim != 1 or len(values) != n:
        raise ValueError(f"{name}: found labels of shape {values.shape}, expected ({n},), one per sample")
    missing = int(pd.isna(np.asarray(labels, dtype=object)).sum())  # a list with a NaN would become text
    if missing:
        raise ValueError(f"{name}: found {missing} missing labels (NaN or None), expected none")
    codes, levels = pd.factorize(values)
    levels = np.asarray(levels)
    order = np.argsort(levels if levels.dtype != object else np.array([str(level) for level in levels]))
    if len(levels) < min_levels:
        raise ValueError(f"{name}: found {len(levels)} level(s) {levels.tolist()}, expected at least {min_levels}")
    return np.argsort(order)[codes], levels[order]
