"""On what a run computes: device, optimizer, memory format and precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebomlc.bilevel import SGD, AdamW, FlatParameters, Optimizer, frozen_statistics
from ebomlc.config import TrainingConfig
from ebomlc.errors import InputError
from ebomlc.models import MainModel
from ebomlc.records import Batch

SAFE_COSINE = 0.95
"""Below this cosine with float32, the direction of the gap in bfloat16 counts as lost."""

SMALL_MODEL = 1_000_000
"""Parameters of a model without convolutions from which several threads pay."""

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Precision:
    """How the forwards of the training steps compute, and why."""

    name: str
    reason: str
    autocast: Autocast = nullcontext


def choose_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        Where a GPU is asked for and torch finds none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def make_optimizer(config: TrainingConfig) -> Optimizer:
    """The main model's optimizer as the bilevel steps take it."""
    decay = config.weight_decay or 0.0
    if config.optimizer == "adamw":
        return AdamW(weight_decay=decay)
    return SGD(momentum=config.momentum, nesterov=config.nesterov, weight_decay=decay)


def is_convolutional(model: nn.Module) -> bool:
    """True where the model holds a two-dimensional convolution: then channels_last and bfloat16 pay."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def place(model: MainModel, device: torch.device) -> MainModel:
    """The model on its device, in channels_last where it convolves."""
    if is_convolutional(model):
        return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


@contextmanager
def suitable_threads(model: MainModel) -> Iterator[None]:
    """One processor thread inside, where the model is too small to share: handing work over costs more than it saves.

    On a machine that is busy otherwise, waiting for a second thread has cost a hundredfold.
    """
    small = not is_convolutional(model) and sum(p.numel() for p in model.parameters()) < SMALL_MODEL
    before = torch.get_num_threads()
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_fast_bfloat16(device: torch.device) -> bool:
    """True where matrix products in bfloat16 run in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_precision(
    config: TrainingConfig, make_model: Callable[[], MainModel], batch: Batch, *, uses_gap: bool
) -> Precision:
    """Precision of the training steps.

    Parameters
    ----------
    config : TrainingConfig
        With ``auto``, bfloat16 is taken for convolutional models where the hardware has it and, for a method that
        takes differences of gradients, the direction of the gap survives it at both ends of the schedule.
    make_model : callable
        Gives a fresh main model on the run's device.
    batch : Batch
        Rows to try the gap on.
    uses_gap : bool
        See `ebomlc.methods.base.Entry`.

    Raises
    ------
    InputError
        Where bfloat16 is asked for, but would lose the gap's direction.
    """
    device = batch.inputs.device
    half = Precision("bfloat16", "asked for", partial(torch.autocast, device.type, torch.bfloat16))
    model = make_model()
    if config.precision == "float32":
        return Precision("float32", "asked for")
    if config.precision == "auto" and not is_convolutional(model):
        return Precision("float32", "the model is small")
    if config.precision == "auto" and not has_fast_bfloat16(device):
        return Precision("float32", "no bfloat16 hardware")
    if not uses_gap:
        return Precision("bfloat16", "hardware has it, and the method takes no gap", half.autocast)
    rates = (config.lr, config.lr * config.lr_floor)
    cosine = min(gap_cosine(model, batch, rate, half.autocast) for rate in rates)
    found = f"cosine of the gap with float32: {cosine:.2f}, {SAFE_COSINE} needed"
    if cosine >= SAFE_COSINE:
        return Precision("bfloat16", found, half.autocast)
    if config.precision == "bfloat16":
        raise InputError(f"precision bfloat16 would lose the direction of this method's gap ({found}); use float32")
    return Precision("float32", f"bfloat16 would lose the gap ({found})")


def gap_cosine(model: MainModel, batch: Batch, lr: float, autocast: Autocast) -> float:
    """Cosine of dQ/dw = dL/dw(w) - dL/dw(w - lr dL/dw) between `autocast` and float32 (METHOD.md section 3).

    The model is not changed. Where the gap is exactly zero in one of them, the cosine is zero.
    """
    plain, half = (_gap(copy.deepcopy(model), batch, lr, context) for context in (nullcontext, autocast))
    return float(F.cosine_similarity(plain, half, dim=0))


def _gap(model: MainModel, batch: Batch, lr: float, autocast: Autocast) -> Tensor:
    flat = FlatParameters(model.train())

    def gradient() -> Tensor:
        with autocast(), frozen_statistics(model):
            logits = model(batch.inputs).logits
        return flat.gradient(F.cross_entropy(logits.float(), batch.given))

    before = gradient()
    flat.assign(flat.vector - lr * before)
    return before - gradient()
