"""PAM50: the intrinsic subtype of a breast tumour or cell line, as its nearest published centroid.

Centroids: data/pam50_centroids.csv, from Parker et al. 2009 (J Clin Oncol 27:1160, doi:10.1200/JCO.2008.18.1370), by
symbols of today beside the published ones. Rule: that of genefu's `intrinsic.cluster.predict` (bhklab/genefu).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib import config
from lib.metrics.bootstrap import Estimate, interval, percentile_interval
from lib.metrics.correlation import unit_rows
from lib.neighbours import share

CENTROIDS = config.ROOT / "data" / "pam50_centroids.csv"
SUBTYPES = ["Basal", "Her2", "LumA", "LumB", "Normal"]
# The compendium does not tell the two luminal subtypes apart, and has no normal-like one.
IN_COMPENDIUM = {
    "Basal": "Basal", "Her2": "HER2-enriched", "LumA": "Luminal", "LumB": "Luminal", "Normal": "normal-like",
}  # fmt: skip
MIN_GENES = 25  # half of the 50

Standardise = Literal["none", "median", "scale", "robust"]


@cache
def centroids() -> pd.DataFrame:
    """The five centroids: 50 genes (index: symbol of today; column published_symbol) × SUBTYPES."""
    return pd.read_csv(CENTROIDS, index_col="symbol")


def genes_in(symbols) -> pd.Series:
    """PAM50 genes among `symbols`, in the centroids' order: symbol as found, by symbol of today.

    A gene may go by the published symbol (CDCA1, KNTC2, ORC6L); where both are there, today's counts.
    """
    symbols, table = set(symbols), centroids()
    found = {
        today: today if today in symbols else published
        for today, published in table["published_symbol"].items()
        if today in symbols or published in symbols
    }
    return pd.Series(found, dtype=object, name="symbol")


def call_subtypes(
    expression: pd.DataFrame, standardise: Standardise = "none", min_genes: int = MIN_GENES
) -> pd.DataFrame:
    """Each sample's PAM50 subtype: the centroid of highest Spearman correlation (of tied ones the first).

    expression: samples × genes (columns: symbols), log scale; NaN = not measured, left out for that sample.
    standardise, over the samples given: "none", "median" (less the gene's median), "scale" (z-scores, sd with
    n - 1) or "robust" ((x - q2.5 %) / (q97.5 % - q2.5 %) - 0.5) · 2; a gene that does not vary is left out by the
    last two. Columns: subtype, cor_<subtype>, proba_<subtype> (positive correlations ÷ their sum; NaN where none is).
    A sample whose genes are all equal, or of which fewer than `min_genes` are left, has no subtype (None, NaN).
    Raises ValueError for fewer than `min_genes` of the 50 genes, no samples, infinite values or duplicate genes.
    Source: genefu, intrinsic.cluster.predict (models pam50, pam50.scale and pam50.robust).
    """
    X, genes = _measured(expression, min_genes)
    cor = _spearman(_STANDARDISE[standardise](X), centroids().loc[genes, SUBTYPES].to_numpy(), min_genes)
    positive = cor.clip(min=0)
    total = positive.sum(axis=1, keepdims=True)
    proba = np.divide(positive, total, out=np.full_like(cor, np.nan), where=total > 0)
    columns = [f"{kind}_{name}" for kind in ("cor", "proba") for name in SUBTYPES]
    calls = pd.DataFrame(np.hstack([cor, proba]), index=expression.index, columns=columns)
    nearest = np.array(SUBTYPES, dtype=object)[np.nan_to_num(cor, nan=-2).argmax(axis=1)]
    calls.insert(0, "subtype", np.where(np.isnan(cor).all(axis=1), None, nearest))
    return calls


def _measured(expression: pd.DataFrame, min_genes: int) -> tuple[np.ndarray, pd.Index]:
    """Values (samples × PAM50 genes found) and the genes' symbols of today."""
    found = genes_in(expression.columns)
    if len(found) < min_genes:
        raise ValueError(f"expression: found {len(found)} of the 50 PAM50 genes, expected at least {min_genes}")
    chosen = expression[found.to_list()]
    if chosen.shape[1] != len(found):
        twice = chosen.columns[chosen.columns.duplicated()].tolist()
        raise ValueError(f"expression: found {', '.join(twice)} more than once, expected one column per gene")
    X = chosen.to_numpy(dtype=np.float64)
    if len(X) == 0 or np.isinf(X).any():
        raise ValueError(f"expression: found {len(X)} samples, {np.isinf(X).sum()} infinite values; expected numbers")
    return X, found.index


def _median_centred(X: np.ndarray) -> np.ndarray:
    return X - np.nanmedian(X, axis=0)


def _scaled(X: np.ndarray) -> np.ndarray:
    return _divided(X - np.nanmean(X, axis=0), np.nanstd(X, axis=0, ddof=1) if len(X) > 1 else np.zeros(X.shape[1]))


def _robust(X: np.ndarray) -> np.ndarray:
    low, high = np.nanpercentile(X, [2.5, 97.5], axis=0)
    return 2 * (_divided(X - low, high - low) - 0.5)


def _divided(X: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """X ÷ spread; a gene without spread becomes NaN, which is left out."""
    return np.divide(X, spread, out=np.full_like(X, np.nan), where=np.broadcast_to(spread > 0, X.shape))


_STANDARDISE = {"none": lambda X: X, "median": _median_centred, "scale": _scaled, "robust": _robust}


def _spearman(X: np.ndarray, C: np.ndarray, min_genes: int) -> np.ndarray:
    """Spearman correlation of each row of X (samples × genes) with each column of C, over the row's measured genes.

    NaN where these are fewer than `min_genes`.
    """
    cor = np.full((len(X), C.shape[1]), np.nan)
    missing = np.isnan(X)
    patterns = np.unique(missing, axis=0)
    for pattern in patterns[(~patterns).sum(axis=1) >= max(min_genes, 2)]:
        rows = (missing == pattern).all(axis=1)
        ranks, centroid_ranks = (unit_rows(rankdata(m, axis=1)) for m in (X[rows][:, ~pattern], C[~pattern].T))
        cor[rows] = ranks @ centroid_ranks.T
    return cor


# --- what an alignment keeps of it ---

KINDS = ("tumour", "cell line")
KNOWN = ("Luminal", "HER2-enriched", "Basal")  # of the compendium's breast subtypes


def ranks_kept(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Per sample the Spearman correlation, over genes, of its values before and after; NaN where a side is constant.

    before, after: samples × genes. 1: the sample's genes keep their order.
    """
    a, b = (unit_rows(rankdata(X, axis=1)) for X in (before, after))
    return (a * b).sum(axis=1)


def pairs_kept(before: np.ndarray, after: np.ndarray, n_boot: int, seed: int) -> Estimate:
    """Spearman correlation of the gene-gene correlations before and after, with its interval over samples.

    before, after: samples × genes. NaN with fewer than 10 samples, 4 genes, or where a gene does not vary.
    """
    n, p = before.shape
    if n < 10 or p < 4 or not (np.ptp(before, axis=0).all() and np.ptp(after, axis=0).all()):
        return Estimate(np.nan, np.nan, np.nan, n)
    pairs, rng = np.triu_indices(p, 1), np.random.default_rng(seed)

    def kept(rows):
        a, b = (rankdata(np.corrcoef(X[rows].T)[pairs]) for X in (before, after))
        return np.corrcoef(a, b)[0, 1]

    draws = [kept(rng.integers(n, size=n)) for _ in range(n_boot)]
    return Estimate(kept(np.arange(n)), *percentile_interval(np.array(draws)), n)


def aligned_calls(matrices: dict[str, np.ndarray], genes, obs: pd.DataFrame, centred: str) -> pd.DataFrame:
    """Subtype calls of samples by every method: one column per method, in the compendium's words.

    matrices: method -> samples × genes (log2 units); centred: "both kinds" takes each gene's median over all samples
    away, "each kind" over the tumours and over the lines separately. Raises as `call_subtypes`.
    """
    kinds = obs["sample_type"] if centred == "each kind" else pd.Series("all", obs.index)
    called = {}
    for method, X in matrices.items():
        frame = pd.DataFrame(X, index=obs.index, columns=genes)
        parts = [call_subtypes(frame[(kinds == kind).to_numpy()], "median")["subtype"] for kind in kinds.unique()]
        called[method] = pd.concat(parts).loc[obs.index].map(IN_COMPENDIUM)
    return pd.DataFrame(called)


def fidelity(matrices: dict[str, np.ndarray], genes, obs: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """Do PAM50's genes keep their relative expression, and breast samples their subtype? One row per number.

    matrices: method -> samples × genes, "input" first, log2 units; obs: sample_type and subtype of the same samples
    (breast only). Columns method, kind, quantity, value, low, high, n, remark. With fewer than MIN_GENES of the 50
    genes nothing about them is estimable, and the remark says so. Ranks (of genes less their median over
    the kind's breast samples) and pairs are compared with the input; calls with the compendium's subtype, in % with
    Wilson's interval. (Announced in RNAlign, section A.12.)
    """
    genes = pd.Index(genes)
    marker = genes.isin(genes_in(genes))
    few, rows = too_few(marker.sum()), []
    for method, X in matrices.items():
        for kind in KINDS if method != "input" else ():
            of_kind = (obs["sample_type"] == kind).to_numpy()
            before, after = matrices["input"][of_kind], X[of_kind]
            for what, columns in (("PAM50", marker), ("other genes", ~marker)):
                remark = few if what == "PAM50" else ""
                values = [] if remark or not of_kind.any() else _ranks_kept_within(before, after, columns)
                rows.append(_row(method, kind, f"gene ranks kept, {what}", _estimate(values, n_boot, seed), remark))
            pairs = Estimate(np.nan, np.nan, np.nan, 0)
            if not few:
                pairs = pairs_kept(before[:, marker], after[:, marker], min(n_boot, 200), seed)
            rows.append(_row(method, kind, "gene-gene correlations kept, PAM50", pairs, few))
    table = pd.DataFrame([*rows, *_call_rows(matrices, genes, obs)])
    return table.astype({"n": int}).sort_values(["quantity", "kind"], kind="stable", ignore_index=True)


def too_few(found: int) -> str:
    """Why nothing about PAM50 is estimable from `found` of its genes; "" where it is."""
    return f"{found} of the 50 PAM50 genes, fewer than {MIN_GENES}" if found < MIN_GENES else ""


def _ranks_kept_within(before: np.ndarray, after: np.ndarray, columns: np.ndarray) -> np.ndarray:
    if columns.sum() < 2:
        return np.array([])
    return ranks_kept(*(_median_centred(X[:, columns]) for X in (before, after)))


def _row(method: str, kind: str, quantity: str, estimate: Estimate, remark: str = "") -> dict:
    if np.isnan(estimate.value) and not remark:
        remark = "constant samples or genes, or fewer than 10 samples"
    return {"method": method, "kind": kind, "quantity": quantity, **estimate._asdict(), "remark": remark}


def _estimate(values: np.ndarray, n_boot: int, seed: int) -> Estimate:
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    return interval(values, np.median, n_boot, seed) if len(values) else Estimate(np.nan, np.nan, np.nan, 0)


def _call_rows(matrices: dict[str, np.ndarray], genes: pd.Index, obs: pd.DataFrame) -> list[dict]:
    known, remark, rows = obs["subtype"].isin(KNOWN), too_few(len(genes_in(genes))), []
    for centred in ("both kinds", "each kind"):
        quantity = f"subtype calls right, %, genes centred over {centred}"
        calls = None if remark else aligned_calls(matrices, genes, obs, centred)
        for method in matrices:
            for kind in KINDS:
                used = known & (obs["sample_type"] == kind)
                hits = [] if calls is None else (calls.loc[used, method] == obs.loc[used, "subtype"]).to_numpy()
                rows.append(_row(method, kind, quantity, _share(hits), remark or ("" if len(hits) else "none known")))
        for kind in KINDS:  # what a call that never looks would reach
            subtype = obs.loc[known & (obs["sample_type"] == kind), "subtype"].astype(str)
            commonest = (subtype == subtype.mode().iloc[0]).to_numpy() if len(subtype) else []
            rows.append(
                _row("commonest subtype", kind, quantity, _share(commonest), "" if len(subtype) else "none known")
            )
    return rows


def _share(hits) -> Estimate:
    found = share(hits)
    return Estimate(found["match"], found["low"], found["high"], found["n"])


def in_words(table: pd.DataFrame, n_genes: int) -> str:
    """What `fidelity` says about RNAlign, in a paragraph; n_genes: of the 50, among the genes kept."""
    if few := too_few(n_genes):
        return f"**PAM50: not estimable**, since the genes kept hold {few}."
    rows = table.set_index(["quantity", "method", "kind"])
    ranks = "gene ranks kept, PAM50"
    kept = [
        f"{rows.loc[(ranks, 'RNAlign', kind), 'value']:.2f} in {kind}s (n = {rows.loc[(ranks, 'RNAlign', kind), 'n']})"
        for kind in KINDS
        if not np.isnan(rows.loc[(ranks, "RNAlign", kind), "value"])
    ]
    order = " and ".join(kept) or "a level that is not estimable (no breast samples that vary)"
    said = [f"**PAM50 ({n_genes} of 50 genes).** RNAlign keeps the order of the genes at {order}."]
    quantity = "subtype calls right, %, genes centred over both kinds"
    for kind in KINDS:
        before, after, always = (rows.loc[(quantity, m, kind)] for m in ("input", "RNAlign", "commonest subtype"))
        if np.isnan(after["value"]):
            return " ".join([*said, f"Subtype calls are not estimable: {after['remark']}."])
        apart = after["high"] < before["low"] or after["low"] > before["high"]
        change = "a difference beyond" if apart else "no difference beyond"
        said.append(
            f"Of the {kind}s (n = {after['n']}) {before['value']:.0f} % are called their subtype before and "
            f"{after['value']:.0f} % ({after['low']:.0f} to {after['high']:.0f}) after, {change} the intervals; "
            f"calling all of them the commonest subtype would give {always['value']:.0f} %."
        )
    return " ".join(said)
