"""Processes that are killed, or told to stop, and disks that are full: what is continued is what never stopped.

Real digits, in forked processes, so that a trial takes as long as its run and not as long as its imports.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ebomlc import fit
from ebomlc import run as room
from ebomlc.errors import InputError
from ebomlc.run_folder import can_continue, is_finished

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
]

TRIALS = 25
CONFIG = """
[training]
checkpoint_steps = 7
batch_size = 50
[model]
dropout = 0.2
"""
ASKED = {"noise": "flip:0.4", "n_trusted": 100, "pairs": True, "epochs": 12, "seed": 3, "folds": 2}
OF_THIS_PROCESS = {"seconds", "training_seconds", "peak_memory_mb", "resumed_at", "commit"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("asked") / "asked.toml"
    path.write_text(CONFIG)
    return {**ASKED, "noisy": "digits", "config": path}


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """The run that nothing happens to, and how long it takes in a process of its own."""
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    assert finish(start(asked, out)) == 0
    return out, time.monotonic() - started


def start(asked, out, prepare=None, end=None):
    """Run in a process of its own, which goes on where another one left off; gives its number.

    `prepare` and `end` are called there, before and after the run.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if prepare is not None:
            prepare()
        fit(**asked, out=out, resume=True)
        if end is not None:
            end()
        code = 0
    finally:
        os._exit(code)


def finish(process):
    """Wait for a process: its exit code, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def figures(folder):
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "metrics.csv").open() as file:
        metrics = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    names = ("main.safetensors", "method.safetensors", "labels.parquet", "trust.json", "config.toml", "split.npz")
    return {
        **{name: (folder / name).read_bytes() for name in names},
        "summary": {name: value for name, value in summary.items() if name not in OF_THIS_PROCESS},
        "metrics": metrics,
    }


def assert_finished_alike(out, whole):
    found, expected = figures(out), figures(whole)
    for name, value in expected.items():
        assert found[name] == value, name
    # the page is made when the run is there already, and made again with `ebomlc report`
    names = [{path.name for path in folder.iterdir()} - {".lock", "report.html"} for folder in (out, whole)]
    assert names[0] == names[1]


def test_kills_at_random_moments(asked, whole, tmp_path):
    """Until `TRIALS` kills have hit, run after run: whenever one is through, it is what the whole one is."""
    expected, seconds = whole
    draw = np.random.default_rng(0)
    kills, finished, hit = 0, 0, []
    while kills < TRIALS:
        out = tmp_path / f"run-{finished}"
        process = start(asked, out)
        time.sleep(draw.uniform(0, 0.9 * seconds))
        os.kill(process, signal.SIGKILL)
        code = finish(process)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        hit.append("finished" if is_finished(out) else "continued" if can_continue(out) else "begun")
        if kills % 5 == 0 or code == 0:
            assert finish(start(asked, out)) == 0
            assert_finished_alike(out, expected)
            finished += 1
    counts = {name: hit.count(name) for name in sorted(set(hit))}
    print(f"\n{kills} kills, {finished} runs finished; after a kill there was: {counts}")
    assert finished >= 5
    assert "continued" in hit


class KilledAtChange:
    """A process that kills itself at so many changes of the file system below its run folder, until the run is whole.

    The page is left out: it is made when everything else is in its place.
    """

    def __init__(self, out, count):
        self.out, self.left, self.seen = str(out), count, 0

    def prepare(self):
        room._add_report = lambda *_: None
        sys.addaudithook(self.look)

    def look(self, event, arguments):
        is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if event == "open" and isinstance(arguments[0], str | Path):
            is_change = bool(arguments[2] & os.O_ACCMODE)
        if is_change and str(arguments[0]).startswith(self.out):
            self.seen += 1
            if self.seen > self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def test_kills_between_two_changes_of_the_folder(asked, whole, tmp_path):
    """During checkpoints and between files: at changes drawn from all those that a run makes, and among the last."""
    counted = KilledAtChange(tmp_path / "run", 10**9)
    note = tmp_path / "changes.txt"
    end = lambda: note.write_text(str(counted.seen))  # noqa: E731 - called in the other process
    assert finish(start(asked, tmp_path / "run", counted.prepare, end)) == 0
    n_changes, n_last = int(note.read_text()), 15
    drawn = np.random.default_rng(1).choice(n_changes - 2 * n_last, TRIALS - n_last, replace=False).tolist()
    for change in [*drawn, *range(n_changes - 2 * n_last, n_changes, 2)]:
        out = tmp_path / f"run-{change}"
        assert finish(start(asked, out, KilledAtChange(out, change).prepare)) == -signal.SIGKILL
        assert finish(start(asked, out)) == 0
        assert_finished_alike(out, whole[0])
    print(f"\n{TRIALS} kills among the {n_changes} changes of a run")


@pytest.mark.parametrize("place", ["_predictions", "judge", "save_state"])
def test_kills_after_the_training(place, asked, whole, tmp_path):
    """When test rows are predicted, in the label pass, and when weights are written."""

    def prepare():
        setattr(room, place, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))

    out = tmp_path / "run"
    assert finish(start(asked, out, prepare)) == -signal.SIGKILL
    assert not is_finished(out)
    assert finish(start(asked, out)) == 0
    assert_finished_alike(out, whole[0])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_it_keeps_its_state_first(number, code, asked, whole, tmp_path):
    """The command line itself; without a checkpoint that was due, there is one."""
    config = tmp_path / "asked.toml"
    config.write_text(CONFIG.replace("checkpoint_steps = 7\n", ""))
    options = ["--noise", "flip:0.4", "--n-trusted", "100", "--pairs", "--seed", "3", "--folds", "2"]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ebomlc", "fit", "digits", *options, "--epochs", "12"]
    command += ["--config", str(config), "--out", str(out), "--resume"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (out / "unfinished" / "metrics.csv").exists():
            time.sleep(0.01)
        process.send_signal(number)
        assert process.stderr is not None
        assert "--resume goes on" in process.stderr.read()
    assert process.returncode == code
    assert len(list((out / "unfinished" / "checkpoint").iterdir())) == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert json.loads((out / "summary.json").read_text())["resumed_at"] != []
    expected = figures(whole[0])
    found = figures(out)
    for name in ("main.safetensors", "method.safetensors", "labels.parquet", "metrics"):
        assert found[name] == expected[name], name


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.filterwarnings("ignore:no report.html")
def test_a_full_disk(asked, whole, small_disk):
    """With less and less room, the run stops at another file; the run before it stays, and with room it is finished."""
    old = small_disk / "old"
    shutil.copytree(whole[0], old)
    before = figures(old)
    needed = sum(path.stat().st_size for path in old.rglob("*") if path.is_file())
    said = []
    for share in (0.05, 0.5, 1.0, 1.3, 1.6, 1.9, 2.2):
        filler, out = small_disk / "filler", small_disk / "run"
        filler.write_bytes(bytes(max(0, int(shutil.disk_usage(small_disk).free - share * needed))))
        try:
            fit(**asked, out=out, resume=True)
        except InputError as error:
            assert os.strerror(errno.ENOSPC) in str(error)
            assert "\n" not in str(error)
            said.append((share, can_continue(out)))
        else:
            break
        finally:
            filler.unlink()
        assert not is_finished(out)
        assert figures(old) == before
    print(f"\nroom for a share of the run, and whether a checkpoint was left: {said}")
    assert {kept for _, kept in said} == {True, False}, "the disk was not full at the moments to test"
    fit(**asked, out=out, resume=True)
    assert_finished_alike(out, whole[0])
