"""What puts correlations of a sample with its reconstruction below zero: the sigmoid, or the sampled code?

The published distribution has a mode below zero that the text does not mention (paper B, Fig 3b). Two things are
suspected, and varied one by one: a decoder that ends in a sigmoid, though half of all z-scores are negative, and a code
that is sampled when it is decoded. Sparse samples, in which many genes have no reads, may matter, too.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy.stats import gaussian_kde

from lib.metrics.bootstrap import share
from lib.metrics.classification import paired_shares
from lib.metrics.reconstruction import spearman_per_sample
from lib.metrics.repeats import FEWEST, SHARE, over_repeats
from lib.models import training
from lib.models.tissue_vae import TissueVAE, random_mask

LOST = (0.0, 0.25, 0.5, 0.75)  # shares of each sample's genes that lose their reads
LATENTS = ("sampled", "mean")
MARGIN = 0.01  # a difference in the share of samples that would not matter
BLOCK = 2048  # samples decoded at once


def by_output(
    vae: TissueVAE, test: ad.AnnData, seed: int, shares: tuple[float, ...] = LOST
) -> dict[tuple[float, str], np.ndarray]:
    """Spearman correlation per sample for every share of lost genes and way to decode.

    test: z-scores, var mean and sd on the log2(TPM+1) scale (of other data only the share 0 means anything).
    """
    found = {}
    for lost in shares:
        data = with_lost_genes(test, lost, seed)
        for latent in LATENTS:
            found[lost, latent] = spearman_per_sample(data.X, decoded(vae, data, latent, seed))
    return found


def with_lost_genes(data: ad.AnnData, share: float, seed: int) -> ad.AnnData:
    """`data` (standardised) as if a random share of each sample's genes had no reads: 0 on the log2(TPM+1) scale."""
    mean, sd = (data.var[c].to_numpy(np.float32) for c in ("mean", "sd"))
    nothing = np.where(sd > 0, -mean / np.where(sd > 0, sd, 1), 0).astype(np.float32)
    return ad.AnnData(np.where(random_mask(*data.shape, share, seed), nothing, data.X), obs=data.obs, var=data.var)


@torch.no_grad()
def decoded(vae: TissueVAE, data: ad.AnnData, latent: str, seed: int) -> np.ndarray:
    """Profiles decoded from a "sampled" code or from its "mean", whatever the variant does: samples × genes."""
    module, X = vae.module_.eval(), np.asarray(data.X, np.float32)
    blocks = []
    with training.seeded(seed):
        for start in range(0, len(X), BLOCK):
            mean, log_var = module.encode(torch.from_numpy(X[start : start + BLOCK]))
            blocks.append(module.decode(module.sample(mean, log_var) if latent == "sampled" else mean).numpy())
    return np.concatenate(blocks)


def below_zero(per_sample: pd.DataFrame) -> pd.DataFrame:
    """Share of samples whose correlation is below zero, and where the density peaks there, if it does.

    per_sample: one column of correlations per model. A peak is a local maximum of a Gaussian kernel density.
    """
    grid = np.linspace(-1, 1, 401)
    rows = []
    for name, rho in per_sample.items():
        rho = rho.dropna()
        below = share(rho < 0)
        density = gaussian_kde(rho)(grid) if rho.nunique() > 1 else np.zeros_like(grid)
        peaks = np.flatnonzero((density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])) + 1
        low = peaks[(grid[peaks] < 0) & (density[peaks] > 0.05 * density.max())]
        peak = f"{grid[low[density[low].argmax()]]:.2f}" if len(low) else "none"
        row = {"model": name, "share_below_zero": below.value, "low": below.low, "high": below.high}
        rows.append(row | {"peak_below_zero": peak, "median": rho.median(), "n": below.n})
    return pd.DataFrame(rows)


def below_zero_in_words(table: pd.DataFrame, profiles: str) -> str:
    """`below_zero` of one set of profiles; what causes it is asked by `contrasts`."""
    said = []
    for row in table.itertuples():
        peak = "no peak there" if row.peak_below_zero == "none" else f"a peak at {row.peak_below_zero}"
        said.append(f"{row.model} {row.share_below_zero:.1%} ({row.low:.1%} to {row.high:.1%}), {peak}")
    n = table["n"].iloc[0]
    return f"Test samples ({profiles}, n = {n:,}) correlated below zero with their reconstruction: {'; '.join(said)}."


def shares(models: dict[str, dict]) -> pd.DataFrame:
    """Share of samples below zero, per share of lost genes, output and latent; models: output -> `by_output`."""
    rows = []
    for output, found in models.items():
        for (lost, latent), rho in found.items():
            rho = rho[~np.isnan(rho)]
            row = {"lost": lost, "output": output, "latent": latent, "median_rho": float(np.median(rho))}
            rows.append(row | share(rho < 0)._asdict())
    return pd.DataFrame(rows).sort_values("lost", kind="stable")


def contrasts(models: dict[str, dict], n_boot: int, seed: int) -> pd.DataFrame:
    """Sigmoid less linear at each latent, sampled less mean at each output: shares below zero, paired by sample."""
    rows = []
    for lost in dict.fromkeys(lost for lost, _ in models["sigmoid"]):
        pairs = {f"sigmoid − linear, code {z}": (("sigmoid", z), ("linear", z)) for z in LATENTS}
        pairs |= {f"sampled − mean, {o} output": ((o, "sampled"), (o, "mean")) for o in ("sigmoid", "linear")}
        for contrast, sides in pairs.items():
            with_it, without = (_below(models[output][lost, latent]) for output, latent in sides)
            rows.append({"lost": lost, "contrast": contrast} | paired_shares(with_it, without, n_boot, seed)._asdict())
    return pd.DataFrame(rows)


def _below(rho: np.ndarray) -> np.ndarray:
    """1 below zero, 0 not, NaN where there is no correlation."""
    return np.where(np.isnan(rho), np.nan, rho < 0)


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over seeds; from three seeds on the interval is over the seeds, with fewer over the samples."""
    rows = []
    for key, each in table.groupby(by, sort=False):
        value, low, high, n = each[["value", "low", "high", "n"]].mean()
        if each["seed"].nunique() >= FEWEST:
            bounds = SHARE if "latent" in by else None  # differences may be negative
            value, low, high = over_repeats(each["value"], bounds, n)[:3]
        row = dict(zip(by, key, strict=True)) | {"value": value, "low": low, "high": high, "n": round(n)}
        row |= {"median_rho": each["median_rho"].mean()} if "median_rho" in each else {"verdict": verdict(low, high)}
        rows.append(row | {"seeds": each["seed"].nunique()})
    return pd.DataFrame(rows)


def verdict(low: float, high: float) -> str:
    """Whether it puts more samples below zero; "no": by less than `MARGIN`, if at all."""
    return "yes" if low > 0 else "no" if high < MARGIN else "not distinguishable"


def in_words(contrasts: pd.DataFrame) -> str:
    """For the sigmoid and for sampling: whether they put samples below zero, at every share of lost genes."""
    seeds = contrasts["seeds"].max()
    said = [
        f"Means of {seeds} trainings each, intervals over them; points of the share of samples below zero.\n"
        if seeds >= FEWEST
        else "One training each: what follows is of these trainings, by intervals over samples. Another may differ.\n"
    ]
    for contrast, rows in contrasts.groupby("contrast", sort=False):
        parts = [
            f"{100 * r.lost:.0f} %: {r.verdict} ({100 * r.value:+.1f}, {100 * r.low:+.1f} to {100 * r.high:+.1f})"
            for r in rows.itertuples()
        ]
        said.append(f"* {contrast}, by share of genes lost: {'; '.join(parts)}.")
    return "\n".join(said)
