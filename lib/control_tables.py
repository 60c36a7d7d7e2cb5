"""What the controls of lib/controls.py say: scores per method, paired differences, calls of lines, and all in words.

Everything is first measured per line, tumour or cancer type and seed; intervals are over these and over the seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.config import Evaluation
from lib.controls import GIVEN, SEEN, UNTOLD, ByFold, Case, parts
from lib.metrics.alignment import delta_d_per_type, truth_scores, within_type_variance_kept
from lib.metrics.bootstrap import SeedsEstimate, interval_over_seeds, share_over_seeds
from lib.neighbours import calls_of_lines

TARGET = 0.70  # match that would be worth an aligner of its own, set before any was tried
FEWEST_TYPES = 5  # fewer differ in the same direction by chance in more than one of ten comparisons
CALLS = ["method", "line", "called", "given", "labelled", "true", "seed"]
DIFFERENCE = ["difference", "difference_low", "difference_high", "pairs", "seeds", "smallest_seed", "largest_seed"]


# --- per unit -----------------------------------------------------------------------------------------------


def calls(
    case: Case, aligned: dict[str, np.ndarray | ByFold], by: Evaluation, told: dict | None = None
) -> pd.DataFrame:
    """The type that each line's nearest tumours have: one row per method and line.

    told: method -> types of all samples as the method was told them. Columns method, line, called, given (told to the
    method; "" where none was), labelled (by the compendium), true, seed. No rows with fewer tumours than neighbours.
    """
    tables = []
    for method, matrix in aligned.items():
        given = (told or {}).get(method, np.full(len(case.types), ""))
        for rows, X in parts(matrix):
            called = calls_of_lines(X, case.data.obs.iloc[rows], by.match_neighbours)["called"].to_numpy()
            of = rows[case.is_line[rows]][: len(called)]  # none where there are too few tumours to call
            values = method, case.names[of], called, given[of], case.types[of], case.true_types[of], case.seed
            tables.append(pd.DataFrame(dict(zip(CALLS, values, strict=True))))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=CALLS)


def measured(case: Case, aligned: dict[str, np.ndarray | ByFold], by: Evaluation) -> pd.DataFrame:
    """All scores of every matrix per line, tumour or cancer type: columns method, score, unit, value, seed.

    Scores as in `comparison.SCORES`: match (lines), delta_d, delta_d_ratio and variance_kept (types), truth_tumours,
    truth_lines, truth_among_lines. Where several models aligned the lines, distances and variances are within the
    samples of each.
    """
    called = calls(case, aligned, by)
    match = called.assign(unit=called["line"], score="match", value=called["called"] == called["labelled"])
    tables = [match[["method", "score", "unit", "value"]].astype({"value": float})]
    for method, matrix in aligned.items():
        scores = pd.concat([_distances(case, matrix, by), _variance_kept(case, matrix), *_truth(case, matrix)])
        tables.append(scores.rename_axis("unit").reset_index().assign(method=method))
    return pd.concat(tables, ignore_index=True).assign(seed=case.seed)


def _distances(case: Case, matrix: np.ndarray | ByFold, by: Evaluation) -> pd.DataFrame:
    """ΔD and its ratio to the distance within per cancer type, the mean over the models with two of its lines."""
    kind = case.data.obs["sample_type"].to_numpy(dtype=str)
    counts = pd.crosstab(case.types, kind)
    enough = counts.index[(counts >= by.min_per_kind).all(axis=1) & (counts.shape[1] > 1)]
    kept = np.isin(case.types, enough)
    tables = [pd.DataFrame(columns=["delta_d", "ratio"], dtype=float)]
    for rows, X in parts(matrix):
        use = kept[rows]
        if len(set(kind[rows][use])) > 1:
            tables.append(delta_d_per_type(X[use], kind[rows][use], case.types[rows][use], 2)[["delta_d", "ratio"]])
    means = pd.concat(tables).groupby(level=0).mean()
    return _long(means.rename(columns={"ratio": "delta_d_ratio"}))


def _variance_kept(case: Case, matrix: np.ndarray | ByFold) -> pd.DataFrame:
    """Share of the variance within the kinds of a type, and within each model, that is kept."""
    rows, X = zip(*parts(matrix), strict=True)
    part = np.repeat(np.arange(len(rows)), [len(r) for r in rows]).astype(str)
    rows, X = np.concatenate(rows), np.concatenate(X)
    cell = np.char.add(part, case.data.obs["sample_type"].to_numpy(dtype=str)[rows])
    kept = within_type_variance_kept(X, np.asarray(case.data.X)[rows], case.types[rows], cell).per_type
    return _long(kept.to_frame("variance_kept"))


def _truth(case: Case, matrix: np.ndarray | ByFold) -> list[pd.DataFrame]:
    """Correlation of every sample with its truth; nothing on real data. Tumours of several models: their mean."""
    if case.truth is None:
        return []
    X, lines = matrix.X if isinstance(matrix, ByFold) else matrix, case.is_line
    both, among = truth_scores(X, case.truth).per_sample, truth_scores(X[lines], case.truth[lines]).per_sample
    values = {"truth_tumours": both[~lines], "truth_lines": both[lines], "truth_among_lines": among}
    names = {"truth_tumours": case.names[~lines]}
    return [_long(pd.DataFrame({s: v}, index=names.get(s, case.names[lines]))) for s, v in values.items()]


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of a table below one another: columns score, value; the index is kept, NaN are not."""
    return table.melt(var_name="score", ignore_index=False).dropna(subset="value")


# --- tables -------------------------------------------------------------------------------------------------


def agreement(
    called: pd.DataFrame, labels: list[str], by: Evaluation, seed: int, against: str = "input"
) -> pd.DataFrame:
    """Share of lines called as each of the label columns says, and its difference to another method's.

    Columns method, label, value, low, high, n (lines per seed), seeds, and those of `DIFFERENCE`: the other method is
    judged by the same label of the same line. Methods that were told no type have no row of the label "given".
    """
    other = called[called["method"] == against].set_index(["seed", "line"])["called"]
    rows = []
    for method, lines in called.groupby("method", sort=False):
        reference = other.reindex(pd.MultiIndex.from_frame(lines[["seed", "line"]])).to_numpy()
        for label in labels:
            told = (lines[label] != "").to_numpy()
            if not told.any():
                continue
            right = (lines["called"] == lines[label]).to_numpy()[told]
            where = lines["seed"][told], lines["line"][told]
            share = share_over_seeds(right, *where, by.bootstrap, seed)
            gain = right.astype(float) - (reference == lines[label].to_numpy())[told]
            difference = _difference(gain, *where, np.mean, by, seed) if len(other) else {}
            rows.append({"method": method, "label": label, **share._asdict(), **difference})
    return pd.DataFrame(rows, columns=["method", "label", *SeedsEstimate._fields, *DIFFERENCE[:4], *DIFFERENCE[5:]])


def paired(values: pd.DataFrame, score: str, against: str, statistic, by: Evaluation, seed: int) -> pd.DataFrame:
    """Difference of a score to one method's, paired by unit and seed: columns method and `DIFFERENCE`."""
    wide = values[values["score"] == score].pivot(index=["seed", "unit"], columns="method", values="value")
    rows = []
    for method in values["method"].unique() if against in wide else []:
        if method not in wide:
            continue
        gain = (wide[method] - wide[against]).dropna()
        where = (gain.index.get_level_values(level) for level in ("seed", "unit"))
        if len(gain):
            rows.append({"method": method, **_difference(gain.to_numpy(), *where, statistic, by, seed)})
    return pd.DataFrame(rows, columns=["method", *DIFFERENCE])


def _difference(gain: np.ndarray, seeds, units, statistic, by: Evaluation, seed: int) -> dict:
    """A paired difference over units and seeds, and those of the single seeds between which it lies."""
    over = interval_over_seeds(gain, seeds, units, statistic, by.bootstrap, seed)
    each = pd.Series(gain).groupby(np.asarray(seeds)).agg(lambda values: statistic(values.to_numpy(), axis=0))
    return dict(zip(DIFFERENCE, (*over, each.min(), each.max()), strict=True))


def mislabelled(called: pd.DataFrame, by: Evaluation, seed: int) -> pd.DataFrame:
    """`agreement` with the given and the true type of the lines whose label is not their true type.

    Where no line is known to be mislabelled, one row says so.
    """
    wrong = called[called["labelled"] != called["true"]]
    if wrong.empty:
        return pd.DataFrame([{"method": "not estimable: no line is known to be mislabelled", "n": 0}])
    return agreement(wrong, ["labelled", "true"], by, seed).iloc[:, : 2 + len(SeedsEstimate._fields)]


def estimates(values: pd.DataFrame, scores: list[str], by: Evaluation, seed: int) -> pd.DataFrame:
    """Every score of every method over the seeds: columns method, score, value, low, high, n, seeds.

    values: of `measured`. Shares for match, medians for the others; NaN and n = 0 where nothing was measured.
    """
    rows = []
    for method in values["method"].unique():
        for score in scores:
            own = values[(values["method"] == method) & (values["score"] == score)]
            where = own["value"], own["seed"], own["unit"]
            if score == "match":
                over = share_over_seeds(*where, by.bootstrap, seed)
            else:
                over = interval_over_seeds(*where, np.median, by.bootstrap, seed)
            rows.append({"method": method, "score": score, **over._asdict()})
    return pd.DataFrame(rows)


def wide(estimated: pd.DataFrame) -> pd.DataFrame:
    """`estimates` as one row per method: each score with its interval and n, and the seeds behind them."""
    table = {"seeds": estimated.groupby("method", sort=False)["seeds"].max()}
    for score, own in estimated.set_index("method").groupby("score", sort=False):
        names = {"value": score} | {column: f"{score}_{column}" for column in ("low", "high", "n")}
        table |= own[list(names)].rename(columns=names).to_dict("series")
    table = pd.DataFrame(table).reset_index()
    return table[[c for c in table if c != "seeds"] + ["seeds"]]


def together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """`calls` or `measured` of several seeds below one another; of none, an empty one."""
    columns = [*CALLS, "score", "unit", "value"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def or_reason(table: pd.DataFrame, reason: str) -> pd.DataFrame:
    """The table, or where it is empty a row that says why."""
    return table if len(table) else pd.DataFrame([{"method": f"not estimable: {reason}", "n": 0}])


# --- in words -----------------------------------------------------------------------------------------------


def order_in_words(table: pd.DataFrame, published: dict[str, float]) -> str:
    """The order of the methods by ΔD, against that of the published values."""
    ours = table.set_index("method")["delta_d"].reindex(list(published)).sort_values()
    if ours.isna().any():
        return "ΔD is not estimable here: no cancer type has enough samples of both kinds."
    papers = sorted(published, key=published.get)
    by_value = "; ".join(f"{method} {value:.2f}" for method, value in ours.items())
    verdict = "the same" if list(ours.index) == papers else "another"
    return f"By ΔD, smallest first: {by_value}. The paper's order is {', '.join(papers)}: {verdict}."


def ablations_in_words(table: pd.DataFrame) -> str:
    """For every ablation whether ΔD is worse than the full model's by the paired interval over types and seeds.

    table: `wide` beside `paired` of ΔD, and of its ratio to the distance within with the prefix "ratio_": a model that
    shrinks everything shrinks ΔD but not the ratio. Nothing is concluded where the full model does not itself bring
    the ratio below the input's.
    """
    rows = table[~table["method"].isin(["RNAlign", "input"])].dropna(subset=["difference"])
    if rows.empty:
        return "No ablation can be compared with the full model by ΔD."
    words = "Paired with the full model, over cancer types and seeds:"
    for prefix, what in (("", "ΔD"), ("ratio_", "ΔD ÷ distance within")):
        of = rows[["method", "seeds", *(prefix + c for c in DIFFERENCE if c != "seeds")]]
        of = of.rename(columns=lambda c, p=prefix: c.removeprefix(p)).dropna(subset=["difference"])
        each = (f"{row['method']} {_verdict(row)} ({_with_spread(row)})" for _, row in of.iterrows())
        words += f" {what}: {'; '.join(each)}."
    if rows["seeds"].max() == 1:
        words += " With one seed, the noise of training is not in these intervals: a small difference may be that."
    full, untouched = (table.set_index("method").loc[method] for method in ("RNAlign", "input"))
    words += f" The full model keeps {full['variance_kept']:.2g} of the variance within types (1: all)"
    words += ": nearly a *collapse*, where ΔD says little." if full["variance_kept"] < 0.1 else "."
    if full["delta_d_ratio"] >= untouched["delta_d_ratio"]:
        words += (
            f" **Not interpretable:** the full model itself does not align here (ΔD ÷ distance within "
            f"{full['delta_d_ratio']:.2f}, input {untouched['delta_d_ratio']:.2f})."
        )
    return words


def _verdict(row: pd.Series) -> str:
    if row["pairs"] < FEWEST_TYPES:
        return "can't be judged by so few types"
    if row["difference_low"] > 0:
        return "worsens it"
    return "improves it" if row["difference_high"] < 0 else "does not, beyond chance, change it"


def _with_spread(row: pd.Series) -> str:
    """A difference with its interval, n, and the range over seeds where there are several."""
    low, high, n = row["difference_low"], row["difference_high"], int(row["pairs"])
    words = f"{row['difference']:+.2g}, {low:+.2g} to {high:+.2g}, n = {n:,} types"
    if row["seeds"] == 1:
        return words
    return f"{words}; single seeds {row['smallest_seed']:+.2g} to {row['largest_seed']:+.2g}"


def leak_in_words(matches: pd.DataFrame) -> str:
    """Whether the gain of the published way is real: what is left of it when training withholds the lines' types.

    matches: `agreement` of the labels given and labelled, against the input.
    """
    rows = matches.set_index(["method", "label"])
    share, gain = rows["value"], rows.xs("labelled", level="label")
    published, blind = gain.loc["as published"], gain.loc["trained with types withheld"]
    return (
        f"{_leak_verdict(published, blind)} "
        f"As published, RNAlign matches {share['as published', 'labelled']:.0%} of the lines to their label, the input "
        f"{share['input', 'labelled']:.0%} ({_counted(published)}): {_points(published)}. Trained the same way with "
        f"the lines' types withheld, the gain is {_points(blind)}; trained with permuted types, "
        f"{_points(gain.loc['trained with permuted types'])}. The published model told a wrong type puts "
        f"{share['decoded under permuted types', 'given']:.0%} of the lines among tumours of that wrong type and "
        f"{share['decoded under permuted types', 'labelled']:.0%} among those of their own; not told any, it puts "
        f"{share['decoded with types withheld', 'labelled']:.0%} among their own."
    )


def _leak_verdict(published: pd.Series, blind: pd.Series) -> str:
    if published["difference_low"] <= 0:
        return "**There is no gain beyond chance that the label could explain.**"
    if blind["difference_low"] <= 0:
        return "**The gain is label leakage: without the label nothing of it is left beyond chance.**"
    real = blind["difference"] / published["difference"]
    if real >= 1:
        return "**The gain is real: all of it is left without the label.**"
    return f"**The gain is part real, part label leakage: {1 - real:.0%} of it goes with the label.**"


def variants_in_words(matches: pd.DataFrame, told: list[str]) -> str:
    """The best of the methods that are not told a line's type, how far it is from `TARGET`, and how many there were.

    Where it gains beyond chance, that is said beside the verdict of `leak_in_words`, which is on the published way.
    """
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
    kept = "So lines can gain without their label, if not in the published way. " if best["difference_low"] > 0 else ""
    return (
        f"Of {len(rows)} ways to align held-out lines without their type, the best is *{best['method']}*: match "
        f"{best['value']:.2f} ({best['low']:.2f} to {best['high']:.2f}; {_counted(best)}), against the input's "
        f"{untouched:.2f}: {_points(best)}. It {reached} {TARGET:.2f}. {kept}(The best of several flatters itself, "
        f"and the classifiers by ranks were kept of some forty that had been looked at on the two small real sets.)"
    )


def seen_in_words(called: pd.DataFrame, by: Evaluation, seed: int) -> str:
    """What having been in the training is worth to a line, and what its label is worth."""
    lines = called[called["method"].isin([SEEN, GIVEN, UNTOLD])]
    of_seeing, of_label = (
        agreement(lines, ["labelled"], by, seed, against).set_index("method").loc[method]
        for method, against in ((SEEN, GIVEN), (GIVEN, UNTOLD))
    )
    return (
        f"Having been in the training changes the match of a line by {_points(of_seeing)}; being given its type "
        f"changes the match of a held-out line by {_points(of_label)} (paired; {_counted(of_seeing)})."
    )


def mislabelled_in_words(table: pd.DataFrame, methods: list[str]) -> str:
    """Where mislabelled lines go by some of the methods."""
    if table["n"].sum() == 0:
        return "No line is known to be mislabelled here."
    share = table.pivot_table(index="method", columns="label", values="value", sort=False)
    each = "; ".join(f"{m} {row['true']:.0%} and {row['labelled']:.0%}" for m, row in share.iterrows() if m in methods)
    return f"Mislabelled lines ({_counted(table.iloc[0])}) that go to their true and to their given type: {each}."


def truth_in_words(values: pd.DataFrame, ours: str, others: list[str], by: Evaluation, seed: int) -> str:
    """Whether one method beats the others on the truth scores of lines, paired by line over all seeds."""
    if not (values["score"] == "truth_lines").any():
        return "There is no truth to compare real data with."
    said = []
    for score, what in (("truth_lines", "over both kinds"), ("truth_among_lines", "among lines only")):
        medians = estimates(values, [score], by, seed).set_index("method")["value"]
        against = [paired(values, score, other, np.mean, by, seed).set_index("method").loc[ours] for other in others]
        each = [f"{m} {medians[m]:.2f} ({_beaten(row)})" for m, row in zip(others, against, strict=True)]
        said.append(f"{what} {medians[ours]:.2f} against {', '.join(each)}")
    return (
        f"Correlation of held-out lines with their un-adapted selves, *{ours}*: {'; '.join(said)}. "
        f"(Medians; in brackets the mean difference, paired by line.)"
    )


def _beaten(row: pd.Series) -> str:
    verdict = "beaten" if row["difference_low"] > 0 else "not beaten"
    return f"{verdict}: {row['difference']:+.2f}, {row['difference_low']:+.2f} to {row['difference_high']:+.2f}"


def _points(row: pd.Series) -> str:
    """A paired difference of shares in percentage points, with its interval."""
    return "{:+.0f} points ({:+.0f} to {:+.0f})".format(
        *(100 * row[c] for c in ("difference", "difference_low", "difference_high"))
    )


def _counted(row: pd.Series) -> str:
    return f"n = {int(row['n']):,} lines" + (f" in each of {int(row['seeds'])} seeds" if row["seeds"] > 1 else "")
