"""An own cohort, scored by the genes that it shares with a trained tissue VAE, and what such calls are worth."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from lib.abstention import LEVEL, too_far
from lib.metrics.bootstrap import Estimate, interval
from lib.models.tissue_vae import TissueVAE
from lib.transfer import NEIGHBOURS, as_expected, estimate, harmonise, knn_calls, nearest, reference_quantiles, vote

PANELS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)  # shares of the genes


class Scored(NamedTuple):
    """Calls of an own cohort (called, share, distance, too_far), genes found, and what they are worth.

    reference_accuracy: share of the reference samples that the same genes name rightly, each by its neighbours.
    """

    calls: pd.DataFrame
    genes_found: int
    genes_expected: int
    reference_accuracy: Estimate


def on_model_genes(model: TissueVAE, cohort: ad.AnnData) -> ad.AnnData:
    """A cohort, log2(TPM+1) by gene symbol, on the model's genes in its order; those it lacks at the training mean.

    var: mean, sd, missing. Raises ValueError if no gene is shared, a symbol comes twice, or values are not finite.
    """
    found = pd.Index(model.genes_).isin(cohort.var_names)
    if not found.any():
        had = ", ".join(map(str, cohort.var_names[:2])) or "none"
        raise ValueError(f"cohort: found no gene of the model ({had} …), expected symbols like {model.genes_[0]}")
    if cohort.var_names.duplicated().any():
        twice = cohort.var_names[cohort.var_names.duplicated()][0]
        raise ValueError(f"cohort: found gene {twice!r} twice, expected each once")
    if "mean" not in model.gene_scaling_:
        raise ValueError("model: found no mean and sd of its training genes, expected one trained on a compendium")
    genes = np.array(model.genes_)
    values = np.asarray(cohort[:, genes[found]].X, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"cohort: found {(~np.isfinite(values)).sum()} NaN or infinite values, expected none")
    var = pd.DataFrame({**model.gene_scaling_, "missing": ~found}, index=genes)
    X = np.tile(var["mean"].to_numpy(np.float32), (cohort.n_obs, 1))
    X[:, found] = values
    return ad.AnnData(X, obs=cohort.obs.copy(), var=var)


def score_cohort(
    model: TissueVAE,
    reference: ad.AnnData,
    cohort: ad.AnnData,
    how: str = "none",
    k: int = NEIGHBOURS,
    level: float = LEVEL,
    n_boot: int = 1000,
    seed: int = 0,
) -> Scored:
    """Tissues of an own cohort by the genes that it shares with the model, however few.

    reference: labelled samples that the model was not trained on, z-scores (lib.curation.standardise), obs tissue;
    cohort: log2(TPM+1), samples × gene symbols. Genes that the cohort lacks are hidden from the reference too, so
    that both are embedded alike. Raises ValueError as `on_model_genes` and `harmonise`.
    """
    own = on_model_genes(model, cohort)
    missing = own.var["missing"].to_numpy()
    given = reference[:, model.genes_].copy()
    quantiles = None
    if how == "reference":
        mean, sd = (own.var[c].to_numpy(np.float32) for c in ("mean", "sd"))
        quantiles = reference_quantiles(ad.AnnData(given.X * sd + mean), ~missing)
    given.X[:, missing] = 0
    codes = ad.AnnData(model.embed(given), obs=reference.obs[["tissue"]])
    calls = knn_calls(codes, model.embed(harmonise(own, how, quantiles)), k).set_index(cohort.obs_names)
    distances, found = nearest(codes.X, codes.X, k + 1)
    tissue = codes.obs["tissue"].to_numpy(dtype=str)
    right = vote(tissue[found[:, 1:]])[0] == tissue
    calls["too_far"] = calls["distance"] > too_far(distances[:, -1], level)
    return Scored(calls, int((~missing).sum()), len(missing), interval(right.astype(float), np.mean, n_boot, seed))


def few_genes(
    model: TissueVAE, reference: ad.AnnData, cohort: ad.AnnData, expected: dict, n_boot: int, seed: int
) -> pd.DataFrame:
    """`score_cohort` on random `PANELS` of the cohort's genes: what a panel of that size is worth."""
    genes = np.random.default_rng(seed).permutation(cohort.var_names[~cohort.var["missing"].to_numpy(bool)])
    known = set(reference.obs["tissue"].astype(str))
    rows = []
    for share, how in product(PANELS, ("cohort", "none")):
        panel = cohort[:, genes[: max(1, int(share * len(genes)))]].to_memory()
        scored = score_cohort(model, reference, panel, how, n_boot=n_boot, seed=seed)
        hits = as_expected(cohort.obs["group"], scored.calls["called"].to_numpy(), expected, known)
        accuracy = {f"reference_{k}": v for k, v in scored.reference_accuracy._asdict().items()}
        row = {"harmonise": how, "genes": scored.genes_found, "of": scored.genes_expected}
        row |= estimate(hits, n_boot, seed)._asdict() | {"too_far": scored.calls["too_far"].mean()}
        rows.append(row | accuracy)
    return pd.DataFrame(rows)
