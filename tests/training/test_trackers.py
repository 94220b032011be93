"""Trackers: what is recorded, and what is left after a training goes on."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec

import pytest

from ebomlc import fit
from ebomlc.errors import InputError
from ebomlc.training.trackers import CsvTracker, NullTracker, SeveralTrackers, TensorBoardTracker

ROWS = [{"epoch": k, "loss": 1.0 / k, "heldout_accuracy": None} for k in (1, 2, 3)]

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="the extra is not installed")


def curves(folder):
    """Points (epoch, value) of every curve, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {name: [(point.step, point.value) for point in read.Scalars(name)] for name in read.Tags()["scalars"]}


@needs_tensorboard
def test_tensorboard_reads_the_rows_back_without_what_is_missing(tmp_path):
    tracker = TensorBoardTracker(tmp_path)
    tracker.restore([])
    for row in ROWS:
        tracker.log(row)
    tracker.close()
    found = curves(tmp_path)
    assert set(found) == {"loss"}
    assert [epoch for epoch, _ in found["loss"]] == [1, 2, 3]
    assert [value for _, value in found["loss"]] == pytest.approx([1, 1 / 2, 1 / 3])


@needs_tensorboard
def test_a_training_that_goes_on_replaces_the_epochs_after_its_checkpoint(tmp_path):
    first = TensorBoardTracker(tmp_path)
    for row in ROWS:
        first.log(row)
    first.close()
    second = TensorBoardTracker(tmp_path)
    second.restore(ROWS[:1])
    second.log({**ROWS[1], "loss": 7.0})
    second.close()
    assert curves(tmp_path)["loss"] == [(1, 1.0), (2, 7.0)]


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(InputError, match=r"ebomlc\[tensorboard\]"):
        TensorBoardTracker(tmp_path)


def test_several_trackers_hold_the_same(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    tracker = SeveralTrackers(*map(CsvTracker, paths), NullTracker())
    for row in ROWS:
        tracker.log(row)
    tracker.restore(ROWS[:2])
    for path in paths:
        with path.open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


@needs_tensorboard
def test_a_run_writes_event_files_where_its_configuration_asks_for_them(tmp_path):
    asked = tmp_path / "asked.toml"
    asked.write_text('[training]\ntracker = "tensorboard"\n')
    out = tmp_path / "run"
    fit("digits", noise="flip:0.4", n_trusted=40, n_noisy=200, epochs=2, folds=0, method="ce", config=asked, out=out)
    with (out / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [value for _, value in curves(out / "tensorboard")["loss"]] == pytest.approx(losses, rel=1e-4)
