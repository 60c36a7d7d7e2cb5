"""What each part of the tissue VAE and of its curation does: one thing changed at a time (paper B, Fig S3, Discussion).

All models of a seed are tested on the same samples, so that every difference to the full model is paired. Among the
ablations are the two directions that the paper's discussion proposes: samples without a label that train the
reconstruction, and a normalisation that the model learns in place of z-scores over the unseen cohort.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from lib import compendia, curation, notebooks, scaling, transfer
from lib.config import Profile
from lib.metrics.classification import knn_predict
from lib.metrics.mixing import knn_source_mixing
from lib.metrics.reconstruction import masked_sums, spearman_per_gene, spearman_per_sample
from lib.models.tissue_vae import TissueVAE, random_mask

FULL, LINES, NO_CAP, NO_SUPERVISION = "full", "cell lines kept", "no cap", "no supervision"
AGAIN = "another seed"  # the full model trained again: what a difference is worth
FEW, CO_TRAINED, LEARNED = "few labels", "few labels, rest unlabelled", "learned normalisation"
DENOISING = 0.2  # share of genes masked in the paper's denoising variant
LABELLED = 0.2  # share of each tissue's samples that keep their label in FEW and CO_TRAINED
JITTER = 0.5  # of LEARNED where there is one source only, in standard deviations of a gene
FEWEST = 5  # samples behind a mean of a tissue in a source


@dataclass(frozen=True)
class Ablation:
    """What one model is trained on and how: positions in the pool, changed arguments of TissueVAE, obs of the split.

    unlabelled: positions, among `rows`, whose label is withheld; against: the model that it is compared with.
    """

    name: str
    rows: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    split: str = "split"
    unlabelled: np.ndarray = field(default_factory=lambda: np.array([], int))
    against: str = FULL


class Scored(NamedTuple):
    """What one model gave on its test samples (arrays in their order), on the genes, and on the unseen cohort.

    called: empty without supervision; hits: by harmonisation, NaN where no expected tissue is known; mixing: empty
    where there is one source only; masked: `masked_sums` of the imputation.
    """

    ablation: Ablation
    tissue: np.ndarray
    called: np.ndarray
    near: np.ndarray
    gene_rho: np.ndarray
    sample_rho: np.ndarray
    masked: np.ndarray
    mixing: np.ndarray
    hits: dict[str, np.ndarray]
    epochs: int


# --- designs -------------------------------------------------------------------------------------------------


def ablations(run: Profile, obs: pd.DataFrame) -> list[Ablation]:
    """Every model of one seed, the full one first; obs: the pool's source, tissue, split_*, cell_line.

    All are thinned by the same draw, so that the full model has `tissue_controls.samples` training samples at most.
    """
    full = kept_rows(run, obs)
    order = np.random.default_rng(run.seed).random(len(obs))
    share = min(1.0, (run.tissue_controls.samples or len(full)) / len(full))

    def thinned(rows: np.ndarray) -> np.ndarray:
        return rows[order[rows] <= np.quantile(order[full], share)]

    rows = thinned(full)
    made = [Ablation(FULL, rows), Ablation(AGAIN, rows, {"seed": run.seed + 1})]
    if obs["cell_line"].any():
        made.append(Ablation(LINES, thinned(kept_rows(run, obs, lines=True))))
    uncapped = kept_rows(run, obs, cap=False)
    if len(uncapped) > len(full):
        at_random = uncapped[np.argsort(order[uncapped], kind="stable")[: len(rows)]]
        made.append(Ablation(NO_CAP, np.sort(at_random)))
    made += [Ablation(name, rows, settings) for name, settings in model_changes(run).items()]
    other = other_split(run, obs)
    if other:
        made.append(
            Ablation(split_name(other), thinned(kept_rows(run, obs, other)), split=other, against=on_both(other))
        )
    labelled = some_of_each(rows, obs["tissue"].to_numpy(dtype=str)[rows], LABELLED, run.seed)
    repeated = np.resize(labelled, len(rows))  # as many steps per epoch as with the unlabelled ones
    made.append(Ablation(FEW, repeated))
    made.append(Ablation(CO_TRAINED, rows, unlabelled=np.setdiff1d(rows, labelled), against=FEW))
    return made


def model_changes(run: Profile) -> dict[str, dict[str, Any]]:
    """Ablations of the model itself: name -> changed arguments; LEARNED gets its jitter from the data."""
    vae = run.tissue_vae
    other = "corrected" if vae.variant == "faithful" else "faithful"
    denoising = (
        {"no denoising": {"mask_fraction": 0.0}} if vae.mask_fraction else {"denoising": {"mask_fraction": DENOISING}}
    )
    return denoising | {
        "no MMD": {"mmd_weight": 0.0},
        NO_SUPERVISION: {"supervision_weight": 0.0},
        f"variant {other}": {"variant": other},
        LEARNED: {"affine_jitter": JITTER},
    }


def kept_rows(
    run: Profile, obs: pd.DataFrame, split: str = "split", lines: bool = False, cap: bool = True
) -> np.ndarray:
    """Positions of the training samples with a tissue, under the cap; lines: with ARCHS4's cell lines (Fig S3)."""
    left_out = obs["cell_line"].to_numpy(bool) & ~((obs["source"] == "ARCHS4").to_numpy() & lines)
    kept = np.flatnonzero(~left_out & obs["tissue"].notna().to_numpy())
    part = obs.iloc[kept].assign(split=obs[split].iloc[kept])
    mask = curation.under_cap(part, run.tissue.cap if cap else None, seed=run.seed)
    return kept[mask & (part["split"] == "train").to_numpy()]


def other_split(run: Profile, obs: pd.DataFrame) -> str | None:
    """obs column of the split that the compendium was not curated by; None where it has no such parts."""
    column = "split_study" if run.tissue.split == "sample" else "split_sample"
    both = len(both_held_out(obs, column)) if column in obs else 0
    return column if both >= FEWEST and {"train", "validation", "test"} <= set(obs[column]) else None


def split_name(column: str) -> str:
    return f"split by {column.removeprefix('split_')}"


def on_both(column: str) -> str:
    """Name of the full model where it is tested on what both splits hold out."""
    return f"full, tested as {split_name(column)}"


def both_held_out(obs: pd.DataFrame, column: str) -> np.ndarray:
    """Positions of the samples in the test parts of both splits."""
    return np.intersect1d(scaling.held_out(obs, "test"), np.flatnonzero(obs[column] == "test"))


def some_of_each(rows: np.ndarray, tissue: np.ndarray, share: float, seed: int) -> np.ndarray:
    """That share of every tissue's rows, drawn at random and rounded up."""
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_tissue = pd.Series(shuffled).groupby(tissue[shuffled])
    return np.sort(rows[np.concatenate([places.iloc[: ceil(share * len(places))] for _, places in by_tissue])])


def source_jitter(data: ad.AnnData) -> float:
    """How far sources lie apart within a tissue, in a gene's standard deviations: median over genes; data: z-scores."""
    X, obs = np.asarray(data.X), data.obs
    groups = {
        k: rows for k, rows in obs.groupby([obs["tissue"].astype(str), obs["source"].astype(str)]).indices.items()
    }
    means = {k: X[rows].mean(axis=0) for k, rows in groups.items() if len(rows) >= FEWEST}
    tissues = [
        [m for (name, _), m in means.items() if name == tissue] for tissue in sorted({name for name, _ in means})
    ]
    apart = [np.stack(each) - np.mean(each, axis=0) for each in tissues if len(each) > 1]
    return float(np.median(np.concatenate(apart).std(axis=0))) if apart else JITTER


# --- training and scoring ------------------------------------------------------------------------------------


def run_ablations(run: Profile) -> tuple[dict[str, Scored], pd.Series]:
    """(every model's scores by name, groups of the unseen cohort) of one seed."""
    samples = scaling.pool(run)
    cohort = curation.load(run.processed / "cohort.h5ad")[:, samples.var_names].to_memory()
    made = {}
    for ablation in ablations(run, samples.obs):
        own = curation.gene_statistics(samples.X, np.isin(np.arange(samples.n_obs), ablation.rows))
        vae = train(run, samples, ablation, own)
        tests = {ablation.name: scaling.held_out(samples.obs, "test")}
        if ablation.split != "split":
            tests = {ablation.name: both_held_out(samples.obs, ablation.split)}
        elif ablation.name == FULL and (other := other_split(run, samples.obs)):
            tests[on_both(other)] = both_held_out(samples.obs, other)
        for name, rows in tests.items():
            made[name] = score(run, ablation, vae, samples, own, rows, cohort)
    return made, cohort.obs["group"].astype(str)


def train(run: Profile, samples: ad.AnnData, ablation: Ablation, own: pd.DataFrame) -> TissueVAE:
    """One model, with the profile's settings but for what it changes; own: mean and sd of its training samples."""
    data = scaling.z_scores(samples, ablation.rows, own)
    data.obs_names_make_unique()
    data.obs["tissue"] = data.obs["tissue"].astype(object).mask(np.isin(ablation.rows, ablation.unlabelled), None)
    changes = dict(ablation.settings)
    if "affine_jitter" in changes:
        changes["affine_jitter"] = round(source_jitter(data), 3)
    settings = run.tissue_vae.model_dump(exclude={"selection", "checkpoint_every"})
    settings |= {"max_epochs": run.tissue_controls.epochs, "seed": run.seed} | changes
    held = samples.obs.assign(split=samples.obs[ablation.split])
    name = re.sub("[^0-9A-Za-z]+", "-", ablation.name)
    folder = notebooks.checkpoint_dir(run, "lib.models.tissue_vae") / f"ablation-{name}"
    return TissueVAE(**settings).fit(
        data,
        validation=scaling.z_scores(samples, scaling.held_out(held, run.tissue_vae.selection), own),
        checkpoint_dir=folder,
        checkpoint_every=run.tissue_vae.checkpoint_every,
    )


def score(run, ablation: Ablation, vae: TissueVAE, samples: ad.AnnData, own: pd.DataFrame, rows, cohort) -> Scored:
    """One model on the test samples at `rows` and on the cohort; own: mean and sd of its training samples."""
    test, seen = scaling.z_scores(samples, rows, own), scaling.z_scores(samples, ablation.rows, own)
    codes, near_k = vae.embed(test), run.evaluation.baseline_neighbours
    labelled = ~np.isin(ablation.rows, ablation.unlabelled)
    known = seen.obs["tissue"].to_numpy(dtype=str)[labelled]
    rebuilt, varies = vae.reconstruct(test), test.X.std(axis=0) > 0
    gene_rho = np.full(test.n_vars, np.nan)
    gene_rho[varies] = spearman_per_gene(test.X[:, varies], rebuilt[:, varies])
    mask = random_mask(*test.shape, scaling.HIDDEN, run.seed)
    source = test.obs["source"].astype(str).to_numpy()
    k = min(run.evaluation.mixing_neighbours, test.n_obs - 1)
    return Scored(
        ablation,
        test.obs["tissue"].to_numpy(dtype=str),
        np.array([]) if ablation.name == NO_SUPERVISION else vae.predict(test).astype(str),
        knn_predict(vae.embed(seen)[labelled], known, codes, near_k),
        gene_rho,
        spearman_per_sample(test.X, rebuilt),
        masked_sums(test.X, vae.impute(test, mask), mask),
        knn_source_mixing(codes, source, k) if len(set(source)) > 1 else np.array([]),
        cohort_hits(run, vae, samples, own, cohort),
        len(vae.history_),
    )


def cohort_hits(run: Profile, vae: TissueVAE, samples: ad.AnnData, own: pd.DataFrame, cohort: ad.AnnData):
    """Unseen cohort called as expected (1, 0, NaN), by harmonisation: "cohort" as published, "none" sample by sample.

    The voting reference is the test part of the compendium's own split, for every model.
    """
    reference = scaling.z_scores(samples, scaling.held_out(samples.obs, "test"), own)
    codes = ad.AnnData(vae.embed(reference), obs=reference.obs)
    known, expected = set(codes.obs["tissue"].astype(str)), next(iter(compendia.rubrics(run).values()))
    foreign, hits = cohort.copy(), {}
    ways = [how for how in transfer.harmonisations(cohort) if how != "reference"]
    if "none" in ways:
        foreign.var["mean"], foreign.var["sd"] = own["mean"].to_numpy(), own["sd"].to_numpy()
    for how in ways:
        called = transfer.knn_calls(codes, vae.embed(transfer.harmonise(foreign, how)))["called"].to_numpy()
        hits[how] = transfer.as_expected(cohort.obs["group"], called, expected, known)
    return hits
