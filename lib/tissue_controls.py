"""What each part of the tissue VAE and of its curation does: one thing changed at a time (paper B, Fig S3, Discussion).

All models of a seed are tested on the same samples, so that every difference to the full model is paired. Among the
ablations are the two directions that the paper's discussion proposes: samples without a label that train the
reconstruction, and a normalisation that the model learns in place of z-scores over the unseen cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from lib import curation, tissue_baselines, transfer
from lib.config import Profile
from lib.models.tissue_vae import TissueVAE
from lib.models.tissue_variants import CohortJitter, LinearOutput
from lib.negative_correlations import LOST, by_output
from lib.tissue_pool import held_out, pool, z_scores
from lib.tissue_scoring import Scored, cohort_hits, score

FULL, LINES, NO_CAP, NO_SUPERVISION = "full", "cell lines kept", "no cap", "no supervision"
AGAIN = "another seed"  # the full model trained again: what a difference is worth
FEW, CO_TRAINED, LEARNED = "few labels", "few labels, rest unlabelled", "learned normalisation"
GENE_NOISE = "learned normalisation, noise gene by gene"
LINEAR = "faithful, linear output"  # the published code without its sigmoid, which alone this changes
DENOISING = 0.2  # share of genes masked in the paper's denoising variant
LABELLED = 0.2  # share of each tissue's samples that keep their label in FEW and CO_TRAINED
JITTER = 0.5  # of GENE_NOISE, in standard deviations of a gene
FEWEST = 5  # samples behind a mean of a tissue in a study
FLAT = 0.1  # smallest standard deviation of a gene in a study that a scale is read from


@dataclass(frozen=True)
class Ablation:
    """What one model is trained on and how: positions in the pool, changed arguments, its class, obs of the split.

    unlabelled: positions, among `rows`, whose label is withheld; against: the model that it is compared with.
    """

    name: str
    rows: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    model: type[TissueVAE] = TissueVAE
    split: str = "split"
    unlabelled: np.ndarray = field(default_factory=lambda: np.array([], int))
    against: str = FULL


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
    made += model_changes(run, rows)
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


def model_changes(run: Profile, rows: np.ndarray) -> list[Ablation]:
    """Ablations of the model itself, all on the same samples; LEARNED takes its shifts from them."""
    vae = run.tissue_vae
    masked = ("no denoising", 0.0) if vae.mask_fraction else ("denoising", DENOISING)
    other = "corrected" if vae.variant == "faithful" else "faithful"
    return [
        Ablation(masked[0], rows, {"mask_fraction": masked[1]}),
        Ablation("no MMD", rows, {"mmd_weight": 0.0}),
        Ablation(NO_SUPERVISION, rows, {"supervision_weight": 0.0}),
        Ablation(f"variant {other}", rows, {"variant": other}),
        Ablation(LINEAR, rows, {"variant": "faithful"}, LinearOutput, against=outputs(run)["sigmoid"]),
        Ablation(LEARNED, rows, {"affine_jitter": JITTER}, CohortJitter),
        Ablation(GENE_NOISE, rows, {"affine_jitter": JITTER}),
    ]


def outputs(run: Profile) -> dict[str, str]:
    """Models whose output is compared: the published code with and without its sigmoid, and the paper's description."""
    published, described = (FULL if run.tissue_vae.variant == v else f"variant {v}" for v in ("faithful", "corrected"))
    return {"sigmoid": published, "linear": LINEAR, "corrected": described}


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
    return column if both >= FEWEST and {"train", "test"} <= set(obs[column]) else None


def split_name(column: str) -> str:
    return f"split by {column.removeprefix('split_')}"


def on_both(column: str) -> str:
    """Name of the full model where it is tested on what both splits hold out."""
    return f"full, tested as {split_name(column)}"


def both_held_out(obs: pd.DataFrame, column: str) -> np.ndarray:
    """Positions of the samples in the test parts of both splits."""
    return np.intersect1d(held_out(obs, "test"), np.flatnonzero(obs[column] == "test"))


def some_of_each(rows: np.ndarray, tissue: np.ndarray, share: float, seed: int) -> np.ndarray:
    """That share of every tissue's rows, drawn at random and rounded up."""
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_tissue = pd.Series(shuffled).groupby(tissue[shuffled])
    return np.sort(rows[np.concatenate([places.iloc[: ceil(share * len(places))] for _, places in by_tissue])])


def source_effects(data: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """(shifts, log scales) of studies and sources within a tissue, effects × genes each; data: z-scores.

    Of every tissue with two studies or more (GTEx and TCGA count as one each) of `FEWEST` samples: a study's mean less
    the tissue's, and the logarithm of its standard deviation over the tissue's own. None, of such a tissue: empty.
    """
    X, obs = np.asarray(data.X), data.obs
    study = obs["source"].astype(str) + " " + obs["study"].astype(str) if "study" in obs else obs["source"].astype(str)
    shifts, log_scales = [np.empty((0, data.n_vars))], [np.empty((0, data.n_vars))]
    for tissue, rows in obs.groupby(obs["tissue"].astype(str)).indices.items():
        groups = [rows[at] for at in study.iloc[rows].groupby(study.iloc[rows].to_numpy()).indices.values()]
        groups = [group for group in groups if len(group) >= FEWEST]
        if tissue != "None" and len(groups) > 1:
            means, spreads = (np.stack([f(X[group], axis=0) for group in groups]) for f in (np.mean, np.std))
            shifts.append(means - means.mean(axis=0))
            log_scales.append(np.log(np.maximum(spreads, FLAT) / np.maximum(spreads.mean(axis=0), FLAT)))
    return np.concatenate(shifts), np.concatenate(log_scales)


# --- training and scoring ------------------------------------------------------------------------------------


class Made(NamedTuple):
    """A trained ablation, its scores, and, of the models in `outputs`, correlations per sample (`by_output`)."""

    ablation: Ablation
    scored: Scored
    per_sample: dict[tuple[float, str], np.ndarray]


def run_ablations(run: Profile) -> tuple[dict[str, Made], pd.Series]:
    """(every model by name, groups of the unseen cohort) of one seed."""
    samples = pool(run)
    cohort = curation.load(run.processed / "cohort.h5ad")[:, samples.var_names].to_memory()
    lost = LOST if "none" in transfer.harmonisations(cohort) else LOST[:1]  # a deposit's values have no zero of reads
    made = {}
    for ablation in ablations(run, samples.obs):
        own = curation.gene_statistics(samples.X, np.isin(np.arange(samples.n_obs), ablation.rows))
        vae = train(run, samples, ablation, own)
        if vae is None:
            continue
        tests = {ablation.name: held_out(samples.obs, "test")}
        if ablation.split != "split":
            tests = {ablation.name: both_held_out(samples.obs, ablation.split)}
        elif ablation.name == FULL and (other := other_split(run, samples.obs)):
            tests[on_both(other)] = both_held_out(samples.obs, other)
        hits = cohort_hits(run, vae, z_scores(samples, held_out(samples.obs, "test"), own), cohort, own)
        known = z_scores(samples, labelled_rows(ablation, samples.obs), own)
        for name, rows in tests.items():
            test = z_scores(samples, rows, own)
            per_sample = by_output(vae, test, run.seed, lost) if name in outputs(run).values() else {}
            made[name] = Made(ablation, score(run, vae, test, known, hits), per_sample)
    return made, cohort.obs["group"].astype(str)


def labelled_rows(ablation: Ablation, obs: pd.DataFrame) -> np.ndarray:
    """Positions of the training samples that have a label, each once: neighbours to vote must not be copies."""
    rows = np.setdiff1d(ablation.rows, ablation.unlabelled)
    return rows[obs["tissue"].iloc[rows].notna().to_numpy()]


def train(run: Profile, samples: ad.AnnData, ablation: Ablation, own: pd.DataFrame) -> TissueVAE | None:
    """One model, with the profile's settings but for what it changes; own: mean and sd of its training samples.

    None for `LEARNED` where no tissue has two studies or sources to learn shifts from.
    """
    data = z_scores(samples, ablation.rows, own)
    data.obs["tissue"] = data.obs["tissue"].astype(object).mask(np.isin(ablation.rows, ablation.unlabelled), None)
    vae = ablation.model(**tissue_baselines.control_settings(run, **ablation.settings))
    if isinstance(vae, CohortJitter):
        effects = source_effects(data)
        if not len(effects[0]):
            return None
        vae.with_effects(*effects)
    held = held_out(samples.obs.assign(split=samples.obs[ablation.split]), "validation")
    held = z_scores(samples, held, own) if len(held) else None  # None: a tenth of the training samples
    return tissue_baselines.fit_control(vae, run, data, held, f"ablation-{ablation.name}")
