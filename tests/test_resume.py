"""A run that was broken off and is continued writes the same files as one that never was: weights, labels, metrics."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ebomlc import fit
from ebomlc import run as room
from ebomlc.errors import DataWarning, InputError
from ebomlc.training.checkpoint import FileCheckpoints

CONFIG = (
    "[training]\ncheckpoint_steps = 3\nbatch_size = 50\nweight_decay = 0.001\n[model]\nhidden = [16]\ndropout = 0.2\n"
)
ASKED = {"noise": "flip:0.4", "n_trusted": 60, "n_noisy": 300, "pairs": True, "epochs": 3, "seed": 2, "folds": 0}
OF_THIS_PROCESS = {"seconds", "training_seconds", "peak_memory_mb", "resumed_at", "commit"}


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "asked.toml"
    path.write_text(CONFIG)

    def run(out="run", **changes):
        return fit("digits", **{**ASKED, **changes}, config=path, out=tmp_path / out)

    return run


def figures(folder):
    """What must be the same of two runs: bytes where they can be, and numbers without times."""
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "metrics.csv").open() as file:
        metrics = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    names = ("main.safetensors", "method.safetensors", "labels.parquet", "config.toml", "split.npz")
    return {
        **{name: (folder / name).read_bytes() for name in names},
        "summary": {name: value for name, value in summary.items() if name not in OF_THIS_PROCESS},
        "metrics": metrics,
    }


@contextmanager
def stopped_after_saves(count, error=KeyboardInterrupt):
    """Break the run off inside the block some time after a checkpoint, as a kill would; it must not survive that."""
    save, done = FileCheckpoints.save, []

    def saving(self, checkpoint):
        if len(done) == count:
            raise error
        done.append(checkpoint.step)
        save(self, checkpoint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileCheckpoints, "save", saving)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else InputError) as raised:
            yield raised


def test_a_run_that_was_broken_off_ends_as_if_it_never_was(train):
    whole = train("whole", method="mslc")
    for count, steps in ((0, []), (1, [3]), (4, [12])):
        with stopped_after_saves(count):
            train(f"run-{count}", method="mslc")
        found = train(f"run-{count}", method="mslc", resume=True)
        assert found.summary["resumed_at"] == steps
        assert figures(found.folder) == figures(whole.folder)
        assert found.labels.to_frame().equals(whole.labels.to_frame())


@pytest.mark.parametrize("place", ["_predictions", "save_state"])
def test_a_run_that_was_broken_off_after_its_training_ends_so_too(place, train, monkeypatch):
    whole = train("whole")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(room, place, stop)
        train()
    again = train(resume=True)
    assert again.summary["resumed_at"] == [18], "no step is done twice"
    assert figures(again.folder) == figures(whole.folder)


def test_broken_off_twice(train):
    for count in (1, 2):
        with stopped_after_saves(count):
            train(resume=count > 1)
    found = train(resume=True)
    assert found.summary["resumed_at"] == [3, 9]
    assert figures(found.folder) == figures(train("whole").folder)


def test_where_nothing_is_it_starts_and_a_finished_run_is_left_alone(train):
    first = train(resume=True)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.folder.rglob("*")}
    said: list[str] = []
    again = train(resume=True, say=said.append)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in first.folder.rglob("*")} == before
    assert said == [f"{first.folder} holds this run, finished; it is left as it is"]
    assert again.summary == first.summary
    assert again.labels.to_frame().equals(first.labels.to_frame())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 4}, "training.epochs 4 instead of 3"),
        ({"seed": 3}, "seed 3 instead of 2"),
        ({"method": "glc"}, "method.name glc instead of plus"),
        ({"settings": {"mixup": 0.25}}, "method.settings.mixup 0.25 instead of 0.3"),
        ({"noise": "flip:0.2"}, "data.noise flip:0.2 instead of flip:0.4"),
        ({"test": "test.csv"}, "data.test test.csv instead of left out"),
    ],
    ids=str,
)
def test_another_run_is_refused_with_the_difference(train, changes, said, tmp_path):
    with stopped_after_saves(2):
        train()
    for _ in ("unfinished", "finished"):
        with pytest.raises(InputError) as error:
            train(**changes, resume=True)
        assert said in str(error.value)
        assert str(tmp_path / "run") in str(error.value)
        assert "--overwrite" in str(error.value)
        train(resume=True)


def test_other_rows_are_refused_although_they_have_the_same_name(tmp_path):
    images, digits = load_digits(return_X_y=True)
    labels = digits[:400].astype(str)

    def train(labels, **how):
        return fit((images[:400], labels), trusted=(images[400:460], digits[400:460].astype(str)), epochs=3,
                   out=tmp_path / "run", config=tmp_path / "asked.toml", **how)  # fmt: skip

    (tmp_path / "asked.toml").write_text(CONFIG)
    with stopped_after_saves(2):
        train(labels)
    other = labels.copy()
    other[7] = str((digits[7] + 1) % 10)
    with pytest.raises(InputError, match="other labels"):
        train(other, resume=True)
    assert train(labels, resume=True).summary["resumed_at"] == [6]


def test_a_damaged_checkpoint_costs_a_few_steps_and_a_warning(train, tmp_path):
    with stopped_after_saves(3):
        train()
    newest = max((tmp_path / "run" / "unfinished" / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(DataWarning, match="damaged"):
        found = train(resume=True)
    assert found.summary["resumed_at"] == [6]
    assert figures(found.folder) == figures(train("whole").folder)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(train, tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with stopped_after_saves(2, full) as raised:
        train()
    assert re.search(r"No space left.*--resume", str(raised.value))
    assert not (tmp_path / "run" / "summary.json").exists()
    found = train(resume=True)
    assert found.summary["resumed_at"] == [6]
    assert figures(found.folder) == figures(train("whole").folder)


def test_no_generator_but_torchs_is_read(train):
    """A checkpoint holds torch's global state alone; what read numpy's would not repeat."""
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - the global state is what is looked at
    train()
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"]
    assert (before["key"] == after["key"]).all()
