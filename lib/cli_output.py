"""Where the results of `python -m lib` go: a CSV or h5ad with how it came about, whole or not at all, or the screen."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

INPUTS = ("file", "gene_ids", "gtf", "samples", "drug_response")  # options that name a file to read
TABLES = ("lines", "drugs")  # of align: beside its CSV


def say(text: str) -> None:
    """A line about how the result came about, on the standard error."""
    print("".join(c if c.isprintable() else "?" for c in text), file=sys.stderr, flush=True)


def refuse_unusable_paths(args: Namespace) -> None:
    """ValueError or OSError in a line for inputs that cannot be read, and outputs that would do harm or not fit.

    Looks at names only, so that a slip of the pen is told at once.
    """
    inputs = [path for name in INPUTS if (path := getattr(args, name, None))]
    for path in inputs:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise FileNotFoundError(f"{path}: found {found}, expected a file")
        if not os.access(path, os.R_OK):
            raise PermissionError(f"{path}: found no permission to read it, expected a readable file")
    if args.out and not args.out.parent.is_dir():
        raise FileNotFoundError(f"--out {args.out}: found no folder {args.out.parent}, expected one that is there")
    for path in outputs(args):
        if any(path.resolve() == given.resolve() for given in inputs):
            raise ValueError(f"--out {args.out}: found the input {path} itself, expected another name")
        if path.exists() and not args.replace:
            raise FileExistsError(f"--out {args.out}: found {path} there, expected a new name or --replace")


def outputs(args: Namespace) -> list[Path]:
    """The files that a command writes."""
    if not args.out:
        return []
    beside = [] if args.out.suffix == ".h5ad" else [".json"]
    beside += [f".{name}.csv" for name in TABLES if beside and args.command == "align"]
    return [args.out, *(args.out.with_suffix(ending) for ending in beside)]


def _record(args: Namespace, trained, samples) -> dict:
    """How a result came about; beside every file written."""
    return {
        "note": trained.note, "command": args.command, "file": args.file.name, "model": trained.folder.name,
        "samples": len(samples.names), "unit": samples.opened.unit, "unit_note": samples.opened.unit_note,
        "genes_found": len(samples.genes),
    }  # fmt: skip


def _write(files: dict[Path, Callable[[Path], None]]) -> None:
    """All of the files, or none."""
    from lib.files import replacing

    with ExitStack() as stack:
        temporary = {path: stack.enter_context(replacing(path)) for path in files}
        for path, write in files.items():
            write(temporary[path])
    say("written: " + ", ".join(map(str, files)))


def _show(table) -> None:
    """CSV on the standard output; on a terminal, what fits its width."""
    if sys.stdout.isatty():
        short = table.drop(columns=["note", "nearest_references"], errors="ignore")
        print(short.to_string(index=False, float_format="{:.3g}".format, max_colwidth=24))
    else:
        table.to_csv(sys.stdout, index=False, float_format="%.6g")


def _csv(table, index: bool) -> Callable[[Path], None]:
    return lambda path: table.to_csv(path, index=index, float_format="%.6g")


def _with_record(args, record: dict) -> dict[Path, Callable]:
    return {args.out.with_suffix(".json"): lambda path: path.write_text(json.dumps(record, indent=1) + "\n")}


def _h5ad(adata) -> Callable[[Path], None]:
    return lambda path: adata.write_h5ad(path)


def write_table(table, args: Namespace, trained, samples) -> None:
    """Labels of samples, a row each: as a table, or as obs of an h5ad without genes."""
    import anndata as ad

    record = _record(args, trained, samples)
    if args.out is None:
        _show(table)
    elif args.out.suffix == ".h5ad":
        _write({args.out: _h5ad(ad.AnnData(obs=table.set_index("sample"), uns=record))})
    else:
        _write({args.out: _csv(table, index=False)} | _with_record(args, record))


def write_matrix(table, args: Namespace, trained, samples) -> None:
    """Samples × columns."""
    import anndata as ad

    record = _record(args, trained, samples)
    if args.out is None:
        table.to_csv(sys.stdout, float_format="%.6g")
    elif args.out.suffix == ".h5ad":
        unit = {} if args.command == "embed" else {"unit": "log2(TPM+1)"}
        _write(
            {args.out: _h5ad(ad.AnnData(table.astype("float32"), uns=record | {"input_unit": record["unit"]} | unit))}
        )
    else:
        _write({args.out: _csv(table, index=True)} | _with_record(args, record))


def write_aligned(aligned, tables: dict, args: Namespace, trained, samples) -> None:
    """Aligned expression with its tables beside it (x.csv, x.lines.csv, x.drugs.csv) or within (h5ad: uns)."""
    record = _record(args, trained, samples)
    if args.out is None:
        _show(tables["lines"])
        say("the aligned expression itself and the drug table: --out FILE")
    elif args.out.suffix == ".h5ad":
        aligned.uns = record | {"input_unit": record["unit"], "unit": "log2(TPM+1)"}
        aligned.uns |= {name: table.reset_index(drop=True) for name, table in tables.items()}
        _write({args.out: _h5ad(aligned)})
    else:
        beside = {args.out.with_suffix(f".{name}.csv"): _csv(table, index=False) for name, table in tables.items()}
        expression = aligned.to_df().rename_axis("sample")
        _write({args.out: _csv(expression, index=True)} | beside | _with_record(args, record))
