"""How well samples of different sources (or batches, or labels) mix among their nearest neighbours."""

import warnings

import numpy as np

from lib.metrics.distances import nearest_neighbours
from lib.metrics.inputs import as_codes, as_matrix


def knn_source_mixing(Z, source, k: int = 20) -> np.ndarray:
    """Per sample, the share of its k nearest neighbours that come from another source: array (n,).

    Z: samples × features, Euclidean. 0: every neighbour is of the sample's own source; compare with
    `expected_source_mixing`, not with 1. Raises ValueError for fewer than two sources, NaN, k >= n.
    """
    Z = as_matrix(Z, "Z")
    codes, _ = as_codes(source, len(Z), "source", min_levels=2)
    _, neighbours = nearest_neighbours(Z, k)
    return (codes[neighbours] != codes[:, None]).mean(axis=1)


def expected_source_mixing(source, tissue) -> np.ndarray:
    """Per sample, the source mixing expected if sources mixed at random within each tissue: array (n,).

    (samples of the tissue from other sources) / (other samples of the tissue): the ceiling that a perfect
    integration reaches while every neighbour is still of the sample's tissue. A tissue with one sample
    has no such expectation: NaN, with a warning that names it.
    """
    source_codes, _ = as_codes(source, len(np.asarray(source)), "source", min_levels=2)
    tissue_codes, tissues = as_codes(tissue, len(source_codes), "tissue")
    counts = np.zeros((len(tissues), source_codes.max() + 1))
    np.add.at(counts, (tissue_codes, source_codes), 1)
    sizes = counts.sum(axis=1)
    if (sizes == 1).any():
        alone = ", ".join(map(str, tissues[sizes == 1]))
        warnings.warn(f"expected mixing is NaN for tissues with a single sample: {alone}", stacklevel=2)
    others = sizes[tissue_codes] - 1
    foreign = sizes[tissue_codes] - counts[tissue_codes, source_codes]
    return np.divide(foreign, others, out=np.full(len(others), np.nan), where=others > 0)


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
        if not 1 < perplexity <= len(Z) / 3:
            raise ValueError(f"perplexity: found {perplexity} for {len(Z)} samples, expected 1 to a third of them")
        distances, neighbours = nearest_neighbours(Z, int(3 * perplexity) - 1)
        probability = _perplexity_weights(distances, perplexity)
    else:
        raise ValueError(f"weights: found {weights!r}, expected 'uniform' or 'gaussian'")
    shares = np.stack([np.where(codes[neighbours] == i, probability, 0).sum(1) for i in range(len(levels))])
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
