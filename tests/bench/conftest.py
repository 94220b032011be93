"""A benchmark small enough for a test: real digits, two quick methods, run once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebomlc.bench.grid import run_suite
from ebomlc.bench.suite import Contender, Suite, find_suite
from ebomlc.config import TrainingConfig


def tiny_suite(*methods: str, seeds: tuple[int, ...] = (0,), **training) -> Suite:
    """The suite ``smoke`` with other methods, trained for two epochs."""
    return replace(
        find_suite("smoke"),
        contenders=tuple(Contender(name, name) for name in methods),
        seeds=seeds,
        training=TrainingConfig(**{"epochs": 2, "precision": "float32", **training}),
    )


@pytest.fixture(scope="session")
def grid(tmp_path_factory) -> Path:
    """Folder of a finished benchmark, not to be changed: glc and trusted-only on digits, two seeds."""
    out = tmp_path_factory.mktemp("bench") / "grid"
    said: list[str] = []
    outcome = run_suite(tiny_suite("glc", "trusted-only", seeds=(0, 1)), out, jobs=2, say=said.append)
    assert (outcome.n_cells, outcome.n_found, outcome.n_failed, outcome.n_left) == (4, 0, 0, 0), said
    return out
