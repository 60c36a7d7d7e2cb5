"""Drug response of cell lines, and of tumours predicted from them (paper A, appendix A.10).

Two tables are read, the matrix of DepMap's PRISM screen and the long table of GDSC, in both of which a lower value
means a stronger answer. An approach to prediction is a function `(X_train, Y_train, X_new) -> Y_new`, so that
`predict` measures any of them on the same held-out lines: X samples × genes, Y samples × drugs with NaN where a line
was not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from lib.metrics.bootstrap import SeedsEstimate, interval_over_seeds
from lib.metrics.correlation import unit_rows
from lib.readers import sample_table

GDSC_VALUES = ("LN_IC50", "AUC")
GDSC_LINES = ("CELL_LINE_NAME", "COSMIC_ID")
PENALTIES = np.logspace(1, 6, 11)
COMPONENTS = 100  # of the training lines, at most
MIN_LINES = 10  # measured lines that a drug needs to be fitted or scored

Approach = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


# --- tables ---


def read_drug_response(path: str | Path) -> pd.DataFrame:
    """A table of drug response as lines × drugs, NaN where not measured; lower = the line answers more.

    PRISM: CSV, lines (DepMap_ID) in rows, one column per drug (`NAME::dose::screen`, shortened to NAME where that is
    unambiguous), log2 fold change. GDSC: one row per line and drug, CELL_LINE_NAME or COSMIC_ID, DRUG_NAME, LN_IC50 or
    AUC; repeats of a pair are averaged. FileNotFoundError; ValueError for another layout or values that are no numbers.
    """
    path = Path(path)
    if path.suffix in (".xlsx", ".xls"):
        raise ValueError(f"{path}: found a spreadsheet, expected its sheet saved as CSV")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected a table of drug response (PRISM or GDSC)")
    head = pd.read_csv(path, sep=None, engine="python", nrows=0)
    table = _long_table(path, head.columns) if "DRUG_NAME" in head else _matrix(path)
    if table.empty or not np.isfinite(table.to_numpy(float)).any():
        raise ValueError(f"{path}: found no measured response, expected lines × drugs")
    return table


def _long_table(path: Path, columns: pd.Index) -> pd.DataFrame:
    line = next((c for c in GDSC_LINES if c in columns), None)
    value = next((c for c in GDSC_VALUES if c in columns), None)
    if line is None or value is None:
        wanted = f"one of {', '.join(GDSC_LINES)} and one of {', '.join(GDSC_VALUES)} beside DRUG_NAME"
        raise ValueError(f"{path}: found columns {', '.join(map(str, columns[:8]))}, expected {wanted}")
    rows = pd.read_csv(path, sep=None, engine="python", usecols=[line, "DRUG_NAME", value], dtype={line: str})
    rows[value] = _numbers(rows[value], path)
    table = rows.pivot_table(index=line, columns="DRUG_NAME", values=value, aggfunc="mean")
    return table.rename_axis(index="line", columns=None)


def _matrix(path: Path) -> pd.DataFrame:
    table = sample_table(path).rename_axis(index="line")
    table = table.apply(_numbers, path=path)
    names = table.columns.astype(str)
    short = names.str.partition("::").get_level_values(0)
    table.columns = [a if n == 1 else b for a, b, n in zip(short, names, short.value_counts()[short], strict=True)]
    return table


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = column[numbers.isna() & column.notna()]
    if len(bad):
        raise ValueError(f"{path}: column {column.name}: found {bad.iloc[0]!r}, expected a number or nothing")
    return numbers.where(np.isfinite(numbers))


def of_samples(response: pd.DataFrame, obs: pd.DataFrame) -> pd.DataFrame:
    """The response of every sample of a compendium: samples × drugs, NaN for tumours and lines not screened.

    A line is found by its id (obs_names) or by obs.name without regard to case and punctuation, as GDSC spells it.
    ValueError when no line of the compendium is in the table.
    """
    spelled = response.groupby(_plain(response.index)).mean()
    by_name = pd.Series(_plain(obs["name"]), obs.index)
    known = pd.Series(_plain(obs.index), obs.index)
    key = known.where(known.isin(spelled.index), by_name)
    key = key.where((obs["sample_type"] == "cell line").to_numpy())
    found = spelled.reindex(key.to_numpy()).set_axis(obs.index)
    if not found.notna().any(axis=None):
        raise ValueError(f"response: found lines such as {response.index[0]!r}, expected some of the compendium's")
    return found


def _plain(names) -> np.ndarray:
    return pd.Index(names).astype(str).str.upper().str.replace(r"[^A-Z0-9]", "", regex=True).to_numpy()


def most_variable(response: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n drugs whose response differs most between lines (variance), of those measured in at least ten."""
    enough = response.columns[response.notna().sum() >= MIN_LINES]
    variance = response[enough].var()
    return response[variance[variance > 0].nlargest(n).index.sort_values()]


# --- approaches ---


def nearest_lines(k: int) -> Approach:
    """The mean response of the k most correlated measured lines, weighted by their (positive) correlation."""

    def approach(X_train, Y_train, X_new):
        similarity = np.nan_to_num(unit_rows(X_new) @ unit_rows(X_train).T)  # constant samples are like none
        order = np.argsort(-similarity, axis=1, kind="stable")
        weights, values = np.take_along_axis(similarity, order, axis=1).clip(min=1e-6), Y_train[order]
        predicted = np.empty((len(X_new), Y_train.shape[1]))
        for drug in range(Y_train.shape[1]):
            measured = np.isfinite(values[:, :, drug])
            near = weights * (measured & (measured.cumsum(axis=1) <= k))
            predicted[:, drug] = (near * np.nan_to_num(values[:, :, drug])).sum(axis=1) / near.sum(axis=1)
        return predicted

    return approach


def ridge(X_train: np.ndarray, Y_train: np.ndarray, X_new: np.ndarray) -> np.ndarray:
    """A ridge regression for each drug on the lines' principal components, its penalty by leave-one-out over lines."""
    centre = X_train.mean(axis=0)
    _, s, directions = np.linalg.svd(X_train - centre, full_matrices=False)
    directions = directions[s > 1e-6 * max(s[0], 1e-12)][:COMPONENTS].T
    A, B = (X_train - centre) @ directions, (X_new - centre) @ directions
    predicted = np.tile(np.nanmean(Y_train, axis=0), (len(X_new), 1))
    if A.shape[1] == 0:
        return predicted
    for drug, values in enumerate(Y_train.T):
        measured = np.isfinite(values)
        predicted[:, drug] = RidgeCV(PENALTIES).fit(A[measured], values[measured]).predict(B)
    return predicted


def drug_mean(X_train: np.ndarray, Y_train: np.ndarray, X_new: np.ndarray) -> np.ndarray:
    """Each drug's mean over the training lines: what a prediction has to beat."""
    return np.tile(np.nanmean(Y_train, axis=0), (len(X_new), 1))


def predict(approach: Approach, X: np.ndarray, response: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Samples × drugs: measured lines predicted when held out, all other samples from all measured lines.

    X: samples × genes; response: samples × drugs (`of_samples`). Split by line, the same for every approach.
    ValueError for no drugs, and when a fold leaves a drug unmeasured.
    """
    Y = response.to_numpy(float)
    if not Y.shape[1]:
        raise ValueError(f"response: found no drug that {MIN_LINES} lines or more answer differently, expected some")
    measured = np.flatnonzero(np.isfinite(Y).any(axis=1))
    if len(measured) < 2 * folds or (np.isfinite(Y).sum(axis=0) < MIN_LINES).any():
        found = f"{len(measured)} measured lines, {np.isfinite(Y).sum(axis=0).min()} for the rarest drug"
        raise ValueError(f"response: found {found}, expected at least {2 * folds} and {MIN_LINES}")
    predicted = np.empty(Y.shape)
    others = np.setdiff1d(np.arange(len(X)), measured)
    if len(others):
        predicted[others] = approach(X[measured], Y[measured], X[others])
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(measured):
        train, test = measured[train], measured[test]
        predicted[test] = approach(X[train], Y[train], X[test])
    return predicted


# --- scores ---


def score(
    predicted: np.ndarray, measured: pd.DataFrame, groups: pd.Series, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Per drug: Spearman correlation (value) of prediction and measurement, its 95 % interval over samples, and n.

    predicted, measured: samples × drugs, NaN where not measured; groups: cancer type of each sample. `within`: the
    same after the mean rank of each type is taken off, so that knowing the type scores nothing. The bootstrap resamples
    pairs of ranks. A prediction that does not vary ranks nothing and scores 0; NaN where the measurement does not vary
    or fewer than ten samples are measured.
    """
    known = measured.notna()
    predicted = pd.DataFrame(predicted, known.index, known.columns).round(6)
    ranks = [values.where(known).rank() for values in (predicted, measured)]
    inside = [r - r.groupby(groups.astype(str).to_numpy()).transform("mean") for r in ranks]
    rng, n = np.random.default_rng(seed), len(measured)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), n_boot)])
    draws, within = _correlations(*ranks, weights), _correlations(*inside, weights[:1])[0]
    low, high = np.percentile(draws[1:], [2.5, 97.5], axis=0)
    columns = {"drug": known.columns, "value": draws[0], "low": low, "high": high, "within": within}
    table = pd.DataFrame(columns | {"n": known.sum().to_numpy()})
    unknown = (table["n"] < MIN_LINES) | (measured.nunique() < 2).to_numpy()
    table.loc[unknown, ["value", "low", "high", "within"]] = np.nan
    return table


def _correlations(a: pd.DataFrame, b: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns of a and b (NaN: left out) under each row of weights: weights × columns."""
    present = a.notna().to_numpy(float)
    a, b = (np.nan_to_num(((v - v.mean()) / len(v)).to_numpy(float)) for v in (a, b))
    total = (weights @ present).clip(min=1e-9)
    means = [weights @ v / total for v in (a, b, a * b, a * a, b * b)]
    variance = (means[3] - means[0] ** 2) * (means[4] - means[1] ** 2)
    covariance = means[2] - means[0] * means[1]
    return np.divide(covariance, np.sqrt(variance.clip(0)), out=np.zeros(total.shape), where=variance > 1e-18)


def skill(predicted: np.ndarray, measured: pd.DataFrame, by_mean: np.ndarray) -> np.ndarray:
    """Per drug: 1 - squared error of the prediction / that of the drug's mean; 0 or less: no better than the mean."""
    error, of_mean = (np.nanmean((measured.to_numpy(float) - p) ** 2, axis=0) for p in (predicted, by_mean))
    return 1 - error / of_mean


def over_drugs(scores: pd.DataFrame, reference: str = "input", n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Medians over drugs for every (samples, approach, method), with 95 % intervals over drugs (and seeds, if several).

    scores: rows of `score` with columns samples, approach, method, seed, and skill. Columns n_drugs (per seed), seeds,
    and n_samples: lines or tumours that the drugs were scored on, their median over drugs. `difference`: that of the
    same drugs' Spearman to the method `reference` under the same approach and seed.
    """
    rows = []
    for (samples, approach), part in scores.groupby(["samples", "approach"], sort=False):
        by_drug = part.pivot_table(index=["seed", "drug"], columns="method", values="value", sort=False)
        for method, own in part.groupby("method", sort=False):
            known = own[own["value"].notna()]
            spearman = _over_drugs(known.set_index(["seed", "drug"])["value"], n_boot, seed)
            row = {"samples": samples, "approach": approach, "method": method, "n_drugs": spearman.n}
            row |= {"n_samples": int(known["n"].median()) if len(known) else 0, "seeds": spearman.seeds}
            row |= _named("spearman", spearman)
            row |= {
                name: own[column].dropna().median() for name, column in (("within_types", "within"), ("skill", "skill"))
            }
            if reference in by_drug and method != reference and method in by_drug:
                difference = (by_drug[method] - by_drug[reference]).dropna()
                row |= _named("difference", _over_drugs(difference, n_boot, seed))
            rows.append(row)
    return pd.DataFrame(rows)


def _over_drugs(values: pd.Series, n_boot: int, seed: int) -> SeedsEstimate:
    """Median of values by (seed, drug)."""
    seeds, drugs = (values.index.get_level_values(level) for level in ("seed", "drug"))
    return interval_over_seeds(values, seeds, drugs, np.median, n_boot, seed)


def _named(name: str, found: SeedsEstimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
