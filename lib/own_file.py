"""A stranger's expression file, opened with care: size, names, unit and genes are checked before anything is computed.

What the command line and the web app let in. The reading itself is lib/readers.py's.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from lib import readers

MAX_GB = 2.0  # of a file, unpacked
MIN_OVERLAP = 0.5  # share of the model's genes that a file must have
MOST_LABELS = 2_000_000  # samples, genes or texts in one column: far more than any study has
MOST_EXONS = 20_000_000  # lines of a GTF
LONGEST_LINE = 2**25  # bytes; a line with a value for each of a million samples is shorter
BLOCK = 2**20
NO_TABLE = {  # first bytes of files that are often taken for a table: what they are
    b"PK": "a spreadsheet or a zip file", b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file", b"\x28\xb5\x2f\xfd": "a zstd file",
    codecs.BOM_UTF16_LE: "text in UTF-16", codecs.BOM_UTF16_BE: "text in UTF-16",
}  # fmt: skip
MAX_NAME = 200
# Markup, control codes (also those that turn the direction of writing), and what a spreadsheet takes for a formula.
UNSAFE_NAME = re.compile(r"[<>\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|^[=+@]|^-\D")


def open_own(
    path: str | Path,
    genes: Sequence[str],
    unit: str | None = None,
    gene_ids=None,
    gtf: str | Path | None = None,
    samples: str | Path | None = None,
    max_gb: float = MAX_GB,
    min_overlap: float = MIN_OVERLAP,
) -> readers.Expression:
    """Open a user's file for a model of `genes` (HGNC symbols): a context manager, as lib.readers.open_expression.

    gene_ids: HGNC table, path or DataFrame (for Ensembl and Entrez ids); gtf: gives gene lengths, for counts;
    samples: table of sample labels. ValueError, FileNotFoundError or OSError in one line for files larger than
    `max_gb` once unpacked, sample names that a browser or a spreadsheet would execute, standardised values, less
    than `min_overlap` of the genes, and all that lib.readers refuses.
    """
    for given in (path, gene_ids, samples):
        if isinstance(given, str | Path):
            refuse_too_large(given, max_gb)
    if gtf is not None:
        refuse_too_large(gtf, max_gb, most_rows=MOST_EXONS)
    table = _only_symbols(genes) if gene_ids is None else readers.read_gene_table(gene_ids)
    lengths = None if gtf is None else readers.gene_lengths(gtf, table)
    expression = readers.open_expression(path, unit=unit, gene_ids=table, obs=samples, gene_lengths=lengths)
    try:
        _refuse_unsafe_names(path, expression.samples)
        if expression.unit == "scaled":
            raise ValueError(f"{path}: found standardised values, expected counts, TPM or log2(TPM+1)")
        _refuse_few_genes(expression, genes, min_overlap)
    except ValueError:
        expression.close()
        raise
    return expression


def shared_genes(expression: readers.Expression, genes: Sequence[str]) -> list[str]:
    """The model's genes that a file has, in the model's order."""
    return [gene for gene, there in zip(genes, pd.Index(genes).isin(expression.genes), strict=True) if there]


def refuse_too_large(path: str | Path, max_gb: float, most_rows: int = MOST_LABELS) -> None:
    """Refuse what could harm before any reader sees it, in one line naming file, what was found and the limit.

    ValueError or OSError, before more than `max_gb` is unpacked or a dataset is read: larger files, more than
    `most_rows` rows, MOST_LABELS columns, other kinds of file, HDF5 that leads to other files or contradicts itself.
    """
    path, limit = Path(path), int(max_gb * 1e9)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: found {found}, expected an expression file or table")
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: found {path.stat().st_size / 1e9:.1f} GB, expected at most {max_gb:g} (--max-gb)")
    with path.open("rb") as file:
        start = file.read(8)
    for magic, kind in NO_TABLE.items():
        if start.startswith(magic):
            raise ValueError(f"{path}: found {kind}, expected its table saved as CSV (UTF-8)")
    if start.startswith(b"\x89HDF"):
        _refuse_harmful_hdf5(path, limit, max_gb)
    else:
        _refuse_harmful_text(path, max_gb, most_rows, zipped=start.startswith(b"\x1f\x8b"))


def _refuse_harmful_text(path: Path, max_gb: float, most_rows: int, zipped: bool) -> None:
    """Unpacks once, keeping nothing: a small .gz may hold any number of bytes, of lines, or a line of any length."""
    size, rows, line, utf8 = 0, 0, 0, codecs.getincrementaldecoder("utf-8")()
    first = b""
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as text:
            while block := text.read(BLOCK):
                size, rows = size + len(block), rows + block.count(b"\n")
                line = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else line + len(block)
                first += block if b"\n" not in first else b""
                if size > max_gb * 1e9:
                    raise ValueError(f"{path}: found more than {max_gb:g} GB once unpacked, expected less (--max-gb)")
                if b"\x00" in block:
                    raise ValueError(f"{path}: found binary data, expected a text table, HDF5 or h5ad")
                if line > LONGEST_LINE:
                    raise ValueError(f"{path}: found a line of {line / 1e6:.0f} MB or more, expected samples × genes")
                if rows > most_rows:
                    raise ValueError(f"{path}: found more than {most_rows:,} rows, expected samples × genes")
                utf8.decode(block)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: found text in another encoding, expected UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OSError(f"{path}: found a truncated or damaged gzip file ({error}), expected a whole one") from None
    _refuse_odd_lines(path, first)


def _refuse_odd_lines(path: Path, start: bytes) -> None:
    """By the first lines: what some programs write that no reader tells from a table with mistakes."""
    header, _, rest = start.partition(b"\n")
    if b"\r" in header.rstrip(b"\r"):
        raise ValueError(f"{path}: found lines that end as on old Macs (CR), expected LF or CRLF")
    mark = max(b"\t,;", key=header.count)
    if header.count(mark) > MOST_LABELS:
        raise ValueError(f"{path}: found more than {MOST_LABELS:,} columns, expected samples × genes")
    two = [line.decode("utf-8", "replace").rstrip("\r" + chr(mark)) for line in (header, rest.partition(b"\n")[0])]
    names, values = (len(next(csv.reader([line], delimiter=chr(mark)), [])) for line in two)
    if 1 < names == values - 1:
        expected = "a name above the first column (R: write.csv, or write.table with col.names=NA)"
        raise ValueError(f"{path}: found a header with one field less than its rows, expected {expected}")


def _refuse_harmful_hdf5(path: Path, limit: int, max_gb: float) -> None:
    """By what links and datasets say of themselves; of the values only those that say where others are."""
    items = []
    try:
        with h5py.File(path, "r") as file:
            elsewhere = file.visititems_links(lambda name, link: name if isinstance(link, h5py.ExternalLink) else None)
            file.visititems(lambda name, item: items.append((name, item)) if isinstance(item, h5py.Dataset) else None)
            elsewhere = elsewhere or next((name for name, item in items if item.external or item.is_virtual), None)
            texts = next(((name, item.size) for name, item in items if _is_long_text(item)), None)
            size = sum(_unpacked(item) for _, item in items)
            if not elsewhere and not texts and size <= limit:
                _refuse_broken_sparse(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{path}: found a damaged or truncated file ({reason}), expected HDF5") from None
    if elsewhere:
        raise ValueError(f"{path}: found that {elsewhere!r} lies in another file, expected all data within")
    if texts:
        raise ValueError(f"{path}: found {texts[1]:,} texts in {texts[0]!r}, expected at most {MOST_LABELS:,}")
    if size > limit:
        raise ValueError(
            f"{path}: found {size / 1e9:,.1f} GB of data once unpacked, expected at most {max_gb:g} (--max-gb)"
        )


def _is_long_text(item: h5py.Dataset) -> bool:
    return item.dtype.kind in "OSU" and (item.size or 0) > MOST_LABELS


def _unpacked(item: h5py.Dataset) -> int:
    """Bytes that reading a dataset takes at least: a chunk may be larger than what is in use of it."""
    chunk = int(np.prod(item.chunks, dtype=object)) * item.dtype.itemsize if item.chunks else 0
    return max(item.nbytes, chunk)


def _refuse_broken_sparse(path: Path, file: h5py.File) -> None:
    """A CSR matrix whose positions lie outside it would be read from beyond the memory that holds it."""
    matrix = file.get("X")
    if not isinstance(matrix, h5py.Group) or matrix.attrs.get("encoding-type") != "csr_matrix":
        return  # other layouts are refused by the reader
    rows, columns = (int(n) for n in matrix.attrs.get("shape", (0, 0)))
    starts, positions = matrix["indptr"][:], matrix["indices"]
    whole = len(starts) == rows + 1 and starts[0] == 0 and starts[-1] == len(positions) == len(matrix["data"])
    whole = whole and bool((np.diff(starts.astype(np.int64)) >= 0).all())
    for at in range(0, len(positions) if whole else 0, BLOCK):
        block = positions[at : at + BLOCK]
        whole = whole and block.min() >= 0 and block.max() < columns
    if not whole:
        raise ValueError(f"{path}: found a sparse matrix with positions outside it, expected {rows:,} × {columns:,}")


def _only_symbols(genes: Sequence[str]) -> pd.DataFrame:
    """A gene id table that knows the model's symbols and nothing else: enough to tell rows from columns."""
    return pd.DataFrame({"symbol": list(genes)}).reindex(columns=readers.GENE_COLUMNS, fill_value="")


def _refuse_unsafe_names(path, samples: pd.Index) -> None:
    for name in samples:
        if UNSAFE_NAME.search(name) or not name.strip() or len(name) > MAX_NAME:
            expected = f"1 to {MAX_NAME} characters, none of < > and control codes, and no formula"
            raise ValueError(f"{path}: found the sample name {name[:40]!r}, expected {expected}")


def _refuse_few_genes(expression: readers.Expression, genes: Sequence[str], min_overlap: float) -> None:
    found = len(shared_genes(expression, genes))
    if found and found >= min_overlap * len(genes):
        return
    ids = [g for g in expression.genes[:100] if readers.ENSEMBL.match(g) or g.isdigit()]
    hint = "--min-overlap takes fewer" if found else "samples and genes may be the other way round, or misspelt"
    if len(ids) > 50 or (ids and not found):
        hint = "these are stable ids: --gene-ids FILE translates them, FILE being HGNC's complete set (TSV)"
    said = f"{found:,} of the model's {len(genes):,} genes among {len(expression.genes):,} ({expression.genes[0]} …)"
    least = f"at least {min_overlap:.0%} of symbols like {genes[0]}"
    raise ValueError(f"{expression.path}: found {said}, expected {least}; {hint}")
