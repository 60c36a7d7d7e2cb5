"""What git shows of a run, without running it: pictures, tables and an index, and notebooks with their outputs."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib import config, notebooks, report
from lib.files import replacing

PICTURE_BYTES = 150_000
NOTEBOOK_BYTES = 700_000
PROGRESS = re.compile(r"\d+%\|.*\||\d+/\d+ \[\d+:\d+")
MACHINE_PATH = re.compile(r"/(home|root|Users|tmp)/\w")


def shrink(png: bytes, limit: int) -> bytes:
    """A PNG of at most `limit` bytes: as it is, else with fewer colours, else smaller; its text is kept."""
    if len(png) <= limit:
        return png
    with Image.open(io.BytesIO(png)) as opened:
        told = PngInfo()
        for key, value in getattr(opened, "text", {}).items():
            told.add_itxt(key, value)
        dpi = opened.info.get("dpi")
        full = Image.new("RGB", opened.size, "white")
        full.paste(opened, mask=opened.getchannel("A") if "A" in opened.getbands() else None)
    for scale in (1, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2):
        size = [max(1, round(side * scale)) for side in full.size]
        smaller = full if scale == 1 else full.resize(size, Image.Resampling.LANCZOS)
        for colours in (None, 256, 64):
            drawn = smaller.quantize(colours, kmeans=100, dither=Image.Dither.NONE) if colours else smaller
            out = io.BytesIO()
            options = {"pnginfo": told, "optimize": True} | ({"dpi": tuple(scale * d for d in dpi)} if dpi else {})
            drawn.save(out, "png", **options)
            if out.tell() <= limit:
                return out.getvalue()
    raise ValueError(f"found a picture of {out.tell():,} bytes after all shrinking, expected at most {limit:,}")


# --- notebooks ------------------------------------------------------------------------------------------------


def _clean_output(output: dict, count: int) -> dict | None:
    """An output without what is of no use to a reader: errors on the way, progress bars, widgets, machine paths."""
    if output.get("name") == "stderr":
        return None
    output = nbformat.from_dict(output)
    output.pop("transient", None)
    if "execution_count" in output:
        output.execution_count = count
    if output.output_type == "stream":
        lines = [line.rpartition("\r")[2] for line in output.text.replace("\r\n", "\n").split("\n")]
        output.text = _without_root("\n".join(line for line in lines if not PROGRESS.search(line)))
        return output if output.text.strip() else None
    data = output.get("data", {})
    if any("jupyter.widget" in kind for kind in data):
        return None
    for kind in [kind for kind in data if kind.startswith("text/")]:
        data[kind] = _without_root(data[kind])
    return output


def _texts(output: dict) -> str:
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), *(str(data[kind]) for kind in data if kind.startswith("text/"))])


def _without_root(text: str) -> str:
    return text.replace(f"{config.ROOT}/", "").replace(str(config.ROOT), ".")


def clean(source: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook `source` with the outputs of its executed copy, as if run from top to bottom by hand.

    ValueError where the copy was made from other code, ended early, or an output names a path of this machine.
    """
    ran = [c for c in executed.cells if c.cell_type == "code"]
    ran = [c for c in ran if "injected-parameters" not in c.metadata.get("tags", [])]
    shown = nbformat.from_dict(source)
    cells = [c for c in shown.cells if c.cell_type == "code"]
    if [ast.dump(ast.parse(c.source)) for c in cells] != [ast.dump(ast.parse(c.source)) for c in ran]:
        raise ValueError("found an executed copy of other code, expected one of this notebook")
    for count, (cell, done) in enumerate(zip(cells, ran, strict=True), 1):
        if done.execution_count is None or any(o.output_type == "error" for o in done.outputs):
            raise ValueError(f"found cell {count} not run to its end, expected all")
        cell.execution_count = count
        cell.outputs = [o for o in (_clean_output(o, count) for o in done.outputs) if o]
        if found := MACHINE_PATH.search("\n".join(map(_texts, cell.outputs))):
            raise ValueError(f"found {found[0]!r} in the output of cell {count}, expected no path of this machine")
    return shown


def _with_small_pictures(notebook: nbformat.NotebookNode) -> str:
    """The notebook as text of at most NOTEBOOK_BYTES, its pictures shrunk as far as that takes."""
    for limit in (PICTURE_BYTES, 100_000, 70_000, 50_000, 35_000, 25_000, 15_000):
        for data in (o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])):
            if "image/png" in data:
                small = shrink(base64.b64decode(data["image/png"]), limit)
                data["image/png"] = base64.b64encode(small).decode()
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) <= NOTEBOOK_BYTES:
            return text
    raise ValueError(f"found {len(text.encode()):,} bytes with small pictures, expected at most {NOTEBOOK_BYTES:,}")


def shown_notebook(run: config.Profile, name: str) -> str:
    """The text of a notebook with a run's outputs, as git shows it; ValueError naming the notebook."""
    executed = report.executed(run, name)
    if executed is None:
        raise ValueError(f"{name}: found no executed copy in profile {run.name}, expected one")
    try:
        return _with_small_pictures(clean(notebooks.read(name), executed))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


# --- figures/<profile>/ ---------------------------------------------------------------------------------------


def _cell(value) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _folded_claims(claims: pd.DataFrame) -> str:
    """Claims as a folded table; nothing where there are none."""
    if claims.empty:
        return ""
    claims = claims.drop(columns="reason", errors="ignore")
    rows = [" | ".join(map(_cell, row)) for row in claims.itertuples(index=False)]
    head = [" | ".join(claims.columns), " | ".join("---" for _ in claims.columns)]
    table = "\n".join(f"| {row} |" for row in [*head, *rows])
    return f"<details><summary>Claims of the papers: {len(rows)}</summary>\n\n{table}\n\n</details>"


def _entry(run: config.Profile, figure_id: str, cells: list, claims: pd.DataFrame) -> str:
    """A figure or table in the index: picture or link, what it shows, and the papers' claims about it."""
    path = notebooks.output_path(run, figure_id)
    heading, paragraph = report.caption(cells, figure_id)
    if path.suffix == ".png":
        shown = f"![{figure_id}: {heading}]({path.name})"
    else:
        shown = f"[tables/{figure_id}.md](tables/{figure_id}.md)"
    claims = _folded_claims(report.claims_of(claims, figure_id))
    parts = [f"### {figure_id}", report.in_words(heading, paragraph), shown, claims]
    return "\n\n".join(part for part in parts if part)


def index(run: config.Profile) -> str:
    """figures/<profile>/README.md: every picture and table with its id, notebook and claims."""
    claims = report.claim_rows(run)
    command = "./run_all.sh" if run.name == "demo" else f"./run_all.sh --profile {run.name}"
    parts = [
        f"# Figures and tables of profile {run.name}",
        f"{run.title}, seed {run.seed}. `{command}` makes them and one page with all that stands behind them, "
        "`index.html`.",
    ]
    if (run.figures / "claims.md").is_file():
        parts.append("[claims.md](claims.md) puts what was measured beside every claim of both papers.")
    for name in notebooks.names():
        cells = notebooks.read(name).cells
        title = cells[0].source.splitlines()[0].lstrip("# ")
        parts.append(f"## {title}\n\nMade by [{name}](../../notebooks/{name}.ipynb).")
        parts += [_entry(run, i, cells, claims) for i in notebooks.figure_ids(name)]
    return "\n\n".join(parts) + "\n"


def _shrink_pictures(run: config.Profile) -> list[Path]:
    """Bring every picture of a run below PICTURE_BYTES; those that were above."""
    large = [p for p in sorted(run.figures.glob("*.png")) if p.stat().st_size > PICTURE_BYTES]
    for path in large:
        small, made = shrink(path.read_bytes(), PICTURE_BYTES), path.stat().st_mtime_ns
        with replacing(path) as temporary:
            temporary.write_bytes(small)
        os.utime(path, ns=(made, made))  # what is made from this figure's run stays up to date
    return large


def publish(run: config.Profile) -> list[str]:
    """Refresh figures/<profile>/ and the outputs in notebooks/; what was done, in lines.

    ValueError, before anything is written, naming what is missing or the notebook that is not fit to be shown.
    """
    missing = [i for i in notebooks.catalogue() if not notebooks.output_path(run, i).is_file()]
    if missing:
        raise ValueError(f"found no {', '.join(missing)} in profile {run.name}, expected the whole profile built")
    texts = {name: shown_notebook(run, name) for name in notebooks.names()}
    said = [f"{len(_shrink_pictures(run))} pictures brought below {PICTURE_BYTES // 1000} kB"]
    for name, text in texts.items():
        with replacing(notebooks.FOLDER / f"{name}.ipynb") as temporary:
            temporary.write_text(text, encoding="utf-8")
        said.append(f"notebooks/{name}.ipynb  {len(text.encode()) / 1000:.0f} kB")
    with replacing(run.figures / "README.md") as temporary:
        temporary.write_text(index(run), encoding="utf-8")
    return [*said, f"{report.local(run.figures / 'README.md')}  {len(notebooks.catalogue())} figures and tables"]
