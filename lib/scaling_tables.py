"""Tables of the scaling study: scores by design, paper B's Tables 2 and S1, gain per doubling, and both in words.

The designs and their training: lib/scaling.py.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import claims, tissue_scoring, transfer
from lib.metrics.bootstrap import Estimate, interval
from lib.metrics.classification import balanced_accuracy, paired_difference, paired_shares, weighted_f1
from lib.metrics.growth import curvature, forecast, next_doubling, per_doubling, scatter
from lib.metrics.repeats import FEWEST, over_repeats, verdict
from lib.scaling import FULL, SHARES, Result
from lib.tissue_scoring import BOUNDS, NOT_ESTIMABLE

METRICS = {
    metric: tissue_scoring.METRICS[metric]
    for metric in ("gene_rho", "sample_rho", "imputation", "balanced_accuracy", "weighted_f1", "target")
}


def scores(result: Result, n_boot: int, seed: int) -> pd.DataFrame:
    """`METRICS` of one design: design, kind, samples, metric, value, low, high, n."""
    estimates = tissue_scoring.estimates(result.scored, n_boot, seed)
    about = {"design": result.design.name, "kind": result.design.kind, "samples": len(result.design.rows)}
    return pd.DataFrame([about | {"metric": metric} | estimates[metric]._asdict() for metric in METRICS])


def described(samples: pd.DataFrame, results: list[Result]) -> pd.DataFrame:
    """What each design was trained on and how: samples by source, cell lines, largest tissue, epochs, memory."""
    rows = []
    for result in results:
        obs = samples.iloc[result.design.rows]
        sources = obs["source"].astype(str).value_counts().head(4)
        rows.append({
            "design": result.design.name, "kind": result.design.kind, "samples": len(obs),
            "sources": ", ".join(f"{name} {n:,}" for name, n in sources.items() if name),
            "cell_lines": int(obs["cell_line"].sum()), "tissues": obs["tissue"].nunique(),
            "largest_tissue": int(obs["tissue"].value_counts().max()),
            "epochs": result.scored.epochs, "peak_memory_gb": result.memory_gb,
        })  # fmt: skip
    return pd.DataFrame(rows)


def table_2(table: pd.DataFrame) -> pd.DataFrame:
    """Paper B's Table 2: a row for each metric; per design the mean over seeds with its interval.

    From three seeds on the interval is over the seeds, with fewer it is over the test samples (means of the bounds).
    """
    table = table[(table["kind"] == "as published") | (table["design"] == "100%")]
    rows = []
    for metric, words in METRICS.items():
        mine = table[table["metric"] == metric]
        row = {"metric": words, "n": int(mine["n"].iloc[0]), "seeds": mine["seed"].nunique()}
        for design, each in mine.groupby("design", sort=False):
            value, low, high = each[["value", "low", "high"]].mean()
            if row["seeds"] >= FEWEST:
                value, low, high = over_repeats(each["value"], BOUNDS[metric], row["n"])[:3]
            row |= {design: value, f"{design}_low": low, f"{design}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def compare(a: Result, b: Result, groups: pd.Series, n_boot: int, seed: int) -> pd.DataFrame:
    """Table S1, metric by metric: score of `a`, of `b`, and b − a over the same test samples, with its interval.

    groups: of the unseen cohort. Rows also for every tissue and every group.
    """
    rows, (left, right), tissue = [], (a.scored, b.scored), a.scored.tissue
    names = a.design.name, b.design.name

    def add(metric, values, difference):
        rows.append({"metric": metric} | dict(zip(names, values, strict=True)) | _difference(difference))

    def paired(metric, of_a, of_b, statistic):
        kept = ~(np.isnan(of_a) | np.isnan(of_b))
        of_a, of_b = of_a[kept], of_b[kept]
        change = interval(of_b - of_a, statistic, n_boot, seed) if len(of_a) else NOT_ESTIMABLE
        add(metric, [statistic(x) if len(x) else np.nan for x in (of_a, of_b)], change)

    def shares(metric, of_a, of_b):
        add(metric, [pd.Series(x).mean() for x in (of_a, of_b)], paired_shares(of_b, of_a, n_boot, seed))  # skips NaN

    for field, what in (("gene_rho", "gene"), ("sample_rho", "sample")):
        title = f"Spearman per {what}, median (difference: median over {what}s)"
        paired(title, getattr(left, field), getattr(right, field), np.median)
    for metric, score in (("balanced_accuracy", balanced_accuracy), ("weighted_f1", weighted_f1)):
        change = paired_difference(tissue, right.called, left.called, metric, n_boot, seed)
        add(METRICS[metric], [score(tissue, each.called, 2, seed).value for each in (left, right)], change)
    paired("source mixing among neighbours", left.mixing, right.mixing, np.mean)
    paired("LISI of sources", left.lisi, right.lisi, np.mean)
    correct = [(each.called == tissue).astype(float) for each in (left, right)]
    for name in sorted(set(tissue)):
        shares(f"accuracy, {name}", *(each[tissue == name] for each in correct))
    for name in ("all", *transfer.in_order(groups)):
        of = np.ones(len(groups), bool) if name == "all" else (groups == name).to_numpy()
        shares(f"called as expected, {name}", *(each.hits["cohort"][of] for each in (left, right)))
    return pd.DataFrame(rows)


def _difference(estimate: Estimate) -> dict[str, float]:
    return dict(zip(("difference", "low", "high", "n"), estimate, strict=True))


def compare_over_seeds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Means over seeds of `compare`'s tables; from three seeds on, the interval of the difference is over the seeds."""
    rows = []
    for metric, each in pd.concat(tables).groupby("metric", sort=False):
        row = {"metric": metric} | each.drop(columns="metric").mean().to_dict()
        found = each["difference"].notna().sum()
        if found >= FEWEST:
            row |= {"low": (over := over_repeats(each["difference"])).low, "high": over.high}
        rows.append(row | {"n": round(row["n"]), "seeds": len(each)})
    return pd.DataFrame(rows)


# --- growth --------------------------------------------------------------------------------------------------


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """Per metric, size alone: gain per doubling, how it changes, what the next doubling would bring, and 605K.

    table: `scores` of all seeds, which are blocks (lib/metrics/growth.py). per_doubling and curvature are on the
    metric's own scale; next_doubling and the forecast take a line on the logit scale, so that they stay within what
    the metric can reach. The corpus is as much larger than the largest design as the paper's is than its own.
    scatter: standard deviation of single trainings about the line. Diminishing returns are a curvature below 0.
    """
    table = table[(table["kind"] == "size alone") | (table["design"] == full_design(table))]
    times = claims.published("b-scale-605k") / claims.published("b-scale-n-118k")
    rows = []
    for metric, words in METRICS.items():
        mine = table[(table["metric"] == metric) & table["value"].notna()]
        sizes, seeds = (mine[column].nunique() for column in ("design", "seed"))
        row = {"metric": words, "points": len(mine), "sizes": sizes, "seeds": seeds}
        rows.append(row | (_growth(mine, BOUNDS[metric], times) if sizes >= 4 else {}))
    return pd.DataFrame(rows)


def _growth(mine: pd.DataFrame, bounds: tuple[float, float], times: float) -> dict[str, float]:
    """One row of `fits`; mine: the trainings of one metric."""
    samples, values, seeds, n = (mine[c].to_numpy() for c in ("samples", "value", "seed", "n"))
    largest = mine.loc[mine.groupby("seed")["samples"].idxmax()]
    row = {}
    for name, found in (
        ("per_doubling", per_doubling(samples, values, seeds)),
        ("curvature", curvature(samples, values, seeds)),
        ("next_doubling", next_doubling(samples, values, seeds, bounds, n)),
    ):
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    corpus = largest["samples"].mean() * times
    ahead = forecast(samples, values, corpus, seeds, bounds, n)
    row |= {"scatter": scatter(samples, values, seeds), "at_largest": largest["value"].mean(), "corpus": int(corpus)}
    return row | {"extrapolated": ahead.value, "extrapolated_low": ahead.low, "extrapolated_high": ahead.high}


def full_design(scores: pd.DataFrame) -> str:
    """Name of the design that the shares of `size alone` are shares of."""
    return FULL if (scores["design"] == FULL).any() else "100%"


def compared(names) -> tuple[str, str]:
    """The two designs of table S1: the paper's 75K and 118K, or the two largest where there is size alone."""
    return ("75K", FULL) if FULL in names else (f"{SHARES[-1]:.0%}", "100%")


def returns(row: pd.Series) -> str:
    """What the curvature's interval allows to say."""
    if np.isnan(row.curvature_low):
        return "whether returns diminish is not estimable"
    if row.curvature_high < 0:
        return "returns diminish"
    return "returns grow" if row.curvature_low > 0 else "whether returns diminish is not distinguishable"


def in_words(scores: pd.DataFrame, fitted: pd.DataFrame) -> str:
    """Gain per doubling, its change, and the forecast for every metric, and what the cap does."""
    if "per_doubling" not in fitted or fitted["per_doubling"].isna().all():
        return "Nothing is estimable."
    seeds = int(fitted["seeds"].max())
    said = [
        f"{row.metric}: {row.per_doubling:+.3f} per doubling ({row.per_doubling_low:+.3f} to "
        f"{row.per_doubling_high:+.3f}), which changes by {row.curvature:+.3f} from one doubling to the next "
        f"({row.curvature_low:+.3f} to {row.curvature_high:+.3f}): {returns(row)}. The next doubling would bring "
        f"{row.next_doubling:+.3f} ({row.next_doubling_low:+.3f} to {row.next_doubling_high:+.3f}); at "
        f"{int(row.corpus):,} samples the line gives {row.extrapolated:.3f} ({row.extrapolated_low:.3f} to "
        f"{row.extrapolated_high:.3f})."
        for row in fitted.dropna(subset="per_doubling").itertuples()
    ]
    behind = "intervals over seeds" if seeds >= FEWEST else "intervals from the scatter of single trainings"
    of = "one seed" if seeds == 1 else f"{seeds} seeds"
    said[0] = f"Size alone ({of}; {behind}). {said[0]}"
    return "\n\n".join([*said, *_cap_in_words(scores)])


def _cap_in_words(scores: pd.DataFrame) -> list[str]:
    """Capped minus uncapped at one number of samples, per metric; a verdict from three seeds on."""
    wide = scores.pivot_table(index=["metric", "seed"], columns="design", values="value", sort=False)
    if "no cap" not in wide:
        return []
    parts = []
    for metric, words in METRICS.items():
        if metric in wide.index:
            change = (wide.loc[metric, FULL] - wide.loc[metric, "no cap"]).dropna()
            found = over_repeats(change)
            bounds = f" ({found.low:+.3f} to {found.high:+.3f}, {verdict(found.low, found.high, found.seeds)})"
            parts.append(f"{words} {found.value:+.3f}{bounds if found.seeds >= FEWEST else ''}")
    one = "" if len(change) >= FEWEST else " One training each: how much of this is luck is unknown."
    return [f"The cap alone, at one number of samples: {', '.join(parts)}.{one}"]
