"""Writing results so that a file is either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place.

    Parameters
    ----------
    path : Path
        The final name.
    write : callable
        Given a path in the same folder; writes the content there.
    """
    beside = path.with_name(f".{path.name}.partial")
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """A state dictionary as safetensors, each tensor on the CPU in its default memory format."""
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_atomically(path, partial(save_file, plain))
