"""The training loop: repeats, resumes bit for bit, streams, stops, and says what went wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from lib.models import training
from lib.models.rnalign import RNAlign
from lib.models.tissue_vae import TissueVAE

ROOT = Path(__file__).parents[1]
VAE = dict(latent=4, hidden_factor=0.3, batch_size=16, max_epochs=6, patience=3, device="cpu")
ALIGN = dict(hidden=16, latent=4, batch_size=16, epochs=6, device="cpu")


def cohort(n=61) -> ad.AnnData:
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 2
    x = rng.normal(size=(n, 30)) + np.outer(kind, rng.normal(size=30))
    obs = {"tissue": np.array(["a", "b"])[kind], "cancer_type": "x", "purity": rng.random(n)}
    obs["sample_type"] = np.array(["tumour", "cell line"])[np.arange(n) // 2 % 2]
    return ad.AnnData(x.astype(np.float32), obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(n)]))


def fit(kind: str, folder=None, adata=None, **changed):
    adata = cohort() if adata is None else adata
    model = TissueVAE(**VAE | changed) if kind == "tissue" else RNAlign(**ALIGN | changed)
    return model.fit(adata, validation=adata[::3], checkpoint_dir=folder, checkpoint_every=2)


def weights(model) -> bytes:
    """All weights and buffers, as bytes, after those of the history."""
    tensors = [t.numpy().tobytes() for t in model.module_.state_dict().values()]
    return b"".join([model.history_.to_csv().encode(), *tensors])


@pytest.mark.parametrize("kind", ["tissue", "align"])
def test_seed_decides_the_weights(kind):
    assert weights(fit(kind)) == weights(fit(kind))
    assert weights(fit(kind)) != weights(fit(kind, seed=1))


def test_users_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    model = fit("tissue", variant="faithful")
    model.reconstruct(cohort())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", ["tissue", "align"])
def test_interrupted_at_any_write_it_resumes_to_the_same_weights(kind, tmp_path, monkeypatch):
    expected = weights(fit(kind))
    replace, left = os.replace, []

    def interrupt(*paths):
        left.pop() if left else pytest.fail("interrupted too late")
        replace(*paths)
        if not left:
            raise KeyboardInterrupt

    for writes in (1, 3, 4, 6, 8):  # history and, every second epoch, tensors and record: all kinds of moment
        folder = tmp_path / str(writes)
        left[:] = [True] * writes
        monkeypatch.setattr(training.os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(kind, folder)
        monkeypatch.setattr(training.os, "replace", replace)
        assert weights(fit(kind, folder)) == expected, writes
        assert sorted(p.name for p in folder.iterdir())[1:] == ["checkpoint.json", "history.csv"]


def test_killed_it_resumes_to_the_same_weights(tmp_path):
    """A process that gets SIGKILL while the tensors of its second checkpoint are half-written."""
    script = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
import test_training as t
save, saved = t.training.save_file, []
def half(tensors, path):
    saved.append(path)
    if len(saved) < 2:
        return save(tensors, path)
    open(path, "wb").write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
t.training.save_file = half
t.fit("tissue", {str(tmp_path)!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert json.loads((tmp_path / "checkpoint.json").read_text())["progress"]["epoch"] == 2
    assert any(p.name.endswith(".tmp") for p in tmp_path.iterdir())
    assert weights(fit("tissue", tmp_path)) == weights(fit("tissue"))
    assert not any(p.name.endswith(".tmp") for p in tmp_path.iterdir())


def test_two_processes_train_the_same_model(tmp_path):
    """By torchrun on two CPU processes: both end in the same weights, and the loss falls."""
    script = tmp_path / "train.py"
    script.write_text(f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
import test_training as t
for kind in ("tissue", "align"):
    model = t.fit(kind, {str(tmp_path)!r} + "/" + kind)
    name = f"{{kind}}-{{t.os.environ['RANK']}}"
    open({str(tmp_path)!r} + "/" + name, "wb").write(t.weights(model))
""")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    ran = subprocess.run(torchrun, capture_output=True, timeout=240)
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    for kind in ("tissue", "align"):
        assert (tmp_path / f"{kind}-0").read_bytes() == (tmp_path / f"{kind}-1").read_bytes()
        history = pd.read_csv(tmp_path / kind / "history.csv")
        assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_resuming_continues_instead_of_starting_again(tmp_path, monkeypatch):
    fit("tissue", tmp_path)
    monkeypatch.setattr(training, "_epoch", lambda *_: pytest.fail("trained again"))
    model = fit("tissue", tmp_path)
    assert len(pd.read_csv(tmp_path / "history.csv")) == len(model.history_)


@pytest.mark.parametrize("change", ["seed", "data", "labels", "damage"])
def test_a_foreign_checkpoint_is_not_resumed(change, tmp_path, capsys):
    fit("tissue", tmp_path)
    adata, settings = cohort(), {}
    if change == "seed":
        settings = {"seed": 2}
    elif change == "data":
        adata.X[7, 3] += 1
    elif change == "labels":
        adata.obs.iloc[0, 0] = "b"
    else:
        next(tmp_path.glob("*.safetensors")).write_bytes(b"not a checkpoint")
    assert weights(fit("tissue", tmp_path, adata, **settings)) == weights(fit("tissue", None, adata, **settings))
    said = capsys.readouterr().out.strip()
    assert "not resumed" in said and "\n" not in said


def test_history_has_a_row_per_epoch(tmp_path):
    model = fit("align", tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["lr"].tolist() == pytest.approx([1e-3] * 3 + [1e-4, 1e-4, 1e-5])
    assert list(history) == list(model.history_)
    assert not history.isna().any(axis=None)


def test_learning_rate_falls_at_half_and_three_quarters():
    plan = training.Plan(epochs=1000, batch_size=8, lr=1.0, lr_drops=(0.5, 0.75))
    assert [plan.lr_at(e) for e in (0, 499, 500, 749, 750, 999)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_streamed_training_sees_every_sample_once(form, tmp_path, monkeypatch):
    adata = cohort(203)
    adata.X = sp.csr_matrix(adata.X) if form == "csr" else adata.X
    adata.write_h5ad(tmp_path / "x.h5ad")
    monkeypatch.setattr(training, "RESIDENT_BYTES", 1000)
    monkeypatch.setattr(training, "STREAM_ROWS", 64)
    monkeypatch.setattr(training, "STREAM_BLOCK", 8)
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    row = torch.arange(203)
    samples = training.Samples(backed, (row,)).to("cpu")
    assert samples.resident is None
    batches = list(samples.batches(16, np.random.default_rng(1)))
    seen = torch.cat([labels[0] for _, labels in batches])
    assert not torch.equal(seen, row) and torch.equal(seen.sort().values, row)
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]), cohort(203).X[seen])


def test_streamed_model_embeds_like_a_resident_one(tmp_path, monkeypatch):
    adata = cohort(203)
    adata.write_h5ad(tmp_path / "x.h5ad")
    monkeypatch.setattr(training, "RESIDENT_BYTES", 1000)
    monkeypatch.setattr(training, "STREAM_ROWS", 64)
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    model = TissueVAE(**VAE).fit(backed)
    embedded = model.embed(backed)
    monkeypatch.undo()
    np.testing.assert_allclose(model.embed(adata), embedded, atol=1e-5)
    assert model.history_["loss"].iloc[-1] < model.history_["loss"].iloc[0]


@pytest.mark.parametrize("n, sizes", [(33, [16, 17]), (34, [16, 16, 2]), (32, [16, 16]), (1, [1]), (17, [17])])
def test_no_batch_of_one(n, sizes):
    assert [len(b) for b in training._split(np.arange(n), 16)] == sizes


def test_processes_share_the_batches_evenly():
    batches = training._split(np.arange(100), 16)
    shares = [training._share(batches, rank, 3) for rank in range(3)]
    assert [len(s) for s in shares] == [2, 2, 2]
    assert len(np.unique(np.concatenate([b for s in shares for b in s]))) == 96


def test_progress_goes_to_the_named_file(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RNATLAS_PROGRESS", str(tmp_path / "progress"))
    (tmp_path / "progress").write_text("before\n")
    fit("tissue")
    written = (tmp_path / "progress").read_text()
    assert written.startswith("before\n") and "TissueVAE" in written and "loss=" in written
    assert capfd.readouterr().err == ""


def test_divergence_and_non_finite_losses_are_named():
    with pytest.raises(RuntimeError, match=r"in epoch \d+.*loss.*mse"):
        fit("align", lr=1.0, lambda_grad=100.0, epochs=60)
    huge = cohort()
    huge.X[:] = 1e30
    with pytest.raises(RuntimeError, match=r"loss not finite in epoch 1: .*mse (inf|nan)"):
        fit("tissue", adata=huge)


def test_bad_input():
    with pytest.raises(ValueError, match="device: found 'tpu'"):
        fit("tissue", device="tpu")
    with pytest.raises(ValueError, match="found 1 samples to train on, expected at least 2"):
        RNAlign(**ALIGN).fit(cohort()[:1])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch sees no GPU"):
            fit("align", device="cuda")


def test_a_saved_model_must_hold_together(tmp_path):
    model = fit("tissue")
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="found kind 'TissueVAE', expected 'RNAlign'"):
        RNAlign.load(tmp_path / "model")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"model\.safetensors: not the file that model\.json describes"):
        TissueVAE.load(tmp_path / "model")
    (tmp_path / "model.json").write_text("<html>")
    with pytest.raises(ValueError, match=r"model\.json: not valid JSON"):
        TissueVAE.load(tmp_path / "model")
