"""Speed of kBET, PVCA and Spearman beside plain loops of the same definition: `python benchmarks/metrics.py`.

The loops do what the R originals do, one neighbourhood or one component at a time, and are timed on a part of
the work where the whole would take minutes; the table says which part.
"""

import os
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.spatial.distance import cdist
from scipy.stats import chi2, spearmanr

from lib.metrics import kbet as kbet_module
from lib.metrics.alignment import kbet, pvca
from lib.metrics.reconstruction import spearman_per_gene


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def kbet_loop(X, batch, k0, permutations, n_repeat=100):
    """Observed and expected rejection rate, one neighbourhood at a time."""
    rng, n = np.random.default_rng(0), len(X)
    frequencies = np.bincount(batch) / n
    members = np.argsort(cdist(X, X), axis=1)[:, :k0]

    def rejected(labels, sample):
        counts = np.bincount(labels[members[sample]], minlength=len(frequencies))
        statistic = ((counts - k0 * frequencies) ** 2 / (k0 * frequencies)).sum()
        return chi2.sf(statistic, len(frequencies) - 1) < 0.05

    shuffled = [rng.permutation(batch) for _ in range(permutations)]
    observed, expected = [], []
    for _ in range(n_repeat):
        subset = rng.choice(n, n // 10, replace=False)
        observed.append(np.mean([rejected(batch, i) for i in subset]))
        expected.append(np.mean([rejected(labels, i) for labels in shuffled for i in subset]))
    return np.mean(observed), np.mean(expected)


def pvca_loop(X, factors, components):
    """Variance shares of the first components: REML on the full samples × samples covariance, one by one."""
    n = len(X)
    centred = X - X.mean(axis=0)
    _, vectors = np.linalg.eigh(np.corrcoef(centred))
    columns = [factors["batch"], factors["type"], factors["batch"] * 1000 + factors["type"]]
    same = [np.equal.outer(column.to_numpy(), column.to_numpy()).astype(float) for column in columns]
    ones = np.ones(n)

    def deviance(log_ratios, y):
        covariance = np.eye(n) + sum(np.exp(x) * z for x, z in zip(log_ratios, same, strict=True))
        inverse = np.linalg.inv(covariance)
        residual = y - ones @ inverse @ y / inverse.sum()
        quadratic = residual @ inverse @ residual
        return np.linalg.slogdet(covariance)[1] + np.log(inverse.sum()) + (n - 1) * np.log(quadratic)

    fits = [
        optimize.minimize(deviance, np.zeros(3), args=(y,), bounds=[(-25, 25)] * 3)
        for y in vectors.T[::-1][:components]
    ]
    return [np.append(np.exp(fit.x), 1) / (np.exp(fit.x).sum() + 1) for fit in fits]


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"{model}, {len(os.sched_getaffinity(0))} cores{load}; {versions}"


def bench_kbet() -> list[tuple]:
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 2, 5000)
    X = rng.normal(size=(5000, 50)) + 0.2 * batch[:, None]
    rows = []
    for k0 in (None, 100):
        result, seconds = timed(lambda k0=k0: kbet(X, batch, k0=k0))
        (observed, expected), loop = timed(kbet_loop, X, batch, result.k0, 3)
        note = (
            f"permutations: loop 3 as R, ours {kbet_module.PERMUTATIONS}; observed {observed:.3f} and "
            f"{result.observed:.3f}, expected {expected:.3f} and {result.expected:.3f}"
        )
        size = k0 or f"searched: {result.k0}"
        rows.append((f"kbet 5,000 × 50, 100 repeats, k0 = {size}", seconds, loop, note))
    return rows


def bench_pvca(components=1) -> list[tuple]:
    rng = np.random.default_rng(1)
    factors = pd.DataFrame({"batch": rng.integers(0, 2, 1000), "type": rng.integers(0, 26, 1000)})
    noise = rng.normal(size=(1000, 3000))
    structured = (
        noise + rng.normal(size=(2, 3000))[factors["batch"]] + 0.7 * rng.normal(size=(26, 3000))[factors["type"]]
    )
    rows = []
    for name, X in (("structured", structured), ("noise: the most components", noise)):
        _, seconds = timed(pvca, X, factors)
        values = np.linalg.eigvalsh(np.corrcoef(X - X.mean(axis=0)))[::-1]
        n_components = int((np.cumsum(values) / 1000 - values / 1000 <= 0.6).sum())
        _, loop = timed(pvca_loop, X, factors, components)
        note = f"loop (dense, numerical gradient): {components} of {n_components} components timed, scaled up"
        rows.append((f"pvca 1,000 × 3,000, two factors, {name}", seconds, loop * n_components / components, note))
    return rows


def bench_spearman() -> list[tuple]:
    rng = np.random.default_rng(2)
    original = np.maximum(rng.normal(size=(5000, 1000)), 0).astype(np.float32)
    reconstructed = original + rng.normal(size=original.shape).astype(np.float32)
    ours, seconds = timed(spearman_per_gene, original, reconstructed)
    loop, slow = timed(lambda: [spearmanr(a, b)[0] for a, b in zip(original.T, reconstructed.T, strict=True)])
    note = f"largest difference from scipy {np.abs(ours - loop).max():.0e}"
    return [("spearman_per_gene 5,000 × 1,000", seconds, slow, note)]


if __name__ == "__main__":
    print(machine())
    print(f"{'task':62s} {'seconds':>8s} {'loop':>8s} {'ratio':>7s}  note")
    for bench in (bench_kbet, bench_pvca, bench_spearman):
        for task, seconds, loop, note in bench():
            print(f"{task:62s} {seconds:8.2f} {loop:8.1f} {loop / seconds:6.1f}×  {note}", flush=True)
