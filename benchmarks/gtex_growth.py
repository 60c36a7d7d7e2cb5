"""Growth and donor leakage at the scale of GTEx v8: every sample, the 97 genes of a public extract.

    python benchmarks/gtex_growth.py --data DIR             # gtex_v8_97genes_tpm.gct.gz and gtex_v8_samples.csv
    python benchmarks/gtex_growth.py --data DIR --epochs 5  # quicker

Balanced accuracy of the tissue VAE and of logistic regression on the same test samples, for nested shares of the
training samples, split by sample (a donor may be on both sides) and by donor. Then the gain per doubling and its
curvature with their intervals, and the gap between the splits, donors resampled. Printed, and written to
benchmarks/results/gtex_growth.md. The luck of one split and of one training is not in the intervals of a single seed:
`--seeds 3` repeats all, and the intervals of growth are then over the seeds.
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
from lib.files import replacing
from lib.metrics.classification import balanced_accuracy, unpaired_difference
from lib.metrics.growth import curvature, per_doubling
from lib.models.tissue_vae import TissueVAE
from lib.tissue_pool import z_scores

OUT = Path(__file__).parent / "results" / "gtex_growth.md"
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


def scores(gtex, split: str, epochs: int, seed: int) -> tuple[list[dict], dict[str, tuple]]:
    """Balanced accuracy of both methods for every share of the training samples; (truth, calls, donors) with all."""
    part = gtex.obs[f"split_{split}"].to_numpy(dtype=str)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(part == "train"))
    rows, tested = [], {}
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
            tested[method] = (truth, called, test.obs["donor"].astype(str))
    return rows, tested


def growth(table: pd.DataFrame) -> pd.DataFrame:
    """Gain per doubling and its curvature, per method and split, with intervals."""
    rows = []
    for (split, method), each in table.groupby(["split", "method"], sort=False):
        trainings = each["samples"], each["value"], each["seed"]
        row = {"split": split, "method": method, "trainings": len(each)}
        for name, found in (("per_doubling", per_doubling(*trainings)), ("curvature", curvature(*trainings))):
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def write(about: str, tables: dict[str, pd.DataFrame], out: Path) -> None:
    """The tables as Markdown, printed and written."""
    shown = {title: table.to_markdown(index=False, floatfmt=".4f", intfmt=",") for title, table in tables.items()}
    parts = [about, *(f"**{title}**\n\n{text}" for title, text in shown.items())]
    print("\n\n".join(parts))
    out.parent.mkdir(exist_ok=True)
    with replacing(out) as unfinished:
        unfinished.write_text("# Growth and donor leakage, GTEx v8\n\n" + "\n\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {' and '.join(FILES)}")
    parser.add_argument("--epochs", type=int, default=10, help="of the tissue VAE on all samples; more on fewer")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("RNATLAS_PROGRESS", os.devnull)
    warnings.filterwarnings("ignore", category=UserWarning)
    rows, gaps, about = [], [], ""
    for seed in range(42, 42 + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            gtex = compendium(arguments.data, Path(folder), seed)
        about = (
            f"{gtex.n_obs:,} samples, {gtex.obs['donor'].nunique():,} donors, {gtex.n_vars} genes, "
            f"{gtex.obs['tissue'].nunique()} tissues; the VAE trained for {arguments.epochs} epochs on all samples, "
            f"{arguments.seeds} seed(s). `python benchmarks/gtex_growth.py --data DIR "
            f"--epochs {arguments.epochs} --seeds {arguments.seeds}`"
        )
        tested = {}
        for split in SPLITS:
            found, tested[split] = scores(gtex, split, arguments.epochs, seed)
            rows += [row | {"seed": seed} for row in found]
        for method in tested["sample"]:
            gap = unpaired_difference(tested["sample"][method], tested["study"][method], seed=seed)
            gaps.append({"seed": seed, "method": method, "by_sample_minus_by_donor": gap.value, **gap._asdict()})
    table, gap_table = pd.DataFrame(rows), pd.DataFrame(gaps).drop(columns="value")
    titles = {"Balanced accuracy": table, "Gain per doubling, and its change from doubling to doubling": growth(table)}
    write(about, titles | {"Gap between the splits with all samples; donors resampled": gap_table}, OUT)


if __name__ == "__main__":
    main()
