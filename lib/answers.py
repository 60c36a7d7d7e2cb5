"""What the web app answers, without its page: a visitor's samples by a run's trained models, as tables.

The readers, the classes and the refusals are those of the command line (lib/own_file.py, lib/apply.py); here are the
limits of a server, and what a page shows beyond a table: the place on the atlas, and what a confidence is worth.
Nothing of a visitor is kept: files lie in a folder that is deleted before the answer is given.
"""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from lib import curation, own_file, readers
from lib.apply import Aligner, TissueCaller, sample_labels
from lib.cli import Trained
from lib.embedding import kobak_berens_tsne
from lib.metrics.bootstrap import Estimate
from lib.metrics.reliability import calibration_error, reliability
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE

MAX_MB = 100  # of an upload
MAX_UNPACKED_GB = 0.5
MAX_SAMPLES = 500
MAX_TABLE_GB = 0.02  # of sample labels and of cell lines
LINE_COLUMNS = 8  # of a visitor's table of cell lines
GENE_SETS = 4  # prepared models kept, one for each set of genes that a file may have
EXAMPLE_SAMPLES = 6
LABELS = ["cancer_type", "purity"]


class Refusal(ValueError):
    """Why a question has no answer, in a line for its visitor."""


@dataclass(frozen=True)
class Question:
    """A visitor's files, as bytes, and what they said of them."""

    content: bytes
    name: str = "pasted text"
    unit: str | None = None
    harmonise: str = "none"
    cancer_type: str | None = None  # of all samples that `labels` gives none; None: not tumours
    purity: float | None = None
    labels: bytes | None = None  # table: sample, cancer_type, purity
    line_table: bytes | None = None  # table: DepMap id, growth, mutations, …


@dataclass(frozen=True)
class Answer:
    """Tables by sample; `lines` is empty where no sample is a tumour, and `no_lines` says why."""

    note: str
    remarks: list[str]
    calls: pd.DataFrame  # as TissueCaller's
    probabilities: pd.DataFrame  # samples × tissues
    references: pd.DataFrame  # sample, rank, reference, tissue, source, distance (÷ threshold)
    places: pd.DataFrame  # tsne1, tsne2: the median of the nearest references' positions
    reliability: pd.DataFrame  # of the held-out references by the genes of the file
    accuracy: Estimate
    calibration_error: Estimate
    lines: pd.DataFrame = field(default_factory=pd.DataFrame)  # before, after: as Aligner's, and the visitor's columns
    no_lines: str = ""
    purity_note: str = ""

    def calls_csv(self) -> str:
        """Calls with the probability of every tissue, a row per sample."""
        table = self.calls.join(self.probabilities.add_prefix("probability: ")).assign(note=self.note)
        return table.rename_axis("sample").to_csv(float_format="%.6g")

    def lines_csv(self) -> str:
        """Nearest cell lines before and after alignment, a row per sample, alignment and rank."""
        return self.lines.assign(note=self.note).to_csv(index=False, float_format="%.6g")


class Models:
    """A run's trained models and its atlas, loaded once and shared by all visitors.

    FileNotFoundError, naming the command that trains them, where there are none.
    """

    def __init__(self, profile: str = "demo", folder: Path | None = None):
        trained = Trained(profile, folder)
        self.folder, self.note, self.gene_ids = trained.folder, trained.note, trained.gene_ids()
        try:
            self.vae = TissueVAE.load(self.folder / "models" / "tissue_vae")
            self.rnalign = RNAlign.load(self.folder / "models" / "rnalign")
            reference = curation.load(self.folder / "tissue.h5ad", "test")
            self.compendium = curation.load(self.folder / "alignment.h5ad")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; ./run_all.sh --profile {profile} makes all that is needed") from None
        self.reference = reference[reference.obs["tissue"].notna().to_numpy()].to_memory()
        self.atlas = _atlas(self.vae, self.reference, trained.run)
        self.one_at_a_time = threading.Lock()
        self.tissue_caller = lru_cache(GENE_SETS)(self._tissue_caller)
        self.aligner = lru_cache(GENE_SETS)(lambda genes: Aligner(self.rnalign, self.compendium, genes))

    def answer(self, question: Question) -> Answer:
        """Tissues, places on the atlas, and nearest cell lines of a visitor's samples. `Refusal` for bad input."""
        with tempfile.TemporaryDirectory(prefix="rnatlas-") as folder:
            try:
                return self._answer(question, Path(folder))
            except Exception as error:  # a stranger's file may break any reader: its visitor gets a line, not our stack
                raise Refusal(_in_words(error, folder, question.name)) from None

    def _tissue_caller(self, genes: tuple[str, ...], how: str) -> TissueCaller:
        return TissueCaller(self.vae, self.reference, genes, how)

    def _answer(self, question: Question, folder: Path) -> Answer:
        scaled = self.reference.uns.get("unit") == "scaled"
        path, labels, line_table = _write(question, folder)
        for given in filter(None, (labels, line_table)):
            own_file.refuse_too_large(given, MAX_TABLE_GB)
        limits = {"max_gb": MAX_UNPACKED_GB, "samples": labels, "unit": question.unit}
        with own_file.open_own(path, self.vae.genes_, gene_ids=self.gene_ids, **limits) as opened:
            if len(opened.samples) > MAX_SAMPLES:
                raise ValueError(
                    f"found {len(opened.samples):,} samples, expected at most {MAX_SAMPLES} (python -m lib)"
                )
            genes = own_file.shared_genes(opened, self.vae.genes_)
            line_genes = own_file.shared_genes(opened, self.rnalign.genes_)
            samples = opened.read(genes=list(dict.fromkeys([*genes, *line_genes])))
            remarks = self._remarks(opened, len(genes), question)
        if (empty := samples.obs_names[samples.X.sum(axis=1) == 0]).size:
            raise ValueError(f"found only zeros in sample {empty[0]!r}, expected expression")
        with self.one_at_a_time:
            caller = self.tissue_caller(tuple(genes), "cohort" if scaled else question.harmonise)
            tissues = self._tissues(caller, samples[:, genes].to_memory())
            lines = self._lines(samples[:, line_genes].to_memory(), question, line_table)
        return Answer(note=self.note, remarks=remarks, **tissues, **lines)

    def _remarks(self, opened: readers.Expression, found: int, question: Question) -> list[str]:
        told = "as stated" if question.unit else "told by the values"
        expected = len(self.vae.genes_)
        remarks = [
            f"{len(opened.samples):,} samples × {len(opened.genes):,} genes, {opened.unit} ({told}).",
            f"{found:,} of the model's {expected:,} genes found ({found / expected:.0%}).",
        ]
        trained_on, given = str(self.reference.uns.get("unit", "")), opened.output_unit
        if trained_on != given:
            remarks.append(f"Caution: the model was trained on {trained_on or 'an unknown unit'}, this is {given}.")
        return remarks

    def _tissues(self, caller: TissueCaller, samples: ad.AnnData) -> dict:
        probabilities, ratios, found = caller.place(samples)
        obs, (n, k) = self.reference.obs, found.shape
        near = pd.DataFrame({
            "sample": np.repeat(samples.obs_names, k), "rank": np.tile(np.arange(1, k + 1), n),
            "reference": obs.index[found.ravel()], "tissue": caller.tissues[found.ravel()],
            "source": obs["source"].astype(str).to_numpy()[found.ravel()], "distance": ratios.ravel(),
        })  # fmt: skip
        places = np.median(self.atlas[["tsne1", "tsne2"]].to_numpy()[found], axis=1)
        return {
            "calls": caller.calls(samples.obs_names, probabilities, ratios, found),
            "probabilities": probabilities.set_axis(samples.obs_names), "references": near,
            "places": pd.DataFrame(places, samples.obs_names, ["tsne1", "tsne2"]),
            "reliability": reliability(caller.confidence, caller.right), "accuracy": caller.accuracy,
            "calibration_error": calibration_error(caller.confidence, caller.right),
        }  # fmt: skip

    def _lines(self, samples: ad.AnnData, question: Question, line_table: Path | None) -> dict:
        """Nearest cell lines of the samples with a cancer type, before and after alignment."""
        typed = samples.obs.get("cancer_type", pd.Series("", samples.obs_names)).astype(object).fillna("") != ""
        tumours = samples if question.cancer_type else samples[typed.to_numpy()].to_memory()
        found, expected = samples.n_vars, len(self.rnalign.genes_)
        if not tumours.n_obs:
            return {"no_lines": "No cancer type was given: name it, and the nearest cell lines are shown here."}
        if found < own_file.MIN_OVERLAP * expected:
            return {"no_lines": f"{found:,} of the {expected:,} genes of the alignment found: too few for cell lines."}
        given = {"cancer_type": question.cancer_type, "sample_type": "tumour", "purity": question.purity}
        labels = sample_labels(tumours.obs, self.rnalign, **given)
        aligner = self.aligner(tuple(tumours.var_names))
        after = aligner(tumours, labels)[1].rename(columns={"draws_low": "low", "draws_high": "high"})
        lines = pd.concat([aligner.before(tumours).assign(alignment="before"), after.assign(alignment="after")])
        lines.insert(1, "alignment", lines.pop("alignment"))
        lines = _with_columns(lines, line_table, aligner.lines.obs_names)
        return {"lines": lines, "purity_note": aligner.purity_note(labels)}

    def examples(self) -> dict[str, Question]:
        """Samples that no model was fitted to: tissues, tumours with their types, and a cohort of another study."""
        tissue = curation.load(self.folder / "tissue.h5ad", "validation")
        kind, part = self.compendium.obs["sample_type"], self.compendium.obs["split"]
        tumours = self.compendium.obs[((kind == "tumour") & (part != "train")).to_numpy()]
        is_tumour = tissue.obs_names.isin(tumours.index)
        found = {"Tissues: one sample of each of six": (_one_of_each(tissue[~is_tumour], "tissue"), None)}
        if is_tumour.any():
            of_type = tissue[is_tumour].to_memory()
            of_type.obs["cancer_type"] = tumours.loc[of_type.obs_names, "cancer_type"].astype(str)
            few = _one_of_each(of_type, "cancer_type")
            found["Tumours of six types"] = (
                few,
                tumours.loc[few.obs_names, LABELS].to_csv(index_label="sample").encode(),
            )
        if (self.folder / "cohort.h5ad").is_file():
            cohort = curation.load(self.folder / "cohort.h5ad")
            present = ~cohort.var["missing"].to_numpy(bool)
            found["Tumours of a cohort that training never saw"] = (_one_of_each(cohort[:, present], "group"), None)
        return {name: _example(samples, labels) for name, (samples, labels) in found.items() if samples.n_obs}


def _atlas(vae: TissueVAE, reference: ad.AnnData, run) -> pd.DataFrame:
    """The held-out references on the t-SNE map of paper B's figure 1: tsne1, tsne2, tissue, organ_system, source."""
    perplexity, iterations, seed = 30.0, 750, 42
    if run is not None:
        perplexity, iterations, seed = run.evaluation.tsne_perplexity, run.evaluation.tsne_iterations, run.seed
    xy = kobak_berens_tsne(vae.embed(curation.standardise(reference)), perplexity, iterations, seed)
    labels = reference.obs.reindex(columns=["tissue", "organ_system", "source"]).astype(str)
    return labels.assign(tsne1=xy[:, 0], tsne2=xy[:, 1])


def _write(question: Question, folder: Path) -> tuple[Path, Path | None, Path | None]:
    """A question's files in a folder, under names of ours; None for those not given."""
    given = {"expression": question.content, "labels": question.labels, "lines": question.line_table}
    paths: list[Path | None] = []
    for name, content in given.items():
        if content is not None and len(content) > MAX_MB * 1e6:
            raise ValueError(f"{name}: found {len(content) / 1e6:,.0f} MB, expected at most {MAX_MB} (python -m lib)")
        paths.append(None if content is None else folder / name)
        if content is not None:
            (folder / name).write_bytes(content)
    return paths[0], paths[1], paths[2]


def _in_words(error: Exception, folder: str, name: str) -> str:
    """A refusal in a line, with the visitor's name of the file for ours, and nothing of this machine."""
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError | RuntimeError):
        text = f"{name}: could not be used ({type(error).__name__}: {text[:200]})"
    shown = "".join(c if c.isprintable() else "?" for c in name)[:80]
    for ours, theirs in {"expression": shown, "labels": "table of samples", "lines": "table of cell lines"}.items():
        text = text.replace(f"{folder}/{ours}", theirs)
    text = re.sub(r" \(--max-gb\)", " (larger files: python -m lib)", text)
    if re.search(r"(?<![\w-])--[a-z]", text):
        text += ". Options such as --this are those of the command line, python -m lib"
    return text[:600]


def _with_columns(lines: pd.DataFrame, path: Path | None, known: pd.Index) -> pd.DataFrame:
    """The table of nearest lines with the columns of a visitor's own, by DepMap id."""
    if path is None:
        return lines.reset_index(drop=True)
    table = readers.sample_table(path)
    if not table.index.isin(known).any():
        raise ValueError(
            f"{path}: found none of the {len(known):,} cell lines ({table.index[0]!r} …), expected ids like {known[0]}"
        )
    table = table.iloc[:, :LINE_COLUMNS].drop(columns=lines.columns, errors="ignore")
    return lines.reset_index(drop=True).join(table, on="line")


def _one_of_each(adata: ad.AnnData, column: str) -> ad.AnnData:
    """The first sample of each of the commonest groups."""
    groups = adata.obs[column].astype(str)
    names = groups.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:EXAMPLE_SAMPLES]
    return adata[[groups.index[(groups == name).to_numpy()][0] for name in names]].to_memory()


def _example(samples: ad.AnnData, labels: bytes | None) -> Question:
    tpm = pd.DataFrame(np.exp2(samples.X.astype(float)) - 1, samples.obs_names, samples.var_names)
    content = tpm.to_csv(index_label="sample", float_format="%.5g").encode()
    return Question(content, "example.csv", "TPM", labels=labels)
