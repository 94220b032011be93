"""Small float64 problems on which every step can be checked by brute force."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import SGD, frozen_statistics, inner_step, reverse_hypergradient
from ebomlc.methods import Setup, find_method
from ebomlc.models import MainModel
from ebomlc.models.backbones import GlobalAverage
from ebomlc.records import NO_LABEL, Batch

N_CLASSES = 3
CLASS_WEIGHTS = torch.tensor([0.4, 1.0, 1.6], dtype=torch.float64)


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

    def __init__(self, kind: str, optimizer=None, class_weights=None) -> None:
        make, self.shape = ALL_MODELS[kind]
        torch.manual_seed(1)
        self.start = make().double()
        self.optimizer = optimizer or SGD(momentum=0.9, weight_decay=1e-2)
        self.setup = Setup(lambda: copy.deepcopy(self.start), N_CLASSES, self.optimizer, class_weights=class_weights)

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


def create(name, problem, **settings):
    entry = find_method(name)
    return entry.create(entry.parse_settings(settings), problem.setup)


def class_weights_of(setup):
    return torch.ones(setup.n_classes) if setup.class_weights is None else setup.class_weights


def features_and_logits(model, inputs):
    """What the model says at its present weights in training mode, without graph and without touching statistics."""
    torch.manual_seed(0)
    with frozen_statistics(model), torch.no_grad():
        return model(inputs)


def reference_hypergradient(main, start, targets_of, noisy, training, heldout, lr):
    """Double backward through one optimizer step of the main model.

    `targets_of` gives the noisy rows' targets from the other network's vector, and `start` is that vector; no training
    rows leave the trusted ones out of the lower loss. Every forward draws its dropout masks from seed 0 on.
    """
    weights, state = main.flat.vector.clone(), main.state

    def log(vector, rows):
        output = functional_call(main.model, main.flat.unflatten(vector), (rows.inputs,))
        return output.logits.log_softmax(1)

    def lower(vector, meta):
        noisy_sum = -(class_weights_of(main.setup) * targets_of(meta) * log(vector, noisy)).sum()
        if training is None:
            return noisy_sum / len(noisy)
        trusted_sum = F.nll_loss(log(vector, training), training.right, reduction="sum")
        return (noisy_sum + trusted_sum) / (len(noisy) + len(training))

    def step(gradient):
        return inner_step(weights, gradient, state, main.setup.optimizer, lr)[0]

    torch.manual_seed(0)
    with frozen_statistics(main.model):
        return reverse_hypergradient(
            lower, lambda vector: F.nll_loss(log(vector, heldout), heldout.right), weights, start.clone(), step
        )
