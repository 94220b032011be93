"""What processes that train together send each other in a step: counted, beside the formulas of docs/scaling.md.

    torchrun --nproc-per-node 2 benchmarks/distributed.py
    torchrun --nproc-per-node 3 benchmarks/distributed.py --methods ebomlc,mlc --model norm-cnn

Every method takes a step in each tenth of a training, on digits, with everything that torch.distributed is asked for
counted: how often, and the bytes that a process hands over. What begins and ends an epoch is not counted. Each kind of
step that a method takes makes a row of results/distributed.csv, and must be what the formula says to the byte.
"""

from __future__ import annotations

import argparse
import csv
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ebomlc.bilevel import SGD
from ebomlc.data.loader import PairedLoader, in_order
from ebomlc.environment import commit
from ebomlc.methods import METHODS, EpochContext, Method, Setup, StepContext
from ebomlc.models import MainModel
from ebomlc.models.backbones import GlobalAverage
from ebomlc.records import Batch
from ebomlc.training.distributed import Ranks, join
from ebomlc.training.shared_norm import share_batch_norm

ROWS = Path(__file__).parents[1] / "results" / "distributed.csv"
EPOCHS, BATCH, K, CHANNELS = 10, 48, 10, 6
SHOWN = ("method", "P", "A", "averages", "bytes", "norm", "norm_bytes", "as_formula")

HEAD = CHANNELS * K + K
PLAIN, EXACT = [(1, 1, 0, 0)], [(3, 2, 1, 0)]
FORMULAS: dict[str, list[tuple[int, int, int, int]]] = {
    **dict.fromkeys(("ce", "oracle", "trusted-only", "finetune", "gce", "glc", "forward", "bayes"), PLAIN),
    **dict.fromkeys(("mlc", "mw-net"), EXACT),
    "ebomlc": [(2, 3, 2, 0)],
    "ebomlc-literal": [(2, 3, 3, 0)],
    "mlc-barrier": [(6, 6, 1, 0)],
    "mlc-head": [(3, 1, 1, HEAD)],
    "l2rw": [(2, 3, 0, 1)],
    "mslc": [*PLAIN, *EXACT],
    "emlc": [(4, 2, 2, 0)],
    "plus": [(1, 2, 0, 0), (1, 1, 0, 0)],
}
"""Averages in each kind of step that a method takes, and the numbers averaged: x P + y A + z as (x, y, z)."""


class Counter:
    """How often processes average gradients, and the bytes that this one hands over; batch norm's messages apart."""

    def __init__(self) -> None:
        self.averages, self.bytes, self.norm, self.norm_bytes = 0, 0, 0, 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block, what torch.distributed is asked for is counted."""
        reduce, gather = dist.all_reduce, dist.all_gather

        def counted_reduce(tensor: Tensor) -> None:
            if tensor.dim() == 2:  # a row for each process: the moments of a batch norm, or their gradients
                self.norm, self.norm_bytes = self.norm + 1, self.norm_bytes + tensor.nbytes
            else:
                self.averages, self.bytes = self.averages + 1, self.bytes + tensor.nbytes
            reduce(tensor)

        def counted_gather(parts: list[Tensor], tensor: Tensor) -> None:
            self.bytes += tensor.nbytes
            gather(parts, tensor)

        dist.all_reduce, dist.all_gather = counted_reduce, counted_gather
        try:
            yield
        finally:
            dist.all_reduce, dist.all_gather = reduce, gather


def rows() -> tuple[Batch, Batch]:
    pixels, labels = load_digits(return_X_y=True)
    inputs, right = torch.tensor(pixels, dtype=torch.float32)[:600] / 16, torch.tensor(labels)[:600]
    batch = Batch(inputs, (right + 1) % K, right, torch.arange(600))
    return batch[:500], batch[500:]


def plain() -> MainModel:
    return MainModel(nn.Sequential(nn.Linear(64, CHANNELS), nn.ReLU()), CHANNELS, K)


def norm_cnn() -> MainModel:
    body = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), GlobalAverage()]
    return MainModel(nn.Sequential(*body), CHANNELS, K)


MODELS = {"mlp": plain, "norm-cnn": norm_cnn}


def make(name: str, model: str, ranks: Ranks) -> Method:
    def make_model() -> MainModel:
        made = MODELS[model]()
        share_batch_norm(made, ranks)
        return made

    entry = METHODS[name]
    torch.manual_seed(0)
    return entry.create(entry.parse_settings({}), Setup(make_model, K, SGD(), least_rows=0))


def steps(method: Method, loader: PairedLoader, ranks: Ranks) -> Iterator[Counter]:
    """What is sent in one step of each epoch."""
    passes = (lambda: in_order(loader.noisy, 1000, ranks)), (lambda: in_order(loader.trusted, 1000))
    for epoch in range(EPOCHS):
        torch.manual_seed(epoch)
        method.begin_epoch(EpochContext(epoch, EPOCHS, *passes, ranks.gather))
        method.model.train()
        counter = Counter()
        context = StepContext(0.1, epoch / EPOCHS, ranks.average, partial(ranks.gather, alike=True))
        with counter.listening():
            method.step(*next(loader.epoch(epoch)), context)
        yield counter


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kinds_of_steps(name: str, model: str, ranks: Ranks) -> list[dict[str, Any]]:
    """The different steps that a method takes, with the formula's figures."""
    method = make(name, model, ranks)
    loader = PairedLoader(*rows(), batch_size=BATCH, trusted_batch_size=BATCH, seed=0, share=ranks)
    parts = ("corrector", "weigher", "mixer", "teacher")
    p = n_parameters(method.model)
    a = sum(n_parameters(getattr(method, part).network) for part in parts if hasattr(method, part))
    # mslc gathers the positions of its rows, as int64, and their predictions
    gathered = BATCH // ranks.size * (8 + 4 * K) if name == "mslc" else 0
    formula = {(count, 4 * (x * p + y * a + z) + gathered) for count, x, y, z in FORMULAS[name]}
    per_norm = 4 * ranks.size * (2 * CHANNELS + 1)
    kinds = {(c.averages, c.bytes, c.norm, c.norm_bytes) for c in steps(method, loader, ranks)}
    return [
        {
            "processes": ranks.size,
            "model": model,
            "method": name,
            "P": p,
            "A": a,
            "averages": averages,
            "bytes": sent,
            "norm": norm,
            "norm_bytes": norm_bytes,
            "as_formula": (averages, sent) in formula and norm_bytes == norm * per_norm,
            "commit": commit(),
            "torch": torch.__version__,
            "machine": f"{platform.machine()}, {platform.system()}",
        }
        for averages, sent, norm, norm_bytes in sorted(kinds)
    ]


def append(found: list[dict[str, Any]], path: Path) -> None:
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]))
        if is_new:
            writer.writeheader()
        writer.writerows(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--model", default="mlp", choices=MODELS, help="norm-cnn has one batch norm")
    parser.add_argument("--out", type=Path, default=ROWS)
    options = parser.parse_args()
    with join() as ranks:
        if ranks.size == 1:
            parser.error("one process sends nothing: start it with torchrun --nproc-per-node 2")
        found = [row for name in options.methods.split(",") for row in kinds_of_steps(name, options.model, ranks)]
    if ranks.rank == 0:
        append(found, options.out)
        for row in found:
            print(*(f"{row[name]:>14}" for name in SHOWN))


if __name__ == "__main__":
    main()
