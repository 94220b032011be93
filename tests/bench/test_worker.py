"""One cell in a process of its own: what it writes, what it says when it cannot, and that it stops when left."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from ebomlc.bench.store import make_record
from ebomlc.bench.worker import FAILED

from .conftest import tiny_suite


@pytest.fixture
def start(tmp_path):
    """Start a worker on a cell of the suite; the run goes to ``run``."""

    def started(method, **training):
        suite = tiny_suite(method, **training)
        cell = suite.cells[0]
        path = tmp_path / "record.json"
        path.write_text(json.dumps(make_record("smoke", cell, cell.config(suite.training, {}, None))))
        command = [sys.executable, "-m", "ebomlc.bench.worker", str(path), str(tmp_path / "run")]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return started


def test_an_error_is_one_line(start, tmp_path):
    with start("glc", epochs=1) as process:
        assert process.stderr.read() == "method 'glc' has phases and needs at least 2 epochs, not 1\n"
    assert process.returncode == FAILED
    assert not (tmp_path / "run").exists()


def test_it_stops_when_it_is_left_and_keeps_where_it_was(start, tmp_path):
    with start("ebomlc", epochs=2000) as process:
        while process.poll() is None and not (tmp_path / "run" / "unfinished" / "metrics.csv").exists():
            time.sleep(0.05)
        process.stdin.close()
        assert "KeyboardInterrupt" in process.stderr.read()
    assert process.returncode != 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["unfinished"], "no run that could pass as finished"
    assert len(list((tmp_path / "run" / "unfinished" / "checkpoint").iterdir())) == 1
