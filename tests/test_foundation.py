"""scGPT and BulkFormer against the authors' own modules (golden files), and what is refused."""

import json
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from foundation_files import ARGS, write_bulkformer, write_scgpt
from safetensors.torch import load_file

from lib import sources
from lib.metrics.classification import knn_predict
from lib.models import bulkformer, foundation, pretrained, scgpt

GOLDEN = Path(__file__).parent / "golden" / "foundation"
SYMBOLS = [f"GENE{i}" for i in range(60)]


def golden(name):
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    prefix = "weights/"
    weights = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    return weights, {key: t for key, t in tensors.items() if not key.startswith(prefix)}


def compendium(X, genes=SYMBOLS):
    names = [f"sample {i}" for i in range(len(X))]
    return ad.AnnData(np.asarray(X, np.float32), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=list(genes)))


def expression(n=6, genes=60, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.gamma(2, 2, (n, genes)) * (rng.random((n, genes)) > 0.3)).astype(np.float32)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The golden weights in the authors' files: (scGPT folder, BulkFormer folder)."""
    folder, info = tmp_path_factory.mktemp("checkpoints"), json.loads((GOLDEN / "scgpt.json").read_text())
    write_scgpt(folder / "scgpt", info["genes"], golden("scgpt")[0], info["args"], info["vocab"])
    weights, rest = golden("bulkformer")
    write_bulkformer(folder / "bulkformer", SYMBOLS, weights, rest["edges"], rest["strengths"])
    return folder


# --- the authors' arithmetic --------------------------------------------------------------------------------


def test_scgpt_equals_the_authors_model_and_collator(published):
    _, rest = golden("scgpt")
    adata = compendium(rest["input"], json.loads((GOLDEN / "scgpt.json").read_text())["genes"])
    found = foundation.embed(adata, published / "scgpt", "scgpt")
    assert found.dtype == np.float32 and found.shape == (7, 16)
    np.testing.assert_allclose(found, rest["output"], atol=1e-5)


def test_scgpt_tokens_and_bins_are_those_of_the_collator(published):
    _, rest = golden("scgpt")
    model = scgpt.load(published / "scgpt")
    rows = [scgpt.tokenise(row, np.arange(57), model, np.random.default_rng(0)) for row in rest["input"].numpy()]
    genes, values = scgpt._padded(rows, model)
    assert torch.equal(genes, rest["tokens"]) and torch.equal(values, rest["bins"])


def test_bulkformer_equals_the_authors_model(published):
    _, rest = golden("bulkformer")
    model = bulkformer.load(published / "bulkformer" / "BulkFormer_93M.pt")
    with torch.inference_mode():
        np.testing.assert_allclose(bulkformer.encode(model, rest["input"]), rest["output"], atol=1e-5)


def test_bulkformer_marks_absent_genes_and_takes_the_natural_logarithm(published):
    _, rest = golden("bulkformer")
    present = [i for i in range(60) if i not in (3, 11, 40)][::-1]  # in another order, with a gene it doesn't know
    X = np.hstack([rest["input"].numpy()[:, present] / np.log(2), np.ones((5, 1))])
    adata = compendium(X, [*(SYMBOLS[i] for i in present), "NOT1"])
    found = foundation.embed(adata, published / "bulkformer", "bulkformer")
    np.testing.assert_allclose(found, rest["output"], atol=1e-5)
    adata.var_names = [*(f"ENSG{i:011d}.4" for i in present), "ENSG99999999999"]
    np.testing.assert_allclose(
        foundation.embed(adata, published / "bulkformer", "bulkformer"), rest["output"], atol=1e-5
    )


def test_bulkformer_averages_the_authors_list_of_genes_where_it_is_there(tmp_path):
    weights, rest = golden("bulkformer")
    folder = write_bulkformer(tmp_path, SYMBOLS, weights, rest["edges"], rest["strengths"])
    torch.save([5, 1, 9], folder / "interested_gene_list.pt")
    model = bulkformer.load(folder / "BulkFormer_93M.pt")
    with torch.inference_mode():
        np.testing.assert_allclose(bulkformer.encode(model, rest["input"]), rest["of_genes_5_1_9"], atol=1e-5)
    torch.save([5, 60], folder / "interested_gene_list.pt")
    with pytest.raises(ValueError, match="positions 5 to 60, expected 0 to 59"):
        bulkformer.load(folder / "BulkFormer_93M.pt")


def test_the_graph_has_a_direction(tmp_path):
    weights, rest = golden("bulkformer")
    folder = write_bulkformer(tmp_path, SYMBOLS, weights, rest["edges"].flip(0), rest["strengths"])
    with torch.inference_mode():
        found = bulkformer.encode(bulkformer.load(folder / "BulkFormer_93M.pt"), rest["input"])
    assert (found - rest["output"]).abs().max() > 1e-2


@pytest.mark.parametrize("name, width, layers", [("93M", 512, 6), ("147M", 640, 12)])
def test_manifest_is_the_layout_of_the_authors_module(name, width, layers):
    known, authors = pretrained.manifest("bulkformer"), json.loads((GOLDEN / "layouts.json").read_text())
    sizes = {"genes": 20010, "width": width, "layers": layers, "head": width // 8, "frequencies": width // 2}
    sizes |= {"features": {512: 266, 640: 350}[width], "outputs": width + 3}
    ours = pretrained.layout(known["tensors"] | known["not_used_here"], sizes)
    assert ours == {key: (dtype, tuple(shape)) for key, (dtype, *shape) in authors[f"BulkFormer-{name}"].items()}
    assert known["family"][name] == {"width": width, "layers": layers} and known["published"]["genes"] == 20010


def test_manifest_of_scgpt_is_that_of_the_authors_module():
    known = pretrained.manifest("scgpt")
    weights, _ = golden("scgpt")
    sizes = {"width": 16, "hidden": 24, "heads": 2, "layers": 2, "vocabulary": 60}
    assert pretrained.layout(known["tensors"] | known["not_used_here"], sizes) == pretrained.layout_of(weights)
    published = pretrained.layout(known["tensors"], known["published"])
    assert published["encoder.embedding.weight"] == ("float32", (60697, 512))  # 512, where paper B says 768
    assert len(published) == 9 + 12 * 12


# --- properties ---------------------------------------------------------------------------------------------


def test_embeddings_depend_on_nothing_but_the_sample(published):
    adata = compendium(expression(7, 57), SYMBOLS[:57])
    adata.X[0, :8] = 2.5  # ties: spread over bins at random
    for model, genes in (("scgpt", 57), ("bulkformer", 57)):
        at = published / model, model
        all_at_once = foundation.embed(adata, *at, batch_size=7)
        one_by_one = foundation.embed(adata[::-1, :genes], *at, batch_size=1)[::-1]
        np.testing.assert_allclose(all_at_once, one_by_one, atol=1e-5)
        np.testing.assert_array_equal(all_at_once, foundation.embed(adata, *at, batch_size=7))
        adata_sparse = ad.AnnData(sp.csr_matrix(adata.X), obs=adata.obs, var=adata.var)
        np.testing.assert_allclose(all_at_once, foundation.embed(adata_sparse, *at, batch_size=3), atol=1e-5)


def test_scgpt_bins_depend_on_the_order_of_genes_only():
    values = np.random.default_rng(0).gamma(2, 2, 700)
    bins = [scgpt.quantile_bins(v, 51, np.random.default_rng(0)) for v in (values, np.exp2(values) - 1)]
    np.testing.assert_array_equal(*bins)
    sizes = np.bincount(bins[0].astype(int), minlength=51)
    assert sizes[0] == 0 and set(sizes[1:50]) == {14, 15} and sizes[50] == 1  # the largest value is alone in the last


def test_scgpt_spreads_tied_genes_over_their_bins():
    values = np.r_[np.full(500, 1.0), np.linspace(2, 3, 500)]
    bins = scgpt.quantile_bins(values, 51, np.random.default_rng(0))
    assert set(bins[:500]) == set(range(1, 26)) and bins[500:].min() >= 25


def test_scgpt_keeps_a_random_subset_of_too_many_genes(tmp_path):
    model = scgpt.load(write_scgpt(tmp_path, SYMBOLS, args={"max_seq_len": 20}))
    row = np.linspace(1, 5, 60).astype(np.float32)
    drawn = [scgpt.tokenise(row, np.arange(60), model, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(tokens) == 20 and tokens[0] == model.tokens["<cls>"] for tokens, _ in drawn)
    times = np.bincount(np.concatenate([tokens[1:] for tokens, _ in drawn]), minlength=60)
    assert times.sum() == 200 * 19 and times.min() > 30  # each gene about 63 times
    tokens, values = drawn[0]
    full = scgpt.quantile_bins(row, 51, np.random.default_rng(0))
    np.testing.assert_array_equal(values[1:], full[tokens[1:]])  # binned before the subset is drawn, as scGPT does
    adata = compendium(expression(4))
    other = [foundation.embed(adata, tmp_path, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(other[0], other[1])
    assert not np.allclose(other[0], other[2], atol=1e-4)


def test_z_scores_only_where_asked_for(published):
    adata = compendium(np.random.default_rng(0).normal(size=(3, 57)), SYMBOLS[:57])
    found = foundation.embed(adata, published / "scgpt", z_scored=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"adata.X: found values from -.* expected log2\(TPM\+1\)"):
        foundation.embed(adata, published / "scgpt")
    with pytest.raises(ValueError, match="z_scored: found True for bulkformer"):
        foundation.embed(adata, published / "bulkformer", "bulkformer", z_scored=True)


# --- files --------------------------------------------------------------------------------------------------


def test_weights_are_kept_as_safetensors_and_renewed_with_their_file(tmp_path):
    folder, adata = write_scgpt(tmp_path, SYMBOLS), compendium(expression())
    first = foundation.embed(adata, folder)
    copy = folder / "best_model.safetensors"
    assert set(load_file(copy)) == set(scgpt.load(folder).weights)
    np.testing.assert_array_equal(first, foundation.embed(adata, folder))
    write_scgpt(tmp_path, SYMBOLS, seed=1)
    assert not np.allclose(first, foundation.embed(adata, folder), atol=1e-3)
    copy.write_bytes(b"damaged")
    assert np.isfinite(foundation.embed(adata, folder)).all() and not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("naming", ["self_attn.in_proj_", "self_attn._impl.Wqkv."])
def test_attention_saved_under_another_name_is_the_same(tmp_path, naming):
    adata, plain = compendium(expression()), write_scgpt(tmp_path / "a", SYMBOLS)
    weights = torch.load(plain / "best_model.pt", weights_only=True)
    renamed = {name.replace("self_attn.Wqkv.", naming): t for name, t in weights.items()}
    assert renamed.keys() != weights.keys()
    other = write_scgpt(tmp_path / "b", SYMBOLS, renamed)
    np.testing.assert_array_equal(foundation.embed(adata, plain), foundation.embed(adata, other))


def test_heads_for_training_make_no_difference(tmp_path):
    """As a model of scGPT's package saves itself: with a classifier, without the flag embedding of pre-training."""
    adata, plain = compendium(expression()), write_scgpt(tmp_path / "a", SYMBOLS)
    weights = torch.load(plain / "best_model.pt", weights_only=True)
    saved = {name: t for name, t in weights.items() if not name.startswith(("flag_encoder", "mvc_decoder", "decoder"))}
    other = write_scgpt(tmp_path / "b", SYMBOLS, saved | {"cls_decoder.out_layer.bias": torch.ones(3)})
    np.testing.assert_array_equal(foundation.embed(adata, plain), foundation.embed(adata, other))


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path(EVIL),))


EVIL = "should-not-be-there"


@pytest.mark.parametrize("file", ["scgpt/best_model.pt", "bulkformer/BulkFormer_93M.pt", "bulkformer/G_tcga.pt"])
def test_a_file_that_needs_code_is_refused_and_not_run(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    write_scgpt(tmp_path / "scgpt", SYMBOLS)
    write_bulkformer(tmp_path / "bulkformer", SYMBOLS)
    torch.save({"weights": Evil()}, tmp_path / file)
    model = file.split("/")[0]
    with pytest.raises(ValueError, match=f"{Path(file).name}: found objects that only code can build") as error:
        foundation.embed(compendium(expression()), tmp_path / model, model)
    assert "\n" not in str(error.value) and not Path(EVIL).exists()
    (tmp_path / file).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=f"{Path(file).name}: found .* not|{Path(file).name}: found a damaged"):
        foundation.embed(compendium(expression()), tmp_path / model, model)
    assert not Path(EVIL).exists()


def without(weights, name):
    return {key: t for key, t in weights.items() if key != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: without(w, "encoder.enc_norm.bias"), r"lacks 1 of the weights \(encoder.enc_norm.bias\)"),
        (lambda w: w | {"flag_encoder.weight": torch.ones(3, 16)}, "flag_encoder.weight 3 × 16 .* expected 2 × 16"),
        (lambda w: w | {"bn.weight": torch.ones(16)}, r"has unknown 1 of the weights \(bn.weight\)"),
        (lambda w: w | {"encoder.enc_norm.bias": torch.ones(8)}, "enc_norm.bias 8 float32, expected 16 float32"),
        (lambda w: w | {"encoder.enc_norm.bias": torch.ones(16).half()}, "16 float16, expected 16 float32"),
        (lambda w: {"state_dict": w}, "found state_dict, which are no weights"),
        (lambda w: [1, 2], "found list, expected weights by name"),
        (lambda w: w | {7: torch.ones(2)}, "found 7, which are no weights, expected tensors only"),
    ],
)
def test_any_difference_from_the_published_layout_is_refused(tmp_path, change, message):
    folder = write_scgpt(tmp_path, SYMBOLS)
    torch.save(change(torch.load(folder / "best_model.pt", weights_only=True)), folder / "best_model.pt")
    with pytest.raises(ValueError, match=message) as error:
        scgpt.load(folder)
    assert "best_model.pt" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: without(w, "module.layernorm.bias"), r"lacks 1 of the weights \(layernorm.bias\)"),
        (lambda w: w | {"module.bn.weight": torch.ones(16)}, r"has unknown 1 of the weights \(bn.weight\)"),
        (lambda w: w | {"module.layernorm.bias": torch.ones(8)}, "layernorm.bias 8 float32, expected 32 float32"),
        (lambda w: {"a": torch.ones(2)}, "found a …, expected gene_emb_onehot_layer.weight"),
        (lambda w: {0: torch.ones(2)}, "found 0, which are no weights, expected tensors only"),
        (
            lambda w: {
                "architecture": "x",
                "model": {"gene_embedding.weight": torch.ones(2), "expression_scale": torch.ones(())},
            },
            r"bulkformer-latest \(October 2026.* expected BulkFormer of December 2025",
        ),
        (
            lambda w: {"module.gene_emb": torch.ones(2), "module.ae_enc.0.weight": torch.ones(2)},
            "BulkFormer of May 2025",
        ),
    ],
)
def test_other_layouts_and_architectures_of_bulkformer_are_refused(tmp_path, change, message):
    path = write_bulkformer(tmp_path, SYMBOLS) / "BulkFormer_93M.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(ValueError, match=message) as error:
        foundation.embed(compendium(expression()), tmp_path, "bulkformer")
    assert "BulkFormer_93M.pt" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("args.json", "{", "args.json: found no valid JSON"),
        ("args.json", json.dumps({"embsize": 16}), "args.json: found no d_hid, nheads"),
        ("args.json", json.dumps(ARGS | {"input_style": "log1p"}), "found input_style 'log1p', expected 'binned'"),
        ("args.json", json.dumps(ARGS | {"nheads": 3}), "embsize a multiple of nheads"),
        ("vocab.json", json.dumps({"A": 0, "B": 1}), "vocab.json: found no <pad> and no <cls> among 2 tokens"),
        ("vocab.json", json.dumps({"A": 0, "<pad>": 0, "<cls>": 1}), "expected each with a row of its own"),
        (
            "vocab.json",
            json.dumps({"<pad>": 0, "<cls>": 1}),
            "encoder.embedding.weight 63 × 16 float32, expected 2 × 16",
        ),
        ("best_model.pt", "no zip", "best_model.pt: found"),
    ],
)
def test_other_files_of_scgpt_are_refused(tmp_path, file, content, message):
    (write_scgpt(tmp_path, SYMBOLS) / file).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        scgpt.load(tmp_path)
    assert "\n" not in str(error.value)


def test_files_that_belong_to_other_weights_are_refused(tmp_path):
    path = write_bulkformer(tmp_path, SYMBOLS) / "BulkFormer_93M.pt"
    table, edges = pd.read_csv(tmp_path / bulkformer.GENES), torch.load(tmp_path / bulkformer.EDGES, weights_only=True)

    def refused(message):
        with pytest.raises(ValueError, match=message):
            bulkformer.load(path)

    torch.save(torch.ones(3), tmp_path / bulkformer.EDGE_WEIGHTS)
    refused(r"G_tcga_weight.pt: found \(3,\), expected 300 weights")
    torch.save(edges + 50, tmp_path / bulkformer.EDGES)
    refused("G_tcga.pt: found positions .* expected 0 to 59")
    torch.save(edges.float(), tmp_path / bulkformer.EDGES)
    refused("expected 2 × edges")
    table[:59].to_csv(tmp_path / bulkformer.GENES, index=False)
    refused("found 59 rows, 59 of them different, expected the 60 genes")
    table.rename(columns={"ensg_id": "id"}).to_csv(tmp_path / bulkformer.GENES, index=False)
    refused("expected gene_symbol and ensg_id")


def test_a_published_width_with_a_layer_too_few_is_refused(tmp_path):
    """As a file cut short: of another width, any number of layers may be meant."""
    path = write_bulkformer(tmp_path, SYMBOLS, width=256, layers=1) / "BulkFormer_93M.pt"
    with pytest.raises(ValueError, match=r"BulkFormer_93M.pt: found 1 of the layers at width 256, expected 2$"):
        bulkformer.load(path)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 30])
def test_a_gene_file_that_is_no_table_is_named(tmp_path, content):
    path = write_bulkformer(tmp_path, SYMBOLS) / "BulkFormer_93M.pt"
    (tmp_path / bulkformer.GENES).write_bytes(content)
    with pytest.raises(ValueError, match=r"bulkformer_gene_info.csv: found no readable table \(.*expected") as error:
        bulkformer.load(path)
    assert "\n" not in str(error.value)


def test_the_later_architecture_is_refused_by_its_files(tmp_path):
    for name in foundation.LATEST:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"found bulkformer-latest .*expected BulkFormer of December 2025"):
        foundation.embed(compendium(expression()), tmp_path, "bulkformer")


def test_graph_as_two_lists_of_positions_is_the_same(tmp_path):
    path = write_bulkformer(tmp_path, SYMBOLS) / "BulkFormer_93M.pt"
    one = bulkformer.load(path).graph.to_dense()
    edges = torch.load(tmp_path / bulkformer.EDGES, weights_only=True)
    torch.save((edges[0].clone(), edges[1].clone()), tmp_path / bulkformer.EDGES)
    assert torch.equal(one, bulkformer.load(path).graph.to_dense())


@pytest.mark.parametrize(
    "model, file", [("scgpt", f) for f in scgpt.FILES] + [("bulkformer", f) for f in bulkformer.FILES]
)
def test_a_missing_file_is_named(tmp_path, model, file):
    (write_scgpt if model == "scgpt" else write_bulkformer)(tmp_path / model, SYMBOLS)
    (tmp_path / model / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: found no such file"):
        foundation.embed(compendium(expression()), tmp_path / model, model)
    (found,) = foundation.available(tmp_path)
    assert found.missing == (file,) and not found.usable and file in found.in_words()


@pytest.mark.parametrize("model, what", [("scgpt", "30 of 90 of adata's"), ("bulkformer", "30 of 60 of BulkFormer's")])
def test_too_few_genes_in_common_are_refused(published, model, what):
    genes = [*SYMBOLS[:30], *(f"OTHER{i}" for i in range(60))]
    with pytest.raises(ValueError, match=f"adata.var_names: {what} genes .* expected at least 51%"):
        foundation.embed(compendium(expression(2, 90), genes), published / model, model, min_overlap=0.51)


def test_bad_arguments_are_named(published, tmp_path):
    adata = compendium(expression())
    with pytest.raises(ValueError, match="model: found 'geneformer'"):
        foundation.embed(adata, published, "geneformer")
    with pytest.raises(ValueError, match="batch_size: found 0"):
        foundation.embed(adata, published / "scgpt", batch_size=0)
    with pytest.raises(FileNotFoundError, match="found no BulkFormer weights"):
        foundation.embed(adata, tmp_path, "bulkformer")
    adata.X[2] = 0
    with pytest.raises(ValueError, match="sample sample 2 has no expressed gene"):
        foundation.embed(adata, published / "scgpt")
    adata.X[2, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        foundation.embed(adata, published / "scgpt")


# --- what is found, and calls -------------------------------------------------------------------------------


def test_nothing_found_is_said_and_not_drawn(tmp_path):
    assert foundation.available(tmp_path) == []
    result = foundation.zero_shot_calls(
        compendium(expression()), np.array(["a"] * 6), compendium(expression()), tmp_path
    )
    assert result.calls == {} and result.widths == {}
    assert [note.split(":")[0] for note in result.notes] == ["scGPT", "BulkFormer"]
    assert all("no checkpoint in" in note and "was not run" in note for note in result.notes)


def test_calls_of_every_found_checkpoint(tmp_path):
    write_scgpt(tmp_path / "scgpt", SYMBOLS)
    write_bulkformer(tmp_path / "bulkformer", SYMBOLS)
    rng = np.random.default_rng(0)
    tissues = np.repeat(["brain", "liver"], 12)
    X = expression(24) + 8 * (np.arange(60) % 2 == (tissues == "liver")[:, None]) * (rng.random((24, 60)) > 0.2)
    adata = compendium(X)
    result = foundation.zero_shot_calls(adata[::2], tissues[::2], adata[1::2], tmp_path, device="cpu")
    assert result.widths == {
        "scGPT zero-shot + kNN (cosine)": 16,
        "BulkFormer-93M zero-shot + kNN (euclidean)": 35,
        "BulkFormer-93M zero-shot + kNN (cosine)": 35,
    }
    assert result.notes == [] and all(calls.shape == (12,) for calls in result.calls.values())
    for method, (model, metric) in zip(result.calls, (("scgpt", "cosine"), ("bulkformer", "euclidean")), strict=False):
        near, far = (foundation.embed(part, tmp_path / model, model) for part in (adata[::2], adata[1::2]))
        np.testing.assert_array_equal(result.calls[method], knn_predict(near, tissues[::2], far, 5, metric))


def test_embeddings_are_kept_and_the_reference_can_be_thinned(tmp_path, monkeypatch):
    write_scgpt(tmp_path / "scgpt", SYMBOLS)
    adata, labels, keep = compendium(expression(20)), np.repeat(["a", "b"], [15, 5]), tmp_path / "kept"
    arguments = {"keep": keep, "per_label": 4, "models": ("scgpt",), "k": 3}
    first = foundation.zero_shot_calls(adata, labels, adata[:7], tmp_path, **arguments)
    assert sorted(load_file(f)["embedding"].shape for f in keep.iterdir()) == [(7, 16), (8, 16)]
    with monkeypatch.context() as patch:
        patch.setattr(scgpt, "encode", None)  # nothing is computed a second time
        again = foundation.zero_shot_calls(adata, labels, adata[:7], tmp_path, **arguments)
    np.testing.assert_array_equal(*(each.calls["scGPT zero-shot + kNN (cosine)"] for each in (first, again)))
    assert first.notes == ["Zero-shot calls use at most 4 reference samples per label, 8 of 20."]
    write_scgpt(tmp_path / "scgpt", SYMBOLS, seed=1)
    foundation.zero_shot_calls(adata, labels, adata[:7], tmp_path, **arguments)
    assert len(list(keep.iterdir())) == 4  # other weights, other embeddings


def test_calls_from_z_scores(tmp_path):
    for write, model in ((write_scgpt, "scgpt"), (write_bulkformer, "bulkformer")):
        write(tmp_path / model, SYMBOLS)
    adata = compendium(np.random.default_rng(0).normal(size=(10, 60)))
    result = foundation.zero_shot_calls(adata, np.repeat(["a", "b"], 5), adata[:3], tmp_path, z_scored=True)
    assert list(result.calls) == ["scGPT zero-shot of z-scores + kNN (cosine)"]
    assert len(result.notes) == 1 and "BulkFormer was not run: z_scored: found True" in result.notes[0]


def test_a_checkpoint_that_is_refused_leaves_a_note_and_no_calls(tmp_path):
    write_scgpt(tmp_path / "scgpt", [f"OTHER{i}" for i in range(60)])
    for name in foundation.LATEST:
        (tmp_path / "bulkformer").mkdir(exist_ok=True)
        (tmp_path / "bulkformer" / name).write_bytes(b"x")
    adata = compendium(expression())
    result = foundation.zero_shot_calls(adata, np.array(["a"] * 6), adata, tmp_path)
    assert result.calls == {} and len(result.notes) == 2
    assert "0 of 60 of adata's genes" in result.notes[0] and "bulkformer-latest" in result.notes[1]


def test_two_sizes_in_one_folder_are_both_found(tmp_path):
    folder = write_bulkformer(tmp_path / "bulkformer", SYMBOLS)
    (folder / "BulkFormer_147M.pt").write_bytes((folder / "BulkFormer_93M.pt").read_bytes())
    assert [c.weights.name for c in foundation.available(tmp_path)] == ["BulkFormer_147M.pt", "BulkFormer_93M.pt"]
    with pytest.raises(ValueError, match=r"found BulkFormer_147M.pt, BulkFormer_93M.pt in .* expected the path of one"):
        foundation.embed(compendium(expression()), folder, "bulkformer")


def test_genes_marked_as_missing_count_as_absent(published):
    adata = compendium(expression())
    adata.var["missing"] = np.arange(60) < 5
    for model in foundation.MODELS:
        known = adata[:, :57]
        found, without = (foundation.embed(a, published / model, model) for a in (known, known[:, 5:]))
        np.testing.assert_array_equal(found, without)


@pytest.fixture
def deposited(tmp_path):
    """(folder, labels by sample) of two tissues and six query samples: three brain, three kidney."""
    rng = np.random.default_rng(0)
    labels = pd.Series(np.repeat(["brain", "kidney"], 20), [f"s{i}" for i in range(40)])
    near, far = (rng.normal(size=(n, 515)).astype(np.float32) for n in (40, 6))
    near += np.where(labels == "brain", 1, -1)[:, None]
    far += np.repeat([1, -1], 3)[:, None]
    np.save(tmp_path / "ref_emb_bf93M.npy", near)
    np.save(tmp_path / "tgt_emb_bf93M.npy", far)
    return tmp_path, labels


def test_calls_from_deposited_embeddings_and_the_orders_that_are_assumed(deposited):
    folder, labels = deposited
    found = foundation.deposited_calls(folder, labels, 6)
    assert set(found.widths.values()) == {515} and len(found.calls) == 2
    assert all(calls.tolist() == ["brain"] * 3 + ["kidney"] * 3 for calls in found.calls.values())
    assert found.notes[0] == foundation.TARGET_ORDER and "no test_clin.csv" in found.notes[1]


def test_the_deposits_own_table_gives_the_order_of_its_test_samples(deposited):
    folder, labels = deposited
    table = pd.DataFrame({"uberon_tissue": labels})
    table.to_csv(folder / "test_clin.csv", index_label="sample_id")
    shuffled = labels.sample(frac=1, random_state=0)  # as another file would have them
    found = foundation.deposited_calls(folder, shuffled, 6)
    assert all(calls.tolist() == ["brain"] * 3 + ["kidney"] * 3 for calls in found.calls.values())
    assert found.notes == [foundation.TARGET_ORDER]
    table.rename(index={"s3": "unheard of"}).to_csv(folder / "test_clin.csv", index_label="sample_id")
    with pytest.raises(ValueError, match=r"test_clin.csv: found 40 samples \(s3 …\), expected the 40 of gex.h5"):
        foundation.deposited_calls(folder, labels, 6)


def test_deposited_embeddings_that_do_not_fit_are_refused(deposited):
    folder, labels = deposited
    with pytest.raises(ValueError, match=r"tgt_emb_bf93M.npy: found float32 of shape \(6, 515\), expected 7"):
        foundation.deposited_calls(folder, labels, 7)
    np.save(folder / "tgt_emb_bf93M.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="found no plain array"):
        foundation.deposited_calls(folder, labels, 1)
    (folder / "tgt_emb_bf93M.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"tgt_emb_bf93M.npy: found no such file"):
        foundation.deposited_calls(folder, labels, 6)


def test_the_catalogue_puts_every_file_where_it_is_looked_for():
    places = {source.path(foundation.FOLDER.parent) for source in sources.load_sources().values()}
    assert {foundation.FOLDER / "scgpt" / name for name in scgpt.FILES} <= places
    assert {foundation.FOLDER / "bulkformer" / name for name in (*bulkformer.FILES, "BulkFormer_93M.pt")} <= places
