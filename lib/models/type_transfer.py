"""Cancer types carried from tumours to cell lines without a label of any line, and alignment by them.

What differs between a tumour and a line of its type (unit, purity, culture) is large, but much of it keeps the
order of genes within a sample. So types are learnt on tumours' ranks and read off the lines' ranks. Not in the papers.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

CLASSIFIERS = ("logistic", "discriminant", "two views")


def normal_scores(X) -> np.ndarray:
    """Ranks of the genes within each sample as quantiles of the normal distribution: samples × genes, float32.

    X: samples × genes in any unit that keeps the order within a sample; ties get their mean rank.
    """
    return norm.ppf((rankdata(X, axis=1) - 0.5) / np.shape(X)[1]).astype(np.float32)


class TypeTransfer(BaseEstimator):
    """Cancer types of cell lines from those of tumours, by ranks; lines moved from their type's mean to the tumours'.

    classifier, fitted on tumours only: "logistic" (logistic regression on rank percentiles, C = 1), "discriminant"
    (linear discriminant analysis on normal scores, Ledoit-Wolf covariances: nothing to tune), or "two views" (two such
    discriminants, on the order of the genes by log2(TPM+1) and by z-score; the mean of their log-probabilities).

    `align` moves a line by the difference between the mean tumour and the mean line of the type that it seems to have.
    Differences between lines of a type stay as they are, and so do tumours.

    After `fit`: types_ (those of two tumours or more), tumour_means_ and shifts_ (types × genes; a type that no line
    seems to have is shifted by what takes the mean of all lines to the mean tumour of their types).
    """

    def __init__(self, classifier: str = "two views"):
        self.classifier = classifier

    def fit(self, adata: ad.AnnData, log) -> TypeTransfer:
        """Learn types from tumours, and the shifts from lines without reading theirs.

        adata: samples × genes, z-scored; obs sample_type, cancer_type (only that of tumours is read). log: the same as
        log2(TPM+1), or in any unit whose order within a sample means something. ValueError for another classifier,
        other shapes, values that are not finite, or fewer than two types.
        """
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"classifier: found {self.classifier!r}, expected one of {', '.join(CLASSIFIERS)}")
        if np.shape(log) != adata.shape:
            raise ValueError(f"log: found shape {np.shape(log)}, expected {adata.shape} as adata")
        tumour, log = (adata.obs["sample_type"] != "cell line").to_numpy(), np.asarray(log)
        types = adata.obs["cancer_type"].astype(str)
        counts = types[tumour].value_counts()
        learnt = tumour & types.isin(counts.index[counts > 1]).to_numpy()
        types = types[learnt].to_numpy(dtype=str)
        if len(set(types)) < 2:
            raise ValueError(
                f"cancer_type: found {len(set(types))} type(s) of two tumours or more, expected at least 2"
            )
        views = self._views(adata[learnt], log[learnt])
        self.models_ = [make_pipeline(StandardScaler(), self._model()).fit(view, types) for view in views]
        self.types_ = self.models_[0].classes_
        X = np.asarray(adata.X, np.float64)
        self.tumour_means_ = np.stack([X[learnt][types == name].mean(axis=0) for name in self.types_])
        self.shifts_ = self._shifts(adata[~tumour], log[~tumour])
        return self

    def predict_proba(self, adata: ad.AnnData, log) -> pd.DataFrame:
        """Probabilities of the types: samples × types_; adata (its labels are not read) and log as in `fit`."""
        check_is_fitted(self, "models_")
        views = zip(self.models_, self._views(adata, np.asarray(log)), strict=True)
        logs = np.mean([np.log(np.maximum(model.predict_proba(view), 1e-12)) for model, view in views], axis=0)
        probability = np.exp(logs - logs.max(axis=1, keepdims=True))
        return pd.DataFrame(probability / probability.sum(axis=1, keepdims=True), adata.obs_names, self.types_)

    def predict(self, adata: ad.AnnData, log) -> np.ndarray:
        """The most probable type of every sample."""
        return self.predict_proba(adata, log).idxmax(axis=1).to_numpy(dtype=str)

    def align(self, lines: ad.AnnData, log) -> np.ndarray:
        """Cell lines among the tumours of the types that they seem to have: samples × genes, z-scores, float32."""
        shift = self.shifts_[np.searchsorted(self.types_, self.predict(lines, log))]
        return (np.asarray(lines.X) + shift).astype(np.float32)

    def _model(self):
        if self.classifier == "logistic":
            return LogisticRegression(max_iter=2000)
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

    def _views(self, adata: ad.AnnData, log: np.ndarray) -> list[np.ndarray]:
        for name, values in (("log", log), ("adata.X", np.asarray(adata.X))):
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: found NaN or infinite values, expected finite ones")
        if self.classifier == "logistic":
            return [(rankdata(log, axis=1) / log.shape[1]).astype(np.float32)]
        return [normal_scores(values) for values in ((log, adata.X) if self.classifier == "two views" else (log,))]

    def _shifts(self, lines: ad.AnnData, log: np.ndarray) -> np.ndarray:
        """Per type mean tumour less mean line; zeros without lines."""
        if lines.n_obs == 0:
            return np.zeros_like(self.tumour_means_)
        X, seems = np.asarray(lines.X, np.float64), self.predict(lines, log)
        common = self.tumour_means_[np.searchsorted(self.types_, seems)].mean(axis=0) - X.mean(axis=0)
        shifts = np.tile(common, (len(self.types_), 1))
        for name in np.unique(seems):
            i = np.searchsorted(self.types_, name)
            shifts[i] = self.tumour_means_[i] - X[seems == name].mean(axis=0)
        return shifts
