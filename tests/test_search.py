"""The search for hyper-parameters: Table 2's draws, and the same trials whatever stops or shares the work."""

import multiprocessing
import os
import signal
from pathlib import Path

import anndata as ad
import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import kstest

from lib import config
from lib.models import search as module
from lib.models.rnalign import RNAlign
from lib.models.search import distributions, draw, search

SETTINGS = dict(hidden=8, latent=2, annealing="cyclical", device="cpu", lr=5.0, epochs=999)  # the last two: overridden


@pytest.fixture(scope="module")
def cancers() -> ad.AnnData:
    """90 samples of 2 cancer types, 12 genes, split into three parts."""
    rng = np.random.default_rng(0)
    kind, line = np.arange(90) % 2, np.arange(90) % 3 == 0
    x = rng.normal(size=(2, 12))[kind] + np.outer(line, rng.normal(size=12)) + rng.normal(size=(90, 12))
    obs = {"cancer_type": np.array(["lung", "skin"])[kind], "sample_type": np.where(line, "cell line", "tumour")}
    obs |= {"purity": np.where(line, 1.0, rng.uniform(0.3, 0.9, 90))}
    obs["split"] = np.array(["train", "train", "train", "validation", "test"])[np.arange(90) // 2 % 5]
    x = (x - x.mean(0)) / x.std(0)
    return ad.AnnData(x.astype(np.float32), pd.DataFrame(obs, index=[f"s{i}" for i in range(90)]))


def table2(**changes) -> config.RNAlignSearch:
    """Paper A's Table 2, small trainings."""
    full = config.load("demo").rnalign_search
    return full.model_copy(update={"trials": 4, "epochs": 4} | changes)


def numbers(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.drop(columns="seconds")


@pytest.fixture(scope="module")
def expected(cancers, tmp_path_factory) -> pd.DataFrame:
    """The four trials, undisturbed."""
    return numbers(search(cancers, table2(), SETTINGS, tmp_path_factory.mktemp("undisturbed"), seed=7).trials)


def test_space_is_table_2():
    drawn = pd.DataFrame([draw(table2(), 0, k)[0] for k in range(200)])
    assert set(drawn) <= set(RNAlign().get_params()) and set(distributions(table2())) == set(drawn)
    for name, choices in {"n_layers": [1, 2, 3], "dropout": [0.2, 0.4, 0.6], "batch_size": [32, 64, 128, 256]}.items():
        assert sorted(drawn[name].unique()) == choices
    exponents = {"lr": (-5, -2), "weight_decay": (-6, -3), "beta": (-1.5, -1)}
    exponents |= {"lambda_cor": (-2, -0.5), "lambda_grad": (-2, -0.5)}
    for name, (low, high) in exponents.items():
        assert kstest(np.log10(drawn[name]), "uniform", (low, high - low)).pvalue > 0.01, name
    for name, (low, high) in {"purity_multiplier": (0, 100), "sigma": (0.2, 1), "epsilon": (0.2, 1)}.items():
        assert kstest(drawn[name], "uniform", (low, high - low)).pvalue > 0.01, name
    assert drawn.select_dtypes("number").corr(method="spearman").where(~np.eye(11, dtype=bool)).abs().max(None) < 0.3


def test_a_trial_is_drawn_from_seed_and_number():
    assert draw(table2(), 7, 3) == draw(table2(trials=99), 7, 3)
    assert len({repr(draw(table2(), seed, k)) for seed in (7, 8) for k in (0, 1)}) == 4


def test_trials(cancers, expected, tmp_path):
    result = search(cancers, table2(), SETTINGS, tmp_path, seed=7)
    pd.testing.assert_frame_equal(numbers(result.trials), expected)
    assert list(expected.index) == [0, 1, 2, 3] and expected["state"].eq("complete").all()
    assert result.best == draw(table2(), 7, expected["validation_loss"].idxmin())[0]
    assert result.best_by_mse == draw(table2(), 7, expected["validation_mse"].idxmin())[0]
    assert expected["rank_loss"].tolist() == expected["validation_loss"].rank().tolist()
    assert {type(value) for value in result.best.values()} == {int, float}
    assert sorted(p.name for p in tmp_path.rglob("trial-000/*")) == ["history.csv", "lock"]


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_a_trial_is_an_ordinary_training(cancers, selection, tmp_path):
    trials = search(cancers, table2(trials=1, selection=selection), SETTINGS, tmp_path, seed=7).trials
    hyperparameters, seed = draw(table2(), 7, 0)
    model = RNAlign(**SETTINGS | hyperparameters | {"epochs": 4, "seed": seed})
    split = cancers.obs["split"]
    last = model.fit(cancers[split == "train"], cancers[split == selection]).history_.iloc[-1]
    for name in ("loss", "mse", "kl"):
        assert trials.loc[0, f"{selection}_{name}"] == last[f"validation_{name}"]
        assert trials.loc[0, f"train_{name}"] == last[name]
    assert not any(column.startswith({"test": "validation", "validation": "test"}[selection]) for column in trials)


def test_processes_do_not_change_the_trials(cancers, expected, tmp_path):
    result = search(cancers, table2(), SETTINGS, tmp_path, seed=7, n_jobs=2)
    pd.testing.assert_frame_equal(numbers(result.trials), expected)


def test_extended(cancers, expected, tmp_path, monkeypatch):
    search(cancers, table2(trials=2), SETTINGS, tmp_path, seed=7)
    trained = []
    fit = RNAlign.fit
    monkeypatch.setattr(RNAlign, "fit", lambda self, *a, **k: (trained.append(self.seed), fit(self, *a, **k))[1])
    extended = search(cancers, table2(), SETTINGS, tmp_path, seed=7).trials
    assert len(trained) == 2
    pd.testing.assert_frame_equal(numbers(extended), expected)
    pd.testing.assert_frame_equal(
        search(cancers, table2(trials=2), SETTINGS, tmp_path, seed=7).trials.filter(like="validation"),
        expected[:2].filter(like="validation"),
    )
    assert len(trained) == 2


def _search_until(cancers, folder: Path, log: Path, killed_in: int | None) -> None:
    """In a child process: note each training, and die by SIGKILL in its second epoch where told to."""
    fit, validate = RNAlign.fit, module.training._validate
    calls = []

    def noted(self, *args, **options):
        calls.append(self.seed)
        with log.open("a") as file:
            file.write(f"{self.seed}\n")
        return fit(self, *args, **options)

    def deadly(*args):
        calls.append("epoch")
        if len([c for c in calls if c != "epoch"]) == killed_in and calls[-2:] == ["epoch", "epoch"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(*args)

    RNAlign.fit, module.training._validate = noted, deadly
    search(cancers, table2(), SETTINGS, folder, seed=7, checkpoint_every=1)


def _child(*args) -> multiprocessing.Process:
    # not by fork: threads that another test started would be missing in the child, which then waits for them for ever
    process = multiprocessing.get_context("spawn").Process(target=_search_until, args=args)
    process.start()
    return process


def test_killed_and_resumed(cancers, expected, tmp_path):
    child = _child(cancers, tmp_path / "study", tmp_path / "log", 3)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "study" / "trial-002" / "checkpoint.json").exists()
    assert len(module.ended(tmp_path / "study")) == 2
    resumed = search(cancers, table2(), SETTINGS, tmp_path / "study", seed=7).trials
    pd.testing.assert_frame_equal(numbers(resumed), expected)


def test_processes_share_a_study(cancers, expected, tmp_path):
    """Each trial is trained once, by either; both wait for the whole."""
    children = [_child(cancers, tmp_path / "study", tmp_path / "log", None) for _ in range(2)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(expected["seed"].astype(str))
    pd.testing.assert_frame_equal(
        numbers(search(cancers, table2(), SETTINGS, tmp_path / "study", seed=7).trials), expected
    )


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_diverged_trials_are_recorded(cancers, tmp_path):
    space = table2(log10_lr=[-3.0, 6.0], trials=5, epochs=6)
    result = search(cancers, space, SETTINGS, tmp_path, seed=1)
    failed = result.trials["state"] == "failed"
    assert 0 < failed.sum() < 5
    assert result.trials.loc[failed, "reason"].str.match("training").all()
    assert result.trials.loc[failed, ["validation_loss", "rank_loss"]].isna().all(None)
    assert result.trials.loc[~failed, "reason"].eq("").all()
    assert result.trials.loc[~failed, "lr"].max() < result.trials.loc[failed, "lr"].min()
    pd.testing.assert_frame_equal(search(cancers, space, SETTINGS, tmp_path, seed=1).trials, result.trials)
    with pytest.raises(RuntimeError, match="all 2 trials failed; the first: training"):
        search(cancers, table2(log10_lr=[6.0, 6.0], trials=2, epochs=6), SETTINGS, tmp_path / "none", seed=1)


def test_other_errors_stop_the_search(cancers, tmp_path):
    broken = cancers.copy()
    broken.obs.loc[broken.obs["split"] == "train", "purity"] = np.nan
    with pytest.raises(ValueError, match="purity: missing"):
        search(broken, table2(), SETTINGS, tmp_path, seed=7)


def test_optunas_own_tools_read_the_study(cancers, tmp_path):
    search(cancers, table2(trials=2), SETTINGS, tmp_path, seed=7)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name=module.STUDY, storage=optuna.storages.JournalStorage(backend))
    assert study.best_params in [draw(table2(), 7, k)[0] for k in (0, 1)]


def test_bad_input(cancers, tmp_path):
    search(cancers, table2(trials=1), SETTINGS, tmp_path, seed=7)
    for changed in (
        dict(seed=8),
        dict(settings=SETTINGS | {"latent": 3}),
        dict(space=table2(epochs=5)),
        dict(adata=cancers[:80]),
        dict(adata=ad.AnnData(cancers.X, cancers.obs.assign(purity=1.0), cancers.var)),
    ):
        arguments = dict(adata=cancers, space=table2(trials=1), settings=SETTINGS, folder=tmp_path, seed=7) | changed
        with pytest.raises(ValueError, match="found a search with another seed, data or settings"):
            search(**arguments)
    with pytest.raises(ValueError, match="trials: found 0, expected at least 1"):
        search(cancers, table2(trials=0), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="found 0 samples of 'test'"):
        search(cancers[cancers.obs["split"] != "test"], table2(selection="test"), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="no column 'split'"):
        search(ad.AnnData(cancers.X), table2(), SETTINGS, tmp_path)
    (tmp_path / "journal.log").write_text("no journal\n{}\n")
    with pytest.raises(ValueError, match=r"journal\.log: not a readable Optuna journal"):
        search(cancers, table2(), SETTINGS, tmp_path, seed=7)
