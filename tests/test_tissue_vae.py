"""TissueVAE against the original's numbers, and against what generated data must give."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from lib.models.tissue_vae import SupervisedVAE, TissueVAE, _held_out, random_mask

GOLDEN = Path(__file__).parent / "golden" / "flexynesis" / "supervised_vae.npz"
SMALL = dict(latent=16, hidden_factor=0.4, batch_size=16, max_epochs=12, device="cpu")

# Our layers -> the original's, whose weights, outputs and gradients the golden file holds.
LAYERS = {
    "encoder.0": "encoders.0.hidden_layers.0",
    "encoder.2": "encoders.0.hidden_layers.2",
    "encoder_mean": "encoders.0.FC_mean",
    "encoder_log_var": "encoders.0.FC_var",
    "fusion_mean": "FC_mean",
    "fusion_log_var": "FC_log_var",
    "decoder.0": "decoders.0.hidden_layers.0",
    "decoder.2": "decoders.0.hidden_layers.2",
    "decoder.3": "decoders.0.FC_output",
    "head.0": "MLPs.tissue.layer_1",
    "head.1": "MLPs.tissue.batchnorm",
    "head.4": "MLPs.tissue.layer_out",
}


def theirs(name: str) -> str:
    layer, _, tensor = name.rpartition(".")
    return f"{LAYERS[layer]}.{tensor}"


@pytest.fixture
def golden(monkeypatch):
    """(values, our module with the original's weights), both fed the noise that the original drew.

    The file was made with flexynesis 1.1.14: `supervised_vae` with one layer of 60 genes, 8 latent
    dimensions and 4 classes, use_loss_weighting=False; weights and running statistics moved off their
    initial values by noise and two forward passes; torch.randn_like and torch.randn replaced by the arrays
    `eps` and `prior`; three labels set to -1; outputs in eval mode and in train mode without dropout, the
    latter with the gradients of training_step.
    """
    values = np.load(GOLDEN, allow_pickle=False)
    settings = TissueVAE(variant="faithful", latent=8, supervisor_hidden=6).get_params()
    module = SupervisedVAE(60, 4, settings)
    module.load_state_dict({n: torch.from_numpy(values[f"state/{theirs(n)}"]) for n in module.state_dict()})
    monkeypatch.setattr(torch, "randn_like", lambda *_: torch.from_numpy(values["eps"]))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: torch.from_numpy(values["prior"]))
    return values, module


@pytest.fixture(scope="module")
def tissues() -> ad.AnnData:
    """240 samples of 4 tissues, 100 genes, z-scored; tissue programmes plus noise."""
    rng = np.random.default_rng(0)
    tissue = np.repeat(np.arange(4), 60)
    x = rng.normal(size=(4, 100))[tissue] + rng.normal(size=(240, 100))
    x = (x - x.mean(0)) / x.std(0)
    obs = pd.DataFrame({"tissue": np.array(["blood", "brain", "liver", "lung"])[tissue]})
    obs.index = [f"s{i}" for i in range(240)]
    return ad.AnnData(x.astype(np.float32), obs=obs)


@pytest.fixture(scope="module")
def fitted(tissues) -> TissueVAE:
    return TissueVAE(**SMALL).fit(tissues)


def test_layers_are_the_original_ones(golden):
    values, module = golden
    names = {f"state/{theirs(name)}" for name in module.state_dict()}
    assert names == {name for name in values if name.startswith("state/")}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_faithful_forward_equals_flexynesis(golden, mode):
    values, module = golden
    module.train(mode == "train")
    module.head[3].eval()
    x = torch.from_numpy(values["x"])
    mean, log_var = module.encode(x)
    z = module.sample(mean, log_var)
    ours = dict(mean=mean, log_var=log_var, z=z, reconstruction=module.decode(z), logits=module.head(z))
    ours |= module(x, torch.from_numpy(values["y"]), progress=0.0)
    for name in ("mean", "log_var", "z", "reconstruction", "logits", "mmd", "mse", "cross_entropy"):
        np.testing.assert_allclose(ours[name].detach(), values[f"{mode}/{name}"], atol=1e-5, err_msg=name)


def test_faithful_gradients_equal_flexynesis(golden):
    values, module = golden
    module.train()
    module.head[3].eval()
    loss = module(torch.from_numpy(values["x"]), torch.from_numpy(values["y"]), progress=0.0)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(float(values["train/loss"]), abs=1e-5)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(parameter.grad, values[f"grad/{theirs(name)}"], atol=1e-5, err_msg=name)


def test_published_size():
    module = SupervisedVAE(1000, 42, TissueVAE(hidden_factor=0.2002336297523043).get_params())
    assert module.encoder[0].out_features == 200
    # 105,215,609 weights at 16,115 genes and 42 classes, the published model's number
    g, h = 16115, int(16115 * 0.2002336297523043)
    encoder = g * h + 3 * h + 2 * (h * 121 + 121) + 2 * (121 * 121 + 121)
    decoder = 121 * h + 3 * h + h * g + g
    head = 121 * 32 + 32 + 64 + 32 * 42 + 42
    assert encoder + decoder + head == 105_215_609
    h = 200
    small = 1000 * h + 3 * h + 2 * (h * 121 + 121) + 2 * (121 * 121 + 121) + 121 * h + 3 * h + h * 1000 + 1000 + head
    assert sum(p.numel() for p in module.parameters()) == small


def test_head_separates_linear_data(fitted, tissues):
    assert (fitted.predict(tissues) == tissues.obs["tissue"]).mean() > 0.97
    probabilities = fitted.predict_proba(tissues)
    assert list(probabilities.columns) == ["blood", "brain", "liver", "lung"]
    assert list(probabilities.index) == list(tissues.obs_names)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_loss_falls_and_best_weights_are_kept(tissues):
    model = TissueVAE(**SMALL | {"max_epochs": 60, "patience": 3, "lr": 0.01}).fit(
        tissues[::2], validation=tissues[1::2]
    )
    history = model.history_
    best = int(history["validation_loss"].argmin())
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    assert len(history) == best + 1 + 3
    mse = np.square(model.reconstruct(tissues[1::2]) - tissues[1::2].X).mean()
    assert mse == pytest.approx(history["validation_mse"].iloc[best], rel=1e-4)


def test_masking_is_scored_against_the_unmasked_target(monkeypatch):
    module = SupervisedVAE(50, 2, TissueVAE(mask_fraction=0.2, latent=4, hidden_factor=0.5).get_params())
    x = torch.randn(8, 50) + 3
    encoded = []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda seen: encoded.append(seen) or encode(seen))
    monkeypatch.setattr(module, "decode", lambda z: torch.zeros(8, 50))
    losses = module.train()(x, torch.zeros(8, dtype=torch.long), progress=0.0)
    assert (encoded[0] == 0).sum(1).tolist() == [10] * 8
    assert losses["mse"].item() == pytest.approx(x.square().mean().item(), rel=1e-6)
    module.eval()(x, torch.zeros(8, dtype=torch.long), progress=0.0)
    assert torch.equal(encoded[1], x)


def test_missing_labels_train_the_reconstruction_only(tissues):
    some = tissues.copy()
    some.obs["tissue"] = some.obs["tissue"].astype(object)
    some.obs.iloc[::5, 0] = np.nan
    some.obs.iloc[1::5, 0] = "nan"
    some.obs.iloc[2::5, 0] = None
    model = TissueVAE(**SMALL).fit(some)
    assert list(model.classes_) == ["blood", "brain", "liver", "lung"]
    assert (model.predict(tissues) == tissues.obs["tissue"]).mean() > 0.9
    module = model.module_.train()
    losses = module(torch.from_numpy(tissues.X[:16]), torch.full((16,), -1), progress=0.0)
    losses["loss"].backward()
    assert losses["cross_entropy"] == 0
    assert all(p.grad is None or not p.grad.any() for p in module.head.parameters())
    assert module.encoder[0].weight.grad.abs().sum() > 0


def test_faithful_and_corrected_differ_as_stated(tissues, fitted):
    faithful = TissueVAE(**SMALL | {"variant": "faithful", "max_epochs": 3}).fit(tissues)
    x = faithful.reconstruct(tissues)
    assert x.min() >= 0 and x.max() <= 1
    assert np.array_equal(x, faithful.reconstruct(tissues))
    mean = faithful.module_.decode(torch.from_numpy(faithful.embed(tissues))).detach().numpy()
    assert np.abs(x - mean).max() > 1e-3
    decoded = fitted.module_.decode(torch.from_numpy(fitted.embed(tissues))).detach().numpy()
    np.testing.assert_allclose(fitted.reconstruct(tissues), decoded, atol=1e-5)
    assert fitted.reconstruct(tissues).min() < 0


def test_impute_hides_the_masked_values(fitted, tissues):
    mask = random_mask(240, 100, 0.3, seed=1)
    assert (mask.sum(1) == 30).all()
    hidden = tissues.copy()
    hidden.X[mask] = 99.0
    np.testing.assert_array_equal(fitted.impute(tissues, mask), fitted.impute(hidden, mask))
    assert np.corrcoef(fitted.impute(tissues, mask)[mask], tissues.X[mask])[0, 1] > 0.5
    by_fraction = fitted.impute(tissues, 0.3)
    np.testing.assert_array_equal(by_fraction, fitted.impute(tissues, random_mask(240, 100, 0.3, fitted.seed)))


def test_save_load_and_gene_order(fitted, tissues, tmp_path):
    fitted.save(tmp_path / "tissue")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tissue.json", "tissue.safetensors"]
    again = TissueVAE.load(tmp_path / "tissue.safetensors")
    np.testing.assert_array_equal(again.embed(tissues), fitted.embed(tissues))
    np.testing.assert_array_equal(again.predict(tissues), fitted.predict(tissues))
    np.testing.assert_allclose(again.embed(tissues[:, ::-1]), fitted.embed(tissues), atol=1e-6)
    pd.testing.assert_frame_equal(again.history_, fitted.history_)
    with pytest.raises(ValueError, match="10 of the model's 100 genes are missing"):
        again.embed(tissues[:, 10:])


@pytest.mark.parametrize("n", [33, 49])
def test_a_last_batch_of_one(tissues, n):
    """33 = 2 × 16 + 1 samples, and one more case where validation leaves such a rest."""
    model = TissueVAE(**SMALL | {"max_epochs": 1}).fit(tissues[:: 240 // n][:n], validation=tissues[:17])
    assert np.isfinite(model.history_["validation_loss"]).all()


def test_validation_part_is_stratified():
    names = np.repeat(["a", "b", "c"], [500, 100, 2])
    held = _held_out(names, seed=3)
    share = pd.Series(names[held]).value_counts()
    assert share["a"] in (50, 51) and share["b"] in (10, 11) and share.get("c", 0) <= 1
    assert np.array_equal(held, _held_out(names, seed=3))


def test_weights_of_the_ablations(tissues):
    model = TissueVAE(**SMALL | {"max_epochs": 2}, mmd_weight=0.0, supervision_weight=0.0).fit(tissues)
    np.testing.assert_allclose(model.history_["loss"], model.history_["mse"], rtol=1e-6)


def test_normalisation_begins_as_identity_and_learns_to_undo_a_shift(tissues):
    plain, jittered = (TissueVAE(**SMALL | {"max_epochs": 40, "patience": 40}, affine_jitter=j) for j in (0.0, 0.5))
    module = SupervisedVAE(50, 2, TissueVAE(affine_jitter=0.5, latent=4, hidden_factor=0.5).get_params())
    x = torch.randn(8, 50)
    assert torch.equal(module.normalisation(x), x)
    train = tissues[::2].copy()
    shifted = tissues[1::2].copy()
    shifted.X = shifted.X + np.random.default_rng(1).normal(scale=1.0, size=(1, 100)).astype(np.float32)
    accuracy = [np.mean(m.fit(train).predict(shifted) == shifted.obs["tissue"]) for m in (plain, jittered)]
    assert "normalisation.read.0.weight" in jittered.module_.state_dict()
    assert not any(name.startswith("normalisation") for name in plain.module_.state_dict())
    assert accuracy[1] > 0.85 and accuracy[1] >= accuracy[0] - 0.02


def test_normalised_model_is_saved_and_refuses_a_negative_jitter(tissues, tmp_path):
    model = TissueVAE(**SMALL | {"max_epochs": 2}, affine_jitter=0.3).fit(tissues)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(TissueVAE.load(tmp_path / "m").embed(tissues), model.embed(tissues))
    with pytest.raises(ValueError, match="affine_jitter: found -1, expected a number from 0 up"):
        TissueVAE(**SMALL, affine_jitter=-1).fit(tissues)


def test_bad_input(tissues, tmp_path):
    with pytest.raises(ValueError, match="labels: no obs column 'organ'"):
        TissueVAE(**SMALL).fit(tissues, labels="organ")
    with pytest.raises(ValueError, match="found 1 classes, expected at least 2"):
        TissueVAE(**SMALL).fit(tissues[:20])
    with pytest.raises(ValueError, match="variant: found 'fixed'"):
        TissueVAE(variant="fixed").fit(tissues)
    broken = tissues.copy()
    broken.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="X: found 1 NaN or infinite values"):
        TissueVAE(**SMALL).fit(broken)
    with pytest.raises(ValueError, match="not fitted"):
        TissueVAE().predict(tissues)
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        TissueVAE.load(tmp_path / "nothing")
