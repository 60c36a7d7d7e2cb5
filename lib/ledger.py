"""The claims ledger: beside every claim of both papers what was measured, by which cell, and a verdict.

The rules of a verdict (design of the ledger; `RULES` says them to the reader):
a number is `reproduced` only on the papers' own data, when the published value lies in the 95 % interval or rounds to
the measured one. On other data a number can only show a direction: whether two measured values, told apart by their
intervals, stand in the order in which the paper has theirs. A setting is compared as such, whatever the data.
"""

from __future__ import annotations

import html
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib import claims, config, inconsistencies, measured
from lib.files import replacing
from lib.measured import Measured, Source

REPRODUCED, DIRECTION, NOT = "reproduced", "direction holds", "not reproduced"
INCONSISTENT, PAPER_ONLY, NOTHING = "inconsistent in the paper", "needs the paper profile", "nothing to compare"
RULES = {
    REPRODUCED: "papers' data: the published value lies in the 95 % interval, or is the measured one rounded; "
    "any data: a setting is the published one",
    DIRECTION: "every comparison that the claim states and that was measured has the published order, and no pair of "
    "intervals overlaps",
    NOT: "a comparison has the other order and its intervals do not overlap; on the papers' data also: another number, "
    "and no comparison stated",
    INCONSISTENT: "the paper contradicts the claim itself; the reason says what the verdict would be otherwise",
    PAPER_ONLY: "a number or picture of other data or other settings, which is not held against the paper's; or a "
    "comparison that these data do not decide, since intervals overlap or are not known",
    NOTHING: "a definition, a citation, a plan, a slip of the text, or a picture to be judged by eye: see the reason",
}
COUNTS = ("dataset", "hyperparameter")  # kinds of claim that are no statistics of samples: without n
SHOWN = ["id", "where", "quantity", "published", "measured", "interval", "n", "split", "made_by", "verdict", "reason"]
PAPERS = {"rnalign": "Paper A: RNAlign", "tissue-vae": "Paper B: tissue VAE"}
UNLIKE = {"demo": "generated data", "files": "other data than the paper's", "archives": "the papers' archives"}


class Comparison(NamedTuple):
    """Two claims of which the paper prints an order: whether the measured values have it (None: their intervals
    overlap, or one has none), and all in words."""

    holds: bool | None
    text: str


def ledger(run: config.Profile) -> pd.DataFrame:
    """A row per claim: what the paper says, what the run measured, by which cell, and the verdict with its reason.

    Columns id, paper, where, kind, quantity, unit, published, measured, low, high, n, profile, split, source, made_by,
    verdict, otherwise (the verdict of a claim that the paper contradicts, that set aside), reason. Raises KeyError for
    a claim that data/claims_measured.yaml does not name.
    """
    table = pd.DataFrame([_row(run, claim) for claim in claims.load().values()])
    return table.astype({"n": "Int64"})


def _row(run: config.Profile, claim: dict) -> dict[str, Any]:
    entry, found = measured.sources().get(claim["id"]), measured.measure(run, claim["id"])
    stated = compare(run, entry.compare)
    own = run.data.kind == "archives"
    verdict, reason = judge(claim, entry, found, stated, own)
    otherwise = ""
    if conflict := claim.get("inconsistent_with"):
        verdict, otherwise = INCONSISTENT, verdict
        listed = [s["id"] for s in inconsistencies.statements() if claim["id"] in s["claims"]]
        reason = f"{', '.join([*listed, ''])}{conflict}. Otherwise {otherwise}: {reason}"
    about = {key: claim.get(key) for key in ("id", "paper", "where", "kind", "quantity", "unit")}
    return about | {
        "published": claim.get("value"),
        "measured": found.value,
        "low": found.low,
        "high": found.high,
        "n": None if claim["kind"] in COUNTS else found.n,
        "profile": run.name,
        "split": entry.split,
        "source": found.source,
        "made_by": _made_by(run, entry, found),
        "verdict": verdict,
        "otherwise": otherwise,
        "reason": reason,
    }


def _made_by(run: config.Profile, entry: Source, found: Measured) -> str:
    """The cell behind a value, or behind the first that a claim compares; the profile's line where it is a setting."""
    compared = measured.measure(run, entry.compare[0][0]).figure_id if entry.compare else ""
    return measured.made_by(found.figure_id or compared) or (found.source if found.value is not None else "")


def judge(claim: dict, entry: Source, found: Measured, stated: list[Comparison], own_data: bool) -> tuple[str, str]:
    """Verdict and reason of one claim, its contradictions set aside; own_data: measured on the papers' data."""
    published, setting = claim.get("value"), claim["kind"] == "hyperparameter" or entry.setting is not None
    number = found.value is not None and published is not None and not _is_picture(found.value)
    if number and (own_data or setting) and agrees(published, found, entry.bound, "approx" in claim["quantity"]):
        return REPRODUCED, "the same setting" if setting else "within the interval or the published digits"
    if stated:
        return _direction([s.holds for s in stated], own_data), "; ".join(s.text for s in stated)
    if found.value is None:
        declared = any(getattr(entry, way) is not None for way in measured.WAYS) or entry.compare
        return PAPER_ONLY if declared else NOTHING, found.reason or "what it compares was not measured here"
    if not own_data and setting and number:
        return PAPER_ONLY, "this profile has another setting"
    if not own_data and (number or _is_picture(found.value)):
        return PAPER_ONLY, "made from other data" + ("" if number else f": {found.value}")
    if number:
        return NOT, "outside the interval and the published digits"
    return (
        NOTHING,
        f"the paper prints no number; {show(found.value)} is here" if found.value is not None else found.reason,
    )


def _direction(held: list[bool | None], own_data: bool) -> str:
    if False in held:
        return NOT
    return DIRECTION if None not in held else NOT if own_data else PAPER_ONLY


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and value.endswith((".png", ".md"))


def agrees(published: Any, found: Measured, bound: str | None = None, approximate: bool = False) -> bool:
    """Whether a published value is the measured one: in its 95 % interval, or the same to the digits printed.

    Lists: each of them. bound: the published value is a limit. approximate: printed as such, 5 % count as equal.
    """
    if isinstance(published, list):
        values = found.value if isinstance(found.value, list) else [found.value]
        pairs = zip(published, values, strict=False)
        return len(published) == len(values) and all(agrees(p, Measured(v), bound) for p, v in pairs)
    if not _is_number(published) or not _is_number(found.value):
        return str(published).lower() == str(found.value).lower()
    if bound:
        return found.value > published if bound == "above" else found.value <= published
    if None not in (found.low, found.high) and found.low <= published <= found.high:
        return True
    rounding = 0.5 * 10.0 ** -len(str(published).partition(".")[2] if isinstance(published, float) else "")
    return abs(found.value - published) <= max(rounding, 0.05 * abs(published) * approximate) * (1 + 1e-9)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def compare(run: config.Profile, pairs: list[list[str]]) -> list[Comparison]:
    """Of pairs of claims, those of which the paper prints two different numbers and the run measured both."""
    done = []
    for ids in pairs:
        ours = [measured.measure(run, i) for i in ids]
        theirs = [claims.load()[i].get("value") for i in ids]
        if all(map(_is_number, [*theirs, *(m.value for m in ours)])) and theirs[0] != theirs[1]:
            done.append(_compared(ids, ours, theirs))
    return done


def _compared(ids: list[str], ours: list[Measured], theirs: list[float]) -> Comparison:
    a, b = ours
    wanted, sign = (np.sign(x - y) for x, y in (theirs, (a.value, b.value)))
    relation = {1.0: ">", -1.0: "<", 0.0: "="}
    known = None not in (a.low, a.high, b.low, b.high)
    apart = known and (a.low > b.high or b.low > a.high)
    why = "" if apart else " (intervals overlap)" if known else " (no interval)"
    here = f"{show(a.value)} {relation[float(sign)]} {show(b.value)}{why}"
    text = f"{ids[0]} {relation[float(wanted)]} {ids[1]}: here {here}"
    return Comparison(bool(sign == wanted) if apart else None, text)


def show(value: Any) -> str:
    """A value for print: four significant digits, thousands separated, – for none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(show, value))
    if isinstance(value, bool) or not _is_number(value):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e4 else f"{value:.4g}"


def _plain(value: Any) -> str:
    """A value for a CSV file: numbers ungrouped, lists separated by spaces, – for none."""
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if value is None or value is pd.NA or value == "" or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.6g}"
    return str(value)


def _markdown(shown: pd.DataFrame) -> str:
    """A table without padding, which would make it five times as long."""
    lines = [shown.columns, ["---"] * shown.shape[1], *shown.itertuples(index=False)]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger's columns for readers: values as text, whose data they are of in the two columns' names."""
    limits = zip(table["low"], table["high"], strict=True)
    unit = [f" {u}" if u and p is not None else "" for u, p in zip(table["unit"], table["published"], strict=True)]
    shown = table.assign(
        published=[show(v) + u for v, u in zip(table["published"], unit, strict=True)],
        measured=table["measured"].map(show),
        interval=["–" if show(a) == "–" else f"{show(a)} to {show(b)}" for a, b in limits],
        n=[show(None if pd.isna(n) else int(n)) for n in table["n"]],
    )[SHOWN]
    names = {"published": "published (paper's data)", "measured": f"measured ({table['profile'].iloc[0]})"}
    return shown.replace("", "–").rename(columns=names)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims have which verdict (columns), by kind of claim (rows)."""
    found = pd.crosstab(table["kind"], table["verdict"])
    return found.reindex(columns=list(RULES), fill_value=0)


def write(table: pd.DataFrame, run: config.Profile) -> None:
    """Write figures/<profile>/claims.csv, .md and .html."""
    shown = printed(table)
    with replacing(run.figures / "claims.csv") as p:
        table.map(_plain).to_csv(p, index=False)
    note = f"{run.title}, seed {run.seed}: {UNLIKE[run.data.kind]}"
    with replacing(run.figures / "claims.md") as p:
        rules = "\n".join(f"- **{name}** ({n}): {RULES[name]}" for name, n in _ordered(table).items())
        p.write_text(f"# Claims\n\nMeasured on {note}.\n\n{rules}\n\n{_markdown(shown)}")
    with replacing(run.figures / "claims.html") as p:
        p.write_text(_page(table, shown, note))


def _ordered(table: pd.DataFrame) -> dict[str, int]:
    found = Counter(table["verdict"])
    return {name: found[name] for name in RULES}


def _page(table: pd.DataFrame, shown: pd.DataFrame, note: str) -> str:
    rules = "".join(
        f"<dt>{html.escape(name)}: {n}</dt><dd>{html.escape(RULES[name])}</dd>" for name, n in _ordered(table).items()
    )
    parts = "".join(_html_table(shown[table["paper"] == paper], PAPERS[paper]) for paper in table["paper"].unique())
    style = (
        "body{font:15px/1.4 sans-serif;margin:1rem;max-width:90rem}div{overflow-x:auto}table{border-collapse:collapse}"
        "th,td{border:1px solid #bbb;padding:.2rem .4rem;text-align:left;vertical-align:top}dt{font-weight:bold}"
        "div{max-height:90vh;overflow-y:auto}thead th{position:sticky;top:0;background:#fff}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Claims of both papers</title><style>{style}</style></head>\n"
        f"<body><h1>Claims of both papers</h1><p>Measured on {html.escape(note)}.</p><dl>{rules}</dl>\n"
        f"{parts}</body></html>\n"
    )


def _html_table(shown: pd.DataFrame, name: str) -> str:
    head = "".join(f'<th scope="col">{html.escape(c.replace("_", " "))}</th>' for c in shown)
    rows = "\n".join(
        f'<tr id="{html.escape(row[0])}">' + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in shown.itertuples(index=False)
    )
    label = html.escape(name)
    return (
        f'<h2>{label}</h2><div role="region" aria-label="{label}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}</tbody></table></div>\n"
    )


def in_words(table: pd.DataFrame, run: config.Profile) -> str:
    """The counts as a sentence."""
    told = ", ".join(f"{n} {name}" for name, n in _ordered(table).items())
    aside = Counter(table.loc[table["verdict"] == INCONSISTENT, "otherwise"])
    rest = ", ".join(f"{aside[name]} {name}" for name in RULES if aside[name])
    return (
        f"Of {len(table)} claims of both papers, on {UNLIKE[run.data.kind]} ({run.name}): {told}. "
        f"Those that a paper contradicts would otherwise be: {rest}."
    )
