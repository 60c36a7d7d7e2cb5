"""scGPT, zero-shot: the embedding of a sample's `<cls>` token, from the authors' checkpoint folder.

Source: Cui et al., Nature Methods 2024 (bowang-lab/scGPT, scgpt.tasks.embed_data), written anew in plain PyTorch.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.models import pretrained
from lib.models.pretrained import Weights

FILES = ("args.json", "vocab.json", "best_model.pt")
PAD, CLS = "<pad>", "<cls>"
LARGEST_VALUE = 512  # the value encoder clips above


@dataclass(frozen=True)
class ScGPT:
    """A checkpoint in memory: sizes and settings by the manifest's names, row of every token, weights."""

    sizes: dict[str, int]
    tokens: dict[str, int]
    weights: Weights

    @property
    def width(self) -> int:
        return self.sizes["width"]


def load(folder: str | Path) -> ScGPT:
    """A checkpoint folder with args.json, vocab.json and best_model.pt.

    Raises FileNotFoundError for a missing file and ValueError where a file differs from the published layout.
    """
    folder, known = Path(folder), pretrained.manifest("scgpt")
    tokens = _tokens(folder / "vocab.json")
    sizes = _settings(folder / "args.json", known) | {"vocabulary": len(tokens)}
    path = folder / "best_model.pt"
    used, unused = (pretrained.layout(known[part], sizes) for part in ("tensors", "not_used_here"))

    def accept(content: object) -> dict[str, Tensor]:
        tensors = _renamed(pretrained.state_dict(path, content), known["renamed"])
        pretrained.check_layout(path, tensors, used, unused, tuple(known["ignored"]))
        return {name: tensors[name] for name in used}

    weights = pretrained.read_weights(path, accept)
    pretrained.check_layout(path.with_suffix(".safetensors"), weights, used)
    return ScGPT(sizes, tokens, weights)


def _settings(path: Path, known: dict) -> dict[str, int]:
    settings = _json(path)
    missing = [key for key in (*known["settings"], *known["must_be"]) if key not in settings]
    if missing:
        raise ValueError(f"{path}: found no {', '.join(missing)}, expected scGPT's settings")
    for key, value in known["must_be"].items():
        if settings[key] != value:
            raise ValueError(f"{path}: found {key} {settings[key]!r}, expected {value!r}")
    sizes = {name: settings[key] for key, name in known["settings"].items()}
    wrong = [k for k, name in known["settings"].items() if type(sizes[name]) is not int]
    positive = {name: size for name, size in sizes.items() if name != "pad_value"}
    if wrong or min(positive.values()) < 1 or sizes["width"] % sizes["heads"]:
        raise ValueError(f"{path}: found {sizes}, expected whole numbers, embsize a multiple of nheads")
    return sizes


def _tokens(path: Path) -> dict[str, int]:
    tokens = _json(path)
    rows = list(tokens.values())
    if not all(type(row) is int for row in rows) or sorted(rows) != list(range(len(rows))):
        raise ValueError(f"{path}: found {len(rows)} tokens, expected each with a row of its own from 0")
    missing = [token for token in (PAD, CLS) if token not in tokens]
    if missing:
        raise ValueError(f"{path}: found no {' and no '.join(missing)} among {len(rows)} tokens, expected both")
    return tokens


def _json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected {', '.join(FILES)} of scGPT in one folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: found no valid JSON ({error}), expected scGPT's {path.name}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: found {type(content).__name__}, expected scGPT's {path.name}")
    return content


def _renamed(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Names as published: attention saved without flash-attn, or by its later wrapper, is called otherwise."""
    for other, published in renamed.items():
        tensors = {name.replace(other, published): tensor for name, tensor in tensors.items()}
    return tensors


# --- a sample as tokens -------------------------------------------------------------------------------------


def quantile_bins(values: np.ndarray, n_bins: int, rng: np.random.Generator) -> np.ndarray:
    """Bin 1 … n_bins - 1 of a sample's expressed genes, by quantiles of that sample.

    Where several quantiles fall on one value, its genes are spread over those bins at random, as scGPT does.
    The bins depend on the genes' order only: counts, TPM and log2(TPM+1) of one sample give the same.
    """
    values = values.astype(np.float32)
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    upper, lower = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return np.ceil(upper + rng.random(len(values)) * (lower - upper))


def tokenise(row: np.ndarray, tokens: np.ndarray, model: ScGPT, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(tokens, values) of one sample: `<cls>`, then its expressed genes and their bins.

    row: expression of the genes whose token rows are `tokens`. Of more genes than the model takes (max_seq_len,
    `<cls>` included), a random subset is kept, as in scGPT's training.
    """
    expressed = np.flatnonzero(row)
    bins = quantile_bins(row[expressed], model.sizes["bins"], rng)
    room = model.sizes["length"] - 1
    kept = rng.permutation(len(expressed))[:room] if len(expressed) > room else slice(None)
    return (
        np.append(model.tokens[CLS], tokens[expressed][kept]),
        np.append(model.sizes["pad_value"], bins[kept]).astype(np.float32),
    )


def _padded(samples: list[tuple[np.ndarray, np.ndarray]], model: ScGPT) -> tuple[Tensor, Tensor]:
    length = max(len(tokens) for tokens, _ in samples)
    genes = torch.full((len(samples), length), model.tokens[PAD], dtype=torch.long)
    values = torch.full((len(samples), length), float(model.sizes["pad_value"]))
    for i, (tokens, bins) in enumerate(samples):
        genes[i, : len(tokens)] = torch.from_numpy(tokens)
        values[i, : len(bins)] = torch.from_numpy(bins)
    return genes, values


# --- the network --------------------------------------------------------------------------------------------


def encode(model: ScGPT, genes: Tensor, values: Tensor) -> Tensor:
    """`<cls>` outputs, samples × width; genes: token rows (samples × length), values: bins; `<pad>` is left out."""
    w = model.weights
    value = F.relu(w.linear("value_encoder.linear1", values.clamp(max=LARGEST_VALUE).unsqueeze(-1)))
    value = w.norm("value_encoder.norm", w.linear("value_encoder.linear2", value))
    gene = w.norm("encoder.enc_norm", F.embedding(genes, w["encoder.embedding.weight"]))
    x, attend = gene + value, (genes != model.tokens[PAD])[:, None, None, :]
    for layer in range(model.sizes["layers"]):
        name = f"transformer_encoder.layers.{layer}"
        x = w.norm(f"{name}.norm1", x + _attention(w, f"{name}.self_attn", x, attend, model.sizes["heads"]))
        x = w.norm(f"{name}.norm2", x + w.linear(f"{name}.linear2", F.relu(w.linear(f"{name}.linear1", x))))
    return x[:, 0]


def _attention(w: Weights, name: str, x: Tensor, attend: Tensor, heads: int) -> Tensor:
    samples, length, width = x.shape
    qkv = w.linear(f"{name}.Wqkv", x).view(samples, length, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
    return w.linear(f"{name}.out_proj", mixed.transpose(1, 2).reshape(x.shape))


def embed(model: ScGPT, rows, names, tokens: np.ndarray, batch_size: int, device: str, seed: int) -> np.ndarray:
    """Embeddings of unit length, samples × width, float32.

    rows(start, stop): expression of these samples, of the genes whose token rows are `tokens`; names: of the samples.
    A sample's random choices depend on `seed` and its name only: not on its batch, nor on the other samples.
    Raises ValueError naming a sample without an expressed gene.
    """
    model = ScGPT(model.sizes, model.tokens, model.weights.to(device))
    found = np.empty((len(names), model.width), np.float32)
    for start in range(0, len(names), batch_size):
        part = slice(start, start + batch_size)
        batch = []
        for name, row in zip(names[part], rows(start, start + batch_size), strict=True):
            if not row.any():
                raise ValueError(f"adata: sample {name} has no expressed gene among scGPT's, expected at least one")
            batch.append(tokenise(row, tokens, model, np.random.default_rng([seed, zlib.crc32(name.encode())])))
        genes, values = _padded(batch, model)
        with torch.inference_mode():
            found[part] = F.normalize(encode(model, genes.to(device), values.to(device)), dim=1).cpu().numpy()
    return found
