"""What must hold when one batch is evaluated at a second point: the same statistics rule, the same random draws."""

from collections.abc import Generator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_WITH_DROPOUT_INSIDE = (nn.MultiheadAttention, nn.RNNBase)
_PROBABILITY_NAMES = ("p", "drop_prob", "prob", "drop_rate")


@contextmanager
def frozen_statistics(module: nn.Module) -> Generator[None, None, None]:
    """Normalise by the batch as in train mode, and write no running statistics.

    Layers in eval mode keep using their running statistics. ``torch.func.jvp`` and its kind work inside, where a
    tracking batch norm raises. Only layers with a ``track_running_stats`` switch are covered: every batch and
    instance norm of torch.

    Parameters
    ----------
    module : nn.Module
        Its layers are switched inside the block and restored after it, after an exception as well.
    """
    tracking = [m for m in module.modules() if m.training and getattr(m, "track_running_stats", False)]
    switched = [(layer, name, getattr(layer, name)) for layer in tracking for name in _switches(layer)]
    for layer, name, value in switched:
        setattr(layer, name, False if value is True else None)
    try:
        yield
    finally:
        for layer, name, value in switched:
            setattr(layer, name, value)


class RandomReplay:
    """The same dropout masks at a second evaluation: a difference of two random draws is noise, not a gap.

    Made before the first evaluation; remembers the random state of the CPU and of the GPUs the module lives on. For
    a module without active dropout it does nothing and costs nothing. Dropout is seen where it is a layer: torch's
    own, attention and recurrent layers, and any class with "drop" in its own or a parent's name. A call of
    ``functional.dropout`` inside somebody's ``forward`` is not seen.

    Parameters
    ----------
    module : nn.Module
        The module that will be evaluated twice.
    """

    def __init__(self, module: nn.Module) -> None:
        self._devices = _random_devices(module) if any(_drops(m) for m in module.modules()) else []
        self._states = [_random_state(device) for device in self._devices]

    @contextmanager
    def again(self) -> Generator[None, None, None]:
        """Inside, the random state is as at construction; after, as it was before entering."""
        outer = [_random_state(device) for device in self._devices]
        self._set(self._states)
        try:
            yield
        finally:
            self._set(outer)

    def _set(self, states: list[Tensor]) -> None:
        for device, state in zip(self._devices, states, strict=True):
            if device.type == "cuda":
                torch.cuda.set_rng_state(state, device)
            else:
                torch.set_rng_state(state)


def _random_devices(module: nn.Module) -> list[torch.device]:
    """List the CPU and every GPU with a parameter or buffer of the module."""
    tensors = chain(module.parameters(), module.buffers())
    return [torch.device("cpu"), *{t.device for t in tensors if t.device.type == "cuda"}]


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _switches(layer: nn.Module) -> tuple[str, ...]:
    """List the attributes to empty; a tracking instance norm writes its buffers whatever the first one says."""
    writes_anyway = isinstance(layer, _INSTANCE_NORMS)
    return ("track_running_stats", "running_mean", "running_var") if writes_anyway else ("track_running_stats",)


def _drops(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, nn.RReLU):
        return True
    if isinstance(module, _WITH_DROPOUT_INSIDE):
        return module.dropout > 0
    names = [kind.__name__.lower() for kind in type(module).__mro__]
    if not any("drop" in name or name == "stochasticdepth" for name in names):
        return False
    # A dropout of unknown make counts as active: replaying for nothing is cheap, not replaying is wrong.
    probabilities = [getattr(module, name) for name in _PROBABILITY_NAMES if hasattr(module, name)]
    return any(probabilities) or not probabilities
