"""Named generators from one seed, so that adding a draw in one room moves no draw in another; repeatable operations."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ebomlc.errors import InputError

if TYPE_CHECKING:
    import torch

CUBLAS, REPEATABLE_CUBLAS = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""What NVIDIA's library of matrix products looks at, and the values under which it repeats its own bits."""

NOT_REPEATABLE = " does not have a deterministic implementation"
"""In torch's message, after the name of an operation."""


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


@contextmanager
def only_repeatable(wanted: bool | None) -> Iterator[None]:
    """Inside, where that is wanted, let torch take only operations that repeat their own bits on a GPU.

    On a processor they do so anyway. What is switched for it in torch and in the environment is put back.

    Raises
    ------
    InputError
        Where torch knows no such form of an operation that is needed.
    """
    if not wanted:
        yield
        return
    import torch

    mode, tuned = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    try:
        torch.set_deterministic_debug_mode("error")
        torch.backends.cudnn.benchmark = False
        with _repeatable_products():
            yield
    except RuntimeError as error:
        operation, mark, _ = str(error).partition(NOT_REPEATABLE)
        if not mark:
            raise
        raise InputError(
            f"--deterministic: torch has no form of {operation} that repeats its own bits on this device; leave "
            f"--deterministic out, train on --device cpu, or choose another model or method"
        ) from error
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = tuned


@contextmanager
def _repeatable_products() -> Iterator[None]:
    before = os.environ.get(CUBLAS)
    if before not in REPEATABLE_CUBLAS:
        os.environ[CUBLAS] = REPEATABLE_CUBLAS[0]
    try:
        yield
    finally:
        os.environ.pop(CUBLAS)
        if before is not None:
            os.environ[CUBLAS] = before
