"""Convolutional networks keep the channels last throughout a step: operations on two layouts are ten times slower."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ebomlc.bilevel import SGD
from ebomlc.config import ModelConfig
from ebomlc.methods import Setup, StepContext, find_method
from ebomlc.models import InputShape, build_model
from ebomlc.records import NO_LABEL, Batch

N_CLASSES, N_ROWS = 10, 4


def lies_last(tensor) -> bool | None:
    """Whether the channels of maps lie last; None for what is no maps of a batch, or is both or neither."""
    if not isinstance(tensor, torch.Tensor) or tensor.dim() != 4 or len(tensor) > N_ROWS:
        return None
    last, first = tensor.is_contiguous(memory_format=torch.channels_last), tensor.is_contiguous()
    return None if last == first else last


class Layouts(TorchDispatchMode):
    """Operations on maps of the same shape in different layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.mixed = 0, list[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple) else (result,)
        maps = [tensor for tensor in (*args, *results) if lies_last(tensor) is not None]
        self.seen += len(maps) > 1
        for shape in {tensor.shape for tensor in maps}:
            if len({lies_last(tensor) for tensor in maps if tensor.shape == shape}) > 1:
                self.mixed.append(f"{func} of {tuple(shape)}")
        return result


def draw(shape, *, trusted) -> Batch:
    labels, missing = torch.randint(N_CLASSES, (N_ROWS,)), torch.full((N_ROWS,), NO_LABEL)
    pixels = torch.randint(256, (N_ROWS, *shape), dtype=torch.uint8)
    return Batch(pixels, missing if trusted else labels, labels if trusted else missing, torch.arange(N_ROWS))


@pytest.mark.parametrize("method", ["ce", "mlc", "ebomlc"])
@pytest.mark.parametrize(
    ("model", "shape"), [("cnn-tiny", (1, 28, 28)), ("cnn", (3, 32, 32)), ("resnet20", (3, 32, 32))]
)
def test_no_operation_of_a_step_mixes_layouts(model, shape, method):
    normalised = InputShape(shape, (0.5,) * shape[0], (0.25,) * shape[0])

    def make_model():
        return build_model(ModelConfig(name=model), normalised, N_CLASSES).to(memory_format=torch.channels_last)

    entry = find_method(method)
    trained = entry.create(entry.parse_settings({}), Setup(make_model, N_CLASSES, SGD()))
    trained.model.train()
    rows = draw(shape, trusted=False), draw(shape, trusted=True)
    with Layouts() as layouts:
        trained.step(*rows, StepContext(0.1, 0.0))
    assert layouts.mixed == []
    assert layouts.seen > 10, "convolutions, norms and their gradients were looked at"
