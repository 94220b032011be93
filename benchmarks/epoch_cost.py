"""Where the time of whole epochs goes: data, augmentation, forward, backward, the rest of a step, evaluation, logging.

    python benchmarks/epoch_cost.py                               # ce, mlc, ebomlc and plus on two networks
    python benchmarks/epoch_cost.py --methods plus --models resnet20 --data-dir CIFAR

Trains as `ebomlc fit` does, with the same loop, checks, checkpoints and tracker, on 12,000 noisy and 1,000 trusted
rows: Fashion-MNIST for the CNNs, CIFAR-10 with augmentation for the ResNets. Every moment counts for the innermost part
it belongs to. `forward` is all that models and correctors compute, evaluation and label passes too; `backward` is
differentiation; what is neither is the price of the tool. One row a method in results/epoch_cost.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ebomlc.bilevel.flat import FlatParameters
from ebomlc.config import RunConfig, build
from ebomlc.environment import commit
from ebomlc.methods import Method
from ebomlc.models import Corrector, MainModel
from ebomlc.preparation import Given, prepare
from ebomlc.training import engine
from ebomlc.training.checkpoint import FileCheckpoints
from ebomlc.training.device import suitable_threads
from ebomlc.training.trackers import CsvTracker

ROWS = Path(__file__).resolve().parent.parent / "results" / "epoch_cost.csv"
PARTS = ("forward", "backward", "rest of the steps", "data", "augmentation", "evaluation", "logging")
DATA = {"cnn-tiny": "fashion-mnist", "cnn": "fashion-mnist", "resnet20": "cifar10", "resnet32": "cifar10"}


class Clock:
    """Gives every moment to the innermost part that was entered."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stack = ["logging"]
        self._since = time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def enter(self, part: str) -> None:
        """From now on time belongs to this part."""
        self._switch()
        self._stack.append(part)

    def leave(self) -> None:
        """Time belongs again to what was entered before."""
        self._switch()
        self._stack.pop()

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a part of its own."""

        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            self.enter(part)
            try:
                return function(*arguments, **options)
            finally:
                self.leave()

        return timed

    def between(self, part: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """A generator's own time."""

        def timed(*arguments: Any, **options: Any) -> Iterator[Any]:  # noqa: ANN401
            items = function(*arguments, **options)
            following = self.around(part, lambda: next(items, None))
            while (item := following()) is not None:
                yield item

        return timed


def networks(method: Method) -> set[type]:
    """Classes of everything that has a forward in a training: main models, twins, teachers and correctors."""
    return {MainModel, Corrector, type(method.model)}


def measure(method: str, model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    data: dict[str, Any] = {"noisy": DATA[model], "noise": "uniform:0.6", "n_trusted": 1000, "n_noisy": 12_000}
    if DATA[model] == "cifar10" and arguments.data_dir is not None:
        data["data_dir"] = str(arguments.data_dir)
    tables = {
        "data": data,
        "encoder": {"name": "pixels"},
        "model": {"name": model},
        "method": {"name": method},
        "training": {"epochs": arguments.epochs, "precision": arguments.precision},
    }
    config = build(RunConfig, tables, "the benchmark")
    job = prepare(config, Given(), None)
    clock = Clock()
    loader = job.loader
    loader.epoch = clock.between("data", loader.epoch)  # type: ignore[method-assign]
    if loader.augment is not None:
        loader.augment = clock.around("augmentation", loader.augment)
    step, begin = job.method.step, job.method.begin_epoch
    job.method.step = clock.around("rest of the steps", step)  # type: ignore[method-assign]
    job.method.begin_epoch = clock.around("rest of the steps", begin)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as scratch:
        patches = [
            patch.object(FlatParameters, "gradient", clock.around("backward", FlatParameters.gradient)),
            patch.object(engine, "_snapshot", clock.around("evaluation", engine._snapshot)),
            patch.object(engine, "_is_finite", clock.around("evaluation", engine._is_finite)),
            *(patch.object(kind, "forward", clock.around("forward", kind.forward)) for kind in networks(job.method)),
        ]
        for one in patches:
            one.start()
        try:
            with suitable_threads(job.method.model):
                torch.set_num_threads(arguments.threads)
                engine.fit(
                    job.method,
                    loader,
                    job.heldout,
                    job.config.training,
                    CsvTracker(Path(scratch) / "metrics.csv"),
                    FileCheckpoints(Path(scratch) / "checkpoints"),
                    quiet=True,
                )
        finally:
            for one in patches:
                one.stop()
        clock.enter("done")
    total = sum(clock.seconds.values())
    shares = {part: round(clock.seconds[part] / total, 4) for part in PARTS}
    return {
        "method": method,
        "model": model,
        "precision": job.config.training.precision,
        "epochs": arguments.epochs,
        "seconds_per_epoch": round(total / arguments.epochs, 3),
        **{part.replace(" ", "_"): share for part, share in shares.items()},
        "neither": round(1 - shares["forward"] - shares["backward"], 4),
        "commit": commit(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }


def append(row: dict[str, Any], path: Path) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="ce,mlc,ebomlc,plus")
    parser.add_argument("--models", default="cnn-tiny,resnet20")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--epochs", type=int, default=5, help="at least 3: plus has three phases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, help="of CIFAR-10's official files")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    for model in arguments.models.split(","):
        for method in arguments.methods.split(","):
            row = measure(method, model, arguments)
            append(row, arguments.out)
            shares = "  ".join(f"{part} {100 * row[part.replace(' ', '_')]:.1f} %" for part in PARTS)
            print(f"{model:9} {method:8} {row['seconds_per_epoch']:7.1f} s an epoch: {shares}", flush=True)


if __name__ == "__main__":
    main()
