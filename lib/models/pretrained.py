"""Weights that others published: read without executing anything, and compared with the layout we know.

A manifest (`manifests/*.json`) names every tensor of a checkpoint with its dtype and its shape as a function of
the model's sizes. A file that differs from it in a name, a shape or a dtype is refused.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from lib.files import replacing

MANIFESTS = Path(__file__).parent / "manifests"
SHOWN = 3  # names listed in an error


class Weights(dict):
    """Tensors by their published names, and the layers that they make up."""

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self[f"{name}.weight"], self.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"])

    def to(self, device: str) -> Weights:
        return Weights({name: tensor.to(device) for name, tensor in self.items()})


def manifest(name: str) -> dict:
    """A committed manifest: "scgpt" or "bulkformer"."""
    return json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8"))


def layout(entries: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) that a manifest's entries mean for a model of these sizes.

    entries: "name with {layer}" -> "dtype size size …", a size being a number or a name in `sizes`, or k*name.
    """
    found = {}
    for name, entry in entries.items():
        dtype, *dimensions = entry.split()
        shape = tuple(_dimension(d, sizes) for d in dimensions)
        layers = range(sizes["layers"]) if "{layer}" in name else (0,)
        found |= {name.replace("{layer}", str(layer)): (dtype, shape) for layer in layers}
    return found


def _dimension(text: str, sizes: Mapping[str, int]) -> int:
    factor, _, name = text.rpartition("*")
    return int(factor or 1) * (int(name) if name.isdigit() else sizes[name])


def layout_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) as found."""
    return {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors.items()}


def check_layout(
    path: Path,
    tensors: Mapping[str, Tensor],
    needed: Mapping[str, tuple],
    unused: Mapping[str, tuple] | None = None,
    ignored: tuple[str, ...] = (),
) -> None:
    """ValueError in one line where `tensors` differ from the published layout in a name, a shape or a dtype.

    needed: what has to be there; unused: what may be there (heads for training), then in its own layout; ignored:
    beginnings of names that may stand for anything.
    """
    found, known = layout_of(tensors), {**needed, **(unused or {})}
    missing = sorted(set(needed) - set(found))
    unknown = sorted(name for name in set(found) - set(known) if not name.startswith(ignored))
    if missing or unknown:
        parts = [
            f"{what} {len(names)} of the weights ({', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''})"
            for what, names in (("lacks", missing), ("has unknown", unknown))
            if names
        ]
        raise ValueError(f"{path}: found a file that {' and '.join(parts)}, expected the published layout")
    for name in [name for name in known if name in found]:
        if found[name] != known[name]:
            raise ValueError(f"{path}: found {name} {_in_words(found[name])}, expected {_in_words(known[name])}")


def _in_words(dtype_and_shape: tuple[str, tuple[int, ...]]) -> str:
    dtype, shape = dtype_and_shape
    return f"{' × '.join(map(str, shape)) or 'one number'} {dtype}"


def read_pickle(path: Path):
    """Content of a PyTorch file made of tensors and plain containers; nothing in it is executed.

    Raises FileNotFoundError, and ValueError for a file that would need code to be run or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected a PyTorch file of tensors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old format, or a TorchScript archive: refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "objects that only code can build" if "GLOBAL" in str(error) or "class" in str(error) else "no tensors"
        raise ValueError(f"{path}: found {what}, expected tensors only; the file was not loaded") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path}: found a damaged file ({reason}), expected a PyTorch file of tensors") from None


def read_weights(path: Path, accept: Callable[[object], dict[str, Tensor]]) -> Weights:
    """The tensors that `accept` keeps of a published file, from `<name>.safetensors` beside it once converted.

    accept: content of the file -> tensors by name, or ValueError. A copy made from another file is made anew.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected a PyTorch file of tensors")
    copy, made_from = path.with_suffix(".safetensors"), sha256(path)
    if _made_from(copy) == made_from:
        return Weights(load_file(copy))
    # cloned, since tensors of one storage can't be kept as safetensors
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in accept(read_pickle(path)).items()}
    try:
        with replacing(copy) as temporary:
            save_file(tensors, temporary, metadata={"made_from": made_from})
    except OSError as error:
        warnings.warn(f"{copy}: not kept ({error.strerror}); the weights are converted again next time", stacklevel=2)
    return Weights(tensors)


def _made_from(copy: Path) -> str | None:
    """sha256 of the file that a safetensors copy was made from; None without a readable copy."""
    if not copy.is_file():
        return None
    try:
        with safe_open(copy, framework="pt") as file:
            return (file.metadata() or {}).get("made_from")
    except (SafetensorError, OSError):
        return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """A file's content as tensors by name; ValueError for anything else."""
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: found {type(content).__name__}, expected weights by name")
    others = [str(name) for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"{path}: found {', '.join(others[:SHOWN])}, which are no weights, expected tensors only")
    return dict(content)
