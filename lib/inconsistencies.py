"""Where the papers contradict themselves: the statements (data/inconsistencies.yaml) and the arithmetic, recomputed.

Each function below is named after an inconsistency and works on published values only, by their ids in
data/claims.yaml. It returns what follows from them and what is printed in its place.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lib import claims, config

STATEMENTS = config.ROOT / "data" / "inconsistencies.yaml"
NO_ARITHMETIC = "two statements, or something left out; no numbers to set against each other"
SHARE = 0.15  # of the samples that paper B keeps for the test


class Arithmetic(NamedTuple):
    """A calculation in words, the value that follows, and the one that is printed (or implied) in its place."""

    text: str
    follows: Any
    printed: Any


def v(claim_id: str, at: int | None = None) -> Any:
    """A published value, or the entry `at` of a published list."""
    value = claims.load()[claim_id]["value"]
    return value if at is None else value[at]


@cache
def statements() -> list[dict]:
    """All inconsistencies in order: id, severity, where, conflict, claims."""
    return yaml.safe_load(STATEMENTS.read_text())


def table(paper: str) -> pd.DataFrame:
    """Inconsistencies of paper "a" or "b" (with its code's): id, severity, where, conflict, arithmetic, claims."""
    rows = [
        {
            "id": s["id"],
            "severity": s["severity"],
            "where": s["where"],
            "conflict": s["conflict"],
            "arithmetic": ARITHMETIC[s["id"]]().text if s["id"] in ARITHMETIC else NO_ARITHMETIC,
            "claims": ", ".join(s["claims"]),
        }
        for s in statements()
        if (s["id"][0] == "A") == (paper == "a")
    ]
    return pd.DataFrame(rows)


def a1() -> Arithmetic:
    printed = [c["value"] for i, c in claims.load().items() if "-dd-" in i and isinstance(c.get("value"), float)]
    text = f"lowest of {len(printed)} printed ΔD: {min(printed)}; by the definition, separated groups are below 0"
    return Arithmetic(text, min(printed) >= 0, False)


def a2() -> Arithmetic:
    median, limit = v("a-match-rnalign"), v("a-match-majority-below50")
    text = f"a median of {median} % has half the types above {median} %, more than half cannot be below {limit} %"
    return Arithmetic(text, median, limit)


def a4() -> Arithmetic:
    ours, theirs = v("a-t1-pvca-rnalign"), v("a-t1-pvca-celligner")
    return Arithmetic(f"{ours} − {theirs} = {ours - theirs:+.2f} of the variance left to the batch", ours, theirs)


def a5() -> Arithmetic:
    breast, lung, everywhere = v("a-t3-breast-kbet-input"), v("a-t3-lung-kbet-input"), v("a-t1-kbet-input")
    ours = v("a-t3-breast-kbet-rnalign") - breast, v("a-t3-lung-kbet-rnalign") - lung
    text = (
        f"unaligned {breast} and {lung} within subtypes, {everywhere} over all types ({everywhere / lung:.0f} to "
        f"{everywhere / breast:.0f} times); RNAlign minus unaligned: {ours[0]:+.2f} and {ours[1]:+.2f}"
    )
    return Arithmetic(text, max(breast, lung), everywhere)


def a8() -> Arithmetic:
    rows, same = v("a-table2", 0), v("a-hp-purity-mult") == v("a-hp-purity-mult-dup")
    return Arithmetic(f"{rows} rows, two of them equal: {rows - same} different ones", rows - same, rows)


def a9() -> Arithmetic:
    low, high = v("a-hp-purity-mult")
    text = f"purity 1 lies between {low} and {high} when multiplied as in training, and is {v('a-hp-decode')} if not"
    return Arithmetic(text, high, v("a-hp-decode"))


def a13() -> Arithmetic:
    methods, rows = v("a-table1", 0), v("a-table5", 0)
    text = f"Table 1 has {methods} methods; of Table 5's {rows} rows, 2 are among them (input, RNAlign)"
    return Arithmetic(text, 2, methods)


def a17() -> Arithmetic:
    won, of = v("a-t1-wins")
    text = f"{won} of {of} scores won; PVCA {v('a-t1-pvca-rnalign')} against {v('a-t1-pvca-celligner')} of Celligner"
    return Arithmetic(text, won, of)


def a22() -> Arithmetic:
    total = v("a-n-tumours") + v("a-n-celllines")
    return Arithmetic(
        f"{v('a-n-tumours'):,} + {v('a-n-celllines'):,} = {total:,} scored: nothing is left for a test", 0, None
    )


def b1() -> Arithmetic:
    shared, removed, used = v("b-n-genes-shared"), v("b-n-genes-nzv"), v("b-n-genes")
    left = shared - removed
    return Arithmetic(f"{shared:,} − {removed} = {left:,}, printed {used:,}: {left - used} genes more", left, used)


def b2() -> Arithmetic:
    used, shared, latent, printed = (v(f"b-{i}") for i in ("n-genes", "n-genes-shared", "hp-latent", "compress-135"))
    text = (
        f"{used:,} / {latent} = {used / latent:.1f}, {shared:,} / {latent} = {shared / latent:.1f}; printed {printed}"
    )
    return Arithmetic(text, round(used / latent), printed)


def b3() -> Arithmetic:
    train, test, before = v("b-n-train"), v("b-n-test"), v("b-n-after-cellline")
    share = 100 * train / (train + test)
    text = (
        f"{train:,} / {test:,} = {share:.1f} / {100 - share:.1f}; {test:,} / {before:,} = {100 * test / before:.1f} % "
        f"of the samples before the cap"
    )
    return Arithmetic(text, round(share), v("b-split-ratio", 0))


def b4() -> Arithmetic:
    cap, lost = v("b-cap"), v("b-n-after-cellline") - v("b-n-final")
    before = {t: round(v(f"b-ntest-{t}") * (1 - SHARE) / SHARE) for t in ("blood", "stem-cell", "skin")}
    excess = {tissue: n - cap for tissue, n in before.items()}
    implied = ", ".join(f"{tissue.replace('-', ' ')} {n:,}" for tissue, n in before.items())
    text = (
        f"training parts that the test counts imply: {implied}; above {cap:,} in all {sum(excess.values()):,}, of "
        f"blood alone {excess['blood']:,}; lost to the cap {lost:,}"
    )
    return Arithmetic(text, sum(n > 0 for n in excess.values()), v("b-cap-only-blood"))


def b5() -> Arithmetic:
    text_pool, table_pool, after = v("b-n-pool-after-text"), v("b-n-pool-after-table"), v("b-n-after-cellline")
    text = (
        f"{table_pool:,} − {text_pool:,} = {table_pool - text_pool:,} (DepMap: {v('b-n-depmap-in'):,}); to {after:,} "
        f"from the text's pool {text_pool - after:,} go, from the table's {table_pool - after:,}"
    )
    return Arithmetic(text, text_pool, table_pool)


def b6() -> Arithmetic:
    start, printed = v("b-n-archs4-all"), v("b-compression-13x")
    ratios = [start / v(i) for i in ("b-n-train", "b-n-final-archs4")]
    text = f"{start:,} / {v('b-n-train'):,} = {ratios[0]:.1f}; ARCHS4 alone {ratios[1]:.1f}; printed about {printed}"
    return Arithmetic(text, round(ratios[0], 1), printed)


def b7() -> Arithmetic:
    return Arithmetic(f"{v('b-n-tissues-43')} − {v('b-n-tissues')} = 1 class", v("b-n-tissues-43"), v("b-n-tissues"))


def b8() -> Arithmetic:
    train, test = v("b-scale-split-75k")
    text = f"{train:,} + {test:,} = {train + test:,}; like for like, {train:,} to {v('b-scale-n-118k'):,}"
    return Arithmetic(text, train, v("b-scale-n-75k"))


def b9() -> Arithmetic:
    parts = [v(i) for i in ("b-scale-archs4-38k", "b-n-tcga-in", "b-n-gtex-in", "b-n-depmap-in")]
    larger = sum(parts[1:]) + v("b-scale-archs4-75k")
    added = " + ".join(f"{n:,}" for n in parts)
    text = (
        f"{added} = {sum(parts):,}, printed {v('b-scale-n-38k'):,}; with {v('b-scale-archs4-75k'):,} it is {larger:,}"
    )
    return Arithmetic(text, sum(parts), v("b-scale-n-38k"))


def b10() -> Arithmetic:
    text, in_table = v("b-scale-text-sample", 0), v("b-t2-sample-rho-38k")
    return Arithmetic(f"{text} in the text, {in_table} in the table", text, in_table)


def b11() -> Arithmetic:
    starts = v("b-t2-sample-rho-38k"), v("b-scale-text-sample", 0)
    said, first = [], 0
    for end, printed in (("75k", v("b-scale-d-sample1")), ("118k", v("b-scale-d-sample3"))):
        gains = [100 * (v(f"b-t2-sample-rho-{end}") / start - 1) for start in starts]
        said.append(
            f"to {end.upper()}: {gains[0]:+.1f} % from {starts[0]}, {gains[1]:+.1f} % from {starts[1]}, "
            f"printed {printed}"
        )
        first = first or round(gains[0])
    return Arithmetic("; ".join(said), first, v("b-scale-d-sample1"))


def b12() -> Arithmetic:
    start, standard, denoising = v("b-t2-gene-rho-75k"), v("b-gene-rho-std"), v("b-t2-gene-rho-118k")
    gains = [100 * (end / start - 1) for end in (denoising, standard)]
    text = (
        f"{v('b-scale-text-gene', 2)} is the standard model's {standard}, the denoising one's is {denoising}; the "
        f"printed gain of {v('b-scale-d-gene2')} % is the latter's ({gains[0]:.1f} % against {gains[1]:.1f} %)"
    )
    return Arithmetic(text, v("b-scale-text-gene", 2), denoising)


def b13() -> Arithmetic:
    hits, n, printed = v("b-target-hits"), v("b-target-n"), v("b-abl-cl-with")
    changes = {}
    for group in ("nbl", "wilms"):
        size = v(f"b-target-n-{group}")
        changes[group] = round(size * v(f"b-abl-cl-{group}", 0) / 100) - round(
            size * v(f"b-target-{group}-exact") / 100
        )
    total = hits + sum(changes.values())
    text = (
        f"{hits} {changes['nbl']:+d} (neuroblastoma) {changes['wilms']:+d} (Wilms) = {total}; {total} / {n} = "
        f"{100 * total / n:.1f} %, printed {printed} %, which needs {round(n * printed / 100)}"
    )
    return Arithmetic(text, round(100 * total / n, 1), printed)


def b14() -> Arithmetic:
    with_lines, without = v("b-abl-cl-wilms")
    text = f"{with_lines} % with cell lines, {without} % without: {with_lines - without:+d} points"
    return Arithmetic(text, with_lines, without)


def b16() -> Arithmetic:
    text = f"from {v('b-mix-knn-75k')} with the cluster to {v('b-mix-knn-118k')} without it: it falls"
    return Arithmetic(text, v("b-mix-knn-118k"), v("b-mix-knn-75k"))


def b17() -> Arithmetic:
    text = f"{v('b-n-train'):,} training samples or {v('b-n-test'):,} test samples to be neighbours among"
    return Arithmetic(text, v("b-n-test"), v("b-n-train"))


def b18() -> Arithmetic:
    text, caption = v("b-bf-params"), v("b-bf-params-93")
    return Arithmetic(
        f"{text / 1e6:.0f} million in the text, {caption / 1e6:.0f} million in the caption", text, caption
    )


def b19() -> Arithmetic:
    n = v("b-target-n-wilms")
    theirs = round(n * v("b-bf-wilms") / 100), round(v("b-target-n") * v("b-bf-acc") / 100)
    wilms, total = v("b-target-wilms-count") - theirs[0], v("b-target-hits") - theirs[1]
    text = (
        f"Wilms {v('b-target-wilms-count')} − {theirs[0]} = {wilms} hits, all {v('b-target-hits')} − {theirs[1]} = "
        f"{total}: elsewhere {total - wilms:+d}"
    )
    return Arithmetic(text, wilms, total)


def b20() -> Arithmetic:
    smaller, ours = v("b-base-hp-pca50"), v("b-hp-latent")
    return Arithmetic(f"PCA and UMAP have {smaller} dimensions, the VAE {ours}", smaller, ours)


def b21() -> Arithmetic:
    return Arithmetic(f"{v('b-base-count')} in the text; 4 + 2 = 6 in the caption", 6, v("b-base-count"))


def b22() -> Arithmetic:
    n, accuracy = v("b-ntest-biliary-tract"), v("b-fig2-acc-biliary-tract")
    text = f"biliary tract: {accuracy * n:.0f} of {n} = {100 * accuracy:.0f} %, not above {v('b-acc-floor')} %"
    return Arithmetic(text, 100 * accuracy > v("b-acc-floor"), True)


def b24() -> Arithmetic:
    trials = v("b-hp-hpo-trials")
    text = f"{len(trials)} trials of {len(trials[0])} values each are listed, 4 are said to be tuned"
    return Arithmetic(text, len(trials[0]), 4)


def b26() -> Arithmetic:
    n, hits, without = v("b-target-n"), v("b-target-hits"), v("b-target-n-ccsk")
    share = 100 * hits / (n - without)
    text = f"{hits} / {n} = {100 * hits / n:.1f} %; without the {without} it is {hits} / {n - without} = {share:.1f} %"
    return Arithmetic(text, round(share, 1), v("b-target-acc"))


def b32() -> Arithmetic:
    denoising, standard = v("b-epoch-denoising-118k"), v("b-epoch-standard-118k")
    text = f"{denoising} / {standard} epochs = {100 * (denoising / standard - 1):+.0f} %"
    return Arithmetic(text, denoising, standard)


def b33() -> Arithmetic:
    ours, theirs = v("b-n-params"), v("b-bf-params-93")
    return Arithmetic(f"{ours / 1e6:.0f} million against {theirs / 1e6:.0f} million parameters", ours, theirs)


def b35() -> Arithmetic:
    before, after = v("b-t2-target-75k"), v("b-t2-target-118k")
    return Arithmetic(f"{before} to {after} %: {after - before:+.1f} points", after, before)


def c7() -> Arithmetic:
    return Arithmetic(f"500 of {v('b-n-test'):,} test samples = {100 * 500 / v('b-n-test'):.1f} %", 500, v("b-n-test"))


def c11() -> Arithmetic:
    drawn = {i: c for i, c in claims.load().items() if i.startswith("b-fig2-acc-")}
    n = sum(c["n"] for c in drawn.values())
    mean = 100 * sum(c["value"] for c in drawn.values()) / len(drawn)
    text = f"{len(drawn)} bars, whose n add up to all {n:,} test samples, mean {mean:.1f} %; {v('b-n-tissues')} classes"
    return Arithmetic(text, len(drawn), v("b-n-tissues"))


def c17() -> Arithmetic:
    classes, drawn = v("b-n-tissues"), v("b-fig2-tissues-shown")
    return Arithmetic(f"{classes} − {drawn} = {classes - drawn} class without a sample", drawn, classes)


def c18() -> Arithmetic:
    shared, used = v("b-n-genes-shared"), v("b-n-genes")
    lowest = round(shared / 100)
    rest = shared - lowest - used
    text = f"1 % of {shared:,} = {lowest}; {shared:,} − {lowest} − {used:,} = {rest} that fall on one side only"
    return Arithmetic(text, shared - lowest, used)


ARITHMETIC = {
    name.upper(): function for name, function in list(globals().items()) if name[0] in "abc" and name[1:].isdigit()
}
