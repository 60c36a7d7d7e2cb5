"""Tissue of origin of a cohort that training never saw, by its nearest reference samples in the latent space.

Paper B, "TARGET cross-dataset validation", and what it leaves open: scoring a sample alone (`harmonise`), and which
reference samples vote. When a sample is too far from all of them to be named: lib/abstention.py.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors

from lib import curation
from lib.config import Profile
from lib.metrics.bootstrap import Estimate, interval
from lib.models.tissue_vae import TissueVAE

HARMONISE = ("cohort", "none", "reference")
REFERENCES = ("test", "train", "all")
PUBLISHED = {"harmonise": "cohort", "reference": "test", "rubric": "code"}  # what the published code does
NEIGHBOURS = 5
K_RANGE = (1, 3, 5, 10, 25)
FOLDS = 5
BLOCK = 1024  # samples sorted at once


# --- harmonising ---------------------------------------------------------------------------------------------


def harmonise(cohort: ad.AnnData, how: str, quantiles: np.ndarray | None = None) -> ad.AnnData:
    """A cohort in the units that the tissue VAE was trained on: samples × genes, z-scores.

    cohort: log2(TPM+1), var mean, sd (of the training part) and missing. how: "cohort", z-scores over the cohort
    itself as published (rescaling them to the training mean and sd changes nothing: those are 0 and 1 there);
    "none", the training part's mean and sd; "reference", each sample's genes take the reference's `quantiles`
    first. The last two score one sample as they score it within a cohort. Genes that the cohort lacks are 0.
    Raises ValueError for another `how`, for "reference" without quantiles, and for a cohort of one with "cohort".
    """
    if how not in HARMONISE:
        raise ValueError(f"how: found {how!r}, expected one of {', '.join(HARMONISE)}")
    present = ~cohort.var["missing"].to_numpy(bool)
    scaled = curation.standardise(cohort)
    if how == "cohort":
        if cohort.n_obs < 2:
            raise ValueError(f"cohort: found {cohort.n_obs} sample, expected several to harmonise over (or how='none')")
        X = np.asarray(cohort.X, np.float64)
        spread = X.std(axis=0)
        varies = spread > 1e-6 * np.maximum(1, np.abs(X).max(axis=0))  # a constant column's sd is rounding error
        scaled.X = np.where(varies, (X - X.mean(axis=0)) / np.where(varies, spread, 1), 0).astype(np.float32)
    if how == "reference":
        if quantiles is None or len(quantiles) != present.sum():
            found = "none" if quantiles is None else len(quantiles)
            raise ValueError(f"quantiles: found {found}, expected one for each of the {present.sum()} genes present")
        like = cohort.copy()
        like.X[:, present] = to_quantiles(cohort.X[:, present], quantiles)
        scaled = curation.standardise(like)
    scaled.X[:, ~present] = 0
    return scaled


def to_quantiles(X: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Every row of X takes the values `quantiles` (ascending, one per column) in its own order; ties share a mean."""
    ranks = rankdata(X, axis=1) - 1
    return np.interp(ranks, np.arange(len(quantiles)), quantiles).astype(np.float32)


def reference_quantiles(adata: ad.AnnData, genes: np.ndarray) -> np.ndarray:
    """Mean sorted profile over samples: for each rank among `genes` (mask) the mean value; adata: log2(TPM+1)."""
    total = np.zeros(int(genes.sum()))
    for start in range(0, adata.n_obs, BLOCK):
        total += np.sort(adata[start : start + BLOCK].X[:, genes], axis=1).sum(axis=0, dtype=np.float64)
    return total / adata.n_obs


def harmonisations(cohort: ad.AnnData) -> tuple[str, ...]:
    """Those of `HARMONISE` that a curated cohort allows: a deposited reference has no log2(TPM+1) to compare with."""
    return HARMONISE[:1] if cohort.uns.get("compendium_unit") == "scaled" else HARMONISE


def cohort_codes(run: Profile) -> dict[str, ad.AnnData]:
    """Latent codes of a run's unseen cohort, samples × latent, for every harmonisation that it allows."""
    cohort = curation.load(run.processed / "cohort.h5ad")
    model = TissueVAE.load(run.processed / "models" / "tissue_vae")
    ways, quantiles = harmonisations(cohort), None
    if "reference" in ways:
        tissue = curation.load(run.processed / "tissue.h5ad", "train")
        quantiles = reference_quantiles(tissue, ~cohort.var["missing"].to_numpy(bool))
    return {how: ad.AnnData(model.embed(harmonise(cohort, how, quantiles)), obs=cohort.obs) for how in ways}


# --- calling -------------------------------------------------------------------------------------------------


def reference_part(codes: ad.AnnData, reference: str) -> ad.AnnData:
    """Labelled reference samples: "test" (as published), "train" (all that are not test) or "all"."""
    if reference not in REFERENCES:
        raise ValueError(f"reference: found {reference!r}, expected one of {', '.join(REFERENCES)}")
    is_test = (codes.obs["split"] == "test").to_numpy()
    chosen = {"test": is_test, "train": ~is_test, "all": np.ones(codes.n_obs, bool)}[reference]
    return codes[chosen & codes.obs["tissue"].notna().to_numpy()].to_memory()


def nearest(reference: np.ndarray, Z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(distances, positions), n × k, of the k nearest reference samples, Euclidean, nearest first."""
    return NearestNeighbors(n_neighbors=min(k, len(reference)), algorithm="brute").fit(reference).kneighbors(Z)


def vote(tissues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the commonest tissue of every row, its share of the row); the first by name wins a tie. tissues: n × k."""
    levels, codes = np.unique(np.asarray(tissues, str), return_inverse=True)
    codes = codes.reshape(np.shape(tissues))
    counts = np.zeros((len(codes), len(levels)), int)
    np.add.at(counts, (np.arange(len(codes))[:, None], codes), 1)
    return levels[counts.argmax(axis=1)], counts.max(axis=1) / codes.shape[1]


def knn_calls(reference: ad.AnnData, Z: np.ndarray, k: int = NEIGHBOURS) -> pd.DataFrame:
    """Per sample: the tissue that most of its k nearest reference samples have, their share, distance to the k-th.

    reference: codes with obs tissue; Z: samples × latent.
    """
    distances, found = nearest(reference.X, Z, k)
    called, share = vote(reference.obs["tissue"].to_numpy(dtype=str)[found])
    return pd.DataFrame({"called": called, "share": share, "distance": distances[:, -1]})


def as_expected(groups: pd.Series, called: np.ndarray, expected: dict[str, list[str]], known: set[str]) -> np.ndarray:
    """1 where a sample is called one of its group's expected tissues, 0 where not, NaN where that can't be asked.

    A group without expected tissues is a miss, as the paper counts it; a group whose expected tissues are none
    of `known` (the reference's) can't be asked.
    """
    groups = groups.astype(str).to_numpy()
    hit = np.array([c in expected.get(g, ()) for g, c in zip(groups, called, strict=True)], float)
    absent = {g for g, tissues in expected.items() if tissues and not known & set(tissues)}
    return np.where(np.isin(groups, list(absent)), np.nan, hit)


def estimate(hits: np.ndarray, n_boot: int, seed: int) -> Estimate:
    """Mean of the hits that can be asked, with its interval over samples; NaN and n = 0 when there is none."""
    hits = hits[~np.isnan(hits)]
    return interval(hits, np.mean, n_boot, seed) if len(hits) else Estimate(np.nan, np.nan, np.nan, 0)


# --- tables --------------------------------------------------------------------------------------------------


def combinations(codes: dict[str, ad.AnnData], embedding: ad.AnnData, rubrics: dict, n_boot: int, seed: int):
    """Agreement with the expected tissues for every harmonisation × reference × rubric: DataFrame.

    codes: as `cohort_codes`; rubrics: name -> group -> tissues. value counts groups without expected tissues as
    misses (as published); value_with_expected leaves them out.
    """
    rows = []
    for reference in REFERENCES:
        part = reference_part(embedding, reference)
        known = set(part.obs["tissue"].astype(str))
        for how, cohort in codes.items():
            calls = knn_calls(part, cohort.X)["called"].to_numpy()
            for rubric, expected in rubrics.items():
                hits = as_expected(cohort.obs["group"], calls, expected, known)
                asked = cohort.obs["group"].astype(str).isin([g for g, t in expected.items() if t]).to_numpy()
                all_groups, some = estimate(hits, n_boot, seed), estimate(hits[asked], n_boot, seed)
                row = {"harmonise": how, "reference": reference, "rubric": rubric, "reference_n": part.n_obs}
                rows.append(row | all_groups._asdict() | {f"{k}_with_expected": v for k, v in some._asdict().items()})
    return pd.DataFrame(rows)


def by_group(groups: pd.Series, called: np.ndarray, rubrics: dict, known: set[str], n_boot: int, seed: int):
    """Table S2, per rubric and group: n, expected tissues, hits, their share with its interval, commonest calls."""
    rows = []
    for rubric, expected in rubrics.items():
        hits = as_expected(groups, called, expected, known)
        for group in (*in_order(groups), "all"):
            mine = np.ones(len(groups), bool) if group == "all" else (groups == group).to_numpy()
            share = estimate(hits[mine], n_boot, seed)
            common = pd.Series(called[mine]).value_counts().head(3)
            tissues = [t if t in known else f"{t} (not in reference)" for t in expected.get(group, [])]
            rows.append({
                "group": group, "rubric": rubric, "n": int(mine.sum()),
                "expected": ", ".join(tissues) or ("" if group == "all" else "none"),
                "hits": np.nan if not share.n else int(np.nansum(hits[mine])),
                "value": share.value, "low": share.low, "high": share.high,
                "commonest_calls": "; ".join(f"{tissue} {n}" for tissue, n in common.items()),
            })  # fmt: skip
    return pd.DataFrame(rows)


ORDER = ("AML", "ALL", "AML-IF", "NBL", "Wilms", "rhabdoid", "CCSK")  # of the paper's figure 4


def in_order(groups: pd.Series) -> list[str]:
    """The groups that occur: the paper's in the order of its figure 4, others after them by name."""
    found = set(groups.astype(str))
    return [g for g in ORDER if g in found] + sorted(found - set(ORDER))


def fractions(groups: pd.Series, called: np.ndarray, expected: dict[str, list[str]]) -> pd.DataFrame:
    """Figure 4, share of every group called each tissue: group, tissue, expected, n (of the group), fraction."""
    counts = pd.crosstab(groups.astype(str).to_numpy(), called)
    table = counts.div(counts.sum(axis=1), axis=0).stack().rename("fraction").rename_axis(["group", "tissue"])
    table = table[table > 0].reset_index()
    table["n"] = table["group"].map(counts.sum(axis=1))
    table["expected"] = [t in expected.get(g, ()) for g, t in zip(table["group"], table["tissue"], strict=True)]
    order = {g: i for i, g in enumerate(in_order(groups))}
    return table.sort_values(["group", "fraction"], key=lambda c: c.map(order) if c.name == "group" else -c)


def sensitivity(cohort: ad.AnnData, embedding: ad.AnnData, expected: dict, n_boot: int, seed: int) -> pd.DataFrame:
    """Agreement by reference and k, with all reference samples and, `FOLDS` times, without a fifth of them."""
    rows = []
    for reference in REFERENCES:
        part = reference_part(embedding, reference)
        tissue = part.obs["tissue"].to_numpy(dtype=str)
        folds = KFold(min(FOLDS, part.n_obs), shuffle=True, random_state=seed).split(tissue)
        subsets = [np.arange(part.n_obs), *(kept for kept, _ in folds)]
        found = [kept[nearest(part.X[kept], cohort.X, max(K_RANGE))[1]] for kept in subsets]
        for k in K_RANGE:
            calls = [vote(tissue[each[:, :k]])[0] for each in found]
            hits = [as_expected(cohort.obs["group"], c, expected, set(tissue)) for c in calls]
            whole = estimate(hits[0], n_boot, seed)
            shares = np.array([estimate(h, 1, seed).value for h in hits[1:]])
            changed = np.mean([c != calls[0] for c in calls[1:]])
            rows.append({
                "reference": reference, "k": k, "reference_n": part.n_obs, **whole._asdict(),
                "fold_min": shares.min(), "fold_max": shares.max(), "fold_sd": shares.std(ddof=1),
                "calls_changed": changed,
            })  # fmt: skip
    return pd.DataFrame(rows)


def in_words(combinations: pd.DataFrame, sensitivity: pd.DataFrame) -> str:
    """The share as published, what the open choices do to it, and k, as one paragraph."""
    if combinations["n"].max() == 0:
        return "None of the expected tissues is among the reference's: how many calls are right is not estimable."
    first = combinations["rubric"].iloc[0]
    ours = combinations[combinations["rubric"] == first]
    published = ours[(ours["harmonise"] == PUBLISHED["harmonise"]) & (ours["reference"] == PUBLISHED["reference"])]
    seeds = f", means of {published['seed'].nunique()} seeds" if published["seed"].nunique() > 1 else ""
    value, low, high = published[["value", "low", "high"]].mean()
    by_way = ours.groupby(["harmonise", "reference"], sort=False)["value"].mean()
    others = "; ".join(
        f"{way} {share.min():.1%} to {share.max():.1%}" for way, share in by_way.groupby(level=0, sort=False)
    )
    by_k = sensitivity.groupby("k")["value"].mean()
    return (
        f"As published, {value:.1%} ({low:.1%} to {high:.1%}) of the cohort's {int(published['n'].iloc[0]):,} samples "
        f"are called as expected{seeds}. Over the three references the share is, by harmonisation: {others}. "
        f"With k from {by_k.index.min()} to {by_k.index.max()} neighbours it lies between {by_k.min():.1%} and "
        f"{by_k.max():.1%}; leaving out a fifth of the reference moves it by "
        f"{sensitivity['fold_sd'].mean():.1%} (standard deviation of five folds)."
    )
