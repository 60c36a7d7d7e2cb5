"""Growth and donor leakage at the scale of GTEx v8: every sample, the 97 genes of a public extract.

    python benchmarks/gtex_growth.py --data DIR             # gtex_v8_97genes_tpm.gct.gz and gtex_v8_samples.csv
    python benchmarks/gtex_growth.py --data DIR --epochs 5  # quicker

Balanced accuracy of the tissue VAE and of logistic regression on the same test samples, for nested shares of the
training samples, split by sample (a donor may be on both sides) and by donor. Then the gain per doubling with its
interval, and the gap between the splits. The luck of one split is not in the intervals: `--seeds 3` repeats all.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from lib import curation
from lib.metrics.classification import balanced_accuracy
from lib.metrics.growth import growth
from lib.models.tissue_vae import TissueVAE
from lib.scaling import z_scores

FILES = ("gtex_v8_97genes_tpm.gct.gz", "gtex_v8_samples.csv")
SHARES = (0.03, 0.1, 0.3, 1.0)
SPLITS = {"sample": "by sample (donors on both sides)", "study": "by donor"}


def compendium(data: Path, folder: Path, seed: int):
    """All labelled samples, log2(TPM+1), with both splits; tissues of fewer than 50 samples fall out."""
    columns = {"tissue": "tissue", "donor": "donor"}
    file, samples = (data / name for name in FILES)
    settings = {"cap": None, "gene_filter": "corrected", "min_samples": 50, "test_fraction": 0.2, "seed": seed}
    curation.curate_tissue_file(
        folder / "gtex.h5ad", file=file, samples=samples, columns=columns, unit="TPM", **settings
    )
    return curation.load(folder / "gtex.h5ad")


def scores(gtex, split: str, epochs: int, seed: int) -> list[dict]:
    """Balanced accuracy of both methods for every share of the training samples."""
    part = gtex.obs[f"split_{split}"].to_numpy(dtype=str)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(part == "train"))
    rows = []
    for share in SHARES:
        chosen = np.sort(order[: round(share * len(order))])
        own = curation.gene_statistics(gtex.X, np.isin(np.arange(gtex.n_obs), chosen))
        rows_of = [chosen, *(np.flatnonzero(part == name) for name in ("validation", "test"))]
        train, validation, test = (z_scores(gtex, at, own) for at in rows_of)
        truth = test.obs["tissue"].to_numpy(dtype=str)
        model = TissueVAE(latent=32, max_epochs=int(epochs / share**0.5), seed=seed, device="cpu")
        regression = LogisticRegression(max_iter=300).fit(train.X, train.obs["tissue"].astype(str))
        calls = {"tissue VAE": model.fit(train, validation=validation).predict(test)}
        calls["logistic regression"] = regression.predict(test.X)
        for method, called in calls.items():
            value = balanced_accuracy(truth, called, seed=seed)
            rows.append({"split": SPLITS[split], "method": method, "samples": len(chosen), **value._asdict()})
    return rows


def report(table: pd.DataFrame) -> None:
    """The scores, the gain per doubling, and the gap between the splits."""
    print(table.to_string(index=False, float_format="{:.4f}".format))
    for (split, method), rows in table.groupby(["split", "method"]):
        line = growth(rows["samples"], rows["value"])
        gain = f"{line.per_doubling:+.4f} per doubling ({line.low:+.4f} to {line.high:+.4f})"
        print(f"{method}, {split}: {gain}, {line.points} trainings")
    full = table[table["samples"] == table.groupby("split")["samples"].transform("max")]
    for method, rows in full.groupby("method"):
        mean = rows.groupby("split").mean(numeric_only=True)
        leaky, clean = (mean.loc[SPLITS[s]] for s in ("sample", "study"))
        width = np.hypot(leaky["high"] - leaky["low"], clean["high"] - clean["low"]) / 2
        gap = leaky["value"] - clean["value"]
        print(f"{method}, by sample − by donor: {gap:+.4f} ({gap - width:+.4f} to {gap + width:+.4f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {' and '.join(FILES)}")
    parser.add_argument("--epochs", type=int, default=10, help="of the tissue VAE on all samples; more on fewer")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RNATLAS_PROGRESS", os.devnull)
    warnings.filterwarnings("ignore", category=UserWarning)
    rows = []
    for seed in range(42, 42 + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            gtex = compendium(arguments.data, Path(folder), seed)
        print(f"seed {seed}: {gtex.n_obs:,} samples, {gtex.obs['donor'].nunique():,} donors, {gtex.n_vars} genes, "
              f"{gtex.obs['tissue'].nunique()} tissues", flush=True)  # fmt: skip
        for split in SPLITS:
            rows += [row | {"seed": seed} for row in scores(gtex, split, arguments.epochs, seed)]
    report(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
