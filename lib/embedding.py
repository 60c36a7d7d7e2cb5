"""The papers' two kinds of map: UMAP (paper A) and Kobak–Berens t-SNE (paper B)."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA


def umap_map(X: np.ndarray, n_pcs: int, n_neighbours: int, min_dist: float, seed: int) -> np.ndarray:
    """UMAP of the leading principal components, Euclidean; settings of Celligner (Warren et al. 2020).

    X: samples × genes → samples × 2; fewer neighbours where there are fewer samples. One thread: with several,
    UMAP does not repeat. ValueError for fewer than four samples.
    """
    from umap import UMAP

    if len(X) < 4:
        raise ValueError(f"X: found {len(X)} samples, expected at least 4 for a map")
    pcs = PCA(min(n_pcs, *X.shape), svd_solver="randomized", random_state=seed).fit_transform(X)
    reducer = UMAP(n_neighbors=min(n_neighbours, len(X) - 1), min_dist=min_dist, random_state=seed, n_jobs=1)
    return reducer.fit_transform(pcs)


def kobak_berens_tsne(X: np.ndarray, perplexity: float, n_iter: int, seed: int) -> np.ndarray:
    """t-SNE by openTSNE as Kobak & Berens (2019) and paper B, Methods: PCA initialisation, rate n/12, cosine.

    X: samples × latent → samples × 2; n_iter counts all iterations, the first 250 at most exaggerated.
    """
    from openTSNE import TSNE

    early = min(250, n_iter // 3)
    tsne = TSNE(
        perplexity=min(perplexity, (len(X) - 1) / 3),
        initialization="pca",
        metric="cosine",
        learning_rate=max(200.0, len(X) / 12),
        early_exaggeration_iter=early,
        n_iter=n_iter - early,
        neighbors="exact" if len(X) < 2000 else "pynndescent",
        negative_gradient_method="bh" if len(X) < 10000 else "fft",
        n_jobs=1,
        random_state=seed,
    )
    return np.asarray(tsne.fit(X.astype(np.float64)))
