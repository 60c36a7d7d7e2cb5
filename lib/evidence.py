"""Cancer types whose cell lines align poorly: what the data say about each, and about the paper's reasons.

The paper corroborates its failures by literature (RNAlign, sections 4.4 and A.6). Here each reason that expression can
speak for becomes a question to the data, answered by a fixed rule: supports, contradicts or cannot say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import claims
from lib.enrichment import SIGNIFICANT
from lib.metrics.bootstrap import Estimate, percentile_interval
from lib.metrics.correlation import most_similar
from lib.metrics.distances import centred, euclidean
from lib.neighbours import calls_of_lines, share

MIN_LINES = 3  # that a type's lines need to be compared with each other
DRAWS = 200  # of a type's samples; its median distances are over hundreds of pairs
WELL_MATCHED = 50.0  # %: what the paper calls poor lies below

INFILTRATE = ("stroma", "immune", "extracellular matrix", "collagen", "interleukin", "cytokine", "interferon")
STROMA = ("stroma", "extracellular matrix", "collagen", "interleukin-6", "il-6")
METABOLISM = ("glycoly", "glucose", "glutamin", "amino acid", "lipid metab", "fatty acid", "metabolism", "hypoxia")
MESENCHYMAL = ("Soft Tissue", "Bone", "Mesothelioma")
TISSUES = {  # words for the tissue of origin where it is not the type's own name
    "Bile Duct": ("biliary",), "Bowel": ("colon",), "Leukaemia": ("bone marrow", "blood"), "Lymphoma": ("lymphoid",),
    "Multiple Myeloma": ("bone marrow",), "Mesothelioma": ("pleura",), "Neuroblastoma": ("nerve",),
}  # fmt: skip


class Explanation(NamedTuple):
    """The paper's reason for a type's poor match, and which question to the data tests it."""

    claim: str  # id of the published match in data/claims.yaml
    reason: str
    question: str


EXPLANATIONS = {
    "Brain": Explanation("a-match-brain", "tumours live in a micro-environment that lines lack", "infiltrate"),
    "Thyroid": Explanation("a-match-thyroid", "lines resemble de-differentiated tumours", "tissue"),
    "Liver": Explanation("a-match-liver", "lines are either hepatocyte-like or fibroblast-like", "two groups"),
    "Esophagus": Explanation("a-match-esophageal", "lines lose the tumours' metabolism", "metabolism"),
    "Multiple Myeloma": Explanation("a-match-myeloma", "lines lack the bone marrow's stroma and its IL-6", "stroma"),
    "Bile Duct": Explanation("a-match-cholangio", "lines are single subclones, each another one", "diversity"),
    "Eye": Explanation("a-match-eye", "few lines, drifted in culture", "rarity"),
}


ABSENT = "not in these data"
IN_WORDS = {
    "supports": "Our data support it",
    "contradicts": "Our data contradict it",
    "cannot say": "Our data cannot say",
    "no failure": "There is no failure to explain here",
    "lost by the alignment": "The input matches most of their lines, and the alignment loses some",
    "not in the paper": "The paper gives no reason for this type",
    ABSENT: "Not estimable here",
}


class Verdict(NamedTuple):
    """A key of IN_WORDS, and why."""

    verdict: str
    why: str


def poor_types(matches: pd.DataFrame, most: int = 12) -> list[str]:
    """The types that the paper names, then those at 0 %, those with most lines first; `most` at the most.

    matches: as `neighbours.match_by_type` after alignment. Types without tumours and lines are not among them.
    """
    matches = matches[matches["n_tumours"] > 0]
    zero = matches[matches["match"].eq(0)].sort_values(["n", "cancer_type"], ascending=[False, True])["cancer_type"]
    named = [t for t in EXPLANATIONS if t in set(matches.loc[matches["n"] > 0, "cancer_type"])]
    return list(dict.fromkeys([*named, *zero]))[:most]


def absent_types(obs: pd.DataFrame) -> pd.DataFrame:
    """The types that the paper names and that these samples can say nothing on, with the reason: rows for `evidence`.

    obs: sample_type, cancer_type. Columns cancer_type, n_tumours, n_lines, published_match, verdict, why.
    """
    counts = pd.crosstab(obs["cancer_type"].astype(str), obs["sample_type"].astype(str))
    counts = counts.reindex(index=list(EXPLANATIONS), columns=["tumour", "cell line"], fill_value=0)
    rows = []
    for cancer_type, (n_tumours, n_lines) in counts.iterrows():
        lacking = [name for name, n in (("tumours", n_tumours), ("cell lines", n_lines)) if not n]
        row = {"cancer_type": cancer_type, "n_tumours": n_tumours, "n_lines": n_lines}
        row |= {"published_match": _published(cancer_type), "verdict": ABSENT}
        if lacking:
            rows.append(row | {"why": f"the data have no {' and no '.join(lacking)} of this type"})
    return pd.DataFrame(rows, columns=["cancer_type", "n_tumours", "n_lines", "published_match", "verdict", "why"])


def delta_d_interval(X, is_line, seed: int) -> Estimate:
    """ΔD of one type's tumours and lines with a 95 % interval over resampled samples; n: the lines.

    X: samples × genes of one type. A pair of the same sample drawn twice does not count. NaN with fewer than
    MIN_LINES of a kind.
    """
    is_line = np.asarray(is_line, dtype=bool)
    kinds = [np.flatnonzero(~is_line), np.flatnonzero(is_line)]
    if min(map(len, kinds)) < MIN_LINES:
        return Estimate(np.nan, np.nan, np.nan, int(is_line.sum()))
    distances, rng = euclidean(centred(X), centred(X)), np.random.default_rng(seed)
    draws = [_delta_d(distances, *(rng.choice(k, len(k)) for k in kinds)) for _ in range(DRAWS)]
    return Estimate(_delta_d(distances, *kinds), *percentile_interval(np.array(draws)), int(is_line.sum()))


def _delta_d(distances: np.ndarray, tumours: np.ndarray, lines: np.ndarray) -> float:
    def within(rows):
        pairs = distances[np.ix_(rows, rows)][rows[:, None] != rows]
        return np.median(pairs) if len(pairs) else np.nan

    return float(np.median(distances[np.ix_(tumours, lines)]) - (within(tumours) + within(lines)) / 2)


def purity_of_nearest(X: np.ndarray, obs: pd.DataFrame, k: int) -> pd.Series:
    """Per cell line the median purity of its k nearest tumours, of those whose purity is known."""
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    nearest, _ = most_similar(X[is_line], X[~is_line], min(k, (~is_line).sum()))
    purity = pd.DataFrame(obs["purity"].to_numpy(dtype=float)[~is_line][nearest], index=obs.index[is_line])
    return purity.median(axis=1)


def evidence(
    before: np.ndarray, after: np.ndarray, obs: pd.DataFrame, types: list[str], differences: pd.DataFrame,
    sets: pd.DataFrame, gene_sets: dict[str, list[str]], k: int, seed: int,
    truth: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """One row per cancer type: match, where its lines go instead, ΔD, purity, genes, gene sets, verdict.

    before, after: samples × genes (input; aligned), z-scores; obs: sample_type, cancer_type, purity. differences:
    `enrichment.lines_against_tumours` of `before`; sets: its `prerank_types`, for at least `types` (empty without
    gene sets). truth: `compendia.true_labels` of obs, or None: then the columns of the truth are absent. Match in %
    with Wilson's interval, which keeps a width at 0 %; ΔD in `before`'s units with a bootstrap interval.
    """
    calls = {
        method: calls_of_lines(X, obs, k).assign(purity=purity_of_nearest(X, obs, k))
        for method, X in (("input", before), ("RNAlign", after))
    }
    rows = []
    for cancer_type in types:
        of_type = (obs["cancer_type"] == cancer_type).to_numpy()
        is_line = (obs["sample_type"] == "cell line").to_numpy()[of_type]
        row = {"cancer_type": cancer_type, "n_tumours": int((~is_line).sum()), "n_lines": int(is_line.sum())}
        for method, X in (("input", before), ("RNAlign", after)):
            own = calls[method][calls[method]["cancer_type"] == cancer_type]
            row |= _matched(own, cancer_type, method)
            distance = delta_d_interval(X[of_type], is_line, seed)
            row |= _named("delta_d", method, distance.value, distance.low, distance.high)
        row["published_match"] = _published(cancer_type)
        row["purity_of_type"] = _median(obs["purity"].to_numpy(dtype=float)[of_type][~is_line])
        row |= _genes_and_sets(cancer_type, differences, sets)
        row |= _of_truth(truth, obs, cancer_type) if truth is not None else {}
        found = verdict(cancer_type, row, differences, sets, gene_sets, before, obs, calls["RNAlign"])
        rows.append(row | {"verdict": found.verdict, "why": found.why})
    return pd.DataFrame(rows)


def _named(quantity: str, method: str, value: float, low: float, high: float) -> dict[str, float]:
    return {f"{quantity}_{method}": value, f"{quantity}_{method}_low": low, f"{quantity}_{method}_high": high}


def _median(values) -> float:
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else np.nan


def _matched(own: pd.DataFrame, cancer_type: str, method: str) -> dict:
    rate = share((own["called"] == cancer_type).to_numpy())
    common = own["called"].value_counts()
    elsewhere = common[common.index != cancer_type].head(3)
    return _named("match", method, rate["match"], rate["low"], rate["high"]) | {
        f"goes_to_{method}": ", ".join(f"{name} {n}" for name, n in elsewhere.items()) or "nowhere else",
        f"purity_nearest_{method}": _median(own["purity"]),
    }


def _published(cancer_type: str) -> float:
    return claims.published(EXPLANATIONS[cancer_type].claim) if cancer_type in EXPLANATIONS else np.nan


def _genes_and_sets(cancer_type: str, differences: pd.DataFrame, sets: pd.DataFrame, most: int = 4) -> dict[str, str]:
    """The type's own most different genes and sets (beyond what all lines share), lower and higher in lines."""
    genes = differences[(differences["cancer_type"] == cancer_type) & (differences["scope"] == "own")]
    own = sets[(sets["cancer_type"] == cancer_type) & (sets["scope"] == "own")]
    found = {}
    for name, sign in (("lower", -1), ("higher", 1)):
        g = genes[(genes["fdr"] < SIGNIFICANT) & (sign * genes["t"] > 0)].sort_values("t", ascending=sign < 0)
        s = own[(own["fdr"] < SIGNIFICANT) & (sign * own["nes"] > 0)].sort_values("nes", ascending=sign < 0)
        found[f"genes_{name}"] = ", ".join(g["gene"].head(most)) or "none"
        found[f"sets_{name}"] = ", ".join(s["set"].head(most)) or ("none" if len(own) else "not tested")
    return found


def _of_truth(truth: pd.DataFrame, obs: pd.DataFrame, cancer_type: str) -> dict:
    lines = truth[(obs["sample_type"] == "cell line").to_numpy() & (obs["cancer_type"] == cancer_type).to_numpy()]
    return {
        "culture_strength": _median(lines["culture_strength"]),
        "truly_align": 100 * lines["truly_aligns"].astype(bool).mean() if len(lines) else np.nan,
        "mislabelled": int(lines["mislabelled"].astype(bool).sum()),
    }


# --- the paper's reasons, as questions to the data ---


def verdict(cancer_type, row, differences, sets, gene_sets, before, obs, calls) -> Verdict:
    """Whether the data support the paper's reason for the type; the arguments are those of `evidence`."""
    if cancer_type not in EXPLANATIONS:
        return Verdict("not in the paper", f"none of its {row['n_lines']} lines finds the type once aligned")
    if row["match_input"] - row["match_RNAlign"] > 0 and row["match_input"] >= WELL_MATCHED:
        lost = f"{row['match_input']:.0f} % of its lines find it unaligned, {row['match_RNAlign']:.0f} % aligned"
        return Verdict("lost by the alignment", f"{lost}: no biology is needed to explain that")
    question = EXPLANATIONS[cancer_type].question
    if question == "rarity":
        found = _rarity(obs, cancer_type)
    elif row["n_lines"] < MIN_LINES:
        found = Verdict("cannot say", f"{row['n_lines']} cell lines are too few to compare")
    elif question == "tissue":
        found = _tissue_lost(cancer_type, differences, gene_sets)
    elif question == "two groups":
        found = _two_groups(calls, cancer_type, set(obs.loc[obs["sample_type"] == "tumour", "cancer_type"]))
    elif question == "diversity":
        found = _spread_of_lines(before, obs, cancer_type)
    else:
        words = {"infiltrate": INFILTRATE, "stroma": STROMA, "metabolism": METABOLISM}[question]
        found = _lower_sets(_chosen(sets, cancer_type, words), question)
    if row["match_RNAlign"] >= WELL_MATCHED:
        matched = f"{row['match_RNAlign']:.0f} % of its lines find it (the decoder was told their type)"
        return Verdict("no failure", f"{matched}; what the paper names: {found.why}")
    return found


def _chosen(sets: pd.DataFrame, cancer_type: str, words: tuple[str, ...]) -> pd.DataFrame:
    names = sets["set"].astype(str).str.lower()
    named = np.any([names.str.contains(w, regex=False) for w in words], axis=0)
    return sets[named & (sets["cancer_type"] == cancer_type)]


def _lower_sets(chosen: pd.DataFrame, what: str) -> Verdict:
    """Supports: sets lower in lines than in tumours, and more so than in other types; contradicts: all higher."""
    if chosen.empty:
        return Verdict("cannot say", f"no gene set of {what} was tested")
    low = chosen[(chosen["nes"] < 0) & (chosen["fdr"] < SIGNIFICANT)]
    everywhere, own = (set(low.loc[low["scope"] == scope, "set"]) for scope in ("difference", "own"))
    both = sorted(everywhere & own)
    if both:
        return Verdict("supports", f"lower in the lines than in the tumours, and more so than elsewhere: {_some(both)}")
    if everywhere:
        shared = f"lower in the lines, but no more than in other types: {_some(sorted(everywhere))}"
        return Verdict("cannot say", shared + "; that does not single this type out")
    if (chosen.loc[chosen["scope"] == "difference", "nes"] > 0).all():
        return Verdict("contradicts", f"no set of {what} is lower in the lines")
    return Verdict("cannot say", f"no set of {what} is clearly lower in the lines")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def tissue_loss(differences: pd.DataFrame, gene_sets: dict[str, list[str]]) -> pd.Series:
    """Mean difference lines - tumours of the genes of each type's own tissue; types without such a set are absent."""
    loss = {}
    for cancer_type, rows in differences[differences["scope"] == "difference"].groupby("cancer_type"):
        words = TISSUES.get(cancer_type, (cancer_type.lower(),))
        names = [s for s in gene_sets if "tissue" in s.lower() and any(w in s.lower() for w in words)]
        genes = {g for name in names for g in gene_sets[name]}
        values = rows.loc[rows["gene"].isin(genes), "difference"]
        if len(values):
            loss[cancer_type] = values.mean()
    return pd.Series(loss, dtype=float)


def _tissue_lost(cancer_type: str, differences: pd.DataFrame, gene_sets: dict) -> Verdict:
    loss = tissue_loss(differences, gene_sets)
    if cancer_type not in loss or len(loss) < 4:
        return Verdict("cannot say", "no gene set of its tissue of origin was tested")
    rank, said = (
        int((loss < loss[cancer_type]).sum()),
        f"its tissue's genes differ by {loss[cancer_type]:+.2f} sd in the lines",
    )
    if loss[cancer_type] >= 0:
        return Verdict("contradicts", f"{said}: the lines have not lost them")
    if rank <= len(loss) / 4:
        return Verdict("supports", f"{said}; only {rank} of {len(loss) - 1} other types lose more of theirs")
    return Verdict("cannot say", f"{said}, but {rank} of {len(loss) - 1} other types lose more of theirs")


def _two_groups(calls: pd.DataFrame, cancer_type: str, tumour_types: set[str]) -> Verdict:
    """Supports: some lines lie with their type, some with mesenchymal tumours, few elsewhere."""
    called = calls.loc[calls["cancer_type"] == cancer_type, "called"]
    own, mesenchymal = (called == cancer_type).sum(), called.isin(MESENCHYMAL).sum()
    if not tumour_types & set(MESENCHYMAL):
        return Verdict(
            "cannot say", f"{own} of {len(called)} lines lie with their type; no mesenchymal tumours are here"
        )
    said = f"{own} of {len(called)} lines lie with their type and {mesenchymal} with mesenchymal tumours"
    if own and mesenchymal and own + mesenchymal >= 0.75 * len(called):
        return Verdict("supports", said)
    return Verdict("cannot say" if mesenchymal or len(called) < 2 * MIN_LINES else "contradicts", said)


def _spread_of_lines(X: np.ndarray, obs: pd.DataFrame, cancer_type: str) -> Verdict:
    """Supports: the type's lines are further apart than those of three quarters of the other types."""
    lines = obs[obs["sample_type"] == "cell line"]["cancer_type"]
    X = X[(obs["sample_type"] == "cell line").to_numpy()]
    spread = {}
    for name, n in lines.astype(str).value_counts().items():
        if n >= MIN_LINES:
            rows = centred(X[(lines == name).to_numpy()])
            spread[name] = np.median(euclidean(rows, rows)[~np.eye(n, dtype=bool)])
    spread = pd.Series(spread)
    more = int((spread > spread[cancer_type]).sum())
    said = f"the lines of {more} of {len(spread) - 1} other types are further apart than these"
    return Verdict(_by_rank(more, len(spread) - 1), said)


def _rarity(obs: pd.DataFrame, cancer_type: str) -> Verdict:
    counts = obs.loc[obs["sample_type"] == "cell line", "cancer_type"].astype(str).value_counts()
    fewer = int((counts < counts[cancer_type]).sum())
    others = len(counts) - 1
    said = f"{counts[cancer_type]} lines; {fewer} of {others} other types have fewer (of drift nothing is known)"
    return Verdict(_by_rank(fewer, others), said)


def _by_rank(beyond: int, others: int) -> str:
    return "supports" if beyond <= others / 4 else "contradicts" if beyond >= others / 2 else "cannot say"


# --- a page for each type ---


def page(row: pd.Series) -> str:
    """One type's evidence as Markdown; row: of `evidence` or of `absent_types`."""
    title = f"### {row['cancer_type']}: {row['n_lines']:.0f} cell lines, {row['n_tumours']:.0f} tumours"
    if row["verdict"] == ABSENT:
        reason = EXPLANATIONS[row["cancer_type"]].reason
        return f"{title}\n\n**The paper's reason:** {reason}. {in_words(row)}"
    parts = [
        title,
        f"**Match.** {_range(row, 'match', 'input', ' %')} in the input, "
        f"{_range(row, 'match', 'RNAlign', ' %')} aligned"
        + ("." if pd.isna(row["published_match"]) else f" (*published: {row['published_match']:.0f} %*)."),
        f"Lines that lie elsewhere go to: {row['goes_to_input']} (input); {row['goes_to_RNAlign']} (aligned).",
        f"**Distance.** ΔD {_range(row, 'delta_d', 'input')} before, {_range(row, 'delta_d', 'RNAlign')} after.",
        f"**Purity.** {_number(row['purity_of_type'])} in the type's tumours; in the tumours nearest to its lines "
        f"{_number(row['purity_nearest_input'])} before, {_number(row['purity_nearest_RNAlign'])} after (medians).",
        f"**More than in other types,** lines have less of {row['genes_lower']} and more of {row['genes_higher']}; "
        f"gene sets lower: {row['sets_lower']}; higher: {row['sets_higher']}.",
    ]
    if "culture_strength" in row:
        parts.append(
            f"**What the generator did.** Culture strength {_number(row['culture_strength'])} (most types: 0.7 to "
            f"1.0); {_number(row['truly_align'], '.0f')} % of the lines truly align; {row['mislabelled']} mislabelled."
        )
    if row["cancer_type"] in EXPLANATIONS:
        parts.append(f"**The paper's reason:** {EXPLANATIONS[row['cancer_type']].reason}. {in_words(row)}")
    else:
        parts.append(in_words(row))
    return "\n\n".join(parts)


def in_words(row: pd.Series) -> str:
    """The verdict as a sentence."""
    return f"**{IN_WORDS[row['verdict']]}:** {row['why']}."


def _number(value: float, style: str = ".2f") -> str:
    return "not estimable" if pd.isna(value) else format(value, style)


def _range(row: pd.Series, quantity: str, method: str, unit: str = "") -> str:
    value, low, high = (row[f"{quantity}_{method}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "not estimable"
    style = ".0f" if unit else ".1f"
    return f"{value:{style}}{unit} ({low:{style}} to {high:{style}})"


def summary(pages: pd.DataFrame, enriched: pd.DataFrame) -> str:
    """How many of the paper's reasons the data support, and what sets the lines apart, in a paragraph."""
    pages = pages[pages["verdict"].notna() & (pages["verdict"] != ABSENT)]  # without the row that says there is none
    named = pages[pages["cancer_type"].isin(EXPLANATIONS)]
    groups = named.groupby("verdict")["cancer_type"].agg(", ".join)
    said = [f"**{len(named)} of the {len(EXPLANATIONS)} types that the paper names are in these data.**"]
    said += [f"{IN_WORDS[name]}: {groups[name]}." for name in IN_WORDS if name in groups]
    if missing := [name for name in EXPLANATIONS if name not in set(named["cancer_type"])]:
        said.append(f"Without tumours or without cell lines here: {', '.join(missing)}.")
    others = pages.loc[~pages["cancer_type"].isin(EXPLANATIONS), "cancer_type"]
    if len(others):
        said.append(f"At 0 % as well, without a reason in the paper: {', '.join(others)}.")
    clear = enriched[(enriched["method"] == "input") & (enriched["scope"] == "difference")]
    clear = clear[clear["fdr"] < SIGNIFICANT]
    for word, rows in (("lower", clear[clear["nes"] < 0]), ("higher", clear[clear["nes"] > 0])):
        common = rows["set"].value_counts().head(3)
        if len(common):
            listed = ", ".join(f"{name} ({n} of {len(pages)})" for name, n in common.items())
            said.append(f"Most often {word} in lines than in tumours of these types: {listed}.")
    control = enriched[enriched["set"].str.startswith("Random")]
    if len(control):
        wrong = (control["fdr"] < SIGNIFICANT).sum()
        said.append(f"Of {len(control)} tests of random sets, {wrong} had an FDR below 5 %.")
    return " ".join(said)
