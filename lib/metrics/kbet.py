"""kBET, the k-nearest-neighbour batch effect test, with the semantics of the R package."""

import math
import warnings
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse, stats

from lib.metrics.distances import nearest_neighbours
from lib.metrics.inputs import all_identical, as_codes, as_matrix

PERMUTATIONS = 100  # behind the expected rate; the R package draws 3, which moves it by ±0.05 between seeds


class KBET(NamedTuple):
    """Rejection rates observed, expected under permuted labels, their difference; k0; p-value per sample."""

    observed: float
    expected: float
    delta: float
    k0: int
    pvalues: np.ndarray


def kbet(
    X, batch, k0=None, n_repeat=100, test_size=None, alpha=0.05, adapt=True, do_pca=False, dim_pca=50, seed=0
) -> KBET:
    """k-nearest-neighbour batch effect test (Büttner et al. 2019), with the semantics of the R package kBET.

    X: samples × features; batch: n labels, two or more. A sample is rejected when the labels of its
    neighbourhood (k0 - 1 nearest and itself) differ from the global frequencies (chi-squared, p < alpha).
    The rates are means over `n_repeat` random subsets of `test_size` samples (None, or more than n as in R: a
    tenth, at least 25); expected: the same under permuted labels. `pvalues` holds all n samples, in X's order.
    k0=None (or >= n): R's heuristic, a noisy bisection for the largest rate below 3/4 of the mean batch size.
    adapt: samples that are nobody's neighbour are left out of the frequencies when their labels deviate (see
    `left_out`).
    do_pca: neighbours on the first `dim_pca` left singular vectors of the raw X, all of unit variance (R's
    default), without those of singular value 0.
    NaN with a warning where R gives NA (n <= 10, k0 < 10) and where all samples are identical.
    Raises ValueError for NaN, one batch only, more components than samples, and settings out of range.
    """
    X = as_matrix(X, "X")
    n = len(X)
    codes, _ = as_codes(batch, n, "batch", min_levels=2)
    _check_kbet_settings(k0=k0, n_repeat=n_repeat, test_size=test_size, alpha=alpha, dim_pca=dim_pca)
    frequencies = np.bincount(codes) / n
    search = k0 is None or k0 >= n
    k0 = _first_k0(frequencies, n) if search else int(k0)
    reason = _why_not_estimable(X, k0)
    if reason:
        warnings.warn(f"kBET is NaN: {reason}", stacklevel=2)
        return KBET(math.nan, math.nan, math.nan, k0, np.full(n, math.nan))

    rng = np.random.default_rng(seed)
    _, neighbours = nearest_neighbours(_left_singular_vectors(X, dim_pca) if do_pca else X, k0)
    expectation = frequencies
    if adapt:
        kept = codes[~_left_out(codes, frequencies, neighbours[:, : k0 - 1], alpha)]
        expectation = np.bincount(kept, minlength=len(frequencies)) / len(kept)
    if search:
        k0 = _search_k0(codes, frequencies, neighbours, rng)
    neighbourhoods = _neighbourhoods(neighbours, k0)
    pvalues = stats.chi2.sf(_batch_statistics(neighbourhoods, codes, expectation), len(frequencies) - 1)
    size = _subset_size(n, test_size)
    tested = np.stack([rng.choice(n, size, replace=False) for _ in range(n_repeat)])
    observed = float((pvalues < alpha)[tested].mean())
    expected = float(_permuted_rejections(neighbourhoods, codes, frequencies, alpha, rng)[tested].mean())
    return KBET(observed, expected, observed - expected, k0, pvalues)


def left_out(X, batch, k0=None, alpha=0.05, do_pca=False, dim_pca=50) -> np.ndarray:
    """Which samples `kbet(..., adapt=True)` leaves out of the batch frequencies: boolean (n,); none where it is NaN.

    Arguments and errors as of `kbet`.
    """
    X = as_matrix(X, "X")
    codes, _ = as_codes(batch, len(X), "batch", min_levels=2)
    _check_kbet_settings(k0=k0, alpha=alpha, dim_pca=dim_pca)
    frequencies = np.bincount(codes) / len(X)
    k0 = _first_k0(frequencies, len(X)) if k0 is None or k0 >= len(X) else int(k0)
    if _why_not_estimable(X, k0):
        return np.zeros(len(X), dtype=bool)
    _, neighbours = nearest_neighbours(_left_singular_vectors(X, dim_pca) if do_pca else X, k0)
    return _left_out(codes, frequencies, neighbours[:, : k0 - 1], alpha)


def _check_kbet_settings(alpha, **counts) -> None:
    for name, value in counts.items():
        optional = name in ("k0", "test_size")
        if value is None and optional:
            continue
        if not (isinstance(value, Real) and float(value).is_integer() and value >= 1):
            expected = "None or a positive integer" if optional else "a positive integer"
            raise ValueError(f"{name}: found {value!r}, expected {expected}")
    if not (isinstance(alpha, Real) and 0 < alpha < 1):
        raise ValueError(f"alpha: found {alpha!r}, expected a value between 0 and 1")


def _first_k0(frequencies: np.ndarray, n: int) -> int:
    """3/4 of the mean batch size, with floats in R's order of operations, so that the floor falls as in R."""
    return math.floor(math.fsum(frequencies) / len(frequencies) * n * 0.75)


def _why_not_estimable(X: np.ndarray, k0: int) -> str:
    """The reason why R returns NA, or '' when it goes on."""
    if len(X) <= 10:
        return f"{len(X)} samples, more than 10 are needed"
    if k0 < 10:
        return f"a neighbourhood of k0 = {k0} samples, at least 10 are needed ({len(X)} samples)"
    return "all samples are identical, so no neighbour is nearer than another" if all_identical(X) else ""


def _left_singular_vectors(X: np.ndarray, dim_pca: int) -> np.ndarray:
    """First left singular vectors of the un-centred matrix, without those of singular value 0."""
    wanted = min(dim_pca, X.shape[1])
    if not 1 <= wanted < len(X):
        raise ValueError(f"dim_pca: found {wanted} components for {len(X)} samples, expected 1 to {len(X) - 1}")
    vectors, values, _ = linalg.svd(np.asarray(X, dtype=np.float64), full_matrices=False)
    return vectors[:, :wanted][:, values[:wanted] > values[0] * max(X.shape) * np.finfo(float).eps]


def _subset_size(n: int, test_size=None) -> int:
    """Number of samples per subset: R's `testSize`."""
    if test_size is not None and test_size <= n:
        return int(test_size)
    size = math.ceil(n * 0.1)
    return 25 if size < 25 < n else size


def _left_out(codes, frequencies, neighbours, alpha) -> np.ndarray:
    """Whether each sample is nobody's neighbour, if the labels of those deviate from the frequencies; else none."""
    outside = np.ones(len(codes), dtype=bool)
    outside[neighbours] = False
    counts = np.bincount(codes[outside], minlength=len(frequencies))
    if not outside.any() or _chi2_statistics(counts, frequencies) <= _critical(alpha, frequencies):
        outside[:] = False
    return outside


def _neighbourhoods(neighbours: np.ndarray, k0: int) -> sparse.csr_array:
    """Membership matrix (samples × samples): each sample's k0 - 1 nearest neighbours and itself."""
    n = len(neighbours)
    members = np.column_stack([neighbours[:, : k0 - 1], np.arange(n)]).astype(np.int32)
    return sparse.csr_array((np.ones(n * k0, np.float32), members.ravel(), np.arange(n + 1) * k0), shape=(n, n))


def _batch_statistics(neighbourhoods, codes, frequencies) -> np.ndarray:
    """Chi-squared statistic of each neighbourhood; `codes` is (n,), or (n, m) for m labellings at once."""
    k0 = neighbourhoods.nnz // len(codes)
    labels = codes[..., None] == np.arange(len(frequencies) - 1)  # the last batch has what the others leave
    counts = (neighbourhoods @ labels.reshape(len(codes), -1).astype(np.float32)).reshape(labels.shape)
    counts = np.concatenate([counts, k0 - counts.sum(axis=-1, keepdims=True)], axis=-1)
    return _chi2_statistics(counts, frequencies)


def _chi2_statistics(counts: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Sum over the batches, on the last axis, of (count - expected)² / expected."""
    expected = frequencies * counts.sum(axis=-1, keepdims=True)
    deviation = (counts - expected) ** 2
    # a batch that adapting has emptied is expected nowhere: 0 where it is absent, impossible where it is not
    absent = np.where(deviation > 0, np.inf, 0.0)
    return np.divide(deviation, expected, out=absent, where=expected > 0).sum(axis=-1)


def _critical(alpha: float, frequencies: np.ndarray) -> float:
    """Statistic above which p < alpha: quicker than the p-values where only the verdict is needed."""
    return float(stats.chi2.isf(alpha, len(frequencies) - 1))


def _permuted_rejections(neighbourhoods, codes, frequencies, alpha, rng, chunk=20) -> np.ndarray:
    """Per sample, the share of label permutations under which its neighbourhood is rejected."""
    critical = _critical(alpha, frequencies)
    rejections = np.zeros(len(codes))
    for _ in range(0, PERMUTATIONS, chunk):
        permuted = np.stack([rng.permutation(codes) for _ in range(chunk)], axis=1)
        rejections += (_batch_statistics(neighbourhoods, permuted, frequencies) > critical).sum(axis=1)
    return rejections / PERMUTATIONS


def _search_k0(codes, frequencies, neighbours, rng) -> int:
    """R's heuristic: the neighbourhood size from 10 to the given one with the largest rejection rate."""
    n, size, critical = len(codes), _subset_size(len(codes)), _critical(0.05, frequencies)

    def rate(k0: int) -> float:
        rejected = _batch_statistics(_neighbourhoods(neighbours, k0), codes, frequencies) > critical
        return float(np.mean([rejected[rng.choice(n, size, replace=False)].mean() for _ in range(10)]))

    return _bisect_maximum(rate, 10, neighbours.shape[1])


def _bisect_maximum(rate, low: int, high: int, tolx: float = 5, toly: float = 0.01) -> int:
    """Upper end of the interval on which R's `bisect` settles; the given `high` when it settles on none.

    As in R, a value carried over counts as unknown when it is 0, and from the second step on the first of
    the newly evaluated values is carried over, whichever end it belongs to.
    """
    start, known, first = high, [0.0, 0.0], True
    while True:
        fresh = [rate(bound) for bound, value in zip((low, high), known, strict=True) if value == 0]
        remaining = iter(fresh)
        left, right = (value if value != 0 else next(remaining) for value in known)
        rise, width, middle = right - left, high - low, round((low + high) / 2)
        if rise < -toly and width > tolx:
            lower_half = True
        elif rise > toly and width > tolx:
            lower_half = False
        elif not first:
            return high if abs(rise) < toly or width < tolx else start
        elif abs(rise) < toly:
            centre = rate(middle)
            off_left, off_right = abs(left - centre), abs(right - centre)
            if max(off_left, off_right) < toly or width < tolx:
                return high
            lower_half = off_left > toly
        else:
            return start
        carried = fresh[-1] if first and not lower_half else fresh[0]
        low, high = (low, middle) if lower_half else (middle, high)
        known, first = ([carried, 0.0] if lower_half else [0.0, carried]), False
