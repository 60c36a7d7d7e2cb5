"""A stranger's expression file, opened with care: size, names, unit and genes are checked before anything is computed.

What the command line and the web app let in. The reading itself is lib/readers.py's.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from lib import readers

MAX_GB = 2.0  # of a file, unpacked
MIN_OVERLAP = 0.5  # share of the model's genes that a file must have
LONGEST_LINE = 2**28  # bytes; a line with a value for each of a million samples is shorter
BLOCK = 2**20
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
    for given in (path, gene_ids, gtf, samples):
        if isinstance(given, str | Path):
            refuse_too_large(given, max_gb)
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


def refuse_too_large(path: str | Path, max_gb: float) -> None:
    """ValueError, naming file, size and limit, before more than the limit is unpacked or a dataset is read."""
    path, limit = Path(path), int(max_gb * 1e9)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: found {found}, expected an expression file or table")
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: found {path.stat().st_size / 1e9:.1f} GB, expected at most {max_gb:g} (--max-gb)")
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: found a spreadsheet or a zip file, expected its table saved as CSV")
    if start.startswith(b"\x89HDF"):
        _refuse_large_hdf5(path, limit, max_gb)
    else:
        _refuse_large_text(path, limit, max_gb, zipped=start.startswith(b"\x1f\x8b"))


def _refuse_large_text(path: Path, limit: int, max_gb: float, zipped: bool) -> None:
    """Unpacks once, keeping nothing: a small .gz may hold any number of bytes, a line too."""
    size, line, utf8 = 0, 0, codecs.getincrementaldecoder("utf-8")()
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as text:
            while block := text.read(BLOCK):
                size += len(block)
                line = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else line + len(block)
                if size > limit:
                    raise ValueError(f"{path}: found more than {max_gb:g} GB once unpacked, expected less (--max-gb)")
                if b"\x00" in block or line > LONGEST_LINE:
                    raise ValueError(f"{path}: found binary data, expected a text table, HDF5 or h5ad")
                utf8.decode(block)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: found text in another encoding, expected UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OSError(f"{path}: found a truncated or damaged gzip file ({error}), expected a whole one") from None


def _refuse_large_hdf5(path: Path, limit: int, max_gb: float) -> None:
    """By what the datasets say of themselves: nothing is read."""
    sizes = []
    try:
        with h5py.File(path, "r") as file:
            file.visititems(lambda _, item: sizes.append(item.nbytes if isinstance(item, h5py.Dataset) else 0))
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{path}: found a damaged or truncated file ({reason}), expected HDF5") from None
    if sum(sizes) > limit:
        found = f"{sum(sizes) / 1e9:,.1f} GB of data once unpacked"
        raise ValueError(f"{path}: found {found}, expected at most {max_gb:g} (--max-gb)")


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
