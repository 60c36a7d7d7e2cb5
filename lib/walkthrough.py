"""Both papers in small, for 00_walkthrough: few samples, networks trained in seconds, scores that need no repeats."""

from __future__ import annotations

from math import ceil

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from lib.config import Profile
from lib.metrics.alignment import match_rate, within_type_variance_kept
from lib.metrics.bootstrap import interval
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE

SAMPLES = 1500  # at most: of each compendium, and of each part of the atlas
STEPS = 800  # of gradient descent: seconds, and enough to see something


def some(data: ad.AnnData, seed: int) -> ad.AnnData:
    """`SAMPLES` of the samples at most, drawn at random, in their order; in memory."""
    rows = np.random.default_rng(seed).permutation(data.n_obs)[:SAMPLES]
    return data[np.sort(rows)].to_memory()


def typical_genes(log2: ad.AnnData) -> list[str]:
    """Four genes, from one that hardly varies to the one that varies most; log2: with var.sd."""
    varying = log2.var["sd"][log2.var["sd"] > 0].sort_values()
    return varying.index[np.linspace(0, len(varying) - 1, min(4, len(varying))).astype(int)].tolist()


def plane(X: np.ndarray) -> np.ndarray:
    """Samples on their first two principal components: samples × 2."""
    return PCA(2, random_state=0).fit_transform(X)


def _epochs(samples: int, batch_size: int) -> int:
    return ceil(STEPS * batch_size / samples)


def train_rnalign(run: Profile, data: ad.AnnData) -> RNAlign:
    """RNAlign with the profile's settings on all of these z-scores, for `STEPS` steps."""
    settings = run.rnalign.model_dump(exclude={"checkpoint_every"})
    settings["epochs"] = _epochs(data.n_obs, run.rnalign.batch_size)
    return RNAlign(**settings, seed=run.seed).fit(data)


def train_tissue_vae(run: Profile, train: ad.AnnData) -> TissueVAE:
    """The tissue VAE with the profile's settings on these z-scores for `STEPS` steps, without early stopping."""
    settings = run.tissue_vae.model_dump(exclude={"selection", "checkpoint_every"})
    settings["max_epochs"] = _epochs(train.n_obs, run.tissue_vae.batch_size)
    return TissueVAE(**settings, seed=run.seed).fit(train, labels="tissue")


def type_means(data: ad.AnnData) -> np.ndarray:
    """Every sample as the mean of its given cancer type: samples × genes."""
    types = data.obs["cancer_type"].astype(str)
    return pd.DataFrame(data.X, data.obs_names).groupby(types).transform("mean").to_numpy()


def _calls(X: np.ndarray, obs: pd.DataFrame, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The type that each line's nearest tumours have, and the lines' own types."""
    line, types = (obs["sample_type"] == "cell line").to_numpy(), obs["cancer_type"].to_numpy(dtype=str)
    k = min(neighbours, int((~line).sum()))
    return match_rate(X[~line], types[~line], X[line], types[line], k).predicted.astype(str), types[line]


def scores(data: ad.AnnData, aligned: dict[str, np.ndarray], run: Profile) -> pd.DataFrame:
    """Match (95 % bootstrap over lines) and variance kept of every matrix: method, score, value, low, high, n.

    data: the input in z-scores; aligned: samples × genes, in its order.
    """
    rows, by = [], run.evaluation
    for method, X in aligned.items():
        called, own = _calls(X, data.obs, by.match_neighbours)
        match = interval((called == own).astype(float), np.mean, by.bootstrap, run.seed)
        rows.append({"method": method, "score": "match", **match._asdict()})
        kept = within_type_variance_kept(X, data.X, data.obs["cancer_type"], data.obs["sample_type"]).overall
        rows.append({"method": method, "score": "variance_kept", "value": kept, "low": kept, "high": kept, "n": len(X)})
    return pd.DataFrame(rows)


def with_permuted_types(data: ad.AnnData, model: RNAlign, run: Profile) -> pd.DataFrame:
    """Where lines go when the model is told the right type, and another line's: method, label, value, low, high, n.

    label: share that goes to the type "given", and to the line's "own".
    """
    by, lines = run.evaluation, np.flatnonzero(data.obs["sample_type"] == "cell line")
    told = data.obs["cancer_type"].astype(str).to_numpy(dtype=object)
    told[lines] = told[np.random.default_rng(run.seed).permutation(lines)]
    rows = []
    for name, types in (("told the truth", data.obs["cancer_type"].to_numpy(dtype=object)), ("told a lie", told)):
        lied = ad.AnnData(data.X, obs=data.obs.assign(cancer_type=types.astype(str)), var=data.var)
        called, own = _calls(model.transform(lied), data.obs, by.match_neighbours)
        for label, right in (("given", types[lines].astype(str)), ("own", own)):
            estimate = interval((called == right).astype(float), np.mean, by.bootstrap, run.seed)
            rows.append({"method": name, "label": label, **estimate._asdict()})
    return pd.DataFrame(rows)
