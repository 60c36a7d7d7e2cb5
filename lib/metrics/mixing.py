"""How well samples of different sources (or batches, or labels) mix among their nearest neighbours."""

from numbers import Real
from typing import NamedTuple

import numpy as np

from lib.metrics.distances import nearest_neighbours
from lib.metrics.inputs import as_codes, as_matrix


def knn_source_mixing(Z, source, k: int = 20) -> np.ndarray:
    """Per sample, the share of its k nearest neighbours that come from another source: array (n,).

    Z: samples × features, Euclidean. 0: every neighbour is of the sample's own source; compare with
    `shuffled_mixing`, not with 1. Raises ValueError for fewer than two sources, NaN, k >= n.
    """
    Z = as_matrix(Z, "Z")
    codes, _ = as_codes(source, len(Z), "source", min_levels=2)
    _, neighbours = nearest_neighbours(Z, k)
    return (codes[neighbours] != codes[:, None]).mean(axis=1)


class Mixing(NamedTuple):
    """Per sample: share of neighbours from another source, and LISI of the sources."""

    source_mixing: np.ndarray
    lisi: np.ndarray


def shuffled_mixing(Z, source, tissue, k: int = 20, n_shuffles: int = 50, seed: int = 0) -> Mixing:
    """Mean `knn_source_mixing` and (uniform) `lisi` when sources are shuffled among the samples of each tissue.

    The neighbours stay, so this is what the same space would show if a tissue's samples lay in it regardless of their
    source: the scale for what was found. A tissue of one source, or one sample, gives what was found.
    Raises ValueError for fewer than two sources, NaN, k >= n.
    """
    Z = as_matrix(Z, "Z")
    codes, sources = as_codes(source, len(Z), "source", min_levels=2)
    tissue_codes, _ = as_codes(tissue, len(Z), "tissue")
    _, neighbours = nearest_neighbours(Z, k)
    rng, in_tissue = np.random.default_rng(seed), np.argsort(tissue_codes, kind="stable")
    mixing, simpson = np.zeros(len(Z)), np.zeros(len(Z))
    for _ in range(n_shuffles):
        order = np.lexsort((rng.random(len(Z)), tissue_codes))  # tissue by tissue, at random within
        shuffled = np.empty_like(codes)
        shuffled[in_tissue] = codes[order]
        mixing += (shuffled[neighbours] != shuffled[:, None]).mean(axis=1)
        simpson += _inverse_simpson(shuffled[neighbours], np.full(neighbours.shape, 1 / k), len(sources))
    return Mixing(mixing / n_shuffles, simpson / n_shuffles)


def lisi(Z, labels, k: int = 20, weights: str = "uniform", perplexity: float = 30) -> np.ndarray:
    """Per sample, the inverse Simpson index of its neighbours' labels: array (n,), 1 to the number of labels.

    weights="uniform": 1 / sum p² over the k nearest, the sample itself excluded.
    weights="gaussian": LISI of Korsunsky et al. 2019 (immunogenomics/LISI): 3·perplexity nearest with the
    sample, which is then dropped; weights exp(-beta·distance), beta such that their entropy is
    log(perplexity); k is not used. Raises ValueError for NaN, other weights, fewer samples than neighbours.
    """
    Z = as_matrix(Z, "Z")
    codes, levels = as_codes(labels, len(Z), "labels")
    if weights == "uniform":
        _, neighbours = nearest_neighbours(Z, k)
        probability = np.full(neighbours.shape, 1 / neighbours.shape[1])
    elif weights == "gaussian":
        if not (isinstance(perplexity, Real) and 1 < perplexity <= len(Z) / 3):
            raise ValueError(f"perplexity: found {perplexity!r} for {len(Z)} samples, expected 1 to a third of them")
        distances, neighbours = nearest_neighbours(Z, int(3 * perplexity) - 1)
        probability = _perplexity_weights(distances, perplexity)
    else:
        raise ValueError(f"weights: found {weights!r}, expected 'uniform' or 'gaussian'")
    return _inverse_simpson(codes[neighbours], probability, len(levels))


def _inverse_simpson(labels: np.ndarray, weights: np.ndarray, n_levels: int) -> np.ndarray:
    """1 / sum of squared shares of each row's labels (codes, samples × neighbours) under weights that add up to 1."""
    shares = np.stack([np.where(labels == i, weights, 0).sum(axis=1) for i in range(n_levels)])
    return 1 / (shares**2).sum(axis=0)


def _perplexity_weights(distances: np.ndarray, perplexity: float, steps: int = 60) -> np.ndarray:
    """Weights exp(-beta·d) per row, summing to 1, with beta bisected to an entropy of log(perplexity)."""
    distances = distances - distances.min(axis=1, keepdims=True)  # leaves the weights as they are
    beta, low, high = np.ones(len(distances)), np.zeros(len(distances)), np.full(len(distances), np.inf)
    for _ in range(steps):
        weights = np.exp(-beta[:, None] * distances)
        total = weights.sum(axis=1)
        entropy = np.log(total) + beta * (distances * weights).sum(axis=1) / total
        flat = entropy > np.log(perplexity)
        low, high = np.where(flat, beta, low), np.where(flat, high, beta)
        beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
    return weights / total[:, None]
