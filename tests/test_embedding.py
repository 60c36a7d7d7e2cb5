import numpy as np
import pytest

from lib import embedding


def groups(n=60, seed=0):
    rng = np.random.default_rng(seed)
    centres = 20 * rng.normal(size=(3, 15))
    return np.repeat(centres, n, axis=0) + rng.normal(size=(3 * n, 15)), np.repeat([0, 1, 2], n)


def nearest_are_of_the_group(xy, labels):
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return (labels[distances.argmin(1)] == labels).mean()


def test_umap_keeps_groups_and_repeats_with_its_seed():
    X, labels = groups()
    xy = embedding.umap_map(X, 10, 10, 0.5, seed=1)
    assert xy.shape == (180, 2)
    assert nearest_are_of_the_group(xy, labels) == 1
    assert np.array_equal(xy, embedding.umap_map(X, 10, 10, 0.5, seed=1))


def test_tsne_keeps_groups_and_repeats_with_its_seed():
    X, labels = groups()
    xy = embedding.kobak_berens_tsne(X, 30.0, 300, seed=1)
    assert nearest_are_of_the_group(xy, labels) == 1
    assert np.array_equal(xy, embedding.kobak_berens_tsne(X, 30.0, 300, seed=1))


class Recorded:
    """openTSNE's class, keeping what it was told."""

    def __init__(self, **told):
        Recorded.told = told

    def fit(self, X):
        return X[:, :2]


@pytest.mark.parametrize(("n", "rate"), [(4800, 400), (600, 200)])
def test_tsne_is_told_the_papers_settings(monkeypatch, n, rate):
    monkeypatch.setattr("openTSNE.TSNE", Recorded)
    embedding.kobak_berens_tsne(np.zeros((n, 3)), 30.0, 750, seed=7)
    told = Recorded.told
    assert (told["perplexity"], told["metric"], told["initialization"]) == (30, "cosine", "pca")
    assert told["learning_rate"] == rate and told["random_state"] == 7
    assert told["early_exaggeration_iter"] + told["n_iter"] == 750


def test_few_samples_lower_the_perplexity():
    X, _ = groups(n=5)
    assert np.isfinite(embedding.kobak_berens_tsne(X, 30.0, 300, seed=1)).all()


def test_few_samples_lower_the_number_of_neighbours_and_too_few_are_refused():
    X, _ = groups(n=2)
    assert np.isfinite(embedding.umap_map(X, 70, 10, 0.5, seed=1)).all()
    with pytest.raises(ValueError, match="X: found 3 samples, expected at least 4"):
        embedding.umap_map(X[:3], 70, 10, 0.5, seed=1)
