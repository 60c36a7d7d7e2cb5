"""Tables 1, 3 and 4 of paper A: how far batches are apart within cancer types or subtypes, by method.

The batch is always the sample type (tumour or cell line), within a group: a cancer type (Tables 1 and 4) or a subtype
(Table 3). A metric of a table is the median over the groups that allow it; low is good in the first four.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lib.claims import published
from lib.config import Evaluation
from lib.metrics.alignment import delta_d_per_type, kbet, pvca, within_type_variance_kept
from lib.metrics.bootstrap import interval
from lib.metrics.inputs import all_identical

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
LABEL_CHANGES = {  # paper A's Table 4: what the decoder is told; None keeps a sample's own
    "model & purity": {"sample_type": "cell line", "purity": 1.0},
    "purity only": {"sample_type": None, "purity": 1.0},
    "model only": {"sample_type": "cell line", "purity": None},
}
KBET_READINGS = {  # arguments of kbet that the paper leaves open
    "k0 by the heuristic": {},
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
    """`per_group` of several aligned matrices, below one another with a column `method`; options: as there."""
    tables = [
        per_group(X, reference, sample_type, groups, min_per_kind, seed, **options).assign(method=method)
        for method, X in methods.items()
    ]
    return pd.concat(tables, ignore_index=True)


def kbet_readings(
    methods: dict[str, np.ndarray], sample_type: Sequence[str], groups: Sequence[str], min_per_kind: int, seed: int = 0
) -> pd.DataFrame:
    """ΔkBET of every method and group under each of `KBET_READINGS`: columns method, group and one per reading.

    Groups as in `per_group`; those with fewer than `min_per_kind` of a kind are left out, NaN where R gives NA.
    """
    groups, kind = np.asarray(groups, dtype=str), np.asarray(sample_type, dtype=str)
    rows = []
    for group in np.unique(groups[groups != ""]):
        own = groups == group
        if min((kind[own] == "tumour").sum(), (kind[own] == "cell line").sum()) < min_per_kind:
            continue
        for method, X in methods.items():
            rows.append({"method": method, "group": group, **_kbet_by_reading(X[own], kind[own], seed)})
    return pd.DataFrame(rows, columns=["method", "group", *KBET_READINGS])


def _kbet_by_reading(X, kind, seed) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        components = min(50, len(X) - 1)
        readings = KBET_READINGS.items()
        return {name: kbet(X, kind, dim_pca=components, seed=seed, **options).delta for name, options in readings}


def labelled_subtypes(obs: pd.DataFrame, cancer_type: str) -> pd.Series:
    """Subtype of the samples of a cancer type, "" for all others and for subtypes that paper A does not name."""
    subtype = obs["subtype"].astype(str).where(obs["cancer_type"] == cancer_type, "")
    return subtype.where(subtype.isin(SUBTYPES[cancer_type]), "")


# --- their medians -------------------------------------------------------------------------------------------


def medians(
    groups: pd.DataFrame, by: Evaluation, seed: int = 0, metrics: Sequence[str] = tuple(METRICS)
) -> pd.DataFrame:
    """Median of every metric over groups by method, with the 95 % interval over groups: columns of `Estimate`.

    groups: of `per_method` or `kbet_readings`; where it holds several seeds, a group's value is its mean over the
    seeds that have one. Rows method × metric; NaN and n = 0 where no group has a number.
    """
    rows = []
    for method, own in groups.groupby("method", sort=False):
        means = own.groupby("group")[list(metrics)].mean()
        for metric in metrics:
            values = means[metric].dropna()
            estimate = interval(values, np.median, by.bootstrap, seed) if len(values) else (np.nan, np.nan, np.nan, 0)
            rows.append((method, metric, *estimate))
    return pd.DataFrame(rows, columns=["method", "metric", "value", "low", "high", "n"])


def printed(table: pd.DataFrame, metrics: dict[str, str], remarks: dict[str, str] | None = None) -> pd.DataFrame:
    """A long table of estimates as a reader wants it: a row per method, a column per metric, "value (low–high; n)".

    table: columns method, metric, value, low, high, n; metrics: metric -> heading; remarks: method -> words.
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
    return f"{value} ({low} to {high}; {row.n:,})"


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


def with_reading(table: pd.DataFrame, readings: pd.DataFrame, metric: str) -> dict[str, dict[str, float]]:
    """One metric of the paper's methods with RNAlign's value under each reading: reading -> method -> value.

    table: `medians` by method; readings: `medians` by reading, of RNAlign alone.
    """
    values = table[table["metric"] == metric].set_index("method")["value"]
    others = {name: values[name] for name in _CLAIM_METHOD["a-t1"] if name in values}
    own = readings[readings["metric"] == metric].set_index("method")["value"]
    return {reading: others | {"RNAlign": value} for reading, value in own.items()}


def orders_in_words(readings: dict[str, dict[str, float]], what: str) -> str:
    """Whether the order of the methods is the same under every reading; readings: reading -> method -> value."""
    orders = {reading: order(values) for reading, values in readings.items()}
    by_order: dict[str, list[str]] = {}
    for reading, methods in orders.items():
        by_order.setdefault(", ".join(methods) or "not estimable", []).append(reading)
    if len(by_order) == 1:
        return f"The order by {what} does not depend on it ({next(iter(by_order))})."
    return f"The order by {what} does: " + "; ".join(f"{' and '.join(r)}: {o}" for o, r in by_order.items()) + "."


def kbet_of_input_in_words(kbet: dict[str, pd.DataFrame]) -> str:
    """ΔkBET of the unaligned input under every reading beside the paper's; kbet: groups -> `medians` by reading."""
    said = []
    for groups, table in kbet.items():
        own = table[(table["method"] == "input") & table["value"].notna()]
        values = ", ".join(f"{row.value:.2f} ({row.metric}, n = {row.n})" for row in own.itertuples())
        said.append(f"{groups}: {values or 'not estimable'}")
    of = (published_scores(prefix)["kbet"]["input"] for prefix in ("a-t1", "a-t3-breast", "a-t3-lung"))
    paper = ", ".join(f"{value:.2f}" for value in of)
    return f"ΔkBET of the unaligned input, {'; '.join(said)}. The paper prints {paper} for the three."


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
