"""What 200 reviewed rows bring, by how they are chosen: one row a run in results/review_gain.csv.

    python benchmarks/review_gain.py                 # run what is missing, then print the table
    python benchmarks/review_gain.py --minutes 2     # start no further run after two minutes
    python benchmarks/review_gain.py --table         # only print the table

12,200 training images of Fashion-MNIST, 40 % of their labels wrong by instance noise; 200 drawn at random are trusted
and carry the label they were given. A first run sees these. Then 200 further rows are decided on in its folder, by a
reviewer who knows the right label, and a second run of the same seed takes them with ``--add-reviewed``. The rows are

- ``random``: the first 200 of the run's random order,
- ``suspect``: those with the lowest label quality, which are shown first under "most suspect",
- ``doubtful``: those with the least confident suggestions, which come first in tasks for Label Studio.

``none`` is the first run itself. ``labels_right`` is the share of the 12,000 rows whose label is right after
correction; reviewed rows are right, so that the errors found by hand count. Test rows are the official ones.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ebomlc import Arrays, Run, fit
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.readers import BUILT_IN
from ebomlc.environment import commit
from ebomlc.records import LabelTable
from ebomlc.reviewed import open_decisions
from ebomlc.seeding import child_seed, numpy_generator

ROWS = Path(__file__).resolve().parent.parent / "results" / "review_gain.csv"
CHOICES = ("none", "random", "suspect", "doubtful")
SEEDS = (0, 1, 2)
NOISE, N_NOISY, N_TRUSTED, N_REVIEWED, N_CLASSES = "instance:0.4", 12_000, 200, 200, 10


@cache
def drawn(seed: int) -> tuple[Arrays, Arrays, dict[str, str]]:
    """Noisy and trusted rows of a seed, and the right label of every one by its id."""
    official = BUILT_IN["fashion-mnist"](None)
    order = numpy_generator(seed, "rows of review_gain").permutation(len(official.train_labels))
    rows = order[: N_NOISY + N_TRUSTED]
    images, right = official.train_inputs[rows], official.train_labels[rows]
    inputs = images.reshape(len(rows), -1) / 255
    given = apply_noise(right, parse_noise(NOISE), N_CLASSES, child_seed(seed, "noise"), inputs=inputs).labels
    names = np.array(official.class_names, dtype=object)
    ids = [f"train-{row}" for row in rows]
    n = N_NOISY
    noisy = Arrays(images[:n], names[given[:n]], ids[:n], kind="images")
    trusted = Arrays(images[n:], names[right[n:]], ids[n:], names[given[n:]], kind="images")
    return noisy, trusted, dict(zip(ids, names[right], strict=True))


@cache
def test_rows() -> Arrays:
    official = BUILT_IN["fashion-mnist"](None)
    return Arrays(official.test_inputs, np.array(official.class_names)[official.test_labels], kind="images")


def fit_once(arguments: argparse.Namespace, seed: int, out: Path, reviewed: tuple[Path, ...] = ()) -> Run:
    noisy, trusted, _ = drawn(seed)
    return fit(
        noisy,
        trusted=trusted,
        test=test_rows(),
        add_reviewed=reviewed,
        allow_overlap=True,  # a handful of the official images are there twice
        encoder="pixels",
        model=arguments.model,
        method=arguments.method,
        epochs=arguments.epochs,
        seed=seed,
        out=out,
    )


def review(run: Path, labels: LabelTable, choice: str, truth: dict[str, str]) -> int:
    """Decide on rows of a run with their right labels; how many of them were wrong."""
    noisy = np.flatnonzero(~labels.is_trusted)
    by = {"suspect": labels.label_quality, "doubtful": labels.suggestion_confidence}.get(choice)
    with open_decisions(run) as store:
        order = store.random_order() if by is None else labels.id[noisy[np.argsort(by[noisy], kind="stable")]]
        mode = "random" if by is None else "suspect"
        for name in order[:N_REVIEWED]:
            store.record(name, "other", label=truth[name], mode=mode, reviewer="simulated")
        return sum(event.label != event.given_label for event in store.history())


def run_seed(arguments: argparse.Namespace, seed: int, missing: list[str], scratch: Path) -> None:
    _, _, truth = drawn(seed)
    first = fit_once(arguments, seed, scratch / "first")
    for choice in missing:
        if choice == "none":
            append(arguments.out, row(arguments, seed, choice, first, 0))
            continue
        reviewed = shutil.copytree(scratch / "first", scratch / choice)
        found = review(reviewed, first.labels, choice, truth)
        again = fit_once(arguments, seed, scratch / f"{choice}-again", (reviewed,))
        append(arguments.out, row(arguments, seed, choice, again, found))


def row(arguments: argparse.Namespace, seed: int, choice: str, run: Run, errors_found: int) -> dict[str, Any]:
    noisy, _, truth = drawn(seed)
    suggested = dict(zip(run.labels.id, run.labels.suggested_label, strict=True))
    found = {
        "method": arguments.method,
        "model": arguments.model,
        "epochs": arguments.epochs,
        "choice": choice,
        "seed": seed,
        "noise": NOISE,
        "n_trusted": run.summary["n_trusted"],
        "errors_found": errors_found,
        "labels_right": round(float(np.mean([suggested[name] == truth[name] for name in noisy.ids])), 5),
        "test_accuracy": run.summary["test_accuracy"],
        "test_balanced_accuracy": run.summary["test_balanced_accuracy"],
        "seconds": run.summary["seconds"],
        "commit": commit(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "command": f"python benchmarks/review_gain.py --method {arguments.method}",
    }
    print(choice, seed, errors_found, found["labels_right"], round(found["test_accuracy"], 4), flush=True)
    return found


def append(path: Path, found: dict[str, Any]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(found)


def run_missing(arguments: argparse.Namespace) -> None:
    deadline = time.monotonic() + 60 * arguments.minutes
    for seed in SEEDS:
        rows = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame(columns=["seed"])
        same = rows[rows["seed"] == seed]
        for name in ("method", "model", "epochs"):
            same = same[same[name] == getattr(arguments, name)] if len(same) else same
        missing = [choice for choice in CHOICES if not len(same) or choice not in set(same["choice"])]
        if missing and time.monotonic() > deadline:
            print("time is up; the same command continues")
            return
        if missing:
            with tempfile.TemporaryDirectory() as scratch:
                run_seed(arguments, seed, missing, Path(scratch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="ebomlc")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        run_missing(arguments)
    rows = pd.read_csv(arguments.out)
    figures = ["errors_found", "labels_right", "test_accuracy", "seconds"]
    table = rows.groupby(["method", "epochs", "choice"], sort=False)[figures].agg(["mean", "std"])
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
