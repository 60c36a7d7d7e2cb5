"""Whether the sigmoid or the sampled code puts correlations below zero: on models whose answer is known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from lib import negative_correlations as module
from lib.models.tissue_vae import TissueVAE
from lib.models.tissue_variants import LinearOutput


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """90 samples of 3 tissues, 40 genes, z-scores with the scale that they were made by."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 40))[np.arange(90) % 3] + rng.normal(size=(90, 40))
    obs = pd.DataFrame({"tissue": np.array(["a", "b", "c"])[np.arange(90) % 3]}, index=[f"s{i}" for i in range(90)])
    return ad.AnnData(
        X.astype(np.float32), obs, pd.DataFrame({"mean": 3.0, "sd": 1.5}, index=[f"g{i}" for i in range(40)])
    )


@pytest.fixture(scope="module")
def fitted(data) -> dict[str, TissueVAE]:
    settings = dict(latent=4, supervisor_hidden=4, hidden_factor=0.5, max_epochs=4, variant="faithful", device="cpu")
    return {"sigmoid": TissueVAE(**settings).fit(data), "linear": LinearOutput(**settings).fit(data)}


def test_only_the_sigmoid_is_bounded_and_only_the_sample_is_noisy(data, fitted):
    bounded = module.decoded(fitted["sigmoid"], data, "mean", 0)
    free = module.decoded(fitted["linear"], data, "mean", 0)
    assert bounded.min() > 0 and bounded.max() < 1 and free.min() < 0
    for vae in fitted.values():
        mean = module.decoded(vae, data, "mean", 0)
        np.testing.assert_array_equal(mean, module.decoded(vae, data, "mean", 1))
        sampled = module.decoded(vae, data, "sampled", 0)
        np.testing.assert_array_equal(sampled, module.decoded(vae, data, "sampled", 0))
        assert not np.allclose(sampled, mean) and not np.allclose(sampled, module.decoded(vae, data, "sampled", 1))


def test_the_two_differ_in_the_last_layer_only(data, fitted):
    sigmoid, linear = (fitted[name].module_ for name in ("sigmoid", "linear"))
    linear.load_state_dict(sigmoid.state_dict())
    z = torch.randn(5, 4)
    torch.testing.assert_close(sigmoid.decode(z), torch.sigmoid(linear.decode(z)))
    assert len(fitted["linear"].history_) and fitted["linear"].predict(data).shape == (90,)


def test_all_shares_of_lost_genes_are_there(data, fitted):
    found = module.by_output(fitted["sigmoid"], data, 0)
    assert set(found) == {(lost, latent) for lost in module.LOST for latent in module.LATENTS}
    assert set(module.by_output(fitted["sigmoid"], data, 0, (0.0,))) == {(0.0, latent) for latent in module.LATENTS}
    assert module.LOST[0] == 0 and all(rho.shape == (90,) for rho in found.values())


def test_lost_genes_are_zeros_before_standardisation(data):
    lost = module.with_lost_genes(data, 0.5, 0)
    values = lost.X * lost.var["sd"].to_numpy() + lost.var["mean"].to_numpy()
    assert (np.abs(values) < 1e-4).mean() == pytest.approx(0.5, abs=0.03)


def test_a_peak_below_zero_is_found():
    rng = np.random.default_rng(0)
    good = rng.normal(0.8, 0.05, 400)
    two = np.concatenate([good[:300], rng.normal(-0.3, 0.05, 100)])
    table = module.below_zero(pd.DataFrame({"corrected": good, "faithful": two}))
    rows = table.set_index("model")
    assert rows.loc["corrected", "peak_below_zero"] == "none"
    assert float(rows.loc["faithful", "peak_below_zero"]) == pytest.approx(-0.3, abs=0.05)
    assert rows.loc["faithful", "share_below_zero"] == pytest.approx(0.25)
    said = module.below_zero_in_words(table, "as they are")
    assert "corrected 0.0%" in said and "no peak there; faithful 25.0%" in said


def given(below: float, n=1000) -> np.ndarray:
    return np.where(np.arange(n) < below * n, -0.3, 0.5)


def test_shares_and_contrasts_tell_what_does_it():
    def everywhere(sampled, mean):
        return {(lost, z): given(s) for lost in module.LOST for z, s in (("sampled", sampled), ("mean", mean))}

    models = {"sigmoid": everywhere(0.3, 0.3), "linear": everywhere(0.0, 0.0)}
    shares = module.over_seeds(module.shares(models).assign(seed=0), ["lost", "output", "latent"])
    assert shares.loc[shares["output"] == "sigmoid", "value"].unique() == pytest.approx(0.3)
    assert (shares.loc[shares["output"] == "linear", "high"] > 0).all()  # none of 1,000 is no certainty
    why = module.over_seeds(module.contrasts(models, 200, 0).assign(seed=0), ["lost", "contrast"])
    verdicts = why.groupby("contrast")["verdict"].unique().explode().to_dict()
    assert {v for c, v in verdicts.items() if "sigmoid − linear" in c} == {"yes"}
    assert {v for c, v in verdicts.items() if "sampled − mean" in c} == {"no"}
    words = module.in_words(why)
    assert words.startswith("One training each") and "0 %: yes (+30.0" in words


def test_over_three_seeds_the_interval_is_over_the_seeds():
    rows = [{"lost": 0.0, "contrast": "c", "value": v, "low": v, "high": v, "n": 9} for v in (0.1, 0.3, -0.1)]
    row = module.over_seeds(pd.DataFrame(rows).assign(seed=[0, 1, 2]), ["lost", "contrast"]).iloc[0]
    assert row["low"] < -0.1 and row["high"] > 0.3 and row["verdict"] == "not distinguishable"
    assert [module.verdict(*i) for i in ((0.01, 0.3), (-0.2, 0.005), (-0.01, 0.05))] == [
        "yes",
        "no",
        "not distinguishable",
    ]
