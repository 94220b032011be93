"""Checkpoints of a training on disk: whole or not there, the last two, each under the checksum of its content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from ebomlc.data.output import sync
from ebomlc.errors import DataWarning

KEPT = 2
"""The last one may be what a failing disk was writing; then there is one before it."""

MINUTES = 5.0
"""Of work that a kill may cost, where the configuration does not say; writing takes far less than a second."""

PAUSE_SECONDS = 60.0
"""The end of an epoch is a good place to continue from, but not worth a file where epochs are short."""

SUFFIX = ".safetensors"
FIGURES = "figures"
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    Attributes
    ----------
    step : int
        Steps done.
    tensors : mapping of str to Tensor
        On the CPU when read back.
    figures : mapping
        Everything else, as JSON knows it.
    """

    step: int
    tensors: Mapping[str, Tensor]
    figures: Mapping[str, Any]


class Checkpoints(Protocol):
    """Where a training keeps its state."""

    def is_due(self, step: int, *, is_epoch_end: bool = False) -> bool:
        """Whether a checkpoint is to be written after so many steps."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a state."""
        ...

    def latest(self) -> Checkpoint | None:
        """The newest state that is whole; None where there is none."""
        ...


class NullCheckpoints:
    """Keeps nothing."""

    def is_due(self, step: int, *, is_epoch_end: bool = False) -> bool:
        """Never."""
        return False

    def save(self, checkpoint: Checkpoint) -> None:
        """Forget it."""

    def latest(self) -> Checkpoint | None:
        """There is none."""
        return None


class FileCheckpoints:
    """Keeps the last `KEPT` states in files of a folder.

    A file is written beside its place, synced, and moved there, and its name holds the SHA-256 of its content: a file
    under its own name is whole, or the disk changed it, which is noticed.

    Parameters
    ----------
    folder : Path
        Made with the first checkpoint.
    minutes : float, optional
        A checkpoint is due after so many minutes, or at the first end of an epoch after `PAUSE_SECONDS`; by default
        `MINUTES`.
    steps : int, optional
        One is also due after so many steps.
    """

    def __init__(self, folder: Path, minutes: float | None = None, steps: int | None = None) -> None:
        self.folder = folder
        self.seconds = 60 * (MINUTES if minutes is None else minutes)
        self.steps = steps
        self._last_step = 0
        self._last_time = time.monotonic()

    def is_due(self, step: int, *, is_epoch_end: bool = False) -> bool:
        """Whether so many steps, or so much time, lie behind the last one; at the end of an epoch a minute will do."""
        if self.steps is not None and step - self._last_step >= self.steps:
            return True
        wait = min(self.seconds, PAUSE_SECONDS) if is_epoch_end else self.seconds
        return time.monotonic() - self._last_time >= wait

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a state, and remove all but the last ones.

        Raises
        ------
        OSError
            Where it cannot be written; those that were there are left.
        """
        self.folder.mkdir(exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        content = save(tensors, {FIGURES: json.dumps(checkpoint.figures)})
        name = f"step-{checkpoint.step:09d}-{hashlib.sha256(content).hexdigest()}{SUFFIX}"
        write_durably(self.folder / name, content)
        self._note(checkpoint.step)
        for path in list(self._newest_first())[KEPT:]:
            path.unlink(missing_ok=True)

    def latest(self) -> Checkpoint | None:
        """The newest state that is whole.

        Warns
        -----
        DataWarning
            For each that is damaged, which is then removed.
        """
        for path in self.folder.glob(".*.new"):  # what a killed process was writing
            path.unlink()
        for path in self._newest_first():
            content = path.read_bytes()
            if path.name.endswith(f"-{hashlib.sha256(content).hexdigest()}{SUFFIX}"):
                with safe_open(path, "pt") as file:
                    figures = json.loads(file.metadata()[FIGURES])
                step = _step(path)
                self._note(step)
                return Checkpoint(step, load(content), figures)
            warnings.warn(f"{path}: damaged, for its checksum differs; an earlier state is used", DataWarning, 2)
            path.unlink()
        return None

    def _newest_first(self) -> Iterator[Path]:
        names = (path for path in self.folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
        return iter(sorted(names, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True))

    def _note(self, step: int) -> None:
        self._last_step, self._last_time = step, time.monotonic()


def _step(path: Path) -> int:
    return int(path.name[len("step-") :][:9])


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole, or not at all, even where the power fails.

    Raises
    ------
    OSError
        Where it cannot be written; what was there before is left.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)
