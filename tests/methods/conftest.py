"""Small float64 problems on which every step can be checked by brute force."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ebomlc.bilevel import SGD
from ebomlc.methods import Setup
from ebomlc.models import MainModel
from ebomlc.models.backbones import GlobalAverage
from ebomlc.records import NO_LABEL, Batch

N_CLASSES = 3


def mlp() -> MainModel:
    return MainModel(nn.Sequential(nn.Linear(5, 7), nn.Tanh()), 7, N_CLASSES)


def norm_cnn() -> MainModel:
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), GlobalAverage())
    return MainModel(body, 4, N_CLASSES)


def dropout_mlp() -> MainModel:
    return MainModel(nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.5)), 40, N_CLASSES)


MODELS = {"mlp": (mlp, (5,)), "norm_cnn": (norm_cnn, (2, 6, 6))}


ALL_MODELS = {**MODELS, "dropout": (dropout_mlp, (5,))}


@pytest.fixture(params=MODELS)
def problem(request):
    return Problem(request.param)


class Problem:
    """A setup whose models all start from the same weights, and batches for it."""

    def __init__(self, kind: str, optimizer=None) -> None:
        make, self.shape = ALL_MODELS[kind]
        torch.manual_seed(1)
        self.start = make().double()
        self.optimizer = optimizer or SGD(momentum=0.9, weight_decay=1e-2)
        self.setup = Setup(lambda: copy.deepcopy(self.start), N_CLASSES, self.optimizer)

    def batches(self, seed: int, *, n_noisy: int = 12, n_trusted: int = 10, pairs: bool = False):
        generator = torch.Generator().manual_seed(seed)

        def draw(n: int, known: bool) -> Batch:
            inputs = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)
            given = torch.randint(N_CLASSES, (n,), generator=generator)
            right = torch.randint(N_CLASSES, (n,), generator=generator)
            missing = torch.full((n,), NO_LABEL)
            shown = given if pairs or not known else missing
            return Batch(inputs, shown, right if known else missing, torch.arange(n))

        return draw(n_noisy, False), draw(n_trusted, True)
