"""What holds for every test."""

import signal

import torch

# the models of the tests are tiny: a second thread only waits, and far longer where the machine is busy
torch.set_num_threads(1)

# who starts the tests in the background of a shell has Ctrl-C ignored, in every process that the tests start as well
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
