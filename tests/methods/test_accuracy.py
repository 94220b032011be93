"""What the comparison methods reach on real digits with wrong labels: bands, and what each must beat."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ebomlc.bilevel import SGD
from ebomlc.data.loader import PairedLoader, in_order
from ebomlc.methods import METHODS, EpochContext, Setup, StepContext
from ebomlc.models import MainModel
from ebomlc.models.backbones import mlp_body
from ebomlc.records import NO_LABEL, Batch

EPOCHS, N_TEST, N_TRUSTED = 20, 360, 100


def add_noise(digits, noise, generator):
    kind, rate = noise.split(":")
    wrong = (digits + 1 + generator.integers(9)) % 10 if kind == "flip" else generator.integers(0, 10, len(digits))
    return np.where(generator.random(len(digits)) < float(rate), wrong, digits)


@functools.cache
def noisy_digits(noise):
    """Noisy rows, trusted rows, and test inputs with labels."""
    generator = np.random.default_rng(0)
    pixels, digits = load_digits(return_X_y=True)
    order = generator.permutation(len(digits))
    pixels, digits = pixels[order], digits[order]
    inputs = torch.as_tensor((pixels - pixels.mean(0)) / (pixels.std(0) + 1e-6)).float()
    right, given = torch.as_tensor(digits), torch.as_tensor(add_noise(digits, noise, generator))
    rows = Batch(inputs, given, right, torch.arange(len(digits)))
    trusted = rows[slice(N_TEST, N_TEST + N_TRUSTED)]
    trusted = Batch(trusted.inputs, torch.full_like(trusted.given, NO_LABEL), trusted.right, trusted.index)
    return rows[slice(N_TEST + N_TRUSTED, None)], trusted, rows[:N_TEST]


@functools.cache
def accuracies(name, noise):
    """Share of right predictions on test rows, and of right suggestions on noisy rows."""
    noisy, trusted, test = noisy_digits(noise)
    torch.manual_seed(0)
    hidden = Batch(noisy.inputs, noisy.given, torch.full_like(noisy.right, NO_LABEL), noisy.index)
    loader = PairedLoader(hidden, trusted, batch_size=100, trusted_batch_size=100, seed=0)
    setup = Setup(lambda: MainModel(nn.Sequential(*mlp_body(64, (128,), 0.0)), 128, 10), 10, SGD(weight_decay=5e-3))
    entry = METHODS[name]
    method = entry.create(entry.parse_settings({}), setup)
    total = EPOCHS * len(loader)
    for epoch in range(EPOCHS):
        passes = (lambda: in_order(hidden, 500)), (lambda: in_order(trusted, 500))
        method.begin_epoch(EpochContext(epoch, EPOCHS, *passes))
        method.model.train()
        for index, batches in enumerate(loader.epoch(epoch), epoch * len(loader)):
            lr = 0.1 * max(0.01, (1 + math.cos(math.pi * index / total)) / 2)
            method.step(*batches, StepContext(lr, index / total))
    method.model.eval()
    with torch.no_grad():
        predicted = method.model(test.inputs).logits.argmax(1)
        suggested = method.suggest(noisy.inputs, noisy.given).argmax(1)
    return float((predicted == test.right).float().mean()), float((suggested == noisy.right).float().mean())


# predictions and suggestions of seed 0; about five points of room below what was measured. `l2rw` has no band at flip
# noise: without batch norm and at this rate a few rows can take all the weight, and the network's weights run away.
BANDS = {
    ("finetune", "flip:0.4"): ((0.72, 0.86), (0.70, 0.83)),
    ("gce", "flip:0.4"): ((0.89, 1.0), (0.88, 1.0)),
    ("forward", "flip:0.4"): ((0.86, 1.0), (0.72, 0.90)),
    ("bayes", "flip:0.4"): ((0.84, 0.94), (0.89, 1.0)),
    ("mlc-head", "flip:0.4"): ((0.89, 1.0), (0.90, 1.0)),
    ("mw-net", "flip:0.4"): ((0.89, 1.0), (0.87, 1.0)),
    ("mslc", "flip:0.4"): ((0.86, 1.0), (0.82, 1.0)),
    ("emlc", "flip:0.4"): ((0.87, 1.0), (0.85, 1.0)),
    ("plus", "flip:0.4"): ((0.92, 1.0), (0.95, 1.0)),
    ("plus", "uniform:0.6"): ((0.88, 1.0), (0.87, 1.0)),
    ("finetune", "uniform:0.6"): ((0.81, 0.93), (0.79, 0.91)),
    ("gce", "uniform:0.6"): ((0.89, 1.0), (0.89, 1.0)),
    ("forward", "uniform:0.6"): ((0.88, 1.0), (0.85, 1.0)),
    ("bayes", "uniform:0.6"): ((0.84, 0.94), (0.83, 0.94)),
    ("mlc-head", "uniform:0.6"): ((0.82, 0.95), (0.80, 0.93)),
    ("l2rw", "uniform:0.6"): ((0.87, 1.0), (0.87, 1.0)),
    ("mw-net", "uniform:0.6"): ((0.90, 1.0), (0.89, 1.0)),
    ("mslc", "uniform:0.6"): ((0.87, 1.0), (0.86, 1.0)),
    ("emlc", "uniform:0.6"): ((0.87, 1.0), (0.83, 0.95)),
}


@pytest.mark.parametrize(("name", "noise"), BANDS)
def test_accuracy_band_on_digits(name, noise):
    predicted, suggested = accuracies(name, noise)
    (low, high), (suggested_low, suggested_high) = BANDS[name, noise]
    assert low <= predicted <= high
    assert suggested_low <= suggested <= suggested_high


@pytest.mark.parametrize("name", ["gce", "forward", "bayes", "mlc-head", "mw-net", "mslc", "emlc"])
def test_predictions_beat_plain_training_at_flip_noise(name):
    assert accuracies(name, "flip:0.4")[0] > accuracies("ce", "flip:0.4")[0] + 0.02


def test_suggestions_of_bayes_beat_its_own_classifier():
    noisy, _, _ = noisy_digits("flip:0.4")
    given = float((noisy.given == noisy.right).float().mean())
    predicted, suggested = accuracies("bayes", "flip:0.4")
    assert suggested > predicted + 0.02 > given
