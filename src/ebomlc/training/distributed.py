"""Many processes on one training: what they tell each other, and that what fails on one fails on all.

Every rank holds all that is learnt, the same to the last bit, and its part of every batch. Gradients are averaged, rows
that a method keeps figures of are gathered. So one rank's state is the state of the whole training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from ebomlc.errors import InputError, RankLostError
from ebomlc.methods import Method
from ebomlc.methods.base import load_module_state, module_state
from ebomlc.records import Share
from ebomlc.training.checkpoint import Checkpoint

T = TypeVar("T")

TIMEOUT, PATIENCE = timedelta(minutes=30), timedelta(days=1)
"""A rank that dies is noticed at once, by its closed connections. The first is for one that hangs or is cut off in the
training, the second for one that reads or encodes while the others wait."""

STATISTICS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class Ranks(Share):
    """The processes of a run, and which of them this one is; a single one talks to nobody.

    Every function but `part` is to be called on all ranks, in the same order.

    Attributes
    ----------
    on_machine : int
        Number of this process among those of its machine.
    patient : ProcessGroup, optional
        By which the ranks say where they are.
    """

    on_machine: int = 0
    patient: Any = None

    def __deepcopy__(self, _: object) -> Ranks:
        """Itself: a copy of a model is trained by the same processes."""
        return self

    def add(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor of one shape over all ranks, the same to the last bit on each.

        Raises
        ------
        RankLostError
            Where another rank is gone; so do the other functions.
        """
        if self.size == 1:
            return tensor
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        _talk(dist.all_reduce, total)
        return total

    def average(self, tensor: Tensor) -> Tensor:
        """Mean of a tensor of one shape over all ranks, the same to the last bit on each."""
        return tensor if self.size == 1 else self.add(tensor).div_(self.size)

    def gather(self, rows: Tensor, *, alike: bool = False) -> Tensor:
        """The rows [n, ...] of every rank one after another, in the order of the ranks.

        Parameters
        ----------
        rows : Tensor, shape [n, ...]
            n may differ from rank to rank.
        alike : bool
            It does not, which saves a message.
        """
        if self.size == 1:
            return rows
        lengths = [len(rows)] * self.size if alike else self._gather_alike(torch.tensor([len(rows)])).flatten().tolist()
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = self._gather_alike(padded).unbind()
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    def _gather_alike(self, tensor: Tensor, *group: object) -> Tensor:
        """The tensors of all ranks [size, ...]."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        _talk(dist.all_gather, parts, tensor, *group)
        return torch.stack(parts)

    def any(self, flag: bool) -> bool:
        """Whether something holds on one of the ranks."""
        return flag if self.size == 1 else bool(self._gather_alike(torch.tensor([flag], dtype=torch.uint8)).any())

    def tell(self, text: str) -> list[str]:
        """What each rank says."""
        if self.size == 1:
            return [text]
        content = text.encode()
        lengths = self._gather_alike(torch.tensor([len(content)]), self.patient).flatten().tolist()
        said = self._gather_alike(_to_tensor(content.ljust(max(lengths))), self.patient).numpy()
        return [letters[:length].tobytes().decode() for letters, length in zip(said, lengths, strict=True)]

    def agree(self, work: Callable[[], T]) -> T:
        """Do something on every rank; where it fails on one of them, it fails on all.

        Raises
        ------
        InputError, Exception
            What was raised here; or else as the first rank that failed says.
        """
        if self.size == 1:
            return work()
        found: list[T] = []
        failure = None
        try:
            found.append(work())
        except Exception as error:
            failure = error
        is_given = isinstance(failure, InputError | OSError)
        said = [json.loads(text) for text in self.tell(json.dumps([failure and str(failure), is_given]))]
        if failure is not None:
            raise failure
        for rank, (message, is_given) in enumerate(said):
            if message is not None:
                raise (InputError if is_given else RankLostError)(f"rank {rank}: {message}")
        return found[0]

    def share(self, checkpoint: Checkpoint) -> Checkpoint:
        """Rank 0's state of the training."""
        if self.size == 1:
            return checkpoint
        figures = {"step": checkpoint.step, "figures": checkpoint.figures}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        is_first = self.rank == 0
        received = json.loads(self._broadcast(json.dumps(figures).encode() if is_first else b""))
        content = self._broadcast(save(tensors) if is_first else b"")
        return Checkpoint(received["step"], load(content), received["figures"])

    def _broadcast(self, content: bytes) -> bytes:
        length = torch.tensor([len(content)])
        _talk(dist.broadcast, length, 0)
        tensor = _to_tensor(content) if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        _talk(dist.broadcast, tensor, 0)
        return tensor.numpy().tobytes()


ALONE = Ranks()


def is_first() -> bool:
    """Whether this process is the one that speaks for all that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


def _to_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def _talk(collective: Callable[..., object], *arguments: object) -> None:
    try:
        collective(*arguments)
    except RuntimeError as error:
        raise RankLostError(
            f"another process of this run is gone, and says why itself unless it was killed; what was done until the "
            f"last checkpoint is kept: start all of them again with --resume ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def join() -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started this process with, connected inside the block; else this process alone.

    Raises
    ------
    InputError
        Where more processes than GPUs were started on a machine that has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    here = int(os.environ.get("LOCAL_RANK", "0"))
    is_ours = not dist.is_initialized()
    backend = _backend(here, int(os.environ.get("LOCAL_WORLD_SIZE", here + 1)))
    if is_ours:
        try:
            dist.init_process_group(backend, timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the {size} processes cannot reach each other: {error}; start them by torchrun"
            ) from error
    try:
        yield Ranks(dist.get_rank(), size, here, dist.new_group(timeout=PATIENCE, backend="gloo"))
    except RankLostError:
        is_ours = False  # to take leave of a process that is gone may last for ever
        raise
    finally:
        if is_ours:
            dist.destroy_process_group()


def _backend(here: int, on_machine: int) -> str:
    """By what the ranks talk; of so many on this machine each has a GPU of its own where there are GPUs."""
    n_gpus = torch.cuda.device_count()
    if n_gpus == 0:
        return "gloo"
    if on_machine > n_gpus:
        raise InputError(
            f"more processes than GPUs: there are {n_gpus}; give --nproc-per-node {n_gpus}, or hide the GPUs with "
            f"CUDA_VISIBLE_DEVICES= to train on the processors"
        )
    torch.cuda.set_device(here)
    return "cpu:gloo,cuda:nccl"


# --- one state --------------------------------------------------------------------------------------------------------


def average_statistics(method: Method, ranks: Ranks) -> None:
    """Give every rank the average of the running statistics of batch norm, where each kept its own."""
    groups: list[tuple[Mapping[str, Tensor], Callable[[dict[str, Tensor]], object]]] = [
        (method.model.state_dict(), method.model.load_state_dict),
        (method.state_dict(), method.load_state_dict),
        (module_state(method.parts), partial(load_module_state, method.parts)),
    ]
    for state, put_back in groups:
        own = {name: value for name, value in state.items() if name.endswith(STATISTICS)}
        if own:
            joined = ranks.average(torch.cat([value.flatten() for value in own.values()]))
            parts = joined.split_with_sizes([value.numel() for value in own.values()])
            averaged = {name: part.view_as(own[name]) for name, part in zip(own, parts, strict=True)}
            put_back({**state, **averaged})


def check_alike(method: Method, ranks: Ranks, epoch: int) -> None:
    """Make sure that all ranks hold the same weights, to the last bit.

    Raises
    ------
    InputError
        Where they do not, which only machines of different kinds have been seen to cause.
    """
    if ranks.size == 1:
        return
    said = ranks.tell(digest([*method.model.state_dict().values(), *method.state_dict().values()]))
    if len(set(said)) > 1:
        odd = next(rank for rank, text in enumerate(said) if text != said[0])
        raise InputError(
            f"ranks 0 and {odd} hold different weights after epoch {epoch}: start them on machines of one kind, with "
            f"the same versions of everything"
        )


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the content of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_equal(ranks: Ranks, figures: Mapping[str, Any]) -> None:
    """Refuse ranks that would not do the same.

    Parameters
    ----------
    ranks : Ranks
        To compare.
    figures : mapping
        What must be equal, as JSON knows it, by the name that users know it under.

    Raises
    ------
    InputError
        On every rank, with what differs from rank 0.
    """
    said = [json.loads(text) for text in ranks.tell(json.dumps(figures))]
    for rank, other in enumerate(said):
        odd = next((name for name in {**said[0], **other} if other.get(name) != said[0].get(name)), None)
        if odd is not None:
            raise InputError(
                f"the processes were not started alike: {odd} is {other.get(odd)} on rank {rank} and "
                f"{said[0].get(odd)} on rank 0; give all of them the same command, files and versions"
            )
