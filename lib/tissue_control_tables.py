"""Tables of what the parts of the tissue VAE do: scores, differences to the full model, and both in words.

The models: lib/tissue_controls.py.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import claims, transfer
from lib.metrics.bootstrap import Estimate, share
from lib.metrics.classification import paired_shares
from lib.metrics.repeats import FEWEST, SHARE, over_repeats, verdict
from lib.tissue_controls import AGAIN, FULL, GENE_NOISE, LEARNED, LINES, Made
from lib.tissue_scoring import BOUNDS, METRICS, NOT_ESTIMABLE, differences, estimates, over

CLEAR = ("up", "down")  # verdicts that name a direction


def table(made: dict[str, Made], n_boot: int, seed: int) -> pd.DataFrame:
    """`METRICS` of every model and their differences to the model that it is compared with, paired, with intervals."""
    rows = []
    for name, (ablation, scored, _) in made.items():
        against = made[ablation.against].scored if name in (FULL, ablation.name) else None
        values = estimates(scored, n_boot, seed)
        itself = against is None or against is scored
        changes = {} if itself else differences(against, scored, n_boot, seed)
        about = {"model": name, "samples": len(np.unique(ablation.rows)), "epochs": scored.epochs}
        about["against"] = ablation.against if changes else ""
        for metric in METRICS:
            change = changes.get(metric, NOT_ESTIMABLE) if changes else Estimate(0.0, 0.0, 0.0, 0)
            change = _named("difference", change)
            rows.append(about | {"metric": metric} | values[metric]._asdict() | change | {"seed": seed})
    return pd.DataFrame(rows)


def _named(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of `table`, with the verdict on each difference and its spread over seeds (difference_sd).

    From three seeds on, intervals of differences are over the seeds (t); with fewer they are over samples or genes
    (means of the bounds), and the verdict says so.
    """
    rows = []
    for (model, against, metric), each in scores.groupby(["model", "against", "metric"], sort=False):
        row = {"model": model, "against": against, "metric": metric}
        row |= {"samples": round(each["samples"].mean()), "epochs": round(each["epochs"].mean(), 1)}
        row |= value_over_seeds(each, BOUNDS[metric])
        rows.append(row | change_over_seeds(each, "difference", compared=bool(against)))
    return pd.DataFrame(rows)


def value_over_seeds(each: pd.DataFrame, bounds: tuple[float, float]) -> dict[str, float]:
    """Mean, interval and n of a value of several seeds; from three on over them, and no narrower than within a seed."""
    value, low, high, n = each[["value", "low", "high", "n"]].mean()
    over_them = over_repeats(each["value"], bounds, max(n, 1))
    if over_them.seeds >= FEWEST:
        low, high = min(low, over_them.low), max(high, over_them.high)
    return {"value": value, "low": low, "high": high, "n": round(n), "seeds": each["seed"].nunique()}


def change_over_seeds(each: pd.DataFrame, name: str, compared: bool = True) -> dict[str, float | str]:
    """Mean of a difference of several seeds, its interval, its spread over them, and the verdict on it."""
    value, low, high = each[[name, f"{name}_low", f"{name}_high"]].mean()
    found = over_repeats(each[name])
    if found.seeds >= FEWEST:
        value, low, high = found[:3]
    row = _named(name, Estimate(value, low, high, 0)) | {f"{name}_sd": each[name].std(ddof=1)}
    return row | {"verdict": verdict(low, high, found.seeds) if compared else ""}


def cohort_by_group(made: dict[str, Made], groups: pd.Series, n_boot: int, seed: int) -> pd.DataFrame:
    """Fig S3: share of each group of the unseen cohort called as expected, without and with cell lines.

    Columns group, model, value, low, high (Wilson), n, and the difference with − without, paired by sample. Empty
    without lines.
    """
    rows = []
    for group in (*transfer.in_order(groups), "all") if LINES in made else ():
        mine = np.ones(len(groups), bool) if group == "all" else (groups == group).to_numpy()
        without, kept = (made[name].scored.hits["cohort"][mine] for name in (FULL, LINES))
        change = _named("difference", paired_shares(kept, without, n_boot, seed))
        for model, hits in (("without cell lines", without), ("with cell lines", kept)):
            value = share(hits[~np.isnan(hits)] == 1)._asdict()
            rows.append({"group": group, "model": model} | value | change | {"seed": seed})
    return pd.DataFrame(rows)


def groups_over_seeds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Means over seeds of `cohort_by_group`, with the verdict on each difference and its spread."""
    together = pd.concat(tables)
    if together.empty:
        return together
    rows = [
        {"group": group, "model": model} | value_over_seeds(each, SHARE) | change_over_seeds(each, "difference")
        for (group, model), each in together.groupby(["group", "model"], sort=False)
    ]
    return pd.DataFrame(rows)


def published_lines() -> dict[tuple[str, str], float]:
    """Paper B's values of Fig S3, as fractions: (group, with or without cell lines) -> share."""
    overall = [claims.published(f"b-abl-cl-{name}") for name in ("with", "without")]
    values = {"all": overall} | {g: claims.load()[f"b-abl-cl-{g.lower()}"]["value"] for g in ("NBL", "Wilms")}
    names = ("with cell lines", "without cell lines")
    return {(g, name): v / 100 for g, pair in values.items() for name, v in zip(names, pair, strict=True)}


def normalisations(made: dict[str, Made], n_boot: int, seed: int) -> pd.DataFrame:
    """Unseen cohort as expected, by model (full, learned normalisations) and harmonisation.

    Differences, paired by sample: to the full model with z-scores over the cohort (as published), and to the full model
    that scores each sample alone.
    """
    rows, full = [], made[FULL].scored.hits
    for model in (FULL, LEARNED, GENE_NOISE):
        for how, hits in made[model].scored.hits.items() if model in made else ():
            row = {"model": model, "harmonise": how} | over(hits, np.mean, n_boot, seed)._asdict()
            for name, reference in (("to_published", "cohort"), ("to_alone", "none")):
                row |= _named(name, _change_to(full.get(reference), hits, n_boot, seed))
            rows.append(row | {"seed": seed})
    return pd.DataFrame(rows)


def _change_to(reference: np.ndarray | None, hits: np.ndarray, n_boot: int, seed: int) -> Estimate:
    if reference is None:
        return NOT_ESTIMABLE
    return Estimate(0.0, 0.0, 0.0, 0) if hits is reference else paired_shares(hits, reference, n_boot, seed)


def normalisations_over_seeds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Means over seeds of `normalisations`, with a verdict on each of the two differences."""
    rows = []
    for (model, how), each in pd.concat(tables).groupby(["model", "harmonise"], sort=False):
        row = {"model": model, "harmonise": how} | value_over_seeds(each, SHARE)
        for name, reference in (("to_published", "cohort"), ("to_alone", "none")):
            change = change_over_seeds(each, name, compared=(model, how) != (FULL, reference))
            row |= change | {f"{name}_verdict": change["verdict"]}
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="verdict")


# --- in words ------------------------------------------------------------------------------------------------


def in_words(scores: pd.DataFrame) -> str:
    """For every ablation, what changes; a verdict only from three seeds on. scores: as `over_seeds` gives them."""
    compared = scores[scores["against"] != ""]
    again = compared[compared["model"] == AGAIN]
    if scores["seeds"].max() < FEWEST:
        moved = "; ".join(_change(row) for row in again.dropna(subset="difference").itertuples())
        said = [
            "One training each: how far trainings lie apart is unknown, so nothing below is a verdict. The full model "
            f"trained again with another seed moved: {moved}. What lies farther from its reference than that, with an "
            "interval over samples that excludes 0:\n"
        ]
    else:
        n = compared["difference"].notna().sum()
        said = [
            f"{scores['seeds'].max()} trainings each; what changes by more than they differ among themselves (of {n} "
            f"differences, about {0.05 * n:.0f} would by chance):\n"
        ]
    for model, rows in compared.groupby("model", sort=False):
        if model != AGAIN or scores["seeds"].max() >= FEWEST:
            moved = "; ".join(_change(row) for row in rows.itertuples() if _stands_out(row, again))
            said.append(f"* *{model}* against *{rows['against'].iloc[0]}*: {moved or 'nothing'}.")
    return "\n".join(said)


def _change(row) -> str:
    return f"{METRICS[row.metric]} {row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"


def _stands_out(row, again: pd.DataFrame) -> bool:
    """Whether a difference is beyond what is known of the trainings' own noise."""
    if row.seeds >= FEWEST:
        return row.verdict in CLEAR
    noise = again.loc[again["metric"] == row.metric, "difference"].abs()
    return (row.difference_low > 0 or row.difference_high < 0) and not (abs(row.difference) <= noise).any()


def noise_in_words(scores: pd.DataFrame) -> str:
    """How far another seed alone moves the unseen cohort, beside the change that the paper ascribes to cell lines."""
    row = scores[(scores["model"] == AGAIN) & (scores["metric"] == "target")].iloc[0]
    published = claims.published("b-abl-cl-with") - claims.published("b-abl-cl-without")
    if np.isnan(row["difference"]):
        return "What another seed alone would change is not estimable."
    size = "more" if abs(100 * row["difference"]) > published else "less"
    means = f", mean of {row['seeds']} pairs" if row["seeds"] > 1 else ""
    return (
        f"Training the full model again with another seed moves this share by {100 * row['difference']:+.1f} points "
        f"({100 * row['difference_low']:+.1f} to {100 * row['difference_high']:+.1f}{means}): {size} than the "
        f"{published:.1f} points that the paper, from one training each, ascribes to cell lines."
    )


def lines_in_words(by_group: pd.DataFrame) -> str:
    """What keeping the cell lines does to the unseen cohort, overall and in the groups that move."""
    if by_group.empty:
        return "The compendium has no cell lines to keep, so Figure S3 is not estimable."
    rows = by_group[by_group["model"] == "with cell lines"].set_index("group")
    whole, groups = rows.loc["all"], rows.drop("all")
    excludes = (groups["difference_low"] > 0) | (groups["difference_high"] < 0)
    moved = [
        f"{group} {100 * r['difference']:+.0f} ({100 * r['difference_low']:+.0f} to {100 * r['difference_high']:+.0f})"
        for group, r in groups[excludes].iterrows()
    ]
    behind = "intervals over seeds" if whole["seeds"] >= FEWEST else "one training each, intervals over samples only"
    return (
        f"Keeping ARCHS4's cell lines changes the share of the unseen cohort called as expected by "
        f"{100 * whole['difference']:+.1f} points ({100 * whole['difference_low']:+.1f} to "
        f"{100 * whole['difference_high']:+.1f}, n = {whole['n']:,.0f}; {behind}): {whole['verdict']}. "
        f"Groups that differ: {', '.join(moved) or 'none'}."
    )


def normalisation_in_words(table: pd.DataFrame) -> str:
    """Whether a learned layer, sample by sample, reaches z-scores over the cohort, and no normalisation at all."""
    rows = table.set_index(["model", "harmonise"])
    learned = [model for model in (LEARNED, GENE_NOISE) if (model, "none") in rows.index]
    if not learned or np.isnan(rows.loc[(FULL, "none"), "value"]):
        return "The unseen cohort can't be scored sample by sample here, so the learned normalisation is not estimable."
    alone, seeds = rows.loc[(FULL, "none")], int(table["seeds"].max())
    said = [f"{seeds} trainings each, intervals over them." if seeds >= FEWEST else "One training each: no verdict."]
    said.append(
        f"z-scores over the whole cohort, as published: {rows.loc[(FULL, 'cohort'), 'value']:.1%} called as expected. "
        f"The full model, sample by sample: {alone['value']:.1%}, {_points(alone, 'to_published')} against that."
    )
    for model in learned:
        row = rows.loc[(model, "none")]
        said.append(
            f"*{model}*, sample by sample: {row['value']:.1%}, {_points(row, 'to_alone')} against the full model so, "
            f"{_points(row, 'to_published')} against the published way."
        )
    if LEARNED not in learned:
        said.append("No tissue has two studies or sources, so there are no shifts to learn from.")
    return " ".join(said)


def _points(row: pd.Series, name: str) -> str:
    low, high = 100 * row[f"{name}_low"], 100 * row[f"{name}_high"]
    found = f", {row[f'{name}_verdict']}" if row["seeds"] >= FEWEST else ""
    return f"{100 * row[name]:+.1f} points ({low:+.1f} to {high:+.1f}{found})"
