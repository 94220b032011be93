"""What holds for every test."""

import torch

# the models of the tests are tiny: a second thread only waits, and far longer where the machine is busy
torch.set_num_threads(1)
