"""One thread for every test: the matrices are small, and results then do not depend on the machine's cores."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import threadpoolctl
import torch

from lib import config, notebooks, synthetic

os.environ["RNATLAS_PROGRESS"] = os.devnull
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)


@pytest.fixture(autouse=True)
def one_thread():
    """What a test before this one set for itself does not count."""
    torch.set_num_threads(1)


@pytest.fixture
def empty_repository(tmp_path, monkeypatch):
    """A repository in a folder of its own, with notebooks/ for a test to fill."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    notebooks.catalogue.cache_clear()
    notebooks.FOLDER.mkdir()
    yield tmp_path
    notebooks.catalogue.cache_clear()


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A context: a profile in a folder of its own, with smoke's archives drawn."""

    @contextmanager
    def in_own_folder(name: str):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config, "ROOT", tmp_path_factory.mktemp("repository"))
            run = config.load(name)
            synthetic.generate(run.raw, "smoke", run.seed)
            yield run

    return in_own_folder


@pytest.fixture(scope="session")
def run_smoke():
    """Runs ./run_all.sh on the smoke profile, in the repository at `root`."""

    def run(root):
        command = [str(root / "run_all.sh"), "--venv", sys.prefix, "--profile", "smoke"]
        return subprocess.run(command, capture_output=True, text=True, cwd="/")

    return run


@pytest.fixture(scope="session")
def smoke(run_smoke):
    """The smoke profile, every notebook of it run."""
    done = run_smoke(config.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return config.load("smoke")
