"""Learning rate by progress."""

from __future__ import annotations

import math
from collections.abc import Callable

from ebomlc.config import TrainingConfig


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _step(progress: float) -> float:
    """Tenths at 2/3 and 5/6 of the run: the papers' 80 and 100 of 120 epochs."""
    return 0.1 ** ((progress >= 2 / 3) + (progress >= 5 / 6))


def _constant(progress: float) -> float:
    return 1.0


SHAPES: dict[str, Callable[[float], float]] = {"cosine": _cosine, "step": _step, "constant": _constant}


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """Rate after a share `progress` in [0, 1] of the steps: the schedule's shape, not below the floor."""
    return config.lr * max(SHAPES[config.schedule](progress), config.lr_floor)
