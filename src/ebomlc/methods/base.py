"""The seam that everything hangs on: what a method is, what it is given, and the registry of methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ebomlc.bilevel.inner import Optimizer
from ebomlc.config import build
from ebomlc.errors import InputError, unknown_name
from ebomlc.models import Corrector, CorrectorSettings, MainModel
from ebomlc.records import Batch, StepReport


def identity(tensor: Tensor) -> Tensor:
    """The average of a flat gradient over the ranks of a run with one rank, and the rows of all of them."""
    return tensor


LEAST_ROWS = 2
"""Of a batch that batch norm can be trained on."""


@dataclass(frozen=True)
class StepContext:
    """What a step is told by the engine.

    Attributes
    ----------
    lr : float
        Learning rate of the main model in this step.
    progress : float in [0, 1)
        Share of the steps already done.
    reduce : callable
        Averages a flat gradient over ranks. To be called on every gradient before it enters an inner product.
    gather : callable
        Joins what the ranks hold of their rows of the batch [n, ...], as many on each. For figures that are kept of
        single rows, which every rank keeps of all: another epoch gives the row to another rank.
    schedule : callable, optional
        Learning rate after a share of the steps; without one it is always `lr`.
    """

    lr: float
    progress: float
    reduce: Callable[[Tensor], Tensor] = identity
    gather: Callable[[Tensor], Tensor] = identity
    schedule: Callable[[float], float] | None = None

    def lr_since(self, begun: float) -> float:
        """Learning rate of a network that goes through the whole schedule from the share `begun` of the steps on."""
        return self.schedule((self.progress - begun) / (1 - begun)) if self.schedule else self.lr

    def reduce_together(self, gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Averages of several flat gradients over ranks, for one message instead of many."""
        sizes = [len(gradient) for gradient in gradients]
        return self.reduce(torch.cat(list(gradients))).split_with_sizes(sizes)


@dataclass(frozen=True)
class EpochContext:
    """What a method is told before an epoch.

    Attributes
    ----------
    epoch, epochs : int
        Number of this epoch, from 0, and of all epochs.
    noisy, trusted : callable
        Each call gives one pass without augmentation: over this rank's share of the noisy rows, or over the trusted
        rows that train, which are few, and all of them on every rank.
    gather : callable
        Joins what the ranks found of their shares [n, ...], in the order of the rows.
    """

    epoch: int
    epochs: int
    noisy: Callable[[], Iterator[Batch]]
    trusted: Callable[[], Iterator[Batch]]
    gather: Callable[[Tensor], Tensor] = identity


class Part(Protocol):
    """Something whose state can be taken and put back: an optimizer, running averages, a module."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state, by names."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> object:
        """Take back what `state_dict` gave."""
        ...


class Method(Protocol):
    """A way to train on noisy and trusted rows. Knows nothing of files, progress bars or ranks."""

    @property
    def model(self) -> MainModel:
        """The main model that predictions are made with."""
        ...

    def begin_epoch(self, context: EpochContext) -> None:
        """Phases, passes over the full set, schedules."""
        ...

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step of the main model, and of whatever else the method trains."""
        ...

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """Distribution [n, K] of the right label of rows [n, ...] with given labels [n]; evaluation mode is on."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What the method holds besides the main model's weights."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        ...

    @property
    def parts(self) -> Mapping[str, Part]:
        """Everything that only a training that goes on needs: optimizers, running averages. Names never change."""
        ...


@dataclass(frozen=True)
class Setup:
    """What a method is built from.

    Attributes
    ----------
    make_model : callable
        Gives a freshly initialised main model on the run's device, in its memory format.
    n_classes : int
        K.
    optimizer : Optimizer
        The main model's.
    autocast : callable
        Context in which every forward of the main model runs: bfloat16, or nothing.
    joint_forward : bool
        Noisy and trusted training rows go through the main model as one batch (shared batch statistics) or as two.
    class_weights : Tensor of shape [K], optional
        Weight of each class in the noisy rows' part of the training loss, about 1 on average; None weighs all alike.
        Trusted rows are balanced by how they are drawn and suggestions are never weighted.
    adapt : callable, optional
        Changes other networks than main models, in place, once they are made: they may have to share batch norm's
        statistics with other ranks, as those of `make_model` do then.
    least_rows : int
        Of a part of a batch, for it to train; a method may leave fewer out. 0 where every rank has to take part in
        every forward.

    Raises
    ------
    ValueError
        The number of class weights is not K.
    """

    make_model: Callable[[], MainModel]
    n_classes: int
    optimizer: Optimizer
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    joint_forward: bool = False
    class_weights: Tensor | None = None
    adapt: Callable[[nn.Module], object] | None = None
    least_rows: int = LEAST_ROWS

    def __post_init__(self) -> None:
        """Check the number of class weights."""
        if self.class_weights is not None and self.class_weights.shape != (self.n_classes,):
            raise ValueError(f"{list(self.class_weights.shape)} class weights for {self.n_classes} classes")

    def weigh(self, targets: Tensor) -> Tensor:
        """Targets [n, K] times the class weights: the cross-entropy by them is - sum_k weight_k q_k log p_k."""
        return targets if self.class_weights is None else targets * self.class_weights.to(targets)

    def weigh_rows(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Losses [n] of rows against one label each, times that label's class weight; labels are int64 [n]."""
        return losses if self.class_weights is None else losses * self.class_weights.to(losses)[labels]

    def make_corrector(self, model: MainModel, settings: CorrectorSettings) -> Corrector:
        """A freshly initialised corrector beside `model`, in its dtype and on its device."""
        weight = model.head.weight
        corrector = Corrector(model.feature_dim, self.n_classes, settings).to(weight.device, weight.dtype)
        if self.adapt is not None:
            self.adapt(corrector)
        return corrector


@dataclass(frozen=True)
class Entry:
    """A method in the registry.

    Attributes
    ----------
    name, summary : str
        What users write, and one line that says what it does.
    settings : type
        Frozen dataclass of its hyper-parameters.
    create : callable
        From settings and `Setup` to the method.
    uses_gap : bool
        Takes differences of gradients at nearby weights, which need float32.
    uses_forward_mode : bool
        Differentiates the main model in forward mode, which not every layer of other people's networks can.
    needs_truth : bool
        Reads the right labels of noisy rows (only `oracle`).
    min_epochs : int
        Fewer make no sense, for a method with phases.
    """

    name: str
    summary: str
    settings: type[Any]
    create: Callable[[Any, Setup], Method]
    uses_gap: bool = False
    uses_forward_mode: bool = False
    needs_truth: bool = False
    min_epochs: int = 1

    def parse_settings(self, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - each method has its own dataclass
        """Settings from the table [method.settings]; raises InputError for what it does not know."""
        return build(self.settings, values, f"[method.settings] of {self.name}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise InputError unless a setting lies in [low, high] and is finite."""
    if not (low <= value <= high and math.isfinite(value)):
        allowed = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise InputError(f"[method.settings] {name} is {value}: must be {allowed}")


def check_rate(name: str, value: float) -> None:
    """Raise InputError unless a learning rate is positive and finite."""
    if not 0 < value < math.inf:
        raise InputError(f"[method.settings] {name} is {value}: must be positive")


GAP_GRADIENTS = ("difference", "constant")
"""dQ/dw as dL/dw(w) - dL/dw(w*), or as dL/dw(w) with w* held constant."""

METHODS: dict[str, Entry] = {}


def register(entry: Entry) -> Entry:
    """Add a method to the registry; called once per method where it is defined."""
    METHODS[entry.name] = entry
    return entry


def find_method(name: str) -> Entry:
    """The registry's entry, or InputError with the nearest name."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


def module_state(modules: Mapping[str, Part]) -> dict[str, Tensor]:
    """State dictionaries of several modules or other parts as one, keys prefixed by the name."""
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def load_module_state(modules: Mapping[str, Part], state: Mapping[str, Tensor]) -> None:
    """Take back what `module_state` gave."""
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
