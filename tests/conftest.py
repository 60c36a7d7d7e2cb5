"""One thread for every test: the matrices are small, and results then do not depend on the machine's cores."""

import os

import pytest
import threadpoolctl
import torch

os.environ["RNATLAS_PROGRESS"] = os.devnull
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)


@pytest.fixture(autouse=True)
def one_thread():
    """What a test before this one set for itself does not count."""
    torch.set_num_threads(1)
