"""Every method that the tissue VAE is compared with, on tissues that can be told apart."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from lib import config, tissue_baselines
from lib.metrics.classification import balanced_accuracy


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The smoke profile with its folders elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "ROOT", tmp_path_factory.mktemp("root"))
        smoke = config.load("smoke")
        small = {"latent": 8, "supervisor_hidden": 8, "hidden_factor": 0.5}
        yield smoke.model_copy(update={"tissue_vae": smoke.tissue_vae.model_copy(update=small)})


@pytest.fixture(scope="module")
def tissue():
    """Three tissues × 60 samples × 70 genes on the log scale, two splits."""
    rng = np.random.default_rng(0)
    names = np.tile(["liver", "lung", "skin"], 60)
    X = 3 + 2 * rng.normal(size=(3, 70))[np.tile([0, 1, 2], 60)] + 0.7 * rng.normal(size=(180, 70))
    obs = pd.DataFrame({"tissue": names, "donor": "", "study": [f"s{i // 6}" for i in range(180)]})
    obs.index = obs.index.astype(str)
    part = np.repeat(["train", "validation", "test"], [120, 30, 30])
    obs["split_sample"], obs["split_study"] = rng.permutation(part), part
    return ad.AnnData(X.astype(np.float32), obs=obs)


def test_a_split_is_standardised_by_its_own_training_part(tissue):
    for split in ("sample", "study"):
        data = tissue_baselines.on_split(tissue, split)
        train = tissue_baselines.part_of(data, "train").X
        assert (data.obs["split"] == tissue.obs[f"split_{split}"]).all()
        np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)


@pytest.fixture(scope="module")
def result(run, tissue):
    return tissue_baselines.benchmark(run, tissue, "study")


def test_every_method_of_the_paper_and_of_a_critic_is_there(result):
    names = " | ".join(result.methods)
    for part in ("all genes", "70 HVG", "HVG by z-score", "PCA(50)", "UMAP(50)", "PCA(8)", "regression", "MLP", "VAE"):
        assert part in names
    assert len(result.methods) == 12
    assert all(len(m.calls) == len(result.test) == 30 and m.dimensions > 1 for m in result.methods.values())
    assert result.test["group"].str.startswith("study s").all()


def test_every_method_tells_easy_tissues_apart(result):
    truth = result.test["tissue"].to_numpy(dtype=str)
    scores = {name: balanced_accuracy(truth, method.calls, 10).value for name, method in result.methods.items()}
    weak = ("tissue VAE", "MLP without decoder")  # after three epochs
    assert {name: score for name, score in scores.items() if score < 0.95 and name not in weak} == {}
    assert all(scores[name] > 0.5 for name in weak)


def test_test_samples_change_no_fit(run, tissue, result):
    """Other values in some test samples leave the calls of the rest as they were."""
    changed = tissue.copy()
    rows = np.flatnonzero(tissue.obs["split_study"] == "test")[:10]
    changed.X[rows] = 0
    data = tissue_baselines.on_split(changed, "study")
    again = tissue_baselines.baselines(run, data)
    kept = [name for name in again if "UMAP" not in name]  # which places all new samples together
    assert all((again[name].calls[10:] == result.methods[name].calls[10:]).all() for name in kept)


def test_a_split_without_validation_part_is_stopped_by_a_tenth_of_training(run, tissue):
    """Never by the test part: its values change nothing in the model."""
    bare = tissue.copy()
    bare.obs["split_study"] = bare.obs["split_study"].replace("validation", "train")
    data = tissue_baselines.on_split(bare, "study")
    assert tissue_baselines.train_and_held(data)[1] is None
    vae = tissue_baselines.control_vae(run, data, "no-validation")
    changed = data.copy()
    changed.X[(data.obs["split"] == "test").to_numpy()] = 0
    again = tissue_baselines.control_vae(run, changed, "no-validation-again")
    np.testing.assert_array_equal(vae.embed(data), again.embed(data))
    assert "validation_loss" in vae.history_


def test_the_mlp_has_the_vaes_layers_and_resumes(run, tissue):
    data = tissue_baselines.on_split(tissue, "study")
    plain = tissue_baselines.without_decoder(run, data)
    vae = tissue_baselines.control_vae(run, data, "standard-study", mask_fraction=0.0)
    sizes = [{k: w.shape for k, w in m.module_.state_dict().items() if "decoder" not in k} for m in (plain, vae)]
    assert sizes[0] == sizes[1] and not any("decoder" in k for k in plain.module_.state_dict())
    assert (plain.predict(data) == tissue_baselines.without_decoder(run, data).predict(data)).all()


def test_variable_genes_are_ranked_by_spread():
    assert tissue_baselines.highly_variable(np.array([1, 5, 2, 4, 0]), 2).tolist() == [1, 3]
