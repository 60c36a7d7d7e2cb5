"""Euclidean distances and nearest neighbours, exact, in blocks of samples."""

import numpy as np

from lib.metrics.inputs import all_identical, as_neighbours

BLOCK = 512  # samples whose distances to all others are held at once


def centred(X: np.ndarray) -> np.ndarray:
    """`X` less its feature means, float64: distances come from products, which a large mean would spoil."""
    X = np.asarray(X, dtype=np.float64)
    return X - X.mean(axis=0)


def euclidean(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Distances (rows of A × rows of B); below a millionth of the norms they are rounding errors, hence 0."""
    sizes = np.einsum("ij,ij->i", A, A)[:, None] + np.einsum("ij,ij->i", B, B)
    squared = sizes - 2 * (A @ B.T)
    squared[squared < 1e-12 * sizes] = 0
    return np.sqrt(squared, out=squared)


def pair_distances(X: np.ndarray) -> np.ndarray:
    """Distances of all pairs of different samples: array (n·(n-1)/2,)."""
    parts = []
    for start in range(0, len(X), BLOCK):
        distances = euclidean(X[start : start + BLOCK], X[start:])
        parts.append(distances[~np.tri(*distances.shape, dtype=bool)])
    return np.concatenate(parts)


def nearest_neighbours(Z: np.ndarray, k: int, name: str = "Z") -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices, both n × k, of each sample's k nearest, nearest first, itself excluded.

    Partial sorting, since kBET asks for k of a third of all samples, where scikit-learn's heaps are slow.
    Raises ValueError when k is not between 1 and n - 1, and when all samples are identical.
    """
    n = len(Z)
    k = as_neighbours(k, n - 1)
    if all_identical(Z):
        raise ValueError(f"{name}: found {n} identical samples, expected samples that differ")
    Z = centred(Z)
    nearest, indices = np.empty((n, k)), np.empty((n, k), dtype=np.int32)
    for start in range(0, n, BLOCK):
        distances = euclidean(Z[start : start + BLOCK], Z)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        some = np.argpartition(distances, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1)
        indices[start + rows] = np.take_along_axis(some, order, axis=1)
        nearest[start + rows] = np.take_along_axis(distances, indices[start + rows], axis=1)
    return nearest, indices
