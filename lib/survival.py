"""Survival of patients from features of their tumours: Cox regression with a ridge penalty, cross-validated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError
from sklearn.model_selection import StratifiedKFold

from lib.metrics.bootstrap import Estimate, percentile_interval
from lib.readers import sample_table

PENALTY = 0.1  # of lifelines; a third or three times of it changes no concordance of the demo by more than 0.004
MIN_EVENTS = 20


def read_survival(path: str | Path) -> pd.DataFrame:
    """Xena's survival table: by sample, OS (True: died) and OS.time (days); patients without either are left out.

    FileNotFoundError; ValueError for missing columns, an OS other than 0 and 1, a time below 0, or no patient.
    """
    table = sample_table(path, ["OS", "OS.time"])[["OS", "OS.time"]].apply(pd.to_numeric, errors="coerce").dropna()
    if table.empty:
        raise ValueError(f"{path}: found no sample with OS and OS.time, expected at least one")
    if not table["OS"].isin([0, 1]).all() or (table["OS.time"] < 0).any():
        raise ValueError(f"{path}: found OS or OS.time out of range, expected OS 0 or 1 and OS.time of 0 days or more")
    return table.assign(OS=table["OS"].astype(bool))


def type_and_purity(obs: pd.DataFrame, min_samples: int = 10) -> pd.DataFrame:
    """Indicators of the cancer types with `min_samples` or more (the commonest is the reference), and purity."""
    counts = obs["cancer_type"].astype(str).value_counts()
    types = counts.index[counts >= min_samples][1:]
    columns = {f"type {t}": (obs["cancer_type"] == t).astype(float) for t in types}
    return pd.DataFrame(columns | {"purity": obs["purity"].astype(float)}, index=obs.index)


def risk_held_out(features: pd.DataFrame, survival: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Log relative hazard of every patient by a Cox model that was fitted without him: (n,).

    features: patients × features, scaled here by the training part; survival: OS, OS.time in the same order.
    ValueError for too few deaths, missing features, or such that no Cox model can be fitted to.
    """
    if (missing := features.isna().sum()).any():
        raise ValueError(f"features: found {missing.max()} missing values of {missing.idxmax()!r}, expected none")
    events = int(survival["OS"].sum())
    if events < max(MIN_EVENTS, 2 * folds):
        raise ValueError(f"survival: found {events} deaths, expected at least {max(MIN_EVENTS, 2 * folds)}")
    risk, parts = np.empty(len(features)), StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in parts.split(features, survival["OS"]):
        mean, sd = features.iloc[train].mean(), features.iloc[train].std()
        scaled = ((features - mean) / sd.where(sd > 0, 1)).loc[:, (sd > 0).to_numpy()]
        try:
            model = CoxPHFitter(penalizer=PENALTY).fit(scaled.iloc[train].join(survival), "OS.time", "OS")
        except ConvergenceError as error:
            raise ValueError(f"features: found {features.shape[1]} that Cox regression cannot be fitted to") from error
        risk[test] = model.predict_log_partial_hazard(scaled.iloc[test])
    return risk


def concordance(risk, survival: pd.DataFrame, groups=None, n_boot: int = 1000, seed: int = 0) -> Estimate:
    """Harrell's concordance of risk and survival with its 95 % bootstrap interval over patients.

    0.5: by chance, 1: whoever has the higher risk dies first. groups: labels within which alone patients are compared,
    so that knowing the label scores nothing. NaN when no two patients can be compared; `n_boot=0`: no interval.
    """
    value, *draws = concordances(risk, survival, groups, n_boot, seed)
    low, high = percentile_interval(np.array(draws)) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Estimate(float(value), low, high, len(survival))


def concordances(risk, survival: pd.DataFrame, groups=None, n_boot: int = 1000, seed: int = 0) -> np.ndarray:
    """The concordance, then that of `n_boot` resamples of the patients; the same ones for the same seed, so paired."""
    died, time, risk = survival["OS"].to_numpy(bool), survival["OS.time"].to_numpy(float), np.asarray(risk, float)
    # who died at the time of another's censoring died first, as in lifelines
    comparable = died[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~died))
    if groups is not None:
        labels = np.asarray(groups, dtype=str)
        comparable &= labels[:, None] == labels
    right = comparable * ((risk[:, None] > risk) + 0.5 * (risk[:, None] == risk))
    resampled = np.random.default_rng(seed).multinomial(len(risk), np.full(len(risk), 1 / len(risk)), n_boot)
    weights = np.vstack([np.ones(len(risk)), resampled]).astype(np.float32)
    concordant, pairs = (((weights @ m.astype(np.float32)) * weights).sum(axis=1) for m in (right, comparable))
    return np.divide(concordant, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
