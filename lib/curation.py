"""From opened archives to compendia: every step of both papers' funnels is a function with a count.

Three compendia, one layout: `.h5ad` with X = log2(TPM+1) float32 (chunked by samples), obs with the labels
and `split` (train / validation / test), var with `mean` and `sd` over the training part, uns with `unit` and
`funnel`.

    curate_alignment, curate_alignment_file     tumours and cell lines (paper A, appendix A.2)
    curate_tissue, curate_tissue_file           labelled bulk samples (paper B, Methods and Table 1)
    curate_deposit                              paper B's own matrix, as its authors deposited it
    curate_cohort, curate_cohort_file           a cohort that training never sees, on a compendium's genes

Values never pass through memory as a whole: rows are chosen on the sample tables, then the archives are
streamed. What labels mean is decided in lib/labels.py by the reviewed tables of data/.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from lib import labels, readers
from lib.files import replacing
from lib.readers import Expression, open_expression

PARTS = ("train", "validation", "test")
NEAR_ZERO_VARIANCE = 0.01  # of log2(TPM+1): a standard deviation of 0.1, a tenth of a doubling
CHUNK = 512  # samples read, written and stored together
GENES = 64  # genes stored together while they are gone through with all their samples
BLOCK_VALUES = 2**22  # values held at once then


# --- the funnel ---------------------------------------------------------------------------------------------


class Funnel:
    """Counts of a curation that do their own arithmetic: every step says what it added or removed."""

    def __init__(self):
        self.n = 0
        self._rows: list[tuple] = []

    def add(self, operation: str, change: int, note: str = "") -> None:
        """One step; `change` > 0 for samples that came in, < 0 for samples that fell out."""
        self.n += int(change)
        self._rows.append((len(self._rows) + 1, operation, int(change), self.n, note))

    def keep(self, operation: str, obs: pd.DataFrame, mask, note: str = "") -> pd.DataFrame:
        """The rows of `obs` where `mask`, counted; RuntimeError if the counts do not add up to the table."""
        kept = obs[np.asarray(mask, bool)]
        self.add(operation, len(kept) - len(obs), note)
        if self.n != len(kept):
            raise RuntimeError(
                f"funnel, step '{operation}': counts add up to {self.n:,}, the table has {len(kept):,} rows"
            )
        return kept

    def table(self) -> pd.DataFrame:
        """step, operation, change, n (samples after the step), note."""
        return pd.DataFrame(self._rows, columns=["step", "operation", "change", "n", "note"])


@dataclass
class Compendium:
    """What a curation made: the file, its funnel, and the tables behind its decisions."""

    path: Path
    funnel: pd.DataFrame
    reports: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass
class Part:
    """One opened archive and the sample table (by sample id) that its curation goes by."""

    expression: Expression
    obs: pd.DataFrame


# --- purity ------------------------------------------------------------------------------------------------


def fill_purity(obs: pd.DataFrame, missing: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(obs with the purity of tumours completed or not, the tumours that had none).

    missing: "type median" (of the cancer type's tumours, of all tumours where the type has none), "drop", or
    "keep" (stays NaN). Cell lines are 1. Adds the column `purity_imputed`. Raises ValueError if no tumour
    has a purity to take a median of, or one is outside 0 to 1.
    """
    if missing not in ("type median", "drop", "keep"):
        raise ValueError(f"missing_purity: found {missing!r}, expected 'type median', 'drop' or 'keep'")
    tumour = obs["sample_type"] != "cell line"
    purity = pd.to_numeric(obs["purity"], errors="coerce").where(tumour, 1.0)
    outside = purity[(purity < 0) | (purity > 1)]
    if len(outside):
        raise ValueError(f"purity: found {outside.iloc[0]:g} for {outside.index[0]}, expected fractions from 0 to 1")
    gap = purity.isna()
    listed = obs.loc[gap, ["cancer_type", "source"]]
    if missing == "drop":
        return obs[~gap].assign(purity=purity[~gap], purity_imputed=False), listed
    if missing == "type median" and gap.any():
        known = purity.where(tumour)
        if known.isna().all():
            raise ValueError("purity: found none for any tumour, expected some (own estimates as a column will do)")
        medians = known.groupby(obs["cancer_type"]).median().fillna(known.median())
        purity = purity.fillna(obs["cancer_type"].map(medians))
    return obs.assign(purity=purity, purity_imputed=gap & purity.notna()), listed


# --- splits and caps ----------------------------------------------------------------------------------------


def split_by_sample(strata: pd.Series, validation: float, test: float, seed: int = 42) -> pd.Series:
    """train / validation / test for each sample, at random within every stratum.

    A stratum of n gives round(n·test) and round(n·validation) samples, halves up: three samples only train.
    """
    rng = np.random.default_rng(seed)
    part = pd.Series("train", index=strata.index, dtype=object)
    for _, rows in sorted(strata.groupby(strata.astype(str)).indices.items()):
        rows = rng.permutation(rows)
        n_test, n_validation = (int(len(rows) * fraction + 0.5) for fraction in (test, validation))
        part.iloc[rows[:n_test]] = "test"
        part.iloc[rows[n_test : n_test + n_validation]] = "validation"
    return part


def split_by_group(strata: pd.Series, groups: pd.Series, validation: float, test: float, seed: int = 42) -> pd.Series:
    """train / validation / test with no group (study, donor) in two parts and every stratum near its shares.

    Groups go in order of size, ties at random, each to the part whose strata lack most; strata count equally.
    """
    rng = np.random.default_rng(seed)
    group, names = pd.factorize(groups.astype(str))
    stratum, _ = pd.factorize(strata.astype(str), sort=True)
    counts = csr_matrix((np.ones(len(group)), (group, stratum))).toarray()
    totals = counts.sum(axis=0)
    parts = np.array(["train", "test", "validation"], dtype=object)  # a tie goes to test before validation
    lacking = np.outer([1 - validation - test, test, validation], totals)
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    part_of = np.empty(len(names), int)
    for g in order:
        part_of[g] = np.argmax((lacking * counts[g] / totals).sum(axis=1))
        lacking[part_of[g]] -= counts[g]
    return pd.Series(parts[part_of[group]], index=strata.index)


def sample_groups(obs: pd.DataFrame) -> pd.Series:
    """What must not be split: the donor where one is given, else the study, else the sample itself.

    Studies that share a series ("GSE1,GSE2" and "GSE2", a super-series) are one group.
    """
    donor = obs["donor"].astype(object).fillna("").astype(str)
    study = obs["study"].astype(object).fillna("").astype(str)
    study = study.map(_linked_studies(study[donor == ""].unique())).fillna("")
    group = ("donor " + donor).where(
        donor != "", ("study " + study).where(study != "", "sample " + obs.index.astype(str))
    )
    return group.rename("group")


def _linked_studies(studies: Sequence[str]) -> dict[str, str]:
    parts = {s: [p for p in re.split(r"[,;\s]+", s) if p] for s in studies if s}
    names = {name: i for i, name in enumerate(sorted({p for ps in parts.values() for p in ps}))}
    pairs = [(names[ps[0]], names[p]) for ps in parts.values() for p in ps]
    if not pairs:
        return {}
    rows, columns = zip(*pairs, strict=True)
    graph = csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(names),) * 2)
    _, component = connected_components(graph, directed=False)
    first = {c: name for name, c in sorted(zip(names, component, strict=True), reverse=True)}
    return {s: first[component[names[ps[0]]]] for s, ps in parts.items()}


def under_cap(obs: pd.DataFrame, cap: int | None, cap_on: str = "train", seed: int = 42) -> np.ndarray:
    """Mask of the samples left when every tissue has at most `cap`, chosen at random; obs: tissue, split.

    cap_on: "train" (the paper's arithmetic: test samples stay, what trains, validation included, is capped)
    or "compendium" (the paper's words: all samples of a tissue).
    """
    if cap_on not in ("train", "compendium"):
        raise ValueError(f"cap_on: found {cap_on!r}, expected 'train' or 'compendium'")
    keep = np.ones(len(obs), bool)
    if cap is None:
        return keep
    rng = np.random.default_rng(seed)
    capped = (obs["split"] != "test").to_numpy() if cap_on == "train" else keep.copy()
    for _, rows in sorted(obs.groupby(obs["tissue"].astype(str)).indices.items()):
        rows = rows[capped[rows]]
        if len(rows) > cap:
            keep[rng.permutation(rows)[cap:]] = False
    return keep


# --- genes --------------------------------------------------------------------------------------------------


def mad(X: np.ndarray) -> np.ndarray:
    """Median absolute deviation of each column as R's `mad`: 1.4826 · median|x − median|."""
    X = np.asarray(X, float)
    return 1.4826 * np.median(np.abs(X - np.median(X, axis=0)), axis=0)


def gene_statistics(X, train: np.ndarray, test: np.ndarray | None = None) -> pd.DataFrame:
    """Per gene over the training samples: mean, sd (divisor n), mad; variance of the standardised values.

    X: samples × genes, an array or an HDF5 data set, gone through in blocks of genes; train, test: masks
    over the samples. scaled_train, scaled_test: sample variance of (x − mean) / sd, in float32 as the
    published matrix. NaN count as the mean.
    """
    n_samples, n_genes = X.shape
    step = max(1, BLOCK_VALUES // max(n_samples, 1) // GENES) * GENES
    return pd.concat(
        [_block_statistics(X[:, i : i + step], train, test) for i in range(0, n_genes, step)],
        ignore_index=True,
    )


def _block_statistics(block: np.ndarray, train: np.ndarray, test: np.ndarray | None) -> pd.DataFrame:
    values = block[train].astype(np.float64)
    missing = np.isnan(values)
    if missing.any():
        values = np.where(missing, np.nansum(values, axis=0) / np.maximum((~missing).sum(axis=0), 1), values)
    mean, sd = values.mean(axis=0), values.std(axis=0)
    table = pd.DataFrame({"mean": mean, "sd": sd, "mad": mad(values)})
    for name, rows in (("scaled_train", train), ("scaled_test", test)):
        if rows is not None and rows.sum() > 1:
            filled = np.where(np.isnan(block[rows]), mean, block[rows])
            scaled = ((filled - mean) / np.where(sd > 0, sd, 1)).astype(np.float32)
            table[name] = scaled.var(axis=0, ddof=1, dtype=np.float64)
    return table


def top_genes(statistics: pd.DataFrame, n: int | None, by: str) -> np.ndarray:
    """Positions, in file order, of the `n` genes of highest `by` (a column; ties: the earlier); None: all."""
    if n is None or n >= len(statistics):
        return np.arange(len(statistics))
    return np.sort(np.argsort(-statistics[by].to_numpy(), kind="stable")[:n])


def above_one_percent(variances: np.ndarray) -> np.ndarray:
    """Mask of the genes with a variance above the 1 % quantile, as Flexynesis cleans up (16,292 lose 163)."""
    return variances > np.quantile(variances, 0.01)


def variable_genes(statistics: pd.DataFrame, gene_filter: str) -> np.ndarray:
    """Mask of the genes that stay after the low-variance filter.

    "faithful": the lowest 1 % of standardised variance falls, on train and on test apart, and the
    intersection stays, as in the published importer (arbitrary on standardised values, and it sees the test
    part). "corrected": genes of near-zero variance of log expression on the training part fall.
    """
    if gene_filter == "corrected":
        return (statistics["sd"] ** 2 > NEAR_ZERO_VARIANCE).to_numpy()
    if gene_filter != "faithful":
        raise ValueError(f"gene_filter: found {gene_filter!r}, expected 'faithful' or 'corrected'")
    keep = above_one_percent(statistics["scaled_train"].to_numpy())
    if "scaled_test" in statistics:
        keep &= above_one_percent(statistics["scaled_test"].to_numpy())
    return keep


# --- writing and reading compendia --------------------------------------------------------------------------


def write_compendium(
    out: Path, parts: Sequence[Part], obs: pd.DataFrame, genes: pd.Index, choose: Callable, uns: dict
) -> None:
    """Streams the samples of `obs` (column `_part`: which of `parts`) × `genes` to `out`.

    choose(X) -> var: a DataFrame by position of the genes to keep, with their statistics; X is the HDF5 data
    set of all `genes`. Missing values (deposited matrices only) become the gene's mean. Written to a
    temporary name, then renamed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.all")
    try:
        with h5py.File(scratch, "w") as file, replacing(out) as partial:
            X = _stack(file, parts, obs, genes)
            var = choose(X)
            columns = var.index.to_numpy()
            var = var.set_axis(genes[columns])
            _write_h5ad(partial, X, columns, obs.drop(columns="_part"), var, uns)
    finally:
        scratch.unlink(missing_ok=True)


def _stack(file: h5py.File, parts: Sequence[Part], obs: pd.DataFrame, genes: pd.Index) -> h5py.Dataset:
    """All rows of all parts in one data set; its chunks can be read by samples and by genes."""
    shape = (len(obs), len(genes))
    X = file.create_dataset("X", shape, np.float32, chunks=(min(CHUNK, shape[0]), min(GENES, shape[1])))
    row = 0
    for i, part in enumerate(parts):
        samples = obs.index[obs["_part"] == i]
        for chunk in part.expression.chunks(CHUNK, samples, genes):
            X[row : row + chunk.n_obs] = chunk.X
            row += chunk.n_obs
    if row != len(obs):
        raise RuntimeError(f"{len(obs):,} samples chosen, {row:,} written")
    return X


def _write_h5ad(path: Path, X, columns: np.ndarray, obs: pd.DataFrame, var: pd.DataFrame, uns: dict) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, element in (("obs", _storable(obs)), ("var", _storable(var)), ("uns", uns)):
            ad.io.write_elem(file, name, element)
        shape = (len(obs), len(columns))
        chunks = (max(1, min(CHUNK, shape[0], 2**20 // shape[1])), shape[1])
        data = file.create_dataset("X", shape, np.float32, chunks=chunks)
        data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        mean = var["mean"].to_numpy(np.float32)
        for start in range(0, len(obs), CHUNK):
            rows = X[start : start + CHUNK][:, columns]
            data[start : start + CHUNK] = np.where(np.isnan(rows), mean, rows)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Text as categories where values repeat, else as strings; missing text is "", in `tissue` NaN."""
    table = table.copy()
    for name in table.columns[[not pd.api.types.is_numeric_dtype(t) for t in table.dtypes]]:
        text = table[name].astype(object)
        text = text.where(text.notna(), np.nan if name == "tissue" else "")
        text = text.map(str, na_action="ignore")
        table[name] = text.astype("category") if name == "tissue" or text.nunique() <= len(text) / 2 else text
    return table


def load(path: str | Path, split: str | None = None) -> ad.AnnData:
    """A compendium, or its samples of one part ("train", "validation", "test" of obs.split), in memory.

    X: samples × genes, log2(TPM+1), float32. Only the part asked for is read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected a compendium (notebook 01_curation writes it)")
    backed = ad.read_h5ad(path, backed="r")
    try:
        if split is None:
            return backed.to_memory()
        if split not in PARTS or "split" not in backed.obs:
            raise ValueError(
                f"split: found {split!r}, expected one of {', '.join(PARTS)} and a compendium with obs.split"
            )
        return backed[(backed.obs["split"] == split).to_numpy()].to_memory()
    finally:
        backed.file.close()


def standardise(adata: ad.AnnData) -> ad.AnnData:
    """z-scores by the training part's mean and sd (adata.var); genes that don't vary there become 0.

    Returns a new AnnData, X float32, uns["unit"] = "z-score". Raises ValueError without var.mean and var.sd,
    or if done before.
    """
    missing = [c for c in ("mean", "sd") if c not in adata.var]
    if missing:
        raise ValueError(f"adata.var: found no {' and '.join(missing)}, expected a compendium of lib.curation")
    if adata.uns.get("unit") == "z-score":
        raise ValueError("adata: found values that are standardised already, expected log2(TPM+1)")
    mean, sd = (adata.var[c].to_numpy(np.float32) for c in ("mean", "sd"))
    X = (np.asarray(adata.X, np.float32) - mean) / np.where(sd > 0, sd, 1)
    X[:, sd == 0] = 0
    scaled = ad.AnnData(X.astype(np.float32, copy=False), obs=adata.obs.copy(), var=adata.var.copy())
    scaled.uns = {**dict(adata.uns), "unit": "z-score"}
    return scaled


# --- sample tables of the archives --------------------------------------------------------------------------

ALIGNMENT_COLUMNS = ("sample_type", "cancer_type", "subtype", "purity", "name", "donor", "source", "label")
TISSUE_COLUMNS = ("tissue", "source", "study", "donor", "label")


def _filled(obs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """`obs` with exactly `columns`; those it lacks are "" (purity: NaN)."""
    absent = {c: np.nan if c == "purity" else "" for c in columns}
    return pd.DataFrame({c: obs.get(c, absent[c]) for c in columns}, index=obs.index)


def _matched(table: pd.DataFrame, expression: Expression, what: str) -> pd.DataFrame:
    """`table`'s rows for the samples of `expression`, in its order; ValueError if it has none of them."""
    if not expression.samples.isin(table.index).any():
        has = f"it has {table.index[0]}" if len(table) else "it is empty"
        raise ValueError(
            f"{what}: found no sample of {expression.path} ({has}), expected ids like {expression.samples[0]}"
        )
    return table.reindex(expression.samples)


def _donor(samples: pd.Index) -> pd.Series:
    """Donor in sample ids of TCGA, TARGET, GTEx, Treehouse (TCGA-A7-A0CE, GTEX-1117F, THR33_1000), or ""."""
    ids = samples.to_series()
    barcode = ids.str.extract(r"^((?:TCGA|TARGET)-[^-]+-[^-]+|GTEX-[^-]+|TH\w\d*_\d+)", expand=False)
    return barcode.fillna("")


def _tumour_source(samples: pd.Index) -> pd.Series:
    ids = samples.to_series()
    return ids.str.extract("^(TCGA|TARGET)-", expand=False).fillna("Treehouse")


def _celligner_columns(samples: pd.Index, info: pd.DataFrame | None) -> pd.DataFrame:
    """Celligner_info's subtype and purity of `samples`; "" and NaN for those it does not have."""
    table = pd.DataFrame(index=samples) if info is None else info.reindex(samples)
    purity = pd.to_numeric(table["purity"], errors="coerce") if "purity" in table else np.nan
    text = table["subtype"].fillna("") if "subtype" in table else ""
    return pd.DataFrame({"subtype": text, "purity": purity}, index=samples)


def treehouse_obs(
    expression: Expression, clinical: pd.DataFrame, celligner: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Sample table of Treehouse's tumours: type from `disease`, purity and subtype from Celligner_info."""
    samples = expression.samples
    disease = _matched(clinical, expression, "clinical table")["disease"].fillna("")
    info = _celligner_columns(samples, celligner)
    types = labels.map_cancer_types(disease, "treehouse")
    text = disease + " " + info["subtype"]
    obs = pd.DataFrame({
        "sample_type": "tumour", "cancer_type": types, "purity": info["purity"], "name": samples,
        "donor": _donor(samples), "source": _tumour_source(samples), "label": disease,
        "subtype": [labels.subtype(c, t) for c, t in zip(types, text, strict=True)],
    }, index=samples)  # fmt: skip
    return _filled(obs, ALIGNMENT_COLUMNS)


def depmap_obs(
    expression: Expression, sample_info: pd.DataFrame, celligner: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Sample table of DepMap lines: type from lineage_subtype if the table has it, else lineage."""
    info = _matched(sample_info, expression, "DepMap sample_info")
    details = [c for c in ("lineage_subtype", "lineage_sub_subtype", "lineage_molecular_subtype") if c in info]
    text = info[details].fillna("").agg(" ".join, axis=1) + " " + _celligner_columns(info.index, celligner)["subtype"]
    types = labels.map_cancer_types(info["lineage"], "depmap")
    if "lineage_subtype" in info:
        by_subtype = labels.map_cancer_types(info["lineage_subtype"], "depmap")
        types = by_subtype.where(by_subtype != "", types)
    obs = pd.DataFrame({
        "sample_type": "cell line", "cancer_type": types, "purity": 1.0,
        "name": info["stripped_cell_line_name"],
        "donor": "", "source": "DepMap", "label": info["lineage"],
        "subtype": [labels.subtype(c, t) for c, t in zip(types, text, strict=True)],
    }, index=info.index)  # fmt: skip
    return _filled(obs, ALIGNMENT_COLUMNS)


def file_obs(
    expression: Expression, columns: dict[str, str | None], exclude: dict | None, wanted: Sequence[str]
) -> pd.DataFrame:
    """A user's sample table with our column names; rows of `exclude` fall out.

    columns: role -> the file's column (None: there is none). exclude: column -> values that disqualify ("*":
    any text at all). Raises ValueError for a column that the file lacks.
    """
    obs, columns, exclude = expression.obs, {r: c for r, c in columns.items() if c}, exclude or {}
    missing = [c for c in (*columns.values(), *exclude) if c not in obs]
    if missing:
        have = ", ".join(map(str, obs.columns)) or "none"
        raise ValueError(f"{expression.path}: found sample columns {have}, expected also {', '.join(missing)}")
    renamed = pd.DataFrame({role: obs[column].astype(object) for role, column in columns.items()}, index=obs.index)
    renamed = renamed.where(renamed.notna(), np.nan if "purity" in renamed else "")
    table = _filled(renamed, wanted)
    for column in table.columns.difference(["purity"]):
        table[column] = table[column].fillna("").astype(str)
    bad = np.zeros(len(obs), bool)
    for column, values in exclude.items():
        text = obs[column].astype(object).fillna("").astype(str)
        bad |= ((text != "") if "*" in values else text.isin(values)).to_numpy()
    return table[~bad]


# --- alignment compendium -----------------------------------------------------------------------------------


def curate_alignment(
    out, *, tumours, clinical, lines, line_info, celligner_info=None, gene_ids=None, **settings
) -> Compendium:
    """Treehouse tumours and DepMap lines -> alignment compendium (paper A, appendix A.2).

    tumours, lines: expression files; clinical, line_info, celligner_info: their sample tables; gene_ids: HGNC
    table; settings: as `align`. Reports: unmapped labels, missing purity, samples per cancer type, genes.
    """
    celligner = readers.celligner_info(celligner_info) if celligner_info else None
    with (
        open_expression(tumours, gene_ids=gene_ids) as t,
        open_expression(lines, "depmap_csv", gene_ids=gene_ids) as c,
    ):
        parts = [
            Part(t, treehouse_obs(t, readers.treehouse_clinical(clinical), celligner)),
            Part(c, depmap_obs(c, readers.depmap_sample_info(line_info), celligner)),
        ]
        made = align(out, parts, **settings)
    if celligner is not None:
        made.reports["celligner_lineages"] = lineages_of_both_kinds(celligner)
    return made


def lineages_of_both_kinds(celligner: pd.DataFrame) -> pd.DataFrame:
    """Celligner_info's lineages that hold both kinds (lineage, tumour, cell line), beside our types."""
    counts = celligner.groupby(["lineage", "type"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["tumor", "CL"], fill_value=0).set_axis(["tumour", "cell line"], axis=1)
    return counts[counts.min(axis=1) > 0].reset_index()


def curate_alignment_file(
    out, *, file, columns, exclude=None, samples=None, unit=None, gene_ids=None, **settings
) -> Compendium:
    """One file of a user with tumours and cell lines -> alignment compendium; labels are taken as they are.

    columns: role -> column of the sample table, at least sample_type ("tumour", "cell line") and cancer_type;
    settings: as `align`.
    """
    with open_expression(file, unit=unit, gene_ids=gene_ids, obs=samples) as expression:
        obs = file_obs(expression, columns, exclude, ALIGNMENT_COLUMNS)
        return align(out, [Part(expression, obs)], **settings)


def align(
    out,
    parts: Sequence[Part],
    *,
    genes: int | None = 3000,
    missing_purity: str = "type median",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    min_per_kind: int = 1,
    seed: int = 42,
) -> Compendium:
    """The steps that every alignment compendium goes through: types, both kinds, purity, split, genes.

    genes: how many of highest MAD over the training part, tumours and lines together; min_per_kind: samples
    that a cancer type needs of each sample type. The split is stratified by cancer type × sample type and
    keeps a donor's samples together.
    """
    funnel, reports = Funnel(), {}
    obs = _combine(parts, funnel)
    labelled = obs["cancer_type"] != ""
    reports["unmapped_labels"] = _counts(obs[~labelled], ["source", "label"])
    obs = funnel.keep("no cancer type", obs, labelled, "label not in data/cancer_type_map.csv, or empty")
    _require_both_kinds(parts, obs)
    obs, reports["missing_purity"] = _complete_purity(obs, missing_purity, funnel)
    fewest = _by_type_and_kind(obs).min(axis=1)
    if not (fewest >= min_per_kind).any():
        raise ValueError(f"{_names(parts)}: found no cancer type with {min_per_kind} of each kind, expected some")
    held = obs["cancer_type"].map(fewest) >= min_per_kind
    obs = funnel.keep("cancer type held by one kind only", obs, held, f"needs {min_per_kind} of each")
    reports["cancer_types"] = _by_type_and_kind(obs).reset_index()
    strata = obs["cancer_type"] + " × " + obs["sample_type"]
    groups = sample_groups(obs.assign(study=""))
    obs = obs.assign(split=split_by_group(strata, groups, validation_fraction, test_fraction, seed))
    funnel.add("compendium", 0, _parts_note(obs["split"]))

    shared = readers.common_genes([p.expression for p in parts])

    def choose(X):
        statistics = gene_statistics(X, (obs["split"] == "train").to_numpy())
        kept = top_genes(statistics, genes, "mad")
        reports["genes"] = pd.DataFrame({"operation": ["shared genes", "highest MAD"], "n": [len(shared), len(kept)]})
        return statistics.loc[kept, ["mean", "sd", "mad"]]

    uns = _uns(parts, funnel, seed)
    write_compendium(out, parts, obs, shared, choose, uns)
    return Compendium(Path(out), funnel.table(), reports)


def _by_type_and_kind(obs: pd.DataFrame) -> pd.DataFrame:
    return obs.groupby(["cancer_type", "sample_type"]).size().unstack(fill_value=0)


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(str(part.expression.path) for part in parts)


def _require_both_kinds(parts: Sequence[Part], obs: pd.DataFrame) -> None:
    kinds = set(obs["sample_type"])
    if not {"tumour", "cell line"} <= kinds:
        found = ", ".join(sorted(map(repr, kinds))) or "none with a cancer type"
        raise ValueError(f"{_names(parts)}: found sample types {found}, expected 'tumour' and 'cell line'")


def _complete_purity(obs: pd.DataFrame, missing: str, funnel: Funnel) -> tuple[pd.DataFrame, pd.DataFrame]:
    done = {"type median": "filled with their type's median", "drop": "dropped", "keep": "left missing"}
    completed, listed = fill_purity(obs, missing)
    change = len(completed) - len(obs)
    funnel.add("tumours without purity", change, f"{len(listed):,} {done[missing]}")
    return completed, listed.rename_axis("sample").reset_index()


def _combine(parts: Sequence[Part], funnel: Funnel) -> pd.DataFrame:
    """The parts' sample tables in one (with `_part`, `unit`), counted in; ValueError for an id in two."""
    tables = []
    for i, part in enumerate(parts):
        name, total = part.expression.path.name, len(part.expression.samples)
        sources = ", ".join(f"{s} {n:,}" for s, n in part.obs["source"].value_counts().items() if s)
        funnel.add(f"+ {name}", total, sources)
        if len(part.obs) < total:
            funnel.add("excluded by the profile", len(part.obs) - total, name)
        tables.append(part.obs.assign(_part=i, unit=part.expression.output_unit))
    obs = pd.concat(tables)
    if obs.index.duplicated().any():
        twice = obs.index[obs.index.duplicated()]
        raise ValueError(
            f"{parts[-1].expression.path}: found {len(twice)} ids of another file ({twice[0]}), expected none"
        )
    return obs


def _counts(obs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return obs.groupby(columns).size().rename("n").reset_index().sort_values("n", ascending=False, ignore_index=True)


def _parts_note(split: pd.Series) -> str:
    return ", ".join(f"{part} {(split == part).sum():,}" for part in PARTS)


def _uns(parts: Sequence[Part], funnel: Funnel, seed: int) -> dict:
    units = sorted({p.expression.output_unit for p in parts})
    notes = {p.expression.path.name: p.expression.unit_note for p in parts}
    return {"unit": " and ".join(units), "unit_notes": notes, "funnel": funnel.table(), "seed": seed}


# --- tissue compendium --------------------------------------------------------------------------------------


def archs4_obs(expression: Expression, chosen: pd.DataFrame) -> pd.DataFrame:
    """Sample table of ARCHS4's `chosen` rows (column tissue), with the submitter's own words as label."""
    obs = expression.obs.loc[chosen.index]
    obs = pd.DataFrame({
        "tissue": chosen["tissue"], "source": "ARCHS4", "study": obs["series_id"],
        "label": obs["source_name_ch1"],
    })  # fmt: skip
    return _filled(obs, TISSUE_COLUMNS)


def gtex_obs(expression: Expression, attributes: pd.DataFrame) -> pd.DataFrame:
    """Sample table of GTEx: tissue from SMTSD, donor from the sample id."""
    table = _matched(attributes, expression, "GTEx attributes")
    obs = pd.DataFrame({
        "tissue": labels.map_labels(table["SMTSD"], "GTEx SMTSD"), "source": "GTEx", "study": "GTEx",
        "donor": table["donor"], "label": table["SMTSD"],
    }, index=expression.samples)  # fmt: skip
    return _filled(obs, TISSUE_COLUMNS)


def tcga_obs(expression: Expression, phenotype: pd.DataFrame) -> pd.DataFrame:
    """Sample table of TCGA's tumours (sample type 01 to 09 in the barcode): tissue from _primary_disease."""
    code = pd.to_numeric(expression.samples.str.split("-").str[3].str[:2], errors="coerce")
    samples = expression.samples[code < 10]
    disease = _matched(phenotype, expression, "TCGA phenotype")["_primary_disease"].reindex(samples)
    obs = pd.DataFrame({
        "tissue": labels.map_labels(disease, "TCGA"), "source": "TCGA", "study": "TCGA",
        "donor": _donor(samples), "label": disease,
    }, index=samples)  # fmt: skip
    return _filled(obs, TISSUE_COLUMNS)


def depmap_tissue_obs(expression: Expression, sample_info: pd.DataFrame) -> pd.DataFrame:
    """Sample table of DepMap lines for the tissue funnel: tissue from lineage, the stripped name as label."""
    table = _matched(sample_info, expression, "DepMap sample_info")
    obs = pd.DataFrame({
        "tissue": labels.map_labels(table["lineage"], "DepMap lineage"), "source": "DepMap",
        "study": "DepMap", "label": table["stripped_cell_line_name"],
    }, index=expression.samples)  # fmt: skip
    return _filled(obs, TISSUE_COLUMNS)


def bulk_samples(expression: Expression, single_cell_max: float) -> np.ndarray:
    """Mask of ARCHS4's samples below `single_cell_max`; ValueError if it has no single-cell probability."""
    if "singlecellprobability" not in expression.obs:
        raise ValueError(f"{expression.path}: found no meta/samples/singlecellprobability, expected an ARCHS4 v2 file")
    return (pd.to_numeric(expression.obs["singlecellprobability"], errors="coerce") < single_cell_max).to_numpy()


def random_subset(n: int, size: int | None, seed: int) -> np.ndarray:
    """Mask of `size` of `n` samples, drawn without replacement (all if there are no more, or for None)."""
    chosen = np.ones(n, bool)
    if size is not None and size < n:
        chosen[:] = False
        chosen[np.random.default_rng(seed).choice(n, size, replace=False)] = True
    return chosen


def curate_tissue(
    out,
    *,
    archs4,
    gtex,
    gtex_attributes,
    tcga,
    tcga_phenotype,
    depmap=None,
    depmap_info=None,
    gene_ids=None,
    gtf=None,
    single_cell_max: float = 0.5,
    subset: int | None = 411_318,
    subset_seed: int = 42,
    exclude_cell_lines: bool = True,
    **settings,
) -> Compendium:
    """ARCHS4 + TCGA + GTEx + DepMap -> tissue compendium by paper B's funnel (Methods, Table 1).

    The ten steps in the paper's order. gtf: annotation for gene lengths, so that ARCHS4's counts become TPM
    (None: CPM); settings: as `balance`. Reports: unmapped texts by reason, cell-line hits per token, samples
    per tissue, genes.
    """
    lengths = readers.gene_lengths(gtf, gene_ids) if gtf else None
    funnel, reports = Funnel(), {}
    with contextlib.ExitStack() as opened:

        def source(path, format, **options):
            return opened.enter_context(open_expression(path, format, gene_ids=gene_ids, **options))

        a = source(archs4, "archs4_h5", gene_lengths=lengths)
        mapped = _map_archs4(a, single_cell_max, subset, subset_seed, funnel, reports)
        t, g = source(tcga, "xena_tsv", unit="log2(TPM+0.001)"), source(gtex, "gtex_gct", unit="TPM")
        parts = [
            Part(a, archs4_obs(a, mapped)),
            Part(t, tcga_obs(t, readers.sample_table(tcga_phenotype, ["_primary_disease"]))),
        ]
        parts.append(Part(g, gtex_obs(g, readers.gtex_samples(gtex_attributes))))
        lines = readers.depmap_sample_info(depmap_info) if depmap_info else None
        if depmap:
            d = source(depmap, "depmap_csv")
            parts.append(Part(d, depmap_tissue_obs(d, lines)))
        obs = _pool(parts, funnel, reports)
        if exclude_cell_lines:
            shared = readers.common_genes([p.expression for p in parts])
            names = labels.cell_line_names([] if lines is None else lines["stripped_cell_line_name"].dropna(), shared)
            obs = _without_cell_lines(obs, a, names, funnel, reports)
        return balance(out, parts, obs, funnel, reports, **settings)


def _map_archs4(a: Expression, single_cell_max, subset, subset_seed, funnel: Funnel, reports: dict) -> pd.DataFrame:
    """Steps 1 to 4: all of ARCHS4, bulk only, random subset, free text to tissue; the rows left."""
    funnel.add("ARCHS4, all samples", len(a.samples), a.path.name)
    obs = funnel.keep(
        "single cells", a.obs, bulk_samples(a, single_cell_max), f"probability {single_cell_max:g} or above"
    )
    chosen = random_subset(len(obs), subset, subset_seed)
    obs = funnel.keep("random subset", obs, chosen, "all kept" if chosen.all() else f"{subset:,}, seed {subset_seed}")
    mapped = labels.map_tissues(obs)
    unmapped = mapped["tissue"] == ""
    texts = obs.loc[unmapped, ["source_name_ch1"]].assign(reason=mapped["reason"])
    reports["unmapped_texts"] = _counts(texts, ["reason", "source_name_ch1"]) if unmapped.any() else texts
    reports["mapped_by"] = _counts(mapped.replace({"field": {"": "none"}}), ["field", "reason"])
    return funnel.keep("no tissue in free text", mapped, ~unmapped, "data/tissue_map.csv")


def _pool(parts: Sequence[Part], funnel: Funnel, reports: dict) -> pd.DataFrame:
    """Steps 5 to 8: TCGA, GTEx and DepMap come in; rows without a tissue fall out."""
    for part in parts[1:]:
        funnel.add(
            f"+ {part.obs['source'].iloc[0]}" if len(part.obs) else "+ nothing",
            len(part.obs),
            part.expression.path.name,
        )
    obs = pd.concat([p.obs.assign(_part=i, unit=p.expression.output_unit) for i, p in enumerate(parts)])
    if obs.index.duplicated().any():
        twice = obs.index[obs.index.duplicated()][0]
        raise ValueError(f"sample ids: found {twice!r} in two archives, expected unique ids")
    unmapped = obs[obs["tissue"] == ""]
    reports["unmapped_labels"] = _counts(unmapped, ["source", "label"])
    return funnel.keep("no tissue for the label", obs, obs["tissue"] != "", "candidate pool")


def _without_cell_lines(obs: pd.DataFrame, a: Expression, names: dict, funnel: Funnel, reports: dict) -> pd.DataFrame:
    """Step 9: all of DepMap, and ARCHS4 samples that carry a cell line's identifier."""
    archs4 = (obs["source"] == "ARCHS4").to_numpy()
    tokens = labels.cell_line_tokens(a.obs.loc[obs.index[archs4]], names)
    hits = pd.DataFrame({"token": tokens[tokens != ""]})
    hits["list"], hits["tissue"] = hits["token"].map(names), obs["tissue"].reindex(hits.index)
    reports["cell_line_tokens"] = _counts(hits, ["token", "list"])
    n = {"ARCHS4": len(hits), "DepMap": int((obs["source"] == "DepMap").sum())}
    is_line = obs.index.isin(hits.index) | (obs["source"] == "DepMap").to_numpy()
    return funnel.keep("cell-line identifiers", obs, ~is_line, ", ".join(f"{s} {k:,}" for s, k in n.items()))


def curate_tissue_file(
    out, *, file, columns, exclude=None, samples=None, unit=None, gene_ids=None, gtf=None, **settings
) -> Compendium:
    """One file of a user's labelled samples -> tissue compendium; labels are taken as they are.

    columns: role -> column of the sample table, at least tissue; exclude: as `file_obs`; settings: `balance`.
    """
    lengths = readers.gene_lengths(gtf, gene_ids) if gtf else None
    funnel, reports = Funnel(), {}
    with open_expression(file, unit=unit, gene_ids=gene_ids, obs=samples, gene_lengths=lengths) as expression:
        parts = [Part(expression, file_obs(expression, columns, exclude, TISSUE_COLUMNS))]
        obs = _combine(parts, funnel)
        obs = funnel.keep("no tissue", obs, obs["tissue"] != "")
        return balance(out, parts, obs, funnel, reports, **settings)


def balance(
    out,
    parts: Sequence[Part],
    obs: pd.DataFrame,
    funnel: Funnel,
    reports: dict,
    *,
    cap: int | None = 10_000,
    cap_on: str = "train",
    genes: int | None = None,
    gene_filter: str = "faithful",
    min_samples: int = 1,
    split: str = "sample",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.15,
    seed: int = 42,
) -> Compendium:
    """The steps after the pool, the same for every tissue compendium: rare tissues, split, cap, genes.

    Both splits are made of the pool and kept (obs.split_sample: stratified by tissue; obs.split_study: no
    study or donor in two parts); `split` says which is obs.split, whose training part is capped
    (`under_cap`), filters genes (`variable_genes`) and gives mean and sd. genes: how many of highest
    standard deviation over the training part (None: all that pass the filter).
    """
    if split not in ("sample", "study"):
        raise ValueError(f"split: found {split!r}, expected 'sample' or 'study'")
    size = obs["tissue"].map(obs["tissue"].value_counts())
    obs = funnel.keep("tissues with too few samples", obs, size >= min_samples, f"fewer than {min_samples}")
    if obs["tissue"].nunique() < 2:
        raise ValueError(
            f"{_names(parts)}: found {obs['tissue'].nunique()} tissues, expected at least two to tell apart"
        )
    fractions = (validation_fraction, test_fraction, seed)
    obs = obs.assign(
        **labels.organ_systems(obs["tissue"]),
        split_sample=split_by_sample(obs["tissue"], *fractions),
        split_study=split_by_group(obs["tissue"], sample_groups(obs), *fractions),
    )
    obs["split"] = obs[f"split_{split}"]
    where = "training part (with validation)" if cap_on == "train" else "whole compendium"
    note = f"{cap:,} per tissue, {where}" if cap else "no cap"
    obs = funnel.keep("cap per tissue", obs, under_cap(obs, cap, cap_on, seed), note)
    funnel.add("compendium", 0, _parts_note(obs["split"]))
    return _write_tissue(out, parts, obs, funnel, reports, genes, gene_filter, seed)


def _write_tissue(out, parts, obs, funnel, reports, genes, gene_filter, seed) -> Compendium:
    reports["tissues"] = obs.groupby(["tissue", "organ_system", "split"]).size().unstack(fill_value=0).reset_index()
    by_source = obs.groupby(["source", "split"]).size().unstack(fill_value=0)
    reports["sources"] = by_source.assign(samples=by_source.sum(axis=1)).reset_index()
    shared = readers.common_genes([p.expression for p in parts])
    test = (obs["split"] == "test").to_numpy()
    train = (obs["split"] == "train").to_numpy()
    published_train = train | (obs["split"] == "validation").to_numpy()

    def choose(X):
        statistics = gene_statistics(X, train)
        seen = gene_statistics(X, published_train, test) if gene_filter == "faithful" else statistics
        passed = np.flatnonzero(variable_genes(seen, gene_filter))
        kept = passed[top_genes(statistics.iloc[passed], genes, "sd")]
        left = pd.Series({"shared genes": len(shared), "low-variance filter": len(passed), "highest sd": len(kept)})
        steps = {"change": left.diff().fillna(0).astype(int), "n": left, "note": ["", gene_filter, ""]}
        reports["genes"] = pd.DataFrame(steps).rename_axis("operation").reset_index()
        return statistics.loc[kept, ["mean", "sd", "mad"]]

    write_compendium(out, parts, obs, shared, choose, _uns(parts, funnel, seed))
    return Compendium(Path(out), funnel.table(), reports)


def curate_deposit(
    out, *, folder, gene_filter: str = "faithful", validation_fraction: float = 0.1, seed: int = 42
) -> Compendium:
    """Paper B's deposited matrix (train/ and test/, gex.h5 and clin.csv in each) -> the same layout.

    Values stay as deposited (standardised per gene); the split is the authors', with a validation part
    carved out of train. Missing labels stay missing. Raises FileNotFoundError or ValueError naming the file
    that is missing or does not fit.
    """
    funnel, folder = Funnel(), Path(folder)
    with contextlib.ExitStack() as opened:
        parts = [_deposit_part(opened, folder / name) for name in ("train", "test")]
        obs = _combine(parts, funnel)
        training = obs["_part"] == 0
        tissues = obs.loc[training, "tissue"].fillna("")
        split = split_by_sample(tissues, validation_fraction, 0, seed).reindex(obs.index).fillna("test")
        obs = obs.assign(split=split, split_sample=split, split_study="", **labels.organ_systems(obs["tissue"]))
        funnel.add("compendium", 0, _parts_note(split))
        return _write_tissue(out, parts, obs, funnel, {}, None, gene_filter, seed)


def _deposit_part(opened: contextlib.ExitStack, folder: Path) -> Part:
    expression = opened.enter_context(open_expression(folder / "gex.h5", "flexynesis_h5", unit="scaled"))
    labels_file = folder / "clin.csv"
    clin = readers.sample_table(labels_file, ["uberon_tissue", "source"])
    missing = expression.samples.difference(clin.index)
    if len(missing):
        raise ValueError(
            f"{labels_file}: found no row for {len(missing):,} samples ({missing[0]}), expected one for each"
        )
    clin = clin.reindex(expression.samples)
    tissue = clin["uberon_tissue"].where(~clin["uberon_tissue"].isin(["nan", ""]))
    return Part(
        expression,
        _filled(clin.assign(tissue=tissue, label=clin["uberon_tissue"].fillna("")), TISSUE_COLUMNS),
    )


# --- unseen cohort ------------------------------------------------------------------------------------------


def curate_cohort(out, *, compendium, expression, phenotype=None, gene_ids=None, unit="log2(TPM+0.001)") -> Compendium:
    """TARGET (Xena) -> a cohort on a tissue compendium's genes (paper B, "TARGET cross-dataset validation").

    obs: group (AML, ALL, AML-IF, NBL, Wilms, rhabdoid, CCSK), disease, donor, source. Genes that TARGET
    lacks: see `project`.
    """
    with open_expression(expression, "xena_tsv", unit=unit, gene_ids=gene_ids) as e:
        groups = labels.target_groups(e.samples)
        table = (
            readers.sample_table(phenotype, ["_primary_disease"])
            if phenotype
            else pd.DataFrame(columns=["_primary_disease"])
        )
        obs = pd.DataFrame({
            "group": groups, "disease": table["_primary_disease"].reindex(e.samples).fillna(""),
            "donor": _donor(e.samples),
            "study": "TARGET", "source": "TARGET",
        }, index=e.samples)  # fmt: skip
        return project(out, Part(e, obs), compendium)


def curate_cohort_file(
    out, *, compendium, file, columns, exclude=None, samples=None, unit=None, gene_ids=None, gtf=None
) -> Compendium:
    """One file of a user's own cohort -> a cohort on a tissue compendium's genes; columns: role -> column."""
    lengths = readers.gene_lengths(gtf, gene_ids) if gtf else None
    with open_expression(file, unit=unit, gene_ids=gene_ids, obs=samples, gene_lengths=lengths) as expression:
        columns = {**columns, "disease": columns.get("disease") or columns.get("group")}
        obs = file_obs(expression, columns, exclude, ("group", "disease", "donor", "study", "source"))
        return project(out, Part(expression, obs), compendium)


def project(out, part: Part, compendium: str | Path) -> Compendium:
    """The samples of `part` that have a group, on the compendium's genes in its order.

    A gene that the cohort lacks gets the compendium's training mean (z-score 0) and var.missing = True. var
    keeps the compendium's mean and sd; where those are of standardised values (the deposit), they say nothing about
    log2(TPM+1), so var takes the cohort's own, as paper B did ("per-gene z-score"). Raises ValueError if no gene is
    shared.
    """
    reference = ad.read_h5ad(compendium, backed="r")
    var = reference.var[["mean", "sd"]].copy()
    unit = str(reference.uns.get("unit", ""))
    reference.file.close()
    expression, funnel = part.expression, Funnel()
    funnel.add(f"+ {expression.path.name}", len(expression.samples))
    if len(part.obs) < len(expression.samples):
        funnel.add("excluded by the profile", len(part.obs) - len(expression.samples))
    obs = funnel.keep("no group", part.obs, part.obs["group"] != "")
    present = var.index[var.index.isin(expression.genes)]
    if not len(present) or not len(obs):
        found = f"{len(obs):,} samples with a group and {len(present):,} of the compendium's {len(var):,} genes"
        raise ValueError(f"{expression.path}: found {found}, expected both")
    var["missing"] = ~var.index.isin(present)
    genes = pd.DataFrame({"operation": ["compendium's genes", "in the cohort"], "n": [len(var), len(present)]})
    uns = _uns([part], funnel, 0) | {"compendium_unit": unit}
    _write_cohort(Path(out), expression, obs.assign(unit=expression.output_unit), var, present, uns)
    return Compendium(Path(out), funnel.table(), {"groups": _counts(obs, ["group"]), "genes": genes})


def _write_cohort(
    out: Path, expression: Expression, obs: pd.DataFrame, var: pd.DataFrame, present: pd.Index, uns: dict
) -> None:
    """Cohorts are small beside a compendium (TARGET: 734 samples), so they are put together in memory."""
    columns = var.index.get_indexer(present)
    X = np.tile(var["mean"].to_numpy(np.float32), (len(obs), 1))
    row = 0
    for chunk in expression.chunks(CHUNK, obs.index, present):
        X[row : row + chunk.n_obs, columns] = chunk.X
        row += chunk.n_obs
    if uns["compendium_unit"] == "scaled":
        var["mean"], var["sd"] = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    with replacing(out) as partial:
        _write_h5ad(partial, X, np.arange(len(var)), obs, var, uns)
