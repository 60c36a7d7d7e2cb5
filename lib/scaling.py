"""How the tissue VAE's scores change with the number of samples that it is trained on (paper B, Table 2).

The paper's three compendia differ in size, in cell lines and in the cap at once, and each was tested on samples of its
own. Here every design is tested on the same samples, and beside the paper's designs stand controls that change one.
Their tables: lib/scaling_tables.py.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from math import ceil
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import psutil

from lib import claims, curation, tissue_baselines, tissue_scoring
from lib.config import Profile
from lib.models.tissue_vae import TissueVAE
from lib.tissue_pool import from_archives, held_out, pool, z_scores
from lib.tissue_scoring import Scored

ARCHS4 = {"38K": "b-scale-archs4-38k", "75K": "b-scale-archs4-75k"}  # claims: ARCHS4 samples of the smaller designs
SHARES = (0.05, 0.1, 0.25, 0.5)  # of all training samples, when size alone varies
FULL = "118K"
FEWEST = 16  # samples of a design: of fewer, batch normalisation learns no variance and the training diverges


class Design(NamedTuple):
    """Samples to train on: positions in the pool; kind: "as published", "size alone" or "cap alone"."""

    name: str
    kind: str
    rows: np.ndarray


class Result(NamedTuple):
    """What one training gave on the common test samples and on the unseen cohort, and what it took."""

    design: Design
    scored: Scored
    memory_gb: float


# --- designs -------------------------------------------------------------------------------------------------


def designs(run: Profile, obs: pd.DataFrame) -> list[Design]:
    """Every set of `FEWEST` samples and two tissues at least; obs: the pool's source, tissue, split, cell_line.

    As published, in proportion: 38K and 75K take the share of ARCHS4 that the paper took and all of the other sources,
    cell lines and all, no cap; 118K takes all of ARCHS4, no cell lines, capped. Size alone: random nested shares of the
    118K samples. Cap alone: no cap, with as many samples as the capped design has. Without archives: size alone.
    """
    train = (obs["split"] == "train").to_numpy()
    rng = np.random.default_rng(run.seed)
    if not from_archives(run):
        full = rng.permutation(np.flatnonzero(train))
        return _trainable([Design(f"{s:.0%}", "size alone", _first(full, s)) for s in (*SHARES, 1.0)], obs)
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
    uncapped = rng.permutation(clean[train[clean]])
    if len(uncapped) > len(full):  # else no tissue is above the cap
        made.append(Design("no cap", "cap alone", np.sort(uncapped[: len(full)])))
    return _trainable(made, obs)


def _trainable(made: list[Design], obs: pd.DataFrame) -> list[Design]:
    return [d for d in made if len(d.rows) >= FEWEST and obs["tissue"].iloc[d.rows].nunique() > 1]


def _first(rows: np.ndarray, share: float) -> np.ndarray:
    return np.sort(rows[: max(2, round(share * len(rows)))])


# --- training ------------------------------------------------------------------------------------------------


def run_designs(run: Profile) -> list[Result]:
    """A result for every design of one seed, all on the same test samples."""
    samples = pool(run)
    cohort = curation.load(run.processed / "cohort.h5ad")[:, samples.var_names].to_memory()
    made = designs(run, samples.obs)
    full = max((d for d in made if d.kind != "cap alone"), key=lambda d: len(d.rows))
    return [train(run, samples, design, cohort, len(full.rows)) for design in made]


def train(run: Profile, samples: ad.AnnData, design: Design, cohort: ad.AnnData, steps_of: int) -> Result:
    """Train one design with the profile's settings and score it.

    samples: the pool; cohort: as curated, on the pool's genes; steps_of: training samples of the design whose number
    of steps in `tissue_controls.epochs` epochs no design exceeds. Early stopping on the part that the profile selects
    on: for the paper's own designs the paper's rule.
    """
    epochs = ceil(run.tissue_controls.epochs * steps_of / len(design.rows))
    vae = TissueVAE(**tissue_baselines.control_settings(run, max_epochs=epochs))
    with peak_memory() as memory:
        own = curation.gene_statistics(samples.X, np.isin(np.arange(samples.n_obs), design.rows))
        data = z_scores(samples, design.rows, own)
        test, held = (z_scores(samples, held_out(samples.obs, p), own) for p in ("test", run.tissue_vae.selection))
        tissue_baselines.fit_control(vae, run, data, held, f"scaling-{design.name}")
        hits = tissue_scoring.cohort_hits(run, vae, test, cohort, own)
        scored = tissue_scoring.score(run, vae, test, tissue_baselines.with_tissue(data), hits)
        return Result(design, scored, ceil(2 * memory()) / 2)


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
