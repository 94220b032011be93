"""Training: one readable loop, and the state that is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from ebomlc.config import ENOUGH_HELDOUT, TrainingConfig
from ebomlc.data.loader import PairedLoader, Rows, in_order
from ebomlc.errors import TrainingDivergedError
from ebomlc.methods import EpochContext, Method, StepContext
from ebomlc.records import Batch, StepReport
from ebomlc.training.schedules import learning_rate
from ebomlc.training.trackers import Tracker

LOGGING_INTERVAL = 50
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Snapshot:
    """Weights of main model and method after an epoch, numbered from 1."""

    epoch: int
    main: dict[str, Tensor]
    method: dict[str, Tensor]
    heldout_accuracy: float | None


@dataclass(frozen=True)
class Divergence:
    """Where the loss stopped being a number."""

    step: int
    lr: float

    def __str__(self) -> str:
        return (
            f"loss or weights became NaN or infinite at step {self.step}, learning rate {self.lr:.3g}: "
            f"try a rate ten times smaller (training.lr), and look for huge values in the inputs"
        )


@dataclass(frozen=True)
class Training:
    """What came out of the loop.

    Attributes
    ----------
    last, chosen : Snapshot
        After the last good epoch, and of the epoch the result is taken from.
    epochs, steps : int
        Done.
    seconds : float
        Of the loop.
    divergence : Divergence or None
        Why the loop ended early.
    """

    last: Snapshot
    chosen: Snapshot
    epochs: int
    steps: int
    seconds: float
    divergence: Divergence | None


@dataclass
class _Interval:
    """Reports since the last look at them: one synchronisation for many steps."""

    reports: list[StepReport] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    loss: float = float("nan")

    def add(self, report: StepReport, lr: float) -> None:
        self.reports.append(report)
        self.rates.append(lr)

    def close(self, steps_done: int) -> Divergence | None:
        """Sum up and forget the reports; says where a loss was not finite."""
        if not self.reports:
            return None
        columns = {"loss": torch.stack([report.loss for report in self.reports])}
        for name in self.reports[0].measures:
            columns[name] = torch.stack([report.measures[name] for report in self.reports])
        finite = torch.stack(list(columns.values())).isfinite().all(0)
        if not bool(finite.all()):
            first = int(finite.logical_not().nonzero()[0, 0])
            return Divergence(steps_done - len(self.reports) + first + 1, self.rates[first])
        for name, values in columns.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values.sum())
        self.steps += len(self.reports)
        self.loss = float(columns["loss"].mean())
        self.reports.clear()
        self.rates.clear()
        return None

    def means(self) -> dict[str, float]:
        return {name: total / max(self.steps, 1) for name, total in self.sums.items()}


def fit(
    method: Method,
    loader: PairedLoader,
    heldout: Batch,
    config: TrainingConfig,
    tracker: Tracker,
    *,
    quiet: bool = False,
) -> Training:
    """Train a method.

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
    quiet : bool
        No progress bar; there is none either where standard error is not a terminal.

    Raises
    ------
    TrainingDivergedError
        Where the loss stops being finite before the first epoch is done. Later, the loop ends with what it had.
    """
    started = time.monotonic()
    if config.epochs is None:
        raise ValueError("the number of epochs must be decided before training")
    epochs = config.epochs
    total = epochs * len(loader)
    step = 0
    last = chosen = None
    divergence = None
    lr = config.lr
    bar = tqdm(total=total * loader.batch_size, unit="rows", unit_scale=True, disable=True if quiet else None)
    for epoch in range(epochs):
        method.begin_epoch(EpochContext(epoch, epochs, _passes(loader.noisy), _passes(loader.trusted)))
        method.model.train()
        interval = _Interval()
        for noisy, trusted in loader.epoch(epoch):
            lr = learning_rate(config, step / total)
            interval.add(method.step(noisy, trusted, StepContext(lr, step / total)), lr)
            step += 1
            bar.update(len(noisy))
            if step % LOGGING_INTERVAL == 0 or step % len(loader) == 0:
                divergence = interval.close(step)
                if divergence is not None:
                    break
                bar.set_postfix(loss=f"{interval.loss:.3f}", heldout=_shown(last), refresh=False)
        if divergence is None and not _is_finite(method, loader.trusted[slice(0, EVALUATION_BATCH)]):
            divergence = Divergence(step, lr)
        if divergence is not None:
            break
        last = _snapshot(method, epoch + 1, heldout)
        if chosen is None or _is_better(last, chosen, len(heldout)):
            chosen = last
        tracker.log({"epoch": epoch + 1, "step": step, "lr": lr, **interval.means(), **_heldout_row(last, started)})
    bar.close()
    if last is None or chosen is None:
        raise TrainingDivergedError(f"{divergence}; no epoch was finished, so there is nothing to keep")
    return Training(last, chosen, last.epoch, step, time.monotonic() - started, divergence)


def _passes(rows: Rows) -> Callable[[], Iterator[Batch]]:
    return lambda: in_order(rows, EVALUATION_BATCH)


def _shown(snapshot: Snapshot | None) -> str:
    accuracy = snapshot.heldout_accuracy if snapshot else None
    return "-" if accuracy is None else f"{accuracy:.3f}"


def _heldout_row(last: Snapshot, started: float) -> dict[str, float | None]:
    return {"heldout_accuracy": last.heldout_accuracy, "seconds": round(time.monotonic() - started, 3)}


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
