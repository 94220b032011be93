"""What the training loop knows between two steps, and how that becomes a checkpoint and comes back from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ebomlc.methods import Method
from ebomlc.methods.base import load_module_state, module_state
from ebomlc.records import StepReport
from ebomlc.training.checkpoint import Checkpoint
from ebomlc.training.trackers import Row


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


@dataclass
class Interval:
    """Reports since the last look at them: one synchronisation for many steps."""

    reports: list[StepReport] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    loss: float = float("nan")
    lr: float = float("nan")

    def add(self, report: StepReport, lr: float) -> None:
        """Take in what a step said that was told the rate `lr`."""
        self.reports.append(report)
        self.lr = lr if report.lr is None else report.lr
        self.rates.append(self.lr)

    def share(self, average: Callable[[Tensor], Tensor]) -> None:
        """Replace each figure that is not summed up yet by its average over ranks."""
        columns = self.columns()
        if columns:
            self.take(dict(zip(columns, average(torch.stack(list(columns.values()))), strict=True)))

    def take(self, columns: Mapping[str, Tensor]) -> None:
        """Hold the reports that have these figures, one for each rate."""
        self.reports = [
            StepReport(columns["loss"][k], {name: values[k] for name, values in columns.items() if name != "loss"})
            for k in range(len(self.rates))
        ]

    def close(self, steps_done: int) -> Divergence | None:
        """Sum up and forget the reports; says where a loss was not finite."""
        if not self.reports:
            return None
        columns = self.columns()
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
        """Each figure's mean over the steps that were summed up."""
        return {name: total / max(self.steps, 1) for name, total in self.sums.items()}

    def columns(self) -> dict[str, Tensor]:
        """Each figure of the reports that are not summed up yet, one entry a step."""
        if not self.reports:
            return {}
        measures = {
            name: torch.stack([report.measures[name] for report in self.reports]) for name in self.reports[0].measures
        }
        return {"loss": torch.stack([report.loss for report in self.reports]), **measures}


@dataclass
class Progress:
    """How far a training is.

    Attributes
    ----------
    step : int
        Steps done.
    last, chosen : Snapshot or None
        After the last epoch, and the best so far; one object where they are the same.
    interval : Interval
        Of the epoch that is being done.
    rows : list of mapping
        What was tracked, one row an epoch.
    seconds : float
        That processes before this one trained.
    resumed_at : list of int
        Steps from which a later process went on.
    """

    step: int = 0
    last: Snapshot | None = None
    chosen: Snapshot | None = None
    interval: Interval = field(default_factory=Interval)
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)


def to_checkpoint(method: Method, progress: Progress, seconds: float) -> Checkpoint:
    """Everything that a training needs to go on as if it had never stopped.

    Parameters
    ----------
    method : Method
        Between two steps.
    progress : Progress
        Of its training.
    seconds : float
        That it has taken so far, in all processes.
    """
    interval, snapshots = progress.interval, _snapshots(progress)
    columns = interval.columns()
    groups = {
        "main": method.model.state_dict(),
        "method": method.state_dict(),
        "parts": module_state(method.parts),
        "reports": columns,
        "generator": _generator_states(_device(method)),
        **{f"{name}/main": snapshot.main for name, snapshot in snapshots.items()},
        **{f"{name}/method": snapshot.method for name, snapshot in snapshots.items()},
    }
    figures = {
        "seconds": seconds,
        "resumed_at": progress.resumed_at,
        "rows": progress.rows,
        "measures": list(columns),
        "rates": interval.rates,
        "sums": interval.sums,
        "steps": interval.steps,
        "loss": interval.loss,
        **{name: [snapshot.epoch, snapshot.heldout_accuracy] for name, snapshot in snapshots.items()},
    }
    tensors = {f"{group}:{name}": tensor for group, state in groups.items() for name, tensor in state.items()}
    return Checkpoint(progress.step, tensors, figures)


def from_checkpoint(method: Method, checkpoint: Checkpoint) -> Progress:
    """Put a fresh method, and torch's own generators, to where they were; gives how far the training was.

    Raises
    ------
    KeyError, RuntimeError
        Where the state is that of another method or model.
    """
    device = _device(method)
    method.model.load_state_dict(_group(checkpoint, "main", device))
    method.load_state_dict(_group(checkpoint, "method", device))
    load_module_state(method.parts, _group(checkpoint, "parts", device))
    _set_generators(_group(checkpoint, "generator", torch.device("cpu")), device)
    figures, reports = checkpoint.figures, _group(checkpoint, "reports", device)
    interval = Interval([], list(figures["rates"]), dict(figures["sums"]), figures["steps"], figures["loss"])
    interval.take({name: reports[name] for name in figures["measures"]})
    last = _snapshot(checkpoint, "last", device)
    return Progress(
        step=checkpoint.step,
        last=last,
        chosen=_snapshot(checkpoint, "chosen", device) or last,
        interval=interval,
        rows=list(figures["rows"]),
        seconds=figures["seconds"],
        resumed_at=[*figures["resumed_at"], checkpoint.step],
    )


def _snapshots(progress: Progress) -> dict[str, Snapshot]:
    """The snapshots there are, the chosen one only where it is another than the last."""
    found = {"last": progress.last, "chosen": progress.chosen if progress.chosen is not progress.last else None}
    return {name: snapshot for name, snapshot in found.items() if snapshot is not None}


def _snapshot(checkpoint: Checkpoint, name: str, device: torch.device) -> Snapshot | None:
    if name not in checkpoint.figures:
        return None
    epoch, accuracy = checkpoint.figures[name]
    main, method = (_group(checkpoint, f"{name}/{part}", device) for part in ("main", "method"))
    return Snapshot(epoch, main, method, accuracy)


def _group(checkpoint: Checkpoint, group: str, device: torch.device) -> dict[str, Tensor]:
    prefix = f"{group}:"
    found = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
    return {name: tensor.to(device) for name, tensor in found.items()}


def _device(method: Method) -> torch.device:
    return next(method.model.parameters()).device


def _generator_states(device: torch.device) -> dict[str, Tensor]:
    """Of torch's global generators: the only ones that outlive a step, see `ebomlc.seeding`."""
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_generators(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
