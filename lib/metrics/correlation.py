"""Pearson correlation between samples, and who is most correlated with whom."""

import numpy as np

from lib.metrics.inputs import as_matrix, as_neighbours

BLOCK = 1000  # samples whose correlations are held at once


def unit_rows(X: np.ndarray) -> np.ndarray:
    """Rows less their mean, of length 1, float64, so that products are correlations; NaN where a row is constant."""
    X = np.asarray(X, dtype=np.float64)
    if not X.shape[1]:
        return X
    deviations = X - X.mean(axis=1, keepdims=True)
    varies = (np.ptp(X, axis=1) > 0)[:, None]  # a mean's rounding error is no variance
    length = np.linalg.norm(deviations, axis=1, keepdims=True)
    return np.divide(deviations, length, out=np.full_like(deviations, np.nan), where=varies)


def most_similar(X, among, k: int, names: tuple[str, str] = ("X", "among")) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `among` of the k samples of highest Pearson correlation, highest first, and the correlations.

    X: n × p, among: m × p → two arrays n × k; of equally correlated ones the first comes first. Raises ValueError, with
    `names` for the two, for NaN, another number of features, fewer than k samples, and samples without variance.
    """
    X, among = (as_matrix(M, name, min_samples=1) for M, name in zip((X, among), names, strict=True))
    if X.shape[1] != among.shape[1]:
        raise ValueError(f"{names[0]}: found {X.shape[1]} features, expected {among.shape[1]} as in {names[1]}")
    k = as_neighbours(k, len(among))
    X, among = _varying(X, names[0]), _varying(among, names[1])
    parts = [_top(X[start : start + BLOCK] @ among.T, k) for start in range(0, len(X), BLOCK)]
    positions, similarity = (np.concatenate(part) for part in zip(*parts, strict=True))
    return positions, similarity


def _varying(X: np.ndarray, name: str) -> np.ndarray:
    unit = unit_rows(X)
    constant = np.flatnonzero(np.isnan(unit[:, 0]))
    if len(constant):
        raise ValueError(f"{name}: found {len(constant)} constant samples (first: row {constant[0]}), expected none")
    return unit


def _top(correlation: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-correlation, axis=1, kind="stable")[:, :k]
    return order, np.clip(np.take_along_axis(correlation, order, axis=1), -1, 1)
