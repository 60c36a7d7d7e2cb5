"""Makes the golden files beside it, with the authors' own modules. Not run by the tests.

    python make.py BULKFORMER_SOURCE

in an environment of its own: torch 2.13.0, performer-pytorch 1.1.4, torch_geometric 2.8.1, safetensors, anndata, and
scgpt 0.2.4 installed without its dependencies (its __init__ is bypassed: only its model, collator and binning are
used, and they don't touch them). BULKFORMER_SOURCE: a checkout of github.com/KangBoming/BulkFormer at 5bcf5b9, whose
utils/ holds the model. Weights are random, every tensor of them, so that norms and biases count too.
"""

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
PAD, CLS, EOC = "<pad>", "<cls>", "<eoc>"
SCGPT = {"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 2, "n_layers_cls": 3, "dropout": 0.2, "max_seq_len": 1200}
SCGPT |= {"n_bins": 51, "pad_value": -2, "mask_value": -1, "pad_token": PAD}
SCGPT |= {"input_style": "binned", "input_emb_style": "continuous"}


def scgpt_module(name):
    """A module of the scgpt package without running its __init__, which imports all of its dependencies."""
    if "scgpt" not in sys.modules:
        package = types.ModuleType("scgpt")
        package.__path__ = importlib.util.find_spec("scgpt").submodule_search_locations
        import logging

        package.logger = logging.getLogger("scGPT")
        sys.modules["scgpt"] = package
        model = types.ModuleType("scgpt.model")
        model.__path__ = [f"{package.__path__[0]}/model"]
        sys.modules["scgpt.model"] = model
        sys.modules |= {name: types.ModuleType(name) for name in ("scanpy", "scanpy.get")}
        sys.modules["scanpy.get"]._get_obs_rep = sys.modules["scanpy.get"]._set_obs_rep = None
    return importlib.import_module(f"scgpt.{name}")


def random_weights(module, seed):
    """Every floating tensor drawn anew, of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                scale = 1 / np.sqrt(tensor.shape[-1]) if tensor.ndim > 1 else 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
                if tensor.ndim == 1:
                    tensor.add_(0.5)
    return module.eval()


def expression(samples, genes, seed):
    """log2(TPM+1) without ties, about a third of it zero."""
    rng = np.random.default_rng(seed)
    return (rng.gamma(2, 2, (samples, genes)) * (rng.random((samples, genes)) > 0.3)).astype(np.float32)


def make_scgpt():
    model_module = scgpt_module("model.model")
    collator = scgpt_module("data_collator").DataCollator
    genes = [f"GENE{i}" for i in range(57)]
    vocabulary = {name: i for i, name in enumerate([*genes, PAD, CLS, EOC])}
    settings = SCGPT
    model = model_module.TransformerModel(
        ntoken=len(vocabulary), d_model=settings["embsize"], nhead=settings["nheads"], d_hid=settings["d_hid"],
        nlayers=settings["nlayers"], nlayers_cls=settings["n_layers_cls"], n_cls=1, vocab=vocabulary,
        dropout=settings["dropout"], pad_token=PAD, pad_value=settings["pad_value"], do_mvc=True, do_dab=False,
        use_batch_labels=False, domain_spec_batchnorm=False, explicit_zero_prob=False, use_fast_transformer=False,
    )  # fmt: skip
    random_weights(model, 1)
    # as training saved it: attention under flash-attn's names, a flag embedding, no classifier
    weights = {k.replace("self_attn.in_proj_", "self_attn.Wqkv."): v for k, v in model.state_dict().items()}
    weights = {k: v for k, v in weights.items() if not k.startswith("cls_decoder.")}
    weights["flag_encoder.weight"] = torch.randn(2, settings["embsize"], generator=torch.Generator().manual_seed(2))
    X = expression(7, len(genes), 3)
    examples = [
        {
            "genes": torch.tensor([vocabulary[CLS], *np.flatnonzero(row)]),
            "expressions": torch.tensor([settings["pad_value"], *row[row > 0]], dtype=torch.float32),
        }
        for row in X
    ]
    batch = collator(do_padding=True, pad_token_id=vocabulary[PAD], pad_value=settings["pad_value"], do_mlm=False,
                     do_binning=True, max_length=1200, sampling=True, keep_first_n_tokens=1)(examples)  # fmt: skip
    with torch.no_grad():
        out = model._encode(batch["gene"], batch["expr"].float(), batch["gene"].eq(vocabulary[PAD]))[:, 0]
    out = out / out.norm(dim=1, keepdim=True)
    tensors = {f"weights/{k}": v.clone().contiguous() for k, v in weights.items()}
    tensors |= {"input": torch.from_numpy(X), "bins": batch["expr"].float(), "tokens": batch["gene"], "output": out}
    save_file(tensors, HERE / "scgpt.safetensors")
    (HERE / "scgpt.json").write_text(json.dumps({"args": settings, "vocab": vocabulary, "genes": genes}))


def bulkformer(source, **settings):
    sys.path.insert(0, str(source))
    from utils.BulkFormer import BulkFormer

    fixed = {"graph": None, "gene_emb": None, "bins": 0, "gb_repeat": 1, "bin_head": 12, "full_head": 8}
    return BulkFormer(**fixed, **settings)


def make_bulkformer(source):
    genes, width = 60, 32
    model = random_weights(bulkformer(source, dim=width, p_repeat=2, gene_length=genes), 4)
    frequencies = 1 / 100 ** (torch.arange(0, width, 2).float() / width)
    model.expr_emb.inv_freq.data.copy_(frequencies)
    rng = np.random.default_rng(5)
    # a directed graph; gene 7 receives nothing
    pairs = rng.permutation([(to, of) for to in range(genes) for of in range(genes) if to not in (of, 7)])[:300].T
    edges, strengths = torch.from_numpy(pairs.copy()), torch.from_numpy(rng.random(300).astype(np.float32))
    X = torch.from_numpy(expression(5, genes, 6) * np.float32(np.log(2)))
    X[:, [3, 11, 40]] = -10.0
    # The authors' graph is SparseTensor(row=edges[1], col=edges[0], value).t(), for PyG the transposed adjacency:
    # row 0 receives, row 1 sends. PyG's other form, (source, target) with weights, needs no torch_sparse.
    convolution, inner = model.gb_formers[0].g, model.gb_formers[0].g.forward
    convolution.forward = lambda x, graph: inner(x, edges.flip(0), strengths)
    with torch.no_grad():
        states = model(X, mask_prob=3 / genes)
    convolution.forward = inner
    if importlib.util.find_spec("torch_sparse"):
        from torch_geometric.typing import SparseTensor

        convolution._cached_edge_index = None
        model.graph = SparseTensor(row=edges[1], col=edges[0], value=strengths).t()
        with torch.no_grad():
            print("as SparseTensor, the states differ by", (model(X, mask_prob=3 / genes) - states).abs().max().item())
    # without performer-pytorch's second names for the same tensors, which the tests put back
    weights = {k: v for k, v in model.state_dict().items() if ".proj_updater.instance." not in k}
    tensors = {f"weights/{k}": v.clone() for k, v in weights.items()}
    tensors |= {"edges": edges.contiguous(), "strengths": strengths, "input": X}
    tensors |= {"output": states.mean(1), "of_genes_5_1_9": states[:, [5, 1, 9]].mean(1)}
    save_file(tensors, HERE / "bulkformer.safetensors")


def make_layouts(source):
    """Names, dtypes and shapes of the published sizes, as the authors' modules have them."""
    found = {}
    with torch.device("meta"):
        for name, (width, layers) in {"93M": (512, 6), "147M": (640, 12)}.items():
            settings = {"dim": width, "p_repeat": layers, "gene_length": 20010}
            found[f"BulkFormer-{name}"] = _layout(_on_cpu_where_needed(source, settings))
    (HERE / "layouts.json").write_text(json.dumps(found, indent=0))


def _on_cpu_where_needed(source, settings):
    with torch.device("cpu"):  # performer-pytorch draws its projection by a QR decomposition
        return bulkformer(source, **settings)


def _layout(module):
    return {k: [str(v.dtype).removeprefix("torch."), *v.shape] for k, v in module.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_scgpt()
    make_bulkformer(Path(sys.argv[1]))
    make_layouts(Path(sys.argv[1]))
