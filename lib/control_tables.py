"""What the controls of lib/controls.py say: scores per method, paired differences, calls of lines, and all in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib import comparison
from lib.config import Evaluation
from lib.controls import GIVEN, SEEN, UNTOLD, Case
from lib.metrics.alignment import delta_d_per_type, match_rate
from lib.metrics.bootstrap import interval

TARGET = 0.70  # match that would be worth an aligner of its own, set before any was tried


def scores(case: Case, aligned: dict[str, np.ndarray], by: Evaluation) -> pd.DataFrame:
    """`comparison.alignment_scores` of every matrix: columns method, score, value, low, high, n, seed."""
    tables = [
        comparison.alignment_scores(X, case.data.X, case.data.obs, case.truth, by, case.seed).assign(method=method)
        for method, X in aligned.items()
    ]
    return pd.concat(tables).reset_index().assign(seed=case.seed)


def distances(case: Case, aligned: dict[str, np.ndarray], by: Evaluation) -> pd.DataFrame:
    """ΔD and its ratio to the distance within, per method and cancer type that has enough of both kinds."""
    kind = case.data.obs["sample_type"].to_numpy(dtype=str)
    tables = [
        delta_d_per_type(X, kind, case.types, by.min_per_kind)[["delta_d", "ratio"]].dropna().assign(method=method)
        for method, X in aligned.items()
    ]
    return pd.concat(tables).reset_index().assign(seed=case.seed)


def calls(case: Case, aligned: dict[str, np.ndarray], by: Evaluation, given: dict | None = None) -> pd.DataFrame:
    """The type that each line's nearest tumours have: one row per method and line.

    given: method -> types of all samples where the method was told others than the compendium's. Columns method, line,
    called, given (told to the method), labelled (by the compendium), true, seed.
    """
    lines, rows = case.is_line, []
    for method, X in aligned.items():
        called = match_rate(X[~lines], case.types[~lines], X[lines], case.types[lines], k=by.match_neighbours).predicted
        told = (given or {}).get(method, case.types)[lines]
        rows.append(
            pd.DataFrame({
                "method": method, "line": case.data.obs_names[lines], "called": np.asarray(called, dtype=str),
                "given": told, "labelled": case.types[lines], "true": case.true_types[lines], "seed": case.seed,
            })
        )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def agreement(called: pd.DataFrame, labels: list[str], by: Evaluation, seed: int) -> pd.DataFrame:
    """Share of lines called as each of the label columns says, per method, over the lines of all seeds.

    Columns method, label, value, low, high (95 % bootstrap over lines), n.
    """
    rows = []
    for (method, label), lines in (((m, lab), t) for m, t in called.groupby("method", sort=False) for lab in labels):
        same = (lines["called"] == lines[label]).to_numpy(float)
        estimate = interval(same, np.mean, by.bootstrap, seed)
        rows.append({"method": method, "label": label, **estimate._asdict()})
    return pd.DataFrame(rows)


def paired_matches(called: pd.DataFrame, against: str, by: Evaluation, seed: int) -> pd.DataFrame:
    """Difference of the match to `against`, paired by line: per method difference, _low, _high, n."""
    matched = called.assign(right=called["called"] == called["labelled"])
    wide = matched.pivot_table(index=["seed", "line"], columns="method", values="right", sort=False).astype(float)
    return _paired(wide, against, np.mean, by, seed)


def paired_distances(table: pd.DataFrame, against: str, by: Evaluation, seed: int) -> pd.DataFrame:
    """Median difference of ΔD to `against`, paired by cancer type and seed: per method difference, _low, _high, n."""
    wide = table.pivot_table(index=["seed", "cancer_type"], columns="method", values="delta_d", sort=False)
    return _paired(wide, against, np.median, by, seed)


def mislabelled(called: pd.DataFrame, by: Evaluation, seed: int) -> pd.DataFrame:
    """`agreement` with the given and the true type of the lines whose label is not their true type.

    Where no line is known to be mislabelled, one row says so.
    """
    wrong = called[called["labelled"] != called["true"]]
    if wrong.empty:
        return pd.DataFrame([{"method": "none: no line is known to be mislabelled", "label": "true", "value": np.nan,
                              "low": np.nan, "high": np.nan, "n": 0}])  # fmt: skip
    return agreement(wrong, ["labelled", "true"], by, seed)


def wide(scores: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """One row per method: each of the scores with its interval and n; means over the seeds where there are several."""
    mean = scores.groupby(["method", "score"], sort=False)[["value", "low", "high", "n"]].mean()
    rows = []
    for method in scores["method"].unique():
        row = {"method": method}
        for score in columns:
            value = mean.loc[(method, score)]
            row |= {score: value["value"], f"{score}_low": value["low"], f"{score}_high": value["high"]}
            row[f"{score}_n"] = round(value["n"])
        rows.append(row)
    return pd.DataFrame(rows)


def _paired(wide: pd.DataFrame, against: str, statistic, by: Evaluation, seed: int) -> pd.DataFrame:
    columns = ["method", "difference", "difference_low", "difference_high", "pairs"]
    rows = []
    for method in wide.columns if against in wide else []:
        if len(difference := (wide[method] - wide[against]).dropna()):
            rows.append([method, *interval(difference, statistic, by.bootstrap, seed)])
    return pd.DataFrame(rows, columns=columns)


# --- in words -----------------------------------------------------------------------------------------------


def order_in_words(table: pd.DataFrame, published: dict[str, float]) -> str:
    """The order of the methods by ΔD, against that of the published values."""
    ours = table.set_index("method")["delta_d"][list(published)].sort_values()
    if ours.isna().any():
        return "ΔD is not estimable here: no cancer type has enough samples of both kinds."
    papers = sorted(published, key=published.get)
    by_value = "; ".join(f"{method} {value:.2f}" for method, value in ours.items())
    verdict = "the same" if list(ours.index) == papers else "another"
    return f"By ΔD, smallest first: {by_value}. The paper's order is {', '.join(papers)}: {verdict}."


def ablations_in_words(table: pd.DataFrame) -> str:
    """For every ablation whether ΔD is worse than the full model's by the paired interval.

    Nothing is concluded where the full model, trained as long as the ablations, does not itself bring ΔD, in units of
    the distance within, below the input's.
    """
    said = []
    for _, row in table[~table["method"].isin(["RNAlign", "input"])].dropna(subset=["difference"]).iterrows():
        low, high = row["difference_low"], row["difference_high"]
        verdict = "worsens ΔD" if low > 0 else "improves ΔD" if high < 0 else "does not change ΔD beyond chance"
        numbers = f"{row['difference']:+.2f}, {low:+.2f} to {high:+.2f}, n = {int(row['pairs']):,}"
        said.append(f"{row['method']} {verdict} ({numbers})")
    if not said:
        return "No ablation can be compared with the full model by ΔD."
    words = "Paired with the full model over cancer types and seeds: " + "; ".join(said) + "."
    ratio = table.set_index("method")["delta_d_ratio"]
    if ratio["RNAlign"] >= ratio["input"]:
        words += (
            f" **Not interpretable:** trained this short, the full model itself does not align (ΔD ÷ distance within "
            f"{ratio['RNAlign']:.2f}, input {ratio['input']:.2f})."
        )
    return words


def leak_in_words(matches: pd.DataFrame, paired: pd.DataFrame) -> str:
    """Whether the gain of the published way is real: what is left of it when lines' types are withheld.

    matches: as by `agreement` of labels given and labelled; paired: `paired_matches` against the input. Judged by the
    models trained without the lines' types, where models trained as long with them do gain; else not at all.
    """
    share, gain = matches.set_index(["method", "label"])["value"], paired.set_index("method")
    published, retrained, blind = (gain.loc[m] for m in ("as published", "retrained", "trained with types withheld"))
    said = (
        f"As published, RNAlign matches {share['as published', 'labelled']:.0%} of the lines, the input "
        f"{share['input', 'labelled']:.0%} (n = {int(matches['n'].iloc[0]):,}): {_points(published)}. "
        f"Decoded under permuted types, {share['decoded under permuted types', 'given']:.0%} of the lines go to the "
        f"given type and {share['decoded under permuted types', 'labelled']:.0%} to their own; with types withheld, "
        f"{share['decoded with types withheld', 'labelled']:.0%} go to their own. Retrained, the gain over the input "
        f"is {_points(retrained)} with types given and {_points(blind)} with types withheld. "
    )
    if published["difference_low"] <= 0:
        return said + "**There is no gain beyond chance that the label could explain.**"
    if retrained["difference_low"] <= 0:
        return said + (
            "**Retraining cannot tell how much of the gain is the label's:** the models are trained too short to gain "
            "anything even with it. Decoding can only say how far the published model relies on the label."
        )
    if blind["difference_low"] <= 0:
        return said + "**The gain is label leakage: without the label nothing of it is left beyond chance.**"
    real = blind["difference"] / retrained["difference"]
    if real >= 1:
        return said + "**The gain is real: all of it is left without the label.**"
    return said + f"**The gain is part real: {1 - real:.0%} of it goes with the label.**"


def variants_in_words(matches: pd.DataFrame, told: list[str]) -> str:
    """The best of the methods that are not told a line's type, how far it is from `TARGET`, and how many there were."""
    rows = matches[(matches["label"] == "labelled") & ~matches["method"].isin(["input", *told])]
    best = rows.loc[rows["value"].idxmax()]
    untouched = matches.query("method == 'input' and label == 'labelled'")["value"].iloc[0]
    reached = (
        "reaches"
        if best["low"] >= TARGET
        else "is not distinguishable from"
        if best["high"] >= TARGET
        else "stays below"
    )
    return (
        f"Of {len(rows)} ways to align held-out lines without their type, the best is *{best['method']}*: match "
        f"{best['value']:.2f} ({best['low']:.2f} to {best['high']:.2f}, n = {best['n']:,}; input {untouched:.2f}). "
        f"It {reached} {TARGET:.2f}. (The best of several flatters itself, and the classifiers by ranks were kept of "
        f"some forty that had been looked at on the two small real sets.)"
    )


def seen_in_words(called: pd.DataFrame, by: Evaluation, seed: int) -> str:
    """What having been in the training is worth to a line, and what its label is worth."""
    seen, given, untold = (called[called["method"] == m] for m in (SEEN, GIVEN, UNTOLD))
    of_seeing = paired_matches(pd.concat([seen, given]), GIVEN, by, seed).set_index("method").loc[SEEN]
    of_label = paired_matches(pd.concat([given, untold]), UNTOLD, by, seed).set_index("method").loc[GIVEN]
    return (
        f"Having been in the training changes the match of a line by {_points(of_seeing)}; being given its type "
        f"changes the match of a held-out line by {_points(of_label)} (paired, n = {int(of_seeing['pairs']):,} lines)."
    )


def mislabelled_in_words(table: pd.DataFrame, methods: list[str]) -> str:
    """Where mislabelled lines go by some of the methods."""
    if table["n"].sum() == 0:
        return "No line is known to be mislabelled here."
    share = table.pivot_table(index="method", columns="label", values="value", sort=False)
    each = "; ".join(f"{m} {row['true']:.0%} and {row['labelled']:.0%}" for m, row in share.iterrows() if m in methods)
    return f"Mislabelled lines (n = {table['n'].max():,}) that go to their true and to their given type: {each}."


def truth_in_words(scores: pd.DataFrame, ours: str, others: list[str]) -> str:
    """Whether one method beats the others on the truth scores of lines, seed by seed."""
    if scores["value"][scores["score"] == "truth_lines"].isna().all():
        return "There is no truth to compare real data with."
    said = []
    for score, what in (("truth_lines", "over both kinds"), ("truth_among_lines", "among lines only")):
        value = scores[scores["score"] == score].pivot_table(index="seed", columns="method", values="value")
        wins = [
            f"{m} {value[m].mean():.2f} (beaten in {(value[ours] > value[m]).sum()} of {len(value)})" for m in others
        ]
        said.append(f"{what} {value[ours].mean():.2f}; {', '.join(wins)}")
    return (
        f"Correlation of held-out lines with their un-adapted selves, *{ours}* first, then the others and in how many "
        f"seeds it beats them: {'. '.join(said)}."
    )


def _points(row: pd.Series) -> str:
    """A paired difference of shares in percentage points, with its interval."""
    return "{:+.0f} points ({:+.0f} to {:+.0f})".format(
        *(100 * row[c] for c in ("difference", "difference_low", "difference_high"))
    )
