"""State dictionaries on disk, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """A state dictionary as safetensors, each tensor on the CPU in its default memory format."""
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}, path)
