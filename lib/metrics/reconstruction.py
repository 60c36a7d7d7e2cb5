"""Agreement of reconstructed with original expression: Spearman correlation per gene and per sample."""

import warnings
from functools import partial

import numpy as np
from scipy.stats import rankdata

from lib.metrics.bootstrap import Estimate, percentile_interval

BLOCK_VALUES = 500_000  # values ranked at once: some 50 MB of working memory, whatever the matrix; more is slower


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


def masked_spearman(original, imputed, mask, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """One Spearman correlation over all masked values of all samples together (paper B, Fig 3c), and its interval.

    original, imputed: samples × genes; mask: boolean, the same shape. Resampled are whole samples; the ranks stay those
    of all masked values. n: samples with a masked value. NaN, with a warning, when either side is constant.
    Raises ValueError for unlike shapes, a mask that is not boolean or masks nothing, NaN and infinity.
    """
    return spearman_of_sums(masked_sums(original, imputed, mask), n_boot, seed)


def masked_sums(original, imputed, mask) -> np.ndarray:
    """What `masked_spearman` needs of each sample with a masked value: (samples, 6) sums over its centred ranks."""
    original, imputed = _check_shapes(original, imputed)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != original.shape or not mask.any():
        raise ValueError(
            f"mask: found {mask.dtype} {mask.shape} with {np.count_nonzero(mask)} masked, "
            f"expected bool {original.shape} with one at least"
        )
    return sums_of_ranks(doubled_ranks(original[mask], "original"), imputed[mask], mask.sum(axis=1))


def doubled_ranks(values: np.ndarray, name: str) -> np.ndarray:
    """Twice the average rank of each of n values, less n + 1: integers, exact. ValueError for NaN and infinity."""
    ordered = _sorted(values, name)
    ranks = np.empty(len(values), np.int32 if len(values) < 2**31 else np.int64)
    for start in range(0, len(values), BLOCK_VALUES):
        block = slice(start, start + BLOCK_VALUES)
        ranks[block] = _ranks_among(ordered, values[block])
    return ranks


def sums_of_ranks(ranks: np.ndarray, imputed: np.ndarray, per_sample: np.ndarray) -> np.ndarray:
    """`masked_sums` from the masked values alone, sample after sample; per_sample: how many each sample has.

    ranks: `doubled_ranks` of the original. Beside its arguments it takes one sorted copy of `imputed` and blocks, so
    that the masked values of 28,274 × 16,115 take less than 2 GB. ValueError for NaN and infinity.
    """
    ordered, ends, sums = _sorted(imputed, "imputed"), np.cumsum(per_sample), []
    for rows in _blocks(ends):
        block = slice(ends[rows[0]] - per_sample[rows[0]], ends[rows[-1]])
        a, b = ranks[block] / 2, _ranks_among(ordered, imputed[block]) / 2
        of = np.repeat(rows - rows[0], per_sample[rows])
        products = (np.ones(len(a)), a, b, a * a, b * b, a * b)
        sums.append(np.stack([np.bincount(of, p, minlength=len(rows)) for p in products], axis=1))
    return np.concatenate(sums)[np.asarray(per_sample) > 0]


def _sorted(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: found {(~np.isfinite(values)).sum()} NaN or infinite values, expected none")
    return np.sort(values)


def _ranks_among(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`doubled_ranks` of some of the values, which are all given in ascending order."""
    order = np.argsort(values)
    asked, ranks = values[order], np.empty(len(values), np.int64)  # in order: the search stays in the cache
    ranks[order] = np.searchsorted(ordered, asked, "left") + np.searchsorted(ordered, asked, "right") - len(ordered)
    return ranks


def _blocks(ends: np.ndarray) -> list[np.ndarray]:
    """Samples in runs of about `BLOCK_VALUES` values, one sample at least; ends: values up to each sample's last."""
    starts = np.flatnonzero(np.diff(ends // BLOCK_VALUES, prepend=-1))
    return np.split(np.arange(len(ends)), starts[starts > 0])


def spearman_of_sums(sums: np.ndarray, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """`masked_spearman` from its `masked_sums`."""
    value = _correlation(sums.sum(axis=0))
    if np.isnan(value):
        warnings.warn("masked Spearman is NaN: the original or the imputed values are constant", stacklevel=3)
        return Estimate(np.nan, np.nan, np.nan, len(sums))
    return Estimate(
        float(value), *percentile_interval(_correlation(_resampled(len(sums), n_boot, seed) @ sums)), len(sums)
    )


def masked_difference(sums_a: np.ndarray, sums_b: np.ndarray, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """`masked_spearman` of b minus that of a, both resampled together; from their `masked_sums` under one mask.

    NaN when either side is constant. Raises ValueError for unlike numbers of samples.
    """
    if len(sums_a) != len(sums_b):
        raise ValueError(f"sums_b: found {len(sums_b)} samples, expected {len(sums_a)} as in sums_a")
    value = _correlation(sums_b.sum(axis=0)) - _correlation(sums_a.sum(axis=0))
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan, len(sums_a))
    counts = _resampled(len(sums_a), n_boot, seed)
    draws = _correlation(counts @ sums_b) - _correlation(counts @ sums_a)
    return Estimate(float(value), *percentile_interval(draws), len(sums_a))


def _resampled(n: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each of n samples is drawn, with replacement: (n_boot, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_boot)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson correlation from (..., 6) sums of 1, a, b, a², b², ab; NaN without variance."""
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(aa - a * a / n, 0) * np.maximum(bb - b * b / n, 0))
    return np.divide(ab - a * b / n, spread, out=np.full(np.shape(spread), np.nan), where=spread > 0)


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
    rank = _ranks_of_float32 if rows.dtype == np.float32 else partial(rankdata, axis=1)
    return rank(rows) - (rows.shape[1] + 1) / 2


def _ranks_of_float32(rows: np.ndarray) -> np.ndarray:
    """Average ranks within rows: sorts value and position as one 64-bit integer, several times as fast as argsort."""
    n = rows.shape[1]
    bits = (rows + np.float32(0)).view(np.uint32)  # + 0: -0 becomes 0, with which it is tied
    keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)  # in the order of the values
    keys <<= np.uint64(32)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    starts = np.ones((len(rows), n + 1), dtype=bool)  # where a run of ties begins, and one past the end
    starts[:, 1:-1] = np.diff(keys >> np.uint64(32), axis=1) > 0
    first = np.flatnonzero(starts[:, :-1].ravel())
    lengths = np.diff(np.append(first, rows.size))
    keys &= np.uint64(0xFFFFFFFF)
    keys += n * np.arange(len(rows), dtype=np.uint64)[:, None]
    ranks = np.empty(rows.size)
    ranks[keys.ravel().view(np.int64)] = np.repeat(first % n + (lengths + 1) / 2, lengths)
    return ranks.reshape(rows.shape)
