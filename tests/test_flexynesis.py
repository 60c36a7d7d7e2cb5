"""The `faithful` variant beside Flexynesis 1.1.14 itself, where it is installed (else: the golden file's tests).

PYTHONPATH=. /path/to/peer/bin/python -m pytest tests/test_flexynesis.py
"""

import importlib.metadata
import runpy

import numpy as np
import pytest
import torch

from lib import config
from lib.models.tissue_vae import SupervisedVAE, TissueVAE

GOLDEN = config.ROOT / "tests" / "golden" / "flexynesis"
LAYERS = runpy.run_path(str(config.ROOT / "benchmarks" / "flexynesis_peer.py"))["LAYERS"]
GENES, CLASSES, LATENT = 300, 5, 16


@pytest.fixture(scope="module")
def original():
    """Flexynesis' model with weights and running statistics of no special value."""
    module = pytest.importorskip("flexynesis.models.supervised_vae", reason="flexynesis is not installed")
    if (version := importlib.metadata.version("flexynesis")) != "1.1.14":
        pytest.skip(f"flexynesis {version} is installed, expected 1.1.14")
    data = runpy.run_path(str(GOLDEN / "make.py"))["Data"](np.arange(CLASSES))
    data.features = {"gex": range(GENES)}
    settings = {"latent_dim": LATENT, "hidden_dim_factor": 0.3, "supervisor_hidden_dim": 12, "lr": 1e-3}
    torch.manual_seed(3)
    model = module.supervised_vae(settings, data, ["tissue"], use_loss_weighting=False)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.train()
    model([2 * torch.randn(50, GENES) + 1])
    return model.eval()


@pytest.fixture(scope="module")
def ours(original):
    """Our network with the original's weights."""
    settings = TissueVAE(variant="faithful", latent=LATENT, hidden_factor=0.3, supervisor_hidden=12).get_params()
    network = SupervisedVAE(GENES, CLASSES, settings)
    names = {name: name.rpartition(".") for name in original.state_dict()}
    state = {f"{LAYERS[layer]}.{part}": original.state_dict()[name] for name, (layer, _, part) in names.items()}
    network.load_state_dict(state)  # strict: every tensor of either has its counterpart
    return network.eval()


@torch.no_grad()
def test_given_the_same_weights_the_forward_passes_are_equal(original, ours):
    x = torch.randn(40, GENES, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(11)
    rebuilt, z, mean, log_var, heads = original([x])
    torch.manual_seed(11)
    our_mean, our_log_var = ours.encode(x)
    our_z = ours.sample(our_mean, our_log_var)
    pairs = [(mean, our_mean), (log_var, our_log_var), (z, our_z), (rebuilt[0], ours.decode(our_z))]
    for theirs, mine in [*pairs, (heads["tissue"], ours.head(our_z))]:
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_the_golden_file_is_what_flexynesis_makes_today(original, tmp_path):
    made, kept = tmp_path / "made.npz", np.load(GOLDEN / "supervised_vae.npz")
    saved = torch.randn_like, torch.randn
    try:
        runpy.run_path(str(GOLDEN / "make.py"))["main"](made)
    finally:
        torch.randn_like, torch.randn = saved
    again = np.load(made)
    assert set(again.files) == set(kept.files)
    for name in kept.files:
        np.testing.assert_allclose(again[name], kept[name], atol=1e-5, err_msg=name)
