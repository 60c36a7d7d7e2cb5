"""Tissue VAE: the supervised VAE of paper B, trained there with Flexynesis 1.1.14 (supervised_vae).

`variant="faithful"` does what that code does; `"corrected"` what the paper describes: a linear output
instead of a sigmoid on z-scored values, z = mu + exp(log_var / 2) · ε instead of mu + log_var · ε, and the
mean decoded at evaluation instead of a sample.
"""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from lib.models import training

VARIANTS = ("corrected", "faithful")
PRIOR_DRAWS = 200
NORMALISATION_WIDTH = 64
HELD_OUT = 0.1  # share of the training samples kept for early stopping when no validation set is given
MISSING = ("", "nan", "NaN", "None")


def random_mask(n_samples: int, n_genes: int, fraction: float, seed: int) -> np.ndarray:
    """Boolean mask, samples × genes, with exactly int(fraction · n_genes) random genes True in each row."""
    if not 0 <= fraction < 1:
        raise ValueError(f"mask: found fraction {fraction!r}, expected 0 <= fraction < 1")
    mask = np.zeros((n_samples, n_genes), bool)
    mask[:, : int(fraction * n_genes)] = True
    return np.random.default_rng(seed).permuted(mask, axis=1)


def maximum_mean_discrepancy(p: Tensor, z: Tensor) -> Tensor:
    """MMD of two sets of rows, kernel exp(-mean_d((a_d - b_d)²) / D): D divides twice, as in Flexynesis."""
    return _kernel(p, p).mean() + _kernel(z, z).mean() - 2 * _kernel(p, z).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    dim = a.shape[1]
    squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T
    return torch.exp(-squared.clamp(min=0) / dim**2)


class Normalisation(nn.Module):
    """x → (x - shift) · scale, gene by gene; shift and scale are read from the sample itself. Begins as identity."""

    def __init__(self, genes: int):
        super().__init__()
        self.read = nn.Sequential(_xavier(genes, NORMALISATION_WIDTH), nn.LeakyReLU(0.2))
        self.shift = nn.Linear(NORMALISATION_WIDTH, genes)
        self.log_scale = nn.Linear(NORMALISATION_WIDTH, genes)
        for layer in (self.shift, self.log_scale):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.read(x)
        return (x - self.shift(h)) * torch.exp(torch.tanh(self.log_scale(h)))  # tanh: one odd sample can't explode


class SupervisedVAE(nn.Module):
    """Layers and loss of Flexynesis' supervised_vae for one omics layer (H = hidden_factor · genes):

    encoder genes → H (LeakyReLU 0.2, batch norm) → two heads of `latent`; one more linear layer on each;
    decoder latent → H (LeakyReLU 0.2, batch norm) → genes; head latent → supervisor_hidden (batch norm,
    ReLU, dropout 0.1) → classes. With `affine_jitter`, a `Normalisation` before the encoder.
    """

    def __init__(self, genes: int, classes: int, settings: dict):
        super().__init__()
        self.s = settings
        latent = settings["latent"]
        self.normalisation = Normalisation(genes) if settings["affine_jitter"] else None
        hidden = max(int(genes * settings["hidden_factor"]), 2)
        supervisor = max(settings["supervisor_hidden"], 2)
        self.encoder = nn.Sequential(_xavier(genes, hidden), nn.LeakyReLU(0.2), nn.BatchNorm1d(hidden))
        self.encoder_mean = _xavier(hidden, latent)
        self.encoder_log_var = _xavier(hidden, latent)
        self.fusion_mean = nn.Linear(latent, latent)
        self.fusion_log_var = nn.Linear(latent, latent)
        self.decoder = nn.Sequential(
            _xavier(latent, hidden), nn.LeakyReLU(0.2), nn.BatchNorm1d(hidden), _xavier(hidden, genes)
        )
        self.head = nn.Sequential(
            nn.Linear(latent, supervisor),
            nn.BatchNorm1d(supervisor),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(supervisor, classes),
        )

    @property
    def faithful(self) -> bool:
        return self.s["variant"] == "faithful"

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), after the fusion layers."""
        h = self.encoder(x if self.normalisation is None else self.normalisation(x))
        return self.fusion_mean(self.encoder_mean(h)), self.fusion_log_var(self.encoder_log_var(h))

    def sample(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """z; `faithful` takes the log-variance for a standard deviation, as the published code does."""
        deviation = log_var if self.faithful else torch.exp(log_var / 2)
        return mean + deviation * torch.randn_like(mean)

    def decode(self, z: Tensor) -> Tensor:
        x = self.decoder(z)
        return torch.sigmoid(x) if self.faithful else x

    def reconstruct(self, x: Tensor) -> Tensor:
        """`faithful`: a sampled z decoded; `corrected`: the mean."""
        mean, log_var = self.encode(x)
        return self.decode(self.sample(mean, log_var) if self.faithful else mean)

    def forward(self, x: Tensor, label: Tensor, progress: float) -> dict[str, Tensor]:
        """Loss of a batch and its parts: x n × genes, label n (-1: missing)."""
        mean, log_var = self.encode(self._corrupt(x) if self.training else x)
        z = self.sample(mean, log_var)
        code = z if self.training or self.faithful else mean
        mse = (self.decode(code) - x).square().mean()
        mmd = maximum_mean_discrepancy(torch.randn(PRIOR_DRAWS, z.shape[1], device=z.device), z)
        entropy = _cross_entropy(self.head(code), label)
        loss = mse + self.s["mmd_weight"] * mmd + self.s["supervision_weight"] * entropy
        return {"loss": loss, "mse": mse, "mmd": mmd, "cross_entropy": entropy}

    def _corrupt(self, x: Tensor) -> Tensor:
        """Every gene of a sample shifted and scaled at random; exactly int(mask_fraction · genes) of them set to 0."""
        jitter = self.s["affine_jitter"]
        if jitter:
            x = x * torch.exp(jitter * torch.randn_like(x)) + jitter * torch.randn_like(x)
        masked = int(self.s["mask_fraction"] * x.shape[1])
        if masked == 0:
            return x
        genes = torch.rand_like(x).topk(masked, dim=1, sorted=False).indices
        return x.scatter(1, genes, 0.0)


def _xavier(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def _cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean over the labelled samples; 0 when there is none."""
    labelled = (label >= 0).sum().clamp(min=1)
    return F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / labelled


class TissueVAE(BaseEstimator):
    """Supervised VAE over bulk RNA-seq: tissue calls, embeddings, imputation (paper B, Methods).

    Loss: mean squared error + mmd_weight · MMD(N(0, I), z) + supervision_weight · cross-entropy; no KL
    term. Adam, early stopping on the validation loss with `patience`, weights of the best epoch.
    `mask_fraction`: share of the genes set to 0 per sample and step (0.2 in the denoising variant), against
    the unmasked target. `variant`: 'corrected' or 'faithful' (see the module). `affine_jitter`: above 0, a
    layer learns to normalise a single sample, which paper B's Discussion proposes: in training every gene
    of every sample is scaled by exp(N(0, affine_jitter²)) and shifted by N(0, affine_jitter²), against the
    untouched target. Defaults: the published settings.

    X is taken as it is: give z-scored log2(TPM+1). After `fit`: genes_, classes_, history_ (one row per
    epoch), module_.
    """

    def __init__(
        self,
        latent: int = 121,
        hidden_factor: float = 0.2002336,
        supervisor_hidden: int = 32,
        lr: float = 1.7178e-3,
        batch_size: int = 32,
        mask_fraction: float = 0.0,
        variant: str = "corrected",
        patience: int = 10,
        max_epochs: int = 500,
        seed: int = 0,
        device: str = "auto",
        precision: str = "32-true",
        mmd_weight: float = 1.0,
        supervision_weight: float = 1.0,
        affine_jitter: float = 0.0,
    ):
        self.latent = latent
        self.hidden_factor = hidden_factor
        self.supervisor_hidden = supervisor_hidden
        self.lr = lr
        self.batch_size = batch_size
        self.mask_fraction = mask_fraction
        self.variant = variant
        self.patience = patience
        self.max_epochs = max_epochs
        self.seed = seed
        self.device = device
        self.precision = precision
        self.mmd_weight = mmd_weight
        self.supervision_weight = supervision_weight
        self.affine_jitter = affine_jitter

    def fit(
        self,
        train: ad.AnnData,
        labels: str = "tissue",
        validation: ad.AnnData | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int = 10,
    ) -> TissueVAE:
        """Train on samples × genes with the classes in obs column `labels`; returns self.

        Samples whose label is missing (NaN, None, '', 'nan') train the reconstruction only; so do
        validation labels that the training samples do not have. Without `validation`, 10 % of each class
        (drawn by the seed; at least one training sample of it stays) are taken out of `train` to decide
        when to stop. `checkpoint_dir`: where a killed training resumes from. ValueError for a missing
        column, fewer than two classes, or X with NaN; RuntimeError when the training diverges.
        """
        self._check_settings()
        self.genes_ = list(train.var_names)
        self.gene_scaling_ = {c: train.var[c].astype(float).tolist() for c in ("mean", "sd") if c in train.var}
        names = _labels(train, labels)
        self.classes_ = np.array(sorted(set(names[names != ""])))
        if len(self.classes_) < 2:
            raise ValueError(f"obs[{labels!r}]: found {len(self.classes_)} classes, expected at least 2")
        with training.seeded(self.seed):
            self.module_ = self._network()
            self.history_ = training.train(
                self.module_,
                *self._split(train, names, labels, validation),
                settings={"model": "TissueVAE", "genes": self.genes_, **self.get_params()} | {"device": None},
                checkpoints=training.Checkpoints(checkpoint_dir, checkpoint_every),
                title="TissueVAE",
            )
        return self

    def predict(self, adata: ad.AnnData) -> np.ndarray:
        """Most probable class of each sample."""
        return self.predict_proba(adata).idxmax(axis=1).to_numpy()

    def predict_proba(self, adata: ad.AnnData) -> pd.DataFrame:
        """Class probabilities, samples × classes_, from the mean of q(z|x)."""
        module = self._fitted_module()
        p = self._apply(adata, lambda x: torch.softmax(module.head(module.encode(x)[0]), 1))
        return pd.DataFrame(p, index=adata.obs_names, columns=self.classes_)

    def embed(self, adata: ad.AnnData) -> np.ndarray:
        """Mean of q(z|x): samples × latent, float32."""
        module = self._fitted_module()
        return self._apply(adata, lambda x: module.encode(x)[0])

    def reconstruct(self, adata: ad.AnnData) -> np.ndarray:
        """Decoded profiles, samples × genes_, float32; `faithful` samples z, with the model's seed."""
        return self._apply(adata, self._fitted_module().reconstruct)

    def impute(self, adata: ad.AnnData, mask: np.ndarray | float) -> np.ndarray:
        """Reconstruct with the masked inputs set to 0: samples × genes_, float32.

        mask: boolean samples × genes_ (True = hidden), or a fraction of the genes, hidden at random in each
        sample as `random_mask(n_samples, n_genes, fraction, seed=self.seed)` says. ValueError for a mask of
        another shape.
        """
        module = self._fitted_module()
        shape = (adata.n_obs, len(self.genes_))
        mask = random_mask(*shape, mask, self.seed) if np.ndim(mask) == 0 else np.asarray(mask)
        if mask.shape != shape or mask.dtype != bool:
            raise ValueError(f"mask: found {mask.dtype} {mask.shape}, expected bool {shape} or a fraction")
        return self._apply(adata, lambda x, m: module.reconstruct(x.masked_fill(m, 0.0)), (torch.from_numpy(mask),))

    def save(self, path: str | Path) -> None:
        """Write `<path>.safetensors` and `.json`: weights, genes, classes, settings, versions; no data."""
        module = self._fitted_module()
        record = {
            "settings": self.get_params(),
            "genes_": self.genes_,
            "gene_scaling_": self.gene_scaling_,
            "classes_": self.classes_.tolist(),
            "history": self.history_.to_dict("list"),
        }
        training.save_model(path, "TissueVAE", module, record)

    @classmethod
    def load(cls, path: str | Path) -> TissueVAE:
        """Read what `save` wrote, executing nothing. FileNotFoundError, or ValueError when it is not that."""
        record, tensors = training.load_model(path, "TissueVAE")
        self = cls(**record["settings"])
        self.genes_, self.gene_scaling_ = record["genes_"], record["gene_scaling_"]
        self.classes_ = np.array(record["classes_"])
        self.history_ = pd.DataFrame(record["history"])
        self.module_ = self._network()
        self.module_.load_state_dict(tensors)
        self.module_.eval()
        return self

    def _check_settings(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant: found {self.variant!r}, expected one of {', '.join(VARIANTS)}")
        for name in ("latent", "supervisor_hidden", "hidden_factor", "lr", "patience", "max_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected a number above 0")
        if self.batch_size < 2:
            raise ValueError(f"batch_size: found {self.batch_size!r}, expected at least 2")
        if not 0 <= self.mask_fraction < 1:
            raise ValueError(f"mask_fraction: found {self.mask_fraction!r}, expected 0 <= mask_fraction < 1")
        for name in ("mmd_weight", "supervision_weight", "affine_jitter"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected a number from 0 up")

    def _fitted_module(self) -> SupervisedVAE:
        check_is_fitted(self, "module_")
        return self.module_

    def _network(self) -> SupervisedVAE:
        return SupervisedVAE(len(self.genes_), len(self.classes_), self.get_params())

    def _split(self, train, names, labels, validation) -> tuple[training.Samples, training.Plan, training.Samples]:
        """(training samples, plan, validation samples) in the order that `training.train` takes them."""
        plan = training.Plan(
            epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            patience=self.patience,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )
        if validation is not None:
            held = training.reorder_genes(validation, self.genes_)
            return self._samples(train, names), plan, self._samples(held, _labels(validation, labels))
        held = _held_out(names, self.seed)
        kept = np.setdiff1d(np.arange(len(names)), held)
        return self._samples(train, names, kept), plan, self._samples(train, names, held)

    def _samples(self, adata: ad.AnnData, names: np.ndarray, rows: np.ndarray | None = None) -> training.Samples:
        code = pd.Categorical(names, categories=self.classes_).codes.astype(np.int64)
        return training.Samples(adata, (torch.from_numpy(code if rows is None else code[rows]),), rows)

    @torch.no_grad()
    def _apply(self, adata: ad.AnnData, function, labels: tuple[Tensor, ...] = ()) -> np.ndarray:
        """function(x, *labels) over all samples, in their order."""
        adata = training.reorder_genes(adata, self.genes_)
        device = training.resolve_device(self.device)
        self.module_.to(device).eval()
        batches = training.Samples(adata, labels).to(device).batches(training.EVALUATION_ROWS)
        with training.seeded(self.seed):
            result = torch.cat([function(x, *more).cpu() for x, more in batches]).numpy()
        self.module_.cpu()
        return result


def _labels(adata: ad.AnnData, column: str) -> np.ndarray:
    """Class names as text, '' where missing."""
    if column not in adata.obs:
        raise ValueError(f"labels: no obs column {column!r}, found {', '.join(adata.obs.columns) or 'none'}")
    names = adata.obs[column].astype(object)
    names = names.where(names.notna(), "").astype(str)
    return names.where(~names.isin(MISSING), "").to_numpy(dtype=str)


def _held_out(names: np.ndarray, seed: int) -> np.ndarray:
    """Positions of the validation samples: 10 % of each class, rounded at random to include rare classes."""
    rng = np.random.default_rng(seed)
    held = []
    for name in np.unique(names):
        members = rng.permutation(np.flatnonzero(names == name))
        share = int(HELD_OUT * len(members) + rng.random())
        held.append(members[: min(share, len(members) - 1)])
    held = np.sort(np.concatenate(held))
    if len(held) == 0:
        raise ValueError(f"train: {len(names)} samples are too few to keep some for validation; give validation=")
    return held
