"""How sure an alignment is of its neighbours: aligned profiles drawn from RNAlign's posterior q(z|x,y)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.metrics.alignment import match_rate
from lib.metrics.bootstrap import interval
from lib.metrics.correlation import most_similar
from lib.models.rnalign import RNAlign


class _Drawing(nn.Module):
    """A network whose `encode` answers with a draw of q(z|x,y) where the original's answers with its mean."""

    def __init__(self, network: nn.Module, seed: int):
        super().__init__()
        self.network = network
        self.noise = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, sd = self.network.encode(x, y)
        return mean + sd * torch.randn(mean.shape, generator=self.noise).to(mean), sd

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return self.network.decode(z, y)


def aligned_draws(model: RNAlign, adata: ad.AnnData, n_draws: int, seed: int, **labels) -> Iterator[np.ndarray]:
    """Yield `n_draws` alignments of the samples, each decoded from its own draw of q(z|x,y): samples × genes.

    `labels`: as RNAlign.transform takes them; without, every sample is decoded as a cell line of purity 1. The
    spread is that of z given the trained network, not that of its weights. ValueError for less than one draw.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws: found {n_draws}, expected at least 1")
    drawing = copy(model)
    drawing.module_ = _Drawing(model.module_, seed)
    return (drawing.transform(adata, **labels) for _ in range(n_draws))


class Neighbourhoods(NamedTuple):
    """Neighbours in every draw: whether each line was matched, and each tumour's nearest lines in order."""

    matched: np.ndarray  # draws × lines
    nearest: np.ndarray  # draws × tumours × k, positions among the lines


def neighbourhoods(draws: Iterable[np.ndarray], obs: pd.DataFrame, k_match: int, k_lines: int) -> Neighbourhoods:
    """Match of the lines (by `k_match` tumours) and the `k_lines` nearest lines of the tumours, in each draw.

    draws: matrices samples × genes; obs: sample_type, cancer_type of the samples. ValueError for fewer than `k_match`
    tumours or `k_lines` lines.
    """
    is_line = (obs["sample_type"] == "cell line").to_numpy()
    types = obs["cancer_type"].to_numpy(dtype=str)
    matched, nearest = [], []
    for X in draws:
        called = match_rate(X[~is_line], types[~is_line], X[is_line], types[is_line], k_match).predicted
        matched.append(called == types[is_line])
        nearest.append(most_similar(X[~is_line], X[is_line], k_lines)[0])
    return Neighbourhoods(np.array(matched), np.array(nearest))


def staying(nearest: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the draws in which each line of `reference` (tumours × k) is among the tumour's k nearest: same shape.

    nearest: draws × tumours × k, positions among the same lines. ValueError for unlike shapes.
    """
    if nearest.ndim != 3 or nearest.shape[1:] != reference.shape:
        raise ValueError(
            f"nearest: found shape {nearest.shape}, expected draws × {' × '.join(map(str, reference.shape))}"
        )
    return np.mean([(draw[:, :, None] == reference[:, None, :]).any(axis=1) for draw in nearest], axis=0)


def summary(found: Neighbourhoods, mean: Neighbourhoods, n_boot: int, seed: int) -> pd.DataFrame:
    """Match and neighbours over the draws, in percent, beside those at the mean of z.

    found: of the draws; mean: of the one alignment decoded from the mean of z.
    Columns quantity, at_mean (of z), over_draws (their mean), draws_low, draws_high (95 % of the draws),
    samples_low, samples_high (bootstrap over lines or tumours), n (of these), draws.
    """
    overlap = (found.nearest[..., None] == mean.nearest[0][:, None, :]).any(axis=2).mean(axis=2)
    k = mean.nearest.shape[2]
    rows = [
        ("match, share of all lines", found.matched, mean.matched.mean()),
        ("lines matched or not as at the mean of z", found.matched == mean.matched, 1),
        ("tumours whose nearest line is that at the mean of z", found.nearest[..., 0] == mean.nearest[..., 0], 1),
        (f"of a tumour's {k} nearest lines at the mean of z, those that stay", overlap, 1),
    ]
    return pd.DataFrame([_summary_row(*row, n_boot, seed) for row in rows])


def _summary_row(quantity: str, values: np.ndarray, at_mean: float, n_boot: int, seed: int) -> dict:
    """values: draws × samples (lines or tumours)."""
    over_samples = interval(values.mean(axis=0), np.mean, n_boot, seed)
    low, high = np.percentile(values.mean(axis=1), [2.5, 97.5])
    percent = {
        "at_mean": at_mean,
        "over_draws": over_samples.value,
        "draws_low": low,
        "draws_high": high,
        "samples_low": over_samples.low,
        "samples_high": over_samples.high,
    }
    percent = {name: 100 * float(value) for name, value in percent.items()}
    return {"quantity": quantity} | percent | {"n": over_samples.n, "draws": len(values)}


def match_by_type(found: Neighbourhoods, mean: Neighbourhoods, line_types) -> pd.DataFrame:
    """Match of each cancer type that has lines: at the mean of z, and 95 % of the draws; in percent.

    Columns cancer_type, n (lines), match, low, high, draws.
    """
    names, n = np.unique(np.asarray(line_types, dtype=str), return_counts=True)
    low, high = np.percentile(_per_type(found.matched, line_types), [2.5, 97.5], axis=0)
    match = _per_type(mean.matched, line_types)[0]
    values = {"match": 100 * match, "low": 100 * low, "high": 100 * high, "draws": len(found.matched)}
    return pd.DataFrame({"cancer_type": names, "n": n} | values)


def _per_type(matched: np.ndarray, line_types) -> np.ndarray:
    """Share of each type's lines that is matched, in each draw: draws × types, sorted."""
    types = np.asarray(line_types, dtype=str)
    return np.stack([matched[:, types == name].mean(axis=1) for name in np.unique(types)], axis=1)
