"""A training that was stopped and goes on ends where one that was never stopped does, bit for bit, whatever the method.

Real digits, few rows and small steps; dropout is on, so that torch's global generator matters.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ebomlc.config import DataConfig, MethodConfig, ModelConfig, RunConfig, TrainingConfig
from ebomlc.errors import TrainingDivergedError
from ebomlc.methods import METHODS
from ebomlc.methods.base import module_state
from ebomlc.preparation import Given, prepare
from ebomlc.training import engine
from ebomlc.training.checkpoint import FileCheckpoints
from ebomlc.training.trackers import CsvTracker, NullTracker

STEPS_PER_EPOCH, EPOCHS = 6, 3


class StoppedError(Exception):
    """Stands for a kill right after a checkpoint."""


class StopsAfter(FileCheckpoints):
    """Keeps the state after a number of steps, and ends there."""

    def __init__(self, folder, step):
        super().__init__(folder)
        self.step = step

    def is_due(self, step, *, is_epoch_end=False):
        return step == self.step

    def save(self, checkpoint):
        super().save(checkpoint)
        raise StoppedError


def job_of(method, **training):
    config = RunConfig(
        DataConfig("digits", n_noisy=300, n_trusted=60, noise="flip:0.4", pairs=True),
        model=ModelConfig("mlp", hidden=(16,), dropout=0.2),
        method=MethodConfig(method),
        training=TrainingConfig(epochs=EPOCHS, batch_size=50, weight_decay=1e-3, device="cpu", **training),
        seed=5,
    )
    return prepare(config, Given(), None)


def train(job, tracker=None, checkpoints=None):
    heldout, config = job.heldout, job.config.training
    return engine.fit(job.method, job.loader, heldout, config, tracker or NullTracker(), checkpoints, quiet=True)


def everything(method):
    parts = {"main": method.model, "parts": method}
    state = module_state(parts) | module_state(method.parts)
    return {name: tensor.clone() for name, tensor in state.items()} | {"generator": torch.get_rng_state()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def stop_and_go_on(method, step, folder, **training):
    """A training that ends after a step, and another one, from nothing but the files of the first."""
    with torch.random.fork_rng():
        stopped = job_of(method, **training)
        with pytest.raises(StoppedError):
            train(stopped, CsvTracker(folder / "metrics.csv"), StopsAfter(folder / "checkpoint", step))
    with torch.random.fork_rng():
        job = job_of(method, **training)
        torch.rand(17)  # whatever the new process drew before does not matter
        training_done = train(job, CsvTracker(folder / "metrics.csv"), FileCheckpoints(folder / "checkpoint"))
        return training_done, everything(job.method), job


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_ends_where_a_whole_one_does(method, tmp_path):
    with torch.random.fork_rng():
        whole = job_of(method)
        expected = train(whole, CsvTracker(tmp_path / "metrics.csv"))
        state = everything(whole.method)
    assert expected.steps == EPOCHS * STEPS_PER_EPOCH
    for step in (4, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 3):
        folder = tmp_path / str(step)
        folder.mkdir()
        found, found_state, _ = stop_and_go_on(method, step, folder)
        assert_same(found_state, state)
        assert found.resumed_at == [step]
        assert without_seconds(found.rows) == without_seconds(expected.rows)
        for snapshot in ("last", "chosen"):
            one, other = getattr(found, snapshot), getattr(expected, snapshot)
            assert (one.epoch, one.heldout_accuracy) == (other.epoch, other.heldout_accuracy)
            assert_same(one.main, other.main)
            assert_same(one.method, other.method)
        lines = [(path / "metrics.csv").read_text().splitlines() for path in (folder, tmp_path)]
        assert [line.rpartition(",")[0] for line in lines[0]] == [line.rpartition(",")[0] for line in lines[1]]


@pytest.mark.parametrize("method", ["ebomlc", "mslc", "emlc"])
def test_adamw_goes_on_as_well(method, tmp_path):
    with torch.random.fork_rng():
        whole = job_of(method, optimizer="adamw", lr=0.01)
        train(whole)
        state = everything(whole.method)
    _, found, _ = stop_and_go_on(method, 9, tmp_path, optimizer="adamw", lr=0.01)
    assert_same(found, state)


def test_a_finished_training_is_not_done_again(tmp_path):
    job = job_of("ce")
    with pytest.raises(StoppedError):
        train(job, None, StopsAfter(tmp_path / "checkpoint", EPOCHS * STEPS_PER_EPOCH))
    state = everything(job.method)
    again = job_of("ce")
    again.method.step = None  # type: ignore[assignment] - no step may be taken
    training = train(again, None, FileCheckpoints(tmp_path / "checkpoint"))
    assert training.steps == EPOCHS * STEPS_PER_EPOCH
    assert training.last is training.chosen
    engine.restore(again.method, training.last)
    assert_same(everything(again.method), state)


def test_a_choice_among_epochs_survives(tmp_path):
    """The chosen epoch is kept as another object than the last only where it is another epoch."""

    def choose_first(job):
        rows = job.loader.noisy[slice(None)]
        return replace(job, heldout=replace(rows, right=rows.given))

    whole = choose_first(job_of("trusted-only"))
    expected = train(whole)
    stopped = choose_first(job_of("trusted-only"))
    with pytest.raises(StoppedError):
        train(stopped, None, StopsAfter(tmp_path / "checkpoint", 2 * STEPS_PER_EPOCH + 1))
    found = train(choose_first(job_of("trusted-only")), None, FileCheckpoints(tmp_path / "checkpoint"))
    assert (found.chosen.epoch, found.chosen.heldout_accuracy) == (
        expected.chosen.epoch,
        expected.chosen.heldout_accuracy,
    )
    assert (found.chosen is found.last) == (expected.chosen is expected.last)


def test_seconds_add_up(tmp_path):
    job = job_of("ce")
    with pytest.raises(StoppedError):
        train(job, None, StopsAfter(tmp_path / "checkpoint", 8))
    found = train(job_of("ce"), None, FileCheckpoints(tmp_path / "checkpoint"))
    assert 0 < found.earlier_seconds < found.seconds
    assert [row["seconds"] for row in found.rows] == sorted(row["seconds"] for row in found.rows)


def test_divergence_is_found_at_its_own_step_after_going_on(tmp_path, monkeypatch):
    """Reports that nobody has looked at yet travel with the checkpoint: the step is named as if nothing had stopped."""
    taken = []

    def ruin(job):
        step = job.method.step

        def ruined(*arguments):
            report = step(*arguments)
            taken.append(1)
            return report if len(taken) != 3 else type(report)(report.loss * float("nan"), report.measures)

        job.method.step = ruined
        return job

    with pytest.raises(StoppedError):
        train(ruin(job_of("ce")), None, StopsAfter(tmp_path / "checkpoint", 4))
    with pytest.raises(TrainingDivergedError, match="step 3,"):
        train(job_of("ce"), None, FileCheckpoints(tmp_path / "checkpoint"))
