"""Anybody's network as a main model: its last linear layer becomes the head, what comes before it the body."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ebomlc.errors import InputError, listed, unknown_name
from ebomlc.models.backbones import MainModel

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""How far a logit of a wrapped model may be from the model's own: of itself, and of the largest one or 1."""


@dataclass(frozen=True)
class Trace:
    """What a module did with some rows.

    Attributes
    ----------
    output : object
        What its forward returned.
    ran : tuple of str
        Names of its layers, in the order in which they were called.
    """

    output: object
    ran: tuple[str, ...]


def wrap_model(
    module: nn.Module, n_classes: int, example: Tensor, head: str | None = None, pixels: nn.Module | None = None
) -> MainModel:
    """A main model with the weights of any module that ends in a linear layer; the module itself is not changed.

    Parameters
    ----------
    module : nn.Module
        Maps rows [n, ...] to logits [n, K]; see `ebomlc.models.check.check_model`.
    n_classes : int
        K.
    example : Tensor, shape [n, ...]
        Rows as the main model will be fed them: float features, or uint8 images.
    head : str, optional
        Name of the linear layer that makes the logits, such as ``"fc"`` or ``"classifier.3"``; by default the one
        that is called last.
    pixels : nn.Module, optional
        What comes before the module, such as `StandardisePixels` for uint8 images; copied as well.

    Returns
    -------
    MainModel
        Its logits are those of the module; it shares nothing with it.

    Raises
    ------
    InputError
        Where no linear layer makes the logits, or not as many as there are classes, or where something follows it.
    """
    with torch.no_grad():
        rows = two_rows(example if pixels is None else pixels(example))
    traced = trace_forward(copy.deepcopy(module).eval(), rows)
    name = find_head(module, traced, head)
    body, layer = _take_head_out(copy.deepcopy(module), name)
    if layer.out_features != n_classes:
        repair = f"replace it by nn.Linear({layer.in_features}, {n_classes})"
        raise InputError(f"layer {name!r} makes {layer.out_features} logits for {n_classes} classes: {repair}")
    bare = MainModel(body, layer.in_features, n_classes, layer)
    for training in (False, True):
        _require_same_logits(bare, module, rows, training, _explain_head(module, traced, name))
    if pixels is not None:
        bare.body = nn.Sequential(copy.deepcopy(pixels), body)
    return bare


def two_rows(rows: Tensor) -> Tensor:
    """The rows, the only one twice: a batch norm in training cannot do with one."""
    return torch.cat([rows, rows]) if len(rows) == 1 else rows


def trace_forward(module: nn.Module, rows: Tensor) -> Trace:
    """Run a module once, without gradient, and write down which of its layers were called.

    Parameters
    ----------
    module : nn.Module
        In the mode to run it in; whatever it raises is passed on.
    rows : Tensor, shape [n, ...]
        As its forward takes them.
    """
    ran: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    layers = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear) or not list(m.children())]
    handles = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            return Trace(module(rows), tuple(ran))
    finally:
        for handle in handles:
            handle.remove()


def find_head(module: nn.Module, traced: Trace, head: str | None = None) -> str:
    """Name of the linear layer that makes the logits: the one asked for, or the last that was called.

    Raises
    ------
    InputError
        Where there is none, or the one asked for is another kind of layer or was not called.
    """
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    called = [name for name in traced.ran if name in linear]
    if head is None:
        if called:
            return called[-1]
        last = _describe_layer(module, traced.ran[-1]) if traced.ran else "no layer at all"
        raise InputError(
            f"no nn.Linear makes the logits (the last layer called is {last}): end the model with "
            "nn.Flatten() and an nn.Linear whose output is returned as it is"
        )
    if head in called:
        return head
    if head in linear:
        raise InputError(f"layer {head!r} is not called by forward; called are {listed(called)}: name one of these")
    if head in dict(module.named_modules()):
        raise InputError(f"{_describe_layer(module, head)} is no nn.Linear: name one of {listed(linear)}")
    raise unknown_name("layer", head, linear)


def _describe_layer(module: nn.Module, name: str) -> str:
    return f"{name!r} ({type(module.get_submodule(name)).__name__})"


def _take_head_out(module: nn.Module, name: str) -> tuple[nn.Module, nn.Linear]:
    """Body and head of a module, which is changed."""
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    if not name:
        return nn.Identity(), layer
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())
    return module, layer


def _explain_head(module: nn.Module, traced: Trace, name: str) -> str:
    """Why the output of layer `name` is not what the module returns, and the repair."""
    after = traced.ran[len(traced.ran) - traced.ran[::-1].index(name) :]
    reason = "something in forward follows it, or it is called more than once"
    if after:
        reason = f"{listed([_describe_layer(module, other) for other in after])} comes after it"
    return f"{reason}: return the output of {name!r} itself, or name another layer with head=..."


def _require_same_logits(wrapped: MainModel, module: nn.Module, rows: Tensor, training: bool, reason: str) -> None:
    mode = "in training" if training else "in evaluation"
    expected = _run(module, rows, training)
    try:
        features, logits = _run(wrapped, rows, training)
    except RuntimeError as error:
        # without its head the module may hand the wrong shape to whatever came after
        raise InputError(f"without its head the model does not run ({mode}); {reason}") from error
    if not isinstance(features, Tensor) or features.shape != (len(rows), wrapped.feature_dim):
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        wanted = [len(rows), wrapped.feature_dim]
        raise InputError(f"the features that reach the head are {shape} instead of {wanted} ({mode}); {reason}")
    if not _are_close(logits, expected):
        raise InputError(f"the output of the model is not that of its head ({mode}); {reason}")


def _are_close(logits: Tensor, expected: object) -> bool:
    if not isinstance(expected, Tensor) or expected.shape != logits.shape:
        return False
    unit = max(float(expected.abs().max()), 1.0)
    return torch.allclose(logits, expected, rtol=RELATIVE, atol=ABSOLUTE * unit, equal_nan=True)


@torch.no_grad()
def _run(module: nn.Module, rows: Tensor, training: bool) -> Any:  # noqa: ANN401 - somebody else's forward
    """Output of a copy, with the same dropout masks at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return copy.deepcopy(module).train(training)(rows.clone())
