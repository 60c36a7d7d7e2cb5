"""All samples that a tissue VAE could be trained on, cell lines and uncapped tissues among them, for controls.

The designs that draw from it: lib/scaling.py (how many, which), lib/tissue_controls.py (one thing changed at a time).
"""

from __future__ import annotations

import hashlib
import json
import os

import anndata as ad
import numpy as np
import pandas as pd

from lib import compendia, curation, notebooks
from lib.config import Profile


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
