"""The notebooks as steps of a run: which figures each makes, when it is out of date, how it is executed."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import resource
import sys
import threading
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat

from lib import config

FOLDER = config.ROOT / "notebooks"
EXERCISE, SOLUTION = "exercise", "solution"  # tags of cells
FIGURE_ID = re.compile(r"^[ab]-(fig|table)[\w-]*$")


def names() -> list[str]:
    """Names of all notebooks, in order."""
    return sorted(p.stem for p in FOLDER.glob("[0-9][0-9]_*.ipynb"))


def read(name: str) -> nbformat.NotebookNode:
    """The notebook `name` as committed."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def figure_ids(name: str) -> list[str]:
    """Ids of the figures and tables that a notebook makes: the tags of their cells."""
    tags = (tag for cell in read(name).cells for tag in cell.metadata.get("tags", []))
    return [tag for tag in tags if FIGURE_ID.match(tag)]


@cache
def catalogue() -> dict[str, str]:
    """Every figure and table id, with the notebook that makes it."""
    return {i: name for name in names() for i in figure_ids(name)}


def output_paths(run: config.Profile, figure_id: str) -> list[Path]:
    """The files of a figure (.png, .pdf, its numbers as .csv) or a table (.csv, .md); the first stands for all."""
    if figure_id[2:].startswith("table"):
        return [run.figures / "tables" / f"{figure_id}.{kind}" for kind in ("csv", "md")]
    pictures = [run.figures / f"{figure_id}.{kind}" for kind in ("png", "pdf")]
    return [*pictures, run.figures / "data" / f"{figure_id}.csv"]


def output_path(run: config.Profile, figure_id: str) -> Path:
    """The file that stands for a figure or table."""
    return output_paths(run, figure_id)[0]


def executed_path(run: config.Profile, name: str) -> Path:
    """The executed copy of a notebook."""
    return run.figures / "notebooks" / f"{name}.ipynb"


def _module_file(module: str) -> Path | None:
    path = config.ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def _parsed(source: str) -> tuple[frozenset[str], str]:
    """Names of lib's modules that Python source imports, and what the source does, without its comments."""
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(m for m in found if m.split(".")[0] == "lib" and _module_file(m)), ast.dump(tree)


def code_digest(source: str) -> str:
    """Digest of Python source and of all of lib that it uses, directly or not; comments do not count."""
    waiting, seen = {""}, {"": source}
    while waiting:
        for module in _parsed(seen[waiting.pop()])[0] - seen.keys():
            seen[module] = _module_file(module).read_text()
            waiting.add(module)
    texts = (module + _parsed(text)[1] for module, text in sorted(seen.items()))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def settings_digest(run: config.Profile) -> str:
    """Digest of every setting of a run that its results depend on."""
    settings = run.model_dump(mode="json", exclude={"title", "estimates", "data_dir"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def headlines(run: config.Profile, name: str) -> list[str]:
    """What the executed notebook says in its cells tagged `headline`: results in words, from its own tables."""
    path = executed_path(run, name)
    if not path.is_file():
        return []
    cells = nbformat.read(path, as_version=4).cells
    outputs = [o for c in cells if "headline" in c.metadata.get("tags", []) for o in c.get("outputs", [])]
    texts = [o.get("data", {}).get("text/markdown") or o.get("text", "") for o in outputs]
    return [line for text in texts for line in text.splitlines() if line]


def code(name: str) -> str:
    """All code of a notebook."""
    return "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")


def start(profile: str, data_dir: str | None = None, seed: int | None = None) -> config.Profile:
    """Begin a notebook: load its profile, fix the number of threads, set the style of all figures."""
    import threadpoolctl
    import torch

    from lib import plots

    folder = Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()
    if (folder / "lib" / "config.py").is_file() and folder != config.ROOT:
        raise RuntimeError(f"lib: found that of {config.ROOT}, expected that of {folder}; start it by ./run_all.sh lab")
    run = config.load(profile, data_dir, seed)
    # The order of a floating-point sum depends on the number of threads: fixed, so that tables repeat.
    threadpoolctl.threadpool_limits(run.threads)
    torch.set_num_threads(run.threads)
    plots.use_style(run)
    return run


def checkpoint_dir(run: config.Profile, module: str) -> Path:
    """Where a model's training leaves its checkpoints: another folder whenever the model's code changes."""
    return run.processed / "checkpoints" / f"{module.rpartition('.')[2]}-{code_digest(f'import {module}')}"


@contextmanager
def _forward_progress(path: Path):
    """Copy what a kernel writes to its progress file to the terminal, until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    done = threading.Event()

    def follow():
        with path.open("rb") as progress:
            while True:
                last = done.wait(0.5)
                if (text := progress.read()) and sys.stderr.isatty():
                    sys.stderr.buffer.write(text)
                    sys.stderr.flush()
                if last:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink()


def say(text: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _failure(error: Exception, name: str, executed: Path) -> str:
    cell = getattr(error, "exec_count", None) or "?"
    reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    reason = reason.splitlines()[0]
    shown = os.path.relpath(executed, config.ROOT)
    return f"{name}  FAILED in cell [{cell}]: {reason}\n          open the executed copy: {shown}"


def is_tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", [])


def without_exercises(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook without its exercises and their solutions, for a user's own files: these need data like the demo's."""
    kept = [cell for cell in notebook.cells if not is_tagged(cell, EXERCISE) and not is_tagged(cell, SOLUTION)]
    return nbformat.from_dict(notebook | {"cells": [c for c in kept if not c.source.startswith("## Exercises")]})


def execute(name: str, profile: str, data_dir: str | None, seed: int | None) -> bool:
    """Run a notebook headlessly by papermill into figures/<profile>/notebooks; say how it went, in a line.

    The executed copy takes its place only when the notebook ran to its end; a failed one is left beside it as
    `<name>.failed.ipynb`. Returns whether it ran to its end.
    """
    import papermill

    run = config.load(profile, data_dir, seed)
    executed = executed_path(run, name)
    failed = executed.with_name(f"{name}.failed.ipynb")
    progress = run.processed / f"{name}.progress"
    executed.parent.mkdir(parents=True, exist_ok=True)
    os.environ["RNATLAS_PROGRESS"] = str(progress)
    nbformat.write(without_exercises(read(name)) if run.data.kind == "files" else read(name), failed)
    say(f"{name}  started")
    began = time.monotonic()
    try:
        with _forward_progress(progress):
            papermill.execute_notebook(
                str(failed),
                str(failed),
                parameters={"profile": str(profile), "data_dir": data_dir, "seed": seed},
                kernel_name="python3",
                cwd=str(config.ROOT),
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],
            )
    except Exception as error:  # papermill's own, the kernel's death, or a missing kernel: all are this step's failure
        say(_failure(error, name, failed))
        return False
    os.replace(failed, executed)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    made = " ".join(figure_ids(name)) or "no figures"
    say(f"{name}  {time.monotonic() - began:.0f} s, {peak:.1f} GB peak: {made}")
    return True
