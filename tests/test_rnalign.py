"""RNAlign: distance correlation against R, the loss against its definition, alignment of generated data."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

from lib.models.rnalign import RNAlign, annealing, distance_correlation

GOLDEN = Path(__file__).parent / "golden" / "dcor"
SMALL = dict(hidden=32, latent=8, batch_size=32, epochs=30, lr=3e-3, device="cpu")


@pytest.fixture(scope="module")
def cancers() -> ad.AnnData:
    """300 samples of 3 cancer types, 60 genes: programmes of type, of stroma (1 - purity) and of culture."""
    rng = np.random.default_rng(0)
    kind, line = np.arange(300) % 3, np.arange(300) % 4 == 0
    purity = np.where(line, 1.0, rng.beta(6, 3, 300))
    programme, stroma, culture = rng.normal(size=(3, 60)), rng.normal(size=60), rng.normal(size=60)
    x = programme[kind] + 3 * np.outer(1 - purity, stroma) + 2 * np.outer(line, culture)
    x += 0.5 * rng.normal(size=x.shape)
    x = (x - x.mean(0)) / x.std(0)
    obs = {"cancer_type": np.array(["breast", "lung", "skin"])[kind], "purity": purity}
    obs["sample_type"] = np.where(line, "cell line", "tumour")
    return ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(300)]))


@pytest.fixture(scope="module")
def fitted(cancers) -> RNAlign:
    return RNAlign(**SMALL).fit(cancers, validation=cancers[::5])


def gap(x: np.ndarray, adata: ad.AnnData) -> float:
    """Distance between the mean line and the mean tumour."""
    line = (adata.obs["sample_type"] == "cell line").to_numpy()
    return float(np.linalg.norm(x[line].mean(0) - x[~line].mean(0)))


@pytest.mark.parametrize("case", ["n100_quad", "n50_indep", "n50_linear"])
def test_distance_correlation_equals_r_energy(case):
    expected = pd.read_csv(GOLDEN / "dcor_R_energy.csv", index_col="case").loc[case, "dcor"]
    x, y = (torch.from_numpy(np.loadtxt(GOLDEN / f"{case}_{v}.csv", delimiter=",", ndmin=2)) for v in "xy")
    assert distance_correlation(x, y).item() == pytest.approx(expected, abs=1e-12)
    assert distance_correlation(x.float(), y.float()).item() == pytest.approx(expected, abs=1e-5)


def test_distance_correlation_of_known_cases():
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert distance_correlation(x, 5 - 2 * x).item() == pytest.approx(1)
    assert distance_correlation(x, torch.ones(40, 2, dtype=torch.float64)) == 0
    assert distance_correlation(x[:, 0], x[:, :1]).item() == pytest.approx(1)
    assert distance_correlation(x, x[:, :1]).shape == ()


@pytest.mark.parametrize("second", ["tied", "constant", "both"])
def test_distance_correlation_has_finite_gradients(second):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    x[10:20] = x[0]
    x.requires_grad_()
    y = {"tied": torch.eye(3)[torch.arange(30) % 3], "constant": torch.ones(30, 2), "both": x.detach()[:, :2] ** 2}[
        second
    ]
    y = y.clone().requires_grad_()
    distance_correlation(x, y).backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()
    assert (x.grad.abs().sum() > 0) == (second != "constant")


def test_distance_correlation_gradient_is_right():
    x = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distance_correlation, (x, y))


def test_distance_correlation_of_bad_input():
    with pytest.raises(ValueError, match=r"found shapes \(5, 2\) and \(4, 2\)"):
        distance_correlation(torch.ones(5, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="NaN"):
        distance_correlation(torch.full((5, 2), float("nan")), torch.ones(5, 2))


def test_annealing_schedules():
    cyclical = [annealing("cyclical", e / 40) for e in range(11)]
    assert cyclical == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 0])
    assert [annealing("warmup", p) for p in (0, 0.1, 0.2, 0.9)] == pytest.approx([0, 0.5, 1, 1])
    assert [annealing(s, 1.0) for s in ("cyclical", "warmup", "none")] == [1, 1, 1]


def test_loss_is_the_papers(cancers, fitted):
    """Every term again by plain formulas, on the noise that the model draws."""
    module, s = fitted.module_.eval(), fitted.get_params()
    x, y = torch.from_numpy(cancers.X[:20]), fitted._conditions(cancers.obs[:20])
    torch.manual_seed(0)
    parts = module(x, y, progress=1.0)
    torch.manual_seed(0)
    y = y.clone().requires_grad_()
    mean, sd = module.encode(x, y)
    z = mean + sd * torch.randn(20, 8)
    likelihood = torch.distributions.Normal(module.decode(z, y), s["sigma"]).log_prob(x).sum(1)
    kl = (np.log(s["epsilon"]) - sd.log() + (sd**2 + mean**2) / (2 * s["epsilon"] ** 2) - 0.5).sum(1)
    cvae = (s["beta"] * kl - likelihood).mean() / 60  # per gene
    (slope,) = torch.autograd.grad(cvae, y)
    l_cor, l_grad = distance_correlation(y, z), -slope.norm(dim=1).mean()
    expected = cvae + s["lambda_cor"] * l_cor + s["lambda_grad"] * l_grad
    for name, value in dict(loss=expected, kl=kl.mean() / 60, l_cor=l_cor, l_grad=l_grad).items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert parts["grad_purity"].item() == pytest.approx(slope[:, -1].abs().mean().item(), rel=1e-4)


def test_gradient_term_reaches_the_weights(cancers):
    """Double back-propagation: with L_grad the weights get another gradient than without."""
    gradients = {}
    for weight in (0.0, 1.0):
        model = RNAlign(**SMALL | {"epochs": 1, "lambda_grad": weight, "dropout": 0.0}).fit(cancers)
        model.module_.s["lambda_grad"] = weight
        model.module_.load_state_dict(RNAlign(**SMALL | {"epochs": 1}).fit(cancers).module_.state_dict())
        torch.manual_seed(0)
        y = model._conditions(cancers.obs[:20])
        model.module_.train()(torch.from_numpy(cancers.X[:20]), y, progress=1.0)["loss"].backward()
        gradients[weight] = model.module_.decoder_mean.weight.grad
    assert not torch.allclose(gradients[0.0], gradients[1.0])


def test_history_logs_every_part(fitted):
    history = fitted.history_
    blocks = [f"{what}_{b}" for what in ("grad", "dcor") for b in ("cancer_type", "sample_type", "purity")]
    parts = ["loss", "reconstruction", "kl", "mse", "l_cor", "l_grad", *blocks]
    assert set(history) == {"epoch", "lr", *parts, *(f"validation_{p}" for p in parts)}
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert (history["l_grad"] < 0).all() and history["l_cor"].between(0, 1).all()


def test_changed_labels_move_the_decoded_profiles(fitted, cancers):
    kept = fitted.transform(cancers, sample_type=None, purity=None)
    as_lines = fitted.transform(cancers)
    assert kept.dtype == as_lines.dtype == np.float32 and kept.shape == cancers.shape
    assert np.corrcoef(kept.ravel(), cancers.X.ravel())[0, 1] > 0.7
    line = (cancers.obs["sample_type"] == "cell line").to_numpy()
    np.testing.assert_allclose(as_lines[line], kept[line], atol=1e-5)
    assert np.abs(as_lines[~line] - kept[~line]).mean() > 0.1
    assert gap(as_lines, cancers) < 0.5 * gap(cancers.X, cancers)
    swapped = fitted.transform(cancers, cancer_type="lung")
    assert np.abs(swapped - as_lines)[cancers.obs["cancer_type"] == "skin"].mean() > 0.01


def test_one_label_per_sample_is_taken(fitted, cancers):
    own = fitted.transform(cancers, None, None, cancer_type=cancers.obs["cancer_type"].to_numpy())
    np.testing.assert_array_equal(own, fitted.transform(cancers, None, None))


def test_a_third_sample_type(cancers):
    organoids = cancers.copy()
    organoids.obs.loc[organoids.obs_names[:30], "sample_type"] = "organoid"
    model = RNAlign(**SMALL | {"epochs": 2}).fit(organoids)
    assert model.sample_types_ == ["cell line", "organoid", "tumour"]
    assert model.transform(organoids, sample_type="organoid").shape == cancers.shape


@pytest.mark.parametrize("left_out", ["use_purity", "use_cancer_type"])
def test_ablations_leave_a_label_out(left_out, cancers):
    model = RNAlign(**SMALL | {"epochs": 2}, **{left_out: False}).fit(cancers)
    column = left_out.removeprefix("use_")
    assert f"dcor_{column}" not in model.history_
    without = cancers.copy()
    del without.obs[column]
    np.testing.assert_array_equal(model.embed(without), model.embed(cancers))


def test_terms_can_be_switched_off(cancers):
    model = RNAlign(**SMALL | {"epochs": 3}, lambda_cor=0.0, lambda_grad=0.0, beta=0.0, dropout=0.0).fit(cancers)
    np.testing.assert_allclose(model.history_["loss"], model.history_["reconstruction"], rtol=1e-5)


def test_save_load(fitted, cancers, tmp_path):
    fitted.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    again = RNAlign.load(tmp_path)
    np.testing.assert_array_equal(again.transform(cancers), fitted.transform(cancers))
    np.testing.assert_allclose(again.embed(cancers[:, ::-1]), fitted.embed(cancers), atol=1e-6)
    assert again.get_params() == fitted.get_params()
    pd.testing.assert_frame_equal(again.history_, fitted.history_)


def test_bad_input(fitted, cancers):
    with pytest.raises(ValueError, match="cancer_type: found 'eye', unknown to the model"):
        fitted.transform(cancers, cancer_type="eye")
    with pytest.raises(ValueError, match="sample_type: found 'mouse'"):
        fitted.transform(cancers, sample_type="mouse")
    broken = cancers.copy()
    broken.obs.iloc[:7, broken.obs.columns.get_loc("purity")] = np.nan
    with pytest.raises(ValueError, match="purity: missing for 7 of 300 samples"):
        RNAlign(**SMALL).fit(broken)
    broken.obs["purity"] = 55.0
    with pytest.raises(ValueError, match="purity: found values from 55 to 55, expected 0 to 1"):
        fitted.transform(broken)
    broken.obs["purity"], broken.obs["cancer_type"] = 1.0, None
    with pytest.raises(ValueError, match="missing for 300 of 300 samples"):
        RNAlign(**SMALL).fit(broken)
    with pytest.raises(ValueError, match="annealing: found 'linear'"):
        RNAlign(annealing="linear").fit(cancers)
    with pytest.raises(ValueError, match="not fitted"):
        RNAlign().embed(cancers)
