"""One thread for every test: the matrices are small, and results then do not depend on the machine's cores."""

import threadpoolctl
import torch

torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)
