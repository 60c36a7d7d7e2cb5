"""BulkFormer, zero-shot: a sample's embedding is the mean over its genes' states, from the authors' files.

Source: Kang et al. 2025 (KangBoming/BulkFormer, the family of December 2025: 37M … 147M), written anew in plain
PyTorch: a graph convolution over genes, then Performer layers (FAVOR+ attention, linear in the number of genes).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.models import pretrained
from lib.models.pretrained import Weights

GENES, EDGES, EDGE_WEIGHTS = "bulkformer_gene_info.csv", "G_tcga.pt", "G_tcga_weight.pt"
POOLED = "interested_gene_list.pt"
FILES = (GENES, EDGES, EDGE_WEIGHTS)
MISSING = -10.0  # the value of a gene that the data lack
KERNEL_EPSILON = 1e-4
CHUNK = 4096  # genes whose wide hidden layers are held at a time
BLOCK = "gb_formers.0"
STATISTICS = 3  # share of genes missing, mean of the others, share that are not zero


@dataclass(frozen=True)
class BulkFormer:
    """A checkpoint in memory: its name ("93M"), genes in its order, graph, weights, positions of the genes averaged."""

    name: str
    sizes: dict[str, int]
    genes: pd.DataFrame
    graph: Tensor
    weights: Weights
    pooled: Tensor

    @property
    def width(self) -> int:
        return self.sizes["width"] + STATISTICS


def load(path: str | Path) -> BulkFormer:
    """A weights file (BulkFormer_93M.pt, …) with the family's shared files beside it.

    Raises FileNotFoundError for a missing file and ValueError where one differs from the published layout; later
    and earlier architectures are refused by name.
    """
    path, known = Path(path), pretrained.manifest("bulkformer")

    def accept(content: object) -> dict[str, Tensor]:
        tensors = _known_architecture(path, content, known)
        sizes = _sizes(path, tensors, known)
        used, unused = (pretrained.layout(known[part], sizes) for part in ("tensors", "not_used_here"))
        pretrained.check_layout(path, tensors, used, unused)
        return {name: tensors[name] for name in used}

    weights = pretrained.read_weights(path, accept)
    sizes = _sizes(path, weights, known)
    pretrained.check_layout(path.with_suffix(".safetensors"), weights, pretrained.layout(known["tensors"], sizes))
    shape = {"width": sizes["width"], "layers": sizes["layers"]}
    name = next((name for name, member in known["family"].items() if member == shape), "of another size")
    genes = _genes(path.with_name(GENES), sizes["genes"])
    graph, pooled = _graph(path, len(genes)), _pooled(path.with_name(POOLED), len(genes))
    return BulkFormer(name, sizes, genes, graph, weights, pooled)


def _known_architecture(path: Path, content: object, known: dict) -> dict[str, Tensor]:
    names = {str(name).removeprefix("module.") for part in _levels(content) for name in part}
    for architecture, marks in known["other_architectures"].items():
        if set(marks) <= names:
            family = ", ".join(known["family"])
            raise ValueError(f"{path}: found {architecture}, expected BulkFormer of December 2025 ({family})")
    return {name.removeprefix("module."): t for name, t in pretrained.state_dict(path, content).items()}


def _levels(content: object) -> list[dict]:
    """A file's dictionary, and the dictionaries in it."""
    if not isinstance(content, dict):
        return []
    return [content, *(value for value in content.values() if isinstance(value, dict))]


def _sizes(path: Path, tensors: dict[str, Tensor], known: dict) -> dict[str, int]:
    table, heads = tensors.get("gene_emb_onehot_layer.weight"), known["published"]["heads"]
    if table is None or table.ndim != 2 or table.shape[1] % heads:
        shown = ", ".join(sorted(tensors)[: pretrained.SHOWN])
        raise ValueError(f"{path}: found {shown} …, expected gene_emb_onehot_layer.weight (genes × width)")
    layers = {int(m[1]) for n in tensors if (m := re.match(rf"{BLOCK}\.f\.(\d+)\.net\.", n))}
    genes, width = table.shape
    published = [member["layers"] for member in known["family"].values() if member["width"] == width]
    if published and len(layers) not in published:
        expected = " or ".join(map(str, published))
        raise ValueError(f"{path}: found {len(layers)} of the layers at width {width}, expected {expected}")
    head = width // heads
    return {
        "genes": genes,
        "width": width,
        "layers": len(layers),
        "heads": heads,
        "head": head,
        "features": int(head * math.log(head)),  # performer-pytorch's default
        "frequencies": width // 2,
        "outputs": width + STATISTICS,
    }


def _genes(path: Path, n: int) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected BulkFormer's genes in their order")
    try:
        table = pd.read_csv(path, dtype=str)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: found no readable table ({reason}), expected BulkFormer's genes") from None
    columns = ["gene_symbol", "ensg_id"]
    if not set(columns) <= set(table):
        raise ValueError(f"{path}: found columns {', '.join(table.columns)}, expected {' and '.join(columns)}")
    if len(table) != n or table["ensg_id"].duplicated().any():
        found = f"{len(table)} rows, {table['ensg_id'].nunique()} of them different"
        raise ValueError(f"{path}: found {found}, expected the {n} genes of the weights")
    return table[columns]


def _graph(weights_path: Path, n: int) -> Tensor:
    """Normalised adjacency, genes × genes, sparse: D^-1/2 A D^-1/2, D the sum of the weights that a gene receives."""
    path = weights_path.with_name(EDGES)
    edges, strengths = (pretrained.read_pickle(path.with_name(name)) for name in (EDGES, EDGE_WEIGHTS))
    if isinstance(edges, list | tuple) and all(isinstance(e, Tensor) for e in edges):
        edges = torch.stack(list(edges)) if len({e.shape for e in edges}) == 1 else None
    if not isinstance(edges, Tensor) or edges.ndim != 2 or len(edges) != 2 or edges.is_floating_point():
        found = tuple(edges.shape) if isinstance(edges, Tensor) else type(edges).__name__
        raise ValueError(f"{path}: found {found}, expected 2 × edges, the positions of genes")
    if edges.numel() and not 0 <= edges.min() <= edges.max() < n:
        raise ValueError(f"{path}: found positions {edges.min()} to {edges.max()}, expected 0 to {n - 1}")
    if not isinstance(strengths, Tensor) or strengths.numel() != edges.shape[1] or (strengths < 0).any():
        found = f"{tuple(strengths.shape)}" if isinstance(strengths, Tensor) else type(strengths).__name__
        raise ValueError(f"{path.with_name(EDGE_WEIGHTS)}: found {found}, expected {edges.shape[1]} weights from 0 up")
    to, of = edges
    strengths = strengths.flatten().float()
    received = torch.zeros(n).index_add_(0, to, strengths)
    scale = torch.where(received > 0, received.rsqrt(), 0.0)
    values = scale[to] * strengths * scale[of]
    return torch.sparse_coo_tensor(edges, values, (n, n), check_invariants=True).coalesce()  # double edges summed


def _pooled(path: Path, n: int) -> Tensor:
    """Positions of the genes that a sample's embedding averages: the authors' list where it is there, else all."""
    if not path.is_file():
        return torch.arange(n)
    positions = pretrained.read_pickle(path)
    is_list = isinstance(positions, list) and all(type(p) is int for p in positions)
    chosen = torch.tensor(positions) if is_list else positions
    if not isinstance(chosen, Tensor) or chosen.is_floating_point() or not chosen.numel():
        raise ValueError(f"{path}: found {type(positions).__name__}, expected positions of genes, whole numbers from 0")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"{path}: found positions {chosen.min()} to {chosen.max()}, expected 0 to {n - 1}")
    return chosen.long().flatten()


# --- the network --------------------------------------------------------------------------------------------


def encode(model: BulkFormer, x: Tensor) -> Tensor:
    """Embeddings, samples × (width + 3): the mean over the averaged genes of their states, then three statistics.

    x: samples × genes in the model's order, ln(TPM+1), `MISSING` for genes that the data lack. The statistics are
    the share of genes missing in the batch's first sample (all lack the same), the mean of the others, and the
    share that are not zero, missing ones included.
    """
    w, missing = model.weights, x == MISSING
    identity = _mlp(w, "gene_emb_proj", w["gene_emb_onehot_layer.weight"])
    h = _expression(w, x, missing) + identity + _mlp(w, "global_expr_proj", x).unsqueeze(1)
    h = w.norm(f"{BLOCK}.layernorm", _in_chunks(lambda part: _mlp(w, "x_proj", part), h))
    h = h + _convolution(w, model.graph, h)
    for layer in range(model.sizes["layers"]):
        h = _performer(w, f"{BLOCK}.f.{layer}.net.layers.0", h, model.sizes["heads"])
    states = w.norm("layernorm", h)[:, model.pooled].mean(1)
    observed = (~missing).float()
    mean = (x * observed).sum(1) / (observed.sum(1) + 1e-8)
    statistics = torch.stack([missing[0].float().mean().expand(len(x)), mean, (x != 0).float().mean(1)], dim=1)
    return torch.cat([states, statistics], dim=1)


def _mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    return w.linear(f"{name}.2", F.relu(w.linear(f"{name}.0", x)))


def _in_chunks(layer, h: Tensor) -> Tensor:
    """A layer that treats every gene alone, for some genes at a time: its hidden layer is four times as wide."""
    return torch.cat([layer(part) for part in h.split(CHUNK, dim=1)], dim=1)


def _expression(w: Weights, x: Tensor, missing: Tensor) -> Tensor:
    """Rotary code of the values: sine, then cosine, of value × frequency; zero for missing genes."""
    angle = x.unsqueeze(-1) * w["expr_emb.inv_freq"]
    return torch.cat([angle.sin(), angle.cos()], dim=-1).masked_fill(missing.unsqueeze(-1), 0)


def _convolution(w: Weights, graph: Tensor, h: Tensor) -> Tensor:
    """Graph convolution (Kipf and Welling), without self-loops."""
    projected = w.linear(f"{BLOCK}.g.lin", h)
    mixed = graph @ projected.transpose(0, 1).reshape(h.shape[1], -1)  # genes × (samples · width)
    return mixed.view(h.shape[1], len(h), -1).transpose(0, 1) + w[f"{BLOCK}.g.bias"]


def _performer(w: Weights, name: str, h: Tensor, heads: int) -> Tensor:
    """One Performer layer: attention and a feed-forward network, each after a norm and around a shortcut."""
    normed, attention = w.norm(f"{name}.0.norm", h), f"{name}.0.fn"
    q, k, v = (w.linear(f"{attention}.to_{part}", normed).chunk(heads, dim=-1) for part in "qkv")
    features = w[f"{attention}.fast_attention.projection_matrix"]
    # one head at a time: the random features are wider than the head they stand for
    mixed = [_linear_attention(*parts, features) for parts in zip(q, k, v, strict=True)]
    h = h + w.linear(f"{attention}.to_out", torch.cat(mixed, dim=-1))

    def feed_forward(part: Tensor) -> Tensor:
        return w.linear(f"{name}.1.fn.fn.w2", F.gelu(w.linear(f"{name}.1.fn.fn.w1", w.norm(f"{name}.1.norm", part))))

    return h + _in_chunks(feed_forward, h)


def _linear_attention(q: Tensor, k: Tensor, v: Tensor, features: Tensor) -> Tensor:
    """FAVOR+ attention of one head (Choromanski et al. 2021): softmax approximated by positive random features."""
    q, k = _kernel(q, features, (-1,)), _kernel(k, features, (-1, -2))
    context, total = k.transpose(-1, -2) @ v, k.sum(-2).unsqueeze(-1)
    return (q @ context) / (q @ total)


def _kernel(x: Tensor, features: Tensor, over: tuple[int, ...]) -> Tensor:
    """Positive random features of queries or keys, scaled by their largest exponent over the dimensions `over`."""
    x = x * x.shape[-1] ** -0.25
    exponent = x @ features.T
    exponent -= x.square().sum(-1, keepdim=True) / 2 + exponent.amax(over, keepdim=True)
    return (exponent.exp() + KERNEL_EPSILON) * len(features) ** -0.5


def embed(model: BulkFormer, rows, n: int, columns: np.ndarray, batch_size: int, device: str) -> np.ndarray:
    """Embeddings, samples × (width + 3), float32.

    rows(start, stop): ln(TPM+1) of these samples; columns: of every gene of the model, its column there, or -1.
    """
    found = np.empty((n, model.width), np.float32)
    weights, graph, pooled = model.weights.to(device), model.graph.to(device), model.pooled.to(device)
    model = BulkFormer(model.name, model.sizes, model.genes, graph, weights, pooled)
    for start in range(0, n, batch_size):
        block = rows(start, start + batch_size)
        x = np.where(columns >= 0, block[:, columns], np.float32(MISSING))
        with torch.inference_mode():
            found[start : start + batch_size] = encode(model, torch.from_numpy(x).to(device)).cpu().numpy()
    return found
