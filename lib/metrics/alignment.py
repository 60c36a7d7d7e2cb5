"""How well tumours and cell lines (or any batches) are aligned: distances, match rate, truth scores.

kBET and PVCA, which have modules of their own, are imported from here as well.
"""

import warnings
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.metrics.bootstrap import interval_by_group
from lib.metrics.correlation import most_similar
from lib.metrics.distances import centred, euclidean, pair_distances
from lib.metrics.inputs import all_identical, as_codes, as_matrix
from lib.metrics.kbet import KBET, kbet
from lib.metrics.pvca import pvca

__all__ = [
    "KBET",
    "delta_d",
    "delta_d_per_type",
    "kbet",
    "match_rate",
    "pvca",
    "truth_scores",
    "within_type_variance_kept",
]


class _Distances(NamedTuple):
    inter: float  # median over all pairs of samples from different batches
    intra: np.ndarray  # per batch, median over its pairs


def delta_d(X, batch) -> float:
    """ΔD: median inter-batch Euclidean distance minus the mean of the batches' median intra-batch distances.

    X: samples × features; batch: n labels, two or more. Self pairs are excluded, the inter-batch pairs of
    all pairs of batches are pooled. > 0: batches apart; 0: as near to the other batch as to their own.
    RNAlign, section "Evaluation", prints the formula with the two terms exchanged, against the sign of its
    own tables; this is the tables' sign. Raises ValueError for NaN, one batch only, a batch of one sample.
    """
    X = as_matrix(X, "X")
    codes, levels = as_codes(batch, len(X), "batch", min_levels=2)
    for level, n in zip(levels.tolist(), np.bincount(codes), strict=True):
        if n < 2:
            raise ValueError(f"batch: found {n} sample of {level!r}, expected at least 2 for a distance within")
    distances = _median_distances(X, codes)
    return distances.inter - float(distances.intra.mean())


def delta_d_per_type(X, batch, cancer_type, min_n: int = 10) -> pd.DataFrame:
    """ΔD within every cancer type: one row per type, types with fewer than `min_n` of a batch skipped.

    Columns: n_<batch> and intra_<batch> (median distance within) per batch, inter, delta_d,
    ratio (delta_d / mean of the intra distances), skipped ('' or the reason why the row has no numbers).
    Raises ValueError as `delta_d` does.
    """
    X = as_matrix(X, "X")
    codes, batches = as_codes(batch, len(X), "batch", min_levels=2)
    type_codes, types = as_codes(cancer_type, len(X), "cancer_type")
    rows = [_type_row(X[type_codes == i], codes[type_codes == i], batches, min_n) for i in range(len(types))]
    numbers = ["inter", *(f"intra_{batch}" for batch in batches), "delta_d", "ratio"]
    columns = [*(f"n_{batch}" for batch in batches), *numbers, "skipped"]
    table = pd.DataFrame(rows, index=pd.Index(types, name="cancer_type"), columns=columns)
    return table.astype(dict.fromkeys(numbers, float))


def _type_row(X, codes, batches, min_n) -> dict:
    counts = np.bincount(codes, minlength=len(batches))
    row = {f"n_{batch}": int(n) for batch, n in zip(batches, counts, strict=True)} | {"skipped": ""}
    few = [f"{n} {batch}" for batch, n in zip(batches, counts, strict=True) if n < max(min_n, 2)]
    if few:
        return row | {"skipped": f"{', '.join(few)}: fewer than {max(min_n, 2)}"}
    inter, intra = _median_distances(X, codes)
    row |= {"inter": inter, "delta_d": inter - intra.mean()}
    row |= {f"intra_{batch}": median for batch, median in zip(batches, intra, strict=True)}
    if intra.mean() > 0:
        return row | {"ratio": row["delta_d"] / intra.mean()}
    return row | {"skipped": "ratio only: samples of a kind are identical"}


def _median_distances(X: np.ndarray, codes: np.ndarray) -> _Distances:
    """Exact median distances between and within batches, coded 0, 1, ..., of two samples or more each."""
    X = centred(X)
    groups = [X[codes == i] for i in range(codes.max() + 1)]
    inter = np.concatenate([euclidean(a, b).ravel() for a, b in combinations(groups, 2)])
    return _Distances(_median(inter), np.array([_median(pair_distances(group)) for group in groups]))


def _median(distances: np.ndarray) -> float:
    return float(np.median(distances, overwrite_input=True))


class VarianceKept(NamedTuple):
    """Share of the reference's within-type variance that is left: pooled, and per cancer type."""

    overall: float
    per_type: pd.Series


def within_type_variance_kept(X, reference, cancer_type, batch=None) -> VarianceKept:
    """Within-type sum of squares in `X` over that in `reference` (the same samples before alignment).

    1: nothing within a cancer type was lost; 0: every sample became its type's mean. `batch` (a label per sample):
    the variance within the batches of a type only, so that a shift between batches, which alignment is to remove,
    does not count as lost. Types with one sample, or whose samples are identical in the reference, have no variance
    to keep and are left out of `per_type`.
    Raises ValueError for NaN, for another number of samples, and when no type has variance.
    """
    X, reference = as_matrix(X, "X"), as_matrix(reference, "reference")
    if len(X) != len(reference):
        raise ValueError(f"reference: found {len(reference)} samples, expected {len(X)} as in X")
    codes, types = as_codes(cancer_type, len(X), "cancer_type")
    batches = np.zeros(len(X), int) if batch is None else as_codes(batch, len(X), "batch")[0]
    cells = np.unique(np.stack([codes, batches]), axis=1).T
    squares = pd.DataFrame(
        [[_sum_of_squares(m[(codes == i) & (batches == j)]) for m in (X, reference)] for i, j in cells]
    )
    kept, whole = squares.groupby(types[cells[:, 0]]).sum().T.to_numpy()
    kept, whole = pd.Series(kept, index=types), pd.Series(whole, index=types)
    if not whole.sum() > 0:
        raise ValueError("reference: found no variance within any cancer type, expected some")
    varying = whole > 0
    return VarianceKept(float(kept[varying].sum() / whole.sum()), (kept / whole)[varying])


def _sum_of_squares(X: np.ndarray) -> float:
    if all_identical(X):  # exactly 0, where the mean would leave rounding errors
        return 0.0
    return float((centred(X) ** 2).sum())


class MatchRate(NamedTuple):
    """Share of lines whose majority type is their own, over all and per line type, and the calls."""

    overall: float
    per_type: pd.Series
    predicted: np.ndarray


def match_rate(tumours, tumour_types, lines, line_types, k: int = 25) -> MatchRate:
    """Type each cell line by the majority of the k tumours of highest Pearson correlation over the features.

    tumours: n × p, lines: m × p -> overall share of lines whose call is their own type, `per_type` (Series by
    line type) and `predicted` (m,), in the lines' order. Ties go to the most correlated tumour's type.
    A line type that no tumour has counts as not matched. (RNAlign's "match %", as in Celligner.)
    Raises ValueError for NaN, another number of features, fewer than k tumours, a sample without variance.
    """
    nearest, _ = most_similar(lines, tumours, k, names=("lines", "tumours"))
    codes, types = as_codes(tumour_types, len(tumours), "tumour_types")
    as_codes(line_types, len(lines), "line_types")
    predicted = types[[_first_majority(row) for row in codes[nearest]]]
    matched = pd.Series(predicted == np.asarray(line_types))
    per_type = matched.groupby(np.asarray(line_types)).mean().rename_axis("cancer_type").rename("match_rate")
    return MatchRate(float(matched.mean()), per_type, predicted)


def _first_majority(row: np.ndarray) -> int:
    """Most frequent code; of tied ones that which comes first."""
    counts = np.bincount(row)
    return int(next(code for code in row if counts[code] == counts.max()))


class TruthScores(NamedTuple):
    """Correlation with the truth: per sample, and per group median, 95 % interval over samples and n."""

    per_sample: np.ndarray
    summary: pd.DataFrame


def truth_scores(aligned, truth, groups=None, n_boot: int = 1000, seed: int = 0) -> TruthScores:
    """Pearson correlation of every aligned profile with its true one, after removing the gene means.

    aligned, truth: samples × genes, same samples and genes in the same order. From each matrix its own mean
    of every gene over all given samples is subtracted; a sample's score is then the correlation over genes of
    its two rows. What all samples share thus scores nothing: only what tells them apart counts. `summary` has
    a row 'all' and one per group (columns value = median, low, high, n). A row without variance (a sample
    equal to the mean, up to rounding) scores NaN, with a warning, and is not in the summary.
    Raises ValueError for NaN and unlike shapes.
    """
    aligned, truth = as_matrix(aligned, "aligned"), as_matrix(truth, "truth")
    if aligned.shape != truth.shape:
        raise ValueError(f"truth: found shape {truth.shape}, expected {aligned.shape} as aligned")
    a, b = _deviations(aligned), _deviations(truth)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    scores = np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), np.nan), where=norms > 0)
    defined = norms > 0
    if not defined.all():
        warnings.warn(f"truth score is NaN for {(~defined).sum()} of {len(a)} samples, equal to the mean", stacklevel=2)
    if not defined.any():
        return TruthScores(scores, pd.DataFrame(columns=["value", "low", "high", "n"]))
    labels = ["all"] * len(a)
    tables = [interval_by_group(scores[defined], np.array(labels)[defined], n_boot=n_boot, seed=seed)]
    if groups is not None:
        as_codes(groups, len(a), "groups")
        tables.append(interval_by_group(scores[defined], np.asarray(groups)[defined], n_boot=n_boot, seed=seed))
    return TruthScores(scores, pd.concat(tables))


def _deviations(X: np.ndarray) -> np.ndarray:
    """X less its gene means and then its row means; rows that are only rounding errors become 0."""
    deviations = centred(X)
    deviations -= deviations.mean(axis=1, keepdims=True)
    rounding = np.linalg.norm(deviations, axis=1) <= 1e-12 * np.linalg.norm(X, axis=1)
    deviations[rounding] = 0
    return deviations
