"""An own cohort, scored by the genes that it shares with a trained tissue VAE, and what such calls are worth."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from lib import compendia
from lib.abstention import LEVEL, limit
from lib.config import Profile
from lib.metrics.bootstrap import Estimate, share
from lib.models.tissue_vae import TissueVAE
from lib.tissue_baselines import with_tissue
from lib.transfer import (
    HARMONISE,
    NEIGHBOURS,
    as_expected,
    estimate,
    harmonisations,
    harmonise,
    knn_calls,
    nearest,
    reference_quantiles,
    vote,
)

PANELS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)  # shares of the genes
FEWEST = 5  # samples of a group that has a row of its own


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
) -> Scored:
    """Tissues of an own cohort by the genes that it shares with the model, however few.

    reference: labelled samples that the model was not trained on, z-scores (lib.curation.standardise), obs tissue and,
    for what is too far, study (lib.abstention.limit); cohort: log2(TPM+1), samples × gene symbols. Genes that the
    cohort lacks are hidden from the reference too, so that both are embedded alike. Raises ValueError as
    `on_model_genes` and `harmonise`.
    """
    own = on_model_genes(model, cohort)
    missing = own.var["missing"].to_numpy()
    given = reference[:, model.genes_].copy()
    quantiles = None
    if how == "reference":
        mean, sd = (own.var[c].to_numpy(np.float32) for c in ("mean", "sd"))
        quantiles = reference_quantiles(ad.AnnData(given.X * sd + mean), ~missing)
    given.X[:, missing] = 0
    codes = ad.AnnData(model.embed(given), obs=reference.obs)
    calls = knn_calls(codes, model.embed(harmonise(own, how, quantiles)), k).set_index(cohort.obs_names)
    _, found = nearest(codes.X, codes.X, k + 1)
    tissue = codes.obs["tissue"].to_numpy(dtype=str)
    right = vote(tissue[found[:, 1:]])[0] == tissue
    calls["too_far"] = calls["distance"] > limit(codes, k, level)
    return Scored(calls, int((~missing).sum()), len(missing), share(right))


def few_genes(model: TissueVAE, reference: ad.AnnData, cohort: ad.AnnData, expected: dict, seed: int) -> pd.DataFrame:
    """`score_cohort` on random `PANELS` of the cohort's genes: what a panel of that size is worth."""
    genes = np.random.default_rng(seed).permutation(cohort.var_names[~cohort.var["missing"].to_numpy(bool)])
    reference = with_tissue(reference)
    ways = [how for how in ("cohort", "none") if how in harmonisations(cohort)]
    rows = []
    for part, how in product(PANELS, ways):
        panel = cohort[:, genes[: max(1, int(part * len(genes)))]].to_memory()
        rows.append(_summary(score_cohort(model, reference, panel, how), panel, reference, expected, how))
    return pd.DataFrame(rows)


def panels(run: Profile, model: TissueVAE, reference: ad.AnnData) -> pd.DataFrame:
    """The profile's panels, real cohorts with few genes, each by every harmonisation: one row, and one per group.

    Columns as `few_genes`, with panel, group, expected and `reason` (why a share is not estimable). A panel without a
    gene of the model has one row and the reason. Empty where the profile has no panels.
    """
    rows, reference = [], with_tissue(reference)
    for name, panel in run.data.panels.items() if run.data.kind == "files" else ():
        try:
            cohort = compendia.open_panel(run, panel)
            scored = {how: score_cohort(model, reference, cohort, how) for how in HARMONISE}
        except (ValueError, FileNotFoundError) as error:
            rows.append({"panel": name, "group": "all", "reason": str(error).replace(f"{run.raw}/", "")})
            continue
        counts = cohort.obs["group"].value_counts()
        groups = ["all", *(g for g in panel.expected if counts.get(g, 0) >= FEWEST)]
        for (how, each), group in product(scored.items(), groups):
            mine = np.full(cohort.n_obs, group == "all") | (cohort.obs["group"] == group).to_numpy()
            part = each._replace(calls=each.calls[mine])
            row = _summary(part, cohort[mine], reference, panel.expected, how)
            rows.append({"panel": name, "group": group, "expected": ", ".join(panel.expected.get(group, ()))} | row)
    return pd.DataFrame(rows)


def _summary(scored: Scored, cohort: ad.AnnData, reference: ad.AnnData, expected: dict, how: str) -> dict:
    """Agreement, share too far and the reference's own accuracy of a scored cohort, with n and intervals."""
    known, groups = set(reference.obs["tissue"].astype(str)), cohort.obs["group"].astype(str)
    hits = as_expected(groups, scored.calls["called"].to_numpy(), expected, known)
    hits[~groups.isin(expected).to_numpy()] = np.nan
    found, far = estimate(hits), share(scored.calls["too_far"])
    row = {"harmonise": how, "genes": scored.genes_found, "of": scored.genes_expected, **found._asdict()}
    row |= {"too_far": far.value, "too_far_low": far.low, "too_far_high": far.high, "samples": far.n}
    row |= {f"reference_{k}": v for k, v in scored.reference_accuracy._asdict().items()}
    return row | {"reason": "" if found.n else "no expected tissue is among the reference's"}


def panels_in_words(table: pd.DataFrame) -> str:
    """One sentence per panel: genes found, and by every harmonisation the share as expected and the share too far."""
    said = []
    for name, rows in table[table["group"] == "all"].groupby("panel", sort=False):
        first = rows.iloc[0]
        if pd.isna(first.get("genes")):
            said.append(f"{name}: not estimable ({first['reason']}).")
            continue
        each = "; ".join(
            f"`{row['harmonise']}` {_words(row)}, {row['too_far']:.0%} too far" for _, row in rows.iterrows()
        )
        said.append(
            f"{name} ({first['genes']:.0f} of {first['of']:.0f} genes, {first['samples']:.0f} samples; by these genes "
            f"{first['reference_value']:.0%} of the reference samples are named rightly): {each}."
        )
    return "\n\n".join(said)


def _words(row: pd.Series) -> str:
    if not row["n"]:
        return "as expected: not estimable, since no expected tissue is in the reference"
    return f"{row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%}, n = {row['n']:.0f}) as expected"
