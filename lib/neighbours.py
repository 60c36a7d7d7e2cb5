"""Who lies next to whom: the cell lines nearest to a tumour, and the types of a cell line's nearest tumours."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lib.metrics.alignment import match_rate
from lib.metrics.inputs import as_matrix, as_neighbours

CHUNK = 1000  # samples whose correlations are held at once


def most_similar(X, among, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `among` of the k samples of highest Pearson correlation, highest first, and the correlations.

    X: n × p, among: m × p → two arrays n × k. Raises ValueError for NaN, another number of features, fewer than k
    samples to choose from, and samples without variance.
    """
    X, among = as_matrix(X, "X", min_samples=1), as_matrix(among, "among", min_samples=1)
    if X.shape[1] != among.shape[1]:
        raise ValueError(f"among: found {among.shape[1]} features, expected {X.shape[1]} as in X")
    k = as_neighbours(k, len(among))
    X, among = _unit_rows(X, "X"), _unit_rows(among, "among")
    parts = [_top(X[start : start + CHUNK] @ among.T, k) for start in range(0, len(X), CHUNK)]
    positions, similarity = (np.concatenate(part) for part in zip(*parts, strict=True))
    return positions, similarity


def _top(correlation: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-correlation, axis=1, kind="stable")[:, :k]
    return order, np.clip(np.take_along_axis(correlation, order, axis=1), -1, 1)


def _unit_rows(X: np.ndarray, name: str) -> np.ndarray:
    """Rows less their mean, of length 1, so that products are Pearson correlations."""
    constant = np.flatnonzero(np.ptp(X, axis=1) == 0)
    if len(constant):
        raise ValueError(f"{name}: found {len(constant)} constant samples (first: row {constant[0]}), expected none")
    X = X.astype(np.float64)
    X -= X.mean(axis=1, keepdims=True)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def nearest_lines(tumours: ad.AnnData, lines: ad.AnnData, k: int = 25) -> pd.DataFrame:
    """The k cell lines nearest to every tumour by Pearson correlation: columns tumour, rank, line, name, similarity.

    tumours, lines: samples × genes after one alignment, the same genes in the same order; `name` is the lines' obs
    column of that name, else the line's id. Raises ValueError for other genes, and as `most_similar` does.
    (Paper A, section 5: choice of cell lines by their similarity to a patient's tumour.)
    """
    if list(tumours.var_names) != list(lines.var_names):
        raise ValueError(
            f"lines: found other genes than in tumours ({lines.n_vars} and {tumours.n_vars}), expected same"
        )
    positions, similarity = most_similar(tumours.X, lines.X, k)
    names = lines.obs.get("name", lines.obs_names)
    return pd.DataFrame({
        "tumour": np.repeat(tumours.obs_names, k),
        "rank": np.tile(np.arange(1, k + 1), tumours.n_obs),
        "line": lines.obs_names[positions.ravel()],
        "name": np.asarray(names, dtype=object)[positions.ravel()],
        "similarity": similarity.ravel(),
    })  # fmt: skip


def typical_tumours(X: np.ndarray, obs: pd.DataFrame, cancer_types: list[str]) -> list[str]:
    """For each cancer type the tumour most like the others of its type (highest median correlation): their ids."""
    is_tumour = (obs["sample_type"] == "tumour").to_numpy()
    ids = []
    for cancer_type in cancer_types:
        rows = np.flatnonzero(is_tumour & (obs["cancer_type"] == cancer_type).to_numpy())
        unit = _unit_rows(as_matrix(X[rows], "X", min_samples=1), "X")
        ids.append(obs.index[rows[np.median(unit @ unit.T, axis=1).argmax()]])
    return ids


def share(hits: np.ndarray) -> dict[str, float]:
    """Percentage of hits with Wilson's 95 % interval (which keeps a width at 0 % and 100 %) and n; NaN for none."""
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        return {"n": 0, "match": np.nan, "low": np.nan, "high": np.nan}
    test = binomtest(int(hits.sum()), len(hits))
    low, high = test.proportion_ci(method="wilson")
    return {"n": len(hits), "match": 100 * hits.mean(), "low": 100 * low, "high": 100 * high}


def match_by_type(X: np.ndarray, obs: pd.DataFrame, k: int) -> pd.DataFrame:
    """Match of each cancer type: the percentage of its lines most of whose k nearest tumours are of their type.

    X: samples × genes; obs: sample_type, cancer_type. Columns cancer_type, n_tumours, n (lines), match, low,
    high (Wilson), commonest_call, remark (why a row has no number). Paper A, Figure 4.
    """
    is_line, types = _kinds(obs)
    called = np.asarray(match_rate(X[~is_line], types[~is_line], X[is_line], types[is_line], k).predicted)
    rows = []
    for cancer_type in np.unique(types):
        calls = called[types[is_line] == cancer_type]
        common = pd.Series(calls).value_counts()
        n_tumours = {"n_tumours": (types[~is_line] == cancer_type).sum()}
        rows.append({"cancer_type": cancer_type} | n_tumours | share(calls == cancer_type) | {
            "commonest_call": f"{common.index[0]}: {common.iloc[0]} of {len(calls)}" if len(calls) else "",
            "remark": "" if len(calls) else "no cell lines",
        })  # fmt: skip
    return pd.DataFrame(rows)


def subtype_counts(obs: pd.DataFrame, cancer_type: str, subtypes: list[str]) -> pd.DataFrame:
    """Number of tumours and cell lines of each subtype of a cancer type: index subtypes, columns tumour, cell line."""
    given = obs.get("subtype", pd.Series(index=obs.index, dtype=object)).astype(object)
    known = obs["sample_type"].where((obs["cancer_type"] == cancer_type) & given.isin(subtypes))
    return pd.crosstab(given, known).reindex(index=subtypes, columns=["tumour", "cell line"], fill_value=0)


def match_by_subtype(X: np.ndarray, obs: pd.DataFrame, cancer_type: str, subtypes: list[str], k: int) -> pd.DataFrame:
    """The match among the tumours of one cancer type, of its lines' subtypes: `all`, then each subtype.

    Only samples of `subtypes` count; k nearest tumours, or as many as the smallest subtype has, so that no subtype
    is outvoted for being rare. Columns subtype, n_tumours, k, n (lines), match, low, high, remark. The number
    behind paper A's Figures 2d and 2e.
    """
    is_line, types = _kinds(obs)
    counts = subtype_counts(obs, cancer_type, subtypes)
    both = counts.index[(counts > 0).all(axis=1)].tolist()
    n_tumours = counts["tumour"]
    if len(both) < 2:
        reason = f"fewer than two of {', '.join(subtypes)} have tumours and cell lines"
        return pd.DataFrame([{"subtype": "all", "n_tumours": n_tumours.sum(), "k": 0, **share([]), "remark": reason}])
    subtype = obs["subtype"].to_numpy(dtype=str)
    used = (types == cancer_type) & np.isin(subtype, both)
    tumours, k = used & ~is_line, min(k, n_tumours[both].min())
    truth = subtype[used & is_line]
    hits = match_rate(X[tumours], subtype[tumours], X[used & is_line], truth, k).predicted == truth
    rows = [{"subtype": "all", "n_tumours": tumours.sum(), "k": k, **share(hits), "remark": ""}]
    for s in subtypes:
        remark = "" if s in both else "no cell lines" if n_tumours[s] else "no tumours"
        rows.append({"subtype": s, "n_tumours": n_tumours[s], "k": k, **share(hits[truth == s]), "remark": remark})
    return pd.DataFrame(rows)


def nearest_line_of_type(X: np.ndarray, obs: pd.DataFrame) -> dict[str, float]:
    """Percentage of tumours whose nearest cell line is of their cancer type, of the tumours whose type has lines."""
    is_line, types = _kinds(obs)
    tumours = ~is_line & np.isin(types, types[is_line])
    positions, _ = most_similar(X[tumours], X[is_line], 1)
    return share(types[is_line][positions[:, 0]] == types[tumours])


def _kinds(obs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return (obs["sample_type"] == "cell line").to_numpy(), obs["cancer_type"].to_numpy(dtype=str)


def match_in_words(by_type: pd.DataFrame, published: dict[str, float], method: str = "RNAlign") -> str:
    """What figure 4 says: types at 0 % and below 50 % by each method, and the types that the paper calls poor.

    by_type: `match_by_type` of several methods, with the column `method`; published: cancer type -> percent printed.
    """
    known = by_type[by_type["n"] > 0]
    said = [f"Of {known['cancer_type'].nunique()} cancer types with cell lines:"]
    for name, rows in known.groupby("method", sort=False):
        said.append(f"- {name}: {_poor_types(rows)} (median {rows['match'].median():.0f} %)")
    ours = known[known["method"] == method].set_index("cancer_type")
    poor = [_poor_type(name, ours.loc[name], value) for name, value in published.items() if name in ours.index]
    if poor:
        said += ["", f"Types that the paper finds poorly aligned, by {method} here: {'; '.join(poor)}."]
    if absent := [name for name in published if name not in ours.index]:
        said.append(f"Not estimable here, where they have no cell lines: {', '.join(absent)}.")
    return "\n".join(said)


def _poor_types(rows: pd.DataFrame) -> str:
    return f"{(rows['match'] == 0).sum()} at 0 %, {(rows['match'] < 50).sum()} below 50 %"


def _poor_type(name: str, row: pd.Series, published: float) -> str:
    verdict = "poor" if row["match"] < 50 else "not poor"
    found = f"{row['match']:.0f} % ({row['low']:.0f} to {row['high']:.0f}, n = {row['n']}; paper {published:.0f} %)"
    return f"{name} {found}: {verdict}"


def in_words(
    match: pd.DataFrame, by_type: pd.DataFrame, subtypes: pd.DataFrame, nearest: pd.DataFrame, sure: pd.DataFrame
) -> str:
    """RNAlign's neighbours against the input's in a paragraph, from the notebook's tables.

    match: method, reading, match, low, high, n; by_type, subtypes, nearest: `match_by_type`, `match_by_subtype` (with
    the column cancer_type) and `nearest_line_of_type` of several methods; sure: `uncertainty.summary`.
    """
    lines = match[match["reading"] == match["reading"].iloc[0]]
    ours, none = (by_type[(by_type["method"] == m) & (by_type["n"] > 0)] for m in ("RNAlign", "input"))
    by_draws, *_, stay = sure.to_dict("records")
    said = [
        f"Cell lines among tumours of their own type: {_against_input(lines)}. Over draws of the latent code RNAlign's "
        f"match is {by_draws['draws_low']:.0f} to {by_draws['draws_high']:.0f} %. It is given the type of all samples, "
        f"the input is not.",
        f"Of {ours['cancer_type'].nunique()} types with lines RNAlign leaves {_poor_types(ours)} (input: "
        f"{_poor_types(none)}).",
        f"The nearest line of a tumour is of its type: {_against_input(nearest)}. Of its nearest lines "
        f"{stay['over_draws']:.0f} % stay from draw to draw.",
        "Subtypes are given to no method.",
    ]
    for cancer_type, rows in subtypes[subtypes["subtype"] == "all"].groupby("cancer_type", sort=False):
        if rows["n"].any():
            said.append(f"Lines among tumours of their subtype within {cancer_type}: {_against_input(rows)}.")
        else:
            said.append(f"Subtypes within {cancer_type}: not estimable, {rows['remark'].iloc[0]}.")
    return " ".join(said)


def _against_input(rows: pd.DataFrame) -> str:
    """RNAlign's percentage with its interval, the input's, and whether it is higher, lower or neither for sure."""
    ours, none = (rows[rows["method"] == method].iloc[0] for method in ("RNAlign", "input"))
    sure = "higher" if ours["low"] > none["high"] else "lower" if ours["high"] < none["low"] else "intervals overlap"
    return (
        f"{ours['match']:.0f} % after RNAlign ({ours['low']:.0f} to {ours['high']:.0f}), {none['match']:.0f} % in the "
        f"input ({none['low']:.0f} to {none['high']:.0f}; n = {ours['n']:,}; {sure})"
    )
