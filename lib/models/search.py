"""Search for RNAlign's hyper-parameters: the random draws of paper A's Table 2, as an Optuna study on disk.

Trial k's hyper-parameters and its training come from (seed, k) alone: neither the number of processes, nor a kill,
nor how many trials were asked for at first changes a number. A trial enters the study when it has ended; while it
runs, a lock that the system drops with the process keeps others off it, so that a search killed at any moment, on
one machine or on several that share the folder, is continued by calling it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import joblib
import numpy as np
import optuna
import pandas as pd
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lib.config import RNAlignSearch
from lib.models import training
from lib.models.rnalign import RNAlign

CHOICES = ("n_layers", "dropout", "batch_size")  # rows of Table 2 that draw from a list
STUDY = "search"
JOURNAL = "journal.log"
LOSSES = ("loss", "mse", "reconstruction", "kl", "l_cor", "l_grad")
SEED_BITS = 2**31 - 1


class Search(NamedTuple):
    """All trials, and the hyper-parameters, named as RNAlign's, of the best by total loss and of the best by mse."""

    trials: pd.DataFrame
    best: dict[str, int | float]
    best_by_mse: dict[str, int | float]


@dataclass(frozen=True)
class _Work:
    """All that a trial needs to know, in whatever process it runs."""

    train: ad.AnnData
    judged: ad.AnnData
    space: RNAlignSearch
    fixed: dict
    folder: Path
    seed: int
    checkpoint_every: int
    threads: int  # sums depend on it


def ranges(space: RNAlignSearch) -> dict[str, list]:
    """The rows of Table 2 and their limits or choices; log10_… gives exponents of ten."""
    return space.model_dump(exclude={"trials", "epochs", "selection", "use_best"})


def distributions(space: RNAlignSearch) -> dict[str, BaseDistribution]:
    """Table 2 as Optuna's distributions, named as RNAlign's hyper-parameters; 10^Uniform(a, b) is log-uniform."""
    found: dict[str, BaseDistribution] = {}
    for row, value in ranges(space).items():
        if row in CHOICES:
            found[row] = CategoricalDistribution(value)
        elif row.startswith("log10_"):
            found[row.removeprefix("log10_")] = FloatDistribution(10 ** value[0], 10 ** value[1], log=True)
        else:
            found[row] = FloatDistribution(*value)
    return found


def draw(space: RNAlignSearch, seed: int, k: int) -> tuple[dict[str, int | float], int]:
    """Hyper-parameters and training seed of trial k."""
    sampling, training_seed = (int(word) & SEED_BITS for word in np.random.SeedSequence([seed, k]).generate_state(2))
    sampler = optuna.samplers.RandomSampler(seed=sampling)
    return optuna.create_study(sampler=sampler).ask(distributions(space)).params, training_seed


def search(
    adata: ad.AnnData,
    space: RNAlignSearch,
    settings: dict,
    folder: str | Path,
    seed: int = 0,
    n_jobs: int = 1,
    checkpoint_every: int = 10,
) -> Search:
    """Train `space.trials` random draws of `space` and rank them (paper A, section 3.2 and Table 2).

    adata: z-scored samples × genes with what RNAlign needs and obs split ("train", "validation", "test"); trained on
    train, judged on the part that `space.selection` names (the paper: "test"). settings: RNAlign's arguments that are
    not searched; those that are, are overridden. folder: the study (journal.log, for Optuna's own tools) and a
    history.csv for each trial; a search called there again goes on where it stopped, with more trials if `trials`
    grew. n_jobs: processes; other calls on the same folder share the work.

    trials: one row per trial k (index): state ("complete", "failed"), the hyper-parameters, seed, the losses of the
    last epoch (train_*; validation_* or test_*), rank_loss and rank_mse (1 = lowest, of the selection part), seconds
    and, for trials that diverged, the reason. The total loss depends on the sigma, beta and lambdas that are drawn
    themselves, and L_grad has no lower bound: losses of different trials are not comparable. `best` follows the paper
    all the same; the mean squared error of reconstruction, by which `best_by_mse` is chosen, means the same in every
    trial.
    ValueError for no trials, a missing part, or a folder that holds a search with another seed, data or settings;
    RuntimeError when every trial diverged.
    """
    if space.trials < 1:
        raise ValueError(f"trials: found {space.trials}, expected at least 1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, judged = part_named(adata, "train"), part_named(adata, space.selection)
    fixed = {name: value for name, value in settings.items() if name not in {*distributions(space), "epochs", "seed"}}
    work = _Work(train, judged, space, fixed, Path(folder), seed, checkpoint_every, torch.get_num_threads())
    prepare(work.folder, _fingerprint(work))
    # those that another process is at come second: by then it has ended, or we wait for it
    for waits in (False, True):
        known = ended(work.folder)
        missing = [k for k in range(space.trials) if k not in known]
        joblib.Parallel(min(n_jobs, max(len(missing), 1)))(joblib.delayed(_run_trial)(k, work, waits) for k in missing)
    return _ranked(_table(work.folder, space), space)


def part_named(adata: ad.AnnData, name: str) -> ad.AnnData:
    if "split" not in adata.obs:
        raise ValueError(f"adata.obs: no column 'split', found {', '.join(adata.obs) or 'none'}")
    part = adata[(adata.obs["split"] == name).to_numpy()]
    if part.n_obs < 2:
        raise ValueError(f"adata.obs['split']: found {part.n_obs} samples of {name!r}, expected at least 2")
    return part.to_memory() if part.isbacked else part.copy()


def search_table(space: RNAlignSearch, trials: pd.DataFrame, used: dict) -> pd.DataFrame:
    """Paper A's Table 2 with what was made of it: a row per hyper-parameter, columns range, drawn, best, used.

    trials: of `search`, or empty; drawn: lowest to highest of the trials' draws; best: of lowest total loss; used: the
    model's settings.
    """
    rows = []
    done = trials[trials["state"] == "complete"] if len(trials) else trials
    for row, limits in ranges(space).items():
        name = row.removeprefix("log10_")
        words = ", ".join(map(str, limits)) if row in CHOICES else f"Uniform({limits[0]:g}, {limits[1]:g})"
        drawn = best = "no search"
        if len(done):
            drawn = f"{done[name].min():.3g} to {done[name].max():.3g}"
            best = f"{done.sort_values('rank_loss')[name].iloc[0]:.3g}"
        words = f"10^{words}" if row != name else words
        found = {"hyper-parameter": name, "range": words, "drawn": drawn, "best": best}
        rows.append(found | {"used": f"{used[name]:.3g}", "trials": len(done)})
    return pd.DataFrame(rows)


# --- one trial ----------------------------------------------------------------------------------------------


def _run_trial(k: int, work: _Work, waits: bool) -> None:
    """Train trial k and put it into the study, unless that was done or (not `waits`) is being done."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # again: this may be a new process
    torch.set_num_threads(work.threads)
    home = work.folder / f"trial-{k:03d}"
    home.mkdir(exist_ok=True)
    with locked(home / "lock", waits) as held:
        if not held or k in ended(work.folder):
            return
        hyperparameters, seed = draw(work.space, work.seed, k)
        model, start = RNAlign(**work.fixed | hyperparameters, epochs=work.space.epochs, seed=seed), time.monotonic()
        losses, reason = None, ""
        try:
            model.fit(work.train, work.judged, checkpoint_dir=home, checkpoint_every=work.checkpoint_every)
            losses = _last_losses(model.history_, work.space.selection)
        except RuntimeError as error:
            if not str(error).startswith("training"):  # not the hyper-parameters' fault
                raise
            reason = str(error)
        seconds = round(time.monotonic() - start, 2)
        outcome = {"trial": k, "seed": seed, "losses": losses, "seconds": seconds, "reason": reason}
        study_in(work.folder).add_trial(_frozen(outcome, hyperparameters, work.space))
        for checkpoint in home.glob("*checkpoint*"):
            checkpoint.unlink()


def _last_losses(history: pd.DataFrame, selection: str) -> dict[str, float]:
    """Losses of the last epoch; `history` calls the part that was judged "validation" whatever it is."""
    last = history.iloc[-1]
    judged = {f"{selection}_{name}": float(last[f"validation_{name}"]) for name in LOSSES}
    return judged | {f"train_{name}": float(last[name]) for name in LOSSES}


def _frozen(outcome: dict, hyperparameters: dict, space: RNAlignSearch) -> FrozenTrial:
    losses = outcome["losses"]
    return optuna.create_trial(
        state=TrialState.COMPLETE if losses else TrialState.FAIL,
        value=losses[f"{space.selection}_loss"] if losses else None,
        params=hyperparameters,
        distributions=distributions(space),
        user_attrs=outcome,
    )


# --- the study ----------------------------------------------------------------------------------------------


def _storage(folder: Path) -> JournalStorage:
    journal = folder / JOURNAL
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{journal}: not a readable Optuna journal; delete {folder.name} to search afresh") from error


def study_in(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=STUDY, storage=_storage(folder))


def prepare(folder: Path, fingerprint: str) -> None:
    """Make the study where there is none; else it must be the search of that fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", waits=True):
        storage = _storage(folder)
        if STUDY not in optuna.get_all_study_names(storage):
            optuna.create_study(study_name=STUDY, storage=storage, direction="minimize")
        study = study_in(folder)
        found = study.user_attrs.get("fingerprint")
        if found is None:
            study.set_user_attr("fingerprint", fingerprint)
        elif found != fingerprint:
            raise ValueError(f"{folder}: found a search with another seed, data or settings, expected the same or none")


def ended(folder: Path) -> dict[int, FrozenTrial]:
    """Trials that have ended, by k."""
    return {trial.user_attrs["trial"]: trial for trial in study_in(folder).get_trials(deepcopy=False)}


@contextmanager
def locked(path: Path, waits: bool) -> Iterator[bool]:
    """Hold a file's lock, and say whether it was got; the system gives it back when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _fingerprint(work: _Work) -> str:
    """Hash of all that decides the trials; not of how many there are, nor of the device."""
    hashed = hashlib.sha256()
    for part in (work.train, work.judged):
        labels = part.obs[part.obs.columns.intersection(["cancer_type", "sample_type", "purity"])].astype(str)
        hashed.update(training.Samples(part).to("cpu").digest().encode())
        hashed.update(pd.util.hash_pandas_object(labels, index=False).to_numpy().tobytes())
    space = work.space.model_dump(exclude={"trials", "use_best"})
    values = [space, work.fixed | {"device": None}, list(work.train.var_names), work.seed]
    hashed.update(json.dumps(values, sort_keys=True, default=str).encode())
    return hashed.hexdigest()


# --- the result ---------------------------------------------------------------------------------------------


def _table(folder: Path, space: RNAlignSearch) -> pd.DataFrame:
    done, rows = ended(folder), []
    none = {f"{part}_{name}": np.nan for part in (space.selection, "train") for name in LOSSES}
    for k in range(space.trials):
        outcome, state = done[k].user_attrs, done[k].state
        row = {"trial": k, "state": "complete" if state == TrialState.COMPLETE else "failed"}
        row |= done[k].params | {"seed": outcome["seed"]} | (outcome["losses"] or none)
        rows.append(row | {"seconds": outcome["seconds"], "reason": outcome["reason"]})
    return pd.DataFrame(rows).set_index("trial")


def _ranked(trials: pd.DataFrame, space: RNAlignSearch) -> Search:
    if not (trials["state"] == "complete").any():
        raise RuntimeError(f"search: all {len(trials)} trials failed; the first: {trials['reason'].iloc[0]}")
    best = {}
    for at, name in enumerate(("loss", "mse")):
        rank = trials[f"{space.selection}_{name}"].rank(method="first").astype("Int64")
        trials.insert(1 + at, f"rank_{name}", rank)
        best[name] = trials.loc[rank.eq(1).fillna(False), list(distributions(space))].astype(object).iloc[0].to_dict()
    return Search(trials, best["loss"], best["mse"])
