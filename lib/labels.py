"""What labels mean: free text to tissues, names to cell lines, vocabularies to tissues and cancer types.

All by tables in data/ that people can read and correct (data/README.md); here is only how they are looked up.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).resolve().parents[1] / "data"


# --- free text -> tissue ------------------------------------------------------------------------------------


@cache
def tissue_table() -> pd.DataFrame:
    """data/tissue_map.csv: field, keyword, tissue, uberon_id, organ_system, note."""
    return pd.read_csv(DATA / "tissue_map.csv", dtype=str, keep_default_na=False)


@cache
def tissue_classes() -> pd.DataFrame:
    """The 42 tissues with uberon_id and organ_system, by name."""
    table = tissue_table()
    return table[table["uberon_id"] != ""].drop_duplicates("tissue").set_index("tissue")[["uberon_id", "organ_system"]]


@cache
def _tissue_lookup(field_name: str) -> dict[str, str]:
    """Normalised keyword -> tissue, of one field ("free text", "GTEx SMTSD", "TCGA", "DepMap lineage")."""
    table = tissue_table()
    rows = table[table["field"] == field_name]
    return dict(zip(rows["keyword"].map(normalise), rows["tissue"], strict=True))


def normalise(text: str) -> str:
    """Lower case, every run of other characters than letters and digits one space."""
    return re.sub(r"[^a-z0-9]+", " ", str(text).lower()).strip()


@lru_cache(maxsize=100_000)
def find_tissues(text: str) -> frozenset[str]:
    """The tissues that `text` names, by whole words; where keywords overlap the longest wins.

    "ignore" rows (growth factors, reagents, clinical variables) take their words and say nothing.
    """
    keywords = _tissue_lookup("free text")
    words = normalise(text).split()
    longest = _longest_keyword()
    spans = []
    for start in range(len(words)):
        for stop in range(start + 1, min(start + longest, len(words)) + 1):
            phrase = " ".join(words[start:stop])
            if phrase in keywords:
                spans.append((-len(phrase), start, stop, keywords[phrase]))
    taken, found = set(), set()
    for _, start, stop, tissue in sorted(spans):
        if taken.isdisjoint(range(start, stop)):
            taken.update(range(start, stop))
            found.add(tissue)
    return frozenset(found - {"ignore"})


@cache
def _longest_keyword() -> int:
    return max(keyword.count(" ") + 1 for keyword in _tissue_lookup("free text"))


def characteristics_of(text: str, key: str) -> str:
    """The values of `key` in GEO characteristics as ARCHS4 joins them ("tissue: lung, left lobe,age: 40")."""
    pattern = rf"(?:^|[,;\t])\s*{re.escape(key)}\s*:\s*(.*?)(?=[,;\t]\s*[\w .()/-]+:|$)"
    return " ; ".join(re.findall(pattern, str(text), re.IGNORECASE))


def map_tissue(source_name: str, characteristics: str = "", title: str = "") -> tuple[str, str, str]:
    """(tissue or "", the field that decided, reason) of one GEO sample.

    Fields in the order source_name, characteristics `tissue:`, `cell type:`, title; the first that names a
    tissue decides. Two tissues there, or a word such as "metastasis" or "xenograft" in any field: unmapped.
    """
    fields = {
        "source_name": source_name,
        "tissue:": characteristics_of(characteristics, "tissue"),
        "cell type:": characteristics_of(characteristics, "cell type"),
        "title": title,
    }
    found = {name: find_tissues(str(text)) for name, text in fields.items()}
    forbidden = next((name for name, tissues in found.items() if "unmapped" in tissues), None)
    if forbidden:
        return "", forbidden, "metastasis, xenograft or mixture"
    name = next((name for name, tissues in found.items() if tissues), None)
    if name is None:
        return "", "", "no tissue word"
    if len(found[name]) > 1:
        return "", name, "two tissues"
    return next(iter(found[name])), name, "mapped"


def map_tissues(obs: pd.DataFrame) -> pd.DataFrame:
    """`map_tissue` of every row of an ARCHS4 sample table: columns tissue, field, reason."""
    columns = ("source_name_ch1", "characteristics_ch1", "title")
    texts = [obs[c].fillna("").astype(str) if c in obs else [""] * len(obs) for c in columns]
    mapped = [map_tissue(*text) for text in zip(*texts, strict=True)]
    return pd.DataFrame(mapped, index=obs.index, columns=["tissue", "field", "reason"])


def map_labels(labels: pd.Series, field_name: str) -> pd.Series:
    """Tissues of an archive's own vocabulary (fields as in the table); "" for a label not in it."""
    return labels.fillna("").map(normalise).map(_tissue_lookup(field_name)).fillna("")


def organ_systems(tissues: pd.Series) -> pd.DataFrame:
    """uberon_id and organ_system of tissues, also a user's ("salivary_gland"); "" and "Other" if unknown."""
    classes = tissue_classes()
    known = {t: t if t in classes.index else map_tissue(t)[0] for t in tissues.dropna().unique()}
    table = classes.reindex(tissues.map(known)).set_axis(tissues.index)
    return table.fillna({"uberon_id": "", "organ_system": "Other"})


def labelled_strings() -> pd.DataFrame:
    """data/tissue_labelled.csv: strings in the manner of GEO with their tissue ("unmapped": none)."""
    return pd.read_csv(DATA / "tissue_labelled.csv", dtype=str, keep_default_na=False)


def score_tissue_map(labelled: pd.DataFrame | None = None) -> pd.DataFrame:
    """Precision and recall of the keyword table, per tissue, on hand-labelled strings (default: ours).

    labelled: columns source_name, characteristics, title, tissue and, if there is one, `set`. n: labelled
    so; called: mapped so; correct: both. "unmapped" strings have no tissue. Last rows: all tissues together,
    and by set (the table was edited on the development strings and left alone for the held-out ones).
    """
    labelled = labelled_strings() if labelled is None else labelled
    texts = zip(labelled["source_name"], labelled["characteristics"], labelled["title"], strict=True)
    called = pd.Series([map_tissue(*text)[0] or "unmapped" for text in texts], index=labelled.index)
    truth = labelled["tissue"]
    tissues = sorted((set(truth) | set(called)) - {"unmapped"})
    rows = {t: (truth == t, called == t) for t in [*tissues, "unmapped"]}
    has_tissue = truth != "unmapped", called != "unmapped"
    rows["all tissues"] = has_tissue
    for name in labelled["set"].unique() if "set" in labelled else ():
        rows[f"all tissues, {name}"] = tuple(mask & (labelled["set"] == name) for mask in has_tissue)
    counts = {k: (n.sum(), c.sum(), (n & c & (truth == called)).sum()) for k, (n, c) in rows.items()}
    table = pd.DataFrame(counts.values(), index=pd.Index(counts, name="tissue"), columns=["n", "called", "correct"])
    return table.assign(precision=table["correct"] / table["called"], recall=table["correct"] / table["n"])


# --- cell-line filter ---------------------------------------------------------------------------------------


def cell_line_names(depmap_names: Sequence[str] = (), genes: Sequence[str] = ()) -> dict[str, str]:
    """Token -> "DepMap" or "ENCODE": the identifiers that mark a cell line (data/cell_line_names.csv).

    depmap_names: stripped names; those of at least four characters with a digit count, unless they are a gene
    symbol (`genes`) or a stop-word of the table.
    """
    table = pd.read_csv(DATA / "cell_line_names.csv", dtype=str, keep_default_na=False)
    by_kind = table.groupby("kind")["name"].agg(set)
    stop = by_kind["stop-word"] | {str(g).upper() for g in genes}
    names = {re.sub(r"[^A-Z0-9]", "", str(n).upper()) for n in depmap_names}
    names = {n for n in names if len(n) >= 4 and any(c.isdigit() for c in n)} - stop
    return dict.fromkeys(sorted(names), "DepMap") | dict.fromkeys(sorted(by_kind["ENCODE"]), "ENCODE")


@lru_cache(maxsize=100_000)
def name_tokens(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """What may be a cell-line name in `text`: words without punctuation; neighbouring words written together.

    "SK-MEL-28_r1" gives SKMEL28 (and SK, MEL28, R1, …); "HCT 116" gives HCT116 in the second set only.
    """
    words = [re.findall(r"[A-Z0-9]+", w) for w in re.split(r"[\s_,;:/()|=\[\]]+", str(text).upper())]
    whole = {"".join(w[i:j]) for w in words for i in range(len(w)) for j in range(i + 1, min(i + 4, len(w)) + 1)}
    pieces = ["".join(w) for w in words if w]
    spaced = {a + b for a, b in pairwise(pieces)}
    return frozenset(whole), frozenset(spaced)


def cell_line_token(texts: Sequence[str], names: dict[str, str]) -> str:
    """The cell-line name found in any of `texts`, the longest if several, or "".

    Names written with a space are looked for among the ENCODE names only: "HCC 15" is mostly a patient.
    """
    hits = set()
    for text in texts:
        whole, spaced = name_tokens(str(text))
        hits |= {t for t in whole if t in names} | {t for t in spaced if names.get(t) == "ENCODE"}
    return max(sorted(hits), key=len, default="")


def cell_line_tokens(obs: pd.DataFrame, names: dict[str, str]) -> pd.Series:
    """`cell_line_token` of every row of an ARCHS4 sample table (title, source name, characteristics)."""
    columns = [obs[c].fillna("") for c in ("title", "source_name_ch1", "characteristics_ch1") if c in obs]
    return pd.Series(
        [cell_line_token(texts, names) for texts in zip(*columns, strict=True)], index=obs.index, dtype=object
    )


def score_cell_line_filter(names: dict[str, str], labelled: pd.DataFrame | None = None) -> pd.DataFrame:
    """The filter on hand-labelled strings, a row each: title, cell_line, token (found), outcome."""
    labelled = labelled_strings() if labelled is None else labelled
    columns = labelled[["title", "source_name", "characteristics"]].itertuples(index=False, name=None)
    token = pd.Series([cell_line_token(texts, names) for texts in columns], index=labelled.index)
    truth, found = labelled["cell_line"] == "yes", token != ""
    outcome = np.select(
        [truth & found, truth, found], ["true positive", "false negative", "false positive"], "true negative"
    )
    return labelled[["title", "cell_line"]].assign(token=token, outcome=outcome)


# --- cancer types and subtypes ------------------------------------------------------------------------------


@cache
def _cancer_type_lookup(source: str) -> dict[str, str]:
    table = pd.read_csv(DATA / "cancer_type_map.csv", dtype=str, keep_default_na=False)
    rows = table[table["source"] == source]
    return dict(zip(rows["source_label"].map(normalise), rows["cancer_type"], strict=True))


def map_cancer_types(labels: pd.Series, source: str) -> pd.Series:
    """Cancer types of an archive's labels by data/cancer_type_map.csv; "" where the table has none.

    source: "treehouse" (disease), "tcga" (cohort), "depmap" (lineage or its subtype), "oncotree" (code,
    tissue).
    """
    return labels.fillna("").map(normalise).map(_cancer_type_lookup(source)).fillna("")


def subtype(cancer_type: str, text: str) -> str:
    """Subtype that an annotation speaks of, for the two types the paper looks into; "" for others or no word.

    Breast by Celligner's rule (any "luminal", then "HER2", then basal). Lung: SCLC, LUAD, LUSC, LCC, other.
    """
    text = f" {normalise(text)} "
    if cancer_type == "Breast":
        rules = (("luminal", "Luminal"), ("her2", "HER2-enriched"), ("basal", "Basal"))
        return next((name for word, name in rules if word in text), "")
    if cancer_type != "Lung" or not text.strip():
        return ""
    if "adenosquamous" in text:
        return "other"
    small = re.search(r"(?<!non )small cell|\bsclc\b", text)
    rules = (
        (small, "SCLC"),
        (re.search("adenocarcinoma|luad", text), "LUAD"),
        (re.search("squamous|lusc", text), "LUSC"),
    )
    return next((name for hit, name in rules if hit), "LCC" if re.search("large cell|lcc|lclc", text) else "other")


# --- TARGET groups -----------------------------------------------------------------------------------------


@cache
def expected_tissues() -> pd.DataFrame:
    """data/target_expected.csv: group, target_code, disease, n_published, tissue, expected_code and _text."""
    table = pd.read_csv(DATA / "target_expected.csv", dtype={"target_code": str})
    return table.astype({"expected_code": bool, "expected_text": bool})


def target_groups(samples: pd.Index) -> pd.Series:
    """Group of TARGET samples by the project code in their id (TARGET-20-…: AML); "" for other projects."""
    codes = expected_tissues().drop_duplicates("group").set_index("target_code")["group"]
    return samples.to_series().str.extract(r"^TARGET-(\d\d)-", expand=False).map(codes).fillna("")
