"""Who lies next to whom: the cell lines nearest to a tumour, and the types of a cell line's nearest tumours."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

from lib.metrics import bootstrap
from lib.metrics.alignment import match_rate
from lib.metrics.correlation import most_similar, unit_rows


def nearest_lines(tumours: ad.AnnData, lines: ad.AnnData, k: int = 25) -> pd.DataFrame:
    """The k cell lines nearest to every tumour by Pearson correlation: columns tumour, rank, line, name, similarity.

    tumours, lines: samples × genes after one alignment, the same genes in the same order; `name` is the lines' obs
    column of that name, and the line's id where that is empty or absent. Raises ValueError for other genes, and as
    `most_similar` does.
    (Paper A, section 5: choice of cell lines by their similarity to a patient's tumour.)
    """
    if list(tumours.var_names) != list(lines.var_names):
        raise ValueError(
            f"lines: found other genes than in tumours ({lines.n_vars} and {tumours.n_vars}), expected same"
        )
    positions, similarity = most_similar(tumours.X, lines.X, k)
    names = lines.obs.get("name", pd.Series("", lines.obs_names)).astype(object)
    names = names.where(names.notna() & (names != ""), lines.obs_names).to_numpy()
    return pd.DataFrame({
        "tumour": np.repeat(tumours.obs_names, k),
        "rank": np.tile(np.arange(1, k + 1), tumours.n_obs),
        "line": lines.obs_names[positions.ravel()],
        "name": names[positions.ravel()],
        "similarity": similarity.ravel(),
    })  # fmt: skip


def typical_tumours(X: np.ndarray, obs: pd.DataFrame, cancer_types: list[str]) -> list[str]:
    """For each cancer type the tumour most like the others of its type (highest median correlation): their ids."""
    is_tumour = (obs["sample_type"] == "tumour").to_numpy()
    ids = []
    for cancer_type in cancer_types:
        rows = np.flatnonzero(is_tumour & (obs["cancer_type"] == cancer_type).to_numpy())
        unit = unit_rows(X[rows])
        ids.append(obs.index[rows[np.median(unit @ unit.T, axis=1).argmax()]])
    return ids


def share(hits: np.ndarray) -> dict[str, float]:
    """Percentage of hits with Wilson's 95 % interval (which keeps a width at 0 % and 100 %) and n; NaN for none."""
    value, low, high, n = bootstrap.share(hits)
    return {"n": n, "match": 100 * value, "low": 100 * low, "high": 100 * high}


# --- the match of cell lines ---

NO_TUMOURS = "no tumours of this type, so that none of its lines can match"
MATCH = {"match": "share of all lines", "match_types": "median over cancer types"}  # both readings of "% matched"


def why_no_match(obs: pd.DataFrame, k: int) -> str:
    """Why no cell line can be matched by its k nearest tumours, or "" where it can."""
    is_line, _ = _kinds(obs)
    if (~is_line).sum() < k:
        return f"{(~is_line).sum()} tumours, fewer than the {k} nearest that decide a match"
    return "" if is_line.any() else "no cell lines"


def calls_of_lines(X: np.ndarray, obs: pd.DataFrame, k: int) -> pd.DataFrame:
    """Per cell line (index: its id): cancer_type, and called, the commonest type of its k nearest tumours.

    X: samples × genes; obs: sample_type, cancer_type. No rows where `why_no_match` gives a reason.
    """
    is_line, types = _kinds(obs)
    called = np.array([], dtype=object)
    if why_no_match(obs, k):
        is_line = np.zeros(len(obs), dtype=bool)
    else:
        called = np.asarray(match_rate(X[~is_line], types[~is_line], X[is_line], types[is_line], k).predicted)
    return pd.DataFrame({"cancer_type": types[is_line], "called": called}, index=obs.index[is_line])


def match_readings(calls: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """Both readings of the match with 95 % intervals: index MATCH, columns value, low, high, n (per seed), seeds.

    calls: of `calls_of_lines`, below one another for several seeds, each with its column `seed`; a line that several
    seeds share has one id, other draws of lines have other ids.
    """
    own = calls.assign(hit=calls["called"] == calls["cancer_type"])
    types = own.groupby(["seed", "cancer_type"])["hit"].mean().reset_index()
    rows = {
        "match": bootstrap.share_over_seeds(own["hit"], own["seed"], own.index, n_boot, seed),
        "match_types": bootstrap.interval_over_seeds(
            types["hit"], types["seed"], types["cancer_type"], np.median, n_boot, seed
        ),
    }
    return pd.DataFrame(rows, index=bootstrap.SeedsEstimate._fields).T.astype({"n": int, "seeds": int})


def match_table(calls: pd.DataFrame, n_boot: int, seed: int) -> pd.DataFrame:
    """`match_readings` of every method in percent: columns method, reading, match, low, high, n, seeds.

    calls: of `calls_of_lines`, with the columns seed and method.
    """
    found = [
        match_readings(own, n_boot, seed).rename(MATCH).rename_axis("reading").reset_index().assign(method=method)
        for method, own in calls.groupby("method", sort=False)
    ]
    if not found:
        return pd.DataFrame(columns=["method", "reading", "match", "low", "high", "n", "seeds"])
    table = pd.concat(found, ignore_index=True).rename(columns={"value": "match"})
    table[["match", "low", "high"]] *= 100
    return table[["method", "reading", "match", "low", "high", "n", "seeds"]]


def match_by_type(X: np.ndarray, obs: pd.DataFrame, k: int) -> pd.DataFrame:
    """Match of each cancer type: the percentage of its lines most of whose k nearest tumours are of their type.

    X: samples × genes; obs: sample_type, cancer_type. Columns cancer_type, n_tumours, n (lines), match, low,
    high (Wilson), commonest_call, remark (why a row has no number). Paper A, Figure 4.
    """
    (is_line, types), reason = _kinds(obs), why_no_match(obs, k)
    calls, rows = calls_of_lines(X, obs, k), []
    for cancer_type in np.unique(types):
        own = calls.loc[calls["cancer_type"] == cancer_type, "called"]
        n_lines = (types[is_line] == cancer_type).sum()
        common = own.value_counts()
        n_tumours = {"n_tumours": (types[~is_line] == cancer_type).sum()}
        rows.append({"cancer_type": cancer_type} | n_tumours | share(own == cancer_type) | {
            "commonest_call": f"{common.index[0]}: {common.iloc[0]} of {len(own)}" if len(own) else "",
            "remark": "no cell lines" if not n_lines else reason or ("" if n_tumours["n_tumours"] else NO_TUMOURS),
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
    if not tumours.any():
        return share([])
    positions, _ = most_similar(X[tumours], X[is_line], 1)
    return share(types[is_line][positions[:, 0]] == types[tumours])


def _kinds(obs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return (obs["sample_type"] == "cell line").to_numpy(), obs["cancer_type"].to_numpy(dtype=str)


def match_in_words(by_type: pd.DataFrame, published: dict[str, float], method: str = "RNAlign") -> str:
    """What figure 4 says: types at 0 % and below 50 % by each method, and the types that the paper calls poor.

    by_type: `match_by_type` of several methods, with the column `method`; published: cancer type -> percent printed.
    """
    known = by_type[(by_type["n"] > 0) & (by_type["n_tumours"] > 0)]
    if known.empty:
        return f"Match: not estimable ({', '.join(sorted(set(by_type['remark'])))})."
    said = [f"Of {known['cancer_type'].nunique()} cancer types with tumours and cell lines:"]
    for name, rows in known.groupby("method", sort=False):
        said.append(f"- {name}: {_poor_types(rows)} (median {rows['match'].median():.0f} %)")
    ours = known[known["method"] == method].set_index("cancer_type")
    poor = [_poor_type(name, ours.loc[name], value) for name, value in published.items() if name in ours.index]
    if poor:
        said += ["", f"Types that the paper finds poorly aligned, by {method} here: {'; '.join(poor)}."]
    if absent := [name for name in published if name not in ours.index]:
        said.append(f"Not estimable here, where they lack tumours or cell lines: {', '.join(absent)}.")
    if impossible := sorted(set(by_type.loc[by_type["remark"] == NO_TUMOURS, "cancer_type"])):
        said.append(f"Lines without tumours of their type, which cannot match: {', '.join(impossible)}.")
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

    match: `match_table`; by_type, subtypes, nearest: `match_by_type`, `match_by_subtype` (with
    the column cancer_type) and `nearest_line_of_type` of several methods; sure: `uncertainty.summary`.
    """
    lines = match[match["reading"] == match["reading"].iloc[0]]
    both = by_type[(by_type["n"] > 0) & (by_type["n_tumours"] > 0)]
    ours, none = (both[both["method"] == m] for m in ("RNAlign", "input"))
    by_draws, *_, stay = sure.to_dict("records")
    said = [
        f"Cell lines among tumours of their own type: {_against_input(lines)}. Over draws of the latent code RNAlign's "
        f"match is {by_draws['draws_low']:.0f} to {by_draws['draws_high']:.0f} %. It is given the type of all samples, "
        f"the input is not.",
        f"Of {ours['cancer_type'].nunique()} types with tumours and lines RNAlign leaves {_poor_types(ours)} (input: "
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
    if np.isnan(ours["match"]):
        return "not estimable"
    sure = "higher" if ours["low"] > none["high"] else "lower" if ours["high"] < none["low"] else "intervals overlap"
    return (
        f"{ours['match']:.0f} % after RNAlign ({ours['low']:.0f} to {ours['high']:.0f}), {none['match']:.0f} % in the "
        f"input ({none['low']:.0f} to {none['high']:.0f}; n = {ours['n']:,}; {sure})"
    )
