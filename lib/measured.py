"""Where each claim's measured value is found: data/claims_measured.yaml, read against what the notebooks wrote.

A value is never typed in. It comes from a table or a figure's data (`file`), from the profile (`setting`), from a
trained model's file (`model`), from other claims' measured values (`derive`), or is the picture itself (`figure`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lib import claims, config, notebooks

MAPPING = config.ROOT / "data" / "claims_measured.yaml"
PLACEHOLDER = re.compile(r"\{(\w+)\}")
WAYS = ("file", "setting", "model", "derive", "figure")
TAKES = {  # of the values of several rows; lowest and highest: that row, with its interval
    "total": sum,
    "median": np.median,
    "range": lambda v: [min(v), max(v)],
    "backwards": lambda v: list(v[::-1]),
    "drops": lambda v: (np.flatnonzero(np.diff(v) < 0) + 1).tolist(),
    "drop_factor": lambda v: v[np.flatnonzero(np.diff(v) < 0)[0]] / v[np.flatnonzero(np.diff(v) < 0)[0] + 1],
}


class Source(BaseModel):
    """One entry of data/claims_measured.yaml: the claims it is for, and where their value is found.

    ids: claim ids, or patterns with {placeholders}; names: placeholder -> {text in the id: text in the table}, where
    the id's own text (hyphens as spaces) does not do. file: CSV below figures/<profile>; rows: column -> value, with *
    for any text; column: its values (or "a > b"), with low, high and n beside (interval: false where those belong to
    another column); take: what to make of several rows; scale: factor to the paper's unit. setting: key of the
    profile, or [keys]. model: [file below models/, key]. derive: [how, ids]. bound: the paper prints a limit.
    compare: pairs of claims whose order the claim states. reason: why there is no value, if there is none.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    ids: list[str]
    names: dict[str, dict[str, str]] = {}
    file: str | None = None
    rows: dict[str, str] = {}
    column: str = "value"
    interval: bool = True
    take: (
        Literal["count", "lowest", "highest", "total", "median", "range", "backwards", "drops", "drop_factor"] | None
    ) = None
    scale: float = 1.0
    setting: str | list[str] | None = None
    model: list[str] | None = None
    derive: list[Any] | None = None
    figure: str | None = None
    split: str = ""
    bound: Literal["above", "below"] | None = None
    compare: list[list[str]] = []
    reason: str = ""

    @model_validator(mode="after")
    def _one_way(self):
        ways = [way for way in WAYS if getattr(self, way) is not None]
        if len(ways) > 1 or not (ways or self.compare or self.reason):
            raise ValueError(f"{self.ids[0]}: found {ways or 'nothing'}, expected one of {WAYS}, compare or a reason")
        return self


@dataclass(frozen=True)
class Measured:
    """A claim's measured value (number, list or text; None: none), its interval and n, and what it was read from."""

    value: Any = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    source: str = ""
    figure_id: str = ""
    reason: str = ""


@cache
def sources() -> dict[str, Source]:
    """Of every claim with an entry: the most specific one, placeholders filled in. ValueError: two of the same rank."""
    try:
        entries = [Source(**entry) for entry in yaml.safe_load(MAPPING.read_text())]
    except ValidationError as error:
        raise ValueError(f"{MAPPING.name}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    found: dict[str, list[tuple[int, Source]]] = {}
    for entry in entries:
        for pattern in entry.ids:
            free = sum(name not in entry.names for name in PLACEHOLDER.findall(pattern))
            for claim_id, filled in _matches(pattern, entry):
                found.setdefault(claim_id, []).append((2 * free + (pattern != claim_id), filled))
    return {claim_id: _most_specific(claim_id, hits) for claim_id, hits in found.items()}


def _most_specific(claim_id: str, hits: list[tuple[int, Source]]) -> Source:
    best = min(rank for rank, _ in hits)
    entries = [entry for rank, entry in hits if rank == best]
    if len(entries) > 1:
        raise ValueError(f"{MAPPING.name}: claim {claim_id}: found {len(entries)} entries, expected one")
    return entries[0]


def _matches(pattern: str, entry: Source) -> list[tuple[str, Source]]:
    """Claims that a pattern stands for, each with its entry; ValueError for a pattern without any."""
    regex = _regex(pattern, entry.names)
    hits = [(claim_id, regex.fullmatch(claim_id)) for claim_id in claims.load()]
    filled = [(claim_id, _filled(entry, claim_id, hit.groupdict())) for claim_id, hit in hits if hit]
    if not filled:
        raise ValueError(f"{MAPPING.name}: {pattern}: found no claim of that name")
    return filled


def _regex(pattern: str, names: dict[str, dict[str, str]]) -> re.Pattern:
    parts = PLACEHOLDER.split(pattern)
    texts = [re.escape(text) for text in parts[::2]]
    groups = [f"(?P<{n}>{'|'.join(map(re.escape, names[n])) if n in names else '.+'})" for n in parts[1::2]]
    return re.compile("".join(a + b for a, b in zip(texts, [*groups, ""], strict=True)))


def _filled(entry: Source, claim_id: str, given: dict[str, str]) -> Source:
    """The entry for one claim: names for placeholders in its file and rows, the id's own text in other ids."""
    told = {name: entry.names.get(name, {}).get(text, text.replace("-", " ")) for name, text in given.items()}
    raw = given | {"id": claim_id}

    def fill(text: Any, values: dict[str, str]) -> Any:
        if isinstance(text, list):
            return [fill(t, values) for t in text]
        return PLACEHOLDER.sub(lambda m: values[m[1]], text) if isinstance(text, str) else text

    changes = {key: fill(getattr(entry, key), told) for key in ("file", "column", "setting", "model", "figure")}
    changes |= {"rows": {c: fill(v, told) for c, v in entry.rows.items()}}
    return entry.model_copy(update=changes | {key: fill(getattr(entry, key), raw) for key in ("derive", "compare")})


def measure(run: config.Profile, claim_id: str) -> Measured:
    """The measured value of a claim in a run's files; without one, the reason."""
    entry = sources().get(claim_id)
    if entry is None:
        raise KeyError(f"{MAPPING.name}: claim {claim_id}: found neither a mapping nor a reason")
    for way, read in (("file", _read_table), ("setting", _read_setting), ("model", _read_model), ("figure", _drawn)):
        if getattr(entry, way) is not None:
            return read(run, entry)
    return _derived(run, entry) if entry.derive else Measured(reason=entry.reason)


@cache
def _table(path: Path, written: float) -> pd.DataFrame:
    return pd.read_csv(path, na_values="not estimable")


def table(run: config.Profile, name: str) -> pd.DataFrame:
    """A CSV below figures/<profile>; FileNotFoundError where this run has none."""
    path = run.figures / name
    if not path.is_file():
        raise FileNotFoundError(f"{name}: found no such file in figures/{run.name}")
    return _table(path, path.stat().st_mtime)


def chosen(frame: pd.DataFrame, entry: Source) -> pd.DataFrame:
    """The rows that an entry names; KeyError for a column that the table does not have."""
    left, _, right = entry.column.partition(" > ")
    if {left, right} <= set(frame):
        frame = frame.assign(**{entry.column: frame[left] > frame[right]})
    columns = [entry.column] if entry.take != "count" else []
    if missing := [c for c in (*entry.rows, *columns) if c not in frame]:
        raise KeyError(f"{entry.file}: found no column {missing[0]!r}, expected one of {', '.join(frame.columns)}")
    keep = np.ones(len(frame), dtype=bool)
    for column, wanted in entry.rows.items():
        keep &= [fnmatchcase(str(value), wanted) for value in frame[column]]
    return frame[keep]


def unfound(run: config.Profile) -> list[str]:
    """What the mapping names and the run does not have: tables, columns, and rows that no reason excuses."""
    problems = []
    for claim_id, entry in sources().items():
        if entry.figure and _drawn(run, entry).value is None and not entry.reason:
            problems.append(f"{claim_id}: no {entry.figure}")
        if not entry.file:
            continue
        try:
            if chosen(table(run, entry.file), entry).empty and not entry.reason:
                problems.append(f"{claim_id}: {entry.file} has no row {entry.rows}")
        except (FileNotFoundError, KeyError) as error:
            problems.append(f"{claim_id}: {error.args[0]}")
    return problems


def _read_table(run: config.Profile, entry: Source) -> Measured:
    figure_id = Path(entry.file).stem
    try:
        rows = chosen(table(run, entry.file), entry)
    except (FileNotFoundError, KeyError) as error:
        return Measured(reason=entry.reason or f"not in this run: {error.args[0]}", figure_id=figure_id)
    named = ", ".join(f"{column} {wanted}" for column, wanted in entry.rows.items())
    about = {"source": f"{entry.file}: {named or 'all rows'}; {entry.take or entry.column}", "figure_id": figure_id}
    if rows.empty:
        return Measured(reason=entry.reason or f"{figure_id} has no row {named} here", **about)
    if entry.take == "count":
        return Measured(len(rows) // (rows["seed"].nunique() if "seed" in rows else 1), **about)
    return _several(rows, entry, about) if entry.take else _one_value(rows, entry, about)


def _several(rows: pd.DataFrame, entry: Source, about: dict[str, str]) -> Measured:
    values = pd.to_numeric(rows[entry.column], errors="coerce").dropna().to_numpy()
    if not len(values):
        return Measured(reason=entry.reason or f"{entry.column} is not estimable here", **about)
    if entry.take in ("lowest", "highest"):
        numbers = pd.to_numeric(rows[entry.column], errors="coerce")
        return _one_value(rows.loc[[numbers.idxmin() if entry.take == "lowest" else numbers.idxmax()]], entry, about)
    value = TAKES[entry.take](values)
    value = [float(v) * entry.scale for v in value] if isinstance(value, list) else float(value) * entry.scale
    return Measured(value, n=None if entry.take == "total" else len(values), **about)


def _one_value(rows: pd.DataFrame, entry: Source, about: dict[str, str]) -> Measured:
    """Value with interval and n; of several seeds, the means, as in the tables. ValueError for several other rows."""
    if len(rows) > 1 and (rows.get("seed") is None or rows["seed"].duplicated().any()):
        raise ValueError(f"{about['source']}: found {len(rows)} rows, expected one")
    value = pd.to_numeric(rows[entry.column], errors="coerce").mean()
    if np.isnan(value):
        return Measured(reason=entry.reason or f"{entry.column} is not estimable here", **about)
    limits = {}
    for end in ("low", "high") if entry.interval else ():
        column = next((c for c in (f"{entry.column}_{end}", end) if c in rows), None)
        limit = pd.to_numeric(rows[column], errors="coerce").mean() if column else np.nan
        limits[end] = None if np.isnan(limit) else float(limit) * entry.scale
    n = next((rows[c].iloc[0] for c in (f"{entry.column}_n", "n") if c in rows), None)
    n = None if n is None or pd.isna(n) else int(n)
    return Measured(float(value) * entry.scale, n=n, **limits, **about)


def _setting(run: config.Profile, key: str) -> Any:
    value: Any = run
    for part in key.split("."):
        if not hasattr(value, part):
            raise KeyError(f"{MAPPING.name}: setting {key}: profiles have no such key")
        value = getattr(value, part)
    return value


def _read_setting(run: config.Profile, entry: Source) -> Measured:
    keys = entry.setting if isinstance(entry.setting, list) else [entry.setting]
    values = [_setting(run, key) for key in keys]
    value = values if isinstance(entry.setting, list) else values[0]
    scaled = value * entry.scale if isinstance(value, float) else value
    return Measured(scaled, source=f"profile {run.name}: {', '.join(keys)}")


def _read_model(run: config.Profile, entry: Source) -> Measured:
    """A key of a model's description, its length for a list, or the number of its parameters or epochs."""
    name, key = entry.model
    path = run.processed / "models" / f"{name}.json"
    if not path.is_file():
        return Measured(reason=f"this profile has no trained {name}")
    about = json.loads(path.read_text())
    found = {
        "parameters": lambda: _parameters(path.with_suffix(".safetensors")),
        "best_epoch": lambda: int(np.argmin(about["history"]["validation_loss"])) + 1,
        "best_loss": lambda: float(np.min(about["history"]["validation_loss"])),
    }
    value = found[key]() if key in found else about[key] if key in about else about["settings"][key]
    value = len(value) if isinstance(value, list) else value
    trained_by = "02_training" if name == "rnalign" else "02_training_tissue"
    return Measured(value, source=f"models/{name}.json: {key}", figure_id=trained_by)


def _parameters(path: Path) -> int:
    """Number of trained values in a weights file, from its header."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as weights:
        return int(sum(np.prod(weights.get_slice(key).get_shape()) for key in weights.keys()))  # noqa: SIM118


def _drawn(run: config.Profile, entry: Source) -> Measured:
    kind = "tables/{}.md" if entry.figure[2:].startswith("table") else "{}.png"
    name = kind.format(entry.figure)
    if not (run.figures / name).is_file():
        return Measured(reason=entry.reason or f"this profile has no {entry.figure}", figure_id=entry.figure)
    return Measured(name, source=name, figure_id=entry.figure)


DERIVED = {
    "list": lambda *v: list(v),
    "total": lambda *v: sum(v),
    "difference": lambda a, b: a - b,
    "ratio": lambda a, b: a / b,
    "percent": lambda a, b: 100 * a / b,
    "gain": lambda a, b: 100 * (a / b - 1),
    "product": lambda a, b: int(a * b),
    "rest": lambda a: 100 - a,
    "lost_percent": lambda after, before: 100 * (before - after) / before,
    "before_after_without": lambda before, after, other: before - after - other,
    "shares": lambda *v: [100 * part / sum(v) for part in v],
    "halves": lambda *v: [sum(v[: len(v) // 2]), sum(v[len(v) // 2 :])],
    "lowest": lambda *v: min(v),
    "gap": lambda *v: max(abs(a - b) for a, b in zip(v[::2], v[1::2], strict=True)),
    "wins": lambda *v: [sum(min(quad) == quad[0] for quad in zip(*[iter(v)] * 4, strict=True)), len(v) // 4],
}

MONOTONE = {
    "total",
    "difference",
    "ratio",
    "percent",
    "gain",
    "rest",
    "lost_percent",
    "lowest",
}  # in each of their parts


def _derived(run: config.Profile, entry: Source) -> Measured:
    how, *of = entry.derive
    parts = {claim_id: measure(run, claim_id) for claim_id in of}
    if lacking := [f"{i}: {m.reason}" for i, m in parts.items() if m.value is None]:
        return Measured(reason=entry.reason or f"follows from {lacking[0]}", source=f"{how} of {', '.join(of)}")
    first = next(iter(parts.values()))
    value = DERIVED[how](*(m.value for m in parts.values()))
    low, high = _widest(how, list(parts.values()))
    return Measured(value, low, high, first.n, f"{how} of {', '.join(of)}", first.figure_id)


def _widest(how: str, parts: list[Measured]) -> tuple[float | None, float | None]:
    """Interval of what is derived: the extremes over its parts' intervals, wide however they correlate."""
    limits = [(m.low, m.high) for m in parts]
    if how not in MONOTONE or any(None in pair for pair in limits):
        return None, None
    corners = [DERIVED[how](*corner) for corner in product(*limits)]
    return min(corners), max(corners)


@cache
def _cells() -> dict[str, str]:
    """Figure or table id -> the notebook with the cell of that tag."""
    return {tag: name for name in notebooks.names() for tag in notebooks.figure_ids(name)}


def made_by(figure_id: str) -> str:
    """Notebook and tag of the cell that made a figure, a table or its numbers; a notebook's name stays."""
    if not figure_id or figure_id in notebooks.names():
        return figure_id
    return f"{_cells()[figure_id]} [{figure_id}]" if figure_id in _cells() else f"? [{figure_id}]"
