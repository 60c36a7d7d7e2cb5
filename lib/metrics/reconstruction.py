"""Agreement of reconstructed with original expression: Spearman correlation per gene and per sample."""

import warnings

import numpy as np
from scipy.stats import rankdata

BLOCK_VALUES = 8_000_000  # values ranked at once: some 0.5 GB of working memory, whatever the matrix


def spearman_per_gene(original, reconstructed) -> np.ndarray:
    """Spearman correlation over samples of each gene (column), ties averaged: array (genes,).

    original, reconstructed: samples × genes, read in blocks of genes. A gene constant in either has no
    correlation: NaN, with a warning that counts them. Raises ValueError for NaN, infinity, unlike shapes.
    """
    original, reconstructed = _check_shapes(original, reconstructed)
    return _spearman_columns(original, reconstructed, "gene")


def spearman_per_sample(original, reconstructed) -> np.ndarray:
    """Spearman correlation over genes of each sample (row), ties averaged: array (samples,).

    As `spearman_per_gene`, with rows for columns.
    """
    original, reconstructed = _check_shapes(original, reconstructed)
    return _spearman_columns(original.T, reconstructed.T, "sample")


def _check_shapes(original, reconstructed) -> tuple[np.ndarray, np.ndarray]:
    original, reconstructed = np.asarray(original), np.asarray(reconstructed)
    if original.ndim != 2 or original.shape != reconstructed.shape:
        raise ValueError(
            f"reconstructed: found shape {reconstructed.shape} beside original {original.shape}, "
            "expected two equal shapes (samples × genes)"
        )
    for X, name in ((original, "original"), (reconstructed, "reconstructed")):
        if X.dtype.kind not in "fiub":
            raise ValueError(f"{name}: found values of type {X.dtype}, expected numbers")
    return original, reconstructed


def _spearman_columns(a: np.ndarray, b: np.ndarray, what: str) -> np.ndarray:
    """Spearman correlation of each column of `a` with that of `b`, in blocks of columns."""
    if len(a) < 2:
        raise ValueError(f"original: found {len(a)} value(s) per {what}, expected at least 2")
    width = max(1, BLOCK_VALUES // len(a))
    rho = np.empty(a.shape[1])
    for start in range(0, a.shape[1], width):
        block = slice(start, start + width)
        ranks_a, ranks_b = (_centred_ranks(m[:, block], n) for m, n in ((a, "original"), (b, "reconstructed")))
        norms = np.sqrt(np.einsum("ij,ij->i", ranks_a, ranks_a) * np.einsum("ij,ij->i", ranks_b, ranks_b))
        products = np.einsum("ij,ij->i", ranks_a, ranks_b)
        rho[block] = np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0)
    constant = int(np.isnan(rho).sum())
    if constant:
        warnings.warn(f"Spearman is NaN for {constant} of {len(rho)} {what}s, which are constant", stacklevel=3)
    return rho


def _centred_ranks(columns: np.ndarray, name: str) -> np.ndarray:
    """Average ranks of each column, less their mean, one column per row."""
    rows = np.ascontiguousarray(columns.T)
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: found {(~np.isfinite(rows)).sum()} NaN or infinite values, expected none")
    return rankdata(rows, axis=1) - (rows.shape[1] + 1) / 2
