from copy import deepcopy

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from lib import uncertainty
from lib.models.rnalign import RNAlign


def samples(n=60, genes=20, seed=0):
    rng = np.random.default_rng(seed)
    kind, types = np.tile(["tumour", "cell line"], n // 2), np.repeat(["A", "B", "C"], n // 3)
    obs = pd.DataFrame({"sample_type": kind, "cancer_type": types}, index=[f"s{i}" for i in range(n)])
    obs["purity"] = np.where(kind == "tumour", rng.uniform(0.4, 0.9, n), 1.0)
    shift = rng.normal(size=(3, genes)).repeat(n // 3, axis=0)
    return ad.AnnData((shift + rng.normal(size=(n, genes))).astype(np.float32), obs=obs)


@pytest.fixture(scope="module")
def trained():
    adata = samples()
    return RNAlign(hidden=16, latent=4, epochs=3, batch_size=16, device="cpu").fit(adata), adata


def without_spread(model):
    """The model with a posterior standard deviation of (all but) zero."""
    model = deepcopy(model)
    with torch.no_grad():
        model.module_.encoder_sd.weight.zero_()
        model.module_.encoder_sd.bias.fill_(-100)
    return model


def test_no_posterior_spread_no_spread_of_the_alignment(trained):
    model, adata = trained
    tight = without_spread(model)
    for X in uncertainty.aligned_draws(tight, adata, 3, seed=1):
        np.testing.assert_allclose(X, tight.transform(adata), atol=2e-3)  # the sd has a floor of 1e-4


def test_draws_repeat_with_their_seed_and_differ_from_each_other(trained):
    model, adata = trained
    first, second = uncertainty.aligned_draws(model, adata, 2, seed=1)
    again = next(uncertainty.aligned_draws(model, adata, 2, seed=1))
    np.testing.assert_array_equal(first, again)
    assert first.shape == adata.shape
    assert np.abs(first - second).max() > 1e-2


def test_draws_lie_about_the_mean_with_the_spread_of_the_posterior(trained):
    """A decoder that copies z shows the posterior itself."""
    model, adata = trained
    model = deepcopy(model)
    model.module_.decode = lambda z, y: z
    draws = np.array(list(uncertainty.aligned_draws(model, adata, 400, seed=2)))
    model.module_.encode, encode = lambda x, y: (encode(x, y)[1], None), model.module_.encode
    sd = model.transform(adata)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.2)
    z = (draws.mean(axis=0) - model_mean(trained)) / (sd / np.sqrt(400))
    assert abs(z.mean()) < 0.3 and 0.8 < z.std() < 1.2


def model_mean(trained):
    model, adata = trained
    return model.embed(adata)


def test_drawing_leaves_the_model_as_it_was_and_takes_its_labels(trained):
    model, adata = trained
    before = model.transform(adata)
    tight = without_spread(model)
    (X,) = uncertainty.aligned_draws(tight, adata, 1, seed=0, sample_type=None, purity=None)
    np.testing.assert_allclose(X, tight.transform(adata, sample_type=None, purity=None), atol=2e-3)
    np.testing.assert_array_equal(before, model.transform(adata))


def test_no_draws_are_refused(trained):
    with pytest.raises(ValueError, match="n_draws: found 0"):
        uncertainty.aligned_draws(*trained, 0, seed=1)


def test_staying_counts_the_draws_that_keep_a_line_near():
    reference = np.array([[0, 1], [2, 3]])
    nearest = np.array([[[0, 1], [3, 2]], [[1, 4], [5, 6]]])
    np.testing.assert_array_equal(uncertainty.staying(nearest, reference), [[0.5, 1], [0.5, 0.5]])
    with pytest.raises(ValueError, match="expected draws × 2 × 3"):
        uncertainty.staying(nearest, np.zeros((2, 3)))


def test_the_same_alignment_in_every_draw_has_no_interval_over_draws(trained):
    _, adata = trained
    mean = uncertainty.neighbourhoods([adata.X], adata.obs, k_match=5, k_lines=3)
    draws = uncertainty.neighbourhoods([adata.X] * 4, adata.obs, k_match=5, k_lines=3)
    types = adata.obs["cancer_type"][adata.obs["sample_type"] == "cell line"]
    table = uncertainty.summary(draws, mean, n_boot=50, seed=0)
    assert (table["draws_low"] == table["draws_high"]).all() and (table["at_mean"] == table["draws_low"]).all()
    assert table["n"].tolist() == [30, 30, 30, 30] and not table.isna().any(axis=None)
    assert (table["over_draws"][1:] == 100).all()
    by_type = uncertainty.match_by_type(draws, mean, types)
    assert (by_type["low"] == by_type["match"]).all() and by_type["n"].tolist() == [10, 10, 10]


def test_draws_that_differ_have_an_interval_over_draws(trained):
    model, adata = trained
    draws = uncertainty.neighbourhoods(uncertainty.aligned_draws(model, adata, 8, 3), adata.obs, 5, 3)
    mean = uncertainty.neighbourhoods([model.transform(adata)], adata.obs, 5, 3)
    stay = uncertainty.summary(draws, mean, n_boot=50, seed=0).iloc[-1]
    assert stay["draws_low"] < stay["draws_high"] < 100
    assert stay["samples_low"] < stay["over_draws"] < stay["samples_high"]
