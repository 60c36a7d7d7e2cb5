"""The methods that RNAlign is compared with, on one alignment compendium and all in its z-scores.

Linear projection and Celligner are those of paper A's Table 1. Type mean (a collapse), ComBat and Harmony are not in
the paper: the first shows what the scores are worth, the other two are what a user would reach for.
"""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import harmonypy
import numpy as np
from inmoose.pycombat import pycombat_norm
from sklearn.decomposition import PCA

from lib import curation
from lib.models.celligner import Celligner
from lib.models.linear_projection import LinearProjection
from lib.models.linear_projection import type_mean as mean_of_type

ABSOLUTE_ORDER = "Celligner, absolute order"  # of the components: what the originals' code does
NOT_IN_PAPER = ("type mean", "ComBat", "Harmony")
KINDS = ("tumour", "cell line")


class Baselines(NamedTuple):
    """Aligned matrices by method, and for every method that could not be computed the reason."""

    aligned: dict[str, np.ndarray]
    skipped: dict[str, str]


def baselines(adata: ad.AnnData, seed: int = 0) -> Baselines:
    """All methods below on one compendium: samples × genes each, float32 z-scores.

    adata: log2(TPM+1), var mean and sd; obs sample_type, cancer_type, purity (missing ones: as curation left them).
    A method that these data do not allow is skipped with its reason (Celligner with samples that form no clusters,
    linear projection with a missing purity). Raises ValueError for values that are not finite and where a kind of
    sample is missing or single: there is nothing to align.
    """
    _check(adata)
    methods = {
        "linear projection": lambda: linear_projection(adata),
        "Celligner": lambda: celligner(adata, seed),
        "type mean": lambda: type_mean(adata),
        "ComBat": lambda: combat(adata),
        "Harmony": lambda: harmony(adata, seed),
    }
    aligned, skipped = {}, {}
    for name, method in methods.items():
        try:
            aligned[name] = method().astype(np.float32)
        except ValueError as error:
            skipped[name] = str(error)
    return Baselines(aligned, skipped)


def with_absolute_order(methods: dict[str, np.ndarray], adata: ad.AnnData, seed: int = 0) -> dict[str, np.ndarray]:
    """Aligned matrices by method with Celligner's under its originals' order of the components after Celligner's own.

    adata: log2(TPM+1), as for `baselines`. Unchanged where Celligner was skipped. The originals remove directions in
    which lines vary more, too, which by match and ΔD is the stronger rival (benchmarks/results/celligner.md).
    """
    together = {}
    for method, X in methods.items():
        together[method] = X
        if method == "Celligner":
            together[ABSOLUTE_ORDER] = celligner(adata, seed, order="abs").astype(np.float32)
    return together


def linear_projection(adata: ad.AnnData) -> np.ndarray:
    """Tumours projected to purity 1 per cancer type, lines as they are (Yu et al. 2019)."""
    return LinearProjection().fit_transform(curation.standardise(adata))


def type_mean(adata: ad.AnnData) -> np.ndarray:
    """Every sample replaced by the mean of the cancer type that it was given: a collapse, not in the paper."""
    return mean_of_type(curation.standardise(adata))


def celligner(adata: ad.AnnData, seed: int = 0, **choices) -> np.ndarray:
    """Celligner on log2(TPM+1) (Warren et al. 2021), its result in the compendium's z-scores; choices: its settings.

    Celligner centres each kind on its own mean and then moves tumours into the lines' frame. So both kinds take back
    the *lines'* gene means: a line differs from its input by the components removed from it and by nothing else.
    """
    is_line = _is_line(adata)
    log2 = np.asarray(adata.X)
    tumours, lines = Celligner(seed=seed, **choices).fit_transform(log2[~is_line], log2[is_line])
    aligned = np.empty(log2.shape, np.float32)
    aligned[~is_line], aligned[is_line] = tumours, lines
    aligned += log2[is_line].mean(axis=0, dtype=np.float64).astype(np.float32)
    return curation.standardise(ad.AnnData(aligned, adata.obs, adata.var)).X


def combat(adata: ad.AnnData) -> np.ndarray:
    """ComBat on the sample type, parametric, without covariates (Johnson et al. 2007, by inmoose); not in the paper.

    A gene that is constant within a kind is left as it is, as in the original.
    """
    X, is_line = curation.standardise(adata).X, _is_line(adata)
    varies = (np.ptp(X[is_line], axis=0) > 0) & (np.ptp(X[~is_line], axis=0) > 0)
    if varies.sum() < 2:
        raise ValueError(f"adata.X: found {varies.sum()} genes that vary within both kinds, expected two or more")
    corrected = X.copy()
    corrected[:, varies] = np.asarray(pycombat_norm(X[:, varies].T.astype(np.float64), is_line.astype(int))).T
    return corrected


def harmony(adata: ad.AnnData, seed: int = 0, n_pcs: int = 50) -> np.ndarray:
    """Harmony on the sample type, its defaults, on `n_pcs` components (Korsunsky et al. 2019); not in the paper.

    Harmony corrects components, not genes: what it changed is mapped back by the components' loadings, and the
    residual of the PCA stays. Where kinds lie so far apart that each of its clusters holds one kind only, it leaves
    them as they are. `n_pcs` is cut to what the data have.
    """
    X, is_line = curation.standardise(adata).X, _is_line(adata)
    if not np.ptp(X, axis=0).any():
        raise ValueError("adata.X: found only constant genes, expected genes that vary")
    pca = PCA(min(n_pcs, len(X) - 1, X.shape[1]), svd_solver="randomized", random_state=seed).fit(X)
    scores = pca.transform(X).astype(np.float64)
    clusters = max(1, min(round(len(X) / 30), 100))  # its default, which is 0 for fewer than 15 samples
    batch = {"sample_type": is_line.astype(int)}
    fitted = harmonypy.run_harmony(
        scores, batch, "sample_type", nclust=clusters, random_state=seed, ncores=1, verbose=False
    )
    moved = np.asarray(fitted.Z_corr) - scores
    return X + (moved @ pca.components_).astype(np.float32)


def _check(adata: ad.AnnData) -> None:
    X = np.asarray(adata.X)
    if not np.isfinite(X).all():
        raise ValueError(f"adata.X: found {(~np.isfinite(X)).sum()} NaN or infinite values, expected none")
    _is_line(adata)


def _is_line(adata: ad.AnnData) -> np.ndarray:
    """Whether each sample is a cell line; ValueError unless there are two or more of each kind and nothing else."""
    kind = adata.obs["sample_type"].to_numpy(dtype=str)
    names, counts = np.unique(kind, return_counts=True)
    found = dict(zip(names.tolist(), counts.tolist(), strict=True))
    if set(found) != set(KINDS) or min(found.values()) < 2:
        raise ValueError(f"adata.obs['sample_type']: found {found}, expected two or more of {' and of '.join(KINDS)}")
    return kind == "cell line"
