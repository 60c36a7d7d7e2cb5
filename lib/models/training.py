"""One training loop for both VAEs, on Lightning Fabric: one CPU or GPU, or several processes by `torchrun`.

A module to be trained takes `module(x, *labels, progress)`, with progress in [0, 1] for annealing, and
returns a dict of scalar tensors: `loss`, which is minimised, `mse`, the mean squared reconstruction error
that tells a diverged training, and whatever else is worth a column of the history.

A training killed at any moment and started again ends in the same weights, bit for bit: a checkpoint holds
everything that an epoch starts from, and all randomness of an epoch comes from (seed, epoch).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.auto import tqdm as auto_tqdm

from lib.files import replacing

# Above this, a matrix is read again in every epoch instead of resting in memory. A constant, not what happens
# to be free, because the order of the samples depends on it.
RESIDENT_BYTES = 4 * 2**30
RESIDENT_SHARE_OF_GPU = 0.5
STREAM_BLOCK = 64  # rows that stay together when a streamed matrix is shuffled: one seek on disk
STREAM_GAP = 8  # rows not asked for that are rather read than skipped
STREAM_ROWS = 8192  # rows in memory at once when streaming
EVALUATION_ROWS = 1024
DIVERGED = 2.0  # times the first epoch's reconstruction error, in three epochs running
BAR_COLUMNS = ("loss", "mse", "kl", "l_cor", "l_grad", "mmd", "cross_entropy", "validation_loss")


@dataclass(frozen=True)
class Plan:
    """How to train: Adam, divided learning rates, early stopping where `patience` is given."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    lr_drops: tuple[float, ...] = ()  # shares of the epochs after which the learning rate is divided by 10
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "32-true"

    def lr_at(self, epoch: int) -> float:
        return self.lr / 10 ** sum(epoch >= share * self.epochs for share in self.lr_drops)


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is saved; `folder=None`: never."""

    folder: Path | None = None
    every: int = 10


@dataclass
class Progress:
    """All that training carries from one epoch to the next, besides weights and optimiser."""

    epoch: int = 0  # epochs done
    finished: bool = False
    best_loss: float = float("inf")
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] | None = None


# Data -----------------------------------------------------------------------------------------------------


def resolve_device(device: str) -> str:
    """`auto`, `cpu` or `cuda` -> `cpu` or `cuda`. ValueError for anything else, and for a missing GPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: found {device!r}, expected 'auto', 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: found 'cuda', but PyTorch sees no GPU here; expected 'auto' or 'cpu'")
    return device


class Samples:
    """Rows of an AnnData with their labels, given out as float32 tensors.

    adata: samples × genes, dense or CSR, in memory or backed; `rows` picks samples; `labels` are tensors
    with one entry per picked sample. The matrix rests on the device when it fits, else groups of shuffled
    blocks of rows are read as they are needed. ValueError when X holds NaN or infinite values.
    """

    def __init__(self, adata: ad.AnnData, labels: tuple[Tensor, ...] = (), rows: np.ndarray | None = None):
        self.adata = adata
        self.rows = np.arange(adata.n_obs) if rows is None else np.sort(rows)
        self.labels = labels
        self.resident: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str) -> Samples:
        """Put labels, and the matrix if it fits, on the device; returns self."""
        device = torch.device(device)
        self.device = device
        self.labels = tuple(label.to(device) for label in self.labels)
        if 4 * len(self) * self.adata.n_vars <= _room(device):
            self.resident = self._read(np.arange(len(self)))
        return self

    def batches(self, batch_size: int, shuffle: np.random.Generator | None = None, part=(0, 1)) -> Iterator:
        """Yield (x, labels) minibatches; `part` = (rank, processes) picks this process' share of them."""
        order = np.arange(len(self)) if shuffle is None else self._shuffled(shuffle)
        mine = _share(_split(order, batch_size), *part)
        at_once = len(mine) if self.resident is not None else max(STREAM_ROWS // batch_size, 1)
        for start in range(0, len(mine), at_once):
            group = mine[start : start + at_once]
            if self.resident is not None:
                matrix, positions = self.resident, group
            else:
                kept = np.sort(np.concatenate(group))
                matrix, positions = self._read(kept), [np.searchsorted(kept, b) for b in group]
            for batch, position in zip(group, positions, strict=True):
                index = torch.from_numpy(batch).to(self.device)
                yield (
                    matrix[torch.from_numpy(position).to(self.device)],
                    tuple(label[index] for label in self.labels),
                )

    def digest(self) -> str:
        """Hash of the labels and of the matrix (of a thousand of its rows when it is streamed)."""
        hashed = hashlib.blake2b(repr((len(self), self.adata.n_vars)).encode(), digest_size=16)
        matrix = self.resident
        if matrix is None:
            matrix = self._read(np.unique(np.linspace(0, len(self) - 1, 1000).astype(int)))
        for tensor in (matrix, *self.labels):
            hashed.update(tensor.cpu().contiguous().numpy().data)
        return hashed.hexdigest()

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        if self.resident is not None:
            return rng.permutation(len(self))
        starts = np.arange(0, len(self), STREAM_BLOCK)
        blocks = [np.arange(s, min(s + STREAM_BLOCK, len(self))) for s in rng.permutation(starts)]
        per_group = STREAM_ROWS // STREAM_BLOCK
        groups = [np.concatenate(blocks[i : i + per_group]) for i in range(0, len(blocks), per_group)]
        return np.concatenate([rng.permutation(group) for group in groups])

    def _read(self, positions: np.ndarray) -> Tensor:
        """Rows at ascending positions, dense, on the device."""
        rows = self.rows[positions]
        if self.adata.isbacked:  # by runs of near rows: HDF5 is slow at picking single ones
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > STREAM_GAP) + 1)
            slices = ((run, _dense(self.adata[run[0] : run[-1] + 1].X)) for run in runs)
            x = np.concatenate([x[run - run[0]] for run, x in slices])
        elif len(rows) == self.adata.n_obs:
            x = _dense(self.adata.X)
        else:
            x = _dense(self.adata[rows].X)
        bad = np.size(x) - np.isfinite(x).sum()
        if bad:
            raise ValueError(f"X: found {bad} NaN or infinite values, expected finite expression values")
        return torch.from_numpy(x).to(self.device)


def _dense(x) -> np.ndarray:
    return np.require(x.toarray() if sp.issparse(x) else x, np.float32, ["C", "W"])


def _room(device: torch.device) -> float:
    if device.type == "cuda":
        return RESIDENT_SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory
    return RESIDENT_BYTES


def _split(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive batches; a last batch of one joins the one before it (batch norm needs two)."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def _share(batches: list[np.ndarray], rank: int, processes: int) -> list[np.ndarray]:
    """Every `processes`-th batch; as many for every process, or they would wait for each other for ever."""
    if len(batches) < processes:
        raise ValueError(
            f"batch_size: found {len(batches)} batches for {processes} processes, expected at least one each"
        )
    return batches[rank::processes][: len(batches) // processes]


def reorder_genes(adata: ad.AnnData, genes: list[str]) -> ad.AnnData:
    """The AnnData with exactly the genes of a model, in their order. ValueError when some are missing."""
    if list(adata.var_names) == genes:
        return adata
    missing = sorted(set(genes) - set(adata.var_names))
    if missing:
        raise ValueError(
            f"adata.var_names: {len(missing)} of the model's {len(genes)} genes are missing"
            f" (first: {', '.join(missing[:3])}), expected all of them"
        )
    return adata[:, genes]


# Training -------------------------------------------------------------------------------------------------


def train(
    module: nn.Module,
    samples: Samples,
    plan: Plan,
    validation: Samples | None = None,
    settings: dict | None = None,
    checkpoints: Checkpoints | None = None,
    title: str = "training",
) -> pd.DataFrame:
    """Train the module in place and leave it in evaluation mode, on the CPU; returns one row per epoch.

    With `plan.patience` the weights of the epoch of lowest validation loss are restored, else the last stay.
    `settings` (plain values) and the data make the fingerprint that a checkpoint must carry to be resumed.
    ValueError for fewer than two samples, RuntimeError when the loss is not finite or the training diverges.
    """
    if len(samples) < 2:
        raise ValueError(f"adata: found {len(samples)} samples to train on, expected at least 2")
    fabric = _fabric(plan)
    samples.to(fabric.device)
    if validation is not None:
        validation.to(fabric.device)
    store = _Store(checkpoints or Checkpoints(), _fingerprint(plan, settings, samples, validation), title)
    with torch.random.fork_rng(devices=_cuda_devices()), _deterministic(fabric.device):
        model, optimiser = fabric.setup(module, _adam(module, plan))
        done = store.restore(module, optimiser.optimizer)
        with _progress_bar(title, plan.epochs, done.epoch, fabric.is_global_zero) as bar:
            while not done.finished:
                _epoch(fabric, model, module, optimiser, samples, validation, plan, done)
                bar.update()
                bar.set_postfix({k: f"{v:.4g}" for k, v in done.history[-1].items() if k in BAR_COLUMNS})
                if fabric.is_global_zero:
                    store.save(module, optimiser.optimizer, done)
    if done.best is not None:
        module.load_state_dict(done.best)
    module.zero_grad()
    module.cpu().eval()
    return pd.DataFrame(done.history)


def _fabric(plan: Plan) -> Fabric:
    """One process, or the processes that `torchrun` started."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=resolve_device(plan.device),
        devices=local,
        num_nodes=max(world // local, 1),
        strategy="ddp" if world > 1 else "auto",
        precision=plan.precision,
    )
    fabric.launch()
    return fabric


def _adam(module: nn.Module, plan: Plan) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True)


def _epoch(fabric, model, module, optimiser, samples, validation, plan: Plan, done: Progress) -> None:
    """One pass over the training samples, one over the validation samples; advances `done`."""
    epoch, lr = done.epoch, plan.lr_at(done.epoch)
    for group in optimiser.optimizer.param_groups:  # not Fabric's copy, which goes stale when a state is loaded
        group["lr"] = lr
    _seed(plan.seed, epoch, fabric.global_rank)
    shuffle = np.random.default_rng([plan.seed, epoch])
    module.train()
    total = _Mean()
    for x, labels in samples.batches(plan.batch_size, shuffle, (fabric.global_rank, fabric.world_size)):
        optimiser.zero_grad()
        parts = model(x, *labels, progress=epoch / plan.epochs)
        fabric.backward(parts["loss"])
        optimiser.step()
        total.add(parts, len(x))
    _same_buffers(fabric, module)
    row = {"epoch": epoch + 1, "lr": lr} | fabric.all_reduce(total.values(), reduce_op="mean")
    if validation is not None:
        row |= _validate(fabric, module, validation, plan)
    row = {name: float(value) if name != "epoch" else value for name, value in row.items()}
    done.history.append(row)
    done.epoch += 1
    _stop_if_diverged(done.history)
    _remember_best(done, module, plan)


@torch.no_grad()
def _validate(fabric: Fabric, module: nn.Module, validation: Samples, plan: Plan) -> dict[str, float]:
    """Losses in evaluation mode, with the same noise in every epoch so that epochs can be compared."""
    module.eval()
    _seed(plan.seed, -1, 0)
    total = _Mean()
    for x, labels in validation.batches(plan.batch_size):
        with fabric.autocast():
            total.add(module(x, *labels, progress=1.0), len(x))
    return fabric.broadcast({f"validation_{name}": float(v) for name, v in total.values().items()})


def _stop_if_diverged(history: list[dict[str, float]]) -> None:
    row = history[-1]
    parts = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "lr"))
    if not all(np.isfinite(value) for value in row.values()):
        raise RuntimeError(f"training: loss not finite in epoch {row['epoch']}: {parts}; try a smaller lr")
    if min(past["mse"] for past in history[-3:]) > DIVERGED * history[0]["mse"]:
        raise RuntimeError(
            f"training diverged in epoch {row['epoch']}: reconstruction error more than {DIVERGED:g} times"
            f" that of epoch 1 ({history[0]['mse']:.4g}): {parts}"
        )


def _remember_best(done: Progress, module: nn.Module, plan: Plan) -> None:
    done.finished = done.epoch >= plan.epochs
    if plan.patience is None:
        return
    loss = done.history[-1]["validation_loss"]
    if loss < done.best_loss:
        done.best_loss, done.waited = loss, 0
        done.best = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    else:
        done.waited += 1
        done.finished |= done.waited >= plan.patience


class _Mean:
    """Running mean of the parts of a loss, weighted by batch size; read from the device once per epoch."""

    def __init__(self):
        self.sums, self.n = {}, 0

    def add(self, parts: dict[str, Tensor], n: int) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + n * value.detach()
        self.n += n

    def values(self) -> dict[str, Tensor]:
        return {name: value / self.n for name, value in self.sums.items()}


def _same_buffers(fabric: Fabric, module: nn.Module) -> None:
    """Give all processes the first one's batch-norm statistics: they validate and save the same model."""
    if fabric.world_size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _seed(*entropy: int) -> None:
    words = np.random.SeedSequence([value + 1 for value in entropy]).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))


@contextmanager
def seeded(seed: int):
    """PyTorch's generators seeded inside the block and as they were after it."""
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(seed)
        yield


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))


@contextmanager
def _deterministic(device: torch.device):
    """Have CUDA add up in a fixed order; on the CPU nothing needs to change."""
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _progress_bar(title: str, epochs: int, done: int, shown: bool):
    """A bar over epochs; into the file named by RNATLAS_PROGRESS where that is set (headless notebooks)."""
    options = {"desc": title, "total": epochs, "initial": done, "unit": "epoch", "disable": not shown}
    path = os.environ.get("RNATLAS_PROGRESS")
    if not path:
        with auto_tqdm(**options) as bar:
            yield bar
        return
    with open(path, "a") as file, tqdm(file=file, mininterval=0.5, **options) as bar:
        yield bar


# Files ----------------------------------------------------------------------------------------------------


class _Store:
    """Checkpoint of one training: `checkpoint.json`, the tensors file that it names, and `history.csv`."""

    def __init__(self, checkpoints: Checkpoints, fingerprint: str, title: str):
        self.folder = None if checkpoints.folder is None else Path(checkpoints.folder)
        self.every = checkpoints.every
        self.fingerprint = fingerprint
        self.title = title

    def restore(self, module: nn.Module, optimiser) -> Progress:
        """Load what an earlier run left, or start afresh and say why."""
        if self.folder is None or not (self.folder / "checkpoint.json").exists():
            return Progress()
        try:
            record = json.loads((self.folder / "checkpoint.json").read_text())
            if record["fingerprint"] != self.fingerprint:
                return self._afresh("made with other settings or data")
            tensors = load_file(self.folder / record["tensors"])
            best = _under(tensors, "best") or None
            module.load_state_dict(_under(tensors, "weights"))
            _restore_optimiser(optimiser, _under(tensors, "optimiser"))
        except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
            return self._afresh(f"unreadable ({type(error).__name__})")
        device = next(module.parameters()).device
        best = best and {name: tensor.to(device) for name, tensor in best.items()}
        return Progress(**record["progress"], best=best)

    def _afresh(self, reason: str) -> Progress:
        print(f"{self.title}: checkpoint in {self.folder.name} not resumed, {reason}; starting afresh")
        return Progress()

    def save(self, module: nn.Module, optimiser, done: Progress) -> None:
        """After every epoch: the history; every few epochs and at the end: everything."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        history = pd.DataFrame(done.history).to_csv(index=False, lineterminator="\n")
        _replace(self.folder / "history.csv", history)
        if done.epoch % self.every and not done.finished:
            return
        # The record is renamed last and names its tensors: at no moment do the two disagree.
        tensors = self.folder / f"checkpoint-{done.epoch}.safetensors"
        _replace(
            tensors,
            _over("weights", module.state_dict()) | _optimiser_tensors(optimiser) | _over("best", done.best or {}),
        )
        progress = {name: value for name, value in vars(done).items() if name != "best"}
        record = {"fingerprint": self.fingerprint, "tensors": tensors.name, "progress": progress}
        _replace(self.folder / "checkpoint.json", json.dumps(record))
        for old in (*self.folder.glob("checkpoint-*.safetensors"), *self.folder.glob(".*.tmp")):
            if old != tensors:
                old.unlink()


def _over(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(f"{prefix}/"): t for n, t in tensors.items() if n.startswith(f"{prefix}/")}


def _optimiser_tensors(optimiser) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"optimiser/{i}/{name}": tensor for i, values in state.items() for name, tensor in values.items()}


def _restore_optimiser(optimiser, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _fingerprint(plan: Plan, settings: dict | None, samples: Samples, validation: Samples | None) -> str:
    """Hash of all that decides the weights; not of the device, so that a run can move to another machine."""
    plan_values = {name: value for name, value in asdict(plan).items() if name != "device"}
    what = [plan_values, settings, torch.__version__, samples.digest(), validation and validation.digest()]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


def _replace(path: Path, content: str | dict[str, Tensor]) -> None:
    """Write text or tensors under a temporary name, then rename: never a half-written file."""
    with replacing(path) as temporary:
        if isinstance(content, str):
            temporary.write_text(content)
        else:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in content.items()}, temporary)


def _stem(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        return path / "model"
    return path.with_suffix("") if path.suffix in (".safetensors", ".json") else path


def save_model(path: str | Path, kind: str, module: nn.Module, record: dict) -> None:
    """Write `<path>.safetensors` and `<path>.json` (`<path>/model.*` when path is a folder)."""
    stem = _stem(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    weights = stem.with_name(stem.name + ".safetensors")
    _replace(weights, module.state_dict())
    libraries = ("torch", "pyro-ppl", "lightning-fabric", "anndata", "numpy")
    record = {
        "kind": kind,
        "sha256": _sha256(weights),
        "versions": {"python": sys.version.split()[0]} | {n: importlib.metadata.version(n) for n in libraries},
        **record,
    }
    _replace(stem.with_name(stem.name + ".json"), json.dumps(record, indent=1))


def load_model(path: str | Path, kind: str) -> tuple[dict, dict[str, Tensor]]:
    """Read what `save_model` wrote: (record, tensors). Nothing in the files is executed.

    FileNotFoundError when a file is missing; ValueError when it is another kind of model or does not hold
    together.
    """
    stem = _stem(path)
    description, weights = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".safetensors")
    for file in (description, weights):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file, expected a saved {kind} (.safetensors and .json)")
    try:
        record = json.loads(description.read_text())
    except ValueError as error:
        raise ValueError(f"{description}: not valid JSON, expected the description of a {kind}") from error
    found = record.get("kind") if isinstance(record, dict) else None
    if found != kind:
        raise ValueError(f"{description}: found kind {found!r}, expected {kind!r}")
    if record["sha256"] != _sha256(weights):
        raise ValueError(f"{weights}: not the file that {description.name} describes (sha256); save again")
    return record, load_file(weights)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
