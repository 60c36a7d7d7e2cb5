"""Tissue of origin of a cohort that training never saw, by its nearest reference samples in the latent space.

Paper B, "TARGET cross-dataset validation", and what it leaves open: scoring a sample alone (`harmonise`), which
reference samples vote, and how much hangs on the model's seed. When a sample is too far from all reference samples to
be named: lib/abstention.py.
"""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors

from lib import curation, tissue_baselines
from lib.config import Profile
from lib.metrics.bootstrap import (
    NO_ESTIMATE,
    Estimate,
    SeedsEstimate,
    interval_over_seeds,
    share,
    share_over_seeds,
)
from lib.models.tissue_vae import TissueVAE

HARMONISE = ("cohort", "none", "reference")
REFERENCES = ("test", "train", "all")
PUBLISHED = {"harmonise": "cohort", "reference": "test"}  # what the published code does
NEIGHBOURS = 5
SEEDS = 3  # models that differ in their seed alone
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
    Raises ValueError for another `how`, for "reference" without quantiles, for a cohort of one with "cohort", for NaN
    and infinity, and without var.missing.
    """
    if how not in HARMONISE:
        raise ValueError(f"how: found {how!r}, expected one of {', '.join(HARMONISE)}")
    if "missing" not in cohort.var:
        raise ValueError("cohort.var: found no missing, expected a cohort of lib.curation")
    if not np.isfinite(cohort.X).all():
        raise ValueError(f"cohort: found {(~np.isfinite(cohort.X)).sum()} NaN or infinite values, expected none")
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


class Trained(NamedTuple):
    """Codes by one trained model: of the unseen cohort for every harmonisation, and of the tissue compendium.

    cohort: AnnData samples × latent, obs group and `sample` (its name, the same for all models that saw the same
    data); compendium: samples × latent, obs tissue and split.
    """

    cohort: dict[str, ad.AnnData]
    compendium: ad.AnnData


def trained(run: Profile) -> Trained:
    """Codes by the model of 02_training_tissue."""
    model = TissueVAE.load(run.processed / "models" / "tissue_vae")
    return Trained(_cohort_codes(run, model), curation.load(run.processed / "embedding.h5ad"))


def retrained(run: Profile, seed: int) -> Trained:
    """Codes by a model that is trained on the run's data with another seed, for `tissue_controls.epochs` at most."""
    data = curation.standardise(tissue_baselines.with_tissue(curation.load(run.processed / "tissue.h5ad")))
    model = tissue_baselines.control_vae(run, data, f"transfer-{seed}", seed=seed)
    return Trained(_cohort_codes(run, model), ad.AnnData(model.embed(data), obs=data.obs))


def _cohort_codes(run: Profile, model: TissueVAE) -> dict[str, ad.AnnData]:
    cohort = curation.load(run.processed / "cohort.h5ad")
    ways, quantiles = harmonisations(cohort), None
    if "reference" in ways:
        tissue = curation.load(run.processed / "tissue.h5ad", "train")
        quantiles = reference_quantiles(tissue, ~cohort.var["missing"].to_numpy(bool))
    drawn = f"{run.seed}/" if run.data.kind == "demo" else ""  # another seed's demo has other samples of these names
    obs = cohort.obs.assign(sample=[f"{drawn}{name}" for name in cohort.obs_names])
    return {how: ad.AnnData(model.embed(harmonise(cohort, how, quantiles)), obs=obs) for how in ways}


# --- calling -------------------------------------------------------------------------------------------------


def reference_part(codes: ad.AnnData, reference: str) -> ad.AnnData:
    """Labelled reference samples: "test" (as published), "train" (all that are not test) or "all"."""
    if reference not in REFERENCES:
        raise ValueError(f"reference: found {reference!r}, expected one of {', '.join(REFERENCES)}")
    is_test = (codes.obs["split"] == "test").to_numpy()
    chosen = {"test": is_test, "train": ~is_test, "all": np.ones(codes.n_obs, bool)}[reference]
    return codes[chosen & codes.obs["tissue"].notna().to_numpy()].to_memory()


def nearest(reference: np.ndarray, Z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(distances, positions), n × k, of the k nearest reference samples, Euclidean, nearest first.

    All of them where there are fewer than k. Raises ValueError for none.
    """
    if not len(reference):
        raise ValueError("reference: found no labelled samples, expected at least one")
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


def estimate(hits: np.ndarray) -> Estimate:
    """Share of the hits that can be asked, with Wilson's interval; NaN and n = 0 when there is none."""
    return share(hits[~np.isnan(hits)])


# --- tables --------------------------------------------------------------------------------------------------


def calls_by(models: dict[int, Trained], how: str, reference: str, k: int = NEIGHBOURS) -> pd.DataFrame:
    """Calls of every cohort sample by every model: seed, sample, group, called. models: by seed."""
    tables = []
    for seed, model in models.items():
        cohort = model.cohort[how]
        calls = knn_calls(reference_part(model.compendium, reference), cohort.X, k)
        obs = cohort.obs[["sample", "group"]].astype(str).reset_index(drop=True)
        tables.append(obs.assign(called=calls["called"], seed=seed))
    return pd.concat(tables, ignore_index=True)


def agreement(calls: pd.DataFrame, expected: dict, known: set[str], n_boot: int, seed: int) -> SeedsEstimate:
    """Share of `calls` (as `calls_by`) that are expected; the interval covers the models' seeds and the samples."""
    hits = as_expected(calls["group"], calls["called"].to_numpy(), expected, known)
    asked = ~np.isnan(hits)
    if not asked.any():
        return NO_ESTIMATE
    rows = calls[asked]
    return share_over_seeds(hits[asked] == 1, rows["seed"], rows["sample"], n_boot, seed)


def known_tissues(models: dict[int, Trained], reference: str) -> set[str]:
    """Tissues that the reference samples of any of the models have."""
    return {t for m in models.values() for t in reference_part(m.compendium, reference).obs["tissue"].astype(str)}


def combinations(models: dict[int, Trained], rubrics: dict, n_boot: int, seed: int) -> pd.DataFrame:
    """Agreement with the expected tissues for every harmonisation × reference × rubric, over all models.

    rubrics: name -> group -> tissues. value counts groups without expected tissues as misses (as published);
    value_with_expected leaves them out.
    """
    rows = []
    first = next(iter(models.values()))
    for reference in REFERENCES:
        known = known_tissues(models, reference)
        for how in first.cohort:
            calls = calls_by(models, how, reference)
            for rubric, expected in rubrics.items():
                asked = calls["group"].isin([group for group, tissues in expected.items() if tissues])
                whole, some = (agreement(c, expected, known, n_boot, seed) for c in (calls, calls[asked]))
                row = {"harmonise": how, "reference": reference, "rubric": rubric}
                row |= {"reference_n": reference_part(first.compendium, reference).n_obs} | whole._asdict()
                rows.append(row | {f"{k}_with_expected": v for k, v in some._asdict().items() if k != "seeds"})
    return pd.DataFrame(rows)


def by_seed(models: dict[int, Trained], rubric: dict, n_boot: int, seed: int) -> pd.DataFrame:
    """Agreement by the published reference, of every model alone and of all together: model, harmonise, value, …"""
    named = {str(s): {s: model} for s, model in models.items()} | {"all": models}
    tables = [combinations(some, {"": rubric}, n_boot, seed).assign(model=name) for name, some in named.items()]
    table = pd.concat(tables)
    table = table[table["reference"] == PUBLISHED["reference"]]
    return table[["model", "harmonise", "value", "low", "high", "n", "seeds"]].reset_index(drop=True)


def by_group(models: dict[int, Trained], rubrics: dict, n_boot: int, seed: int) -> pd.DataFrame:
    """Table S2 as published, per rubric and group: n, expected tissues, hits, their share, commonest calls.

    n and hits: of one model (a mean where there are several); the interval covers all of them.
    """
    calls, known = calls_by(models, **_published_choice()), known_tissues(models, PUBLISHED["reference"])
    rows = []
    for rubric, expected in rubrics.items():
        for group in (*in_order(calls["group"]), "all"):
            mine = calls if group == "all" else calls[calls["group"] == group]
            found = agreement(mine, expected, known, n_boot, seed)
            tissues = [t if t in known else f"{t} (not in reference)" for t in expected.get(group, [])]
            common = (mine["called"].value_counts() / len(models)).round().astype(int).head(3)
            rows.append({
                "group": group, "rubric": rubric, "n": round(len(mine) / len(models)),
                "expected": ", ".join(tissues) or ("" if group == "all" else "none"),
                "hits": round(found.value * found.n) if found.n else np.nan,
                "value": found.value, "low": found.low, "high": found.high, "seeds": len(models),
                "commonest_calls": "; ".join(f"{tissue} {n}" for tissue, n in common.items()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _published_choice() -> dict[str, str]:
    return {"how": PUBLISHED["harmonise"], "reference": PUBLISHED["reference"]}


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


def sensitivity(models: dict[int, Trained], expected: dict, n_boot: int, seed: int) -> pd.DataFrame:
    """Agreement by reference and k: with all reference samples, and `FOLDS` times without a fifth of them.

    value: all reference samples; its interval covers seeds and samples. difference: to the published choice (test part,
    k = 5), paired by sample. five_fold: mean over the folds; its interval covers folds, seeds and samples. fold_sd: of
    the folds' shares, within a seed. calls_changed: share of calls that a fold changes.
    """
    hits = {r: _fold_hits(models, r, expected, seed) for r in REFERENCES}
    published = hits[PUBLISHED["reference"]]
    published = published[(published["k"] == NEIGHBOURS) & (published["fold"] == 0)]
    published = published.set_index(["seed", "sample"])["hit"].rename("published")
    rows = []
    for reference, table in hits.items():
        n_reference = reference_part(next(iter(models.values())).compendium, reference).n_obs
        for k, each in table.groupby("k"):
            asked = each.dropna(subset="hit")
            whole, folds = asked[asked["fold"] == 0], asked[asked["fold"] > 0]
            value = share_over_seeds(whole["hit"] == 1, whole["seed"], whole["sample"], n_boot, seed)
            both = whole.join(published, on=["seed", "sample"]).dropna(subset="published")
            change = both["hit"] - both["published"]
            difference = interval_over_seeds(change, both["seed"], both["sample"], np.mean, n_boot, seed)
            part = folds["seed"].astype(str) + "/" + folds["fold"].astype(str)
            five = interval_over_seeds(folds["hit"], part, folds["sample"], np.mean, n_boot, seed)
            shares = folds.groupby(["seed", "fold"])["hit"].mean()
            rows.append({
                "reference": reference, "k": k, "reference_n": n_reference, **value._asdict(),
                "difference": difference.value, "difference_low": difference.low, "difference_high": difference.high,
                "five_fold": five.value, "five_fold_low": five.low, "five_fold_high": five.high,
                "fold_sd": shares.groupby(level=0).std().mean(), "calls_changed": each["changed"].mean(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _fold_hits(models: dict[int, Trained], reference: str, expected: dict, seed: int) -> pd.DataFrame:
    """seed, sample, k, fold (0: all reference samples), hit (NaN: can't be asked), changed (against fold 0)."""
    tables = []
    for s, model in models.items():
        part, cohort = reference_part(model.compendium, reference), model.cohort[PUBLISHED["harmonise"]]
        tissue = part.obs["tissue"].to_numpy(dtype=str)
        folds = KFold(min(FOLDS, part.n_obs), shuffle=True, random_state=seed).split(tissue)
        subsets = [np.arange(part.n_obs), *(kept for kept, _ in folds)]
        found = [kept[nearest(part.X[kept], cohort.X, max(K_RANGE))[1]] for kept in subsets]
        for k in K_RANGE:
            calls = [vote(tissue[each[:, :k]])[0] for each in found]
            for fold, called in enumerate(calls):
                hit = as_expected(cohort.obs["group"], called, expected, set(tissue))
                changed = (called != calls[0]).astype(float) if fold else np.nan
                row = {"seed": s, "sample": cohort.obs["sample"].to_numpy(), "k": k, "fold": fold}
                tables.append(pd.DataFrame(row | {"hit": hit, "changed": changed}))
    return pd.concat(tables, ignore_index=True)


def in_words(combinations: pd.DataFrame, sensitivity: pd.DataFrame, seeds: pd.DataFrame | None = None) -> str:
    """The share as published, what the open choices do to it, k, the reference and the model's seed, as one paragraph.

    seeds: as `by_seed`, or None where no model was retrained.
    """
    if combinations["n"].max() == 0:
        return "None of the expected tissues is among the reference's: how many calls are right is not estimable."
    ours = combinations[combinations["rubric"] == combinations["rubric"].iloc[0]]
    row = ours[(ours["harmonise"] == PUBLISHED["harmonise"]) & (ours["reference"] == PUBLISHED["reference"])].iloc[0]
    models = "one model" if row["seeds"] == 1 else f"{row['seeds']} seeds"
    by_way = ours.groupby("harmonise", sort=False)["value"]
    ways = "; ".join(f"{way} {share.min():.1%} to {share.max():.1%}" for way, share in by_way)
    test = sensitivity[sensitivity["reference"] == PUBLISHED["reference"]]
    five = test[test["k"] == NEIGHBOURS].iloc[0]
    said = [
        f"As published, {row['value']:.1%} ({row['low']:.1%} to {row['high']:.1%}) of the cohort's {row['n']:,} "
        f"samples are called as expected ({models}); without a fifth of the reference, five times, "
        f"{five['five_fold']:.1%} ({five['five_fold_low']:.1%} to {five['five_fold_high']:.1%}).",
        f"By k from {test['k'].min()} to {test['k'].max()}: {test['value'].min():.1%} to {test['value'].max():.1%}.",
        f"By harmonisation, over the three references: {ways}.",
    ]
    if seeds is not None:
        rows = seeds[seeds["harmonise"] == PUBLISHED["harmonise"]]
        alone, together = rows[rows["model"] != "all"], rows[rows["model"] == "all"].iloc[0]
        said.append(
            f"{len(alone)} models that differ in their seed alone, trained alike (not as long as the one above): "
            f"{alone['value'].min():.1%} to {alone['value'].max():.1%}, together {together['value']:.1%} "
            f"({together['low']:.1%} to {together['high']:.1%})."
        )
    return " ".join(said)
