"""Paper B's search for latent size and batch size: resumed, pruned and judged as stated."""

import anndata as ad
import numpy as np
import optuna
import pandas as pd
import pytest

from lib import config
from lib.models import tissue_search as module
from lib.models.tissue_search import distributions, search

SETTINGS = dict(hidden_factor=0.4, supervisor_hidden=4, lr=0.003, device="cpu", patience=10, latent=999, max_epochs=999)


@pytest.fixture(scope="module")
def tissues() -> ad.AnnData:
    """120 samples of 3 tissues, 40 genes, split into three parts."""
    rng = np.random.default_rng(0)
    kind = np.arange(120) % 3
    x = rng.normal(size=(3, 40))[kind] + rng.normal(size=(120, 40))
    obs = {"tissue": np.array(["blood", "brain", "liver"])[kind]}
    obs["split"] = np.array(["train", "train", "train", "validation", "test"])[np.arange(120) // 3 % 5]
    return ad.AnnData(x.astype(np.float32), pd.DataFrame(obs, index=[f"s{i}" for i in range(120)]))


def space(**changes) -> config.TissueVAESearch:
    full = config.load("demo").tissue_vae_search
    return full.model_copy(update={"trials": 3, "epochs": 3, "latent": [2, 8], "batch_size": [8, 16]} | changes)


def numbers(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.drop(columns="seconds")


@pytest.fixture(scope="module")
def expected(tissues, tmp_path_factory) -> pd.DataFrame:
    return numbers(search(tissues, space(), SETTINGS, tmp_path_factory.mktemp("undisturbed"), seed=7).trials)


def test_the_demo_does_as_many_trials_as_the_paper():
    assert config.load("demo").tissue_vae_search.trials == config.load("paper").tissue_vae_search.trials == 3
    drawn = distributions(config.load("demo").tissue_vae_search)
    assert set(drawn) == {"latent", "batch_size"}
    assert all(drawn["latent"]._contains(latent) for latent in (105, 67, 121))


def test_trials_stay_in_their_ranges_and_the_lowest_loss_wins(tissues, expected, tmp_path):
    found = search(tissues, space(selection="test"), SETTINGS, tmp_path, seed=7)
    assert found.trials["latent"].between(2, 8).all() and found.trials["batch_size"].isin([8, 16]).all()
    best = found.trials["loss"].idxmin()
    assert found.trials.loc[best, "rank"] == 1 and found.best["latent"] == found.trials.loc[best, "latent"]
    assert (found.trials["n"] == 24).all() and not np.allclose(found.trials["loss"], expected["loss"])


def test_a_killed_search_goes_on_to_the_same_trials(tissues, expected, tmp_path, monkeypatch):
    fit, calls = module.TissueVAE.fit, []

    def deadly(self, *arguments, **named):
        calls.append(self.latent)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(self, *arguments, **named)

    monkeypatch.setattr(module.TissueVAE, "fit", deadly)
    with pytest.raises(KeyboardInterrupt):
        search(tissues, space(), SETTINGS, tmp_path, seed=7)
    resumed = search(tissues, space(), SETTINGS, tmp_path, seed=7).trials
    assert len(calls) == 4
    pd.testing.assert_frame_equal(numbers(resumed), expected)
    search(tissues, space(), SETTINGS, tmp_path, seed=7)
    assert len(calls) == 4


def test_more_trials_keep_the_first_ones(tissues, expected, tmp_path):
    search(tissues, space(trials=1), SETTINGS, tmp_path, seed=7)
    more = search(tissues, space(), SETTINGS, tmp_path, seed=7).trials
    pd.testing.assert_frame_equal(numbers(more), expected)


def test_a_bad_trial_is_pruned(tissues, tmp_path, monkeypatch):
    draw = module._drawn

    def drawn(k, work):
        trial = draw(k, work)
        if k == module.UNPRUNED:  # this one is made to learn nothing
            work.fixed["lr"] = 1e-9
        return trial

    monkeypatch.setattr(module, "_drawn", drawn)
    trials = search(tissues, space(trials=5, epochs=10), SETTINGS, tmp_path).trials
    assert trials["state"].tolist() == ["complete"] * 4 + ["pruned"]
    assert trials["epochs"].tolist()[:4] == [10] * 4 and trials["epochs"].iloc[4] < 10
    assert pd.isna(trials["rank"].iloc[4]) and trials["loss"].iloc[4] > trials["loss"].iloc[:4].max()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert study.trials[4].state == optuna.trial.TrialState.PRUNED


def test_bad_input(tissues, tmp_path):
    with pytest.raises(ValueError, match="trials: found 0"):
        search(tissues, space(trials=0), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="found 0 samples of 'validation'"):
        search(tissues[tissues.obs["split"] != "validation"], space(), SETTINGS, tmp_path)
    search(tissues, space(trials=1, epochs=1), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="a search with another seed, data or settings"):
        search(tissues, space(trials=1, epochs=1), SETTINGS, tmp_path, seed=8)
    with pytest.raises(RuntimeError, match="all 1 trials failed"):
        search(tissues, space(trials=1, epochs=1), SETTINGS | {"lr": 1e30}, tmp_path / "diverged")
