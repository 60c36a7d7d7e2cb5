"""Tables of what the parts of the tissue VAE do: scores, differences to the full model, and both in words.

The models: lib/tissue_controls.py.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import claims, transfer
from lib.metrics.bootstrap import Estimate, interval
from lib.metrics.classification import balanced_accuracy, paired_difference, weighted_f1
from lib.metrics.reconstruction import masked_difference, spearman_of_sums
from lib.tissue_controls import AGAIN, FULL, LEARNED, LINES, Scored

NOT_ESTIMABLE = Estimate(np.nan, np.nan, np.nan, 0)
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


def table(made: dict[str, Scored], n_boot: int, seed: int) -> pd.DataFrame:
    """`METRICS` of every model and their differences to the model that it is compared with, paired, with intervals."""
    rows = []
    for name, scored in made.items():
        against = made[scored.ablation.against] if name in (FULL, scored.ablation.name) else None
        values = estimates(scored, n_boot, seed)
        changes = differences(against, scored, n_boot, seed) if against not in (None, scored) else {}
        about = {"model": name, "samples": len(np.unique(scored.ablation.rows)), "epochs": scored.epochs}
        about["against"] = scored.ablation.against if changes else ""
        itself = NOT_ESTIMABLE if changes else Estimate(0.0, 0.0, 0.0, 0)
        for metric in METRICS:
            change = changes.get(metric, itself)
            change = {"difference": change.value, "difference_low": change.low, "difference_high": change.high}
            rows.append(about | {"metric": metric} | values[metric]._asdict() | change)
    return pd.DataFrame(rows)


def estimates(scored: Scored, n_boot: int, seed: int) -> dict[str, Estimate]:
    """Every metric of one model with its interval."""
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


def over(values: np.ndarray, statistic, n_boot: int, seed: int) -> Estimate:
    """`interval` over the values that are defined."""
    defined = values[~np.isnan(values)]
    return interval(defined, statistic, n_boot, seed) if len(defined) else NOT_ESTIMABLE


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
    found["target"] = over(scored.hits["cohort"] - against.hits["cohort"], np.mean, n_boot, seed)
    found["imputation"] = masked_difference(against.masked, scored.masked, n_boot, seed)
    return found


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of the values, differences and bounds of `table`, with the number of seeds."""
    numbers = ["samples", "epochs", "value", "low", "high", "n", "difference", "difference_low", "difference_high"]
    by = scores.groupby(["model", "against", "metric"], sort=False)
    mean = by[numbers].mean().round({"epochs": 1}).astype({"samples": int, "n": int})
    return mean.assign(seeds=by["seed"].nunique()).reset_index()


def cohort_by_group(made: dict[str, Scored], groups: pd.Series, n_boot: int, seed: int) -> pd.DataFrame:
    """Fig S3: share of each group of the unseen cohort called as expected, without and with cell lines.

    Columns group, model, value, low, high, n, and the difference with − without, paired by sample. Empty without lines.
    """
    rows = []
    for group in (*transfer.in_order(groups), "all") if LINES in made else ():
        mine = np.ones(len(groups), bool) if group == "all" else (groups == group).to_numpy()
        without, kept = (made[name].hits["cohort"][mine] for name in (FULL, LINES))
        change = over(kept - without, np.mean, n_boot, seed)
        change = {"difference": change.value, "difference_low": change.low, "difference_high": change.high}
        for model, hits in (("without cell lines", without), ("with cell lines", kept)):
            rows.append({"group": group, "model": model} | over(hits, np.mean, n_boot, seed)._asdict() | change)
    return pd.DataFrame(rows)


def published_lines() -> dict[tuple[str, str], float]:
    """Paper B's values of Fig S3, as fractions: (group, with or without cell lines) -> share."""
    overall = [claims.published(f"b-abl-cl-{name}") for name in ("with", "without")]
    values = {"all": overall} | {g: claims.load()[f"b-abl-cl-{g.lower()}"]["value"] for g in ("NBL", "Wilms")}
    names = ("with cell lines", "without cell lines")
    return {(g, name): v / 100 for g, pair in values.items() for name, v in zip(names, pair, strict=True)}


def normalisations(made: dict[str, Scored], n_boot: int, seed: int) -> pd.DataFrame:
    """Unseen cohort as expected, by model (full, learned normalisation) and harmonisation.

    Differences, paired by sample: to the full model with z-scores over the cohort (as published), and to the full model
    that scores each sample alone.
    """
    rows = []
    for model in (FULL, LEARNED):
        for how, hits in made[model].hits.items():
            row = {"model": model, "harmonise": how} | over(hits, np.mean, n_boot, seed)._asdict()
            for name, reference in (("published", "cohort"), ("alone", "none")):
                change = NOT_ESTIMABLE
                if reference in made[FULL].hits:
                    change = over(hits - made[FULL].hits[reference], np.mean, n_boot, seed)
                row |= {f"to_{name}": change.value, f"to_{name}_low": change.low, f"to_{name}_high": change.high}
            rows.append(row)
    return pd.DataFrame(rows)


# --- in words ------------------------------------------------------------------------------------------------


def verdict(low: float, high: float) -> str:
    return "up" if low > 0 else "down" if high < 0 else "no clear change"


def in_words(scores: pd.DataFrame) -> str:
    """For every ablation, what changes by more than another seed does and with an interval that excludes 0.

    scores: as `over_seeds` gives them.
    """
    noise = scores[scores["model"] == AGAIN].set_index("metric")["difference"].abs()
    said = []
    for model, rows in scores[scores["against"] != ""].groupby("model", sort=False):
        moved = [
            f"{METRICS[r.metric]} {r.difference:+.3f} ({r.difference_low:+.3f} to {r.difference_high:+.3f})"
            for r in rows.itertuples()
            if verdict(r.difference_low, r.difference_high) != "no clear change"
            and (model == AGAIN or abs(r.difference) > noise.get(r.metric, 0))
        ]
        said.append(
            f"* *{model}* against *{rows['against'].iloc[0]}*: {'; '.join(moved) or 'nothing changes clearly'}."
        )
    return "\n".join(said)


def noise_in_words(scores: pd.DataFrame) -> str:
    """How far another seed alone moves the unseen cohort, beside the change that the paper ascribes to cell lines."""
    row = scores[(scores["model"] == AGAIN) & (scores["metric"] == "target")].iloc[0]
    published = claims.published("b-abl-cl-with") - claims.published("b-abl-cl-without")
    if np.isnan(row["difference"]):
        return "What another seed alone would change is not estimable."
    size = "more" if abs(100 * row["difference"]) > published else "less"
    return (
        f"Training the full model again with another seed moves this share by {100 * row['difference']:+.1f} points "
        f"({100 * row['difference_low']:+.1f} to {100 * row['difference_high']:+.1f}): {size} than the "
        f"{published:.1f} points that the paper, from one training each, ascribes to cell lines."
    )


def lines_in_words(by_group: pd.DataFrame) -> str:
    """What keeping the cell lines does to the unseen cohort, overall and in the groups that move."""
    if by_group.empty:
        return "The compendium has no cell lines to keep, so Figure S3 is not estimable."
    rows = by_group[by_group["model"] == "with cell lines"].set_index("group")
    whole = rows.loc["all"]
    moved = [
        f"{group} {100 * r['difference']:+.0f} ({100 * r['difference_low']:+.0f} to {100 * r['difference_high']:+.0f})"
        for group, r in rows.drop("all").iterrows()
        if verdict(r["difference_low"], r["difference_high"]) != "no clear change"
    ]
    return (
        f"Keeping ARCHS4's cell lines changes the share of the unseen cohort called as expected by "
        f"{100 * whole['difference']:+.1f} points ({100 * whole['difference_low']:+.1f} to "
        f"{100 * whole['difference_high']:+.1f}, n = {whole['n']:,.0f}). "
        f"Groups that move: {', '.join(moved) or 'none'}."
    )


def normalisation_in_words(table: pd.DataFrame) -> str:
    """Whether the learned layer, sample by sample, reaches z-scores over the cohort."""
    rows = table.set_index(["model", "harmonise"])
    if (LEARNED, "none") not in rows.index or np.isnan(rows.loc[(LEARNED, "none"), "value"]):
        return "The unseen cohort can't be scored sample by sample here, so the learned normalisation is not estimable."
    learned, alone, published = rows.loc[(LEARNED, "none")], rows.loc[(FULL, "none")], rows.loc[(FULL, "cohort")]
    gain = verdict(learned["to_alone_low"], learned["to_alone_high"])
    gap = verdict(learned["to_published_low"], learned["to_published_high"])
    reached = {"up": "more than", "down": "less than", "no clear change": "about what"}[gap]
    return (
        f"Scored one by one, without harmonisation, {alone['value']:.1%} of the unseen cohort is called as expected by "
        f"the full model and {learned['value']:.1%} ({learned['low']:.1%} to {learned['high']:.1%}) by the one that "
        f"learned to normalise: {100 * learned['to_alone']:+.1f} points ({100 * learned['to_alone_low']:+.1f} to "
        f"{100 * learned['to_alone_high']:+.1f}), {gain}. That is {reached} z-scores over the whole cohort give "
        f"({published['value']:.1%}; difference {100 * learned['to_published']:+.1f}, "
        f"{100 * learned['to_published_low']:+.1f} to {100 * learned['to_published_high']:+.1f})."
    )
