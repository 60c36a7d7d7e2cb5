"""Wall time and peak memory of Celligner on generated data of the published size.

    python benchmarks/celligner_memory.py               # 12,236 tumours + 1,249 lines × 19,000 genes, float32
    python benchmarks/celligner_memory.py --scale 0.2   # a fifth of the samples and genes

The peak is that of the whole process, input included. The original documents 50 to 60 GB.
"""

import argparse
import resource
import time

import numpy as np

from lib.models.celligner import Celligner

TUMOURS, LINES, GENES, TYPES = 12_236, 1_249, 19_000, 30


def generate(n_samples, programmes, stroma, rng):
    """float32 samples × genes, row by row: a programme per type, a share of the stroma programmes, noise."""
    X = np.empty((n_samples, programmes.shape[1]), dtype=np.float32)
    for row in X:
        rng.standard_normal(out=row, dtype=np.float32)
        row += programmes[rng.integers(len(programmes))]
        row += rng.normal(0, 1, len(stroma)).astype(np.float32) @ stroma
    return X


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the published samples and genes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    n_tumours, n_lines, n_genes = (round(size * arguments.scale) for size in (TUMOURS, LINES, GENES))
    rng = np.random.default_rng(arguments.seed)
    programmes = rng.normal(0, 1, (TYPES, n_genes)).astype(np.float32)
    stroma = (rng.normal(0, 0.3, (6, n_genes)) * np.linspace(2, 1, 6)[:, None]).astype(np.float32)
    tumours = generate(n_tumours, programmes, stroma, rng)
    lines = generate(n_lines, programmes, 0 * stroma, rng)
    before, start = peak_gb(), time.perf_counter()
    model = Celligner(seed=arguments.seed)
    aligned, _ = model.fit_transform(tumours, lines)
    seconds = time.perf_counter() - start
    n_clusters = [len(set(labels)) for labels in (model.tumour_clusters_, model.line_clusters_)]
    recovered = np.linalg.svd(model.components_.T @ np.linalg.qr(stroma.T)[0], compute_uv=False).min()
    print(f"size        {n_tumours:,} tumours + {n_lines:,} lines × {n_genes:,} genes, float32")
    print(f"wall time   {seconds:,.0f} s")
    print(f"peak memory {peak_gb():.2f} GB, of which {before:.2f} GB before the fit")
    print(f"clusters    {n_clusters[0]} of tumours, {n_clusters[1]} of lines ({TYPES} types planted)")
    print(f"matched on  {len(model.genes_):,} genes, {len(model.pairs_):,} pairs")
    print(f"components  {recovered:.4f} = smallest cosine between the components and the planted stroma")
    print(f"result      {'finite' if np.isfinite(aligned).all() else 'NOT FINITE'}, {aligned.dtype}")


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
