"""Readers of official formats and of the configuration under coverage-guided fuzzing, some minutes each."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.torture.fuzz.regressions import REGRESSIONS
from tests.torture.fuzz.targets import TARGETS, survives

MINUTES = float(os.environ.get("EBOMLC_FUZZ_MINUTES", "1"))


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_broke_a_reader_and_what_is_good_is_read_or_refused(name):
    for content in (*TARGETS[name].seeds, *REGRESSIONS.get(name, ())):
        survives(name, content)


@pytest.mark.torture
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_no_crash(name, tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.fuzz.run", name, str(MINUTES)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])},
        capture_output=True,
        text=True,
    )
    crashes = {path.name: path.read_bytes() for path in tmp_path.glob("*-*")}
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{crashes}"
    assert "stat::number_of_executed_units" in done.stderr
