"""RNAlign: a conditional VAE in Pyro that aligns tumours with cancer cell lines (paper A, section 3)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn.functional import softplus

from lib.models import training

ANNEALING = ("cyclical", "warmup", "none")
CYCLES = 4
RAMP = 0.5  # share of a cycle in which the KL weight rises
WARMUP = 0.2  # share of the epochs


def distance_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Székely's distance correlation of two samples of vectors.

    x: n × p, y: n × q (one-dimensional: one column). Returns a 0-d tensor in [0, 1]: the V-statistic with
    the square root taken, not bias-corrected, as R's `energy::dcor`; 0 when either sample is constant.
    Differentiable, with finite gradients for tied rows and constant columns. ValueError for samples of
    different or too small size, or values that are not finite. Source: Székely et al. 2007; L_cor of paper
    A, section 3.1.
    """
    x, y = (v if v.is_floating_point() else v.double() for v in (x, y))
    x, y = (v[:, None] if v.ndim == 1 else v for v in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"x, y: found shapes {tuple(x.shape)} and {tuple(y.shape)}, expected n × p and n × q, n >= 2")
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("x, y: found NaN or infinite values, expected finite ones")
    return _correlate(_centred_distances(x), _centred_distances(y))


def _centred_distances(x: Tensor) -> Tensor:
    """Euclidean distances, double-centred. Not by matrix product: ties must be exact zeros."""
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return d - d.mean(0, keepdim=True) - d.mean(1, keepdim=True) + d.mean()


def _correlate(a: Tensor, b: Tensor) -> Tensor:
    """Root of covariance / root of variances; 0, with slope 0, where a root has no finite slope."""
    covariance, var_a, var_b = (a * b).mean(), (a * a).mean(), (b * b).mean()
    defined = (covariance > 0) & (var_a > 0) & (var_b > 0)
    covariance, var_a, var_b = (torch.where(defined, v, torch.ones_like(v)) for v in (covariance, var_a, var_b))
    return torch.where(defined, (covariance / var_a.sqrt() / var_b.sqrt()).sqrt(), 0.0)


def annealing(schedule: str, progress: float) -> float:
    """Factor in [0, 1] on the KL weight when a share `progress` of the epochs is done.

    `cyclical`: four linear cycles, each rising over its first half (Fu et al. 2019, cited by paper A);
    `warmup`: a rise over the first fifth; `none`: 1.
    """
    if schedule == "none" or progress >= 1:
        return 1.0
    if schedule == "warmup":
        return min(progress / WARMUP, 1.0)
    return min(progress * CYCLES % 1 / RAMP, 1.0)


def _layers(sizes: list[int], dropout: float) -> nn.Sequential:
    steps = []
    for inputs, outputs in pairwise(sizes):
        steps += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*steps)


class ConditionalVAE(nn.Module):
    """q(z|x,y), p(x|z,y) and the loss of paper A, section 3.1; `blocks` names the columns of y."""

    def __init__(self, genes: int, blocks: dict[str, slice], settings: dict):
        super().__init__()
        self.blocks, self.s = blocks, settings
        conditions = max(block.stop for block in blocks.values())
        hidden = [max(int(settings["hidden"] * 0.5**i), 1) for i in range(settings["n_layers"])]
        latent, dropout = settings["latent"], settings["dropout"]
        self.encoder = _layers([genes + conditions, *hidden], dropout)
        self.encoder_mean = nn.Linear(hidden[-1], latent)
        self.encoder_sd = nn.Linear(hidden[-1], latent)
        self.decoder = _layers([latent + conditions, *reversed(hidden)], dropout)
        self.decoder_mean = nn.Linear(hidden[0], genes)
        self.elbo = TraceMeanField_ELBO()

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x,y)."""
        h = self.encoder(torch.cat([x, y], 1))
        # softplus, not exp: a purity × 100 may not overflow it
        return self.encoder_mean(h), softplus(self.encoder_sd(h)) + 1e-4

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Mean of p(x|z,y)."""
        return self.decoder_mean(self.decoder(torch.cat([z, y], 1)))

    def model(self, x: Tensor, y: Tensor, beta: float, seen: dict[str, Tensor]) -> None:
        prior = x.new_zeros(self.s["latent"]), x.new_full((self.s["latent"],), self.s["epsilon"])
        with pyro.plate("samples", len(x)):
            with poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(*prior).to_event(1))
            seen["decoded"] = self.decode(z, y)
            pyro.sample("x", dist.Normal(seen["decoded"], self.s["sigma"]).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor, beta: float, seen: dict[str, Tensor]) -> None:
        seen["mean"], seen["sd"] = self.encode(x, y)
        with pyro.plate("samples", len(x)), poutine.scale(scale=beta):
            seen["z"] = pyro.sample("z", dist.Normal(seen["mean"], seen["sd"]).to_event(1))

    @torch.enable_grad()  # L_grad needs a gradient in validation, too
    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Loss of a batch and its parts, per gene: x n × genes, y n × conditions."""
        s, seen = self.s, {}
        y = y.detach().requires_grad_()
        beta = max(s["beta"] * annealing(s["annealing"], progress), 1e-12)  # Pyro takes no scale of 0
        cvae = self.elbo.differentiable_loss(self.model, self.guide, x, y, beta, seen) / x.numel()
        parts = self._regularisers(cvae, seen["z"], y)
        loss = cvae + s["lambda_cor"] * parts["l_cor"] + s["lambda_grad"] * parts["l_grad"]
        kl = kl_divergence(dist.Normal(seen["mean"], seen["sd"]), dist.Normal(0.0, s["epsilon"]))
        kl = kl.sum(1).mean().detach() / x.shape[1]
        mse = (seen["decoded"] - x).square().mean()
        return {"loss": loss, "reconstruction": cvae - beta * kl, "kl": kl, "mse": mse} | parts

    def _regularisers(self, cvae: Tensor, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """L_cor and L_grad, and both for each block of y: purity alone might satisfy either."""
        second_order = self.training and self.s["lambda_grad"] > 0
        (slope,) = torch.autograd.grad(cvae, y, create_graph=second_order, retain_graph=self.training)
        of_z = _centred_distances(z)
        parts = {"l_cor": _correlate(of_z, _centred_distances(y)), "l_grad": -_norm(slope)}
        with torch.no_grad():
            for name, block in self.blocks.items():
                parts[f"grad_{name}"] = _norm(slope[:, block])
                parts[f"dcor_{name}"] = _correlate(of_z, _centred_distances(y[:, block]))
        return parts


def _norm(slope: Tensor) -> Tensor:
    """Mean over the samples of the Euclidean norm, with slope 0 instead of NaN at 0."""
    return slope.square().sum(1).clamp(min=1e-24).sqrt().mean()


class RNAlign(BaseEstimator):
    """Conditional VAE of expression given cancer type, sample type and purity (paper A, section 3).

    Encoder and decoder mirror each other: `n_layers` hidden layers of `hidden`, `hidden`/2, … units, ReLU
    and dropout, `latent` dimensions. The condition y (one-hot cancer type, one-hot sample type, purity ×
    `purity_multiplier`) enters both. Loss: -E log N(x | decoder, sigma²) + beta · KL(q(z|x,y) ‖ N(0,
    epsilon²)) + lambda_cor · dcor(y, z) - lambda_grad · ‖gradient of the ELBO with respect to y‖.

    The ELBO is a mean over the samples and the genes of a batch: against a likelihood summed over 3,000 genes
    neither regulariser would weigh anything at the paper's lambdas (appendix, Table 2). L_grad takes the norm
    for each sample's y and averages. It has no lower bound: with a large `lambda_grad` or `lr` the training
    diverges, and `fit` says so.

    `annealing` ('cyclical', 'warmup', 'none') acts on beta. Adam; the learning rate is divided by 10 after
    50 % and 75 % of the epochs. `use_purity`, `use_cancer_type`: False leaves them out of y (ablations).

    X is taken as it is: give z-scored log2(TPM+1). After `fit`: genes_, cancer_types_, sample_types_,
    history_ (one row per epoch; grad_* and dcor_* for each block of y), module_.
    """

    def __init__(
        self,
        n_layers: int = 2,
        hidden: int = 512,
        latent: int = 64,
        dropout: float = 0.2,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        batch_size: int = 64,
        purity_multiplier: float = 10.0,
        sigma: float = 0.6,
        epsilon: float = 0.6,
        beta: float = 0.05,
        lambda_cor: float = 0.1,
        lambda_grad: float = 0.05,
        annealing: str = "cyclical",
        use_purity: bool = True,
        use_cancer_type: bool = True,
        epochs: int = 1000,
        seed: int = 0,
        device: str = "auto",
        precision: str = "32-true",
    ):
        self.n_layers = n_layers
        self.hidden = hidden
        self.latent = latent
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.purity_multiplier = purity_multiplier
        self.sigma = sigma
        self.epsilon = epsilon
        self.beta = beta
        self.lambda_cor = lambda_cor
        self.lambda_grad = lambda_grad
        self.annealing = annealing
        self.use_purity = use_purity
        self.use_cancer_type = use_cancer_type
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.precision = precision

    def fit(
        self,
        adata: ad.AnnData,
        validation: ad.AnnData | None = None,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int = 10,
    ) -> RNAlign:
        """Train on samples × genes with obs columns cancer_type, sample_type and purity (0 to 1).

        The weights of the last epoch are kept. `validation` adds validation_* columns to history_ (its loss
        at full beta), for the caller to select by. `checkpoint_dir`: where a killed training resumes from.
        ValueError for missing columns or labels, purities missing or out of range, or X with NaN;
        RuntimeError when the training diverges.
        """
        self._check_settings()
        self.genes_ = list(adata.var_names)
        self.gene_scaling_ = {c: adata.var[c].astype(float).tolist() for c in ("mean", "sd") if c in adata.var}
        self.sample_types_ = _classes(adata, "sample_type")
        self.cancer_types_ = _classes(adata, "cancer_type") if self.use_cancer_type else []
        with training.seeded(self.seed), pyro.validation_enabled(False):
            self.module_ = self._network()
            self.history_ = training.train(
                self.module_,
                self._samples(adata),
                self._plan(),
                None if validation is None else self._samples(training.reorder_genes(validation, self.genes_)),
                {"model": "RNAlign", "genes": self.genes_, **self.get_params()} | {"device": None},
                training.Checkpoints(checkpoint_dir, checkpoint_every),
                title="RNAlign",
            )
        return self

    def transform(self, adata: ad.AnnData, sample_type="cell line", purity=1.0, cancer_type=None) -> np.ndarray:
        """Decode the mean of q(z|x,y) under changed labels (paper A, section 4.1): samples × genes_, float32.

        Each of the three is one value for all, one value per sample, or None to keep the samples' own.
        ValueError for types that the model does not know and for missing purities.
        """
        changed = {"sample_type": sample_type, "purity": purity, "cancer_type": cancer_type}
        target = adata.obs.copy()
        for column, value in changed.items():
            if value is not None:
                target[column] = value if np.ndim(value) == 0 else np.asarray(value)
        return self._apply(adata, lambda x, y, to: self.module_.decode(self.module_.encode(x, y)[0], to), target)

    def embed(self, adata: ad.AnnData) -> np.ndarray:
        """Mean of q(z|x,y): samples × latent, float32."""
        return self._apply(adata, lambda x, y, _: self.module_.encode(x, y)[0], adata.obs)

    def save(self, path: str | Path) -> None:
        """Write `<path>.safetensors` and `.json`: weights, genes, classes, settings, versions; no data."""
        check_is_fitted(self, "module_")
        learned = {n: getattr(self, n) for n in ("genes_", "gene_scaling_", "cancer_types_", "sample_types_")}
        record = {"settings": self.get_params(), **learned, "history": self.history_.to_dict("list")}
        training.save_model(path, "RNAlign", self.module_, record)

    @classmethod
    def load(cls, path: str | Path) -> RNAlign:
        """Read what `save` wrote, executing nothing. FileNotFoundError, or ValueError when it is not that."""
        record, tensors = training.load_model(path, "RNAlign")
        self = cls(**record["settings"])
        for name in ("genes_", "gene_scaling_", "cancer_types_", "sample_types_"):
            setattr(self, name, record[name])
        self.history_ = pd.DataFrame(record["history"])
        self.module_ = self._network()
        self.module_.load_state_dict(tensors)
        self.module_.eval()
        return self

    def _check_settings(self) -> None:
        if self.annealing not in ANNEALING:
            raise ValueError(f"annealing: found {self.annealing!r}, expected one of {', '.join(ANNEALING)}")
        for name in ("n_layers", "hidden", "latent", "epochs", "lr", "sigma", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected a number above 0")
        if self.batch_size < 2:
            raise ValueError(f"batch_size: found {self.batch_size!r}, expected at least 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: found {self.dropout!r}, expected 0 <= dropout < 1")

    def _plan(self) -> training.Plan:
        return training.Plan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
            lr_drops=(0.5, 0.75),
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )

    def _blocks(self) -> dict[str, slice]:
        widths = {"cancer_type": len(self.cancer_types_), "sample_type": len(self.sample_types_)}
        widths["purity"] = int(self.use_purity)
        ends = np.cumsum(list(widths.values()))
        return {n: slice(end - w, end) for (n, w), end in zip(widths.items(), ends.tolist(), strict=True) if w}

    def _network(self) -> ConditionalVAE:
        return ConditionalVAE(len(self.genes_), self._blocks(), self.get_params())

    def _conditions(self, obs: pd.DataFrame) -> Tensor:
        """y, samples × conditions: one-hot cancer type, one-hot sample type, purity × multiplier."""
        parts = [_one_hot(obs, "sample_type", self.sample_types_)]
        if self.use_cancer_type:
            parts.insert(0, _one_hot(obs, "cancer_type", self.cancer_types_))
        if self.use_purity:
            parts.append(self.purity_multiplier * _purity(obs)[:, None])
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def _samples(self, adata: ad.AnnData) -> training.Samples:
        return training.Samples(adata, (self._conditions(adata.obs),))

    @torch.no_grad()
    def _apply(self, adata: ad.AnnData, function, target: pd.DataFrame) -> np.ndarray:
        """function(x, own conditions, conditions of `target`) over all samples, in their order."""
        check_is_fitted(self, "module_")
        adata = training.reorder_genes(adata, self.genes_)
        device = training.resolve_device(self.device)
        labels = self._conditions(adata.obs), self._conditions(target)
        self.module_.to(device).eval()
        batches = training.Samples(adata, labels).to(device).batches(training.EVALUATION_ROWS)
        result = torch.cat([function(x, *conditions).cpu() for x, conditions in batches]).numpy()
        self.module_.cpu()
        return result


def _column(obs: pd.DataFrame, column: str) -> pd.Series:
    if column not in obs:
        raise ValueError(f"adata.obs: no column {column!r}, found {', '.join(obs.columns) or 'none'}")
    return obs[column]


def _classes(adata: ad.AnnData, column: str) -> list[str]:
    labels = _column(adata.obs, column)
    if missing := int(labels.isna().sum()):
        raise ValueError(f"adata.obs[{column!r}]: missing for {missing} of {len(labels)} samples, expected for all")
    return sorted(labels.astype(str).unique())


def _one_hot(obs: pd.DataFrame, column: str, classes: list[str]) -> np.ndarray:
    labels = _column(obs, column).astype(str)
    if unknown := sorted(set(labels) - set(classes)):
        raise ValueError(
            f"{column}: found {', '.join(map(repr, unknown[:3]))}, unknown to the model;"
            f" expected one of {', '.join(classes)}"
        )
    return (labels.to_numpy()[:, None] == np.array(classes)[None, :]).astype(np.float32)


def _purity(obs: pd.DataFrame) -> np.ndarray:
    purity = pd.to_numeric(_column(obs, "purity"), errors="coerce").to_numpy(float)
    if missing := int(np.isnan(purity).sum()):
        raise ValueError(
            f"purity: missing for {missing} of {len(purity)} samples, expected a number from 0 to 1 for all"
        )
    if (purity < 0).any() or (purity > 1).any():
        raise ValueError(f"purity: found values from {purity.min():g} to {purity.max():g}, expected 0 to 1")
    return purity
