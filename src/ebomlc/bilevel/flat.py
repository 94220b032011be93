"""Parameters as one flat vector with views: axpy, dot, norm, save and restore are one kernel each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Slot:
    """Where one parameter lies in the vector: its shape, and its dimensions from slowest to fastest in memory."""

    name: str
    shape: torch.Size
    order: tuple[int, ...]
    offset: int

    def flat(self, tensor: Tensor) -> Tensor:
        """Lay the tensor's elements out in the parameter's memory order; shape [numel]."""
        return tensor.permute(self.order).reshape(-1)

    def view(self, piece: Tensor) -> Tensor:
        """Show a stretch of the vector as the parameter sees it: its shape and its strides."""
        inverse = [self.order.index(dim) for dim in range(len(self.order))]
        return piece.view([self.shape[dim] for dim in self.order]).permute(inverse)


class FlatParameters:
    """A module's trainable parameters as views into one vector.

    Build it after the last ``.to(device, memory_format)``: from then on the module and `vector` share memory, and a
    channels-last weight keeps its strides. Parameters with ``requires_grad=False`` stay outside. A parameter
    that several submodules share has one place in the vector.

    Parameters
    ----------
    module : nn.Module
        Its parameters' storage is replaced; buffers are left alone.

    Attributes
    ----------
    vector : Tensor, shape [P], without gradient
        The parameters. Write to it through `assign`.
    names : tuple of str
        Names of the parameters as in ``named_parameters``, in the order of the vector.

    Raises
    ------
    ValueError
        No trainable parameter; more than one dtype or device; two parameters in the same memory.
    """

    vector: Tensor
    names: tuple[str, ...]

    def __init__(self, module: nn.Module) -> None:
        named = _trainable(module)
        _require_uniform(named)
        self._module = module
        self._parameters = tuple(named.values())
        self._slots = _lay_out(named)
        self._sizes = [p.numel() for p in self._parameters]
        self.names = tuple(named)
        self.vector = self.flatten([p.detach() for p in self._parameters])
        for parameter, view in zip(self._parameters, self.unflatten(self.vector).values(), strict=True):
            parameter.data = view
        self.check()

    def __len__(self) -> int:
        return self.vector.numel()

    def gradient(self, loss: Tensor, *, retain_graph: bool = False) -> Tensor:
        """Gradient of a loss by the parameters; ``.grad`` is not touched.

        Parameters
        ----------
        loss : Tensor, shape []
            Computed by the module at the present `vector`.
        retain_graph : bool
            Keep the graph for a second backward pass. Take that one before `assign` is called.

        Returns
        -------
        Tensor, shape [P]
            In the order of `vector`; zero where the loss does not depend on a parameter.
        """
        return self.flatten(torch.autograd.grad(loss, self._parameters, retain_graph=retain_graph, allow_unused=True))

    def flatten(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Copy one tensor for each parameter into a new vector.

        Parameters
        ----------
        tensors : sequence of Tensor or None
            Of the parameters' shapes, any strides, in the order of `names`; None stands for zeros.

        Returns
        -------
        Tensor, shape [P]
            Differentiable in the tensors.

        Raises
        ------
        ValueError
            The number of tensors or a shape does not fit.
        """
        pieces: list[Tensor] = []
        for slot, parameter, tensor in zip(self._slots, self._parameters, tensors, strict=True):
            if tensor is not None and tensor.shape != slot.shape:
                raise ValueError(f"{slot.name!r} has shape {list(slot.shape)}, got {list(tensor.shape)}")
            pieces.append(slot.flat(torch.zeros_like(parameter) if tensor is None else tensor))
        return torch.cat(pieces)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Name a vector's parts, in the parameters' shapes and strides; ``torch.func.functional_call`` takes them.

        Parameters
        ----------
        vector : Tensor, shape [P]
            Any vector in the order of `vector`: weights, a gradient, a tangent.

        Returns
        -------
        dict of str to Tensor
            Differentiable in `vector`, twice as well.
        """
        # One split rather than many slices: its backward is one concatenation, not a padded [P] for each parameter.
        pieces = vector.split_with_sizes(self._sizes)
        return {slot.name: slot.view(piece) for slot, piece in zip(self._slots, pieces, strict=True)}

    @torch.no_grad()
    def assign(self, vector: Tensor) -> None:
        """Copy other weights into the module.

        Graphs built before are void: a backward through them raises, because it would mix old activations with
        new weights. Safe inside one ``torch.autocast`` block.

        Parameters
        ----------
        vector : Tensor, shape [P]
            The new weights.
        """
        self.vector.copy_(vector)
        # The parameters count their versions apart from the vector, and autocast keeps low-precision copies of them:
        # without these two lines an old graph, or an old copy, would be used silently.
        torch.autograd.graph.increment_version(self._parameters)
        torch.clear_autocast_cache()

    def check(self) -> None:
        """Make sure that the module still uses the vector.

        Raises
        ------
        RuntimeError
            A parameter was moved, replaced, added, frozen or unfrozen after flattening; names it and the repair.
        """
        named = _trainable(self._module)
        strays = [slot.name for slot in self._slots if not self._holds(slot, named.get(slot.name))]
        strays += [name for name in named if name not in self.names]
        if strays:
            raise RuntimeError(
                f"parameter {strays[0]!r} no longer lies in the flat vector ({len(strays)} in all): the module was "
                "changed after flattening, such as by .to(), or by replacing or freezing a layer. "
                "Do that first, then build FlatParameters again."
            )

    def _holds(self, slot: _Slot, parameter: nn.Parameter | None) -> bool:
        expected = self.vector.data_ptr() + slot.offset * self.vector.element_size()
        return parameter is not None and (parameter.numel() == 0 or parameter.data_ptr() == expected)


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _require_uniform(named: dict[str, nn.Parameter]) -> None:
    if not named:
        raise ValueError("the module has no trainable parameters: set requires_grad on the ones to train")
    kinds = {(str(p.dtype), str(p.device)): name for name, p in named.items()}
    if len(kinds) > 1:
        listed = ", ".join(f"{name!r} is {dtype} on {device}" for (dtype, device), name in kinds.items())
        raise ValueError(f"trainable parameters must share one dtype and device; {listed}: call module.to(...) first")
    owners: dict[int, str] = {}
    for name, parameter in named.items():
        owner = owners.setdefault(parameter.data_ptr(), name)
        if owner != name and parameter.numel():
            raise ValueError(f"{owner!r} and {name!r} lie in the same memory: share the nn.Parameter itself instead")


def _lay_out(named: dict[str, nn.Parameter]) -> tuple[_Slot, ...]:
    slots: list[_Slot] = []
    offset = 0
    for name, parameter in named.items():
        slots.append(_Slot(name, parameter.shape, _memory_order(parameter), offset))
        offset += parameter.numel()
    return tuple(slots)


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Dimensions from slowest to fastest.

    One of size 1 has any stride. Among equal strides it comes last, so that a kernel of one input channel that lies in
    channels_last is still seen to: convolutions take their layout from it.
    """
    return tuple(sorted(range(tensor.dim()), key=lambda dim: (-tensor.stride(dim), tensor.shape[dim] == 1)))
