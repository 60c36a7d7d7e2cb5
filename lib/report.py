"""The reviewer's page of a profile, figures/<profile>/index.html: every result with all that stands behind it."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import platform
import re
import subprocess
import textwrap
import time
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

import jinja2
import mistune
import nbformat
import pandas as pd
import psutil
import yaml
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from lib import compendia, config, ledger, notebooks, sources
from lib.files import replacing

TEMPLATE = Path(__file__).with_name("report.html.j2")
CLAIM_COLUMNS = ("id", "where", "quantity", "published", "measured", "95 % interval", "n", "verdict", "reason")
FORMATTER = HtmlFormatter(nowrap=True, style="default")


def local(path: Path) -> str:
    """A path for people: relative to the repository where it lies in it."""
    return os.path.relpath(path, config.ROOT) if path.is_relative_to(config.ROOT) else str(path)


# --- what stands behind a figure ------------------------------------------------------------------------------


@cache
def _read(path: Path, changed: int) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(run: config.Profile, name: str) -> nbformat.NotebookNode | None:
    """The executed copy of a notebook; None where there is none."""
    path = notebooks.executed_path(run, name)
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


def recorded_settings(run: config.Profile, name: str) -> dict:
    """The settings with which Snakemake last made a notebook's outputs, by section; {} where it has no record."""
    key = base64.urlsafe_b64encode(local(notebooks.executed_path(run, name)).encode()).decode()
    record = config.ROOT / ".snakemake" / "metadata" / key
    if not record.is_file():
        return {}
    values = [ast.literal_eval(text) for text in json.loads(record.read_text()).get("params", [])]
    return next((value for value in values if isinstance(value, dict)), {})


def _plain(text: str) -> str:
    """Markdown as plain text on one line."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*]|^[#>]+ ?", "", text, flags=re.M).split())


def caption(cells: list, figure_id: str) -> tuple[str, str]:
    """Heading above the cell of a figure, and first paragraph of the nearest text above it that has one."""
    place = next((i for i, c in enumerate(cells) if figure_id in c.metadata.get("tags", [])), 0)
    above = [c.source for c in cells[:place] if c.cell_type == "markdown"]
    headings = [_plain(line) for text in above for line in text.splitlines() if line.startswith("#")]
    blocks = [b for text in reversed(above) for b in re.split(r"\n\s*\n", text)]
    paragraphs = [b for b in blocks if not re.match(r"\s*([#|*-]|\d+\.)\s?", b) or b.startswith("**")]
    return headings[-1] if headings else figure_id, _plain(paragraphs[0]) if paragraphs else ""


def in_words(heading: str, paragraph: str) -> str:
    """A caption as running text."""
    return f"{heading}{'' if heading.endswith('?') else '.'} {paragraph}"


def timing(run: config.Profile, name: str) -> str:
    """How long the notebook ran, and when, as papermill noted it."""
    notebook = executed(run, name)
    noted = notebook.metadata.get("papermill", {}) if notebook else {}
    if "duration" not in noted:
        return "not known"
    return f"{noted['duration']:.0f} s for the whole notebook, {noted['start_time'][:16].replace('T', ' ')} UTC"


def provenance(run: config.Profile, figure_id: str) -> dict[str, str]:
    """Where a figure or table lies and what made it: files, notebook and cell, settings, raw data, seconds."""
    name = notebooks.catalogue()[figure_id]
    notebook = executed(run, name)
    counts = [c.execution_count for c in notebook.cells if figure_id in c.metadata.get("tags", [])] if notebook else []
    sections = [s for s in recorded_settings(run, name) if s not in ("seed", "threads")]
    files = [local(p) for p in notebooks.output_paths(run, figure_id) if p.is_file()]
    cell = f"cell [{counts[0]}], " if counts else ""
    return {
        "files": ", ".join(files) or "not built",
        "made by": f"notebooks/{name}.ipynb, {cell}tagged {figure_id}",
        "executed": local(notebooks.executed_path(run, name)) if notebook else "not yet",
        "settings": f"profile {run.name}, seed {run.seed}; it uses: {', '.join(sections) or 'not recorded'}",
        "data": _data_in_words(run),
        "took": timing(run, name),
    }


def _data_in_words(run: config.Profile) -> str:
    files = _raw_files(run)
    size = sum(p.stat().st_size for p in files) / 1e6
    own = ", ".join(run.data.files) if run.data.kind == "files" else ""
    whose = {"demo": "generated by lib/synthetic.py", "archives": "public archives", "files": own}[run.data.kind]
    return f"{local(run.raw)}: {whose}; {len(files)} files, {size:,.1f} MB; SHA-256 in index.html"


# --- notebooks as HTML ----------------------------------------------------------------------------------------


class _OnPage(mistune.HTMLRenderer):
    """Headings of a notebook stand below the page's own; links to other notebooks lead to their place on the page."""

    def heading(self, text: str, level: int, **attrs) -> str:
        return f"<h{min(level + 3, 6)}>{text}</h{min(level + 3, 6)}>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if url.removesuffix(".ipynb") in notebooks.names():
            url = f"#{url.removesuffix('.ipynb')}"
        return super().link(text, url, title) if url.startswith(("#", "https://")) else text


markdown = mistune.create_markdown(renderer=_OnPage(escape=True), plugins=["table"])


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _shown(output: dict, figure_ids: list[str]) -> dict:
    """One output of a cell as what the template draws: {kind: figure | image | html | text, ...}."""
    data = output.get("data", {})
    if "image/png" in data:
        if figure_ids:
            return {"kind": "figure", "id": figure_ids[0]}
        return {"kind": "image", "uri": _uri(base64.b64decode(data["image/png"]))}
    if 'class="dataframe"' in data.get("text/html", ""):
        table = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
        return {"kind": "html", "html": table.replace(' border="1"', "")}
    if "text/markdown" in data:
        return {"kind": "html", "html": markdown(data["text/markdown"])}
    return {"kind": "text", "text": data.get("text/plain", output.get("text", ""))}


def rendered(notebook: nbformat.NotebookNode) -> list[dict]:
    """A notebook's cells for the template; pictures that the page shows as figures are only referred to."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cells.append({"kind": "markdown", "html": markdown(cell.source)})
        elif cell.cell_type == "code":
            ids = [tag for tag in cell.metadata.get("tags", []) if notebooks.FIGURE_ID.match(tag)]
            outputs = [_shown(o, ids) for o in cell.outputs if o.get("name") != "stderr"]
            code = highlight(cell.source, PythonLexer(), FORMATTER)
            cells.append({"kind": "code", "count": cell.execution_count, "html": code, "outputs": outputs})
    return cells


# --- environment and data -------------------------------------------------------------------------------------


def commit() -> str:
    """The commit of the code, and whether files differ from it; "unknown" outside a git repository."""
    git = ["git", "-C", str(config.ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        parts = ["lib", "notebooks", "profiles", "data", "pyproject.toml"]
        changed = subprocess.run([*git, "status", "--porcelain", "--", *parts], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git repository)"
    return f"{head} with changes not committed" if changed.stdout.strip() else head


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def environment(run: config.Profile) -> dict[str, str]:
    """Commit, machine and the versions of every library that pyproject.toml names."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=! \[]", text)[0] for text in project["dependencies"]]
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{_processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"
    about = {"commit": commit(), "machine": machine, "threads per notebook": str(run.threads)}
    return about | {"Python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _raw_files(run: config.Profile) -> list[Path]:
    if run.data.kind == "demo":
        paths = sorted(run.raw.rglob("*"))
    elif run.data.kind == "archives":
        catalogue = sources.load_sources()
        paths = [catalogue[archive].path(run.raw) for archive in compendia.archives(run)]
    else:
        paths = [run.raw / name for name in run.data.files]
    return [p for p in paths if p.is_file()]


def checksums(run: config.Profile) -> pd.DataFrame:
    """Name, bytes and SHA-256 of every raw file of a run; a file is hashed again only when it changed."""
    cache_path = run.processed / "raw_checksums.json"
    known = json.loads(cache_path.read_text()) if cache_path.is_file() else {}
    downloaded = sources.read_checksums(run.raw)
    fresh = {}
    for path in _raw_files(run):
        name, stat = path.relative_to(run.raw).as_posix(), path.stat()
        mark = f"{path} {stat.st_size} {stat.st_mtime_ns}"
        at_download = downloaded.get(name, {})
        verified = at_download.get("sha256") if at_download.get("size") == stat.st_size else None
        fresh[mark] = known.get(mark) or [name, stat.st_size, verified or _sha256(path)]
    if fresh != known:
        with replacing(cache_path) as temporary:
            temporary.write_text(json.dumps(fresh))
    return pd.DataFrame(list(fresh.values()), columns=["file", "bytes", "SHA-256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def licences(run: config.Profile) -> tuple[str, pd.DataFrame]:
    """Whose data these are, in words, and the archives with release, licence and citation."""
    catalogue = sources.load_sources().values()
    if run.data.kind == "archives":
        wanted = set(compendia.archives(run))
        catalogue = [s for s in catalogue if s.id in wanted]
    words = {
        "demo": "The data of this profile are generated (lib/synthetic.py): nothing of the archives below is in them. "
        "They are drawn in the archives' own formats; these licences and citations are for who runs the paper profile.",
        "archives": "The public archives that this profile reads.",
        "files": "The data of this profile are your own files; their licence and citation are yours to state. "
        "Below are the archives that the paper profile reads.",
    }[run.data.kind]
    rows = [[s.id, s.title, s.release, s.licence, s.citation] for s in catalogue]
    return words, pd.DataFrame(rows, columns=["archive", "title", "release", "licence", "please cite"])


# --- the page -------------------------------------------------------------------------------------------------


@dataclass
class Item:
    """A figure or table as the page shows it."""

    id: str
    heading: str
    paragraph: str
    provenance: dict[str, str]
    claims: pd.DataFrame
    links: list[str]
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    table: pd.DataFrame | None = None

    @property
    def alt(self) -> str:
        """What the picture shows, for readers who do not see it."""
        return textwrap.shorten(f"{self.id}: {in_words(self.heading, self.paragraph)}", 400, placeholder=" …")


@dataclass
class Chapter:
    """A notebook as the page shows it."""

    name: str
    title: str
    question: str
    timing: str
    settings: str
    headlines: list[str]
    items: list[Item] = field(default_factory=list)
    cells: list[dict] = field(default_factory=list)


def _shortened(text: str) -> str:
    """A number to four digits; other text as it is."""
    try:
        return ledger.show(float(text))
    except ValueError:
        return text


def claim_rows(run: config.Profile) -> pd.DataFrame:
    """The claims ledger of a profile as text; without rows where 08_claims has not written it."""
    path = run.figures / "claims.csv"
    if not path.is_file():
        return pd.DataFrame(columns=list(CLAIM_COLUMNS))
    claims = pd.read_csv(path, dtype=str).fillna("")
    claims[["measured", "low", "high"]] = claims[["measured", "low", "high"]].map(_shortened)
    published = (claims["published"] + " " + claims["unit"]).where(claims["unit"] != "–", claims["published"])
    interval = (claims["low"] + " to " + claims["high"]).where(claims["low"] != "–", "–")
    return claims.assign(published=published.where(claims["published"] != "–", "–"), **{"95 % interval": interval})


def claims_of(claims: pd.DataFrame, figure_id: str) -> pd.DataFrame:
    """The claims whose row names a figure or table."""
    named = re.compile(rf"(?<![\w-]){re.escape(figure_id)}(?![\w-])")
    rows = claims.apply(lambda row: any(named.search(str(value)) for value in row), axis=1)
    return claims.loc[rows.to_numpy(dtype=bool), list(CLAIM_COLUMNS)]


def _item(run: config.Profile, figure_id: str, cells: list, claims: pd.DataFrame, done: bool) -> Item:
    # without an executed notebook, what lies there is what git shows of another run
    paths = [p for p in notebooks.output_paths(run, figure_id) if p.is_file()] if done else []
    links = [p.relative_to(run.figures).as_posix() for p in paths]
    about = provenance(run, figure_id)
    item = Item(figure_id, *caption(cells, figure_id), about, claims_of(claims, figure_id), links)
    if paths and paths[0].suffix == ".png":
        item.picture = _uri(paths[0].read_bytes())
        with Image.open(paths[0]) as picture:
            item.size = picture.size
    elif paths:
        item.table = pd.read_csv(paths[0], dtype=str, keep_default_na=False)
    return item


def chapter(run: config.Profile, name: str, claims: pd.DataFrame) -> Chapter:
    """A notebook with its figures, its results in words and its executed cells."""
    done = executed(run, name)
    notebook = done or notebooks.read(name)
    first = notebook.cells[0].source
    settings = yaml.safe_dump(recorded_settings(run, name), sort_keys=False) if done else ""
    question = next((_plain(b) for b in re.split(r"\n\s*\n", first) if not b.startswith("#")), "")
    about = (_plain(first.splitlines()[0]), question, timing(run, name), settings)
    told = [markdown(line) for line in notebooks.headlines(run, name)]
    items = [_item(run, i, notebook.cells, claims, done is not None) for i in notebooks.figure_ids(name)]
    return Chapter(name, *about, told, items, rendered(done) if done else [])


def build(run: config.Profile, repeats: list[config.Profile]) -> Path:
    """Write figures/<profile>/index.html, one page that opens from disk; returns its path.

    repeats: the run and its repeats with other seeds, whose raw files are listed too.
    """
    claims = claim_rows(run)
    data_note, archives = licences(run)
    raw = {one.raw: one for one in repeats}
    loader = jinja2.FileSystemLoader(TEMPLATE.parent)
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = page.get_template(TEMPLATE.name).render(
        run=run,
        made=time.strftime("%Y-%m-%d %H:%M"),
        chapters=[chapter(run, name, claims) for name in notebooks.names()],
        claims=claims,
        claim_columns=list(CLAIM_COLUMNS),
        verdicts=claims["verdict"].value_counts().to_dict(),
        claim_files=[f"claims.{kind}" for kind in ("html", "csv", "md") if (run.figures / f"claims.{kind}").is_file()],
        parameters=yaml.safe_dump(run.model_dump(mode="json", exclude={"estimates", "data_dir"}), sort_keys=False),
        digest=notebooks.settings_digest(run),
        environment=environment(run),
        checksums={local(folder): checksums(one) for folder, one in raw.items() if folder.is_dir()},
        data_note=data_note,
        archives=archives,
        code_style=FORMATTER.get_style_defs(".code"),
    )
    path = run.figures / "index.html"
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path
