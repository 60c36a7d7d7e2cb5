"""Spearman per gene and per sample against scipy, ties and constants included, within bounded memory."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from lib.metrics import reconstruction
from lib.metrics.reconstruction import masked_spearman, masked_sums, spearman_per_gene, spearman_per_sample


def tied_pair(n=60, genes=45, dtype=np.float32):
    rng = np.random.default_rng(0)
    original = np.round(np.maximum(rng.normal(size=(n, genes)), 0), 1)  # many zeros, as in expression
    return original.astype(dtype), np.round(original + rng.normal(size=(n, genes)), 1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spearman_equals_scipys(dtype, monkeypatch):
    original, reconstructed = tied_pair(dtype=dtype)
    monkeypatch.setattr(reconstruction, "BLOCK_VALUES", 7 * 60)  # several blocks, the last one short
    per_gene = [spearmanr(a, b)[0] for a, b in zip(original.T, reconstructed.T, strict=True)]
    per_sample = [spearmanr(a, b)[0] for a, b in zip(original, reconstructed, strict=True)]
    np.testing.assert_allclose(spearman_per_gene(original, reconstructed), per_gene, atol=1e-12)
    np.testing.assert_allclose(spearman_per_sample(original, reconstructed), per_sample, atol=1e-12)


def test_monotone_transforms_score_1():
    original, _ = tied_pair()
    original += np.arange(60)[:, None]  # no constant gene
    np.testing.assert_allclose(spearman_per_gene(original, np.exp(original / 10)), 1, atol=1e-12)
    np.testing.assert_allclose(spearman_per_gene(original, -original), -1, atol=1e-12)


def test_constant_vectors_are_nan_and_counted():
    original, reconstructed = tied_pair()
    original[:, 3], reconstructed[:, [3, 8]] = 0.1, 0.7
    with pytest.warns(UserWarning, match="2 of 45 genes"):
        rho = spearman_per_gene(original, reconstructed)
    assert list(np.flatnonzero(np.isnan(rho))) == [3, 8]
    reconstructed[5] = 1
    with pytest.warns(UserWarning, match="1 of 60 samples"):
        assert np.isnan(spearman_per_sample(original, reconstructed)[5])


def test_memory_does_not_grow_with_the_matrix():
    original = np.random.default_rng(1).normal(size=(500, 4000)).astype(np.float32)
    peaks = []
    for columns in (1000, 4000):
        tracemalloc.start()
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconstruction, "BLOCK_VALUES", 50_000)
            spearman_per_gene(original[:, :columns], original[:, :columns])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 50_000 * 8 * 12
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(
    ("original", "reconstructed"),
    [
        (np.ones((4, 3)), np.ones((4, 2))),
        (np.ones(4), np.ones(4)),
        (np.ones((1, 3)), np.ones((1, 3))),
        (np.array([[1, np.nan], [2, 3]]), np.ones((2, 2))),
        (np.ones((2, 2)), np.array([[1, np.inf], [2, 3]])),
        (np.array([["a", "b"], ["c", "d"]]), np.ones((2, 2))),
    ],
)
def test_bad_input_is_named(original, reconstructed):
    with pytest.raises(ValueError, match=r"^(original|reconstructed): found .*, expected"):
        spearman_per_gene(original, reconstructed)


def test_float32_ranks_are_scipys_with_ties_zeros_of_both_signs_and_extremes():
    rows = np.array([[0.0, -0.0, 1, -1, 1], [3e38, -3e38, 1e-45, 0, -1e-45], [2, 2, 2, 2, 2]], np.float32)
    rows = np.vstack([rows, np.round(np.random.default_rng(0).normal(size=(9, 5)), 0).astype(np.float32)])
    np.testing.assert_array_equal(reconstruction._ranks_of_float32(rows), rankdata(rows, axis=1))


@pytest.mark.parametrize("block", [500_000, 300])
def test_masked_values_are_pooled_into_one_correlation(block, monkeypatch):
    monkeypatch.setattr(reconstruction, "BLOCK_VALUES", block)
    original, imputed = tied_pair()
    mask = np.random.default_rng(1).random(original.shape) < 0.3
    mask[7] = False
    rho = masked_spearman(original, imputed, mask, n_boot=200)
    assert rho.value == pytest.approx(spearmanr(original[mask], imputed[mask])[0], abs=1e-12)
    assert rho.low < rho.value < rho.high
    assert rho.n == 59
    assert masked_spearman(original, imputed, mask, n_boot=200) == rho


def test_masked_values_without_variance_or_without_mask_are_said():
    original, imputed = tied_pair()
    with pytest.warns(UserWarning, match="constant"):
        assert np.isnan(masked_spearman(original, np.zeros_like(imputed), np.ones(original.shape, bool)).value)
    for mask in (np.zeros(original.shape, bool), np.ones(original.shape), np.ones((3, 3), bool)):
        with pytest.raises(ValueError, match=r"^mask: found .*, expected"):
            masked_spearman(original, imputed, mask)


def test_memory_of_masked_values_is_three_times_them_and_a_block():
    original = np.random.default_rng(1).normal(size=(2000, 400)).astype(np.float32)
    mask = np.random.default_rng(2).random(original.shape) < 0.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "BLOCK_VALUES", 5_000)
        tracemalloc.start()
        masked_sums(original, original, mask)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 * 4 * mask.sum() + 5_000 * 8 * 20 + 2000 * 6 * 8 * 3
