"""Celligner beside the authors' Python package on the same generated data: wall time, peak memory, agreement.

    python benchmarks/celligner_peer.py --peer /path/to/peer/bin/python

The peer's Python needs `celligner` (broadinstitute), its fork of `mnnpy`, `louvain`, and R with limma by `rpy2`. Each
of the two runs in a process of its own, single-threaded; the peak is that of the process, input included. Both are
given the same data, and to compare results ours runs once more with the original's clusters: with the original's
choices (see `Celligner`), where the matrices should be equal, and with our defaults.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TYPES = 12
AS_PUBLISHED = {"order": "abs", "integer_expression": True, "intercept": False}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", help="Python interpreter that can import the authors' celligner")
    parser.add_argument("--tumours", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=250)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", choices=RUNS, help="one part, in a process of its own (used by this script)")
    parser.add_argument("--folder", type=Path, help="where --run reads and writes")
    arguments = parser.parse_args()
    if arguments.run:
        RUNS[arguments.run](arguments.folder)
        return
    print(f"{arguments.tumours:,} tumours + {arguments.lines:,} lines × {arguments.genes:,} genes, float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments)
        run("ours", sys.executable, folder)
        if arguments.peer is None:
            print("original    not run: give its Python by --peer")
            return
        run("original", arguments.peer, folder)
        run("given", sys.executable, folder)


def write_data(folder, arguments):
    from celligner_memory import generate

    rng = np.random.default_rng(arguments.seed)
    programmes = rng.normal(0, 1.5, (TYPES, arguments.genes)).astype(np.float32)
    stroma = (rng.normal(0, 0.5, (6, arguments.genes)) * np.linspace(2, 1, 6)[:, None]).astype(np.float32)
    tumours = generate(arguments.tumours, programmes, stroma, rng)
    lines = generate(arguments.lines, programmes, 0 * stroma, rng)
    np.savez(folder / "data.npz", tumours=tumours, lines=lines)


def run(part, python, folder):
    """One part in its own process; its output is shown."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [python, __file__, "--run", part, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | single, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        sys.exit(f"{part}: {python} failed: {reason}")
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith(part)))


def report(part, seconds, clusters):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    n = " and ".join(str(len(set(labels))) for labels in clusters)
    print(f"{part:<11} {seconds:.1f} s, peak {peak:.2f} GB; clusters of tumours and lines: {n} ({TYPES} types planted)")


def ours(folder):
    from lib.models.celligner import Celligner

    data, start = np.load(folder / "data.npz"), time.perf_counter()
    model = Celligner()
    model.fit_transform(data["tumours"], data["lines"])
    report("ours", time.perf_counter() - start, (model.tumour_clusters_, model.line_clusters_))


def original(folder):
    """The authors' package as it is, but for the argument of AnnData that its newer versions no longer take."""
    import celligner
    import pandas as pd
    from anndata import AnnData

    celligner.AnnData = lambda X, dtype: AnnData(X.astype(dtype))
    data = np.load(folder / "data.npz")
    genes = [f"g{i}" for i in range(data["lines"].shape[1])]
    tumours, lines = (
        pd.DataFrame(data[name], [f"{name}{i}" for i in range(len(data[name]))], genes) for name in ("tumours", "lines")
    )
    start = time.perf_counter()
    model = celligner.Celligner().fit(lines).transform(tumours)
    seconds = time.perf_counter() - start
    clusters = {"tumour_clusters": np.asarray(model.target_clusters), "line_clusters": np.asarray(model.ref_clusters)}
    np.savez(folder / "original.npz", aligned=model.combined_output.loc[[*tumours.index, *lines.index]], **clusters)
    report("original", seconds, clusters.values())


def given(folder):
    """Ours with the original's clusters, compared with its result."""
    from lib.models.celligner import Celligner

    data, peer = np.load(folder / "data.npz"), np.load(folder / "original.npz")
    clusters = peer["tumour_clusters"], peer["line_clusters"]
    for name, choices in (("its choices", AS_PUBLISHED), ("our defaults", {})):
        pair = (data[kind].astype(np.float64) for kind in ("tumours", "lines"))
        aligned = np.concatenate(Celligner(**choices).fit_transform(*pair, *clusters))
        difference = np.abs(aligned - peer["aligned"])
        r, spread = np.corrcoef(aligned.ravel(), peer["aligned"].ravel())[0, 1], peer["aligned"].std()
        largest, median = difference.max(), np.median(difference)
        print(f"given       its clusters and {name}: largest difference {largest:.2g}, median {median:.2g}")
        print(f"given       in values of standard deviation {spread:.2g}; r = {r:.6f}")


RUNS = {"ours": ours, "original": original, "given": given}

if __name__ == "__main__":
    main()
