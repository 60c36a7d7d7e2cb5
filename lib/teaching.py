"""The notebooks as a course: their exercises, and `./run_all.sh student DIR`, a copy for a class without solutions."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import nbformat

from lib import config, notebooks
from lib.notebooks import EXERCISE, SOLUTION, is_tagged

HEADING = re.compile(r"^### Exercise (\d+) \((\d+) minutes\)", re.M)
ANSWER = "# your answer"

WHOLE = ["lib", "profiles", "pyproject.toml", "environment.yml", "run_all.sh", "LICENSE", "CITATION.cff"]
TABLES = ["*.csv", "*.yaml", "README.md"]  # of data/; raw and processed data are made by the notebooks
IN_NOTEBOOKS = ["Snakefile", "GLOSSARY.md"]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*.tmp")

README = """\
# rnatlas: the course

Two papers on generative models of bulk RNA-seq, as notebooks to run, to read and to change. This is the copy for a
class: the exercises are in, the solutions are not. It needs Python 3.11, 8 GB of memory, 6 GB of disk and, for its
first command only, an internet connection. It does not need git.

    ./run_all.sh --profile smoke --cores 2   # sets up .venv (minutes, once), then runs all notebooks
    ./run_all.sh lab                         # JupyterLab on notebooks/

Start with `00_walkthrough`, the whole story in twenty minutes, then take the notebooks by their numbers. Words are
explained in [notebooks/GLOSSARY.md](notebooks/GLOSSARY.md).

Each notebook ends with three exercises. They use what the notebook has computed, so run it from top to bottom first
(*Run > Run All Cells*), then replace `{answer}` by yours. A notebook's second cell names the profile that it reads:
write `profile = "smoke"` there. The numbers of `smoke` mean nothing. Those of `demo` are worth discussing:
`./run_all.sh --cores 2` makes that profile (about {minutes:.0f} minutes); then `profile = "demo"` can stay.

| notebook | exercises | minutes |
|---|---|---|
{rows}

All data are generated (`lib/synthetic.py`). Nothing here is for diagnosis.
"""


def exercises(notebook: nbformat.NotebookNode) -> list[tuple[str, int]]:
    """(title, expected minutes) of every exercise of a notebook, in order."""
    found = []
    for cell in notebook.cells:
        heading = HEADING.search(cell.source) if is_tagged(cell, EXERCISE) else None
        if heading:
            title = cell.source[heading.end() :].partition("\n")[0].strip(" :")
            found.append((title, int(heading[2])))
    return found


def code_time(minutes: float) -> str:
    """How long a notebook's code runs, as its opening says it; minutes: estimated in the profile."""
    if minutes < 0.75:
        return "half a minute"
    return "about a minute" if minutes < 1.5 else f"about {minutes:.0f} minutes"


def without_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy whose solutions are cells to be filled in, and whose outputs are cleared."""
    student = nbformat.from_dict(notebook)
    student.metadata.pop("widgets", None)
    for cell in student.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if is_tagged(cell, SOLUTION):
            cell.source = ANSWER
            cell.metadata = nbformat.from_dict({})
    return student


def write_student(folder: str | Path) -> list[str]:
    """Write the class's copy of the repository into `folder`, whole or not at all; returns its notebooks' names.

    Holds the notebooks without solutions and outputs, lib/, profiles/, the tables of data/ and what run_all.sh needs,
    neither tests nor figures. FileExistsError for a folder that is not empty, or a file; ValueError for a folder
    inside of what is copied.
    """
    folder = Path(folder)
    _check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".student-") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        _copy_library(whole)
        _write_notebooks(whole / "notebooks")
        (whole / "README.md").write_text(_readme(), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        shutil.move(whole, folder)
    return notebooks.names()


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found = "files in it" if folder.is_dir() else "a file of that name"
        raise FileExistsError(f"student {folder}: found {found}, expected a new or an empty folder")
    copied = [config.ROOT / name for name in ("lib", "profiles", "data", "notebooks")]
    if inside := [part.name for part in copied if folder.resolve().is_relative_to(part)]:
        raise ValueError(
            f"student {folder}: found it in {inside[0]}/, which is copied; expected a folder outside of it"
        )


def _copy_library(to: Path) -> None:
    for name in WHOLE:
        source = config.ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, to / name)
    (to / "data").mkdir()
    for pattern in TABLES:
        for path in (config.ROOT / "data").glob(pattern):
            shutil.copyfile(path, to / "data" / path.name)


def _write_notebooks(to: Path) -> None:
    to.mkdir()
    for name in IN_NOTEBOOKS:
        shutil.copyfile(notebooks.FOLDER / name, to / name)
    for name in notebooks.names():
        nbformat.write(without_solutions(notebooks.read(name)), to / f"{name}.ipynb")


def _readme() -> str:
    listed = {name: exercises(notebooks.read(name)) for name in notebooks.names()}
    rows = [
        f"| [{name}](notebooks/{name}.ipynb) | {'; '.join(title for title, _ in found)} | {sum(m for _, m in found)} |"
        for name, found in listed.items()
    ]
    demo = sum(step.minutes for step in config.load("demo").estimates.values()) / 2  # on two cores
    return README.format(answer=ANSWER, rows="\n".join(rows), minutes=demo)
