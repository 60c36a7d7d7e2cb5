"""Tables 1, 3 and 4 of paper A: how far batches are apart within cancer types or subtypes, by method.

The batch is always the sample type (tumour or cell line), within a group: a cancer type (Tables 1 and 4) or a subtype
(Table 3). A metric of a table is the median over the groups that allow it; low is good in the first four.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.claims import published
from lib.config import Evaluation
from lib.metrics.alignment import delta_d_per_type, kbet, pvca, within_type_variance_kept
from lib.metrics.bootstrap import SeedsEstimate, interval_over_seeds
from lib.metrics.inputs import all_identical
from lib.metrics.kbet import left_out
from lib.neighbours import match_readings

KINDS = {"tumour": "tumour", "line": "cell line"}  # name in a column: value of sample_type
METRICS = {
    "delta_d": "ΔD",
    "pvca": "PVCA",
    "kbet": "ΔkBET",
    "ratio": "ΔD ÷ distance within",
    "variance_kept": "variance within type and kind kept",
}
PAPER_METRICS = ("delta_d", "pvca", "kbet")
SUBTYPES = {  # the annotations that paper A's A.7 names
    "Breast": ("Basal", "HER2-enriched", "Luminal"),
    "Lung": ("LUAD", "LUSC", "SCLC", "LCC", "Other"),
}
MAPPED_SUBTYPES = {"Lung": ["LUAD", "LUSC"], "Breast": [*SUBTYPES["Breast"]]}  # figures 2d and 2e
LABEL_CHANGES = {  # paper A's Table 4: what the decoder is told; None keeps a sample's own
    "model & purity": {"sample_type": "cell line", "purity": 1.0},
    "purity only": {"sample_type": None, "purity": 1.0},
    "model only": {"sample_type": "cell line", "purity": None},
}
KBET_READINGS = {  # arguments of kbet that the paper leaves open
    "k0 by the heuristic": {},
    "the same without adapt": {"adapt": False},
    "k0 by the heuristic, whitened components": {"do_pca": True},
    "k0 = 10": {"k0": 10},
}
_CLAIM_METRIC = {"delta_d": "dd", "pvca": "pvca", "kbet": "kbet"}
_CLAIM_METHOD = {  # prefix of the claims' ids: method, as the claims call it
    "a-t1": {"input": "input", "linear projection": "linproj", "Celligner": "celligner", "RNAlign": "rnalign"},
    "a-t3": {"input": "input", "linear projection": "linear", "Celligner": "celligner", "RNAlign": "rnalign"},
    "a-t4": {"input": "input", "model & purity": "both", "purity only": "purity", "model only": "model"},
}


# --- the metrics of every group ------------------------------------------------------------------------------


def per_group(
    X: np.ndarray,
    reference: np.ndarray,
    sample_type: Sequence[str],
    groups: Sequence[str],
    min_per_kind: int,
    seed: int = 0,
    expected: Sequence[str] = (),
    **kbet_options,
) -> pd.DataFrame:
    """`METRICS` within every group of samples: one row per group, NaN where not estimable, with the `reason`.

    X, reference: samples × genes (aligned; input); sample_type, groups: a label per sample, samples whose group is ""
    are left out. Further columns: n_tumour, n_line. Groups with fewer than `min_per_kind` of a kind have no
    numbers, nor have `expected` ones without samples. kbet_options: arguments of `kbet`. variance_kept: within the
    kinds of a group, since the shift between them is what alignment is to remove.
    Raises ValueError for NaN and where there is one kind only.
    """
    groups, kind = np.asarray(groups, dtype=str), np.asarray(sample_type, dtype=str)
    named = groups != ""
    X, reference, kind, groups = X[named], reference[named], kind[named], groups[named]
    if not named.all() and len(np.unique(kind)) < 2:  # what has a group is of one kind, or nothing has
        return _of_one_kind(kind, groups, expected)
    table = delta_d_per_type(X, kind, groups, min_per_kind).rename(columns={"n_cell line": "n_line"})
    rows = [
        {"pvca": np.nan, "kbet": np.nan, "variance_kept": np.nan, "reason": row["skipped"]}
        if np.isnan(row["delta_d"])
        else _variances(
            X[groups == name], reference[groups == name], kind[groups == name], {"seed": seed, **kbet_options}
        )
        for name, row in table.iterrows()
    ]
    table = table.join(pd.DataFrame(rows, index=table.index))[["n_tumour", "n_line", *METRICS, "reason"]]
    absent = [name for name in expected if name not in table.index]
    none = {"n_tumour": 0, "n_line": 0, "reason": "no such samples"}
    table = pd.concat([table, pd.DataFrame([none] * len(absent), index=absent)]) if absent else table
    return table.rename_axis("group").reset_index()


def _of_one_kind(kind: np.ndarray, groups: np.ndarray, expected: Sequence[str]) -> pd.DataFrame:
    """The rows of `per_group` where no group can have both kinds."""
    names = [*np.unique(groups), *(name for name in expected if name not in groups)]
    counts = {f"n_{k}": [int((kind[groups == name] == value).sum()) for name in names] for k, value in KINDS.items()}
    reasons = ["one kind of sample only" if name in groups else "no such samples" for name in names]
    return pd.DataFrame({"group": names, **counts, **dict.fromkeys(METRICS, np.nan), "reason": reasons})


def _variances(X, reference, kind, kbet_options) -> dict[str, float | str]:
    """PVCA, ΔkBET and variance kept of one group, and why any of them is missing."""
    kept = within_type_variance_kept(X, reference, np.zeros(len(X)), kind).overall
    if all_identical(X):
        return {"pvca": np.nan, "kbet": np.nan, "variance_kept": kept, "reason": "only ΔD: all samples are identical"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        components = min(50, len(X) - 1)  # 50: the default of R; it needs fewer than samples
        mixing = kbet(X, kind, dim_pca=components, **kbet_options).delta
    reasons = [str(w.message).replace("kBET is NaN", "no ΔkBET") for w in caught if "kBET" in str(w.message)]
    try:
        share = pvca(X, pd.DataFrame({"sample_type": kind}))["sample_type"]
    except ValueError as error:
        share, reasons = np.nan, [*reasons, f"no PVCA: {error}"]
    return {"pvca": share, "kbet": mixing, "variance_kept": kept, "reason": "; ".join(reasons)}


def per_method(
    methods: dict[str, np.ndarray],
    reference: np.ndarray,
    sample_type: Sequence[str],
    groups: Sequence[str],
    min_per_kind: int,
    seed: int = 0,
    **options,
) -> pd.DataFrame:
    """`per_group` of several aligned matrices, below one another with columns method and seed; options: as there."""
    tables = [
        per_group(X, reference, sample_type, groups, min_per_kind, seed, **options).assign(method=method, seed=seed)
        for method, X in methods.items()
    ]
    return pd.concat(tables, ignore_index=True)


def kbet_readings(
    methods: dict[str, np.ndarray], sample_type: Sequence[str], groups: Sequence[str], min_per_kind: int, seed: int = 0
) -> pd.DataFrame:
    """ΔkBET of every method and group under each of `KBET_READINGS`: columns method, group and one per reading.

    Further columns: seed, n, and left_out, the samples that `adapt` leaves out of the frequencies under the first
    reading. Groups as in `per_group`; those with fewer than `min_per_kind` of a kind are absent, NaN where R gives NA.
    """
    groups, kind = np.asarray(groups, dtype=str), np.asarray(sample_type, dtype=str)
    rows = []
    for group in np.unique(groups[groups != ""]):
        own = groups == group
        if min((kind[own] == "tumour").sum(), (kind[own] == "cell line").sum()) < min_per_kind:
            continue
        for method, X in methods.items():
            counts = {"seed": seed, "n": own.sum(), "left_out": left_out(X[own], kind[own]).sum()}
            rows.append({"method": method, "group": group, **_kbet_by_reading(X[own], kind[own], seed), **counts})
    return pd.DataFrame(rows, columns=["method", "group", *KBET_READINGS, "seed", "n", "left_out"])


def _kbet_by_reading(X, kind, seed) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        components = min(50, len(X) - 1)
        readings = KBET_READINGS.items()
        return {name: kbet(X, kind, dim_pca=components, seed=seed, **options).delta for name, options in readings}


def left_out_by_adapt(readings: pd.DataFrame) -> dict[str, str]:
    """Per method "12 of 640": samples that `adapt` leaves out, over all groups and seeds of `kbet_readings`."""
    counts = readings.groupby("method", sort=False)[["left_out", "n"]].sum()
    return {method: f"{row.left_out:,} of {row.n:,}" for method, row in counts.iterrows()}


class Grouping(NamedTuple):
    """How samples are grouped for a table: a label each ("" = left out), the fewest of a kind, the groups to list."""

    groups: pd.Series
    fewest: int
    expected: tuple[str, ...]


def groupings(obs: pd.DataFrame, by: Evaluation) -> dict[str, Grouping]:
    """The groups of paper A's tables: cancer types (Table 1), and the subtypes of breast and lung (Table 3)."""
    subtypes = {
        f"{name} subtypes": Grouping(labelled_subtypes(obs, name), by.min_per_subtype, expected)
        for name, expected in SUBTYPES.items()
    }
    return {"cancer types": Grouping(obs["cancer_type"], by.min_per_kind, ())} | subtypes


def labelled_subtypes(obs: pd.DataFrame, cancer_type: str) -> pd.Series:
    """Subtype of the samples of a cancer type, "" for all others and for subtypes that paper A does not name."""
    given = obs["subtype"] if "subtype" in obs else pd.Series("", obs.index)
    subtype = given.astype(str).where(obs["cancer_type"] == cancer_type, "")
    return subtype.where(subtype.isin(SUBTYPES[cancer_type]), "")


# --- their medians -------------------------------------------------------------------------------------------


def medians(
    groups: pd.DataFrame, by: Evaluation, seed: int = 0, metrics: Sequence[str] = tuple(METRICS)
) -> pd.DataFrame:
    """Median of every metric over groups by method, with its 95 % interval: columns of `SeedsEstimate`.

    groups: of `per_method` or `kbet_readings`, of one or several seeds below one another; a group's value is its mean
    over the seeds that have one, and the interval is over seeds and groups (`interval_over_seeds`). n: groups per seed.
    Rows method × metric; NaN and n = 0 where no group has a number.
    """
    rows = []
    for method, own in groups.groupby("method", sort=False):
        for metric in metrics:
            known = own[own[metric].notna()]
            estimate = interval_over_seeds(known[metric], known["seed"], known["group"], np.median, by.bootstrap, seed)
            rows.append((method, metric, *estimate))
    return pd.DataFrame(rows, columns=["method", "metric", *SeedsEstimate._fields])


def matches(calls: pd.DataFrame, by: Evaluation, seed: int = 0) -> pd.DataFrame:
    """The match of every method among the rows of `medians`: share of all lines, n: lines per seed.

    calls: of `neighbours.calls_of_lines`, with the columns method and seed; other lines have other ids.
    """
    rows = [
        {"method": method, "metric": "match", **match_readings(own, by.bootstrap, seed).loc["match"]}
        for method, own in calls.groupby("method", sort=False)
    ]
    table = pd.DataFrame(rows, columns=["method", "metric", *SeedsEstimate._fields])
    return table.astype({"n": int, "seeds": int})


def printed(table: pd.DataFrame, metrics: dict[str, str], remarks: dict[str, str] | None = None) -> pd.DataFrame:
    """A long table of estimates as a reader wants it: a row per method, a column per metric, "value (low to high; n)".

    table: columns method, metric, value, low, high, n, and seeds, which a cell names where there are several; metrics:
    metric -> heading; remarks: method -> words.
    """
    cells = table.assign(cell=[_cell(row) for row in table.itertuples()])
    wide = cells.pivot(index="method", columns="metric", values="cell").reindex(cells["method"].unique())
    wide = wide.reindex(columns=list(metrics)).rename(columns=metrics).reset_index()
    wide.columns.name = None
    if remarks is not None:
        wide["remark"] = wide["method"].map(remarks).fillna("")
    return wide


def _cell(row) -> str | float:
    if np.isnan(row.value):
        return np.nan
    value, low, high = (f"{round(v, 2) + 0.0:.2f}" for v in (row.value, row.low, row.high))  # + 0: no "-0.00"
    seeds = getattr(row, "seeds", 1)
    return f"{value} ({low} to {high}; {row.n:,}{f', {seeds} seeds' if seeds > 1 else ''})"


def why_not(groups: pd.DataFrame) -> str:
    """Groups without all numbers and their reasons, in words; what holds for one method only names it."""
    lacking = groups[groups["reason"] != ""].drop_duplicates(["method", "group", "reason"])
    methods = lacking.groupby(["group", "reason"], sort=False)["method"].agg(list)
    every = groups["method"].nunique()
    by_reason: dict[str, list[str]] = {}
    for (group, reason), names in methods.items():
        whose = "" if len(names) == every else f" for {', '.join(names)}"
        by_reason.setdefault(f"{reason}{whose}", []).append(str(group))
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()) or "none"


# --- against the paper ---------------------------------------------------------------------------------------


def published_scores(prefix: str) -> dict[str, dict[str, float]]:
    """metric -> method -> value as paper A prints it; prefix: "a-t1", "a-t3-breast", "a-t3-lung" or "a-t4"."""
    methods = _CLAIM_METHOD[prefix[:4]]
    metrics = ("delta_d",) if prefix == "a-t4" else PAPER_METRICS
    return {
        metric: {method: published(f"{prefix}-{_CLAIM_METRIC[metric]}-{name}") for method, name in methods.items()}
        for metric in metrics
    }


def order(values: dict[str, float]) -> list[str]:
    """Methods from the best aligned (nearest 0) on; those without a number are left out."""
    return sorted((m for m, v in values.items() if not np.isnan(v)), key=lambda method: abs(values[method]))


def ranks_in_words(table: pd.DataFrame, prefix: str, ours: str = "RNAlign") -> list[str]:
    """For each metric of paper A the rank of `ours` and the order of the methods beside the paper's, a sentence each.

    table: of `medians`. Nearest 0 is best. Pairs that the paper prints as equal have no order.
    """
    said = []
    for metric, paper in published_scores(prefix).items():
        values = table[table["metric"] == metric].set_index("method")["value"].reindex(list(paper)).to_dict()
        found = order(values)
        if ours not in found or len(found) < 2:
            said.append(f"{METRICS[metric]}: not estimable here.")
            continue
        pairs = [(a, b) for a, b in combinations(found, 2) if paper[a] != paper[b]]  # a before b in our order
        agree = sum(paper[a] < paper[b] for a, b in pairs)
        ranked = ", ".join(f"{method} {values[method]:.2f}" for method in found)
        printed_as = ", ".join(f"{method} {paper[method]:.2f}" for method in order(paper))
        said.append(
            f"{METRICS[metric]}: {ours} is number {found.index(ours) + 1} of {len(found)} ({ranked}); in the paper "
            f"number {order(paper).index(ours) + 1} ({printed_as}). {agree} of {len(pairs)} pairs of methods are in "
            "the paper's order."
        )
    return said


def match_in_words(table: pd.DataFrame) -> str:
    """All methods by their match, the highest first, with interval and n; table: rows of `matches`."""
    known = table[(table["metric"] == "match") & table["value"].notna()].sort_values("value", ascending=False)
    if known.empty:
        return "Match: not estimable."
    said = [f"{row.method} {row.value:.0%} ({row.low:.0%} to {row.high:.0%})" for row in known.itertuples()]
    return f"Match, highest first (n = {known['n'].iloc[0]:,} lines per seed): {', '.join(said)}."


def with_reading(table: pd.DataFrame, readings: pd.DataFrame, metric: str) -> dict[str, dict[str, float]]:
    """One metric of the paper's methods with RNAlign's value under each reading: reading -> method -> value.

    Instead of the match, its shortfall, since `order` takes what is nearest 0 for the best.
    table: `medians` by method; readings: `medians` by reading, of RNAlign alone, or None where there are none.
    """
    if readings is None:
        return {}
    values = table[table["metric"] == metric].set_index("method")["value"]
    others = {name: values[name] for name in _CLAIM_METHOD["a-t1"] if name in values}
    own = readings[readings["metric"] == metric].set_index("method")["value"]
    found = {reading: others | {"RNAlign": value} for reading, value in own.items()}
    if metric == "match":
        return {reading: {method: 1 - value for method, value in v.items()} for reading, v in found.items()}
    return found


def by_reading(kbet: pd.DataFrame | None) -> dict[str, dict[str, float]]:
    """`medians` of `kbet_readings` as reading -> method -> value; empty for None, where no group could be measured."""
    if kbet is None:
        return {}
    return {name: own.set_index("method")["value"].to_dict() for name, own in kbet.groupby("metric", sort=False)}


def orders_in_words(readings: dict[str, dict[str, float]], what: str) -> str:
    """Whether the order of the methods is the same under every reading; readings: reading -> method -> value."""
    by_order = _by_order(readings)
    if len(by_order) == 1:
        return f"The order by {what} does not depend on it ({next(iter(by_order))})."
    return f"The order by {what} does: " + "; ".join(f"{' and '.join(r)}: {o}" for o, r in by_order.items()) + "."


def _by_order(readings: dict[str, dict[str, float]]) -> dict[str, list[str]]:
    """Order of the methods, in words -> the readings that give it."""
    by_order: dict[str, list[str]] = {}
    for reading, values in readings.items():
        by_order.setdefault(", ".join(order(values)) or "not estimable", []).append(reading)
    return by_order


def dependence_in_words(tables: dict[str, dict[str, dict[str, float]]], choice: str) -> str:
    """Which orders of the methods depend on a choice; tables: an order's name -> reading -> method -> value.

    A reading under which some method has no value gives no order, and is named.
    """
    same, differ, none = [], [], []
    for name, readings in tables.items():
        whole = {reading: v for reading, v in readings.items() if v and not np.isnan(list(v.values())).any()}
        orders = "; ".join(f"{', '.join(r)}: {o}" for o, r in _by_order(whole).items())
        if lacking := [reading for reading in readings if reading not in whole]:
            orders += f"; not estimable: {', '.join(lacking)}"
        if len(whole) < 2:
            none.append(name)
        else:
            (same if len(_by_order(whole)) == 1 else differ).append((name, orders))
    said = [f"{choice}: of {len(tables)} orders of the methods {len(differ)} depend on it."]
    if same:
        said.append(f"Not {', '.join(name for name, _ in same)}.")
    said += [f"{name} does ({orders})." for name, orders in differ]
    if none:
        said.append(f"Not estimable under two readings or more: {', '.join(none)}.")
    return " ".join(said)


def kbet_of_input_in_words(kbet: dict[str, pd.DataFrame]) -> str:
    """ΔkBET of the unaligned input under every reading beside the paper's; kbet: groups -> `medians` by reading."""
    said = []
    for groups, table in kbet.items():
        own = table[(table["method"] == "input") & table["value"].notna()]
        values = ", ".join(f"{row.value:.2f} ({row.metric}, n = {row.n})" for row in own.itertuples())
        said.append(f"{groups}: {values or 'not estimable'}")
    of = (published_scores(prefix)["kbet"]["input"] for prefix in ("a-t1", "a-t3-breast", "a-t3-lung"))
    paper = ", ".join(f"{value:.2f}" for value in of)
    found = "; ".join(said) or "not estimable"
    return f"ΔkBET of the unaligned input, {found}. The paper prints {paper} for the three."


# --- what the paper leaves open about decoding ---------------------------------------------------------------


def decodings(model, adata) -> dict[str, np.ndarray]:
    """RNAlign's aligned matrix under every reading of section 4.1: samples × genes by what was done.

    model: fitted RNAlign; adata: its z-scored input. The readings: lines decoded like tumours, or left as they came
    (Fig 1 against the text); purity 1 on the scale of training, or not multiplied.
    """
    decoded = model.transform(adata)
    is_line = (adata.obs["sample_type"] == "cell line").to_numpy()
    readings = {"lines decoded": decoded, "lines left as input": np.where(is_line[:, None], adata.X, decoded)}
    if model.purity_multiplier > 1:  # 1 / multiplier is fed to the decoder as 1
        readings["purity 1 not multiplied"] = model.transform(adata, purity=1 / model.purity_multiplier)
    return readings


def label_changes(model, adata, lines_decoded: bool = True) -> dict[str, np.ndarray]:
    """The rows of paper A's Table 4: the input, and RNAlign's decoding under each of `LABEL_CHANGES`."""
    is_line = (adata.obs["sample_type"] == "cell line").to_numpy() & (not lines_decoded)
    decoded = {name: model.transform(adata, **labels) for name, labels in LABEL_CHANGES.items()}
    return {"input": adata.X} | {name: np.where(is_line[:, None], adata.X, X) for name, X in decoded.items()}
