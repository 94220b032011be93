"""A step asks nothing of the device, so that a GPU never waits for Python between two looks at the figures.

On torch's meta device tensors have no values: whatever asks for one, as a synchronisation does, fails.
"""

from __future__ import annotations

import pytest
import torch

from ebomlc.bilevel import SGD, FlatParameters, flat
from ebomlc.config import ModelConfig
from ebomlc.methods import METHODS, Setup, StepContext
from ebomlc.models import InputShape, build_model
from ebomlc.records import Batch

META = torch.device("meta")
SHAPE, N_CLASSES, N_ROWS = (1, 28, 28), 10, 20


def make_model():
    return build_model(ModelConfig(name="cnn-tiny"), InputShape(SHAPE, (0.5,), (0.25,)), N_CLASSES).to(META)


def draw() -> Batch:
    labels = (torch.empty(N_ROWS, dtype=torch.int64, device=META) for _ in range(3))
    return Batch(torch.empty(N_ROWS, *SHAPE, device=META), *labels)


@pytest.fixture(autouse=True)
def without_addresses(monkeypatch):
    """All tensors of the meta device lie at address 0, which flat parameters would refuse."""
    monkeypatch.setattr(flat, "_require_uniform", lambda named: None)
    monkeypatch.setattr(FlatParameters, "_holds", lambda self, slot, parameter: True)


def create(name):
    entry = METHODS[name]
    method = entry.create(entry.parse_settings({}), Setup(make_model, N_CLASSES, SGD()))
    method.model.train()
    return method


def take_steps(method, *progress):
    for share in progress:
        method.step(draw(), draw(), StepContext(0.1, share))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_step_waits_for_the_device(name):
    method = create(name)
    if name == "mslc":
        method.averages.values = torch.empty(N_ROWS, N_CLASSES, device=META)  # `begin_epoch` makes room
    take_steps(method, 0.0, 0.01, 0.9)


@pytest.mark.parametrize("name", ["glc", "forward"])
def test_nor_does_one_of_the_second_phase(name):
    method = create(name)
    method.transition = torch.empty(N_CLASSES, N_CLASSES, device=META)
    take_steps(method, 0.5, 0.6)


def test_nor_do_the_first_and_the_last_phase_of_plus():
    method = create("plus")
    method.twins.begin()
    take_steps(method, 0.0, 0.01)
    method.twins.end()
    method.transition = torch.empty(N_CLASSES, N_CLASSES, device=META)
    method.targets.values = torch.empty(N_ROWS, N_CLASSES, device=META)
    take_steps(method, 0.5, 0.6)


def test_cross_fitting_is_the_one_step_that_waits():
    """Which rows of a batch belong to a twin is not known beforehand, nor how many."""
    method = create("plus")
    method.twins.begin()
    method.transition = torch.empty(N_CLASSES, N_CLASSES, device=META)
    with pytest.raises(Exception, match=r"(?i)meta"):
        take_steps(method, 0.2)
