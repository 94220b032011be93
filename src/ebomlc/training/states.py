"""State dictionaries on disk, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """A state dictionary as safetensors, each tensor on the CPU in its default memory format."""
    # written by Python, whose errors say what is wrong with a disk
    path.write_bytes(save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}))


def load_state(path: Path) -> dict[str, Tensor]:
    """A state dictionary that `save_state` wrote, on the CPU.

    Raises
    ------
    OSError, ValueError
        Where the file is missing or damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error
