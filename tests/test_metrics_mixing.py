"""Mixing metrics against LISI (R) and scikit-learn's neighbours (tests/golden), closed forms, bad input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from lib.metrics.distances import nearest_neighbours
from lib.metrics.mixing import knn_source_mixing, lisi, shuffled_mixing

GOLDEN = Path(__file__).parent / "golden/lisi"
INPUT = pd.read_csv(GOLDEN / "input.csv")
Z = INPUT.filter(regex="^x").to_numpy()


@pytest.mark.parametrize("label", ["label2", "label3"])
def test_lisi_agrees_with_r(label):
    for perplexity in (10, 30):
        golden = pd.read_csv(GOLDEN / f"lisi_R_perplexity{perplexity}.csv")[label]
        ours = lisi(Z, INPUT[label], weights="gaussian", perplexity=perplexity)
        np.testing.assert_allclose(ours, golden, atol=1e-5)
    golden = pd.read_csv(GOLDEN / "inverse_simpson_k20_excl_self.csv")[f"invsimpson_k20_{label}"]
    np.testing.assert_allclose(lisi(Z, INPUT[label]), golden, atol=1e-12)


def test_gaussian_lisi_does_not_depend_on_the_scale_of_the_embedding():
    reference = lisi(Z, INPUT["label3"], weights="gaussian")
    for scale in (1e-4, 1e4):
        np.testing.assert_allclose(lisi(scale * Z, INPUT["label3"], weights="gaussian"), reference, atol=1e-6)


def test_lisi_of_one_label_is_1_and_of_duplicates_finite():
    np.testing.assert_allclose(lisi(Z, ["a"] * len(Z)), 1, atol=1e-12)
    copies = np.repeat(Z[:5], 40, axis=0)
    values = lisi(copies, [0, 1] * 100, weights="gaussian")
    assert np.isfinite(values).all() and values.min() >= 1 and values.max() <= 2 + 1e-12


def test_nearest_neighbours_are_those_of_scikit_learn_far_from_the_origin():
    X = np.random.default_rng(0).normal(size=(1300, 6))
    distances, indices = NearestNeighbors(n_neighbors=900).fit(X).kneighbors()
    ours = nearest_neighbours(X + 1e5, 900)
    assert (ours[1] == indices).mean() > 0.9999  # adding 1e5 rounds the input to 1e-11
    np.testing.assert_allclose(ours[0], distances, atol=1e-8)


def test_source_mixing_counts_foreign_neighbours():
    rng = np.random.default_rng(1)
    X, source = rng.normal(size=(300, 5)), rng.choice(["TCGA", "GTEx", "DepMap"], 300, p=[0.6, 0.3, 0.1])
    near = NearestNeighbors(n_neighbors=20).fit(X).kneighbors(return_distance=False)
    expected = (source[near] != source[:, None]).mean(axis=1)
    np.testing.assert_allclose(knn_source_mixing(X, pd.Categorical(source)), expected)
    apart = X + 100 * (source == "TCGA")[:, None]
    assert (knn_source_mixing(apart, source)[source == "TCGA"] == 0).all()


def tissues_of_two_sources():
    rng = np.random.default_rng(2)
    tissue = np.repeat([0, 1], [400, 200])
    source = np.where(rng.random(600) < np.where(tissue == 0, 0.5, 0.9), "A", "B")
    return rng.normal(size=(600, 3)) + 1000 * tissue[:, None], source, tissue


def test_random_mixing_within_tissue_has_the_expected_share():
    X, source, tissue = tissues_of_two_sources()
    expected = shuffled_mixing(X, source, tissue)
    assert knn_source_mixing(X, source).mean() == pytest.approx(expected.source_mixing.mean(), abs=0.03)
    assert lisi(X, source).mean() == pytest.approx(expected.lisi.mean(), abs=0.05)
    for level in (0, 1):  # every neighbour is of the tissue: (samples of the other source) / (other samples)
        n, share = (tissue == level).sum(), (source[tissue == level] == "A").mean()
        exact = 2 * share * (1 - share) * n / (n - 1)
        assert expected.source_mixing[tissue == level].mean() == pytest.approx(exact, abs=0.02)


def test_shuffling_keeps_each_tissue_s_sources_and_repeats():
    X, source, tissue = tissues_of_two_sources()
    one_source = np.where(tissue == 1, "A", source)
    expected = shuffled_mixing(X, one_source, tissue, seed=3)
    assert (expected.source_mixing[tissue == 1] == 0).all()
    np.testing.assert_allclose(expected.lisi[tissue == 1], 1)
    again = shuffled_mixing(X, one_source, tissue, seed=3)
    assert np.array_equal(expected.lisi, again.lisi)


@pytest.mark.parametrize(
    "call",
    [
        lambda: knn_source_mixing(Z, ["one"] * len(Z)),
        lambda: knn_source_mixing(Z, INPUT["label2"], k=len(Z)),
        lambda: shuffled_mixing(Z, ["one"] * len(Z), INPUT["label2"]),
        lambda: knn_source_mixing(np.full((30, 2), np.nan), [1, 2] * 15),
        lambda: knn_source_mixing(np.ones((30, 2)), [1, 2] * 15),
        lambda: lisi(Z, INPUT["label2"][:-1]),
        lambda: lisi(Z, INPUT["label2"], weights="cosine"),
        lambda: lisi(Z[:60], INPUT["label2"][:60], weights="gaussian"),
        lambda: lisi(Z, INPUT["label2"].where(INPUT.index > 3)),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(ValueError, match=r"^(source|k|Z|labels|weights|perplexity): found .*, expected"):
        call()
