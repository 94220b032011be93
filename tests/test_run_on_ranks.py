"""Whole runs by several processes: what is written, what is refused, and that all of them end alike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ebomlc import fit
from ebomlc.errors import DataWarning, InputError
from tests.training.processes import on_ranks

DIGITS = {"noise": "flip:0.4", "n_trusted": 100, "n_noisy": 400, "folds": 0, "epochs": 3}


def refused(**options) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            fit("digits", **{**DIGITS, **options})
        except InputError as error:
            return str(error)
    return ""


def test_two_processes_write_the_run_of_one(tmp_path):
    config = tmp_path / "batches.toml"  # which two can share evenly
    config.write_text("[training]\nbatch_size = 80\ntrusted_batch_size = 40\n")
    # a method that draws nothing at random: what each rank mixes is its own
    options = {**DIGITS, "method": "ebomlc", "config": config}

    def work(ranks):
        first = fit("digits", **options, out=tmp_path / "two")
        again = fit("digits", **options, out=tmp_path / "two", resume=True)
        figures = {name: first.summary[name] for name in ("test_accuracy_last", "steps", "split_sha256")}
        return {"figures": figures, "confidence": float(first.labels.suggestion_confidence.sum()),
                "again": again.summary["seconds"]}  # fmt: skip

    one = fit("digits", **options, out=tmp_path / "one")
    found = on_ranks(2, work, tmp_path)
    assert found[0] == found[1]
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in one.folder.iterdir()}
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["seconds"] == found[0]["again"]
    assert summary["split_sha256"] == one.summary["split_sha256"] == found[0]["figures"]["split_sha256"]
    ours, theirs = pd.read_parquet(tmp_path / "two" / "labels.parquet"), one.labels.to_frame()
    assert ours["id"].tolist() == theirs["id"].tolist()
    np.testing.assert_allclose(ours["label_quality"], theirs["label_quality"], atol=1e-3)
    np.testing.assert_allclose(ours["predicted_confidence"], theirs["predicted_confidence"], atol=1e-3)
    assert (ours["suggested_label"] == theirs["suggested_label"]).mean() > 0.99
    assert len(pd.read_csv(tmp_path / "two" / "metrics.csv")) == 3


def test_what_one_process_must_refuse_all_refuse_and_nothing_is_written(tmp_path):
    """Too many for the rows; started with unequal seeds; a folder that only the first one looks at."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()

    def work(ranks):
        return [
            refused(n_trusted=5, out=tmp_path / "few"),
            refused(seed=ranks.rank, out=tmp_path / "unequal"),
            refused(out=tmp_path / "full"),
        ]

    for few, unequal, full in on_ranks(3, work, tmp_path):
        assert "3 processes, but 5 trusted rows that train" in few
        assert "start at most 2" in few
        assert "not started alike: seed is 1 on rank 1 and 0 on rank 0" in unequal
        assert "holds no run" in full
    assert not (tmp_path / "few").exists()
    assert not (tmp_path / "unequal").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def torchrun(*options: str, size: int = 2) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", "-m", "ebomlc",
        "fit", "digits", "--noise", "flip:0.4", "--n-trusted", "100", "--folds", "0", *options,
    ]  # fmt: skip


def workers(out: str) -> list[int]:
    """Processes that write to a run folder under torchrun, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            lines = (path / "environ").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        names = dict(line.split("=", 1) for line in lines if "=" in line)
        if out in words and "LOCAL_RANK" in names:
            found[int(names["LOCAL_RANK"])] = int(path.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="finds processes in /proc")
def test_torchrun_goes_on_after_a_worker_was_killed(tmp_path):
    out = tmp_path / "run"
    config = tmp_path / "often.toml"
    config.write_text("[data]\nnoisy = 'digits'\n[training]\ncheckpoint_steps = 10\n")
    command = torchrun("--config", str(config), "--epochs", "60", "--out", str(out))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not any((out / "unfinished" / "checkpoint").glob("step-*")):
                assert process.poll() is None
                time.sleep(0.2)
            os.kill(workers(str(out))[1], signal.SIGKILL)
            killed = time.monotonic()
            while workers(str(out)):
                assert time.monotonic() - killed < 30
                time.sleep(0.1)
            process.wait(timeout=60)
        finally:
            process.kill()
    assert process.returncode != 0
    assert not (out / "summary.json").exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["resumed_at"]
    assert summary["epochs"] == 60
