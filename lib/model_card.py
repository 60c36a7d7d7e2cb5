"""What a trained model says about itself: genes, classes, scaling, training data, licence, metrics."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from lib import compendia, sources
from lib.config import Profile
from lib.files import replacing
from lib.metrics.alignment import match_rate
from lib.metrics.classification import balanced_accuracy, weighted_f1
from lib.neighbours import share

NOT_FOR_DIAGNOSIS = "not for diagnosis"
SCALING = "log2(TPM+1), then z-scores by the mean and sd of the training part (gene_scaling_ in the model's .json)"


def note(card: dict) -> str:
    """What has to stand beside every result of a run's models, in a line."""
    generated = ": not for real samples" if card["generated"] else ""
    return f"{NOT_FOR_DIAGNOSIS}; trained on {card['training_data']}{generated}"


def describe(run: Profile) -> dict:
    """A run's training data: profile, title, seed, generated or not, sources with licence and citation."""
    what = {"demo": "generated demo data", "archives": "public archives", "files": "the files of a user"}
    name = f"{what[run.data.kind]} (profile {run.name}, seed {run.seed})"
    return {
        "profile": run.name, "title": run.title, "seed": run.seed,
        "generated": run.data.kind == "demo", "training_data": name, "sources": _sources(run),
    }  # fmt: skip


def _sources(run: Profile) -> list[dict]:
    if run.data.kind == "archives":
        chosen = sources.select(compendia.archives(run), sources.load_sources())
        return [{"title": s.title, "licence": s.licence, "citation": s.citation} for s in chosen]
    if run.data.kind == "files":
        return [{"title": name, "licence": "as its owner states", "citation": ""} for name in run.data.files]
    return [{"title": "drawn by lib/synthetic.py", "licence": "that of this repository", "citation": "CITATION.cff"}]


def write(run: Profile, name: str) -> Path:
    """Write <name>.card.json and <name>.md beside a trained model, from the model and what it made.

    name: "rnalign" (needs aligned.h5ad) or "tissue_vae" (needs embedding.h5ad). Returns the path of the card.
    """
    of_model = {"rnalign": _rnalign, "tissue_vae": _tissue_vae}[name](run)
    card = describe(run) | {"name": name, "scaling": SCALING} | of_model
    folder = run.processed / "models"
    for file, text in {f"{name}.card.json": json.dumps(card, indent=1), f"{name}.md": _in_words(card)}.items():
        with replacing(folder / file) as temporary:
            temporary.write_text(text + "\n")
    return folder / f"{name}.card.json"


def read(path: str | Path) -> dict:
    """A model's card. FileNotFoundError, or ValueError when it is none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected a model's card (02_training writes it)")
    try:
        card = json.loads(path.read_text())
        note(card)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: found no card of a model ({type(error).__name__}), expected JSON") from error
    return card


def _rnalign(run: Profile) -> dict:
    aligned = ad.read_h5ad(run.processed / "aligned.h5ad", backed="r").to_memory()
    is_line = (aligned.obs["sample_type"] == "cell line").to_numpy()
    types = aligned.obs["cancer_type"].to_numpy(dtype=str)
    k = min(run.evaluation.match_neighbours, int((~is_line).sum()))
    metrics = []
    if is_line.any() and not is_line.all():
        called = match_rate(aligned.X[~is_line], types[~is_line], aligned.X[is_line], types[is_line], k).predicted
        match = share(np.asarray(called) == types[is_line])
        metric = {"name": f"match, % of cell lines (by {k} tumours; all parts)", "value": match["match"]}
        metrics = [metric | {key: match[key] for key in ("low", "high", "n")}]
    extra = {"classes": "cancer types", "aligned_as": "cell line, purity 1", "metrics": metrics}
    return _model(run, "rnalign", "cancer_types_", aligned.obs) | extra


def _tissue_vae(run: Profile) -> dict:
    obs = ad.read_h5ad(run.processed / "embedding.h5ad", backed="r").obs
    held = obs[(obs["split"] == "test") & obs["tissue"].notna()].astype({"tissue": str, "predicted": str})
    boot = run.evaluation.bootstrap
    measures = {"balanced accuracy, test part": balanced_accuracy, "weighted F1, test part": weighted_f1}
    found = {
        n: measure(held["tissue"], held["predicted"], boot, run.seed) for n, measure in measures.items() if len(held)
    }
    metrics = [{"name": name} | {k: float(v) for k, v in e._asdict().items()} for name, e in found.items()]
    return _model(run, "tissue_vae", "classes_", obs) | {"classes": "tissues", "metrics": metrics}


def _model(run: Profile, name: str, classes: str, obs: pd.DataFrame) -> dict:
    """Genes and classes are in the model's own .json; here are their numbers, and the samples it was trained on."""
    record = json.loads((run.processed / "models" / f"{name}.json").read_text())
    return {
        "kind": record["kind"], "sha256": record["sha256"],
        "genes": len(record["genes_"]), "class_names": record[classes],
        "samples": {str(k): int(v) for k, v in obs["split"].value_counts().items()},
        "samples_by_source": {str(k) or "not stated": int(v) for k, v in obs["source"].value_counts().items() if v},
        "settings": record["settings"],
    }  # fmt: skip


def _in_words(card: dict) -> str:
    samples = ", ".join(f"{part} {n:,}" for part, n in card["samples"].items())
    metrics = [
        f"* {m['name']}: {m['value']:.3g} ({m['low']:.3g} to {m['high']:.3g}, n = {m['n']:,.0f})"
        for m in card["metrics"]
    ]
    lines = [
        f"# {card['name']} ({card['kind']}) of the profile {card['profile']}: {card['title']}", "",
        f"**{note(card)}.**", "", f"Scaling: {card['scaling']}.", "",
        f"{card['genes']:,} genes, samples: {samples}.", "",
        f"{len(card['class_names'])} {card['classes']}: {', '.join(card['class_names'])}.", "", *metrics, "",
        f"Weights: `{card['name']}.safetensors`, sha256 `{card['sha256']}`.", "", "## Data", "",
        *(f"* {s['title']}; licence: {s['licence']}. {s['citation']}" for s in card["sources"]),
    ]  # fmt: skip
    return "\n".join(lines)
