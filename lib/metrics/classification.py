"""Scores of tissue calls, with intervals over samples, and the k-nearest-neighbour baseline."""

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from lib.metrics.bootstrap import Estimate, interval, percentile_interval, share
from lib.metrics.inputs import as_codes, as_matrix, as_neighbours


def balanced_accuracy(y_true, y_pred, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Mean recall over the classes present in `y_true`, with its interval over samples and n.

    Samples are resampled within their class. Raises ValueError for missing labels.
    """
    return _estimate(y_true, [y_pred], lambda tables: _balanced_accuracy(tables[0]), n_boot, seed)


def weighted_f1(y_true, y_pred, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """F1 per class weighted by the class's samples, with its interval over samples and n.

    Raises ValueError for missing labels.
    """
    return _estimate(y_true, [y_pred], lambda tables: _weighted_f1(tables[0]), n_boot, seed)


def paired_difference(y_true, pred_a, pred_b, score="balanced_accuracy", n_boot=1000, seed=0) -> Estimate:
    """Score of `pred_a` minus score of `pred_b` on the same samples, both resampled together.

    score: "balanced_accuracy" or "weighted_f1". Raises ValueError for another score and for missing labels.
    """
    scores = {"balanced_accuracy": _balanced_accuracy, "weighted_f1": _weighted_f1}
    if score not in scores:
        raise ValueError(f"score: found {score!r}, expected one of {list(scores)}")
    measure = scores[score]
    return _estimate(y_true, [pred_a, pred_b], lambda t: measure(t[0]) - measure(t[1]), n_boot, seed)


def paired_shares(after, before, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Share of true values in `after` minus that in `before`, paired by sample, with its interval over samples and n.

    after, before: (n,) of 1, 0, and NaN, which leaves a sample out. Where all samples change alike a bootstrap has no
    width: the interval then reaches Wilson's bound for none of n to either side. No samples: NaN, n = 0.
    """
    change = np.asarray(after, float) - np.asarray(before, float)
    change = change[~np.isnan(change)]
    if not len(change):
        return Estimate(np.nan, np.nan, np.nan, 0)
    found = interval(change, np.mean, n_boot, seed)
    if np.ptp(change):
        return found
    bound = share(np.zeros(len(change))).high
    return found._replace(low=max(found.value - bound, -1.0), high=min(found.value + bound, 1.0))


def unpaired_difference(first, second, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Balanced accuracy in one set of samples minus that in another, with its interval and the n of both together.

    first, second: (y_true, y_pred, groups) of the samples. Within each class whole groups (studies, donors) are
    resampled: samples of one group are alike, and intervals over samples would be too narrow. A class with one group
    does not vary. Raises ValueError for missing labels.
    """
    rng = np.random.default_rng(seed)
    (value_a, draws_a, n_a), (value_b, draws_b, n_b) = (
        _recall_by_group(*each, n_boot, rng) for each in (first, second)
    )
    return Estimate(value_a - value_b, *percentile_interval(draws_a - draws_b), n_a + n_b)


def _recall_by_group(y_true, y_pred, groups, n_boot: int, rng) -> tuple[float, np.ndarray, int]:
    """Mean recall over the classes of `y_true`, its draws when groups are resampled within each class, and n."""
    codes, _ = _shared_codes(y_true, [y_pred])
    group_codes, _ = as_codes(groups, codes.shape[1], "groups")
    recalls, draws = [], []
    for level in np.unique(codes[0]):
        mine = codes[0] == level
        _, members = np.unique(group_codes[mine], return_inverse=True)
        n, hits = np.bincount(members), np.bincount(members, codes[1][mine] == level)
        weights = rng.multinomial(len(n), np.full(len(n), 1 / len(n)), size=n_boot)
        recalls.append(hits.sum() / n.sum())
        draws.append((weights @ hits) / (weights @ n))
    return float(np.mean(recalls)), np.mean(draws, axis=0), codes.shape[1]


def confusion_table(y_true, y_pred) -> pd.DataFrame:
    """Share of each true class (row) that is called each class (column): rows add up to 1; classes in `y_true` only.

    Calls of a class that no sample has are in the column "other", or "no true class" where a class is called "other".
    Raises ValueError for missing labels.
    """
    codes, levels = _shared_codes(y_true, [y_pred])
    counts = np.zeros((len(levels), len(levels)))
    np.add.at(counts, tuple(codes), 1)
    present = counts.sum(axis=1) > 0
    table = pd.DataFrame(counts[present][:, present], index=levels[present], columns=levels[present])
    other = counts[present][:, ~present].sum(axis=1)
    if other.any():
        table["no true class" if "other" in table else "other"] = other
    return table.div(counts[present].sum(axis=1), axis=0).rename_axis("class")


def per_class_accuracy(y_true, y_pred) -> pd.DataFrame:
    """Recall of every class in `y_true`: DataFrame (index class; columns n, correct, accuracy, low, high).

    Wilson's interval, which a class of two samples that are both right needs. Raises ValueError for missing labels.
    """
    codes, levels = _shared_codes(y_true, [y_pred])
    rows = {}
    for code in np.unique(codes[0]):
        right = codes[1][codes[0] == code] == code
        accuracy, low, high, n = share(right)
        rows[levels[code]] = {"n": n, "correct": right.sum(), "accuracy": accuracy, "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"n": int, "correct": int}).rename_axis("class")


def knn_predict(train_X, train_y, X, k: int = 5, metric: str = "cosine") -> np.ndarray:
    """Class of every row of `X` by majority among its k nearest training samples (scikit-learn, exact).

    train_X: n × p, train_y: n, X: m × p -> (m,) labels; the smaller label wins a tied vote.
    Raises ValueError for NaN, missing labels, another number of features, or fewer than k training samples.
    """
    train_X, X = as_matrix(train_X, "train_X", min_samples=1), as_matrix(X, "X", min_samples=1)
    if X.shape[1] != train_X.shape[1]:
        raise ValueError(f"X: found {X.shape[1]} features, expected {train_X.shape[1]} as in train_X")
    k = as_neighbours(k, len(train_X))
    codes, levels = as_codes(train_y, len(train_X), "train_y")
    model = KNeighborsClassifier(n_neighbors=k, metric=metric, algorithm="brute").fit(train_X, codes)
    return levels[model.predict(X)]


def _estimate(y_true, predictions, measure, n_boot: int, seed: int) -> Estimate:
    """`measure` of the predictors' confusion tables, with its interval: samples resampled jointly within a class.

    Within each class, since a resample of all samples loses rare classes, and the mean recall over the rest is biased.
    """
    codes, levels = _shared_codes(y_true, predictions)
    # Samples with the same true and predicted labels are alike: resampling them is one multinomial draw.
    kinds, counts = np.unique(codes, axis=1, return_counts=True)
    n = int(counts.sum())
    rng = np.random.default_rng(seed)
    draws = np.zeros((n_boot, len(counts)), dtype=np.int64)
    for level in np.unique(kinds[0]):
        same = kinds[0] == level
        of_class = int(counts[same].sum())
        draws[:, same] = rng.multinomial(of_class, counts[same] / of_class, size=n_boot)
    value = measure([_confusion(kinds[0], called, counts[None], len(levels)) for called in kinds[1:]])[0]
    resampled = np.concatenate(
        [
            measure([_confusion(kinds[0], called, part, len(levels)) for called in kinds[1:]])
            for part in np.array_split(draws, max(1, n_boot // 100))
        ]
    )
    return Estimate(float(value), *percentile_interval(resampled), n)


def _shared_codes(y_true, predictions) -> tuple[np.ndarray, np.ndarray]:
    """Codes (1 + predictors, n) of the true and the predicted labels, over one common set of levels."""
    names = ["y_true", "y_pred"] if len(predictions) == 1 else ["y_true", "pred_a", "pred_b"]
    labels = [np.asarray(each) for each in (y_true, *predictions)]
    n = labels[0].size
    if n == 0:
        raise ValueError("y_true: found no labels, expected at least one sample")
    for each, name in zip(labels, names, strict=True):
        as_codes(each, n, name)  # its checks only
    codes, levels = as_codes(np.concatenate(labels), n * len(labels), "labels")
    return codes.reshape(len(labels), n), levels


def _confusion(true: np.ndarray, called: np.ndarray, counts: np.ndarray, n_levels: int) -> np.ndarray:
    """Confusion tables (draws × true × called) from the counts (draws × kinds of sample)."""
    tables = np.zeros((len(counts), n_levels, n_levels))
    np.add.at(tables, (slice(None), true, called), counts)
    return tables


def _balanced_accuracy(tables: np.ndarray) -> np.ndarray:
    """Mean recall over the classes with samples, per table."""
    n = tables.sum(axis=2)
    recall = np.divide(np.diagonal(tables, axis1=1, axis2=2), n, out=np.zeros_like(n), where=n > 0)
    return recall.sum(axis=1) / (n > 0).sum(axis=1)


def _weighted_f1(tables: np.ndarray) -> np.ndarray:
    """F1 = 2·TP / (true + called), weighted by the true samples, per table."""
    n, called = tables.sum(axis=2), tables.sum(axis=1)
    hits = np.diagonal(tables, axis1=1, axis2=2)
    f1 = np.divide(2 * hits, n + called, out=np.zeros_like(n), where=n + called > 0)
    return (f1 * n).sum(axis=1) / n.sum(axis=1)
