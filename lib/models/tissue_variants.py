"""Tissue VAEs that differ from lib.models.tissue_vae in one part: for ablations and comparisons only.

They train, resume and score as `TissueVAE` does; they are not saved.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lib.models.tissue_vae import SupervisedVAE, TissueVAE, _cross_entropy

COHORTS = 4  # pseudo-cohorts in a batch; one would be undone by the batch normalisation


class _LinearOutput(SupervisedVAE):
    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


class LinearOutput(TissueVAE):
    """The decoder's last layer is linear, whatever the variant: `faithful` without its sigmoid."""

    def _network(self) -> SupervisedVAE:
        return _LinearOutput(len(self.genes_), len(self.classes_), self.get_params())


class _NoDecoder(SupervisedVAE):
    def __init__(self, genes: int, classes: int, settings: dict):
        super().__init__(genes, classes, settings)
        del self.decoder

    def forward(self, x: Tensor, label: Tensor, progress: float) -> dict[str, Tensor]:
        """Cross-entropy of a batch; no reconstruction, hence no error of one."""
        entropy = _cross_entropy(self.head(self.encode(self._corrupt(x) if self.training else x)[0]), label)
        return {"loss": entropy, "mse": torch.zeros_like(entropy), "cross_entropy": entropy}


class NoDecoder(TissueVAE):
    """The encoder's mean and the head as a plain classifier: same layers, size, optimiser and early stopping."""

    def _network(self) -> SupervisedVAE:
        return _NoDecoder(len(self.genes_), len(self.classes_), self.get_params())


class _CohortJitter(SupervisedVAE):
    def __init__(self, genes: int, classes: int, settings: dict, shifts: np.ndarray, log_scales: np.ndarray):
        super().__init__(genes, classes, settings)
        self.s = settings | {"affine_jitter": 0.0}  # has put the layer in; no noise of single genes
        for name, effects in (("shifts", shifts), ("log_scales", log_scales)):
            self.register_buffer(name, torch.tensor(effects, dtype=torch.float32), persistent=False)

    def _corrupt(self, x: Tensor) -> Tensor:
        """Every pseudo-cohort of the batch gets a gene-wise shift and scale of its own; then genes are masked."""
        weights = torch.randn(2, COHORTS, len(self.shifts), device=x.device) / len(self.shifts) ** 0.5
        scale, shift = torch.exp(weights[0] @ self.log_scales), weights[1] @ self.shifts
        cohort = torch.arange(len(x), device=x.device) % COHORTS
        return super()._corrupt(x * scale[cohort] + shift[cohort])


class CohortJitter(TissueVAE):
    """Learns to normalise against shifts and scales that a whole pseudo-cohort shares, drawn as real ones lie.

    shifts, log_scales: effects × genes, what real studies or sources differ by. A pseudo-cohort's shift is a random
    mixture of them, normal with their covariance over genes; so is its log scale. `affine_jitter` above 0 is what
    puts the normalisation layer in; its size is not used.
    """

    def with_effects(self, shifts: np.ndarray, log_scales: np.ndarray) -> CohortJitter:
        """Takes the effects to draw from; returns self. ValueError for none, unlike shapes, or no affine_jitter."""
        if not len(shifts) or np.shape(shifts) != np.shape(log_scales):
            found = f"{np.shape(shifts)} beside {np.shape(log_scales)}"
            raise ValueError(f"shifts, log_scales: found {found}, expected effects × genes, both alike")
        if not self.affine_jitter:
            raise ValueError("affine_jitter: found 0, expected a number above 0: without it no layer normalises")
        self.effects = shifts, log_scales
        return self

    def _network(self) -> SupervisedVAE:
        return _CohortJitter(len(self.genes_), len(self.classes_), self.get_params(), *self.effects)
