"""Speed and memory of Spearman per gene, per sample and of masked values at the paper's size.

    python benchmarks/reconstruction.py

Generated data with ties (zeros), as in expression. `--samples` and `--genes` set the size; scipy's loop is timed on a
part of the columns and scaled up. Seconds are of the processor; memory is what the call takes beside the two matrices.
"""

import argparse
import resource
import time

import numpy as np
from scipy.stats import spearmanr

from lib.metrics.reconstruction import masked_spearman, spearman_per_gene, spearman_per_sample


def generate(samples: int, genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 matrices, a third of the values tied at zero, filled in place row by row."""
    rng = np.random.default_rng(0)
    original = np.empty((samples, genes), np.float32)
    reconstructed = np.empty_like(original)
    for row, other in zip(original, reconstructed, strict=True):
        np.maximum(rng.standard_normal(genes, np.float32) + 0.4, 0, out=row)
        np.add(row, rng.standard_normal(genes, np.float32), out=other)
    return original, reconstructed


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(function, original: np.ndarray, reconstructed: np.ndarray, pairs: list[tuple]) -> str:
    """A line of the report; pairs: some columns (or rows) of both matrices for scipy."""
    before, start = peak_gb(), time.process_time()
    rho = function(original, reconstructed)
    ours, memory = time.process_time() - start, peak_gb() - before
    start = time.process_time()
    expected = [spearmanr(a, b).statistic for a, b in pairs]
    scipys = (time.process_time() - start) * len(rho) / len(pairs)
    difference = np.abs(rho[: len(pairs)] - expected).max()
    return (
        f"{function.__name__:20s} {ours:8.1f} s, scipy's loop {scipys:8.1f} s ({scipys / ours:.1f} times), "
        f"+{memory:.2f} GB, largest difference {difference:.0e}"
    )


def measure_masked(original: np.ndarray, reconstructed: np.ndarray, share: float) -> str:
    """A line of the report: one correlation over a share of each sample's values (Fig 3c), and scipy's beside it."""
    mask = np.random.default_rng(1).random(original.shape, np.float32) < share
    before, start = peak_gb(), time.process_time()
    rho = masked_spearman(original, reconstructed, mask, n_boot=2)
    ours, memory = time.process_time() - start, peak_gb() - before
    start = time.process_time()
    expected = spearmanr(original[mask], reconstructed[mask]).statistic
    return (
        f"{mask.sum():,} masked values  {ours:8.1f} s, scipy {time.process_time() - start:8.1f} s, +{memory:.2f} GB, "
        f"difference {abs(rho.value - expected):.0e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=28_274)
    parser.add_argument("--genes", type=int, default=16_115)
    parser.add_argument("--compared", type=int, default=100, help="columns that scipy is timed on")
    size = parser.parse_args()
    original, reconstructed = generate(size.samples, size.genes)
    print(f"{size.samples:,} × {size.genes:,}, {2 * original.nbytes / 2**30:.2f} GB in two matrices")
    print(measure_masked(original, reconstructed, 0.3), flush=True)
    columns = list(zip(original.T[: size.compared], reconstructed.T[: size.compared], strict=True))
    print(measure(spearman_per_gene, original, reconstructed, columns), flush=True)
    rows = list(zip(original[: size.compared], reconstructed[: size.compared], strict=True))
    print(measure(spearman_per_sample, original, reconstructed, rows), flush=True)
