"""What a training step costs, by method: one process, steps of all methods in turn, medians.

    python benchmarks/step_cost.py                                   # everything; about an hour on one core
    python benchmarks/step_cost.py --models cnn-tiny --precisions float32 --methods ce,plus

A step has 100 noisy and 100 trusted rows. Every method goes through a training of `--epochs` short epochs, in which its
phases have the shares that they have in a long one; in each epoch the methods take their steps in turn, so that what
else the machine does hits all alike. A method's cost is the mean over its epochs of the median step there. `rows once`
is plain training that sees each row once: 100 noisy rows and the share of a trusted set of 1,000 that comes to a step
with 12,000 noisy rows. `mlc, double backward` and `ebomlc, kept graphs` are the same two methods as published code
computes them, in float32 NCHW; what ours gain over them is printed last.

Columns: `ms`, `ratio` to ce on the same images, `once` the ratio to rows once, `passes` counted (METHOD.md section 2).
Precisions: bfloat16 and float32 in channels_last, nchw is float32 in the layout that published code has.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ebomlc.bench.suite import IMAGE_PASSES
from ebomlc.bilevel import SGD, FlatParameters, mixed_cross_entropy
from ebomlc.config import ModelConfig
from ebomlc.environment import commit
from ebomlc.methods import METHODS, EpochContext, Method, Setup, StepContext, find_method
from ebomlc.methods.ebomlc import Ebomlc, EbomlcSettings
from ebomlc.methods.learner import halve
from ebomlc.methods.mlc import Mlc
from ebomlc.models import InputShape, MainModel, MainOutput, build_model
from ebomlc.records import NO_LABEL, Batch, StepReport

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "step_cost.csv"
N_NOISY, N_TRUSTED, N_CLASSES = 100, 100, 10
ONCE = "rows once"
ONCE_TRUSTED = round(N_NOISY * 1000 / 12_000)
SHAPES = {"cnn-tiny": (1, 28, 28), "cnn": (1, 28, 28), "resnet20": (3, 32, 32), "resnet32": (3, 32, 32)}
PRECISIONS = ("float32", "bfloat16", "nchw")


@dataclass
class Timed:
    """A method on its way through a training, and what its steps took, by epoch."""

    name: str
    method: Method
    n_trusted: int
    seconds: list[list[float]] = field(default_factory=list)

    def cost(self) -> float:
        """Milliseconds a step."""
        return 1000 * sum(median(steps) for steps in self.seconds) / len(self.seconds)


def draw(model: str, n: int, generator: torch.Generator, *, trusted: bool) -> Batch:
    labels = torch.randint(N_CLASSES, (n,), generator=generator)
    missing = torch.full((n,), NO_LABEL)
    images = torch.randint(256, (n, *SHAPES[model]), dtype=torch.uint8, generator=generator)
    return Batch(images, missing if trusted else labels, labels if trusted else missing, torch.arange(n))


def make_setup(model: str, precision: str) -> Setup:
    channels = SHAPES[model][0]
    shape = InputShape(SHAPES[model], (0.5,) * channels, (0.25,) * channels)

    def make_model() -> MainModel:
        made = build_model(ModelConfig(name=model), shape, N_CLASSES)
        return made if precision == "nchw" else made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def bfloat16() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16)

    return Setup(make_model, N_CLASSES, SGD(weight_decay=5e-4), bfloat16 if precision == "bfloat16" else nullcontext)


class DoubleBackwardMlc(Mlc):
    """The hypergradient of `mlc` by differentiating the gradient of the lower loss, as Zheng et al. 2021 do."""

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """The same step as `Mlc`'s, by another way."""
        main, corrector = self.main, self.corrector
        training, heldout = halve(trusted)
        start, a = (flat.vector.detach().requires_grad_() for flat in (main.flat, corrector.flat))

        def output(weights: Tensor, inputs: Tensor) -> MainOutput:
            return functional_call(main.model, main.flat.unflatten(weights), (inputs,))

        of_noisy, of_trusted = output(start, noisy.inputs), output(start, training.inputs)
        read = (of_noisy.features.detach(), noisy.given)
        targets = functional_call(corrector.network, corrector.flat.unflatten(a), read)
        lower = mixed_cross_entropy(of_noisy.logits, targets, of_trusted.logits, training.right)
        (gradient,) = torch.autograd.grad(lower, start, create_graph=True)
        ahead, _ = main.look_ahead(gradient, context.lr)
        upper = F.cross_entropy(output(ahead, heldout.inputs).logits, heldout.right)
        corrector.take_step(torch.autograd.grad(upper, a)[0])
        main.take_step(gradient.detach(), context.lr)
        return StepReport(lower.detach(), {})


class KeptGraphs(FlatParameters):
    """Gradients whose own graph is built and kept until the next step, though nothing is differentiated twice."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.parameters = list(module.parameters())
        self.kept: list[Tensor] = []

    def gradient(self, loss: Tensor, *, retain_graph: bool = False) -> Tensor:
        """As the parent's, with ``create_graph``."""
        del retain_graph
        gradient = self.flatten(torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True))
        self.kept.append(gradient)
        return gradient.detach()


class KeptGraphsEbomlc(Ebomlc):
    """`ebomlc` whose first derivatives keep graphs for second ones."""

    def __init__(self, settings: EbomlcSettings, setup: Setup) -> None:
        super().__init__(settings, setup)
        self.main.flat = self.kept = KeptGraphs(self.main.model)

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """The same step as `Ebomlc`'s."""
        self.kept.kept.clear()
        return super().step(noisy, trusted, context)


PUBLISHED: dict[str, tuple[str, Callable[[Any, Setup], Method]]] = {
    "mlc, double backward": ("mlc", DoubleBackwardMlc),
    "ebomlc, kept graphs": ("ebomlc", KeptGraphsEbomlc),
}


def create(name: str, setup: Setup) -> Method:
    base, make = PUBLISHED.get(name, ("ce" if name == ONCE else name, None))
    entry = find_method(base)
    return (make or entry.create)(entry.parse_settings({}), setup)


def passes_over(batch: Batch) -> Callable[[], Iterator[Batch]]:
    return lambda: iter([batch])


def train(timed: list[Timed], model: str, epochs: int, steps: int) -> None:
    """All methods through the same epochs, a step of each in turn."""
    generator = torch.Generator().manual_seed(0)
    noisy, trusted = (draw(model, n, generator, trusted=t) for n, t in ((N_NOISY, False), (N_TRUSTED, True)))
    for epoch in range(epochs):
        for one in timed:
            one.method.begin_epoch(EpochContext(epoch, epochs, passes_over(noisy), passes_over(trusted)))
            one.method.model.train()
            one.seconds.append([])
        for step in range(steps):
            for one in timed:
                truth = noisy.given if METHODS.get(one.name, METHODS["ce"]).needs_truth else noisy.right
                rows = Batch(noisy.inputs, noisy.given, truth, noisy.index)
                started = time.perf_counter()
                one.method.step(
                    rows, trusted[: one.n_trusted], StepContext(0.01, (epoch * steps + step) / epochs / steps)
                )
                one.seconds[-1].append(time.perf_counter() - started)


def circumstances() -> dict[str, Any]:
    """Where and with what a row was measured."""
    return {
        "commit": commit(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }


def measure(names: list[str], model: str, precision: str, epochs: int, steps: int) -> list[dict[str, Any]]:
    setup = make_setup(model, precision)
    torch.manual_seed(0)
    train([Timed(name, create(name, setup), N_TRUSTED) for name in names], model, 1, 1)  # libraries get ready
    timed = [Timed(name, create(name, setup), ONCE_TRUSTED if name == ONCE else N_TRUSTED) for name in names]
    train(timed, model, epochs, steps)
    costs = {one.name: one.cost() for one in timed}
    return [
        {
            "model": model,
            "precision": precision,
            "method": name,
            "ms": round(costs[name], 2),
            "ratio": round(costs[name] / costs["ce"], 3),
            "once": round(costs[name] / costs[ONCE], 3),
            "passes": 108 if name == ONCE else IMAGE_PASSES.get(name),
            **circumstances(),
        }
        for name in names
    ]


def append(rows: list[dict[str, Any]], path: Path) -> None:
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="cnn-tiny,resnet20,resnet32")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--epochs", type=int, default=13, help="a method's phases are shares of them")
    parser.add_argument("--steps", type=int, default=3, help="of each method an epoch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = list(dict.fromkeys(["ce", ONCE, *arguments.methods.split(",")]))
    for model in arguments.models.split(","):
        costs: dict[tuple[str, str], float] = {}
        for precision in arguments.precisions.split(","):
            forms = [name for name, (base, _) in PUBLISHED.items() if precision == "nchw" and base in names]
            rows = measure([*names, *forms], model, precision, arguments.epochs, arguments.steps)
            append(rows, arguments.out)
            costs.update({(row["method"], precision): row["ms"] for row in rows})
            print(f"{model}, {precision}")
            for row in sorted(rows, key=lambda row: row["ms"]):
                print("  {method:16} {ms:8.1f} ms  {ratio:5.2f}  once {once:5.2f}".format(**row), flush=True)
        for form, (base, _) in PUBLISHED.items():
            gains = {
                precision: costs[form, "nchw"] / costs[base, precision]
                for precision in PRECISIONS
                if (form, "nchw") in costs and (base, precision) in costs
            }
            if gains:
                print(f"{model}: {form} over ours,", ", ".join(f"{at} {gain:.2f}" for at, gain in gains.items()))


if __name__ == "__main__":
    main()
