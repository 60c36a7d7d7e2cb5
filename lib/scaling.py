"""How the tissue VAE's scores change with the number of samples that it is trained on (paper B, Table 2).

The paper's three compendia differ in size, in cell lines and in the cap at once, and each was tested on samples of its
own. Here every design is tested on the same samples, and beside the paper's designs stand controls that change one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import psutil

from lib import claims, compendia, curation, notebooks, transfer
from lib.config import Profile
from lib.metrics.bootstrap import Estimate, interval
from lib.metrics.classification import balanced_accuracy, paired_difference, weighted_f1
from lib.metrics.growth import growth
from lib.metrics.mixing import knn_source_mixing, lisi
from lib.metrics.reconstruction import masked_spearman, spearman_per_gene, spearman_per_sample
from lib.models.tissue_vae import TissueVAE, random_mask

METRICS = {
    "gene_rho": "Spearman per gene, median",
    "sample_rho": "Spearman per sample, median",
    "imputation": "Spearman of 30 % hidden values",
    "balanced_accuracy": "balanced accuracy",
    "weighted_f1": "weighted F1",
    "target": "unseen cohort as expected",
}
HIDDEN = 0.3
ARCHS4 = {"38K": "b-scale-archs4-38k", "75K": "b-scale-archs4-75k"}  # claims: ARCHS4 samples of the smaller designs
SHARES = (0.1, 0.25, 0.5)  # of all training samples, when size alone varies
FULL = "118K"


class Design(NamedTuple):
    """Samples to train on: positions in the pool; kind: "as published", "size alone" or "cap alone"."""

    name: str
    kind: str
    rows: np.ndarray


class Result(NamedTuple):
    """What one training gave on the common test samples: arrays in their order, or in the genes' or the cohort's.

    gene_rho: NaN for genes that did not vary in training; hits: NaN where no expected tissue is known; mixing, lisi:
    empty where there is one source only.
    """

    design: Design
    predicted: np.ndarray
    gene_rho: np.ndarray
    sample_rho: np.ndarray
    imputation: Estimate
    hits: np.ndarray
    mixing: np.ndarray
    lisi: np.ndarray
    epochs: int
    memory_gb: float


# --- data ----------------------------------------------------------------------------------------------------


def pool(run: Profile) -> ad.AnnData:
    """All samples that a design may draw from, log2(TPM+1), on the genes of tissue.h5ad; obs.cell_line.

    From archives: re-curated with cell lines and without a cap, once per code and settings. A user's own file and
    the deposit have no more than their compendium.
    """
    tissue = run.processed / "tissue.h5ad"
    if not from_archives(run):
        kept = curation.load(tissue)
        kept.obs["cell_line"] = False
        return kept
    settings = json.dumps(run.settings("data", "data_dir", "tissue"), sort_keys=True)
    folder = notebooks.checkpoint_dir(run, "lib.compendia")
    path = folder / f"pool-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.h5ad"
    newest = max(file.stat().st_mtime for file in compendia.raw_files(run))
    if not path.is_file() or path.stat().st_mtime < newest:
        unfinished = path.with_suffix(f".{os.getpid()}.part")  # another notebook may be at it too
        compendia.curate_pool(run, unfinished)
        unfinished.replace(path)
    found = curation.load(path)
    genes = ad.read_h5ad(tissue, backed="r").var_names
    return found[:, genes[genes.isin(found.var_names)]].copy()


def from_archives(run: Profile) -> bool:
    """Whether there is more to draw from than the compendium itself."""
    return run.data.kind != "files" and run.tissue.source == "archives"


def designs(run: Profile, obs: pd.DataFrame) -> list[Design]:
    """Every set of training samples; obs: the pool's source, tissue, split, cell_line.

    As published, in proportion: 38K and 75K take the share of ARCHS4 that the paper took and all of the other sources,
    cell lines and all, no cap; 118K takes all of ARCHS4, no cell lines, capped. Size alone: random nested shares of the
    118K samples. Cap alone: no cap, with as many samples as the capped design has. Without archives: size alone.
    """
    train = (obs["split"] == "train").to_numpy()
    rng = np.random.default_rng(run.seed)
    if not from_archives(run):
        full = rng.permutation(np.flatnonzero(train))
        return [Design(f"{share:.0%}", "size alone", _first(full, share)) for share in (*SHARES, 1.0)]
    line, archs4 = obs["cell_line"].to_numpy(bool), (obs["source"] == "ARCHS4").to_numpy()
    drawn, others = rng.permutation(np.flatnonzero(train & archs4)), np.flatnonzero(train & ~archs4)
    labelled = claims.published("b-n-archs4-tissue")
    made = []
    for name, claim in ARCHS4.items():
        rows = np.concatenate([_first(drawn, claims.published(claim) / labelled), others])
        made.append(Design(name, "as published", np.sort(rows)))
    clean = np.flatnonzero(~line)
    capped = clean[curation.under_cap(obs.iloc[clean], run.tissue.cap, seed=run.seed)]
    full = rng.permutation(capped[train[capped]])
    made.append(Design(FULL, "as published", np.sort(full)))
    made += [Design(f"{share:.0%} of {FULL}", "size alone", _first(full, share)) for share in SHARES]
    uncapped = rng.permutation(clean[train[clean]])[: len(full)]
    return [*made, Design("no cap", "cap alone", np.sort(uncapped))]


def _first(rows: np.ndarray, share: float) -> np.ndarray:
    return np.sort(rows[: max(2, round(share * len(rows)))])


def held_out(obs: pd.DataFrame, part: str) -> np.ndarray:
    """Positions of a part's samples that have a tissue and are no cell lines: the same for every design."""
    kept = (obs["split"] == part) & obs["tissue"].notna() & ~obs["cell_line"].astype(bool)
    return np.flatnonzero(kept)


def z_scores(samples: ad.AnnData, rows: np.ndarray, statistics: pd.DataFrame) -> ad.AnnData:
    """The pool's samples at `rows`, standardised by the mean and sd of `statistics` (by position of the genes)."""
    var = samples.var.assign(mean=statistics["mean"].to_numpy(), sd=statistics["sd"].to_numpy())
    obs = samples.obs.iloc[rows]
    if not obs.index.is_unique:  # rows that stand for several
        obs = obs.set_axis([f"{name}-{i}" for i, name in enumerate(obs.index)])
    return curation.standardise(ad.AnnData(samples.X[rows], obs=obs, var=var, uns={"unit": "log2(TPM+1)"}))


# --- training and scoring ------------------------------------------------------------------------------------


def train(run: Profile, samples: ad.AnnData, design: Design, cohort: ad.AnnData, steps_of: int) -> Result:
    """Train one design with the profile's settings and score it.

    samples: the pool; cohort: harmonised over itself, on the pool's genes; steps_of: training samples of the design
    whose number of steps in `tissue_controls.epochs` epochs no design exceeds. Early stopping as in the paper.
    """
    settings = run.tissue_vae.model_dump(exclude={"selection", "checkpoint_every"})
    settings["max_epochs"] = ceil(run.tissue_controls.epochs * steps_of / len(design.rows))
    folder = (
        notebooks.checkpoint_dir(run, "lib.models.tissue_vae") / f"scaling-{re.sub('[^0-9A-Za-z]+', '-', design.name)}"
    )
    with peak_memory() as memory:
        own = curation.gene_statistics(samples.X, np.isin(np.arange(samples.n_obs), design.rows))
        test = z_scores(samples, held_out(samples.obs, "test"), own)
        model = TissueVAE(**settings, seed=run.seed).fit(
            z_scores(samples, design.rows, own),
            validation=z_scores(samples, held_out(samples.obs, run.tissue_vae.selection), own),
            checkpoint_dir=folder,
            checkpoint_every=run.tissue_vae.checkpoint_every,
        )
        return _score(run, design, model, test, cohort, memory)


def _score(run: Profile, design: Design, model: TissueVAE, test: ad.AnnData, cohort: ad.AnnData, memory) -> Result:
    varies, gene_rho, rebuilt = test.X.std(axis=0) > 0, np.full(test.n_vars, np.nan), model.reconstruct(test)
    gene_rho[varies] = spearman_per_gene(test.X[:, varies], rebuilt[:, varies])
    mask = random_mask(*test.shape, HIDDEN, run.seed)
    imputed = masked_spearman(test.X, model.impute(test, mask), mask, run.evaluation.bootstrap, run.seed)
    codes = ad.AnnData(model.embed(test), obs=test.obs)
    source = test.obs["source"].astype(str).to_numpy()
    k = min(run.evaluation.mixing_neighbours, test.n_obs - 1)
    mixed = (knn_source_mixing(codes.X, source, k), lisi(codes.X, source, k)) if len(set(source)) > 1 else ([], [])
    called = transfer.knn_calls(codes, model.embed(cohort))["called"].to_numpy()
    known = set(test.obs["tissue"].astype(str))
    return Result(
        design,
        model.predict(test),
        gene_rho,
        spearman_per_sample(test.X, rebuilt),
        imputed,
        transfer.as_expected(cohort.obs["group"], called, next(iter(compendia.rubrics(run).values())), known),
        *map(np.asarray, mixed),
        len(model.history_),
        ceil(2 * memory()) / 2,
    )


@contextmanager
def peak_memory():
    """A function that gives the process' largest memory (GB, resident) since the block began."""
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch():
        while not done.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(peak[0], process.memory_info().rss) / 2**30
    finally:
        done.set()
        thread.join()


def run_designs(run: Profile) -> tuple[ad.AnnData, list[Result]]:
    """(test samples, a result for every design) of one seed."""
    samples = pool(run)
    cohort = curation.load(run.processed / "cohort.h5ad")[:, samples.var_names].to_memory()
    cohort = transfer.harmonise(cohort, "cohort")
    made = designs(run, samples.obs)
    full = max((d for d in made if d.kind != "cap alone"), key=lambda d: len(d.rows))
    results = [train(run, samples, design, cohort, len(full.rows)) for design in made]
    test = samples[held_out(samples.obs, "test")]
    return ad.AnnData(obs=test.obs.assign(), var=test.var[[]]), results


# --- tables --------------------------------------------------------------------------------------------------


def scores(result: Result, tissue: np.ndarray, n_boot: int, seed: int) -> pd.DataFrame:
    """`METRICS` of one design: design, kind, samples, metric, value, low, high, n. tissue: of the test samples."""
    estimates = {
        "gene_rho": interval(result.gene_rho[~np.isnan(result.gene_rho)], np.median, n_boot, seed),
        "sample_rho": interval(result.sample_rho, np.median, n_boot, seed),
        "imputation": result.imputation,
        "balanced_accuracy": balanced_accuracy(tissue, result.predicted, n_boot, seed),
        "weighted_f1": weighted_f1(tissue, result.predicted, n_boot, seed),
        "target": transfer.estimate(result.hits, n_boot, seed),
    }
    about = {"design": result.design.name, "kind": result.design.kind, "samples": len(result.design.rows)}
    return pd.DataFrame([about | {"metric": metric} | estimates[metric]._asdict() for metric in METRICS])


def described(samples: pd.DataFrame, results: list[Result]) -> pd.DataFrame:
    """What each design was trained on and how: samples by source, cell lines, largest tissue, epochs, memory."""
    rows = []
    for result in results:
        obs = samples.iloc[result.design.rows]
        sources = obs["source"].astype(str).value_counts().head(4)
        rows.append({
            "design": result.design.name, "kind": result.design.kind, "samples": len(obs),
            "sources": ", ".join(f"{name} {n:,}" for name, n in sources.items() if name),
            "cell_lines": int(obs["cell_line"].sum()), "tissues": obs["tissue"].nunique(),
            "largest_tissue": int(obs["tissue"].value_counts().max()),
            "epochs": result.epochs, "peak_memory_gb": result.memory_gb,
        })  # fmt: skip
    return pd.DataFrame(rows)


def table_2(table: pd.DataFrame) -> pd.DataFrame:
    """Paper B's Table 2: a row for each metric; per design the mean over seeds of value, low and high."""
    table = table[(table["kind"] == "as published") | (table["design"] == "100%")]
    mean = table.groupby(["metric", "design"])[["value", "low", "high"]].mean()
    rows = []
    for metric, words in METRICS.items():
        n = table.loc[table["metric"] == metric, "n"]
        row = {"metric": words, "n": int(n.iloc[0])}
        for design in dict.fromkeys(table["design"]):
            value, low, high = mean.loc[(metric, design)]
            row |= {design: value, f"{design}_low": low, f"{design}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def compare(a: Result, b: Result, test: pd.DataFrame, groups: pd.Series, n_boot: int, seed: int) -> pd.DataFrame:
    """Table S1, metric by metric: score of `a`, of `b`, and b − a over the same test samples, with its interval.

    test: tissue of the test samples; groups: of the unseen cohort. Rows also for every tissue and every group.
    """
    tissue = test["tissue"].to_numpy(dtype=str)
    rows = []

    def add(metric, left, right, difference):
        names = ("difference", "low", "high", "n")
        rows.append(
            {"metric": metric, a.design.name: left, b.design.name: right} | dict(zip(names, difference, strict=True))
        )

    def paired(metric, left, right, statistic):
        kept = ~(np.isnan(left) | np.isnan(right))
        left, right = left[kept], right[kept]
        none = Estimate(np.nan, np.nan, np.nan, 0)
        change = interval(right - left, statistic, n_boot, seed) if len(left) else none
        add(metric, *(statistic(x) if len(x) else np.nan for x in (left, right)), change)

    paired("Spearman per gene, median (difference: median over genes)", a.gene_rho, b.gene_rho, np.median)
    paired("Spearman per sample, median (difference: median over samples)", a.sample_rho, b.sample_rho, np.median)
    for metric, score in (("balanced_accuracy", balanced_accuracy), ("weighted_f1", weighted_f1)):
        change = paired_difference(tissue, b.predicted, a.predicted, metric, n_boot, seed)
        add(METRICS[metric], *(score(tissue, r.predicted, 2, seed).value for r in (a, b)), change)
    paired("source mixing among neighbours", a.mixing, b.mixing, np.mean)
    paired("LISI of sources", a.lisi, b.lisi, np.mean)
    right = {r.design.name: (r.predicted == tissue).astype(float) for r in (a, b)}
    for name in sorted(set(tissue)):
        of = tissue == name
        paired(f"accuracy, {name}", right[a.design.name][of], right[b.design.name][of], np.mean)
    for name in ("all", *transfer.in_order(groups)):
        of = np.ones(len(groups), bool) if name == "all" else (groups == name).to_numpy()
        paired(f"called as expected, {name}", a.hits[of], b.hits[of], np.mean)
    return pd.DataFrame(rows)


# --- growth --------------------------------------------------------------------------------------------------


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """Per metric, size alone: gain per doubling (all sizes; last step), and the line taken on to the 605K corpus.

    table: `scores` of all seeds; scatter: standard deviation of single trainings about the line. The corpus is as much
    larger than the largest design as the paper's is than its own.
    Diminishing returns are a last_step below per_doubling. Extrapolated bounds stop at 1, which no metric exceeds.
    """
    table = table[(table["kind"] == "size alone") | (table["design"] == full_design(table))]
    times = claims.published("b-scale-605k") / claims.published("b-scale-n-118k")
    largest = table["samples"].max()
    rows = []
    for metric, words in METRICS.items():
        mine = table[(table["metric"] == metric) & table["value"].notna()]
        row = {"metric": words, "points": len(mine), "sizes": mine["samples"].nunique()}
        if len(mine) >= 3:
            line = growth(mine["samples"], mine["value"])
            mean = mine.groupby("samples")["value"].mean()
            steps = [(v2 - v1) / np.log2(n2 / n1) for (n1, v1), (n2, v2) in pairwise(mean.items())]
            value, low, high = (min(1.0, v) for v in line.at(largest * times))
            row |= {"per_doubling": line.per_doubling, "low": line.low, "high": line.high, "scatter": line.residual}
            row |= {"first_step": steps[0], "last_step": steps[-1], "at_largest": mean.iloc[-1]}
            row |= {"corpus": int(largest * times), "extrapolated": value}
            row |= {"extrapolated_low": low, "extrapolated_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def full_design(scores: pd.DataFrame) -> str:
    """Name of the design that the shares of `size alone` are shares of."""
    return FULL if (scores["design"] == FULL).any() else "100%"


def compared(names) -> tuple[str, str]:
    """The two designs of table S1: the paper's 75K and 118K, or the two largest where there is size alone."""
    return ("75K", FULL) if FULL in names else (f"{SHARES[-1]:.0%}", "100%")


def in_words(scores: pd.DataFrame, fitted: pd.DataFrame) -> str:
    """Gains per doubling with their intervals, whether returns diminish, and what the cap does: a paragraph each."""
    said = []
    for row in fitted[fitted["points"] >= 3].itertuples():
        less = "less" if row.last_step < row.first_step else "no less"
        said.append(
            f"{row.metric}: {row.per_doubling:+.3f} per doubling ({row.low:+.3f} to {row.high:+.3f}, {row.points} "
            f"trainings), {less} in the last step ({row.last_step:+.3f}) than in the first ({row.first_step:+.3f}); at "
            f"{int(row.corpus):,} samples the line would give {row.extrapolated:.3f} ({row.extrapolated_low:.3f} to "
            f"{row.extrapolated_high:.3f})."
        )
    mean = scores.groupby(["design", "metric"])["value"].mean().unstack()
    if "no cap" in mean.index:
        change = mean.loc[FULL] - mean.loc["no cap"]
        scatter = fitted.set_index("metric")["scatter"] if "scatter" in fitted else {}
        parts = [f"{w} {change[m]:+.3f} ({scatter.get(w, np.nan):.3f})" for m, w in METRICS.items() if m in change]
        said.append(
            f"The cap alone, at one number of samples (in brackets: scatter of single trainings about the line, "
            f"standard deviation): {', '.join(parts)}."
        )
    return "\n\n".join(said) or "Nothing is estimable."
