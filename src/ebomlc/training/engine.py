"""Training: one readable loop, and the state that is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ebomlc.config import ENOUGH_HELDOUT, TrainingConfig
from ebomlc.data.loader import PairedLoader, Rows, in_order
from ebomlc.errors import TrainingDivergedError
from ebomlc.methods import EpochContext, Method, StepContext
from ebomlc.records import WHOLE, Batch, Share
from ebomlc.seeding import child_seed
from ebomlc.training.checkpoint import Checkpoints, NullCheckpoints
from ebomlc.training.distributed import ALONE, Ranks, average_statistics, check_alike
from ebomlc.training.interrupts import HeldSignals
from ebomlc.training.progress import (
    Divergence,
    Interval,
    Progress,
    Snapshot,
    from_checkpoint,
    to_checkpoint,
)
from ebomlc.training.schedules import learning_rate
from ebomlc.training.trackers import Row, Tracker

LOGGING_INTERVAL = 50
EVALUATION_BATCH = 1000
ASKED_EVERY = 10
"""Steps after which several ranks ask each other whether it is time for a checkpoint."""


@dataclass(frozen=True)
class Training:
    """What came out of the loop.

    Attributes
    ----------
    last, chosen : Snapshot
        After the last good epoch, and of the epoch the result is taken from.
    epochs, steps : int
        Done.
    rows : list of mapping
        What was tracked, one row an epoch.
    seconds, earlier_seconds : float
        Of the loop, in every process that took part, and in those before this one.
    resumed_at : list of int
        Steps from which a process went on that another had begun.
    divergence : Divergence or None
        Why the loop ended early.
    """

    last: Snapshot
    chosen: Snapshot
    epochs: int
    steps: int
    rows: list[Row]
    seconds: float
    earlier_seconds: float
    resumed_at: list[int]
    divergence: Divergence | None


def fit(
    method: Method,
    loader: PairedLoader,
    heldout: Batch,
    config: TrainingConfig,
    tracker: Tracker,
    checkpoints: Checkpoints | None = None,
    *,
    ranks: Ranks = ALONE,
    quiet: bool = False,
) -> Training:
    """Train a method, from its last checkpoint on where there is one.

    Ctrl-C and SIGTERM take effect after a step, whose state is kept before.

    Parameters
    ----------
    method : Method
        Fresh.
    loader : PairedLoader
        Gives the batches.
    heldout : Batch
        Trusted rows that are only watched; may be empty.
    config : TrainingConfig
        Epochs, which must be decided by now, schedule and rates.
    tracker : Tracker
        Takes one row an epoch.
    checkpoints : Checkpoints, optional
        Keeps the state between steps, and gives the one to go on from; by default nothing is kept. Of several ranks
        the first one's count.
    ranks : Ranks
        Who trains together, each on its own share of the batches of `loader`.
    quiet : bool
        No progress bar; there is none either where standard error is not a terminal.

    Raises
    ------
    TrainingDivergedError
        Where the loss stops being finite before the first epoch is done. Later, the loop ends with what it had.
    """
    if config.epochs is None:
        raise ValueError("the number of epochs must be decided before training")
    run = _Run(method, loader, config, config.epochs, checkpoints or NullCheckpoints(), ranks)
    tracker.restore(run.progress.rows)
    bar = tqdm(
        total=run.total * loader.batch_size,
        initial=run.progress.step * loader.batch_size,
        unit="rows",
        unit_scale=True,
        disable=True if quiet else None,
    )
    divergence = None
    with HeldSignals() as signals:
        while run.progress.step < run.total and divergence is None:
            divergence = _train_epoch(run, bar, signals)
            if divergence is None:
                _end_epoch(run, heldout, tracker, signals)
    bar.close()
    last, chosen = run.progress.last, run.progress.chosen
    if last is None or chosen is None:
        raise TrainingDivergedError(f"{divergence}; no epoch was finished, so there is nothing to keep")
    progress, seconds = run.progress, run.seconds()
    return Training(
        last,
        chosen,
        last.epoch,
        progress.step,
        progress.rows,
        seconds,
        progress.seconds,
        progress.resumed_at,
        divergence,
    )


class _Run:
    """A training under way: what it is made of, and how far it is."""

    def __init__(
        self,
        method: Method,
        loader: PairedLoader,
        config: TrainingConfig,
        epochs: int,
        checkpoints: Checkpoints,
        ranks: Ranks,
    ) -> None:
        self.method, self.loader, self.config, self.epochs = method, loader, config, epochs
        self.checkpoints, self.ranks = checkpoints, ranks
        self.total = epochs * len(loader)
        self._started = time.monotonic()
        self.progress = self._begin()

    def _begin(self) -> Progress:
        """Where the last checkpoint was taken; without any, every rank begins with the first one's weights."""
        stored = self.checkpoints.latest()
        if self.ranks.size > 1:
            stored = self.ranks.share(stored or to_checkpoint(self.method, Progress(), 0.0))
        if stored is None:
            return Progress()
        progress = from_checkpoint(self.method, stored)
        return progress if progress.step else Progress()

    def seconds(self) -> float:
        """Of training so far, in every process that took part."""
        return self.progress.seconds + time.monotonic() - self._started

    def is_time_to_save(self, signals: HeldSignals, *, is_epoch_end: bool = False) -> bool:
        """Whether the state is to be kept now, as one of the ranks sees it."""
        step = self.progress.step
        if self.ranks.size > 1 and not is_epoch_end and step % ASKED_EVERY:
            return False
        is_due = signals.received is not None or self.checkpoints.is_due(step, is_epoch_end=is_epoch_end)
        return self.ranks.any(is_due)

    def save(self) -> None:
        """Keep the state as it is now."""
        self.join_state()
        if self.ranks.rank == 0:
            self.checkpoints.save(to_checkpoint(self.method, self.progress, self.seconds()))

    def join_state(self) -> None:
        """Make what each rank keeps for itself that of all: figures of steps, and batch norm's where not shared."""
        if self.ranks.size > 1:
            self.progress.interval.share(self.ranks.average)
            if not self.config.sync_batch_norm:
                average_statistics(self.method, self.ranks)

    def seed(self, name: str) -> None:
        """On several ranks, let what is drawn at random depend on the run's seed and a name alone.

        What all ranks draw under one name is the same, and none needs the state of a generator to go on.
        """
        if self.ranks.size > 1:
            torch.manual_seed(child_seed(self.loader.seed, name))


def _train_epoch(run: _Run, bar: tqdm[Any], signals: HeldSignals) -> Divergence | None:
    """The steps of an epoch that are still to be done; says where they stopped being numbers."""
    method, loader, progress, ranks = run.method, run.loader, run.progress, run.ranks
    epoch, done = divmod(progress.step, len(loader))
    if done == 0:
        run.seed(f"epoch {epoch}")
        noisy_pass, trusted_pass = _passes(loader.noisy, ranks), _passes(loader.trusted)
        method.begin_epoch(EpochContext(epoch, run.epochs, noisy_pass, trusted_pass, ranks.gather))
        progress.interval = Interval()
    method.model.train()
    schedule = partial(learning_rate, run.config)
    for noisy, trusted in loader.epoch(epoch, done):
        share = progress.step / run.total
        lr = schedule(share)
        run.seed(f"step {progress.step} of rank {ranks.rank}")
        context = StepContext(lr, share, ranks.average, partial(ranks.gather, alike=True), schedule)
        progress.interval.add(method.step(noisy, trusted, context), lr)
        progress.step += 1
        bar.update(loader.batch_size)
        is_last = progress.step % len(loader) == 0
        if progress.step % LOGGING_INTERVAL == 0 or is_last:
            run.join_state()
            divergence = progress.interval.close(progress.step)
            if divergence is not None:
                return divergence
            bar.set_postfix(loss=f"{progress.interval.loss:.3f}", heldout=_shown(progress.last), refresh=False)
        if not is_last and run.is_time_to_save(signals):
            run.save()
            signals.deliver()
    finite = _is_finite(method, loader.trusted[slice(0, EVALUATION_BATCH)])
    return None if finite else Divergence(progress.step, progress.interval.lr)


def _end_epoch(run: _Run, heldout: Batch, tracker: Tracker, signals: HeldSignals) -> None:
    """Look at the held-out rows, record the epoch, and keep the state where it is time to."""
    progress, step = run.progress, run.progress.step
    check_alike(run.method, run.ranks, step // len(run.loader))
    progress.last = _snapshot(run.method, step // len(run.loader), heldout)
    if progress.chosen is None or _is_better(progress.last, progress.chosen, len(heldout)):
        progress.chosen = progress.last
    row = {
        "epoch": progress.last.epoch,
        "step": step,
        "lr": progress.interval.lr,
        **progress.interval.means(),
        "heldout_accuracy": progress.last.heldout_accuracy,
        "seconds": round(run.seconds(), 3),
    }
    progress.rows.append(row)
    tracker.log(row)
    if run.is_time_to_save(signals, is_epoch_end=True):
        run.save()
        signals.deliver()


def _passes(rows: Rows, share: Share = WHOLE) -> Callable[[], Iterator[Batch]]:
    return lambda: in_order(rows, EVALUATION_BATCH, share)


def _shown(snapshot: Snapshot | None) -> str:
    accuracy = snapshot.heldout_accuracy if snapshot else None
    return "-" if accuracy is None else f"{accuracy:.3f}"


def _is_better(last: Snapshot, chosen: Snapshot, n_heldout: int) -> bool:
    if n_heldout < ENOUGH_HELDOUT or last.heldout_accuracy is None or chosen.heldout_accuracy is None:
        return True
    return last.heldout_accuracy > chosen.heldout_accuracy


def _is_finite(method: Method, probe: Batch) -> bool:
    """Whether the last step left only numbers behind, in the weights and out of them: its loss was taken before it."""
    states = [*method.model.state_dict().values(), *method.state_dict().values()]
    outputs = predict(method, probe.inputs)
    return all(bool(value.isfinite().all()) for value in [*states, outputs] if value.is_floating_point())


def _snapshot(method: Method, epoch: int, heldout: Batch) -> Snapshot:
    right = heldout.right
    accuracy = float((predict(method, heldout.inputs).argmax(1) == right).float().mean()) if len(right) else None
    main, extra = method.model.state_dict(), method.state_dict()
    return Snapshot(epoch, {k: v.clone() for k, v in main.items()}, {k: v.clone() for k, v in extra.items()}, accuracy)


def restore(method: Method, snapshot: Snapshot) -> None:
    """Put main model and method back to where a snapshot was taken."""
    method.model.load_state_dict(snapshot.main)
    method.load_state_dict(snapshot.method)


@torch.no_grad()
def predict(method: Method, inputs: Tensor) -> Tensor:
    """p_w of all rows [N, K] in evaluation mode, in chunks; the model is left in evaluation mode."""
    method.model.eval()
    parts = [method.model(chunk).logits.softmax(1) for chunk in inputs.split(EVALUATION_BATCH)]
    return torch.cat(parts)
