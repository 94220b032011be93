"""What the training steps of each method need of memory, above what there is before them, in a process of its own.

    python benchmarks/step_memory.py --methods ce,mlc-head,mlc,ebomlc,plus

The steps are those of step_cost.py. What counts is the most that the process ever holds, on Linux.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from pathlib import Path

import torch
from step_cost import N_TRUSTED, PRECISIONS, ROOT, Timed, append, circumstances, create, make_setup, train

from ebomlc.methods import METHODS

ROWS = ROOT / "results" / "step_memory.csv"

EPOCHS = 4
"""Enough for every phase of a method."""

MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc gives large blocks back at once: else what it keeps for later, up to half as much again, would count."""


def resident_mb(entry: str) -> float:
    """``VmRSS``, what this process holds, or ``VmHWM``, the most it held since the peak was reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) / 1024


def measure_here(name: str, model: str, precision: str) -> float:
    """MiB that a few steps of every phase of a method need, in this process."""
    setup = make_setup(model, precision)
    train([Timed(name, create(name, setup), N_TRUSTED)], model, EPOCHS, 1)  # what is loaded once is there by now
    gc.collect()
    one = Timed(name, create(name, setup), N_TRUSTED)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_mb("VmRSS")
    train([one], model, EPOCHS, 2)
    return resident_mb("VmHWM") - before


def measure(name: str, model: str, precision: str) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--here", "--methods", name, "--models", model, "--precisions", precision]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **MALLOC}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="cnn-tiny,resnet20,resnet32")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.here:
        print(measure_here(arguments.methods, arguments.models, arguments.precisions))
        return
    for model in arguments.models.split(","):
        for precision in arguments.precisions.split(","):
            of_ce = measure("ce", model, precision)
            for name in dict.fromkeys(["ce", *arguments.methods.split(",")]):
                megabytes = of_ce if name == "ce" else measure(name, model, precision)
                row = {"model": model, "precision": precision, "method": name, "mb": round(megabytes)}
                row["ratio"] = round(megabytes / of_ce, 2)
                append([{**row, **circumstances()}], arguments.out)
                print(f"{model}, {precision}, {name}: {megabytes:.0f} MB, {row['ratio']} times ce", flush=True)


if __name__ == "__main__":
    main()
