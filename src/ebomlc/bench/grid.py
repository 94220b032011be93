"""Running a suite: every cell in a process of its own; what is done is found again, what failed is recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ebomlc.bench.store import (
    CELLS,
    LOGS,
    RUNS,
    SUITE,
    check_versions,
    derive_rows,
    last_line,
    make_record,
    outdated,
    read_record,
    read_records,
    read_summary,
    record_key,
    write_record,
)
from ebomlc.bench.suite import Cell, Suite, Tuning
from ebomlc.config import TrainingConfig
from ebomlc.errors import InputError
from ebomlc.run_folder import is_unfinished
from ebomlc.training.device import choose_device

PAUSE, PATIENCE = 0.05, 30.0
"""Seconds between two looks at the processes, and that an interrupted one is given to clean up."""

LOCK = ".lock"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What came of running a suite.

    Attributes
    ----------
    n_cells, n_found, n_failed, n_left : int
        Cells of the suite; those that were done before; that failed now; that were not started for lack of time.
    """

    n_cells: int
    n_found: int
    n_failed: int
    n_left: int


@dataclass(frozen=True)
class _Task:
    """A cell that is to be run."""

    cell: Cell
    record: Mapping[str, Any]

    @property
    def key(self) -> str:
        return record_key(self.record)


@dataclass(frozen=True)
class _Running:
    """A process at work on a cell."""

    task: _Task
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float = field(default_factory=time.monotonic)


def run_suite(
    suite: Suite,
    out: Path,
    *,
    jobs: int = 1,
    data_dir: Path | None = None,
    device: str = "auto",
    tuning: Tuning | None = None,
    minutes: float | None = None,
    overwrite: bool = False,
    say: Say | None = None,
) -> Outcome:
    """Run the cells of a suite that are not done yet, cheapest first.

    Parameters
    ----------
    suite : Suite
        As `ebomlc.bench.suite.choose` gives it, so that everything it needs is there.
    out : Path
        Folder of the benchmark; see `ebomlc.bench.store`.
    jobs : int
        Processes at a time; each computes with its share of the processors.
    data_dir : Path, optional
        Folder of official files.
    device : {"auto", "cpu", "cuda"}
        Of every run.
    tuning : Tuning, optional
        Settings by method.
    minutes : float, optional
        After so long no further cell is started, and those at work are broken off: the next call goes on with them.
    overwrite : bool
        Remove cells of other versions instead of refusing the folder.
    say : callable, optional
        Takes a line for each cell.

    Raises
    ------
    InputError
        Where the folder is another suite's, holds cells of another version, is not a benchmark's or is in use.
    """
    say = say or (lambda line: None)
    _check_numbers(jobs, minutes)
    training = _on_device(suite.training, device)
    _check_folder(out, suite.name)
    with _only_one(out):
        _start_folder(out, suite.name, overwrite)
        tasks = [
            _Task(cell, make_record(suite.name, cell, cell.config(training, tuning or {}, data_dir)))
            for cell in suite.cells
        ]
        missing = [task for task in tasks if read_summary(out, task.key, task.record) is None]
        n_found = len(tasks) - len(missing)
        say(f"suite {suite.name}: {len(tasks)} cells, {n_found} of them done, {jobs} at a time")
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        try:
            failed, left = _run_tasks(missing, out, jobs, deadline, say)
        finally:
            derive_rows(out)
    return Outcome(len(tasks), n_found, failed, left)


def _check_numbers(jobs: int, minutes: float | None) -> None:
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}: at least one process is needed")
    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes is {minutes:g}: must be above 0")


def _on_device(training: TrainingConfig, device: str) -> TrainingConfig:
    # checked by the configuration, decided here: a run on another device is another run
    return replace(training, device=choose_device(replace(training, device=device).device).type)


# --- the folder -------------------------------------------------------------------------------------------------------


def _check_folder(out: Path, suite: str) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder to make")
    if not out.exists() or all(path.name == LOCK for path in out.iterdir()):
        return
    try:
        name = json.loads((out / SUITE).read_text(encoding="utf-8"))["suite"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{out} is not empty and holds no benchmark; choose another --out") from None
    if name != suite:
        raise InputError(f"{out} holds the suite {name}; choose another --out for the suite {suite}")


def _start_folder(out: Path, suite: str, overwrite: bool) -> None:
    """Make what is not there, and make sure of the versions of what is."""
    for name in (CELLS, RUNS, LOGS):
        (out / name).mkdir(exist_ok=True)
    (out / SUITE).write_text(json.dumps({"suite": suite}) + "\n", encoding="utf-8")
    if overwrite:
        _remove_outdated(out)
    check_versions(out, read_records(out))


def _remove_outdated(out: Path) -> None:
    for path in (out / CELLS).glob("*.json"):
        try:
            keep = outdated(read_record(path)) is None
        except InputError:
            keep = False
        if not keep:
            _remove_run(out, path.stem)
            path.unlink()


def _remove_run(out: Path, key: str) -> None:
    shutil.rmtree(out / RUNS / key, ignore_errors=True)
    (out / LOGS / f"{key}.txt").unlink(missing_ok=True)


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    try:
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"{out}: another `ebomlc bench run` is at work there; wait, or choose another --out"
        ) from error


# --- processes --------------------------------------------------------------------------------------------------------


def _run_tasks(tasks: Sequence[_Task], out: Path, jobs: int, deadline: float | None, say: Say) -> tuple[int, int]:
    """Counts of the tasks that failed and that are left for another time."""
    waiting, running = list(tasks), list[_Running]()
    n_failed = n_done = 0
    try:
        while waiting or running:
            if deadline is not None and time.monotonic() > deadline:
                break
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), out, jobs))
            ended = [one for one in running if one.process.poll() is not None]
            for one in ended:
                running.remove(one)
                n_done += 1
                is_good, line = _finish(one, out)
                n_failed += not is_good
                say(f"{n_done}/{len(tasks)} {one.task.cell}: {line}")
            if not ended:
                time.sleep(PAUSE)
    finally:
        _stop(running)
    return n_failed, len(waiting) + len(running)


def threads_per_job(jobs: int) -> int:
    """Processor threads of each of several processes."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, n // jobs)


def _start(task: _Task, out: Path, jobs: int) -> _Running:
    record = write_record(out, task.record)
    if not is_unfinished(out / RUNS / task.key):
        _remove_run(out, task.key)
    log = (out / LOGS / f"{task.key}.txt").open("wb")
    command = [sys.executable, "-m", "ebomlc.bench.worker", str(record), str(out / RUNS / task.key)]
    environment = {"OMP_NUM_THREADS": str(threads_per_job(jobs)), **os.environ}
    # in a session of its own, Ctrl-C does not reach it: `_stop` does, through its standard input
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    return _Running(task, process, log)


def _finish(one: _Running, out: Path) -> tuple[bool, str]:
    """Whether a process that has ended did its cell, and what there is to say of it."""
    one.log.close()
    if one.process.stdin is not None:
        one.process.stdin.close()
    task, log = one.task, out / LOGS / f"{one.task.key}.txt"
    summary = read_summary(out, task.key, task.record)
    if summary is None:
        if one.process.returncode < 0:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\nended by signal {-one.process.returncode}; was there enough memory?\n")
        return False, f"failed: {last_line(log)}"
    log.unlink(missing_ok=True)
    figures = [("test", "test_accuracy_last"), ("labels", "suggested_label_accuracy")]
    shown = [f"{name} {summary[key]:.1%}" for name, key in figures if summary[key] is not None]
    if summary["diverged"] is not None:
        shown.append(f"diverged after epoch {summary['epochs']}")
    return True, ", ".join([*shown, f"{time.monotonic() - one.started:.0f} s"])


def _stop(running: Sequence[_Running]) -> None:
    """Make processes give up, with a checkpoint that another call goes on from."""
    for one in running:
        if one.process.stdin is not None:
            one.process.stdin.close()
    for one in running:
        try:
            one.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        one.log.close()
        Path(one.log.name).unlink(missing_ok=True)  # it did not fail: it was broken off
