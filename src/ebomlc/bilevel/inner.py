"""One optimizer step as a pure function, equal to torch.optim's, and how far it moves with its gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SGD:
    """Settings of ``torch.optim.SGD``: `momentum` in [0, 1), `dampening` in [0, 1], `weight_decay` >= 0.

    Raises
    ------
    ValueError
        A value out of range, or Nesterov without momentum or with dampening.
    """

    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        _require(0 <= self.dampening <= 1, "dampening", self.dampening, "in [0, 1]")
        _require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")


@dataclass(frozen=True)
class AdamW:
    """Settings of ``torch.optim.AdamW``: `beta1`, `beta2` in [0, 1), `eps` > 0, `weight_decay` >= 0.

    Raises
    ------
    ValueError
        A value out of range.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _require(0 <= self.beta1 < 1, "beta1", self.beta1, "in [0, 1)")
        _require(0 <= self.beta2 < 1, "beta2", self.beta2, "in [0, 1)")
        _require(0 < self.eps < float("inf"), "eps", self.eps, "above 0")
        _require(0 <= self.weight_decay < float("inf"), "weight_decay", self.weight_decay, "at least 0")


Optimizer = SGD | AdamW


@dataclass(frozen=True, eq=False)
class InnerState:
    """What an optimizer remembers between steps.

    Attributes
    ----------
    steps : int, >= 0
        Steps taken.
    first : Tensor, shape [P], or None
        Momentum buffer of SGD, running mean of the gradient of AdamW; None before the first step and without momentum.
    second : Tensor, shape [P], or None
        Running mean of the squared gradient; AdamW only.
    """

    steps: int
    first: Tensor | None
    second: Tensor | None


def initial_state() -> InnerState:
    """State before the first step, of either optimizer."""
    return InnerState(0, None, None)


def inner_step(
    weights: Tensor, gradient: Tensor, state: InnerState, optimizer: Optimizer, lr: float
) -> tuple[Tensor, InnerState]:
    """One step of the main optimizer.

    Parameters
    ----------
    weights, gradient : Tensor, shape [P]
        Not changed. The result is differentiable in `gradient`; detach `gradient` where no graph is wanted, the new
        state keeps it otherwise. For AdamW the derivative is the full one, preconditioner included, and not finite
        where every gradient so far was zero.
    state : InnerState
        After the last step; `initial_state` at the beginning.
    optimizer : SGD or AdamW
        Settings.
    lr : float
        Learning rate of this step.

    Returns
    -------
    Tensor, shape [P]
        The new weights, bit for bit those of torch.optim (without ``fused``).
    InnerState
        The new state.
    """
    if isinstance(optimizer, SGD):
        return _sgd_step(weights, gradient, state, optimizer, lr)
    first, second = _moments(gradient, state, optimizer)
    new = InnerState(state.steps + 1, first, second)
    shrunk = weights * (1 - lr * optimizer.weight_decay)
    return shrunk.addcdiv(first, _preconditioner(new, optimizer), value=-_corrected_rate(new, optimizer, lr)), new


def step_sensitivity(gradient: Tensor, state: InnerState, optimizer: Optimizer, lr: float) -> float | Tensor:
    """Diagonal of the derivative of the new weights by the gradient.

    SGD: exact. ``-lr s``, with s = 1 without momentum and on the very first step, then 1 - dampening; Nesterov has
    s = 1 + momentum. Weight decay does not enter. AdamW: the preconditioner is treated as a constant, so its own
    derivative by the gradient is left out. That is close once the second moment has a history, and wrong on the very
    first step, which is nearly the sign of the gradient and so hardly moves with it.

    Parameters
    ----------
    gradient : Tensor, shape [P]
        The gradient of this step (AdamW's preconditioner depends on it).
    state : InnerState
        From which the step is taken, not the one after it.
    optimizer : SGD or AdamW
        Settings.
    lr : float
        Learning rate of this step.

    Returns
    -------
    float, or Tensor of shape [P] for AdamW
        Zero or negative; the look-ahead of METHOD.md section 2.
    """
    if isinstance(optimizer, SGD):
        scale = 1.0 if state.first is None else 1 - optimizer.dampening
        return -lr * (1 + optimizer.momentum * scale if optimizer.nesterov else scale)
    first, second = _moments(gradient.detach(), state, optimizer)
    new = InnerState(state.steps + 1, first, second)
    return -_corrected_rate(new, optimizer, lr) * (1 - optimizer.beta1) / _preconditioner(new, optimizer)


def _sgd_step(
    weights: Tensor, gradient: Tensor, state: InnerState, optimizer: SGD, lr: float
) -> tuple[Tensor, InnerState]:
    decay, momentum = optimizer.weight_decay, optimizer.momentum
    decayed = gradient.add(weights, alpha=decay) if decay else gradient
    if momentum == 0:
        return weights.add(decayed, alpha=-lr), InnerState(state.steps + 1, None, None)
    if state.first is None:
        buffer = decayed.clone()
    else:
        buffer = state.first.mul(momentum).add(decayed, alpha=1 - optimizer.dampening)
    direction = decayed.add(buffer, alpha=momentum) if optimizer.nesterov else buffer
    return weights.add(direction, alpha=-lr), InnerState(state.steps + 1, buffer, None)


def _moments(gradient: Tensor, state: InnerState, optimizer: AdamW) -> tuple[Tensor, Tensor]:
    first = torch.zeros_like(gradient) if state.first is None else state.first
    second = torch.zeros_like(gradient) if state.second is None else state.second
    # The order of operations is that of torch.optim: only then do the last bits agree.
    mean = first.lerp(gradient, 1 - optimizer.beta1)
    return mean, second.mul(optimizer.beta2).addcmul(gradient, gradient, value=1 - optimizer.beta2)


def _preconditioner(state: InnerState, optimizer: AdamW) -> Tensor:
    assert state.second is not None
    return (state.second.sqrt() / (1 - optimizer.beta2**state.steps) ** 0.5).add(optimizer.eps)


def _corrected_rate(state: InnerState, optimizer: AdamW, lr: float) -> float:
    return lr / (1 - optimizer.beta1**state.steps)


def _require(holds: bool, name: str, value: float, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
