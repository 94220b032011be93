"""A grid goes on where it stopped, records what failed, leaves nothing half-written, refuses what is not its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
from filelock import FileLock

from ebomlc.bench import grid as room
from ebomlc.bench import store
from ebomlc.bench.grid import run_suite, threads_per_job
from ebomlc.bench.store import make_record, read_records, record_key
from ebomlc.config import TrainingConfig
from ebomlc.errors import InputError
from ebomlc.run_folder import is_unfinished

from .conftest import tiny_suite

SUITE = tiny_suite("glc", "trusted-only", seeds=(0, 1))


@pytest.fixture
def copied(grid, tmp_path):
    return shutil.copytree(grid, tmp_path / "copy")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_what_is_done_is_found_again(copied):
    before = files(copied)
    outcome = run_suite(SUITE, copied)
    assert (outcome.n_cells, outcome.n_found, outcome.n_failed) == (4, 4, 0)
    assert files(copied) == before


def test_a_grid_goes_on_where_it_stopped(copied):
    """A run that is gone, and one that was broken off while it was put in place."""
    runs = sorted((copied / "runs").iterdir())
    before = pd.read_csv(copied / "rows.csv")
    shutil.rmtree(runs[0])
    (runs[1] / "summary.json").unlink()
    said: list[str] = []
    outcome = run_suite(SUITE, copied, jobs=2, say=said.append)
    assert (outcome.n_found, outcome.n_failed) == (2, 0), said
    assert sorted((copied / "runs").iterdir()) == runs
    figures = ["method", "seed", "test_accuracy", "suggested_label_accuracy", "brier"]
    pd.testing.assert_frame_equal(pd.read_csv(copied / "rows.csv")[figures], before[figures])


def test_a_failed_cell_is_recorded_and_stops_nothing(tmp_path):
    suite = tiny_suite("glc", "trusted-only", epochs=1)  # glc has phases and refuses a single epoch
    said: list[str] = []
    outcome = run_suite(suite, tmp_path, jobs=2, say=said.append)
    assert (outcome.n_cells, outcome.n_failed) == (2, 1)
    failures = pd.read_csv(tmp_path / "failures.csv")
    assert failures[["method", "data", "noise", "seed"]].to_numpy().tolist() == [["glc", "digits", "flip:0.4", 0]]
    assert "needs at least 2 epochs" in failures["error"][0]
    assert any("glc" in line and "failed: method 'glc' has phases" in line for line in said)
    assert pd.read_csv(tmp_path / "rows.csv")["method"].tolist() == ["trusted-only"]


def test_a_process_that_is_killed_is_a_failure(tmp_path):
    (tmp_path / "logs").mkdir()
    cell = SUITE.cells[0]
    task = room._Task(cell, make_record("smoke", cell, cell.config(SUITE.training, {}, None)))
    log = (tmp_path / "logs" / f"{task.key}.txt").open("wb")
    process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    process.wait()
    assert room._finish(room._Running(task, process, log), tmp_path) == (
        False, "failed: ended by signal 9; was there enough memory?",
    )  # fmt: skip


def test_breaking_off_leaves_what_is_done_and_nothing_half_written(tmp_path):
    suite = tiny_suite("trusted-only", "ebomlc", epochs=400)
    processes = []
    whole = room._start

    def started(*arguments):
        processes.append(whole(*arguments))
        return processes[-1]

    def broken_off(line):
        if line.startswith("1/"):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_start", started)
        with pytest.raises(KeyboardInterrupt):
            run_suite(suite, tmp_path, jobs=2, say=broken_off)
    assert all(one.process.returncode is not None for one in processes)
    assert pd.read_csv(tmp_path / "rows.csv")["method"].tolist() == ["trusted-only"]
    runs = list((tmp_path / "runs").iterdir())
    assert [(run / "summary.json").exists() for run in runs].count(True) == 1
    assert all(
        (run / "summary.json").exists() or [path.name for path in run.iterdir()] == ["unfinished"] for run in runs
    )
    assert not list((tmp_path / "logs").iterdir())
    assert not (tmp_path / "failures.csv").exists()


def test_a_cell_that_the_time_broke_off_goes_on_where_it_was(tmp_path, monkeypatch):
    suite = tiny_suite("ce", epochs=400)

    def clock():
        """Late as soon as an epoch is done."""
        tables = (tmp_path / "runs").glob("*/unfinished/metrics.csv")
        return time.monotonic() + 1e6 * any(table.read_text().count("\n") > 1 for table in tables)

    with monkeypatch.context() as patch:
        patch.setattr(room, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
        outcome = run_suite(suite, tmp_path, minutes=60)
    assert (outcome.n_left, outcome.n_failed) == (1, 0)
    [run] = (tmp_path / "runs").iterdir()
    assert is_unfinished(run)
    assert run_suite(suite, tmp_path).n_failed == 0
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < summary["resumed_at"][0] < summary["steps"]


def test_no_cell_is_started_once_the_time_is_up(tmp_path):
    outcome = run_suite(SUITE, tmp_path, minutes=1e-9)
    assert (outcome.n_cells, outcome.n_left, outcome.n_failed) == (4, 4, 0)
    assert not list((tmp_path / "runs").iterdir())


def test_processes_share_the_processors():
    n = threads_per_job(1)
    assert n >= 1
    assert threads_per_job(10 * n) == 1


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        run_suite(*arguments, **options)
    return str(caught.value)


def test_cells_of_another_version_are_refused_or_replaced(copied, monkeypatch):
    kept = {key for key, record in read_records(copied).items() if record["name"] == "trusted-only"}
    monkeypatch.setattr(store, "METHOD_REVISIONS", {"glc": 2})
    before = files(copied)
    assert f"revision {store.REVISION}.1.1 instead of {store.REVISION}.2.1" in refused(SUITE, copied)
    assert files(copied) == before
    outcome = run_suite(SUITE, copied, overwrite=True, minutes=1e-9)
    assert (outcome.n_found, outcome.n_left) == (2, 2)
    assert set(read_records(copied)) == kept == {path.name for path in (copied / "runs").iterdir()}


def test_a_folder_that_is_not_its_own_is_refused_and_not_touched(tmp_path, copied):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    (tmp_path / "file").write_text("a file")
    assert "mine is not empty and holds no benchmark" in refused(SUITE, tmp_path / "mine")
    assert "file is a file" in refused(SUITE, tmp_path / "file")
    assert "cannot be written" in refused(SUITE, tmp_path / "file" / "out")
    (copied / "suite.json").write_text(json.dumps({"suite": "paper"}))
    assert "holds the suite paper; choose another --out for the suite smoke" in refused(SUITE, copied)
    assert files(tmp_path / "mine") == {tmp_path / "mine" / "precious.txt": b"mine"}


def test_two_at_work_in_one_folder_are_refused(copied):
    with FileLock(copied / ".lock"):
        assert "another `ebomlc bench run` is at work there" in refused(SUITE, copied)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "--jobs is 0"),
        ({"minutes": 0.0}, "--minutes is 0"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(tmp_path, options, message):
    assert message in refused(SUITE, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_device_is_part_of_what_is_asked():
    cell = SUITE.cells[0]
    keys = {
        record_key(make_record("smoke", cell, cell.config(TrainingConfig(epochs=2, device=device), {}, None)))
        for device in ("cpu", "cuda")
    }
    assert len(keys) == 2
