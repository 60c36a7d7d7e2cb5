"""Peak memory and time of reading a whole expression file in chunks, per format, at a size given on the
command line.

python benchmarks/readers_memory.py --samples 20000 --genes 16000 --formats archs4_h5 flexynesis_h5

Writes the file (negative-binomial counts, seeded) to a temporary folder, reads it in a process of its own,
and reports that process's peak resident memory. Exits with 1 if a format needs more than --limit GB.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from lib.readers import open_expression

SUFFIX = {
    "archs4_h5": "h5",
    "flexynesis_h5": "h5",
    "h5ad": "h5ad",
    "xena_tsv": "tsv",
    "depmap_csv": "csv",
    "gtex_gct": "gct",
}


def counts(n_samples: int, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Samples × genes, over-dispersed, with about a third of zeros."""
    mean = np.exp(rng.normal(2.0, 2.5, n_genes))
    return rng.poisson(mean * rng.gamma(2.0, 0.5, (n_samples, n_genes))).astype(np.uint32)


def write_archs4(path: Path, n_samples: int, n_genes: int, rng) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data/expression",
            (n_genes, n_samples),
            np.uint32,
            chunks=(min(n_genes, 2000), min(n_samples, 50)),
        )
        for start in range(0, n_samples, 500):
            data[:, start : start + 500] = counts(min(500, n_samples - start), n_genes, rng).T
        file["meta/genes/symbol"] = [f"GENE{i}" for i in range(n_genes)]
        file["meta/genes/ensembl_gene"] = [f"ENSG{i:011d}" for i in range(n_genes)]
        file["meta/samples/geo_accession"] = [f"GSM{i}" for i in range(n_samples)]
        file["meta/samples/title"] = [f"liver replicate {i}" for i in range(n_samples)]


def write_flexynesis(path: Path, n_samples: int, n_genes: int, rng) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("expression", (n_samples, n_genes), np.float32, chunks=(1, n_genes))
        for start in range(0, n_samples, 500):
            data[start : start + 500] = np.log2(counts(min(500, n_samples - start), n_genes, rng) + 1.5)
        file["gene_symbols"] = [f"GENE{i}" for i in range(n_genes)]
        file["sample_ids"] = [f"GSM{i}" for i in range(n_samples)]


def write_h5ad(path: Path, n_samples: int, n_genes: int, rng) -> None:
    import anndata as ad
    import pandas as pd

    names = (
        pd.DataFrame(index=[f"GSM{i}" for i in range(n_samples)]),
        pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)]),
    )
    ad.AnnData(obs=names[0], var=names[1], uns={"unit": "counts"}).write_h5ad(path)
    with h5py.File(path, "a") as file:
        file.pop("X", None)
        data = file.create_dataset("X", (n_samples, n_genes), np.float32, chunks=(1, n_genes))
        data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n_samples, 500):
            data[start : start + 500] = counts(min(500, n_samples - start), n_genes, rng)


def write_text(path: Path, n_samples: int, n_genes: int, rng) -> None:
    samples, genes = (
        [f"GSM{i}" for i in range(n_samples)],
        [f"GENE{i} (ENSG{i:011d})" for i in range(n_genes)],
    )
    by_gene, sep = path.suffix != ".csv", "," if path.suffix == ".csv" else "\t"
    rows, columns = (genes, samples) if by_gene else (samples, genes)
    with open(path, "w") as file:
        if path.suffix == ".gct":
            file.write(f"#1.2\n{n_genes}\t{n_samples}\nName\tDescription\t" + "\t".join(columns) + "\n")
        else:
            file.write(sep.join(["sample" if by_gene else "", *columns]) + "\n")
        for start in range(0, len(rows), 200):
            block = np.log2(counts(min(200, len(rows) - start), len(columns), rng) + 1.0).clip(max=19)
            for label, values in zip(rows[start : start + 200], block, strict=True):
                label = "\t".join(label.strip(")").split(" (")[::-1]) if path.suffix == ".gct" else label
                file.write(sep.join([label, *np.char.mod("%.4f", values)]) + "\n")


WRITERS = {"archs4_h5": write_archs4, "flexynesis_h5": write_flexynesis, "h5ad": write_h5ad}


def read(path: Path, format: str) -> None:
    """Reads every chunk and prints seconds and this process's peak memory in GB."""
    start, total = time.perf_counter(), 0
    with open_expression(path, format, cache=path.parent) as expression:
        opened = time.perf_counter() - start
        for chunk in expression.chunks(1024):
            total += chunk.n_obs
    if total != len(expression.samples):
        raise RuntimeError(f"{path}: read {total} samples, expected {len(expression.samples)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{opened:.1f} {time.perf_counter() - start:.1f} {peak:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=16000)
    parser.add_argument("--formats", nargs="+", choices=sorted(SUFFIX), default=sorted(SUFFIX))
    parser.add_argument("--limit", type=float, default=1.5, help="GB of resident memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", nargs=2, metavar=("PATH", "FORMAT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(Path(args.read[0]), args.read[1])
        return 0
    gigabytes = args.samples * args.genes * 4 / 1e9
    print(f"{args.samples:,} samples × {args.genes:,} genes = {gigabytes:.2f} GB as float32")
    print(f"{'format':15} {'file GB':>8} {'open s':>8} {'total s':>8} {'peak GB':>8}")
    too_much = 0
    for format in args.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"expression.{SUFFIX[format]}"
            WRITERS.get(format, write_text)(path, args.samples, args.genes, np.random.default_rng(args.seed))
            command = [sys.executable, __file__, "--read", str(path), format]
            opened, seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            print(f"{format:15} {path.stat().st_size / 1e9:8.2f} {opened:>8} {seconds:>8} {peak:>8}", flush=True)
            too_much += float(peak) > args.limit
    return int(too_much > 0)


if __name__ == "__main__":
    sys.exit(main())
