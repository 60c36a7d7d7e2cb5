"""Drug response learned on cell lines and adapted to tumours by maximum mean discrepancy (paper A, appendix A.10)."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from lib.models import training

PRETRAINING = 0.5  # share of the epochs on lines alone
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median squared distance


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples of vectors: mean of five Gaussian kernels, V-statistic.

    x: n × p, y: m × p. Returns a 0-d tensor >= 0, 0 for equal samples. The kernels' widths are multiples of the median
    squared distance over both samples. Source: Gretton et al. 2012.
    """
    both = torch.cat([x, y])
    squared = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist").square()
    width = squared.detach().median().clamp(min=1e-6)
    kernel = torch.stack([torch.exp(-squared / (scale * width)) for scale in BANDWIDTHS]).mean(0)
    n = len(x)
    return (kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()).clamp(min=0)


class ResponseNetwork(nn.Module):
    """Encoder to a latent space, and a linear head for every drug."""

    def __init__(self, genes: int, drugs: int, hidden: int, latent: int, dropout: float):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(genes, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, latent)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(latent, drugs))


class DrugTransfer(BaseEstimator):
    """A network for the response to all drugs, pre-trained on lines and adapted to tumours without labels.

    The first half of the epochs learns the response of lines alone. In the second half every batch of lines comes with
    as many tumours, and their latent representations are drawn together: + mmd_weight · MMD². `mmd_weight=0`: never.
    X is taken as it is: give z-scores or aligned profiles. Runs on the CPU; the same seed gives the same weights. After
    `fit`: module_, history_ (loss of each epoch), centre_ and scale_ of each drug's response.
    """

    def __init__(
        self,
        hidden: int = 64,
        latent: int = 32,
        dropout: float = 0.3,
        lr: float = 2e-3,
        weight_decay: float = 1e-3,
        batch_size: int = 64,
        epochs: int = 40,
        mmd_weight: float = 1.0,
        seed: int = 0,
    ):
        self.hidden = hidden
        self.latent = latent
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.mmd_weight = mmd_weight
        self.seed = seed

    def fit(self, lines: np.ndarray, response: np.ndarray, tumours: np.ndarray) -> DrugTransfer:
        """lines: n × genes; response: n × drugs, NaN where not measured; tumours: m × genes, without labels.

        ValueError for unlike shapes or a drug that no line was measured for.
        """
        response = np.asarray(response, float)
        if len(lines) != len(response) or lines.shape[1] != tumours.shape[1]:
            found = f"lines {lines.shape}, response {response.shape}, tumours {tumours.shape}"
            raise ValueError(f"found {found}, expected as many rows of lines as of response, and the same genes")
        if not np.isfinite(response).any(axis=0).all():
            raise ValueError("response: found a drug without any measured line, expected some for each")
        self.centre_, self.scale_ = np.nanmean(response, axis=0), np.nanstd(response, axis=0)
        self.scale_[self.scale_ == 0] = 1.0
        with training.seeded(self.seed):
            self.module_ = ResponseNetwork(lines.shape[1], response.shape[1], self.hidden, self.latent, self.dropout)
            scaled = (response - self.centre_) / self.scale_
            self.history_ = self._train(
                *(torch.from_numpy(np.asarray(v, np.float32)) for v in (lines, scaled, tumours))
            )
        return self

    def _train(self, lines: Tensor, response: Tensor, tumours: Tensor) -> list[float]:
        optimiser = torch.optim.Adam(self.module_.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        history = []
        self.module_.train()
        for epoch in range(self.epochs):
            adapting = self.mmd_weight > 0 and epoch >= PRETRAINING * self.epochs
            losses = []
            for batch in torch.randperm(len(lines)).split(self.batch_size):
                others = tumours[torch.randint(len(tumours), (len(batch),))] if adapting else None
                loss = self._loss(lines[batch], response[batch], others)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
            history.append(float(np.mean(losses)))
        self.module_.eval()
        return history

    def _loss(self, lines: Tensor, response: Tensor, tumours: Tensor | None) -> Tensor:
        """Mean squared error over measured responses, + mmd_weight · MMD² where tumours are given."""
        z, measured = self.module_.encoder(lines), ~response.isnan()
        error = torch.where(measured, self.module_.head(z) - response.nan_to_num(0.0), 0.0)
        loss = error.square().sum() / measured.sum().clamp(min=1)
        return loss if tumours is None else loss + self.mmd_weight * mmd(z, self.module_.encoder(tumours))

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """Response of every sample (n × genes) to every drug, in the units of `fit`."""
        check_is_fitted(self, "module_")
        z = self.module_.encoder(torch.from_numpy(np.asarray(X, np.float32)))
        return self.centre_ + self.scale_ * self.module_.head(z).numpy().astype(float)
