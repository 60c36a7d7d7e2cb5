"""Foundation models without fine-tuning (paper B, Fig 5 and 6): scGPT and BulkFormer from the authors' checkpoints.

Their weights are on Google Drive, where a person has to fetch them (data/sources.yaml, role `checkpoint`, says where).
What lies in data/raw/checkpoints/{scgpt,bulkformer}/ is used; of what doesn't, that is said and nothing else.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from lib import config
from lib.files import replacing
from lib.metrics.classification import knn_predict
from lib.models import bulkformer, pretrained, scgpt
from lib.models.training import resolve_device

FOLDER = config.ROOT / "data" / "raw" / "checkpoints"
MODELS = ("scgpt", "bulkformer")
METRICS = {  # paper B: cosine for scGPT; for BulkFormer Euclidean in the paper, cosine in its repository
    "scgpt": ("cosine",),
    "bulkformer": ("euclidean", "cosine"),
}
BESIDE = {"scgpt": scgpt.FILES[:2], "bulkformer": (*bulkformer.FILES, bulkformer.POOLED)}  # decide results too
BATCH = {"scgpt": 16, "bulkformer": 2}  # about 1 GB of activations at the published sizes
LARGEST_LOG2 = 30  # log2(TPM+1) ends at 19.93; far above that, values are counts or TPM
TEST_TABLE = "test_clin.csv"  # of the deposit
TARGET_ORDER = (
    "The deposit does not say in which order TARGET's embeddings are: they are taken in the order of TARGET's "
    "expression file, so BulkFormer's shares by group hold only if that is right."
)
LATEST = {"model.pt", "model_config.json", "gene_vocab.csv"}  # files of bulkformer-latest


@dataclass(frozen=True)
class Checkpoint:
    """What was found of a checkpoint: its weights file (or where it should be) and what keeps it from being used."""

    model: str
    weights: Path
    missing: tuple[str, ...] = ()
    problem: str = ""

    @property
    def usable(self) -> bool:
        return not self.missing and not self.problem

    def in_words(self) -> str:
        state = self.problem or (f"lacks {', '.join(self.missing)}" if self.missing else "complete")
        return f"{self.model}, {self.weights.name}: {state}"


def available(folder: str | Path = FOLDER) -> list[Checkpoint]:
    """The checkpoints in `folder`/scgpt and `folder`/bulkformer, each with the files that it lacks; weights unread.

    An empty list where neither folder holds a file.
    """
    folder = Path(folder)
    return [*_scgpt_checkpoints(folder / "scgpt"), *_bulkformer_checkpoints(folder / "bulkformer")]


def _names(folder: Path) -> set[str]:
    hidden = (".", "README")
    return {p.name for p in folder.iterdir() if not p.name.startswith(hidden)} if folder.is_dir() else set()


def _scgpt_checkpoints(folder: Path) -> list[Checkpoint]:
    names = _names(folder)
    missing = tuple(name for name in scgpt.FILES if name not in names)
    return [Checkpoint("scgpt", folder / "best_model.pt", missing)] if names else []


def _bulkformer_checkpoints(folder: Path) -> list[Checkpoint]:
    names = _names(folder)
    if not names:
        return []
    missing = tuple(name for name in bulkformer.FILES if name not in names)
    if names >= LATEST:
        problem = "bulkformer-latest (October 2026), another architecture than the one paper B used; not supported"
        return [Checkpoint("bulkformer", folder / "model.pt", problem=problem)]
    known = pretrained.manifest("bulkformer")
    shared = {*known["files"], *known["files_not_used_here"], *known["optional_files"]}
    weights = sorted(name for name in names - shared if name.endswith(".pt"))
    if not weights:
        return [Checkpoint("bulkformer", folder / "BulkFormer_93M.pt", ("BulkFormer_93M.pt", *missing))]
    return [Checkpoint("bulkformer", folder / name, missing) for name in weights]


def embed(
    adata: ad.AnnData,
    checkpoint_dir: str | Path,
    model: str = "scgpt",
    batch_size: int | None = None,
    device: str = "auto",
    *,
    seed: int = 0,
    z_scored: bool = False,
    min_overlap: float = 0.5,
) -> np.ndarray:
    """Embeddings of samples by a published model as it is: samples × width, float32.

    adata: X log2(TPM+1) of a compendium, genes by HGNC symbol (BulkFormer: or by Ensembl id); genes marked in
    var.missing count as absent. checkpoint_dir: the authors' files in one folder, or one weights file in it. model:
    "scgpt" (width 512 for the whole-human checkpoint; paper B says 768) or "bulkformer" (515 for 93M, 643 for 147M).
    batch_size: samples at a time; memory grows with it.

    scGPT sees the rank of a sample's expressed genes (51 bins), and of more than 1,199 a random subset by `seed`;
    z_scored: X holds z-scores, as paper B gave them to scGPT: all genes then count as expressed. BulkFormer sees
    ln(TPM+1) of all its genes, absent ones marked as missing. min_overlap: smallest share of adata's genes that
    scGPT must know, and of BulkFormer's genes that adata must have.

    Raises FileNotFoundError for missing files, and ValueError for files of another layout or architecture, for
    expression on another scale and for too few genes in common. Sources: as lib.models.scgpt and .bulkformer.
    """
    if model not in MODELS:
        raise ValueError(f"model: found {model!r}, expected one of {', '.join(MODELS)}")
    if z_scored and model != "scgpt":
        raise ValueError(f"z_scored: found True for {model}, expected it for scgpt only")
    batch_size = BATCH[model] if batch_size is None else batch_size
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size!r}, expected a whole number from 1")
    device = resolve_device(device)
    if "missing" in adata.var:
        adata = adata[:, ~adata.var["missing"].to_numpy(bool)]
    if model == "scgpt":
        found = _embed_scgpt(adata, Path(checkpoint_dir), batch_size, device, seed, z_scored, min_overlap)
    else:
        found = _embed_bulkformer(adata, Path(checkpoint_dir), batch_size, device, min_overlap)
    if not np.isfinite(found).all():
        raise ValueError(f"{checkpoint_dir}: found embeddings that are not finite, expected weights of a trained model")
    return found


def _embed_scgpt(adata, path: Path, batch_size, device, seed, z_scored, min_overlap) -> np.ndarray:
    loaded = scgpt.load(path if path.is_dir() or not path.exists() else path.parent)
    rows = np.array([loaded.tokens.get(str(gene), -1) for gene in adata.var_names])
    known = rows >= 0
    _check_overlap(known.sum(), len(known), "of adata's genes are in scGPT's vocabulary", min_overlap)

    def expression(start: int, stop: int) -> np.ndarray:
        return _block(adata, start, stop, z_scored)[:, known]

    return scgpt.embed(loaded, expression, list(adata.obs_names), rows[known], batch_size, device, seed)


def _embed_bulkformer(adata, path: Path, batch_size, device, min_overlap) -> np.ndarray:
    loaded = bulkformer.load(_weights_file(path))
    columns = _columns(adata, loaded.genes)
    _check_overlap((columns >= 0).sum(), len(columns), "of BulkFormer's genes are in adata", min_overlap)

    def expression(start: int, stop: int) -> np.ndarray:
        return _block(adata, start, stop) * np.float32(math.log(2))

    return bulkformer.embed(loaded, expression, adata.n_obs, columns, batch_size, device)


def _weights_file(path: Path) -> Path:
    """The one BulkFormer weights file of a folder, or the file itself."""
    if path.is_file():
        return path
    found = _bulkformer_checkpoints(path)
    if not found or found[0].weights.name in found[0].missing:
        raise FileNotFoundError(f"{path}: found no BulkFormer weights (BulkFormer_93M.pt, …), expected them")
    if len(found) > 1:
        names = ", ".join(checkpoint.weights.name for checkpoint in found)
        raise ValueError(f"checkpoint_dir: found {names} in {path}, expected the path of one of them")
    if found[0].problem:
        raise ValueError(f"{path}: found {found[0].problem}, expected BulkFormer of December 2025")
    return found[0].weights


def _columns(adata: ad.AnnData, genes) -> np.ndarray:
    """Of every gene of BulkFormer, its column in adata, or -1."""
    names = adata.var_names.astype(str)
    by_id = names.str.startswith("ENSG").mean() > 0.5
    names = names.str.split(".").str[0] if by_id else names
    column = {name: i for i, name in reversed(list(enumerate(names)))}  # of several, the first
    return np.array([column.get(gene, -1) for gene in genes["ensg_id" if by_id else "gene_symbol"]])


def _check_overlap(common: int, of: int, what: str, least: float) -> None:
    if common < max(1, least * of):
        raise ValueError(f"adata.var_names: {common:,} of {of:,} {what}, expected at least {least:.0%}")


def _dense(adata: ad.AnnData, start: int, stop: int) -> np.ndarray:
    X = adata.X[start:stop]
    return np.asarray(X.toarray() if sp.issparse(X) else X, dtype=np.float32)


def _block(adata: ad.AnnData, start: int, stop: int, z_scored: bool = False) -> np.ndarray:
    """Expression of some samples, float32; ValueError for values that are not log2(TPM+1)."""
    X = _dense(adata, start, stop)
    if not np.isfinite(X).all():
        raise ValueError("adata.X: found values that are not finite, expected numbers")
    low, high = X.min(initial=0), X.max(initial=0)
    if not z_scored and (low < 0 or high > LARGEST_LOG2):
        raise ValueError(f"adata.X: found values from {low:.3g} to {high:.3g}, expected log2(TPM+1)")
    return X


# --- calls --------------------------------------------------------------------------------------------------


@dataclass
class ZeroShot:
    """Calls by method (label of every query sample), the width of each method's embedding, and what to print."""

    calls: dict[str, np.ndarray] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def zero_shot_calls(
    reference: ad.AnnData,
    labels: np.ndarray,
    query: ad.AnnData,
    folder: str | Path = FOLDER,
    models: tuple[str, ...] = MODELS,
    *,
    k: int = 5,
    per_label: int | None = None,
    keep: str | Path | None = None,
    z_scored: bool = False,
    device: str = "auto",
    seed: int = 0,
) -> ZeroShot:
    """Labels of `query` by the k nearest `reference` samples in each found checkpoint's embedding (paper B, Methods).

    reference, query: as for `embed`; labels: of the reference samples. Nearest by `METRICS`. per_label: take at most
    so many reference samples of a label, by `seed` (on one CPU core, BulkFormer-93M takes a minute per sample and
    scGPT four seconds). keep: folder in which embeddings are kept, and looked for. z_scored: both hold z-scores, as
    paper B gave them to scGPT; BulkFormer can't be given them. A checkpoint that is missing,
    incomplete or refused adds a sentence to `notes` and no calls: draw no bar for it.
    """
    result = ZeroShot()
    found = [checkpoint for checkpoint in available(folder) if checkpoint.model in models]
    for model in models:
        if model not in {checkpoint.model for checkpoint in found}:
            result.notes.append(f"{_title(model)}: no checkpoint in {_place(folder)}/{model}, so it was not run.")
    labels = np.asarray(labels, dtype=str)
    chosen = _thinned(labels, per_label, seed)
    if found and len(chosen) < len(labels):
        what = f"{per_label} reference samples per label, {len(chosen):,} of {len(labels):,}"
        result.notes.append(f"Zero-shot calls use at most {what}.")
    for checkpoint in found:
        try:
            if not checkpoint.usable:
                raise ValueError(checkpoint.in_words())
            options = {"device": device, "seed": seed, "z_scored": z_scored}
            near, far = (_kept_embedding(a, checkpoint, keep, options) for a in (reference[chosen], query))
        except (ValueError, OSError) as error:
            result.notes.append(f"{_title(checkpoint.model)} was not run: {error}.")
            continue
        for metric in METRICS[checkpoint.model]:
            given = " of z-scores" if z_scored else ""
            method = f"{_title(checkpoint.model, checkpoint.weights)} zero-shot{given} + kNN ({metric})"
            result.calls[method] = knn_predict(near, labels[chosen], far, k, metric)
            result.widths[method] = near.shape[1]
    return result


def deposited_calls(folder: str | Path, labels: pd.Series, n_query: int, k: int = 5) -> ZeroShot:
    """The same from the BulkFormer-93M embeddings that paper B's authors deposited, without a checkpoint.

    folder: holds ref_emb_bf93M.npy (the test split, in the order of test_clin.csv) and tgt_emb_bf93M.npy (TARGET, in
    an order that the deposit does not say: the calls are in the file's). labels: tissue by sample of the test split, in
    the expression file's order, which stands in where there is no test_clin.csv; NaN leaves a sample out. n_query:
    samples of TARGET. The notes say which orders were assumed. Raises FileNotFoundError, and ValueError for another
    number of rows or other samples.
    """
    folder, notes = Path(folder), [TARGET_ORDER]
    if (folder / TEST_TABLE).is_file():
        labels = labels.reindex(_same_samples(folder / TEST_TABLE, labels.index))
    else:
        notes.append(
            f"The deposit has no {TEST_TABLE} here: its test samples are taken in the expression file's order."
        )
    wanted = {"ref_emb_bf93M.npy": len(labels), "tgt_emb_bf93M.npy": n_query}
    near, far = (_deposited(folder / name, n) for name, n in wanted.items())
    names = {f"BulkFormer-93M as deposited + kNN ({metric})": metric for metric in METRICS["bulkformer"]}
    named = labels.notna().to_numpy()
    tissues = labels[named].to_numpy(dtype=str)
    calls = {name: knn_predict(near[named], tissues, far, k, metric) for name, metric in names.items()}
    return ZeroShot(calls, dict.fromkeys(names, near.shape[1]), notes)


def _same_samples(table: Path, samples: pd.Index) -> pd.Index:
    """Sample ids of a deposited table, in its order; ValueError unless they are `samples`."""
    order = pd.Index(pd.read_csv(table, usecols=[0], dtype=str, keep_default_na=False).iloc[:, 0])
    if order.has_duplicates or set(order) != set(samples):
        odd = next(iter([*order[order.duplicated()], *order.symmetric_difference(samples)]))
        raise ValueError(f"{table}: found {len(order):,} samples ({odd} …), expected the {len(samples):,} of gex.h5")
    return order


def _deposited(path: Path, n: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected embeddings that paper B's authors deposited")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: found no plain array ({error}), expected {n} × features") from None
    if found.ndim != 2 or len(found) != n or found.dtype.kind != "f":
        raise ValueError(f"{path}: found {found.dtype} of shape {found.shape}, expected {n} × features")
    return found


def _thinned(labels: np.ndarray, per_label: int | None, seed: int) -> np.ndarray:
    """Positions of at most `per_label` samples of every label, in their order."""
    if per_label is None:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:per_label] for label in np.unique(labels)]))


def _kept_embedding(adata: ad.AnnData, checkpoint: Checkpoint, keep, options: dict) -> np.ndarray:
    """`embed`, or what it gave before for the same samples, values, weights and options."""
    if keep is None:
        return embed(adata, checkpoint.weights, checkpoint.model, **options)
    files = [checkpoint.weights, *(checkpoint.weights.with_name(name) for name in BESIDE[checkpoint.model])]
    digests = [pretrained.sha256(file) for file in files if file.is_file()]
    key = hashlib.sha256(f"{checkpoint.model} {options}".encode())
    for part in (*digests, *adata.obs_names, *adata.var_names, *adata.var.get("missing", ())):
        key.update(f"{part}\n".encode())
    for start in range(0, adata.n_obs, 1024):
        key.update(np.ascontiguousarray(_dense(adata, start, start + 1024)))
    path = Path(keep) / f"{checkpoint.model}-{key.hexdigest()[:16]}.safetensors"
    if path.is_file():
        return load_file(path)["embedding"]
    found = embed(adata, checkpoint.weights, checkpoint.model, **options)
    with replacing(path) as temporary:
        save_file({"embedding": found}, temporary)
    return found


def _title(model: str, weights: Path | None = None) -> str:
    if model == "scgpt" or weights is None:
        return {"scgpt": "scGPT", "bulkformer": "BulkFormer"}[model]
    sizes = [size for size in pretrained.manifest("bulkformer")["family"] if size.lower() in weights.stem.lower()]
    return f"BulkFormer-{sizes[-1]}" if sizes else weights.stem


def _place(folder: str | Path) -> str:
    folder = Path(folder)
    return folder.relative_to(config.ROOT).as_posix() if folder.is_relative_to(config.ROOT) else folder.as_posix()
