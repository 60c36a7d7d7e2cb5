"""PVCA, principal variance component analysis: which factor carries how much of the variance."""

import math
from itertools import combinations
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import linalg, optimize
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from lib.metrics.distances import centred
from lib.metrics.inputs import as_codes, as_matrix


def pvca(X, factors: pd.DataFrame, threshold: float = 0.6, interactions: bool = True) -> pd.Series:
    """Principal variance component analysis (Boedigheimer et al. 2008): share of variance per factor.

    X: samples × features; factors: DataFrame, one column of categories per factor, rows in X's order.
    Features are centred; the eigenvectors of the samples' correlation matrix up to a cumulative share of
    `threshold` (at least 3) are each split by REML over crossed random intercepts (factors, with
    `interactions` all their pairs, residual) and averaged, weighted by eigenvalue.
    -> Series summing to 1: one entry per factor, per pair ('a:b'), and 'resid'. As Bioconductor's pvca 1.47,
    but for its vsn normalisation; one factor is possible here.
    Raises ValueError for NaN, missing labels, a factor with one level or with a level per sample, terms that
    group the samples alike (their variances cannot be told apart), and a sample without variance.
    """
    X = as_matrix(X, "X", min_samples=3)
    if not (isinstance(threshold, Real) and 0 < threshold <= 1):
        raise ValueError(f"threshold: found {threshold!r}, expected more than 0 and at most 1")
    terms = _random_terms(factors, len(X), interactions)
    eigenvalues, components = _sample_components(X, threshold)
    cells = _Cells.of(np.stack(list(terms.values()), axis=1))
    with threadpool_limits(1):  # matrices as small as these only lose to threads
        shares = eigenvalues @ np.stack([_reml_shares(component, cells) for component in components.T])
    return pd.Series(shares / shares.sum(), index=[*terms, "resid"], name="share")


def _random_terms(factors: pd.DataFrame, n: int, interactions: bool) -> dict[str, np.ndarray]:
    """Codes per random effect, main effects first; ValueError where an effect cannot be estimated."""
    if not isinstance(factors, pd.DataFrame) or factors.shape[1] == 0:
        raise ValueError(f"factors: found {type(factors).__name__}, expected a DataFrame with a column per factor")
    names = [str(name) for name in factors.columns]
    if len(set(names) | {"resid"}) != len(names) + 1:
        raise ValueError(f"factors: found columns {names}, expected distinct names other than 'resid'")
    columns = [factors.iloc[:, i] for i in range(len(names))]
    terms = {
        name: as_codes(column, n, f"factors[{name!r}]", min_levels=2)[0]
        for name, column in zip(names, columns, strict=True)
    }
    if interactions:
        for a, b in combinations(names, 2):
            pairs = np.stack([terms[a], terms[b]], axis=1)
            terms[f"{a}:{b}"] = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    _check_estimable(terms, n)
    return terms


def _check_estimable(terms: dict[str, np.ndarray], n: int) -> None:
    sizes = {name: codes.max() + 1 for name, codes in terms.items()}
    for name, levels in sizes.items():
        if levels >= n:
            raise ValueError(f"factors: found {levels} levels of {name!r} for {n} samples, expected fewer levels")
    for a, b in combinations(terms, 2):
        joint = len(np.unique(np.stack([terms[a], terms[b]], axis=1), axis=0))
        if sizes[a] == sizes[b] == joint:
            raise ValueError(
                f"factors: found that {a!r} and {b!r} group the samples alike, expected crossed factors "
                "(or interactions=False)"
            )


def _sample_components(X: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Leading eigenvalues and unit eigenvectors (samples × components) of the samples' correlation matrix."""
    spread = centred(X)
    spread -= spread.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(spread, axis=1)
    flat = np.flatnonzero(norms <= 1e-12 * np.linalg.norm(X, axis=1))  # nothing but rounding errors
    if len(flat):
        raise ValueError(
            f"X: found {len(flat)} samples without variance once features are centred "
            f"(first: row {flat[0]}), expected none"
        )
    rows = spread / norms[:, None]
    wide = rows.shape[0] <= rows.shape[1]
    values, vectors = linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values[::-1] / len(X), vectors[:, ::-1]  # the trace is n: eigenvalues become shares
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    kept = max(3, int((before <= threshold).sum()))
    kept = min(kept, int((values > 1e-10).sum()))  # the rest carries no weight
    values, vectors = values[:kept], vectors[:, :kept]
    return values, vectors if wide else rows @ vectors / np.sqrt(values * len(X))


class _Cells(NamedTuple):
    """The design, by cells: samples that share the levels of all factors are exchangeable."""

    of_sample: np.ndarray  # cell of each sample
    counts: np.ndarray  # samples per cell
    same: np.ndarray  # effects × cells²: 1 where two cells share the effect's level

    @classmethod
    def of(cls, codes: np.ndarray) -> "_Cells":
        levels, of_sample, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        same = levels.T[:, :, None] == levels.T[:, None, :]
        return cls(of_sample.ravel(), counts, same.reshape(levels.shape[1], -1).astype(float))


def _reml_shares(y: np.ndarray, cells: _Cells) -> np.ndarray:
    """Shares of variance of `y` (n,) per random effect and residual, at the optimum of REML."""
    means = np.bincount(cells.of_sample, y) / cells.counts
    within = float(((y - means[cells.of_sample]) ** 2).sum())
    # without any residual the optimum lies at infinity: a floor at 1e-9 of the variance keeps it finite
    within = max(within, 1e-9 * float(((y - y.mean()) ** 2).sum()))
    fit = _minimised(np.zeros(len(cells.same)), means, within, cells)
    if (gone := np.exp(fit.x) < 1e-3).any():  # a variance at 0 may be one of several optima: start from the others
        fit = min(fit, _minimised(np.where(gone, 0.0, -6.0), means, within, cells), key=lambda found: found.fun)
    variances = np.append(np.exp(fit.x), 1.0)
    return variances / variances.sum()


def _minimised(start: np.ndarray, means: np.ndarray, within: float, cells: _Cells) -> optimize.OptimizeResult:
    return optimize.minimize(
        _reml_deviance,
        start,
        args=(means, within, cells),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-23, 23)] * len(start),
        options={"ftol": 1e-13, "gtol": 1e-6, "maxiter": 500},
    )


def _reml_deviance(log_ratios, means, within, cells) -> tuple[float, np.ndarray]:
    """-2 log restricted likelihood and its gradient, residual variance profiled out.

    log_ratios: log of each effect's variance over the residual variance. The cell means and the sum of
    squares within cells are sufficient, so that all matrices are cells × cells.
    """
    ratios, n_cells = np.exp(log_ratios), len(means)
    covariance = (ratios @ cells.same).reshape(n_cells, n_cells)
    covariance[np.diag_indices(n_cells)] += 1 / cells.counts
    factor, _ = lapack.dpotrf(covariance)  # plain LAPACK: scipy's checks would take most of the time
    upper, _ = lapack.dpotri(factor)
    inverse = upper + upper.T - np.diag(np.diag(upper))
    weights = inverse.sum(axis=0)
    total = weights.sum()
    residual = inverse @ (means - weights @ means / total)
    quadratic = within + means @ residual
    degrees = cells.counts.sum() - 1
    deviance = 2 * np.log(np.diag(factor)).sum() + math.log(total) + degrees * math.log(quadratic)
    projection = inverse - np.outer(weights, weights) / total
    slope = projection - np.outer(residual, residual) * (degrees / quadratic)
    return deviance, ratios * (cells.same @ slope.ravel())
