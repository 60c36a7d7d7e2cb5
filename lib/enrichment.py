"""What differs between cell lines and tumours of a cancer type: limma's moderated t, and the gene sets behind it.

Differential expression is limma (Smyth 2004), its empirical Bayes by inmoose; gene sets are tested by preranked GSEA
(Subramanian et al. 2005) of gseapy, on a GMT file: nothing is asked of a server. Announced in RNAlign, section A.12.
"""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import gseapy
import numpy as np
import pandas as pd
from inmoose.limma import squeezeVar
from scipy import stats

from lib.metrics.inputs import as_matrix

SIGNIFICANT = 0.05  # false discovery rate
SMALLEST_SET, LARGEST_SET = 8, 500  # genes of a set among those measured


def moderated_t(X, genes, design: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """limma's lmFit, contrasts.fit and eBayes: one row per contrast and gene.

    X: samples × genes (log scale or z-scores), genes: p names; design: samples × coefficients, of full rank;
    contrasts: coefficients × contrasts. Columns contrast, gene, difference (the contrast's estimate, in X's units),
    t, p (two-sided), fdr (Benjamini-Hochberg within the contrast). A gene without any variance has t = 0, p = 1.
    Raises ValueError for NaN, unlike shapes, a design without full rank or without residual degrees of freedom.
    """
    X, A = as_matrix(X, "X"), design.to_numpy(dtype=np.float64)
    C = contrasts.loc[design.columns].to_numpy(dtype=np.float64)
    df = _residual_df(X, genes, A)
    coefficients = np.linalg.lstsq(A, X, rcond=None)[0]
    variance = ((X - A @ coefficients) ** 2).sum(axis=0) / df
    if not variance.any():
        raise ValueError("X: found no gene that varies within the groups, expected residual variance for limma")
    prior = squeezeVar(variance.copy(), df)
    total_df = min(df + float(prior["df_prior"]), df * X.shape[1])
    spread = np.sqrt(np.diag(C.T @ np.linalg.pinv(A.T @ A) @ C))[:, None] * np.sqrt(prior["var_post"])
    difference = C.T @ coefficients
    t = np.divide(difference, spread, out=np.zeros_like(difference), where=np.ptp(X, axis=0) > 0)
    p = 2 * stats.t.sf(np.abs(t), total_df)
    parts = {
        name: pd.DataFrame({"gene": genes, "difference": d, "t": ti, "p": pi, "fdr": stats.false_discovery_control(pi)})
        for name, d, ti, pi in zip(contrasts.columns, difference, t, p, strict=True)
    }
    return pd.concat(parts, names=["contrast"]).reset_index(level="contrast").reset_index(drop=True)


def _residual_df(X: np.ndarray, genes, A: np.ndarray) -> int:
    if A.shape[0] != len(X) or X.shape[1] != len(genes):
        found = f"{len(A)} rows of the design and {len(genes)} genes"
        raise ValueError(f"design: found {found}, expected {X.shape[0]} and {X.shape[1]} as X has")
    rank = np.linalg.matrix_rank(A)
    if rank < A.shape[1] or len(X) <= rank:
        found = f"rank {rank} for {A.shape[1]} coefficients and {len(X)} samples"
        raise ValueError(f"design: found {found}, expected full rank and more samples than coefficients")
    return len(X) - rank


def lines_against_tumours(X, genes, obs: pd.DataFrame, min_per_kind: int = 2) -> pd.DataFrame:
    """Cell lines less tumours within every cancer type, and how much of it is that type's own: two contrasts each.

    X: samples × genes; obs: sample_type, cancer_type. One linear model with a mean for each type and kind, so that
    small types borrow the residual variance of all. Columns as `moderated_t`, with cancer_type and scope in place
    of contrast: "difference" is lines - tumours; "own" is that less the mean of the same difference over all other
    types, which takes away what every line has in common (culture, another laboratory, no infiltrate).
    Types with fewer than `min_per_kind` of a kind are left out. ValueError where fewer than two types are left.
    """
    types, kinds = (obs[c].to_numpy(dtype=str) for c in ("cancer_type", "sample_type"))
    counts = pd.crosstab(types, kinds).reindex(columns=["cell line", "tumour"], fill_value=0)
    kept = counts.index[(counts >= min_per_kind).all(axis=1)]
    if len(kept) < 2:
        wanted = f"two or more with {min_per_kind} tumours and {min_per_kind} cell lines"
        raise ValueError(f"obs: found {len(kept)} cancer types with both kinds, expected {wanted}")
    used = np.isin(types, kept)
    cells = pd.Series([f"{t}|{k}" for t, k in zip(types[used], kinds[used], strict=True)])
    design = pd.get_dummies(cells).astype(float)
    table = moderated_t(np.asarray(X)[used], genes, design, _contrasts(kept, design.columns))
    names = table.pop("contrast").str.split("|", expand=True)
    table.insert(0, "scope", names[1])
    table.insert(0, "cancer_type", names[0])
    return table


def _contrasts(types, cells) -> pd.DataFrame:
    """Coefficients × contrasts `<type>|difference` and `<type>|own`."""
    difference = pd.DataFrame(0.0, index=cells, columns=types)
    for cancer_type in types:
        difference.loc[f"{cancer_type}|cell line", cancer_type] = 1
        difference.loc[f"{cancer_type}|tumour", cancer_type] = -1
    others = (difference.to_numpy().sum(axis=1, keepdims=True) - difference) / (len(types) - 1)
    return pd.concat([difference.add_suffix("|difference"), (difference - others).add_suffix("|own")], axis=1)


def read_gmt(path: str | Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file: name -> symbols. Plain text, .gz, or the one .gmt in a .zip.

    A line is name, description, symbols, separated by tabs. Raises FileNotFoundError, and ValueError for a file
    that cannot be unpacked, a line with no symbol, a name that comes twice, or no set at all.
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(Path(path)), 1):
        if not line.strip():
            continue
        name, *rest = line.rstrip("\r\n").split("\t")
        symbols = list(dict.fromkeys(s.strip() for s in rest[1:] if s.strip()))
        if not symbols:
            found = f"{len(rest) + 1} columns without a symbol"
            raise ValueError(f"{path}: line {number}: found {found}, expected name, description and symbols")
        if name in sets:
            raise ValueError(f"{path}: line {number}: found the set {name!r} again, expected each set once")
        sets[name] = symbols
    if not sets:
        raise ValueError(f"{path}: found no gene set, expected lines of name, description and symbols")
    return sets


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected gene sets (GMT)")
    try:
        content = _unpacked(path)
        return content.decode("utf-8").splitlines()
    except (zipfile.BadZipFile, OSError, EOFError, UnicodeDecodeError) as problem:
        found = " ".join(str(problem).split())
        raise ValueError(f"{path}: found {found}, expected a GMT file (text, gz, zip)") from None


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gmt")]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"{len(members)} files named .gmt")
        return archive.read(members[0])


def measured(gene_sets: dict[str, list[str]], genes) -> dict[str, list[str]]:
    """The sets of a testable size among `genes`, cut to these."""
    known = set(genes)
    cut = {name: [g for g in symbols if g in known] for name, symbols in gene_sets.items()}
    return {name: symbols for name, symbols in cut.items() if SMALLEST_SET <= len(symbols) <= LARGEST_SET}


def prerank(ranking: pd.Series, gene_sets: dict[str, list[str]], permutations: int, seed: int) -> pd.DataFrame:
    """Preranked GSEA: gene sets whose genes gather at one end of a ranking (gene -> score, the highest first).

    Columns set, n_genes, nes (normalised enrichment score; > 0: at the high end), p, fdr; both at least
    1/permutations, which is all that so many permutations can tell. The null permutes genes, as if they were
    independent: genes of a set that vary together anyway make the FDR optimistic. No row where no set has between
    SMALLEST_SET and LARGEST_SET of the genes. Raises ValueError for scores that are NaN or genes that come twice.
    """
    if ranking.isna().any() or ranking.index.has_duplicates:
        found = f"{ranking.isna().sum()} NaN and {ranking.index.duplicated().sum()} genes twice"
        raise ValueError(f"ranking: found {found}, expected one score per gene")
    columns = ["set", "n_genes", "nes", "p", "fdr"]
    tested = measured(gene_sets, ranking.index)
    if not tested or ranking.nunique() < 2:
        return pd.DataFrame(columns=columns)
    result = gseapy.prerank(
        ranking.rename("score"), tested, min_size=SMALLEST_SET, max_size=LARGEST_SET, permutation_num=permutations,
        seed=seed, threads=1, outdir=None, no_plot=True, verbose=False,
    ).res2d  # fmt: skip
    table = pd.DataFrame({"set": result["Term"], "n_genes": result["Term"].map({k: len(v) for k, v in tested.items()})})
    for column, theirs in (("nes", "NES"), ("p", "NOM p-val"), ("fdr", "FDR q-val")):
        table[column] = result[theirs].astype(float)
    table[["p", "fdr"]] = table[["p", "fdr"]].clip(lower=1 / permutations)
    return table.sort_values(["fdr", "nes"], ignore_index=True)[columns]


def prerank_types(table: pd.DataFrame, gene_sets: dict, types, permutations: int, seed: int) -> pd.DataFrame:
    """`prerank` by the t of `lines_against_tumours`, for some cancer types and both scopes."""
    parts = []
    for (cancer_type, scope), rows in table[table["cancer_type"].isin(types)].groupby(["cancer_type", "scope"]):
        found = prerank(rows.set_index("gene")["t"], gene_sets, permutations, seed)
        parts.append(found.assign(cancer_type=cancer_type, scope=scope))
    columns = ["cancer_type", "scope", "set", "n_genes", "nes", "p", "fdr"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


# --- tables over methods ---


def gene_table(differences: dict[str, pd.DataFrame], types: list[str], most: int = 5) -> pd.DataFrame:
    """Per type, scope and direction the input's most different genes, each with its difference after alignment.

    differences: method -> `lines_against_tumours`, "input" and "RNAlign". n_significant: the genes of that
    direction with a false discovery rate below 5 %, before and after; n: all genes.
    """
    keys, rows = ["cancer_type", "scope", "gene"], []
    if not differences:
        return _none("lines and tumours cannot be compared")
    both = differences["input"].merge(differences["RNAlign"], on=keys, suffixes=("_input", "_RNAlign"))
    for (cancer_type, scope), table in both[both["cancer_type"].isin(types)].groupby(["cancer_type", "scope"]):
        for direction, sign in (("higher in lines", 1), ("lower in lines", -1)):
            top = table[sign * table["t_input"] > 0].sort_values("t_input", ascending=sign < 0).head(most)
            row = {"cancer_type": cancer_type, "scope": scope, "direction": direction}
            row["genes"] = ", ".join(f"{g} {d:+.1f}" for g, d in zip(top["gene"], top["difference_input"], strict=True))
            row["same_genes_aligned"] = ", ".join(f"{d:+.1f}" for d in top["difference_RNAlign"])
            for method in ("input", "RNAlign"):
                clear = (table[f"fdr_{method}"] < SIGNIFICANT) & (sign * table[f"t_{method}"] > 0)
                row[f"n_significant_{method}"] = int(clear.sum())
            rows.append(row | {"n": len(table)})
    return pd.DataFrame(rows) if rows else _none("no poorly aligned type has enough tumours and lines")


def _none(remark: str) -> pd.DataFrame:
    """The one row of a table that has nothing to show."""
    return pd.DataFrame([{"cancer_type": "none", "remark": remark}])


def set_table(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`prerank_types` of several methods in one table: method, cancer_type, scope, set, n_genes, …"""
    parts = [table.assign(method=method) for method, table in found.items() if len(table)]
    columns = ["method", "cancer_type", "scope", "set", "n_genes", "nes", "p", "fdr"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def side_by_side(enriched: pd.DataFrame, most: int = 6) -> pd.DataFrame:
    """`set_table` with the methods in columns: per type and scope the `most` largest |NES| with an FDR below 5 %.

    Where there is none, one row says why.
    """
    keys = ["cancer_type", "scope", "set", "n_genes"]
    if enriched.empty:
        return _none("no gene set was tested")
    wide = enriched.pivot(index=keys, columns="method", values=["nes", "fdr"])
    clear = wide["nes"].abs().where(wide["fdr"] < SIGNIFICANT).max(axis=1).dropna().sort_values(ascending=False)
    if clear.empty:
        return _none(f"no set with an FDR below {100 * SIGNIFICANT:.0f} %")
    chosen = wide.loc[clear.groupby(level=["cancer_type", "scope"]).head(most).index]
    chosen.columns = [f"{quantity}_{method}" for quantity, method in chosen.columns]
    methods = enriched["method"].unique()
    order = [*keys, *(f"{quantity}_{method}" for quantity in ("nes", "fdr") for method in methods)]
    return chosen.reset_index().sort_values(["cancer_type", "scope"], kind="stable", ignore_index=True)[order]


def sets_to_show(enriched: pd.DataFrame, most: int = 4) -> list[str]:
    """The sets clearest over all types, lower and higher in lines, and the one that each type lacks most by itself."""
    clear = enriched[enriched["fdr"] < SIGNIFICANT].sort_values(["nes", "set"])
    everywhere = clear[clear["scope"] == "difference"].groupby("set")["nes"].sum().sort_values()
    own = clear[(clear["scope"] == "own") & (clear["method"] == "input") & (clear["nes"] < 0)]
    lower, higher = everywhere[everywhere < 0].index[:most], everywhere[everywhere > 0].index[-most:]
    chosen = {*lower, *higher, *own.groupby("cancer_type")["set"].first()}
    return clear[clear["set"].isin(chosen)].groupby("set")["nes"].mean().sort_values(ascending=False).index.tolist()
