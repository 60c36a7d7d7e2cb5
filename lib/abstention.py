"""When a sample is too far from every reference sample to be named: a distance with a stated level, and what it does.

Not in paper B, whose nearest neighbours always name a tissue, the clear cell sarcoma of the kidney's too.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from lib.transfer import FOLDS, NEIGHBOURS, as_expected, estimate, in_order, knn_calls, nearest

LEVEL = 0.05  # share of samples of the reference's own kind that may be called too far
HELD_OUT = "held-out reference"


def own_distances(reference: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Distance of every reference sample to the k-th nearest of the others (leave-one-out)."""
    return nearest(reference, reference, k + 1)[0][:, -1]


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


def held_out_ratios(reference: np.ndarray, k: int = NEIGHBOURS, level: float = LEVEL, seed: int = 0) -> np.ndarray:
    """Distance ÷ threshold of reference samples, each scored against the folds that do not hold it: the check."""
    ratios = np.empty(len(reference))
    for kept, held in KFold(min(FOLDS, len(reference)), shuffle=True, random_state=seed).split(reference):
        threshold = too_far(own_distances(reference[kept], k), level)
        ratios[held] = nearest(reference[kept], reference[held], k)[0][:, -1] / threshold
    return ratios


def distance_ratios(codes: dict[str, ad.AnnData], part: ad.AnnData, seed: int) -> pd.DataFrame:
    """Distance to the k-th nearest reference ÷ threshold, of the cohort and of held-out reference samples.

    Columns harmonise, group, called, share, ratio (above 1: too far); the reference's rows have group `HELD_OUT`.
    """
    threshold = too_far(own_distances(part.X))
    own = pd.DataFrame({"group": HELD_OUT, "ratio": held_out_ratios(part.X, seed=seed)})
    tables = []
    for how, cohort in codes.items():
        calls = knn_calls(part, cohort.X).assign(group=cohort.obs["group"].to_numpy(dtype=str))
        calls = calls.assign(ratio=calls["distance"] / threshold)
        tables.append(pd.concat([calls.drop(columns="distance"), own]).assign(harmonise=how))
    return pd.concat(tables, ignore_index=True)


def by_group(ratios: pd.DataFrame, expected: dict, known: set[str], n_boot: int, seed: int) -> pd.DataFrame:
    """Per harmonisation and group: share too far to be named, and of the hits and the misses apart.

    ratios: as `distance_ratios`. further_than_others: probability that a sample of the group lies further from
    the reference than one of the cohort's other groups (area under the ROC curve; 0.5 = no difference).
    """
    rows = []
    for how, table in ratios.groupby("harmonise", sort=False):
        far = (table["ratio"] > 1).to_numpy(float)
        cohort = (table["group"] != HELD_OUT).to_numpy()
        hits = as_expected(table["group"], table["called"].astype(str).to_numpy(), expected, known)
        for group in (*in_order(table.loc[cohort, "group"]), HELD_OUT):
            mine = (table["group"] == group).to_numpy()
            share = estimate(far[mine], n_boot, seed)
            several = group != HELD_OUT and (cohort & ~mine).any()
            rows.append({
                "harmonise": how, "group": group, **share._asdict(),
                "far_of_hits": _mean(far[mine & (hits == 1) & cohort]),
                "far_of_misses": _mean(far[mine & (hits == 0) & cohort]),
                "median_ratio": table.loc[mine, "ratio"].median(), "mean_vote": table.loc[mine, "share"].mean(),
                "further_than_others": roc_auc_score(mine[cohort], table["ratio"][cohort]) if several else np.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def in_words(table: pd.DataFrame) -> str:
    """What the threshold flags, of the cohort and of the reference itself, as one paragraph."""
    checked = table[table["group"] == HELD_OUT]
    share = checked["value"].mean()
    said = [f"Of held-out reference samples {share:.1%} are too far to be named, for a level of {LEVEL:.0%}."]
    mean = table[table["group"] != HELD_OUT].groupby(["harmonise", "group"], sort=False).mean(numeric_only=True)
    for how, part in mean.groupby(level=0, sort=False):
        part = part.droplevel(0)
        shares = ", ".join(f"{group} {share:.0%}" for group, share in part["value"].items())
        said.append(f"Harmonised by `{how}`: {shares}.")
    if "CCSK" in mean.index.get_level_values(1):
        far = mean.xs("CCSK", level=1)["further_than_others"]
        said.append(
            "A clear cell sarcoma of the kidney lies further away than a sample of another kind with probability "
            + ", ".join(f"{p:.2f} (`{how}`)" for how, p in far.items())
            + "; 0.5 is chance."
        )
    return " ".join(said)
