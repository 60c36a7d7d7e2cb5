"""Methods side by side: alignment scores of paper A, and the calls of an unseen cohort, with intervals and n."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lib.config import Evaluation
from lib.metrics.alignment import delta_d_per_type, truth_scores, within_type_variance_kept
from lib.metrics.bootstrap import Estimate, interval, share
from lib.neighbours import calls_of_lines, match_readings

SCORES = {
    "match": "lines whose nearest tumours are of their type (share)",
    "match_types": "the same, median over cancer types",
    "delta_d": "ΔD, median over cancer types",
    "delta_d_ratio": "ΔD ÷ median distance within, median over types",
    "variance_kept": "share of the variance within types and kinds that is kept",
    "truth_tumours": "correlation with the pure tumour programme, median",
    "truth_lines": "correlation with the un-adapted line, median",
    "truth_among_tumours": "the same among tumours only: a shift common to all of them does not count",
    "truth_among_lines": "the same among lines only",
}
TRUTH = {"truth_tumours": "tumours", "truth_lines": "lines"}


def alignment_scores(
    X: np.ndarray,
    reference: np.ndarray,
    obs: pd.DataFrame,
    truth: np.ndarray | None,
    by: Evaluation,
    seed: int,
) -> pd.DataFrame:
    """Scores of one aligned matrix: rows `SCORES`, columns value, low, high, n; NaN where there is no truth.

    X, reference: samples × genes (aligned; input); obs: sample_type, cancer_type; truth: samples × genes, the
    programme without infiltrate or culture, or None. Paper A, sections 4.1 and A.3; the rows below ΔD are ours.
    A score that these samples do not allow (too few tumours for a match, no type with enough of both kinds) is NaN.
    """
    kind, types = (obs[column].to_numpy(dtype=str) for column in ("sample_type", "cancer_type"))
    distances = delta_d_per_type(X, kind, types, by.min_per_kind)
    calls = calls_of_lines(X, obs, by.match_neighbours).assign(seed=seed)
    match = match_readings(calls, by.bootstrap, seed)[list(Estimate._fields)]

    def over_types(values: pd.Series) -> Estimate:
        values = values.dropna()
        return interval(values, np.median, by.bootstrap, seed) if len(values) else _not_estimable()

    rows = {score: Estimate(*match.loc[score]) for score in match.index} | {
        "delta_d": over_types(distances["delta_d"]),
        "delta_d_ratio": over_types(distances["ratio"]),
        "variance_kept": over_types(_variance_kept(X, reference, types, kind)),
    }
    rows |= {score: _not_estimable() for score in SCORES if score.startswith("truth")}
    if truth is not None:
        # over both kinds together, a shift between them that is left counts as an error; within one kind it does not
        summary = truth_scores(X, truth, kind, by.bootstrap, seed).summary
        for row, value in (("tumours", "tumour"), ("lines", "cell line")):
            among = truth_scores(X[kind == value], truth[kind == value], None, by.bootstrap, seed).summary
            rows[f"truth_{row}"] = _summarised(summary, value)
            rows[f"truth_among_{row}"] = _summarised(among, "all")
    table = pd.DataFrame(rows, index=Estimate._fields).T.loc[list(SCORES)].rename_axis("score")
    return table.astype({"n": int})


def _variance_kept(X, reference, types, kind) -> pd.Series:
    """`within_type_variance_kept` per type; empty where every type has a single sample of a kind."""
    if pd.Series(types).groupby([types, kind]).size().max() < 2:
        return pd.Series(dtype=float)
    return within_type_variance_kept(X, reference, types, kind).per_type


def _summarised(summary: pd.DataFrame, group: str) -> Estimate:
    """A row of the truth scores; none where all samples of a group are alike, as a collapse makes them."""
    return Estimate(*summary.loc[group]) if group in summary.index else _not_estimable()


def _not_estimable() -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, 0)


def alignment_in_words(scores: pd.DataFrame) -> str:
    """What the alignment scores say, as one paragraph: gains, and whether the method is a collapse."""
    mean = scores.groupby(["method", "score"])["value"].mean().unstack()
    n = scores[scores["method"] == "RNAlign"].drop_duplicates("score").set_index("score")["n"].astype(int)
    ours, none, collapse = mean.loc["RNAlign"], mean.loc["input"], mean.loc["type mean"]
    seeds = scores["seed"].nunique() if "seed" in scores else 1
    each = f" per seed, means of {seeds} seeds" if seeds > 1 else ""
    said = [
        f"RNAlign's match is {_share(ours['match'])} against {_share(none['match'])} for the input (n = "
        f"{n['match']:,} lines{each}), and its ΔD {_number(ours['delta_d'])} against {_number(none['delta_d'])} (n = "
        f"{n['delta_d']} types).",
        f"Of the variance within type and kind it keeps {_share(ours['variance_kept'])}: distances shrink with it, so "
        f"ΔD is also given in units of the distance within ({_number(ours['delta_d_ratio'])} against "
        f"{_number(none['delta_d_ratio'])}).",
    ]
    if np.isnan([ours["truth_tumours"], ours["truth_lines"]]).any():
        if scores.loc[scores["score"].isin(TRUTH), "value"].notna().any():  # there is a truth, and no score of it
            return " ".join([*said, "What the truth says of RNAlign is not estimable: all its samples are alike."])
        return " ".join([*said, _kept_in_words(ours["variance_kept"]), "There is no truth to compare real data with."])
    ranges = scores.groupby(["method", "score"])[["low", "high"]].mean()
    for score, what in (("truth_tumours", "aligned tumours"), ("truth_lines", "aligned lines")):
        better = _compared(ranges.loc[("RNAlign", score)], ranges.loc[("input", score)])
        said.append(
            f"The {what} are {better} the truth than the input is ({ours[score]:.2f} against {none[score]:.2f})."
        )
    said.append(
        f"Among lines only, where a shift common to all of them does not count, the correlation is "
        f"{ours['truth_among_lines']:.2f} against {none['truth_among_lines']:.2f}: " + _what_is_lost(ours, none)
    )
    low = scores[scores["method"] == "RNAlign"].groupby("score")["low"].mean()
    beaten = all(low[score] > np.nan_to_num(collapse[score]) for score in ("truth_tumours", "truth_lines"))
    verdict = "beats it on both." if beaten else "does not beat it on both, so by this measure it is *collapsed*."
    said.append(
        f"The mean of the given type scores {_number(collapse['truth_tumours'])} and "
        f"{_number(collapse['truth_lines'])}: "
        f"RNAlign {verdict}"
    )
    return " ".join(said)


def collapsed_in_words(scores: pd.DataFrame) -> str:
    """The methods that do not beat `type mean` on both truth scores, and how much variance each keeps.

    scores: rows of `alignment_scores` with columns method and seed. A method beats it when the interval of its score
    lies above type mean's score, on the means of the seeds, for tumours and for lines.
    """
    mean = scores.groupby(["method", "score"], sort=False)[["value", "low"]].mean().unstack()
    if mean["value"]["truth_tumours"].isna().all():
        return "Without a truth no method can be called collapsed or not; the variance that it keeps is all there is."
    rivals = [method for method in scores["method"].unique() if method not in ("input", "type mean")]
    bars = mean["value"].loc["type mean"]
    lost = {m: [w for s, w in TRUTH.items() if not mean["low"].loc[m, s] > np.nan_to_num(bars[s])] for m in rivals}
    said = [
        f"{method} ({' and '.join(what)}; keeps {_share(mean['value'].loc[method, 'variance_kept'])} of the variance)"
        for method, what in lost.items()
        if what
    ]
    better = [method for method, what in lost.items() if not what]
    return (
        f"*Collapsed*, since not above the mean of the given type on every truth score: {', '.join(said) or 'none'}. "
        f"Above it for tumours and for lines: {', '.join(better) or 'none'}."
    )


def _share(value: float) -> str:
    return "not estimable" if np.isnan(value) else f"{value:.0%}"


def _number(value: float) -> str:
    return "not estimable" if np.isnan(value) else f"{value:.2f}"


def _compared(ours: pd.Series, others: pd.Series) -> str:
    if ours["low"] > others["high"]:
        return "more like"
    return "less like" if ours["high"] < others["low"] else "not distinguishably more or less like"


def _kept_in_words(share: float) -> str:
    if share < 0.1:
        return (
            "With so little left of what tells samples of one type apart, match and ΔD are those of a near *collapse*."
        )
    return "How much of what is gone was unwanted, these scores cannot say."


def _what_is_lost(ours: pd.Series, none: pd.Series) -> str:
    """Which of two errors the aligned lines carry: a shift that is left, or differences that are gone."""
    shift = ours["truth_among_lines"] - ours["truth_lines"]
    gone = none["truth_among_lines"] - ours["truth_among_lines"]
    if max(shift, abs(gone)) < 0.05:
        return "no shift is left, but what tells lines apart is hardly nearer to the truth than before."
    if gone <= -0.05 and shift < 0.05:
        return "no shift is left, and what tells lines apart is nearer to the truth than before."
    if shift > gone:
        return "what is wrong with the aligned lines is mostly the shift between the kinds that is left."
    return "what is wrong with the aligned lines is mostly that differences between them are gone."


def cohort_calls(cohort: pd.DataFrame, expected: dict[str, list[str]], known: set[str]) -> pd.DataFrame:
    """Per group of an unseen cohort: n, share called one of its expected tissues (Wilson), and the commonest calls.

    cohort: columns `group`, `predicted`; expected: group -> tissues decided on beforehand; known: tissues that can be
    called. A group none of whose expected tissues is known has no share: it could only be wrong.
    """
    rows = []
    for group, calls in cohort.astype(str).groupby("group")["predicted"]:
        tissues = [tissue for tissue in expected.get(group, []) if tissue in known]
        absent = [tissue for tissue in expected.get(group, []) if tissue not in known]
        common = calls.value_counts().head(3)
        found = share(calls.isin(tissues)) if tissues else Estimate(np.nan, np.nan, np.nan, 0)
        rows.append({
            "group": group,
            "n": len(calls),
            "expected": ", ".join([*tissues, *(f"{tissue} (can't be called)" for tissue in absent)]) or "none",
            "called_as_expected": found.value, "low": found.low, "high": found.high,
            "commonest_calls": "; ".join(f"{tissue} {n}" for tissue, n in common.items()),
        })  # fmt: skip
    return pd.DataFrame(rows)
