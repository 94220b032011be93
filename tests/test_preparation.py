"""What a run decides before it trains: class weights, where rows lie, what it will cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from ebomlc import InputError, fit, preparation
from ebomlc.config import DataConfig, MethodConfig, RunConfig, TrainingConfig
from ebomlc.data.encoders import LazyEncoded
from ebomlc.data.loader import StoredRows
from ebomlc.preparation import Given, class_weights, prepare
from ebomlc.training.estimate import estimate_training
from tests.data.conftest import lies_on_disk

IMAGES, RIGHT = load_digits(return_X_y=True)


def frame_of(counts):
    """Digits of some classes, so many of each; the last half of each is checked."""
    rows = np.concatenate([np.flatnonzero(digit == RIGHT)[:n] for digit, n in counts.items()])
    frame = pd.DataFrame(IMAGES[rows], columns=[f"x{k}" for k in range(64)])
    frame["label"] = RIGHT[rows].astype(str)
    half = frame.groupby("label").cumcount() % 2 == 0
    frame["checked_label"] = frame["label"].where(half)
    return frame


def job_of(frame, **settings):
    training = TrainingConfig(epochs=3, **settings.pop("training", {}))
    config = RunConfig(DataConfig("(DataFrame from Python)", **settings), training=training)
    return prepare(config, Given({"noisy": frame}), None)


# --- balance ----------------------------------------------------------------------------------------------------------


def test_classes_of_like_size_are_left_alone():
    job = job_of(frame_of({0: 100, 1: 60, 2: 40}))
    assert job.config.training.balance is False
    assert job.loader.trusted_classes is None


def test_a_rare_class_switches_balance_on():
    job = job_of(frame_of({0: 170, 1: 170, 2: 20}))
    assert job.config.training.balance is True
    assert job.reasons["balance"] == "the largest has 8.5 times the trusted rows of the smallest"
    shares = np.array([85, 85, 10]) / 180
    np.testing.assert_allclose(class_weights(job.pool).numpy(), 1 / (3 * shares), rtol=1e-5)
    weighted = class_weights(job.pool).numpy() @ shares
    assert weighted == pytest.approx(1), "an average row counts once"


@pytest.mark.filterwarnings("ignore:no noisy row")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_class_that_hardly_occurs_switches_nothing_on(n):
    job = job_of(frame_of({0: 100, 1: 60, 7: n}))
    assert job.config.training.balance is (n == 3)
    if n < 3:
        weights = class_weights(job.pool)
        assert weights[2] == 1
        np.testing.assert_allclose(weights[:2], [80 / 100, 80 / 60], rtol=1e-6)


def test_no_class_counts_more_than_ten_times():
    many = frame_of(dict.fromkeys(range(9), 170) | {9: 4})
    assert class_weights(job_of(many, training={"balance": True}).pool).max() == 10


def test_balance_can_be_asked_for_and_declined():
    assert job_of(frame_of({0: 100, 1: 60}), training={"balance": True}).loader.trusted_classes is not None
    assert job_of(frame_of({0: 170, 1: 20}), training={"balance": False}).loader.trusted_classes is None


def test_balance_finds_more_of_a_rare_class(tmp_path):
    """One eight in thirty, like a one to a small network on noisy labels: its recall is what balance is for."""
    rng = np.random.default_rng(0)
    train = frame_of({1: 120, 8: 20, 3: 120})
    rest = np.concatenate([np.flatnonzero(digit == RIGHT)[120:] for digit in (1, 3, 8)])
    test = pd.DataFrame(IMAGES[rest], columns=[f"x{k}" for k in range(64)]).assign(label=RIGHT[rest].astype(str))
    wrong = rng.random(len(train)) < 0.3
    train.loc[wrong, "label"] = rng.choice(["1", "3", "8"], wrong.sum())
    recall, seeds = {}, range(3)
    for balance in (False, True):
        recall[balance] = 0.0
        for seed in seeds:
            run = fit(train, test=test, balance=balance, epochs=30, seed=seed, out=tmp_path / f"{balance}-{seed}")
            figures = {row["name"]: row for row in run.summary["classes"]}
            recall[balance] += figures["8"]["test_recall"] / len(seeds)
            assert figures["8"]["trusted"] == 10
    assert recall[True] > recall[False] + 0.03


def test_the_cache_is_named_from_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert job_of(frame_of({0: 60, 1: 60}), cache_dir="here").config.data.cache_dir == str(tmp_path / "here")


# --- where rows lie ---------------------------------------------------------------------------------------------------


def test_rows_that_do_not_fit_lie_on_the_disk_once_encoded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    frame = frame_of({0: 100, 1: 100, 2: 100})
    frame["shape"] = np.where(IMAGES[: len(frame), 20] > 7, "round", "flat")
    whole = fit(frame, epochs=3, out=tmp_path / "whole")
    monkeypatch.setattr(preparation, "available_memory_mb", lambda device="cpu": 0.01)
    job = job_of(frame)
    assert lies_on_disk(job.encoded)
    assert isinstance(job.loader.noisy, StoredRows)
    assert job.encoded.shape == (300, 66)
    assert job.encoded.nbytes == 300 * 66 * 4
    streamed = fit(frame, epochs=3, out=tmp_path / "streamed")
    pd.testing.assert_frame_equal(streamed.labels.to_frame(), whole.labels.to_frame())


def test_embeddings_stay_in_their_file(tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", IMAGES[:400].astype(np.float32))
    table = pd.DataFrame({"label": RIGHT[:400], "checked_label": pd.Series(RIGHT[:400]).where(np.arange(400) < 80)})
    table.to_csv(tmp_path / "rows.csv", index=False)
    whole = fit(tmp_path / "rows.npy", epochs=3, out=tmp_path / "whole")
    monkeypatch.setattr(preparation, "available_memory_mb", lambda device="cpu": 0.01)
    config = RunConfig(DataConfig(str(tmp_path / "rows.npy")), training=TrainingConfig(epochs=3))
    job = prepare(config, Given(), None)
    assert isinstance(job.encoded, LazyEncoded)
    assert isinstance(job.pool.inputs.values, np.memmap)
    streamed = fit(tmp_path / "rows.npy", epochs=3, out=tmp_path / "streamed")
    pd.testing.assert_frame_equal(streamed.labels.to_frame(), whole.labels.to_frame())


# --- what it will cost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ebomlc", "glc", "mslc", "plus"])
def test_an_estimate_leaves_the_run_as_it_was(method, tmp_path):
    quiet = fit("digits", noise="flip:0.3", n_trusted=100, method=method, epochs=3, out=tmp_path / "quiet")
    said: list[str] = []
    loud = fit(
        "digits", noise="flip:0.3", n_trusted=100, method=method, epochs=3, out=tmp_path / "loud", say=said.append
    )
    assert any("training will take about" in line for line in said)
    pd.testing.assert_frame_equal(loud.labels.to_frame(), quiet.labels.to_frame())


def test_an_estimate_counts_all_steps():
    job = job_of(frame_of({0: 100, 1: 100}))
    estimate = estimate_training(job.create, job.loader, TrainingConfig(epochs=7))
    assert estimate.seconds == pytest.approx(7 * len(job.loader) * estimate.step_seconds)
    assert estimate.step_seconds > 0
    assert "training will take about" in str(estimate)


# --- other people's networks ------------------------------------------------------------------------------------------


class Rounding(torch.autograd.Function):
    """A step that can be differentiated backward only."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.fc = torch.nn.Linear(64, 16), torch.nn.Linear(16, 2)

    def forward(self, rows):
        return self.fc(Rounding.apply(self.first(rows).relu()))


def test_a_network_without_forward_mode_is_refused_where_it_is_needed():
    data = DataConfig("(DataFrame from Python)")
    given = Given({"noisy": frame_of({0: 60, 1: 60})}, Network())
    for method in ("mlc", "ebomlc"):
        config = RunConfig(data, method=MethodConfig(method), training=TrainingConfig(epochs=3))
        if method == "mlc":
            with pytest.raises(InputError, match="method 'mlc': the model cannot be differentiated in forward mode"):
                prepare(config, given, None)
        else:
            assert prepare(config, given, None).config.model.name == "(Network from Python)"
