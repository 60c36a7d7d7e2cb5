"""Scores of one tissue VAE: those of the metrics themselves, and what poor data leave open."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import config, tissue_scoring
from lib.metrics.reconstruction import masked_spearman, spearman_of_sums
from lib.models import training
from lib.models.tissue_vae import TissueVAE, random_mask
from lib.models.tissue_variants import NoDecoder


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """80 samples of 3 tissues, one of them with a single sample, two sources; 30 genes, one constant in the test."""
    rng = np.random.default_rng(0)
    tissue = np.array(["a", "b"] * 40, dtype=object)
    tissue[7] = "alone"
    X = rng.normal(size=(3, 30))[pd.factorize(tissue)[0]] + rng.normal(size=(80, 30))
    X[40:, 3] = 1.0
    obs = pd.DataFrame({"tissue": tissue, "source": np.repeat(["x", "y"], 40)[rng.permutation(80)]})
    obs.index = [f"s{i}" for i in range(80)]
    return ad.AnnData(X.astype(np.float32), obs)


@pytest.fixture(scope="module")
def vae(data) -> TissueVAE:
    return TissueVAE(latent=4, supervisor_hidden=4, hidden_factor=0.5, max_epochs=3, device="cpu").fit(data[:40])


RUN = config.load("smoke")


def test_scores_are_the_metrics_of_the_model(data, vae):
    test, hits = data[40:].copy(), {"cohort": np.array([1, 0, np.nan])}
    found = tissue_scoring.score(RUN, vae, test, data[:40].copy(), hits)
    assert (found.called == vae.predict(test)).all() and np.isnan(found.gene_rho[3])
    mask = random_mask(*test.shape, tissue_scoring.HIDDEN, RUN.seed)
    expected = masked_spearman(test.X, vae.impute(test, mask), mask, 50, 0)
    assert spearman_of_sums(found.masked, 50, 0) == expected
    values = tissue_scoring.estimates(found, 50, 0)
    assert set(values) == set(tissue_scoring.METRICS) == set(tissue_scoring.BOUNDS)
    assert values["target"].value == 0.5 and values["target"].n == 2
    same = tissue_scoring.differences(found, found, 50, 0)
    assert all(change.value == 0 for change in same.values())


@pytest.mark.parametrize("variant", ["corrected", "faithful"])
def test_hidden_values_are_those_of_the_imputation(data, variant, monkeypatch):
    settings = dict(latent=4, supervisor_hidden=4, hidden_factor=0.5, max_epochs=1, device="cpu")
    model = TissueVAE(**settings, variant=variant).fit(data)
    monkeypatch.setattr(training, "EVALUATION_ROWS", 7)  # several batches, each with noise of its own
    mask = random_mask(*data.shape, 0.3, 0)
    mask[5] = False
    np.testing.assert_array_equal(tissue_scoring.imputed_values(model, data, mask), model.impute(data, mask)[mask])


def test_one_source_and_few_neighbours_are_said_not_guessed(data, vae):
    test = data[40:].copy()
    test.obs["source"] = "x"
    found = tissue_scoring.score(RUN, vae, test, data[[0, 1, 2]].copy(), {"cohort": np.full(2, np.nan)})
    values = tissue_scoring.estimates(found, 20, 0)
    assert np.isnan(values["mixing"].value) and np.isnan(values["target"].value) and values["mixing"].n == 0
    assert not np.isnan(values["near_accuracy"].value)  # three neighbours vote


def test_a_cohort_of_one_is_not_harmonised_over_itself(data, vae, monkeypatch):
    monkeypatch.setattr(tissue_scoring.compendia, "rubrics", lambda run: {"code": {"AML": ["a"]}})
    var = pd.DataFrame({"mean": 0.0, "sd": 1.0, "missing": False}, index=data.var_names)
    one = ad.AnnData(data.X[:1], pd.DataFrame({"group": ["AML"]}, index=["t"]), var)
    hits = tissue_scoring.cohort_hits(RUN, vae, data[:40].copy(), one, var)
    assert np.isnan(hits["cohort"]).all() and hits["none"][0] in (0, 1)


def test_without_a_decoder_the_rest_is_the_vaes(data):
    settings = dict(latent=4, supervisor_hidden=4, hidden_factor=0.5, max_epochs=3, device="cpu")
    vae, plain = TissueVAE(**settings).fit(data), NoDecoder(**settings).fit(data)
    sizes = [{name: w.shape for name, w in m.module_.state_dict().items()} for m in (vae, plain)]
    assert sizes[1] == {name: shape for name, shape in sizes[0].items() if not name.startswith("decoder")}
    assert set(plain.predict(data)) <= {"a", "b", "alone"} and plain.history_["cross_entropy"].is_monotonic_decreasing
    assert not hasattr(plain.module_, "decoder")
