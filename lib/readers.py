"""Expression files of every format the two papers use, as chunks of samples × genes in log2(TPM+1).

`open_expression(path)` looks at a file, checks it, and returns an `Expression` that yields AnnData chunks.
Text files are checked in full and copied once into a temporary HDF5 (samples × genes, float32), so that a
genes × samples table is transposed without ever being in memory; HDF5 files are read in place. Nothing read
here can run code: text and HDF5 arrays only.

Gene rule, the same for every format: ids become current HGNC symbols (`harmonise_genes`), and rows that then
share a symbol are **summed on the linear scale of the file** (counts or TPM; log values as 2^x - 1). Reads of
two loci of one gene add up, so the sum is what counting them together would have given; it needs one sample
at a time, so it streams, and a sample's value never depends on which other samples are in the file (as "keep
the row of highest mean" would).

Unit rule: the declared unit wins, and values that contradict it are an error; else the values decide
(`detect_unit`). Every refusal is one line: the file, what was found, what was expected.
"""

import contextlib
import csv
import gzip
import itertools
import os
import re
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from lib.sources import is_web_page

UNITS = ("counts", "TPM", "log2(TPM+1)", "log2(TPM+0.001)", "log2", "scaled")
FORMATS = ("xena_tsv", "depmap_csv", "gtex_gct", "archs4_h5", "flexynesis_h5", "h5ad", "delimited")
BLOCK_VALUES = 2**22  # values in hand at once, whatever the width of the file: 32 MB as float64
TOIL_FLOOR = -9.97  # log2(0.001), as Xena rounds it
MISSING = (b"NA", b"N/A", b"NAN", b"NULL", b"INF", b"-INF")  # words for a number that is none

SECOND_IDS = ("gene_name", "gene name", "gene_symbol", "symbol", "hgnc_symbol")  # of tables with two ids per gene
GENE_COLUMNS = ["symbol", "ensembl_gene_id", "entrez_id", "prev_symbol", "alias_symbol"]
ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?(?:_PAR_Y)?$")
SYMBOL_AND_ID = re.compile(r"^(.+?) \(([^()]+)\)$")
# As spreadsheets write dates in English, and MARCH1, SEPT1, OCT1 and DEC1 in German and Romance languages.
MONTH = "Jan|Feb|Mar|Mär|Mrz|Mars|Apr|May|Jun|Jul|Aug|Sep|Sept|Set|Oct|Okt|Out|Nov|Dec|Dez|Déc|Dic"
SPREADSHEET_DATE = re.compile(
    rf"^(\d{{1,2}}[-./ ]{{1,2}}({MONTH})\.?([-./ ]\d{{2,4}})?|({MONTH})[- /]\d{{1,4}}"
    r"|\d{4}-\d\d-\d\d.*|\d{1,2}[./]\d{1,2}[./]\d{2,4})$",
    re.IGNORECASE,
)
SYMBOL_LIKE = re.compile(r"^(?:[A-Z][A-Z0-9]*(?:-[A-Z0-9]+){0,2}|C\d+orf\d+)$")
SAMPLE_LIKE = re.compile(r"^(TCGA-|TARGET-|GTEX-|ACH-\d|CVCL_|GS[ME]\d{3}|[SED]RR\d|TH[R\d]|SAMPLE)", re.IGNORECASE)
ARCHS4_FIELDS = (
    "series_id", "title", "source_name_ch1", "characteristics_ch1", "singlecellprobability", "alignedreads",
    "library_source", "library_selection", "library_strategy", "molecule_ch1", "instrument_model",
    "platform_id", "organism_ch1", "submission_date",
)  # fmt: skip


def _refusal(where, found: str, expected: str, kind: type[Exception] = ValueError) -> Exception:
    return kind(f"{where}: found {found}, expected {expected}")


# --- genes --------------------------------------------------------------------------------------------------


def read_gene_table(gene_ids) -> pd.DataFrame | None:
    """The gene id table: path of an hgnc_complete_set TSV, or a DataFrame with GENE_COLUMNS; None stays None.

    prev_symbol and alias_symbol hold names separated by "|"; other columns are ignored, but for status.
    """
    if gene_ids is None:
        return None
    given = isinstance(gene_ids, pd.DataFrame)
    table = gene_ids if given else _read_table(gene_ids, "\t", dtype=str)
    _require_columns("gene_ids" if given else gene_ids, table, GENE_COLUMNS)
    if "status" in table:
        table = table[table["status"].fillna("Approved").eq("Approved")]
    return table[GENE_COLUMNS].astype("string").fillna("")


def harmonise_genes(ids: Sequence[str], gene_ids=None, name: str = "gene ids") -> pd.Index:
    """One current HGNC symbol per id, in the order of `ids` (duplicates possible; `Expression` sums them).

    Accepts symbols, Ensembl (versioned or not, `_PAR_Y`), Entrez and `SYMBOL (id)`. With a table the stable
    id decides, then the current symbol, then a previous symbol, then an alias; an alias counts only if `ids`
    has no row of that gene itself, and names that several genes share are left alone. Without a table symbols
    stay and Ensembl ids lose their version. Raises ValueError for empty ids and for symbols that a
    spreadsheet turned into dates ("1-Sep").
    """
    ids = [str(i).strip() for i in ids]
    split = [_split_gene_id(i) for i in ids]
    _refuse_bad_ids(ids, split, name)
    table = read_gene_table(gene_ids)
    if table is None:
        return pd.Index([symbol or stable for symbol, stable in split], dtype=object)
    current = set(table["symbol"])
    stable_ids = {}
    for column in ("ensembl_gene_id", "entrez_id"):
        stable_ids |= dict(zip(table[column], table["symbol"], strict=True))
    stable_ids.pop("", None)
    previous = _unambiguous(table, "prev_symbol", current)
    found = [_current_symbol(symbol, stable, stable_ids, current, previous) for symbol, stable in split]
    present = set(found)
    alias = _unambiguous(table, "alias_symbol", current | set(previous))
    return pd.Index([alias[f] if f in alias and alias[f] not in present else f for f in found], dtype=object)


def common_genes(expressions: "Sequence[Expression]", minimum: int = 1) -> pd.Index:
    """The genes all `expressions` share, in the first one's order; ValueError if fewer than `minimum`."""
    shared = expressions[0].genes
    for other in expressions[1:]:
        shared = shared[shared.isin(other.genes)]
    if len(shared) < minimum:
        files = ", ".join(f"{e.path.name} ({len(e.genes):,} genes, e.g. {e.genes[0]})" for e in expressions)
        raise _refusal(files, f"{len(shared):,} genes in common", f"at least {minimum:,}")
    return shared


def gene_lengths(gtf: str | Path, gene_ids=None) -> pd.Series:
    """Length in bp of the union of a gene's exons, by harmonised symbol, from a GENCODE or Ensembl GTF(.gz).

    Streams the file, which must have a gene's lines together, as those do. Loci that share a symbol: the
    longest. Raises ValueError for what is no such GTF.
    """
    gtf = _existing(gtf)
    ids, lengths = [], []
    for (gene, symbol), exons in _exons_by_gene(gtf):
        ids.append(f"{symbol} ({gene})" if symbol else gene)
        lengths.append(_union_length(exons))
    if not ids:
        raise _refusal(gtf, "no exon", "a GTF with features 'exon' and the attribute gene_id")
    symbols = harmonise_genes(ids, gene_ids, str(gtf))
    return pd.Series(lengths, index=symbols, name="length").groupby(level=0, sort=False).max()


def _split_gene_id(gene_id: str) -> tuple[str, str]:
    """`TP53 (ENSG00000141510.16)` -> (TP53, ENSG00000141510); the half that is missing is empty."""
    both = SYMBOL_AND_ID.match(gene_id)
    symbol, stable = both.groups() if both else ("", gene_id)
    ensembl = ENSEMBL.match(stable)
    if ensembl:
        stable = ensembl[1]
    elif not stable.isdigit():
        symbol, stable = symbol or stable, ""
    if ENSEMBL.match(symbol):  # GCT files without symbols repeat the id as its description
        symbol = ""
    return symbol, stable


def _refuse_bad_ids(ids: list[str], split: list[tuple[str, str]], name: str) -> None:
    if "" in ids:
        raise _refusal(name, f"an empty id for gene {ids.index('') + 1} of {len(ids):,}", "an id for each gene")
    dates = [i for i, (symbol, _) in zip(ids, split, strict=True) if SPREADSHEET_DATE.match(symbol)]
    if dates:
        raise _refusal(
            name,
            f"{len(dates)} gene symbols turned into dates by a spreadsheet ({', '.join(dates[:3])})",
            "symbols such as SEPTIN1 or MARCHF1: export the table again with that column as text",
        )


def _unambiguous(table: pd.DataFrame, column: str, taken: set[str]) -> dict[str, str]:
    """Old or other names -> current symbol: only names of one gene, and nobody's current name (`taken`)."""
    names = table[column].str.replace('"', "").str.split("|")
    pairs = pd.DataFrame({"name": names, "symbol": table["symbol"]}).explode("name").drop_duplicates()
    pairs = pairs[pairs["name"].ne("") & ~pairs["name"].isin(taken)]
    pairs = pairs[~pairs["name"].duplicated(keep=False)]
    return dict(zip(pairs["name"], pairs["symbol"], strict=True))


def _current_symbol(symbol: str, stable: str, stable_ids: dict, current: set, previous: dict) -> str:
    if stable in stable_ids:
        return stable_ids[stable]
    if symbol in current:
        return symbol
    return previous.get(symbol, symbol or stable)


def _exons_by_gene(path: Path) -> Iterator[tuple[tuple[str, str], list[tuple[int, int]]]]:
    """((gene_id, gene_name), [(start, end), ...]) of each gene, in the file's order."""
    seen = set()
    for gene, exons in itertools.groupby(_exons(path), key=lambda exon: exon[0]):
        if gene[0] in seen or not gene[0]:
            raise _refusal(path, f"the exons of gene_id {gene[0]!r} in two places", "a gene's lines together")
        seen.add(gene[0])
        yield gene, [(start, end) for _, start, end in exons]


def _exons(path: Path) -> Iterator[tuple[tuple[str, str], int, int]]:
    attribute = re.compile(r'(gene_id|gene_name) "([^"]*)"')
    for number, line in enumerate(_lines(path), 1):
        if line.startswith(b"#"):
            continue
        fields = line.decode().rstrip("\n").split("\t")
        if len(fields) != 9:
            raise _refusal(path, f"{len(fields)} fields in line {number}", "the 9 of a GTF")
        if fields[2] == "exon":
            found = dict(attribute.findall(fields[8]))
            yield (found.get("gene_id", ""), found.get("gene_name", "")), int(fields[3]), int(fields[4])


def _union_length(intervals: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start - 1, reached))
        reached = max(reached, end)
    return total


# --- units --------------------------------------------------------------------------------------------------


class ValueSummary:
    """What decides about a unit: range, whole numbers, and sums per sample, as they are and after 2^x - 1."""

    def __init__(self):
        self.minimum, self.maximum = np.inf, -np.inf
        self.whole, self.has_zero = True, False
        self.sums, self.exp_sums = np.zeros(0), np.zeros(0)

    def add(self, values: np.ndarray, first: int = 0) -> None:
        """Takes in a block of samples × genes: samples `first`, … and some or all of their genes."""
        self.minimum = min(self.minimum, values.min())
        self.maximum = max(self.maximum, values.max())
        self.whole = self.whole and bool((values == np.rint(values)).all())
        self.has_zero = self.has_zero or bool((values == 0).any())
        grow = (0, max(0, first + len(values) - len(self.sums)))
        self.sums, self.exp_sums = np.pad(self.sums, grow), np.pad(self.exp_sums, grow)
        self.sums[first : first + len(values)] += values.sum(axis=1)
        self.exp_sums[first : first + len(values)] += (np.exp2(np.clip(values, -10, 40)) - 1).sum(axis=1)


def detect_unit(values: ValueSummary, where="values") -> str:
    """The unit the values speak for, when nothing declares one.

    Whole numbers: counts. A maximum above 32 is no logarithm: TPM, unless a sample sums to more than the
    million that TPM can (then counts with fractions, as RSEM's). Else log2, and log2(TPM+1) where 2^x - 1
    sums to a million (± 10 %) per sample. Raises ValueError for negative values (only the declared units
    log2(TPM+0.001) and scaled have them) and for all zeros.
    """
    if values.minimum < 0:
        toil = "values >= 0, not standardised; a Xena Toil file needs its unit declared: log2(TPM+0.001)"
        raise _refusal(where, f"negative values (lowest {values.minimum:.4g})", toil)
    if values.maximum == 0:
        raise _refusal(where, "only zeros", "expression values")
    if values.whole:
        return "counts"
    if values.maximum > 32:
        return "counts" if values.sums.max() > 1.05e6 else "TPM"
    return "log2(TPM+1)" if 0.9e6 < np.median(values.exp_sums) < 1.1e6 else "log2"


def check_unit(unit: str, values: ValueSummary, n_genes: int, where="values") -> None:
    """Raises ValueError if the values contradict the declared `unit`."""
    low, high = values.minimum, values.maximum
    lowest = {"log2(TPM+0.001)": TOIL_FLOOR, "scaled": -np.inf}.get(unit, 0.0)
    highest = {"log2(TPM+1)": 20.0, "log2(TPM+0.001)": 20.0, "log2": 32.0}.get(unit, np.inf)
    log, whole_genome = unit.startswith("log2"), n_genes >= 1000
    contradictions = {
        f"{'negative values' if lowest == 0 else f'values below {lowest}'} (lowest {low:.4g})": low < lowest,
        f"values up to {high:.6g}, above the highest possible {highest:g}": high > highest,
        "a sample that sums to more than a million": unit == "TPM" and values.sums.max() > 1.05e6,
        f"fractions and nothing above {high:.4g}, as in log2": unit in ("counts", "TPM")
        and whole_genome and high <= 32 and not values.whole,
        "zeros and nothing negative, as in log2(TPM+1)": unit == "log2(TPM+0.001)"
        and whole_genome and low >= 0 and values.has_zero,
        "whole numbers only, as in counts": log and whole_genome and values.whole,
    }  # fmt: skip
    for found, is_there in contradictions.items():
        if is_there:
            raise _refusal(where, found, f"the declared unit {unit}")


def _declared_unit(text: str) -> str | None:
    """The unit that a file's own words speak of (`uns["unit"]`), if any."""
    text = text.lower().replace(" ", "")
    words = {
        "log2(tpm+0.001)": UNITS[3],
        "log2(tpm+1)": UNITS[2],
        "log2": "log2",
        "tpm": "TPM",
        "scaled": "scaled",
    }
    named = [unit for word, unit in words.items() if text.startswith(word)]
    return named[0] if named else "counts" if "count" in text else None


# --- the one result -----------------------------------------------------------------------------------------


@dataclass
class _Source:
    """What a format's reader hands over: `read(lo, hi)` gives samples × features in the file's own unit."""

    path: Path
    samples: Sequence[str]
    gene_ids: Sequence[str]
    read: Callable[[int, int], np.ndarray]
    resources: contextlib.ExitStack
    unit: str | None = None  # declared by the file
    obs: pd.DataFrame | None = None
    values: ValueSummary | None = None  # None: summarised from samples spread over the file
    together: int = 1  # samples that lie together on disk


class Expression:
    """An opened expression file: who is in it, and its values as log2(TPM+1), chunk by chunk.

    .samples, .genes  pd.Index: sample ids; current HGNC symbols, unique (rule: see the module)
    .unit             what the file holds, one of UNITS: counts, TPM, log2(TPM+1), log2(TPM+0.001), log2 (that
                      is log2(x+1) of an unknown scale), scaled (standardised per gene)
    .output_unit      what `chunks` yields: log2(TPM+1), log2(CPM+1), log2(x+1) or scaled
    .unit_note        how the one became the other; both also in each chunk's .uns["unit"], .uns["unit_note"]
    .obs              DataFrame by sample: the metadata in the file, joined with the `obs` it was opened with

    Use as a context manager, or call close(): text files have a temporary copy on disk until then.
    """

    def __init__(self, source: _Source, unit=None, gene_ids=None, obs=None, gene_lengths: pd.Series | None = None):
        self.path, self._source = source.path, source
        with source.resources:  # closed, and the temporary copy deleted, if anything below is refused
            self.samples = _sample_index(source.path, source.samples)
            symbols = harmonise_genes(source.gene_ids, gene_ids, str(source.path))
            self.unit = _decide_unit(source, unit)
            self.obs = _join_obs(self.samples, source, obs)
            self._plan_genes(symbols, gene_lengths)
            self._close = weakref.finalize(self, source.resources.pop_all().close)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self) -> str:
        shape = f"{len(self.samples):,} samples × {len(self.genes):,} genes"
        return f"Expression({self.path.name}: {shape}, {self.unit})"

    def close(self) -> None:
        """Closes the file and deletes its temporary copy."""
        self._close()

    def chunks(self, size: int = 1024, samples=None, genes=None) -> Iterator[ad.AnnData]:
        """AnnData of at most `size` samples each: X float32 in `output_unit`, obs, uns (unit, unit_note).

        samples: ids in the order wanted, or a boolean mask; genes: symbols in the order wanted; None: all.
        Memory: one chunk, plus about 200 MB. Raises ValueError for unknown ids, NaN and negative values
        (scaled values may be both).
        """
        rows = _positions(self.samples, samples, f"{self.path}: samples")
        columns = _positions(self.genes, genes, f"{self.path}: genes")
        for start in range(0, len(rows), size):
            yield self._chunk(rows[start : start + size], columns)

    def read(self, samples=None, genes=None) -> ad.AnnData:
        """All of `samples` × `genes` at once, as one chunk."""
        rows = _positions(self.samples, samples, f"{self.path}: samples")
        return self._chunk(rows, _positions(self.genes, genes, f"{self.path}: genes"))

    def _plan_genes(self, symbols: pd.Index, gene_lengths: pd.Series | None) -> None:
        gene_of, self.genes = pd.factorize(symbols)
        self._first = np.unique(gene_of, return_index=True)[1]
        self._repeated = _repeated_genes(gene_of)
        if self.unit == "scaled" and self._repeated:
            twice = symbols[symbols.duplicated()][0]
            raise _refusal(self.path, f"{twice} in several columns", "each gene once: scaled values have no sum")
        self._lengths = None
        if gene_lengths is not None and self.unit == "counts":
            self._keep_genes_with_length(gene_lengths)
        self.output_unit, how = self._conversion()
        self.unit_note = f"{how}; {len(symbols):,} gene rows -> {len(self.genes):,} genes"

    def _keep_genes_with_length(self, gene_lengths: pd.Series) -> None:
        lengths = gene_lengths.reindex(self.genes).to_numpy(float)
        self._with_length = np.flatnonzero(lengths > 0)
        if not len(self._with_length):
            found = f"no gene of gene_lengths (such as {gene_lengths.index[0]})"
            raise _refusal(self.path, found, f"symbols like {self.genes[0]}")
        self._lengths = lengths[self._with_length]
        self.genes = self.genes[self._with_length]

    def _conversion(self) -> tuple[str, str]:
        if self.unit == "counts" and self._lengths is not None:
            return "log2(TPM+1)", "counts -> log2(TPM+1) by gene length; genes without a length left out"
        if self.unit == "counts":
            return (
                "log2(CPM+1)",
                "counts -> log2(CPM+1): no gene lengths given; per million of the file's genes",
            )
        if self.unit == "log2":
            return "log2(x+1)", "log2(x+1) unchanged: that x is TPM is neither declared nor to be seen"
        if self.unit == "scaled":
            return "scaled", "standardised per gene, unchanged: there is no way back to log2(TPM+1)"
        how = "unchanged" if self.unit == "log2(TPM+1)" else "converted exactly"
        return "log2(TPM+1)", f"{self.unit} -> log2(TPM+1), {how}"

    def _chunk(self, rows: np.ndarray, columns: np.ndarray) -> ad.AnnData:
        X = np.empty((len(rows), len(columns)), np.float32)
        order = np.argsort(rows, kind="stable")
        block = max(1, BLOCK_VALUES // len(self._source.gene_ids))
        for span in _spans(rows[order], 4 * block, self._source.together):
            wanted = rows[order[span]]
            raw = self._source.read(wanted[0], wanted[-1] + 1)
            for start in range(0, len(wanted), block):
                part = wanted[start : start + block]
                values = raw[part - wanted[0]].astype(np.float64)
                X[order[span][start : start + block]] = self._convert(values, part)[:, columns]
        notes = {"unit": self.output_unit, "unit_note": self.unit_note}
        return ad.AnnData(X, obs=self.obs.iloc[rows], var=pd.DataFrame(index=self.genes[columns]), uns=notes)

    def _convert(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Samples × features in the file's unit -> samples × genes in `output_unit`."""
        self._refuse_bad(values, rows)
        if self.unit == "scaled":
            return values[:, self._first]
        if self.unit in ("log2(TPM+1)", "log2"):
            return self._merge(values, log=True)
        if self.unit == "log2(TPM+0.001)":
            values = np.maximum(np.exp2(values) - 0.001, 0.0)
        linear = self._merge(values, log=False)
        if self.unit == "counts":
            if self._lengths is not None:
                linear = linear[:, self._with_length] / self._lengths
            total = linear.sum(axis=1, keepdims=True)
            linear *= 1e6 / np.where(total > 0, total, 1.0)  # a sample without a read stays 0
        return np.log2(linear + 1.0)

    def _merge(self, values: np.ndarray, log: bool) -> np.ndarray:
        """Features -> genes; those with several features are summed on the linear scale."""
        merged = values[:, self._first]
        if self._repeated:
            features, genes, total = self._repeated
            parts = values[:, features]
            merged[:, genes] = np.log2((np.exp2(parts) - 1) @ total + 1) if log else parts @ total
        return merged

    def _refuse_bad(self, values: np.ndarray, rows: np.ndarray) -> None:
        lowest = TOIL_FLOOR if self.unit == "log2(TPM+0.001)" else 0.0
        good, expected = (values >= lowest) & (values < np.inf), f"a number of at least {lowest:g}"  # NaN is neither
        if self.unit == "scaled":
            good, expected = ~np.isinf(values), "a finite number or NaN"
        if not good.all():
            row, column = np.argwhere(~good)[0]
            where = f"{self.path}: sample {self.samples[rows[row]]!r}, gene {self._source.gene_ids[column]!r}"
            raise _refusal(where, f"{values[row, column]:.6g}", f"{expected} in {self.unit}")


def _sample_index(path: Path, samples: Sequence[str]) -> pd.Index:
    index = pd.Index([str(s) for s in samples], dtype=object)
    twice = index[index.duplicated()].unique()
    if len(twice):
        raise _refusal(path, f"{len(twice):,} sample ids twice ({', '.join(twice[:3])})", "unique sample ids")
    if not len(index):
        raise _refusal(path, "no sample", "expression values of samples")
    return index


def _decide_unit(source: _Source, unit: str | None) -> str:
    """The declared unit (argument, then file), checked against the values; else the unit they speak for."""
    if unit is not None and unit not in UNITS:
        raise _refusal("unit", repr(unit), f"one of {', '.join(UNITS)}")
    declared, values = unit or source.unit, source.values or _summarise(source)
    if not declared:
        return detect_unit(values, source.path)
    check_unit(declared, values, len(source.gene_ids), source.path)
    return declared


def _summarise(source: _Source, n: int = 64) -> ValueSummary:
    """The summary of `n` samples spread evenly over the file; NaN is refused later, with its place."""
    values = ValueSummary()
    for i, row in enumerate(np.unique(np.linspace(0, len(source.samples) - 1, n).astype(int))):
        values.add(np.nan_to_num(source.read(row, row + 1).astype(np.float64)), i)
    return values


def _repeated_genes(gene_of: np.ndarray):
    """(features, genes, features × genes summing matrix) of genes with several features; None without any."""
    counts = np.bincount(gene_of)
    genes = np.flatnonzero(counts > 1)
    if not len(genes):
        return None
    features = np.flatnonzero(counts[gene_of] > 1)
    column = np.searchsorted(genes, gene_of[features])
    return features, genes, sparse.csr_matrix((np.ones(len(features)), (np.arange(len(features)), column)))


def _join_obs(samples: pd.Index, source: _Source, obs) -> pd.DataFrame:
    """The file's own sample metadata and that of `obs` (which wins), one row per sample, else NaN."""
    carried = pd.DataFrame(index=samples) if source.obs is None else source.obs.set_axis(samples)
    if obs is None:
        return carried
    given = isinstance(obs, pd.DataFrame)
    table = obs.set_axis(obs.index.astype(str)) if given else sample_table(obs)
    name = "obs" if given else obs
    _refuse_repeated(name, table)
    if not samples.isin(table.index).any():
        found = f"samples like {', '.join(table.index[:2])}"
        raise _refusal(name, found, f"ids like {samples[0]} ({source.path.name})")
    return carried.drop(columns=table.columns.intersection(carried.columns)).join(table)


def _positions(index: pd.Index, wanted, name: str) -> np.ndarray:
    if wanted is None:
        return np.arange(len(index))
    wanted = np.asarray(wanted)
    if wanted.dtype == bool:
        if len(wanted) != len(index):
            raise _refusal(name, f"a mask of {len(wanted):,}", f"{len(index):,} values")
        return np.flatnonzero(wanted)
    positions = index.get_indexer(wanted)
    unknown = wanted[positions < 0]
    if len(unknown):
        found = f"{len(unknown):,} unknown ids ({', '.join(map(str, unknown[:3]))})"
        raise _refusal(name, found, f"ids like {index[0]}")
    return positions


def _spans(rows: np.ndarray, limit: int, together: int) -> Iterator[slice]:
    """Slices of sorted `rows` to read in one go: at most `limit` wide, without a gap above `together`."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] - rows[start] >= limit or rows[i] - rows[i - 1] > together:
            yield slice(start, i)
            start = i


# --- HDF5 formats (options: gene_ids, obs, gene_lengths, see open_expression) -------------------------------


def archs4_h5(path, unit="counts", **options) -> Expression:
    """ARCHS4 v2 gene counts (human_gene_v2.5.h5; Lachmann 2018; layout as archs4py reads it).

    data/expression  genes × samples, uint32 (v2.2: 67,186 × 722,425; v2.5: 888,821 samples)
    meta/genes/      symbol, ensembl_gene (v2.2: ensembl_gene_id), biotype
    meta/samples/    one array each: geo_accession, series_id, title, source_name_ch1, characteristics_ch1
                     ("tissue: liver,age: 40"), singlecellprobability, alignedreads, molecule_ch1,
                     platform_id, instrument_model, library_selection, library_source, library_strategy,
                     organism_ch1, submission_date, …
    meta/info/       author, contact, creation-date, laboratory, version
    """
    path, file, resources = _open_h5(path)
    matrix = _dataset(path, file, "data/expression")
    samples = _strings(_dataset(path, file, "meta/samples/geo_accession"))
    genes = _archs4_genes(path, file)
    _check_shape(path, "data/expression", matrix.shape, (len(genes), len(samples)), "genes × samples")
    fields = {f: file[f"meta/samples/{f}"] for f in ARCHS4_FIELDS if f"meta/samples/{f}" in file}
    obs = pd.DataFrame({f: _strings(d) if d.dtype.kind in "OS" else d[:] for f, d in fields.items()})
    together = matrix.chunks[1] if matrix.chunks else 1
    source = _Source(path, samples, genes, lambda lo, hi: matrix[:, lo:hi].T, resources, obs=obs, together=together)
    return Expression(source, unit, **options)


def flexynesis_h5(path, unit=None, **options) -> Expression:
    """Flexynesis' matrix, samples × genes with names as bytes, in both layouts that occur.

    expression, gene_symbols, sample_ids  as paper B's authors deposited it (float32, one chunk per sample)
    matrix, feature_names, sample_ids     as Flexynesis' importer reads it
    The deposited matrices are standardised per gene: open them with unit="scaled"; their NaN are kept.
    """
    path, file, resources = _open_h5(path)
    layouts = (("expression", "gene_symbols"), ("matrix", "feature_names"))
    layout = next(((m, g) for m, g in layouts if m in file and g in file), None)
    if layout is None or "sample_ids" not in file:
        raise _refusal(path, _keys(file), "sample_ids with expression, gene_symbols or matrix, feature_names")
    matrix, genes, samples = file[layout[0]], _strings(file[layout[1]]), _strings(file["sample_ids"])
    _check_shape(path, layout[0], matrix.shape, (len(samples), len(genes)), "samples × genes")
    return Expression(_Source(path, samples, genes, lambda lo, hi: matrix[lo:hi], resources), unit, **options)


def h5ad(path, unit=None, **options) -> Expression:
    """AnnData file: X (dense or CSR), obs, var's index as gene ids; uns["unit"] counts as declared unit."""
    path, file, resources = _open_h5(path)
    if not {"X", "obs", "var"} <= set(file):
        raise _refusal(path, _keys(file), "an AnnData file with X, obs and var")
    encoding = file["X"].attrs.get("encoding-type", "array")
    if encoding not in ("array", "csr_matrix"):
        raise _refusal(path, f"X stored as {encoding}", "a dense or CSR matrix, which can be read by samples")
    obs, var = ad.io.read_elem(file["obs"]), ad.io.read_elem(file["var"])
    dense = encoding == "array"
    matrix = file["X"] if dense else ad.io.sparse_dataset(file["X"])
    _check_shape(path, "X", matrix.shape, (len(obs), len(var)), "samples × genes")
    said = file["uns/unit"][()] if "uns" in file and "unit" in file["uns"] else b""
    declared = _declared_unit(said.decode() if isinstance(said, bytes) else str(said))

    def read(lo: int, hi: int) -> np.ndarray:
        return matrix[lo:hi] if dense else matrix[lo:hi].toarray()

    return Expression(_Source(path, obs.index, list(var.index), read, resources, declared, obs), unit, **options)


def _archs4_genes(path: Path, file: h5py.File) -> list[str]:
    """`symbol (Ensembl id)`, or the one of them that there is."""
    symbols, ensembl = (
        next((_strings(file[f"meta/genes/{name}"]) for name in names if f"meta/genes/{name}" in file), [])
        for names in (("symbol", "gene_symbol"), ("ensembl_gene", "ensembl_gene_id"))
    )
    if not symbols and not ensembl:
        raise _refusal(path, "neither meta/genes/symbol nor ensembl_gene", "an ARCHS4 v2 gene file")
    if not symbols or not ensembl:
        return symbols or ensembl
    return [f"{s} ({e})" if s else e for s, e in zip(symbols, ensembl, strict=True)]


def _open_h5(path) -> tuple[Path, h5py.File, contextlib.ExitStack]:
    path = _existing(path)
    with open(path, "rb") as start:
        _refuse_web_page(path, start.read(512))
    resources = contextlib.ExitStack()
    try:
        return path, resources.enter_context(h5py.File(path, "r")), resources
    except OSError as problem:
        reason = str(problem).splitlines()[0]
        raise _refusal(path, f"a damaged or truncated file ({reason})", "HDF5", OSError) from None


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    if name not in file or not isinstance(file[name], h5py.Dataset):
        raise _refusal(path, f"no {name} (but {_keys(file)})", "an ARCHS4 v2 gene file with it")
    return file[name]


def _keys(file: h5py.File) -> str:
    return ", ".join(file) or "nothing"


def _check_shape(path: Path, name: str, found: tuple, expected: tuple, what: str) -> None:
    if tuple(found) != expected:
        shape = " × ".join(f"{n:,}" for n in found)
        hint = " (transposed)" if tuple(found) == expected[::-1] else ""
        raise _refusal(path, f"{name} of {shape}{hint}", f"{what} = {expected[0]:,} × {expected[1]:,}")


def _strings(dataset: h5py.Dataset) -> list[str]:
    """Decoded, with one object per distinct string: ARCHS4's metadata repeats itself."""
    codes, distinct = pd.factorize(dataset[:])
    decoded = [d.decode("utf-8", "replace") if isinstance(d, bytes) else str(d) for d in distinct]
    return np.array(decoded, dtype=object)[codes].tolist()


# --- text formats (options: gene_ids, obs, gene_lengths, cache, see open_expression) ------------------------


def xena_tsv(path, unit=None, **options) -> Expression:
    """UCSC Xena matrix, TSV(.gz): genes in rows, samples in columns, first cell "sample" or "Gene".

    Treehouse compendium (v10 PolyA): 58,581 HUGO symbols, log2(TPM+1). Toil hub (TCGA, TARGET, GTEx):
    versioned Ensembl ids, log2(TPM+0.001), which has to be declared as the unit.
    """
    return _open_text(path, "\t", "rows", unit, **options)


def depmap_csv(path, unit="log2(TPM+1)", **options) -> Expression:
    """DepMap expression, CSV(.gz): lines in rows (ACH-000001), genes in columns, first cell empty.

    CCLE_expression_full.csv (19Q4): 1,249 × 58,676, headers `TSPAN6 (ENSG00000000003)`, log2(TPM+1).
    CCLE_expression.csv has coding genes only, headers `TSPAN6 (7105)`.
    """
    return _open_text(path, ",", "columns", unit, **options)


def gtex_gct(path, unit=None, **options) -> Expression:
    """GCT 1.2(.gz), as GTEx v8 gene TPM: `#1.2`, `<genes> TAB <samples>`, then the table.

    Its columns: Name (versioned Ensembl id), Description (symbol), and samples (GTEX-1117F-0226-SM-5GZZ7).
    """
    path = _existing(path)
    lines = _lines(path)
    version, size = (next(lines, b"").decode("utf-8", "replace").split() for _ in range(2))
    if version != ["#1.2"] or len(size) != 2 or not all(n.isdigit() for n in size):
        found = f"{' '.join(version)!r} and {' '.join(size)[:40]!r}"
        raise _refusal(path, found, "'#1.2' and '<genes> <samples>' as the first two lines")
    shape = (int(size[1]), int(size[0]))
    return _open_text(path, "\t", "rows", unit, skip=2, labels=2, shape=shape, **options)


def delimited(path, unit=None, genes_in=None, gene_ids=None, **options) -> Expression:
    """Any CSV or TSV(.gz) with header and id column; genes_in: "rows", "columns"; None: told by the ids."""
    path = _existing(path)
    sep = _separator(path)
    genes_in = genes_in or _gene_axis(path, sep, gene_ids)
    if genes_in not in ("rows", "columns"):
        raise _refusal("genes_in", repr(genes_in), "'rows' or 'columns'")
    return _open_text(path, sep, genes_in, unit, gene_ids=gene_ids, **options)


def _open_text(path, sep, genes_in, unit, cache=None, skip=0, labels=1, shape=None, **options) -> Expression:
    """Checks a table and copies it to a temporary HDF5; shape: samples × genes, where the file says it."""
    path = _existing(path)
    with contextlib.ExitStack() as resources:
        folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="rnatlas-", dir=cache))
        file = resources.enter_context(h5py.File(os.path.join(folder, "copy.h5"), "w"))
        header = _header(path, sep, skip)
        if genes_in == "rows" and header[1].lower() in SECOND_IDS:
            labels = 2  # as nf-core's gene_id, gene_name
        header = header[labels:]
        if "" in header:
            raise _refusal(path, f"no name above column {labels + header.index('') + 1}", "one above each column")
        if genes_in == "rows":
            _sample_index(path, header)  # before the long work
        rows, values = _copy(_rows(path, sep, header, skip, labels), len(header), genes_in, file)
        if not rows:
            raise _refusal(path, "a header and no rows", "a table of expression values")
        samples, genes = (header, rows) if genes_in == "rows" else (rows, header)
        if shape:
            _check_shape(path, "a table", (len(samples), len(genes)), shape, "samples × genes (second line)")
        matrix = file["expression"]
        kept = resources.pop_all()
    return Expression(_Source(path, samples, genes, lambda lo, hi: matrix[lo:hi], kept, values=values), unit, **options)


def _copy(rows, width: int, genes_in: str, file: h5py.File) -> tuple[list[str], ValueSummary]:
    """Writes a table's `rows` to file["expression"], samples × genes float32; gives row ids and a summary."""
    by_gene = genes_in == "rows"
    block = int(np.clip(BLOCK_VALUES // width, 1, 1024))
    chunks = (max(1, min(width, 2**18 // block)), block) if by_gene else (max(1, min(block, 2**18 // width)), width)
    shape, limits = ((width, 0), (width, None)) if by_gene else ((0, width), (None, width))
    data = file.create_dataset("expression", shape, np.float32, maxshape=limits, chunks=chunks)
    ids, values = [], ValueSummary()
    while part := list(itertools.islice(rows, block)):
        start = len(ids)
        ids.extend(label for label, _ in part)
        numbers = np.stack([n for _, n in part])
        data.resize(len(ids), axis=1 if by_gene else 0)
        if by_gene:
            data[:, start:] = numbers.T
            values.add(numbers.T)
        else:
            data[start:] = numbers
            values.add(numbers, start)
    return ids, values


def _rows(path: Path, sep: str, header: list[str], skip: int, labels: int) -> Iterator[tuple[str, np.ndarray]]:
    """(id, float64 values) of each data row, without the empty rows and ends of rows that spreadsheets leave."""
    width = labels + len(header)
    for number, line in enumerate(itertools.islice(_lines(path), skip + 1, None), 1):
        line = line.rstrip(b"\r\n")
        if not line.strip(sep.encode() + b" "):
            continue
        fields = line.split(sep.encode()) if b'"' not in line else _quoted(line, sep)
        fields = fields if any(fields[width:]) else fields[:width]
        label = _row_label([f.decode() for f in fields[:labels]])
        if len(fields) != width:
            found = f"{len(fields) - labels:,} values in row {number} ({label!r})"
            title = ", the first line, without a title above it" if number == 1 and len(fields) > width else ""
            raise _refusal(path, found, f"{len(header):,} as in the header{title}")
        yield label, _numbers(path, label, header, fields[labels:])


def _row_label(names: list[str]) -> str:
    """The id of a row: of two (GCT, nf-core) `symbol (id)`, or the first where the second is a free description."""
    first, second = names[0], names[-1]
    stable = ENSEMBL.match(first) or first.isdigit()
    described = second.upper() in ("", "NA") or not (stable or SYMBOL_LIKE.match(second))
    return first if len(names) == 1 or described else f"{second} ({first})"


def _numbers(path: Path, label: str, header: list[str], fields: list[bytes]) -> np.ndarray:
    with contextlib.suppress(ValueError):
        numbers = np.array(fields, dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers
    column, field = next((c, f) for c, f in zip(header, fields, strict=True) if not _is_number(f))
    found = f"{field.decode('utf-8', 'replace')[:40]!r} in row {label!r}, column {column!r}"
    words = any(character.isalpha() for character in field.decode("utf-8", "replace")) and field.upper() not in MISSING
    expected = "a number with a decimal point" if b"," in field else "a number"
    raise _refusal(path, found, f"{expected}: only samples and genes have columns" if words else expected)


def _is_number(field: bytes) -> bool:
    try:
        return bool(np.isfinite(np.array([field], dtype=np.float64)[0]))
    except ValueError:
        return False


def _quoted(line: bytes, sep: str) -> list[bytes]:
    return [f.encode() for f in next(csv.reader([line.decode()], delimiter=sep))]


def _header(path: Path, sep: str, skip: int = 0) -> list[str]:
    line = next(itertools.islice(_lines(path), skip, None), b"").rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf")
    fields = [f.decode().strip() for f in _quoted(line, sep)] if line else []
    while fields and not fields[-1]:
        fields.pop()
    if len(fields) < 2:
        found = f"the header {line.decode('utf-8', 'replace')[:40]!r}"
        raise _refusal(path, found, "names separated by tabs, commas or semicolons in the first line, without a title")
    return fields


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a text file, gzipped or not (told by its content); refuses what is no intact text."""
    with open(path, "rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else open(path, "rb") as lines:
        try:
            first = lines.readline()
            if not first:
                raise _refusal(path, "an empty file", "a table")
            _refuse_web_page(path, first)
            first.decode()
            yield first
            yield from lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
            raise _refusal(path, f"a truncated or damaged gzip file ({problem})", "a whole one", OSError) from None
        except UnicodeDecodeError:
            raise _refusal(path, "binary data", "a text table") from None


def _refuse_web_page(path: Path, start: bytes) -> None:
    if is_web_page(start):
        raise _refusal(path, "a web page (HTML)", "data; download the file itself again")


def _existing(path) -> Path:
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise _refusal(path, found, "an expression file or table", FileNotFoundError)
    return path


def _separator(path: Path) -> str:
    first = next(_lines(path))
    return max("\t,;", key=lambda sep: first.count(sep.encode()))


def _gene_axis(path: Path, sep: str, gene_ids=None) -> str:
    """Whether "rows" or "columns" are genes, by how gene-like the ids look, then by the first cell."""
    header = _header(path, sep)
    lines = itertools.islice(_lines(path), 1, 501)
    rows = [line.split(sep.encode(), 1)[0].decode().strip().strip('"') for line in lines if line.strip()]
    table = read_gene_table(gene_ids)
    known = set() if table is None else set(table["symbol"])
    in_rows, in_columns = _gene_likeness(rows, known), _gene_likeness(header[1:501], known)
    if abs(in_rows - in_columns) >= 0.3:
        return "rows" if in_rows > in_columns else "columns"
    corner = header[0].lower()
    if corner.startswith(("gene", "symbol", "ensembl", "entrez", "hugo", "hgnc")):
        return "rows"
    if corner.startswith(("sample", "cell", "depmap", "patient", "donor")):
        return "columns"
    found = f"rows like {', '.join(rows[:2])} and columns like {', '.join(header[1:3])}"
    raise _refusal(path, found, "gene ids on one axis: head the first column 'gene' or 'sample'")


def _gene_likeness(ids: list[str], known: set[str]) -> float:
    """Share of ids that look like genes: stable ids and known symbols count 1, the form of a symbol 0.5."""
    score = 0.0
    for symbol, stable in map(_split_gene_id, ids):
        if stable or symbol in known:
            score += 1.0
        elif SYMBOL_LIKE.match(symbol) and not SAMPLE_LIKE.match(symbol):
            score += 0.5
    return score / max(len(ids), 1)


# --- the entry point ----------------------------------------------------------------------------------------

READERS = {f.__name__: f for f in (xena_tsv, depmap_csv, gtex_gct, archs4_h5, flexynesis_h5, h5ad, delimited)}


def open_expression(path, format=None, unit=None, gene_ids=None, obs=None, gene_lengths=None, cache=None) -> Expression:
    """Opens and checks an expression file of any of FORMATS (told by its content if not given).

    unit          declared unit, one of UNITS; None: the format's or the file's own, else told by the values
    gene_ids      gene id table (see `harmonise_genes`), path or DataFrame
    obs           sample metadata: DataFrame by sample id, or path of a CSV/TSV(.gz) with the ids first
    gene_lengths  Series symbol -> bp: counts then become log2(TPM+1); without it log2(CPM+1)
    cache         folder for a text file's temporary copy (samples × genes × 4 bytes); None: the system's
    Raises ValueError, FileNotFoundError or OSError in one line naming file, found and expected.
    """
    path = _existing(path)
    gene_ids = read_gene_table(gene_ids)
    format = format or guess_format(path, gene_ids)
    if format not in FORMATS:
        raise _refusal("format", repr(format), f"one of {', '.join(FORMATS)}")
    options = {"gene_ids": gene_ids, "obs": obs, "gene_lengths": gene_lengths}
    if unit is not None:  # else the reader's own default
        options["unit"] = unit
    if format not in ("archs4_h5", "flexynesis_h5", "h5ad"):
        options["cache"] = cache
    return READERS[format](path, **options)


def guess_format(path, gene_ids=None) -> str:
    """One of FORMATS, from the content of the file: HDF5 by its datasets, text by its first lines."""
    path = _existing(path)
    with open(path, "rb") as start:
        magic = start.read(512)
    if magic.startswith(b"\x89HDF\r\n\x1a\n"):
        return _guess_h5(path)
    if path.suffix in (".h5", ".hdf5", ".h5ad") and not is_web_page(magic):
        raise _refusal(path, "other content" if magic else "an empty file", "HDF5, by its name", OSError)
    if next(_lines(path)).startswith(b"#1."):
        return "gtex_gct"
    sep = _separator(path)
    if sep == "," and all(SYMBOL_AND_ID.match(gene) for gene in _header(path, sep)[1:20]):
        return "depmap_csv"
    return "xena_tsv" if sep == "\t" and _gene_axis(path, sep, gene_ids) == "rows" else "delimited"


def _guess_h5(path: Path) -> str:
    _, file, resources = _open_h5(path)
    with resources:
        if "data/expression" in file:
            return "archs4_h5"
        if "sample_ids" in file and ("expression" in file or "matrix" in file):
            return "flexynesis_h5"
        if "X" in file and "obs" in file:
            return "h5ad"
        expected = "data/expression (ARCHS4), sample_ids and a matrix (Flexynesis), or X and obs (h5ad)"
        raise _refusal(path, _keys(file), expected)


# --- sample metadata ----------------------------------------------------------------------------------------


def sample_table(path, required: Sequence[str] = (), index: str | None = None) -> pd.DataFrame:
    """A CSV or TSV(.gz) of sample metadata by unique sample id (column `index`, else the first)."""
    path = _existing(path)
    sep = _separator(path)
    index = index or _header(path, sep)[0]
    table = _read_table(path, sep, dtype={index: str})
    _require_columns(path, table, [*required, *([index] if index else [])])
    table = table.set_index(index or table.columns[0])
    table.index = table.index.astype(str)
    _refuse_repeated(path, table)
    return table


def treehouse_clinical(path) -> pd.DataFrame:
    """Treehouse clinical TSV: th_sampleid, disease, age_at_dx, pedaya, gender, site_id, site_donor_id, …"""
    return sample_table(path, ["disease"], "th_sampleid")


def celligner_info(path) -> pd.DataFrame:
    """Celligner_info.csv (figshare 11965269): sampleID, type (CL or tumor), lineage, subtype, cluster, …"""
    return sample_table(path, ["lineage", "subtype", "type"], "sampleID")


def depmap_sample_info(path) -> pd.DataFrame:
    """DepMap sample_info.csv (19Q4): DepMap_ID, stripped_cell_line_name, CCLE_Name, alias, lineage, …"""
    return sample_table(path, ["stripped_cell_line_name", "lineage"], "DepMap_ID")


def gtex_samples(path) -> pd.DataFrame:
    """GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt: SAMPID, SMTS (tissue), SMTSD (part), SMAFRZE, …

    Adds `donor`, the first two parts of the sample id (GTEX-1117F), which the file has only in that id.
    """
    table = sample_table(path, ["SMTS", "SMTSD"], "SAMPID")
    return table.assign(donor=table.index.str.split("-").str[:2].str.join("-"))


def _read_table(path, sep: str, **options) -> pd.DataFrame:
    path = _existing(path)
    next(_lines(path))  # refuses an empty file and a web page
    try:
        return pd.read_csv(path, sep=sep, low_memory=False, **options)
    except (pd.errors.ParserError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise _refusal(path, f"an unreadable table ({reason})", "a whole CSV or TSV") from None


def _require_columns(name, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise _refusal(name, f"columns {', '.join(map(str, table.columns[:8]))}", f"also {', '.join(missing)}")


def _refuse_repeated(name, table: pd.DataFrame) -> None:
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise _refusal(name, f"sample {twice[0]!r} twice", "one row per sample")
