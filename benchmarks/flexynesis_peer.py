"""The tissue VAE's `faithful` variant beside Flexynesis' own `supervised_vae`: same split, same epochs, several seeds.

    python benchmarks/flexynesis_peer.py --peer /path/to/peer/bin/python [--out benchmarks/results/flexynesis.md]

The peer's Python needs `flexynesis==1.1.14`. Both are given the same training, validation and test samples of a curated
tissue compendium (the demo's by default; `./run_all.sh b-table1` makes it), both stop and choose the best epoch by the
validation loss, and both call test samples from the code's mean, as the paper's figures do. The original is trained as
its own trainer does it: Lightning, Adam, gradients clipped to norm 1. Then ours is given the original's trained
weights, and the two networks' outputs are compared on the test samples, with the same noise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"latent": 121, "hidden_factor": 0.2002336297523043, "supervisor_hidden": 32, "lr": 0.0017177621112338384}
BATCH, PATIENCE = 32, 10
LAYERS = {  # the original's -> ours
    "encoders.0.hidden_layers.0": "encoder.0",
    "encoders.0.hidden_layers.2": "encoder.2",
    "encoders.0.FC_mean": "encoder_mean",
    "encoders.0.FC_var": "encoder_log_var",
    "FC_mean": "fusion_mean",
    "FC_log_var": "fusion_log_var",
    "decoders.0.hidden_layers.0": "decoder.0",
    "decoders.0.hidden_layers.2": "decoder.2",
    "decoders.0.FC_output": "decoder.3",
    "MLPs.tissue.layer_1": "head.0",
    "MLPs.tissue.batchnorm": "head.1",
    "MLPs.tissue.layer_out": "head.4",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", help="Python interpreter that can import flexynesis")
    parser.add_argument("--compendium", type=Path, default=ROOT / "data/processed/demo/tissue.h5ad")
    parser.add_argument("--samples", type=int, default=1500, help="training samples, drawn at random")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="Markdown file for the result")
    parser.add_argument("--run", choices=RUNS, help="one part, in a process of its own (used by this script)")
    parser.add_argument("--folder", type=Path, help="where --run reads and writes")
    arguments = parser.parse_args()
    if arguments.run:
        RUNS[arguments.run](arguments.folder, arguments.epochs, arguments.seeds)
        return
    if arguments.peer is None:
        parser.error("--peer: found none, expected the Python of an environment with flexynesis==1.1.14")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments.compendium, arguments.samples)
        for part, python in (("ours", sys.executable), ("original", arguments.peer)):
            run(part, python, folder, arguments)
        text = compared(folder, arguments)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def write_data(folder, compendium, samples):
    """The compendium's parts in z-scores, its training part thinned to `samples`."""
    from lib import curation

    data = curation.standardise(curation.load(compendium))
    data = data[data.obs["tissue"].notna().to_numpy()]
    classes, label = np.unique(data.obs["tissue"].to_numpy(dtype=str), return_inverse=True)
    parts = {part: np.flatnonzero(data.obs["split"] == part) for part in ("train", "validation", "test")}
    parts["train"] = np.sort(np.random.default_rng(0).permutation(parts["train"])[:samples])
    arrays = {f"{part}_x": data.X[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_y": label[rows] for part, rows in parts.items()}
    np.savez(folder / "data.npz", classes=classes, **arrays)


def run(part, python, folder, arguments):
    """One part in its own process, single-threaded."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [python, __file__, "--run", part, "--folder", str(folder)]
    command += ["--epochs", str(arguments.epochs), "--seeds", str(arguments.seeds)]
    done = subprocess.run(command, env=os.environ | single, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        sys.exit(f"{part}: {python} failed: {reason}")


def ours(folder, epochs, seeds):
    import anndata as ad
    import pandas as pd

    from lib.models.tissue_vae import TissueVAE

    data, calls = np.load(folder / "data.npz"), []

    def part(name):
        tissue = data["classes"][data[f"{name}_y"]]
        obs = pd.DataFrame({"tissue": tissue}, index=[f"{name}{i}" for i in range(len(tissue))])
        return ad.AnnData(data[f"{name}_x"], obs=obs)

    for seed in range(seeds):
        model = TissueVAE(**SETTINGS, batch_size=BATCH, variant="faithful", patience=PATIENCE, max_epochs=epochs,
                          seed=seed, device="cpu")  # fmt: skip
        model.fit(part("train"), validation=part("validation"))
        calls.append(model.predict(part("test")))
    np.savez(folder / "ours.npz", calls=np.array(calls, dtype=str))


def original(folder, epochs, seeds):
    """Flexynesis' model in its own trainer's settings; its weights of the last seed, and what it makes of them."""
    import flexynesis
    import lightning as pl
    import torch
    from flexynesis.models.supervised_vae import supervised_vae

    data, calls, sampled = np.load(folder / "data.npz"), [], []
    parts = {name: dataset(data, name) for name in ("train", "validation", "test")}
    config = {"latent_dim": SETTINGS["latent"], "hidden_dim_factor": SETTINGS["hidden_factor"], "lr": SETTINGS["lr"]}
    config |= {"supervisor_hidden_dim": SETTINGS["supervisor_hidden"]}
    for seed in range(seeds):
        pl.seed_everything(seed, verbose=False)
        model = supervised_vae(config, parts["train"], ["tissue"], use_loss_weighting=False, device_type="cpu")
        fit(model, parts, epochs, folder / f"seed{seed}")
        x = torch.from_numpy(data["test_x"])
        model.eval()
        with torch.no_grad():
            mean, log_var = model.multi_encoder([x])
            calls.append(data["classes"][model.MLPs["tissue"](mean).argmax(1)])
        sampled.append(data["classes"][np.argmax(model.predict(parts["test"])["tissue"], axis=1)])
    noise = torch.randn_like(mean)
    with torch.no_grad():
        z = mean + log_var * noise
        outputs = {
            "mean": mean,
            "log_var": log_var,
            "reconstruction": model.decoders[0](z),
            "logits": model.MLPs["tissue"](z),
        }
    state = {f"state/{name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    versions = f"flexynesis {flexynesis.__version__}, torch {torch.__version__}, lightning {pl.__version__}"
    found = {"calls": np.array(calls, dtype=str), "sampled": np.array(sampled, dtype=str)}
    found |= {"versions": versions, "noise": noise.numpy()} | {name: x.numpy() for name, x in outputs.items()} | state
    np.savez(folder / "original.npz", **found)


def dataset(data, name):
    import torch
    from flexynesis.data import MultiOmicDataset

    x, y = torch.from_numpy(data[f"{name}_x"]), torch.from_numpy(data[f"{name}_y"])
    # the head's width is the number of labels that the annotation has: all classes, whichever part
    return MultiOmicDataset(
        {"gex": x}, {"tissue": y}, {"tissue": "categorical"}, {"gex": list(range(x.shape[1]))},
        [f"{name}{i}" for i in range(len(x))], {},
    )  # fmt: skip


def fit(model, parts, epochs, folder):
    """Train as flexynesis.main.HyperparameterTuning does, on given parts; the best epoch's weights are loaded."""
    import lightning as pl
    import torch
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from torch.utils.data import DataLoader

    best = ModelCheckpoint(folder, monitor="val_loss", save_weights_only=True)
    trainer = pl.Trainer(
        max_epochs=epochs, gradient_clip_val=1.0, gradient_clip_algorithm="norm", accelerator="cpu", devices=1,
        logger=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[best, EarlyStopping("val_loss", patience=PATIENCE)],
    )  # fmt: skip
    train = DataLoader(parts["train"], batch_size=BATCH, shuffle=True, drop_last=True)
    trainer.fit(model, train, DataLoader(parts["validation"], batch_size=BATCH))
    model.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])


def compared(folder, arguments):
    """Accuracies of both, their difference, and the largest difference of the networks' outputs: Markdown."""
    data, mine, peer = (np.load(folder / f"{name}.npz") for name in ("data", "ours", "original"))
    truth = data["classes"][data["test_y"]]
    rows = {
        "ours, faithful": mine["calls"],
        "Flexynesis": peer["calls"],
        "Flexynesis' own predict (samples the code)": peer["sampled"],
    }
    n = ", ".join(f"{len(data[f'{part}_y']):,} {part}" for part in ("train", "validation", "test"))
    lines = [
        "# The tissue VAE beside Flexynesis",
        "",
        f"Made by `benchmarks/flexynesis_peer.py`: {n} samples × {data['test_x'].shape[1]:,} genes of "
        f"`{arguments.compendium.parent.name}` (generated), {len(data['classes'])} tissues, at most {arguments.epochs} "
        f"epochs, {arguments.seeds} seeds; {peer['versions']}; CPU, one thread. Intervals (95 %) over seeds and test "
        "samples.",
        "",
        "| | accuracy | balanced accuracy, by seed |",
        "|---|---|---|",
    ]
    for name, calls in rows.items():
        accuracy, each = scores(truth, calls)
        lines.append(f"| {name} | {shown(accuracy)} | {each} |")
    gap = difference(truth, mine["calls"], peer["calls"])
    verdict = "within noise of each other" if gap.low <= 0 <= gap.high else "**not** within noise of each other"
    return "\n".join([
        *lines,
        "",
        f"Accuracy, ours minus Flexynesis (calls by the mean of both): {shown(gap, '+.4f')}: {verdict}.",
        "",
        f"With Flexynesis' trained weights and the same noise, the largest difference of our outputs to its own on the "
        f"test samples: {same_weights(folder)}.",
        "",
    ])  # fmt: skip


def scores(truth, calls):
    from lib.metrics.bootstrap import share_over_seeds
    from lib.metrics.classification import balanced_accuracy

    seeds, units = (each.ravel() for each in np.indices(calls.shape))
    each = ", ".join(f"{balanced_accuracy(truth, called, 10).value:.3f}" for called in calls)
    return share_over_seeds((calls == truth).ravel(), seeds, units), each


def difference(truth, mine, peer):
    from lib.metrics.bootstrap import interval_over_seeds

    seeds, units = (each.ravel() for each in np.indices(mine.shape))
    gain = (mine == truth).astype(float) - (peer == truth)
    return interval_over_seeds(gain.ravel(), seeds, units, np.mean)


def shown(estimate, form=".4f"):
    value, low, high = (format(x, form) for x in estimate[:3])
    return f"{value} ({low} to {high})"


def same_weights(folder):
    """Largest difference, by output, of our network under the original's weights."""
    import torch

    from lib.models.tissue_vae import SupervisedVAE, TissueVAE

    data, peer = np.load(folder / "data.npz"), np.load(folder / "original.npz")
    network = SupervisedVAE(
        data["test_x"].shape[1], len(data["classes"]), TissueVAE(variant="faithful", **SETTINGS).get_params()
    )
    state = {}
    for name in peer.files:
        if name.startswith("state/"):
            layer, _, tensor = name.removeprefix("state/").rpartition(".")
            state[f"{LAYERS[layer]}.{tensor}"] = torch.from_numpy(peer[name])
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        mean, log_var = network.encode(torch.from_numpy(data["test_x"]))
        z = mean + log_var * torch.from_numpy(peer["noise"])
        outputs = {"mean": mean, "log_var": log_var, "reconstruction": network.decode(z), "logits": network.head(z)}
    return ", ".join(f"{name} {np.abs(x.numpy() - peer[name]).max():.1e}" for name, x in outputs.items())


RUNS = {"ours": ours, "original": original}

if __name__ == "__main__":
    main()
