"""Search for the tissue VAE's latent size and batch size: paper B's Bayesian optimisation, as an Optuna study on disk.

Trial k is drawn by a tree-structured Parzen estimator (TPE) from (seed, k) and the trials before it, so a search killed
at any moment and called again gives the same trials. A trial that does worse than the median of the others at the same
epoch is pruned. The study's files are those of lib/models/search.py.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from lib.config import TissueVAESearch
from lib.models import training
from lib.models.search import SEED_BITS, ended, locked, part_named, prepare, study_in
from lib.models.tissue_vae import TissueVAE

AT_RANDOM = 2  # trials before the estimator has something to go by
UNPRUNED = 4  # trials before there is a median worth the name
WARM_UP = 0.2  # share of the epochs in which nothing is pruned
LOSSES = ("loss", "mse", "mmd", "cross_entropy")


class TissueSearch(NamedTuple):
    """All trials, and latent and batch_size of the one of lowest loss."""

    trials: pd.DataFrame
    best: dict[str, int]


@dataclass(frozen=True)
class _Work:
    train: ad.AnnData
    judged: ad.AnnData
    space: TissueVAESearch
    fixed: dict
    folder: Path
    seed: int


class _Watched(TissueVAE):
    """A tissue VAE whose training calls `watch` at the start of every epoch."""

    watch = None

    def _network(self):
        module = super()._network()
        last = {}

        def hook(module, _, values):
            if module.training and values["progress"] != last.get("progress"):
                last.update(progress=values["progress"])
                self.watch()

        module.register_forward_pre_hook(hook, with_kwargs=True)
        return module


def distributions(space: TissueVAESearch) -> dict[str, BaseDistribution]:
    """The searched arguments of TissueVAE."""
    return {"latent": IntDistribution(*space.latent), "batch_size": CategoricalDistribution(space.batch_size)}


def search(
    adata: ad.AnnData, space: TissueVAESearch, settings: dict, folder: str | Path, seed: int = 0
) -> TissueSearch:
    """Train `space.trials` tissue VAEs one after another and rank them by their lowest loss (paper B, Methods).

    adata: z-scored samples × genes with obs tissue and split; trained on "train", judged on the part that
    `space.selection` names (the paper: "test"). settings: TissueVAE's arguments that are not searched. folder: the
    study and a history.csv for each trial; called there again, the search goes on where it stopped.

    trials: one row per trial (index): state ("complete", "pruned", "failed"), latent, batch_size, rank (1 = lowest
    loss, of the complete ones), loss, mse, mmd, cross_entropy of the best epoch on the selection part, n (its samples),
    epochs, seconds and, for failed ones, the reason. Losses of trials with another batch size or latent size mean the
    same but for the MMD, whose kernel depends on the latent size.
    ValueError for no trials, a missing part, or a folder with another search; RuntimeError when every trial failed.
    """
    if space.trials < 1:
        raise ValueError(f"trials: found {space.trials}, expected at least 1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, judged = part_named(adata, "train"), part_named(adata, space.selection)
    fixed = {
        name: value for name, value in settings.items() if name not in {*distributions(space), "max_epochs", "seed"}
    }
    work = _Work(train, judged, space, fixed, Path(folder), seed)
    prepare(work.folder, _fingerprint(work))
    with locked(work.folder / "trials.lock", waits=True):  # a trial is drawn from those before it: one at a time
        for k in range(len(ended(work.folder)), space.trials):
            _run_trial(k, work)
    return _ranked(ended(work.folder), judged.n_obs, space)


def _run_trial(k: int, work: _Work) -> None:
    """Draw trial k from the ended ones, train it, and put it into the study."""
    home, start = work.folder / f"trial-{k:03d}", time.monotonic()
    trial = _drawn(k, work)
    model = _Watched(**work.fixed | trial.params, max_epochs=work.space.epochs, seed=work.seed)
    reported: list[float] = []
    model.watch = lambda: _report(trial, home / "history.csv", reported)
    state, reason = TrialState.COMPLETE, ""
    try:
        model.fit(work.train, validation=work.judged, checkpoint_dir=home, checkpoint_every=5)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except RuntimeError as error:
        if not str(error).startswith("training"):  # not the hyper-parameters' fault
            raise
        state, reason = TrialState.FAIL, str(error)
    history = _history(home / "history.csv")
    losses = {name: history[f"validation_{name}"].tolist() for name in LOSSES}
    about = {"trial": k, "losses": losses, "seconds": round(time.monotonic() - start, 2), "reason": reason}
    study_in(work.folder).add_trial(
        optuna.create_trial(
            state=state,
            value=min(losses["loss"]) if state == TrialState.COMPLETE else None,
            params=trial.params,
            distributions=distributions(work.space),
            user_attrs=about,
            intermediate_values=dict(enumerate(losses["loss"])) if state != TrialState.FAIL else None,
        )
    )
    for checkpoint in home.glob("*checkpoint*"):
        checkpoint.unlink()


def _drawn(k: int, work: _Work) -> Trial:
    """Trial k of a study in memory that holds the ended ones."""
    seed = int(np.random.SeedSequence([work.seed, k]).generate_state(1)[0]) & SEED_BITS
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=int(WARM_UP * work.space.epochs)),
    )
    study.add_trials([trial for _, trial in sorted(ended(work.folder).items())])
    return study.ask(distributions(work.space))


def _report(trial: Trial, history: Path, reported: list[float]) -> None:
    """Tell the pruner what the epochs since the last report gave; TrialPruned when that is worse than the median."""
    for loss in _history(history)["validation_loss"].iloc[len(reported) :]:
        trial.report(loss, len(reported))
        reported.append(loss)
    if reported and trial.should_prune():
        raise optuna.TrialPruned


def _history(path: Path) -> pd.DataFrame:
    """One row per epoch; none where the training failed in the first."""
    columns = [f"validation_{name}" for name in LOSSES]
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=columns, dtype=float)


def _fingerprint(work: _Work) -> str:
    """Hash of all that decides the trials; not of how many there are, nor of the device."""
    hashed = hashlib.sha256()
    for part in (work.train, work.judged):
        hashed.update(training.Samples(part).to("cpu").digest().encode())
        hashed.update(pd.util.hash_pandas_object(part.obs["tissue"].astype(str), index=False).to_numpy().tobytes())
    space = work.space.model_dump(exclude={"trials", "use_best"})
    values = [space, work.fixed | {"device": None}, list(work.train.var_names), work.seed]
    hashed.update(json.dumps(values, sort_keys=True, default=str).encode())
    return hashed.hexdigest()


def _ranked(done: dict[int, FrozenTrial], n: int, space: TissueVAESearch) -> TissueSearch:
    rows = []
    for k, trial in sorted(done.items())[: space.trials]:
        about = trial.user_attrs
        losses = pd.DataFrame(about["losses"])
        best = losses.loc[losses["loss"].idxmin()] if len(losses) else pd.Series(np.nan, losses.columns)
        state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
        row = {"trial": k, "state": state, **trial.params, **best, "n": n, "epochs": len(losses)}
        rows.append(row | {"seconds": about["seconds"], "reason": about["reason"]})
    trials = pd.DataFrame(rows).set_index("trial")
    complete = trials["state"] == "complete"
    if not complete.any():
        raise RuntimeError(f"search: all {len(trials)} trials failed; the first: {trials['reason'].iloc[0]}")
    rank = trials["loss"].where(complete).rank(method="first").astype("Int64")
    trials.insert(3, "rank", rank)
    best = trials.loc[rank.eq(1).fillna(False), list(distributions(space))].iloc[0]
    return TissueSearch(trials, {name: int(value) for name, value in best.items()})
