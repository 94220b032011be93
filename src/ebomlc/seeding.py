"""Named random generators from one seed, so that adding a draw in one room moves no draw in another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def child_seed(seed: int, name: str) -> int:
    """Seed of the generator called `name` under the run's `seed`.

    Returns
    -------
    int in [0, 2**63)
        The same for the same pair on every machine and Python version.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, name: str) -> np.random.Generator:
    """The numpy generator called `name` under `seed`."""
    return np.random.default_rng(child_seed(seed, name))


def torch_generator(seed: int, name: str, device: str = "cpu") -> torch.Generator:
    """The torch generator called `name` under `seed`, on `device`."""
    import torch

    return torch.Generator(device).manual_seed(child_seed(seed, name))


def seed_global(seed: int) -> None:
    """Seed torch's global generators, which weight initialisation and dropout read."""
    import torch

    torch.manual_seed(child_seed(seed, "torch"))
