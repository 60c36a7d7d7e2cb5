"""Checkpoints of scGPT and BulkFormer in the authors' layout, small, for tests: random, or with given weights."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.models import pretrained

ARGS = {"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 2, "n_bins": 51, "max_seq_len": 1200, "pad_value": -2}
ARGS |= {"pad_token": "<pad>", "input_style": "binned", "input_emb_style": "continuous", "dropout": 0.2}


def random_tensors(entries, sizes, seed):
    """One tensor for every entry of a manifest."""
    generator = torch.Generator().manual_seed(seed)
    layout = pretrained.layout(entries, sizes).items()
    return {
        name: torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.5 if shape else torch.tensor(0)
        for name, (_, shape) in layout
    }


def write_scgpt(folder: Path, genes, weights=None, args=None, vocab=None, seed=0) -> Path:
    """args.json, vocab.json and best_model.pt; the vocabulary: genes, then the special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    args = ARGS | (args or {})
    vocab = vocab or {name: i for i, name in enumerate([*genes, "<pad>", "<cls>", "<eoc>"])}
    known = pretrained.manifest("scgpt")
    sizes = {name: args[key] for key, name in known["settings"].items()} | {"vocabulary": len(vocab)}
    weights = weights or random_tensors(known["tensors"] | known["not_used_here"], sizes, seed)
    (folder / "args.json").write_text(json.dumps(args))
    (folder / "vocab.json").write_text(json.dumps(vocab))
    torch.save(weights, folder / "best_model.pt")
    return folder


def write_bulkformer(
    folder: Path, symbols, weights=None, edges=None, strengths=None, width=32, layers=2, seed=0
) -> Path:
    """bulkformer_gene_info.csv, G_tcga.pt, G_tcga_weight.pt and BulkFormer_93M.pt, its names as DDP saves them."""
    folder.mkdir(parents=True, exist_ok=True)
    n, known = len(symbols), pretrained.manifest("bulkformer")
    if weights is None:
        sizes = {"genes": n, "width": width, "layers": layers, "head": width // 8, "outputs": width + 3}
        sizes |= {"features": int(width // 8 * np.log(width // 8)), "frequencies": width // 2}
        weights = random_tensors(known["tensors"] | known["not_used_here"], sizes, seed)
    if edges is None:
        rng = np.random.default_rng(seed)
        edges, strengths = torch.from_numpy(rng.integers(0, n, (2, 5 * n))), torch.from_numpy(rng.random(5 * n))
    second_names = {
        name.replace(".net.", ".proj_updater.instance."): t for name, t in weights.items() if ".net.layers." in name
    }
    torch.save({f"module.{name}": t for name, t in (weights | second_names).items()}, folder / "BulkFormer_93M.pt")
    torch.save(edges, folder / "G_tcga.pt")
    torch.save(strengths, folder / "G_tcga_weight.pt")
    table = pd.DataFrame({"gene_symbol": symbols, "ensg_id": [f"ENSG{i:011d}" for i in range(n)]})
    table.to_csv(folder / "bulkformer_gene_info.csv", index=False)
    return folder
