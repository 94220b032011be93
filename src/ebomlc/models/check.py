"""Is this network usable as a main model? One error that lists every problem with its repair."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from ebomlc.errors import InputError, listed
from ebomlc.models.backbones import MainModel
from ebomlc.models.wrap import find_head, trace_forward, two_rows, wrap_model


@dataclass(frozen=True)
class Problem:
    """Something about a model that keeps it from being trained.

    Attributes
    ----------
    verdict : {"never", "not yet", "replace"}
        It cannot work whatever is done; it works after a change to the model; a part is to be replaced by another.
    text : str
        What is wrong, where, and the repair.
    """

    verdict: Literal["never", "not yet", "replace"]
    text: str


Problems = Iterator[Problem]


def check_model(module: object, example: Tensor, n_classes: int, head: str | None = None) -> None:
    """Make sure that a module can become a main model by `ebomlc.models.wrap.wrap_model`.

    Everything is tried on copies: the module keeps its mode, weights and statistics.

    Parameters
    ----------
    module : nn.Module
        Maps rows [n, ...] to logits [n, K].
    example : Tensor, shape [n, ...]
        Some rows as the module's forward will get them, on its device.
    n_classes : int
        K.
    head : str, optional
        Name of the linear layer that makes the logits; see `wrap_model`.

    Raises
    ------
    InputError
        Several lines: all problems found, each with its verdict and its repair.
    """
    problems = list(_find_problems(module, example, n_classes, head))
    if problems:
        raise InputError(_as_tree(problems))


def _as_tree(problems: list[Problem]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    marks = ["|--"] * (len(problems) - 1) + ["`--"]
    lines = [f"{mark} {problem.verdict}: {problem.text}" for mark, problem in zip(marks, problems, strict=True)]
    return "\n".join([f"this model cannot be trained as it is ({count}):", *lines])


def _find_problems(module: object, example: Tensor, n_classes: int, head: str | None) -> Problems:
    if not isinstance(module, nn.Module):
        kind = "the class itself" if isinstance(module, type) else f"a {type(module).__name__}"
        yield Problem("never", f"the model is {kind}, not an nn.Module: give an instance of one")
        return
    blocking = [problem for check in BLOCKING for problem in check(module)]
    yield from blocking
    for check in STATIC:
        yield from check(module)
    if not blocking:
        yield from _check_by_running(module, two_rows(example), n_classes, head)


# --- without running the model ----------------------------------------------------------------------------------------


def _check_kind(module: nn.Module) -> Problems:
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        name = type(module).__name__
        yield Problem("never", f"{name} takes the gradients into its own hands: give the network inside, model.module")
    if isinstance(module, torch.jit.ScriptModule):
        yield Problem("never", "a scripted model cannot be run at other weights: give the module it was made from")


def _check_lazy(module: nn.Module) -> Problems:
    lazy = [name for name, p in _tensors(module).items() if is_lazy(p)]
    if lazy:
        repair = "run the model once on a few rows before"
        yield Problem("not yet", f"{listed(lazy)}: lazy layers whose size is not known yet: {repair}")


def _check_signature(module: nn.Module) -> Problems:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # forward of a compiled extension, which cannot be asked
        return
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = (*positional, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    if len(needed) > 1:
        repair = "give all but the first a default, or wrap the model in one that takes the rows alone"
        yield Problem("not yet", f"forward needs {len(needed)} inputs ({listed(needed)}): {repair}")
    elif not any(p.kind in (*positional, inspect.Parameter.VAR_POSITIONAL) for p in parameters):
        yield Problem("not yet", "forward takes no positional input: let it take the rows as its first")


def _check_copy(module: nn.Module) -> Problems:
    try:
        copy.deepcopy(module)
    except Exception as error:  # whatever a stranger's __deepcopy__ raises
        repair = "keep no computed tensor with a graph, lock, file or generator as an attribute of the model"
        yield Problem("not yet", f"copy.deepcopy(model) fails ({_first_line(error)}): {repair}")


def _check_trainable(module: nn.Module) -> Problems:
    if not list(module.parameters()):
        yield Problem("never", "the model has no parameters: there is nothing to train")
    elif not _trainable(module):
        repair = "call model.requires_grad_(True), or do so on the layers to train"
        yield Problem("not yet", f"every parameter is frozen (requires_grad is False): {repair}")


def _check_dtypes(module: nn.Module) -> Problems:
    trainable = _trainable(module)
    odd = {name: p for name, p in trainable.items() if p.dtype != torch.float32}
    if odd:
        name, first = next(iter(odd.items()))
        verdict = "never" if any(p.is_complex() for p in odd.values()) else "not yet"
        repair = "use real parameters" if verdict == "never" else "call model.float(); --precision decides on bfloat16"
        others = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        yield Problem(verdict, f"parameter {name!r}{others}: {_dtype(first)} instead of float32: {repair}")
    devices = {str(p.device): name for name, p in trainable.items()}
    if len(devices) > 1:
        where = listed([f"{name!r} is on {device}" for device, name in devices.items()])
        yield Problem("not yet", f"parameters on several devices ({where}): move the model to one, model.to(...)")


def _check_sparse(module: nn.Module) -> Problems:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse:
            yield Problem("replace", f"{name!r} has sparse gradients: replace sparse=True by sparse=False")


def _check_memory(module: nn.Module) -> Problems:
    """One nn.Parameter in two layers is fine; two of them in the same memory would drift apart."""
    owners: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        if is_lazy(parameter) or not parameter.numel():
            continue
        owner = owners.setdefault(parameter.data_ptr(), name)
        if owner != name:
            repair = f"share the nn.Parameter itself, such as by assigning that of {owner!r}"
            yield Problem("replace", f"{owner!r} and {name!r} are two parameters in the same memory: {repair}")


BLOCKING: tuple[Callable[[nn.Module], Problems], ...] = (_check_kind, _check_lazy, _check_signature, _check_copy)
"""Where one of these finds something, the model is not run."""

STATIC: tuple[Callable[[nn.Module], Problems], ...] = (_check_trainable, _check_dtypes, _check_sparse, _check_memory)


# --- by running the model ---------------------------------------------------------------------------------------------


def _check_by_running(module: nn.Module, rows: Tensor, n_classes: int, head: str | None) -> Problems:
    in_evaluation = list(_check_evaluation(module, rows))
    in_training = list(_check_training(module, rows)) if not in_evaluation else []
    yield from in_evaluation
    yield from in_training
    if any(problem.text.startswith("forward fails") for problem in in_evaluation):
        return
    about_head = list(_check_head(module, rows, n_classes, head))
    yield from about_head
    if not in_evaluation and not in_training and not about_head:
        try:
            wrap_model(module, n_classes, rows, head)
        except InputError as error:
            yield Problem("not yet", str(error))


def _check_evaluation(module: nn.Module, rows: Tensor) -> Problems:
    model = copy.deepcopy(module).eval()
    given = rows.clone()
    try:
        with torch.no_grad():
            output, again = model(given), model(rows.clone())
    except Exception as error:  # whatever a stranger's forward raises
        yield _failed("forward fails", error, rows)
        return
    if not torch.equal(given, rows):
        repair = "let the first layers make a new tensor, such as x = x / 255 for x /= 255 or inplace=False"
        yield Problem("not yet", f"forward overwrites the rows it is given: {repair}")
        again = output  # its second run saw other rows
    wrong = list(_check_output(output, len(rows), "in evaluation"))
    yield from wrong
    if wrong:
        return
    if not torch.isfinite(output).all():
        repair = "look at the weights, and at divisions and logarithms in forward"
        yield Problem("not yet", f"the output holds NaN or infinity on rows of shape {list(rows.shape)}: {repair}")
    elif not torch.equal(output, again):
        repair = "draw only where self.training is True; suggestions could not be repeated"
        yield Problem("not yet", f"two passes in evaluation mode give different outputs: {repair}")
    yield from _check_batch_sizes(model, rows)


def _check_batch_sizes(model: nn.Module, rows: Tensor) -> Problems:
    more = torch.cat([rows, rows[:1]])
    try:
        with torch.no_grad():
            output = model(more)
    except Exception as error:  # as above
        yield _failed(f"forward fails on {len(more)} rows after {len(rows)} went well", error, more)
        return
    if len(output) != len(more):
        repair = "take the number of rows from the input, x.flatten(1) instead of x.view(32, -1)"
        yield Problem("not yet", f"{len(more)} rows give {len(output)} rows of output: {repair}")


def _check_output(output: object, n_rows: int, mode: str) -> Problems:
    if not isinstance(output, Tensor):
        repair = "return the logits alone"
        if isinstance(output, Mapping):
            repair = f"return one of {listed([repr(str(key)) for key in output])} alone, the logits"
        elif isinstance(output, tuple | list):
            repair = f"return the logits alone, such as output[0] of the {len(output)}"
        yield Problem("not yet", f"forward returns a {type(output).__name__} {mode}, not a tensor: {repair}")
    elif output.dim() != 2 or len(output) != n_rows:
        repair = "return logits [n, K], such as after x.flatten(1) and an nn.Linear"
        yield Problem("not yet", f"{n_rows} rows give an output of shape {list(output.shape)} {mode}: {repair}")
    elif not output.is_floating_point():
        yield Problem("not yet", f"the output is {_dtype(output)} {mode}: return the logits, not classes")


def _check_training(module: nn.Module, rows: Tensor) -> Problems:
    model = copy.deepcopy(module).train()
    with torch.random.fork_rng():
        try:
            output = model(rows.clone())
        except Exception as error:  # as above
            yield _failed("forward fails in training mode", error, rows)
            return
    wrong = list(_check_output(output, len(rows), "in training"))
    yield from wrong
    if wrong or not _trainable(model):
        return
    if not output.requires_grad:
        repair = "take torch.no_grad(), .detach() and .data out of forward"
        yield Problem("not yet", f"the output does not depend on any trainable parameter: {repair}")
        return
    try:
        torch.autograd.grad(output.sum(), list(_trainable(model).values()), allow_unused=True)
    except Exception as error:  # of a stranger's backward
        repair = "mend the layer, or the change in place, that it names"
        yield Problem("not yet", f"backward fails ({_first_line(error)}): {repair}")


def _check_head(module: nn.Module, rows: Tensor, n_classes: int, head: str | None) -> Problems:
    model = copy.deepcopy(module).eval()
    try:
        name = find_head(model, trace_forward(model, rows.clone()), head)
    except InputError as error:
        yield Problem("not yet", str(error))
        return
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    if layer.out_features != n_classes:
        by = f"nn.Linear({layer.in_features}, {n_classes})"
        text = f"{name!r} makes {layer.out_features} logits for {n_classes} classes: replace {name!r} by {by}"
        yield Problem("replace", text)
    if not layer.weight.requires_grad and _trainable(module):
        repair = f"call model.{name}.requires_grad_(True); frozen layers before it may stay frozen"
        yield Problem("not yet", f"the head {name!r} is frozen, so the logits cannot follow the classes: {repair}")


def _failed(what: str, error: Exception, rows: Tensor) -> Problem:
    given = f"rows of shape {list(rows.shape)} in {_dtype(rows)}"
    return Problem("not yet", f"{what}: {_first_line(error)}; it was given {given}: {_hint(error, rows)}")


def _hint(error: Exception, rows: Tensor) -> str:
    """The likeliest repair of a forward that fails."""
    message = str(error)
    if rows.dtype == torch.uint8:
        return "the rows are whole numbers from 0 to 255: put pixels=StandardisePixels(mean, std) before the model"
    if "indices" in message and rows.is_floating_point():
        return "an nn.Embedding reads whole numbers, but rows are floats: use a model of numbers, such as --model mlp"
    if "Expected more than 1 value per channel" in message or "too small" in message:
        return "its maps have shrunk to one pixel or none: use fewer strides, or larger images"
    return "make it take rows of this shape, and give an example of the rows it will see"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


# --- for some methods -------------------------------------------------------------------------------------------------


def check_forward_mode(model: MainModel, example: Tensor) -> str | None:
    """Why a main model cannot be differentiated in forward mode, which method ``mlc`` needs.

    Parameters
    ----------
    model : MainModel
        Not changed.
    example : Tensor, shape [n, ...]
        Rows as it is fed them.

    Returns
    -------
    str or None
        What fails and what to do; None where the model can be differentiated.
    """
    tried = copy.deepcopy(model).train()
    _stop_tracking(tried)
    weights = {name: p.detach() for name, p in _trainable(tried).items()}
    rows = two_rows(example)

    def logits(at: dict[str, Tensor]) -> Tensor:
        return functional_call(tried, at, (rows,)).logits

    try:
        with torch.random.fork_rng(), torch.no_grad():
            _jvp(logits, weights)
    except Exception as error:  # each operator that lacks a rule raises what it likes
        repair = "give an autograd.Function a jvp, replace the layer, or take a method without it, such as ebomlc"
        return f"the model cannot be differentiated in forward mode ({_first_line(error)}): {repair}"
    return None


def _stop_tracking(model: nn.Module) -> None:
    """Let norms use the batch and write no statistics: writing them is what forward mode forbids."""
    for layer in model.modules():
        if getattr(layer, "track_running_stats", False):
            for name, value in (("track_running_stats", False), ("running_mean", None), ("running_var", None)):
                setattr(layer, name, value)


def _jvp(function: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]) -> Tensor:
    # of the ways to compute attention, only the plain one has a rule for forward mode
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        # torch sets forward mode up, at its first use, by way of a function it deprecates itself
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=DeprecationWarning)
        duals: dict[str, Tensor] = {name: forward_ad.make_dual(w, torch.ones_like(w)) for name, w in weights.items()}  # pyright: ignore[reportUnknownMemberType]
        return function(duals)
