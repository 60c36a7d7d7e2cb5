"""What only a known generator allows to ask of an alignment: was the infiltrate removed, who was aligned falsely."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from lib.config import Evaluation
from lib.metrics.alignment import truth_scores
from lib.metrics.bootstrap import Estimate, interval, share
from lib.neighbours import calls_of_lines

MIN_TUMOURS = 25  # for a regression of purity in five folds

SCORES = {
    "infiltrate_removed": "tumours: correlation of what was changed with the true infiltrate, median",
    "purity_left": "tumours: correlation of the true purity within types with its prediction from the aligned profile",
    "match_aligning": "match of the lines that truly align",
    "match_not_aligning": "false alignment: match of the lines that truly do not align",
    "mislabelled_to_given": "mislabelled lines that match the type they were given",
    "mislabelled_to_true": "mislabelled lines that match their true type",
}


def label_scores(
    X: np.ndarray,
    given: np.ndarray,
    obs: pd.DataFrame,
    programme: np.ndarray,
    labels: pd.DataFrame,
    by: Evaluation,
    seed,
) -> pd.DataFrame:
    """Scores of one aligned matrix: rows `SCORES`, columns value, low, high, n; NaN where there is nothing to score.

    X, given, programme: samples × genes (aligned; input; the truth of `compendia.truth`); obs: sample_type,
    cancer_type; labels: purity, true_type, mislabelled and truly_aligns of `compendia.true_labels`.
    """
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    types = obs["cancer_type"].to_numpy(dtype=str)
    tumours = ~is_line
    rows = {"infiltrate_removed": _infiltrate_removed(X, given, programme, tumours, by, seed)}
    purity = labels["purity"].to_numpy(float)
    rows["purity_left"] = _purity_left(X[tumours], types[tumours], purity[tumours], by, seed)
    calls = calls_of_lines(X, obs, by.match_neighbours)
    lines = labels[is_line & (not calls.empty)]
    wrong, aligns = lines["mislabelled"].to_numpy(bool), lines["truly_aligns"].to_numpy(bool)
    to_given = (calls["called"] == calls["cancer_type"]).to_numpy()
    to_true = calls["called"].to_numpy() == lines["true_type"].to_numpy(str)
    rows["match_aligning"] = share(to_given[aligns])
    rows["match_not_aligning"] = share(to_given[~aligns & ~wrong])
    rows["mislabelled_to_given"] = share(to_given[wrong])
    rows["mislabelled_to_true"] = share(to_true[wrong])
    table = pd.DataFrame(rows, index=Estimate._fields).T.loc[list(SCORES)].rename_axis("score")
    return table.astype({"n": int})


def _infiltrate_removed(X, given, programme, tumours, by: Evaluation, seed) -> Estimate:
    """Per tumour the correlation over genes of (input - aligned) with (input - programme), less what all share."""
    changed, infiltrate = (given[tumours] - other[tumours] for other in (X, programme))
    if not changed.any():
        return Estimate(np.nan, np.nan, np.nan, 0)
    with warnings.catch_warnings():  # tumours that were not changed more than the others have no score
        warnings.simplefilter("ignore")
        summary = truth_scores(changed, infiltrate, None, by.bootstrap, seed).summary
    return Estimate(*summary.loc["all"]) if len(summary) else Estimate(np.nan, np.nan, np.nan, 0)


def _purity_left(X, types, purity, by: Evaluation, seed) -> Estimate:
    """Out-of-fold correlation of purity, within types, with a ridge regression on the components of X; 0 is best."""
    if len(X) < MIN_TUMOURS:
        return Estimate(np.nan, np.nan, np.nan, len(X))
    X = X - pd.DataFrame(X).groupby(types).transform("mean").to_numpy()
    purity = purity - pd.Series(purity).groupby(types).transform("mean").to_numpy()
    folds = KFold(5, shuffle=True, random_state=seed)
    components = PCA(min(50, X.shape[1], len(X) * 4 // 5 - 1), svd_solver="randomized", random_state=seed)
    if np.ptp(X, axis=0).max() < 1e-5:  # every sample is its type's mean: nothing of purity can be left
        predicted = np.zeros(len(X))
    else:
        ridge = make_pipeline(components, RidgeCV(np.logspace(-1, 5, 13)))
        predicted = cross_val_predict(ridge, X, purity, cv=folds)
    return interval(np.arange(len(X)), _correlation_of(predicted, purity), by.bootstrap, seed)


def _correlation_of(a: np.ndarray, b: np.ndarray):
    """Statistic for `interval` over sample indices: Pearson correlation of a and b, 0 where one does not vary."""

    def statistic(indices, axis):
        x, y = (v[indices.astype(int)] for v in (a, b))
        x, y = (v - v.mean(axis=axis, keepdims=True) for v in (x, y))
        norms = np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))
        return (x * y).sum(axis=axis) / np.where(norms > 0, norms, 1)

    return statistic
