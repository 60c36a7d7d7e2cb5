"""Tissue calls of the methods that the tissue VAE is compared with, fitted on the training part only (paper B, Fig 5).

The five of the paper are a reduction and k nearest neighbours by cosine. A critic would add a logistic regression on
principal components, and a network of the VAE's own size without its decoder.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib import curation, notebooks
from lib.config import Profile
from lib.metrics.classification import knn_predict
from lib.models.tissue_vae import TissueVAE
from lib.models.tissue_variants import NoDecoder

REDUCED_TO = 50
UMAP_NEIGHBOURS, UMAP_MIN_DIST = 15, 0.1  # paper B, Methods
UMAP_EPOCHS = 200  # UMAP's own choice for the paper's number of samples, for few as well
VAE, KNN, REDUCED, SUPERVISED = "supervised VAE", "kNN on expression", "reduction, then kNN", "supervised, no decoder"


class Method(NamedTuple):
    """Tissue calls of one method for the test part, the dimensions that it decides on, and its family in Fig 5."""

    calls: np.ndarray
    dimensions: int
    family: str


def on_split(tissue: ad.AnnData, split: str) -> ad.AnnData:
    """z-scores by the training part of another split: obs.split becomes split_<split>; tissue: log2(TPM+1).

    The genes stay those that were chosen on the training part of the compendium's own split. Samples without a tissue
    (the deposit has some) are left out.
    """
    tissue = with_tissue(tissue)
    part = tissue.obs[f"split_{split}"].astype(str)
    train = tissue.X[(part == "train").to_numpy()]
    statistics = {"mean": train.mean(axis=0, dtype=np.float64), "sd": train.std(axis=0, dtype=np.float64)}
    var = tissue.var[[]].assign(**statistics)
    scored = ad.AnnData(
        tissue.X, obs=tissue.obs.assign(split=part), var=var, uns={"split": split, "log": has_log(tissue)}
    )
    return curation.standardise(scored)


def has_log(tissue: ad.AnnData) -> bool:
    """Whether a compendium holds log2(TPM+1), and not values that came standardised (the deposit)."""
    return tissue.uns.get("unit") != "scaled"


def control_vae(run: Profile, data: ad.AnnData, name: str, **changes) -> TissueVAE:
    """A tissue VAE with the profile's settings but for `changes`, trained for `tissue_controls.epochs` at most.

    data: standardised, obs.split; name: folder of its checkpoints, from which a killed training resumes.
    """
    return fit_control(TissueVAE(**control_settings(run, **changes)), run, *train_and_held(data), name)


def control_settings(run: Profile, **changes) -> dict[str, Any]:
    """The profile's arguments of TissueVAE but for `changes`, for `tissue_controls.epochs` at most."""
    settings = run.tissue_vae.model_dump(exclude={"selection", "checkpoint_every"})
    return settings | {"max_epochs": run.tissue_controls.epochs, "seed": run.seed} | changes


def train_and_held(data: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData | None]:
    """Training part, and the part that stops the training early: the validation part, never the test part.

    A split without one (`paper`: there the main model is selected on the test part, as published) gives None, and
    TissueVAE takes a tenth of each tissue out of training: splits are compared on test parts that no model has seen.
    """
    held = part_of(data, "validation")
    return part_of(data, "train"), held if held.n_obs else None


def fit_control(vae: TissueVAE, run: Profile, train: ad.AnnData, held: ad.AnnData | None, name: str) -> TissueVAE:
    """Fit any tissue VAE for a comparison; name: folder of its checkpoints, another one when its code changes."""
    folder = notebooks.checkpoint_dir(run, type(vae).__module__) / re.sub("[^0-9A-Za-z]+", "-", name)
    every = run.tissue_vae.checkpoint_every
    return vae.fit(train, validation=held, checkpoint_dir=folder, checkpoint_every=every)


def with_tissue(data: ad.AnnData) -> ad.AnnData:
    """The samples that have a tissue."""
    named = data.obs["tissue"].notna().to_numpy()
    return data if named.all() else data[named]


def part_of(data: ad.AnnData, part: str) -> ad.AnnData:
    """The samples of one part of obs.split."""
    return data[(data.obs["split"] == part).to_numpy()]


def highly_variable(spread: np.ndarray, n: int) -> np.ndarray:
    """Indices of the n genes of largest spread (variance or standard deviation), ascending."""
    return np.sort(np.argsort(-np.asarray(spread), kind="stable")[:n])


class Benchmark(NamedTuple):
    """One split: its test samples (obs, with column `group`: study or donor) and the calls of every method for them."""

    test: pd.DataFrame
    methods: dict[str, Method]


def benchmark(run: Profile, tissue: ad.AnnData, split: str) -> Benchmark:
    """Every method on one split of `tissue` (log2(TPM+1)); the VAE is a `control_vae`, named standard-<split>."""
    data = on_split(tissue, split)
    vae = control_vae(run, data, f"standard-{split}", mask_fraction=0.0)
    methods = vae_methods(run, data, vae.predict(part_of(data, "test")), vae.embed(data)) | baselines(run, data)
    test = part_of(data, "test").obs
    return Benchmark(test.assign(group=curation.sample_groups(test)), methods)


def vae_methods(run: Profile, data: ad.AnnData, called: np.ndarray, codes: np.ndarray) -> dict[str, Method]:
    """The VAE's calls for the test part, and those of the nearest neighbours in its code (all samples × latent)."""
    in_train, in_test = ((data.obs["split"] == part).to_numpy() for part in ("train", "test"))
    labels = data.obs["tissue"].to_numpy(dtype=str)
    near = knn_predict(codes[in_train], labels[in_train], codes[in_test], run.evaluation.baseline_neighbours)
    return {
        "tissue VAE": Method(np.asarray(called, dtype=str), codes.shape[1], VAE),
        "tissue VAE's code + kNN": Method(near, codes.shape[1], VAE),
    }


def trained_vae(run: Profile) -> dict[str, Method]:
    """`vae_methods` of the model that 02_training_tissue left, on the compendium's own split."""
    stored = with_tissue(curation.load(run.processed / "embedding.h5ad"))
    called = part_of(stored, "test").obs["predicted"].to_numpy(dtype=str)
    return vae_methods(run, stored, called, stored.X)


def baselines(run: Profile, data: ad.AnnData) -> dict[str, Method]:
    """Tissue calls of every method for the test part of `data` (standardised, obs.split), in Fig 5's order.

    Highly variable genes are ranked by the spread of log2(TPM+1) (var.sd) and, as the published code did, by that of
    values which are standardised already: all about 1, so that the order means little. Data that came standardised
    (the deposit) have the latter only.
    """
    train, test = part_of(data, "train"), part_of(data, "test")
    labels = train.obs["tissue"].to_numpy(dtype=str)
    latent, n_genes = run.tissue_vae.latent, min(run.evaluation.hvg, data.n_vars)
    X, Y = train.X, test.X

    def neighbours(family: str, A: np.ndarray, B: np.ndarray) -> Method:
        return Method(knn_predict(A, labels, B, run.evaluation.baseline_neighbours), A.shape[1], family)

    methods = {"kNN, all genes": neighbours(KNN, X, Y)}
    rankings = {"HVG": data.var["sd"].to_numpy()} if data.uns.get("log", True) else {}
    rankings["HVG by z-score"] = X.var(axis=0, dtype=np.float64)
    for name, spread in rankings.items():
        genes = highly_variable(spread, n_genes)
        A, B = X[:, genes], Y[:, genes]
        methods |= {
            f"kNN, {n_genes:,} {name}": neighbours(KNN, A, B),
            f"{name} + PCA(50) + kNN": neighbours(REDUCED, *principal_components(A, B, REDUCED_TO, run.seed)),
            f"{name} + UMAP(50) + kNN": neighbours(REDUCED, *umap_components(A, B, REDUCED_TO, run.seed)),
        }
    A, B = principal_components(X, Y, latent, run.seed)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(A, labels)
    return methods | {
        f"all genes + PCA({latent}) + kNN": neighbours(REDUCED, A, B),
        f"logistic regression, PCA({latent})": Method(regression.predict(B), A.shape[1], SUPERVISED),
        "MLP without decoder": Method(without_decoder(run, data).predict(test), latent, SUPERVISED),
    }


def principal_components(A: np.ndarray, B: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of A and B (samples × genes) on the n leading principal components of A."""
    pca = PCA(min(n, *A.shape), svd_solver="randomized", random_state=seed).fit(A)
    return pca.transform(A), pca.transform(B)


def umap_components(A: np.ndarray, B: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of A and B on a UMAP of A, with exact neighbours: its own search takes a minute to compile."""
    from umap import UMAP

    k = min(UMAP_NEIGHBOURS, len(A) - 1)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(A)
    distances = search.kneighbors_graph(A, mode="distance")
    distances = distances.maximum(distances.T).tocsr()  # UMAP expects a symmetrical matrix
    distances.setdiag(0)  # ... in which every sample is its own first neighbour
    umap = UMAP(
        k, min(n, len(A) - 2), metric="precomputed", min_dist=UMAP_MIN_DIST, n_epochs=UMAP_EPOCHS, random_state=seed,
        n_jobs=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precomputed metric.*")
        return umap.fit_transform(distances), umap.transform(search.kneighbors_graph(B, mode="distance"))


def without_decoder(run: Profile, data: ad.AnnData) -> NoDecoder:
    """The VAE's encoder and head as a plain network, trained and stopped as the VAE is, by the cross-entropy."""
    vae = NoDecoder(**control_settings(run, mask_fraction=0.0))
    return fit_control(vae, run, *train_and_held(data), f"without-decoder-{data.uns['split']}")
