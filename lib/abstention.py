"""When a sample is too far from every reference sample to be named: a distance with a stated level, and what it does.

Not in paper B, whose nearest neighbours always name a tissue, the clear cell sarcoma of the kidney's too.
"""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from lib.curation import sample_groups
from lib.metrics.bootstrap import Estimate, percentile_interval, share, share_over_seeds
from lib.transfer import (
    FOLDS,
    NEIGHBOURS,
    PUBLISHED,
    Trained,
    as_expected,
    in_order,
    knn_calls,
    nearest,
    reference_part,
)

LEVEL = 0.05  # share of samples of the reference's own kind that may be called too far
HELD_OUT = "held-out reference"
CCSK = "CCSK"  # paper B: no adult tissue is like the clear cell sarcoma of the kidney
BLOCK = 256  # samples whose distances are held at once


def studies(obs: pd.DataFrame) -> np.ndarray:
    """The study of every sample (linked series are one), the sample itself where none is given."""
    given = obs.reindex(columns=["study"]).assign(donor="")
    return sample_groups(given).to_numpy(dtype=str)


def calibration_distances(reference: ad.AnnData, k: int = NEIGHBOURS) -> np.ndarray:
    """Distance of every reference sample to the k-th nearest of other *studies*: what an unseen study's would be.

    reference: codes with obs tissue and study. NaN for a sample whose tissue no other study has: it is of a kind that
    would then be unknown, and must not set the threshold.
    """
    study, tissue = studies(reference.obs), reference.obs["tissue"].to_numpy(dtype=str)
    distances = np.empty(reference.n_obs)
    for start in range(0, reference.n_obs, BLOCK):
        rows = slice(start, start + BLOCK)
        apart = cdist(reference.X[rows], reference.X)
        apart[study[rows, None] == study] = np.inf
        kth = min(k, reference.n_obs) - 1
        distances[rows] = np.partition(apart, kth, axis=1)[:, kth]
    held_by = pd.DataFrame({"tissue": tissue, "study": study}).groupby("tissue")["study"].nunique()
    return np.where((pd.Series(tissue).map(held_by) > 1) & np.isfinite(distances), distances, np.nan)


def too_far(distances: np.ndarray, level: float = LEVEL) -> float:
    """Distance that a sample of the same kind as those of `distances` exceeds with probability `level` at most.

    The (n + 1)(1 − level)-th smallest of n, as in conformal prediction; infinite where n is too small for the
    level, so that nothing is then too far. Raises ValueError for a level that is no probability, or no distances.
    """
    distances = np.asarray(distances, float)
    if not 0 < level < 1 or not len(distances):
        raise ValueError(f"level: found {level!r} with {len(distances)} distances, expected 0 < level < 1 and some")
    rank = int(np.ceil((len(distances) + 1) * (1 - level)))
    return float(np.sort(distances)[rank - 1]) if rank <= len(distances) else np.inf


def limit(reference: ad.AnnData, k: int = NEIGHBOURS, level: float = LEVEL) -> float:
    """The distance above which a sample is too far: `too_far` of the `calibration_distances`; infinite without any."""
    distances = calibration_distances(reference, k)
    return too_far(distances[~np.isnan(distances)], level) if (~np.isnan(distances)).any() else np.inf


class Threshold(NamedTuple):
    """Distance above which a sample is too far, its interval over studies, and the samples and studies behind it."""

    value: float
    low: float
    high: float
    n: int
    studies: int


def threshold(
    reference: ad.AnnData, k: int = NEIGHBOURS, level: float = LEVEL, n_boot: int = 200, seed: int = 0
) -> Threshold:
    """`limit` with its interval: whole studies are resampled."""
    distances = calibration_distances(reference, k)
    kept = ~np.isnan(distances)
    if not kept.any():
        return Threshold(np.inf, np.inf, np.inf, 0, 0)
    names, codes = np.unique(studies(reference.obs)[kept], return_inverse=True)
    times = _resampled(len(names), n_boot, seed)
    draws = np.array([too_far(np.repeat(distances[kept], each[codes]), level) for each in times])
    low, high = np.percentile(draws, [2.5, 97.5], method="nearest")  # some draws may be infinite
    return Threshold(too_far(distances[kept], level), float(low), float(high), int(kept.sum()), len(names))


def _resampled(n: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each of n studies is drawn, n_boot × n."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot)


def held_out_ratios(reference: ad.AnnData, k: int = NEIGHBOURS, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
    """The check: reference samples scored by folds that hold none of their studies: study, ratio (÷ threshold).

    Only samples whose tissue those folds hold, and folds that give a threshold; empty where there are none.
    """
    study, tissue = studies(reference.obs), reference.obs["tissue"].to_numpy(dtype=str)
    n_studies = len(np.unique(study))
    tables = [pd.DataFrame({"study": [], "ratio": []})]
    folds = GroupKFold(min(FOLDS, n_studies), shuffle=True, random_state=seed) if n_studies > 1 else None
    for kept, held in folds.split(reference.X, groups=study) if folds else ():
        held = held[np.isin(tissue[held], tissue[kept])]
        far = limit(reference[kept], k, level)
        if len(held) and np.isfinite(far):
            distances = nearest(reference.X[kept], reference.X[held], k)[0][:, -1]
            tables.append(pd.DataFrame({"study": study[held], "ratio": distances / far}))
    return pd.concat(tables, ignore_index=True)


def share_over_studies(hits: np.ndarray, study: np.ndarray, n_boot: int, seed: int) -> Estimate:
    """Share of true values with its interval over whole studies, at least Wilson's over samples; n = 0 for none."""
    alone = share(hits)
    if not alone.n:
        return alone
    _, codes = np.unique(study, return_inverse=True)
    n, far = np.bincount(codes), np.bincount(codes, hits)
    times = _resampled(len(n), n_boot, seed)
    low, high = percentile_interval((times @ far) / (times @ n))
    return alone._replace(low=min(low, alone.low), high=max(high, alone.high))


class Distances(NamedTuple):
    """Distance ÷ threshold of samples (`ratios`), and the thresholds (`thresholds`, one row per model)."""

    ratios: pd.DataFrame
    thresholds: pd.DataFrame


def distances(models: dict[int, Trained], n_boot: int, seed: int) -> Distances:
    """How far the cohort, and reference samples of held-out studies, lie from the published reference.

    ratios: seed, harmonise, sample, group, called, share, ratio (above 1: too far); the reference's rows have group
    `HELD_OUT` and their study as sample.
    """
    tables, rows = [], []
    for s, model in models.items():
        part = reference_part(model.compendium, PUBLISHED["reference"])
        far, own = threshold(part, n_boot=n_boot, seed=seed), held_out_ratios(part, seed=seed)
        check = share_over_studies((own["ratio"] > 1).to_numpy(float), own["study"], n_boot, seed)
        rows.append({"seed": s, **_renamed(far, "threshold"), **_renamed(check, "held_out_too_far")})
        own = own.rename(columns={"study": "sample"}).assign(group=HELD_OUT)
        for how, cohort in model.cohort.items():
            obs = cohort.obs[["sample", "group"]].astype(str).reset_index(drop=True)
            calls = obs.join(knn_calls(part, cohort.X))
            calls["ratio"] = calls.pop("distance") / far.value
            tables.append(pd.concat([calls, own]).assign(harmonise=how, seed=s))
    return Distances(pd.concat(tables, ignore_index=True), pd.DataFrame(rows))


def _renamed(estimate: NamedTuple, name: str) -> dict[str, float]:
    own = {"value": name, "studies": "studies"}
    return {own.get(field, f"{name}_{field}"): value for field, value in estimate._asdict().items()}


def by_group(ratios: pd.DataFrame, expected: dict, known: set[str], n_boot: int, seed: int) -> pd.DataFrame:
    """Per harmonisation and group: share too far to be named, and of the hits and the misses apart.

    ratios: as `distances`; intervals over seeds and samples, of the reference over its studies. further_than_others:
    probability that a sample of the group lies further from the reference than one of the cohort's other groups (area
    under the ROC curve; 0.5 = no difference).
    """
    rows = []
    for how, table in ratios.groupby("harmonise", sort=False):
        far = (table["ratio"] > 1).to_numpy(float)
        cohort = (table["group"] != HELD_OUT).to_numpy()
        hits = as_expected(table["group"], table["called"].astype(str).to_numpy(), expected, known)
        for group in (*in_order(table.loc[cohort, "group"]), HELD_OUT):
            mine = (table["group"] == group).to_numpy()
            its = table[mine]
            if group == HELD_OUT:
                found = share_over_studies(far[mine], its["sample"], n_boot, seed)
            else:
                found = share_over_seeds(far[mine] == 1, its["seed"], its["sample"], n_boot, seed)
            several = group != HELD_OUT and (cohort & ~mine).any()
            rows.append({
                "harmonise": how, "group": group, "value": found.value, "low": found.low, "high": found.high,
                "n": found.n,
                "far_of_hits": _mean(far[mine & (hits == 1) & cohort]),
                "far_of_misses": _mean(far[mine & (hits == 0) & cohort]),
                "median_ratio": its["ratio"].median(), "mean_vote": its["share"].mean(),
                "further_than_others": roc_auc_score(mine[cohort], table["ratio"][cohort]) if several else np.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def in_words(table: pd.DataFrame, thresholds: pd.DataFrame, answerable: bool) -> str:
    """What the threshold flags, of the cohort and of the reference itself, as one paragraph.

    table: as `by_group`; thresholds: as `distances`; answerable: whether the reference has any of the expected tissues.
    """
    held, first = table[table["group"] == HELD_OUT].iloc[0], thresholds.iloc[0]
    bounds = f"{first['threshold_low']:.2f} to {_or_unbounded(first['threshold_high'])}"
    unnamed = (
        " (no study is named, so that each sample counts as one)" if first["threshold_n"] == first["studies"] else ""
    )
    said = [
        f"The threshold, {first['threshold']:.2f} ({bounds}), stands on {first['threshold_n']:,.0f} reference samples "
        f"of {first['studies']:,.0f} studies, each measured against the other studies{unnamed}; of samples of held-out "
        f"studies {_share(held)} are too far, for a level of {LEVEL:.0%}."
    ]
    cohort = table[table["group"] != HELD_OUT]
    for how, part in cohort.groupby("harmonise", sort=False):
        said.append(f"Harmonised by `{how}`: {', '.join(f'{r.group} {r.value:.0%}' for r in part.itertuples())}.")
    if not answerable:
        said.append(
            "No tissue of the reference is right for any of them: every call is wrong, and only abstaining is right."
        )
    wide = cohort.pivot(index="group", columns="harmonise", values="value")
    if {"cohort", "none"} <= set(wide) and (wide["none"] - wide["cohort"]).max() > 0.5:
        said.append(
            "The published z-score over the cohort takes away what sets a cohort apart from the reference, and with it "
            "the sign that it is like nothing there."
        )
    sarcoma = cohort[cohort["group"] == CCSK]
    if len(sarcoma):
        said.append(_sarcoma_in_words(sarcoma))
    return " ".join(said)


def _or_unbounded(distance: float) -> str:
    return f"{distance:.2f}" if np.isfinite(distance) else "no bound: so few studies"


def _share(row: pd.Series) -> str:
    if not row["n"]:
        return "a share that is not estimable"
    return f"{row['value']:.1%} ({row['low']:.1%} to {row['high']:.1%}, n = {row['n']:,})"


def _sarcoma_in_words(rows: pd.DataFrame) -> str:
    """Whether the clear cell sarcoma of the kidney gets flagged as like none of the tissues."""
    each = "; ".join(f"`{row['harmonise']}` {_share(row)}" for _, row in rows.iterrows())
    flagged = rows.loc[rows["low"] > 0.5, "harmonise"].tolist()
    verdict = f"flagged by {', '.join(flagged)}" if flagged else "**not flagged** by any: it gets a wrong tissue's name"
    further = ", ".join(f"{row.further_than_others:.2f} (`{row.harmonise}`)" for row in rows.itertuples())
    return (
        f"The clear cell sarcoma of the kidney as *none of these*: {each}; most of it is {verdict}. It lies further "
        f"away than a sample of another kind with probability {further}; 0.5 is chance."
    )
