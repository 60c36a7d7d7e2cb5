"""What one tissue VAE gives on test samples and on the unseen cohort: every metric, with intervals, alone and paired.

Used wherever tissue VAEs are compared: over training sets (lib/scaling.py) and part by part (lib/tissue_controls.py).
"""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib import compendia, transfer
from lib.config import Profile
from lib.metrics.bootstrap import Estimate, interval
from lib.metrics.classification import (
    balanced_accuracy,
    knn_predict,
    paired_difference,
    paired_shares,
    weighted_f1,
)
from lib.metrics.mixing import knn_source_mixing, lisi
from lib.metrics.reconstruction import (
    doubled_ranks,
    masked_difference,
    spearman_of_sums,
    spearman_per_gene,
    spearman_per_sample,
    sums_of_ranks,
)
from lib.metrics.repeats import CORRELATION, SHARE
from lib.models.tissue_vae import TissueVAE, random_mask

METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
    "near_accuracy": "balanced accuracy, kNN in the code",
    "gene_rho": "Spearman per gene, median",
    "sample_rho": "Spearman per sample, median",
    "imputation": "Spearman of 30 % hidden values",
    "target": "unseen cohort as expected",
    "mixing": "source mixing among neighbours",
}
BOUNDS = dict.fromkeys(METRICS, SHARE) | dict.fromkeys(("gene_rho", "sample_rho", "imputation"), CORRELATION)
HIDDEN = 0.3
NOT_ESTIMABLE = Estimate(np.nan, np.nan, np.nan, 0)


class Scored(NamedTuple):
    """What one model gave on its test samples (arrays in their order), on the genes, and on the unseen cohort.

    tissue: the truth; called: empty without supervision; near: by neighbours in the code; gene_rho: NaN for genes that
    are constant in the test part; masked: `masked_sums` of the imputation; mixing, lisi: empty where there is one
    source only; hits: by harmonisation, NaN where no expected tissue is known.
    """

    tissue: np.ndarray
    called: np.ndarray
    near: np.ndarray
    gene_rho: np.ndarray
    sample_rho: np.ndarray
    masked: np.ndarray
    mixing: np.ndarray
    lisi: np.ndarray
    hits: dict[str, np.ndarray]
    epochs: int


def score(run: Profile, vae: TissueVAE, test: ad.AnnData, known: ad.AnnData, hits: dict[str, np.ndarray]) -> Scored:
    """One model on `test`; known: its labelled training samples, each once; hits: see `cohort_hits`. All z-scores."""
    codes, rebuilt, varies = vae.embed(test), vae.reconstruct(test), test.X.std(axis=0) > 0
    gene_rho = np.full(test.n_vars, np.nan)
    gene_rho[varies] = spearman_per_gene(test.X[:, varies], rebuilt[:, varies])
    source = test.obs["source"].astype(str).to_numpy()
    k, near_k = min(run.evaluation.mixing_neighbours, test.n_obs - 1), run.evaluation.baseline_neighbours
    mixed = (knn_source_mixing(codes, source, k), lisi(codes, source, k)) if len(set(source)) > 1 else ([], [])
    labels = known.obs["tissue"].to_numpy(dtype=str)
    return Scored(
        test.obs["tissue"].to_numpy(dtype=str),
        vae.predict(test).astype(str) if vae.supervision_weight else np.array([]),
        knn_predict(vae.embed(known), labels, codes, min(near_k, len(labels))),
        gene_rho,
        spearman_per_sample(test.X, rebuilt),
        imputed_sums(vae, test, HIDDEN, run.seed),
        *map(np.asarray, mixed),
        hits,
        len(vae.history_),
    )


def imputed_sums(vae: TissueVAE, test: ad.AnnData, share: float, seed: int) -> np.ndarray:
    """`masked_sums` of the imputation of a share of each sample's genes; holds the hidden values, no second matrix."""
    mask = random_mask(*test.shape, share, seed)
    ranks = doubled_ranks(test.X[mask], "test")
    return sums_of_ranks(ranks, imputed_values(vae, test, mask), mask.sum(axis=1))


def imputed_values(vae: TissueVAE, test: ad.AnnData, mask: np.ndarray) -> np.ndarray:
    """`vae.impute(test, mask)[mask]`, sample after sample, without holding the imputed matrix.

    test: z-scores, genes in the model's order; mask: boolean samples × genes. float32.
    """
    network = vae.module_

    def hidden_of(x: Tensor, hidden: Tensor) -> Tensor:
        return network.reconstruct(x.masked_fill(hidden, 0.0))[hidden]

    return vae._apply(test, hidden_of, (torch.from_numpy(mask),))  # batch by batch, by the random numbers of `impute`


def cohort_hits(
    run: Profile, vae: TissueVAE, reference: ad.AnnData, cohort: ad.AnnData, own: pd.DataFrame
) -> dict[str, np.ndarray]:
    """Unseen cohort called as expected (1, 0, NaN), by harmonisation: "cohort" as published, "none" sample by sample.

    reference: the samples that vote, z-scores; cohort: as curated; own: mean and sd of the model's training samples.
    """
    codes = ad.AnnData(vae.embed(reference), obs=reference.obs)
    known, expected = set(codes.obs["tissue"].astype(str)), next(iter(compendia.rubrics(run).values()))
    foreign, hits = cohort.copy(), {"cohort": np.full(cohort.n_obs, np.nan)}  # NaN for a cohort of one sample
    ways = [how for how in transfer.harmonisations(cohort) if how == "none" or (how == "cohort" and cohort.n_obs > 1)]
    if "none" in ways:
        foreign.var["mean"], foreign.var["sd"] = own["mean"].to_numpy(), own["sd"].to_numpy()
    for how in ways:
        called = transfer.knn_calls(codes, vae.embed(transfer.harmonise(foreign, how)))["called"].to_numpy()
        hits[how] = transfer.as_expected(cohort.obs["group"], called, expected, known)
    return hits


def estimates(scored: Scored, n_boot: int, seed: int) -> dict[str, Estimate]:
    """Every one of `METRICS` for one model, with its interval over samples, or genes."""
    truth, calls = scored.tissue, len(scored.called) > 0
    return {
        "balanced_accuracy": balanced_accuracy(truth, scored.called, n_boot, seed) if calls else NOT_ESTIMABLE,
        "weighted_f1": weighted_f1(truth, scored.called, n_boot, seed) if calls else NOT_ESTIMABLE,
        "near_accuracy": balanced_accuracy(truth, scored.near, n_boot, seed),
        "gene_rho": over(scored.gene_rho, np.median, n_boot, seed),
        "sample_rho": over(scored.sample_rho, np.median, n_boot, seed),
        "imputation": spearman_of_sums(scored.masked, n_boot, seed),
        "target": over(scored.hits["cohort"], np.mean, n_boot, seed),
        "mixing": over(scored.mixing, np.mean, n_boot, seed),
    }


def differences(against: Scored, scored: Scored, n_boot: int, seed: int) -> dict[str, Estimate]:
    """`scored` minus `against`, on the same test samples, metric by metric; medians are those of the differences."""
    truth, found = scored.tissue, {}
    calls = {"balanced_accuracy": "called", "weighted_f1": "called", "near_accuracy": "near"}
    for metric, field in calls.items():
        ours, theirs = getattr(scored, field), getattr(against, field)
        if len(ours) and len(theirs):
            name = metric.replace("near", "balanced")
            found[metric] = paired_difference(truth, ours, theirs, name, n_boot, seed)
    for metric, statistic in (("gene_rho", np.median), ("sample_rho", np.median), ("mixing", np.mean)):
        found[metric] = over(getattr(scored, metric) - getattr(against, metric), statistic, n_boot, seed)
    found["target"] = paired_shares(scored.hits["cohort"], against.hits["cohort"], n_boot, seed)
    found["imputation"] = masked_difference(against.masked, scored.masked, n_boot, seed)
    return found


def over(values: np.ndarray, statistic, n_boot: int, seed: int) -> Estimate:
    """`interval` over the values that are defined."""
    defined = values[~np.isnan(values)]
    return interval(defined, statistic, n_boot, seed) if len(defined) else NOT_ESTIMABLE
