"""Precision is chosen by hardware and by whether the gap survives it."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from ebomlc.bilevel import SGD, AdamW
from ebomlc.config import ModelConfig, TrainingConfig
from ebomlc.errors import InputError
from ebomlc.models import InputShape, build_model
from ebomlc.records import Batch
from ebomlc.training import device as room
from ebomlc.training.device import choose_device, choose_precision, gap_cosine, make_optimizer, place, suitable_threads

GREY = InputShape((1, 12, 12), (0.5,), (0.3,))
HALF = partial(torch.autocast, "cpu", torch.bfloat16)


def make(name="cnn", inputs=GREY):
    torch.manual_seed(0)
    return place(build_model(ModelConfig(name), inputs, 4), torch.device("cpu"))


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (128, 1, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.randint(4, (128,), generator=generator)
    return Batch(images, labels, labels, torch.arange(128))


@pytest.fixture
def fast_hardware(monkeypatch):
    monkeypatch.setattr(room, "has_fast_bfloat16", lambda device: True)


def test_convolutions_lie_in_channels_last():
    model = make()
    assert model.body[1].weight.is_contiguous(memory_format=torch.channels_last)


def test_gap_cosine_falls_with_the_rate_and_leaves_the_model_alone(batch):
    model = make()
    before = copy.deepcopy(model.state_dict())
    cosines = [gap_cosine(model, batch, lr, HALF) for lr in (0.1, 0.001)]
    assert cosines[0] > 0.8
    assert cosines[1] < room.SAFE_COSINE
    assert gap_cosine(model, batch, 0.1, torch.enable_grad) == pytest.approx(1.0, abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_method_with_a_gap_keeps_float32(batch, fast_hardware):
    chosen = choose_precision(TrainingConfig(), make, batch, uses_gap=True)
    assert chosen.name == "float32"
    assert "lose the gap" in chosen.reason


def test_a_method_without_a_gap_takes_bfloat16(batch, fast_hardware):
    chosen = choose_precision(TrainingConfig(), make, batch, uses_gap=False)
    assert chosen.name == "bfloat16"
    with chosen.autocast():
        assert make()(batch.inputs).logits.dtype == torch.bfloat16


def test_bfloat16_by_force_is_refused_where_the_gap_is_lost(batch):
    with pytest.raises(InputError, match="float32"):
        choose_precision(TrainingConfig(precision="bfloat16"), make, batch, uses_gap=True)


def test_without_hardware_or_convolutions_float32(batch, monkeypatch):
    monkeypatch.setattr(room, "has_fast_bfloat16", lambda device: False)
    assert choose_precision(TrainingConfig(), make, batch, uses_gap=False).name == "float32"
    small = partial(make, "mlp")
    monkeypatch.setattr(room, "has_fast_bfloat16", lambda device: True)
    assert choose_precision(TrainingConfig(), small, batch, uses_gap=False).name == "float32"


def test_small_models_get_one_thread_and_give_it_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suitable_threads(make("mlp")):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with suitable_threads(make("cnn")):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_gpu_is_said():
    if torch.cuda.is_available():
        assert choose_device("cuda").type == "cuda"
    else:
        with pytest.raises(InputError, match="no GPU"):
            choose_device("cuda")
    assert choose_device("cpu").type == "cpu"


def test_optimizer_takes_the_configured_values():
    assert make_optimizer(TrainingConfig(momentum=0.8, nesterov=True, weight_decay=0.1)) == SGD(0.8, 0.0, True, 0.1)
    assert make_optimizer(TrainingConfig(optimizer="adamw", weight_decay=0.2)) == AdamW(weight_decay=0.2)
