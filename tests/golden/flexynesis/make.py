"""Makes supervised_vae.npz beside it, with Flexynesis' own model. Not run by the tests.

    python make.py [OUT.npz]

in an environment of its own with flexynesis==1.1.14. One layer of 60 genes, 8 latent dimensions, 4 classes, unweighted
losses. Weights and running statistics are moved off their initial values by noise and two forward passes; three labels
are missing (-1); what the model draws is replaced by the arrays `eps` and `prior`. Kept are its outputs and losses in
evaluation and in training mode (without dropout), and the gradients of its training step.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from flexynesis.models.supervised_vae import supervised_vae

GENES, SAMPLES, LATENT, CLASSES, SEED = 60, 24, 8, 4, 7
CONFIG = {"latent_dim": LATENT, "hidden_dim_factor": 0.2002336297523043, "supervisor_hidden_dim": 6, "lr": 1.7e-3}
HERE = Path(__file__).parent


class Data:
    """What the model asks of its data set."""

    def __init__(self, labels):
        self.dat, self.features = {"gex": None}, {"gex": range(GENES)}
        self.variable_types, self.ann = {"tissue": "categorical"}, {"tissue": labels}


def main(path):
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, CLASSES, SAMPLES)
    labels[:CLASSES] = range(CLASSES)
    torch.manual_seed(SEED)
    model = supervised_vae(CONFIG, Data(labels.copy()), ["tissue"], use_loss_weighting=False)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x = normal(rng, SAMPLES, GENES)
    model.train()
    model([x * 1.3 + 0.2])
    model([x * 0.7])
    eps, prior = normal(rng, SAMPLES, LATENT), normal(rng, 200, LATENT)
    torch.randn_like, torch.randn = lambda *_, **__: eps.clone(), lambda *_, **__: prior.clone()
    y = torch.tensor(labels)
    y[[1, 5, 6]] = -1
    state = {f"state/{name}": tensor.clone().numpy() for name, tensor in model.state_dict().items()}
    found = outputs(model.eval(), x, y, prior, "eval")
    model.train()
    model.MLPs["tissue"].dropout.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = model.training_step(({"gex": x}, {"tissue": y}, None), 0, log=False)
    loss.backward()
    found |= {"train/loss": loss.detach().numpy()}
    found |= {f"grad/{name}": parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.load_state_dict(before)  # batch norm has counted one more batch
    found |= outputs(model, x, y, prior, "train")
    np.savez_compressed(path, x=x.numpy(), y=y.numpy(), eps=eps.numpy(), prior=prior.numpy(), **state, **found)


def normal(rng, *shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


def outputs(model, x, y, prior, mode):
    """What the model gives for x, and the parts of its loss."""
    rebuilt, z, mean, log_var, heads = model([x])
    parts = {"reconstruction": rebuilt[0], "z": z, "mean": mean, "log_var": log_var, "logits": heads["tissue"]}
    parts |= {"mmd": model.compute_mmd(prior, z), "mse": (rebuilt[0] - x).pow(2).mean()}
    parts["cross_entropy"] = model.compute_loss("tissue", y, heads["tissue"])
    return {f"{mode}/{name}": value.detach().clone().numpy() for name, value in parts.items()}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else HERE / "supervised_vae.npz")
