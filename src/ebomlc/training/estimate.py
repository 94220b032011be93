"""How long a training will take and how much memory it holds, found by trying it in small."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ebomlc.config import TrainingConfig
from ebomlc.data.loader import PairedLoader
from ebomlc.environment import available_memory_mb, peak_memory_mb
from ebomlc.methods import EpochContext, Method, StepContext
from ebomlc.training.distributed import ALONE, Ranks

EPOCHS = 12


@dataclass(frozen=True)
class Estimate:
    """What a training will cost.

    Attributes
    ----------
    step_seconds, seconds : float
        Of one optimizer step on average, and of all of them; the machine may get busier.
    memory_mb : float or None
        Most memory the process has held after the tried steps, in MiB.
    available_mb : float or None
        Memory that could still be taken.
    """

    step_seconds: float
    seconds: float
    memory_mb: float | None
    available_mb: float | None

    def __str__(self) -> str:
        per_step = f"{1000 * self.step_seconds:,.0f} ms a step"
        text = f"training will take about {_duration(self.seconds)} ({per_step})"
        if self.memory_mb is None or self.available_mb is None:
            return text
        return f"{text}; memory held {self.memory_mb / 1024:.1f} GB, {self.available_mb / 1024:.1f} GB still free"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate_training(
    create: Callable[[], Method], loader: PairedLoader, config: TrainingConfig, ranks: Ranks = ALONE
) -> Estimate:
    """Take a method that is thrown away through a training in small; the run's random numbers are not touched.

    Every epoch of it is one step on the same rows, so that the phases of a method count by the share they have.

    Parameters
    ----------
    create : callable
        Makes the method.
    loader : PairedLoader
        Gives the batches, which every epoch draws anew.
    config : TrainingConfig
        Epochs, which must be decided by now, and rate.
    ranks : Ranks
        Who will train together, all of whom must call this.
    """
    devices = [loader.device] if loader.device.type == "cuda" else []
    noisy, trusted = next(loader.epoch(0))
    times: list[float] = []
    with torch.random.fork_rng(devices):
        method = create()
        for epoch in range(EPOCHS):
            method.begin_epoch(
                EpochContext(epoch, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted]), ranks.gather)
            )
            method.model.train()
            for _ in range(1 + (epoch == 0)):  # the first step of all wakes the libraries
                started = time.perf_counter()
                context = StepContext(config.lr, epoch / EPOCHS, ranks.average, partial(ranks.gather, alike=True))
                float(method.step(noisy, trusted, context).loss)  # waits for the device
                times.append(time.perf_counter() - started)
    step = statistics.mean(times[1:])
    seconds = step * (config.epochs or 1) * len(loader)
    return Estimate(step, seconds, peak_memory_mb(), available_memory_mb(loader.device.type))
