"""The loop: schedules, choice of epoch, divergence, order of rows."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from ebomlc.config import TrainingConfig
from ebomlc.data.loader import PairedLoader
from ebomlc.errors import TrainingDivergedError
from ebomlc.models import MainModel
from ebomlc.records import NO_LABEL, Batch, StepReport
from ebomlc.training import engine
from ebomlc.training.schedules import learning_rate
from ebomlc.training.trackers import CsvTracker, NullTracker


class Scripted:
    """A method that only counts: predicts class 1 from a weight that grows by one a step, and fails when told to."""

    def __init__(self, fails_at: int | None = None, ruins_at: int | None = None) -> None:
        self.ruins_at = ruins_at
        self.model = MainModel(nn.Flatten(), 1, 2)
        nn.init.zeros_(self.model.head.weight)
        nn.init.zeros_(self.model.head.bias)
        self.fails_at = fails_at
        self.steps = 0
        self.rates = []
        self.epochs = []

    def begin_epoch(self, context):
        self.epochs.append(context.epoch)

    def step(self, noisy, trusted, context):
        assert self.model.training
        self.steps += 1
        self.rates.append(context.lr)
        with torch.no_grad():
            self.model.head.bias[1] += float("inf") if self.steps == self.ruins_at else 1
        loss = float("nan") if self.steps == self.fails_at else float(self.steps)
        return StepReport(torch.tensor(loss), {"twice": torch.tensor(2.0 * self.steps)})

    def suggest(self, inputs, given):
        return self.model(inputs).logits.softmax(1)

    def state_dict(self):
        return {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state):
        self.steps = int(state["steps"])


def rows(n, right=NO_LABEL):
    return Batch(torch.ones(n, 1), torch.zeros(n, dtype=torch.long), torch.full((n,), right), torch.arange(n))


def loader(n=40, batch=10):
    return PairedLoader(rows(n), rows(6, 0), batch_size=batch, trusted_batch_size=4, seed=0)


def config(epochs):
    return TrainingConfig(lr=0.1, epochs=epochs)


def test_last_epoch_is_chosen_with_few_heldout_rows():
    training = engine.fit(Scripted(), loader(), rows(299, 0), config(3), NullTracker(), quiet=True)
    assert (training.chosen.epoch, training.last.epoch, training.steps) == (3, 3, 12)


def test_best_epoch_is_chosen_with_enough_heldout_rows():
    # the bias starts tied and then prefers class 1, so that class 1 is right from the first epoch on and never better
    training = engine.fit(Scripted(), loader(), rows(300, 1), config(3), NullTracker(), quiet=True)
    assert (training.chosen.epoch, training.last.epoch) == (1, 3)
    assert training.chosen.heldout_accuracy == 1.0
    method = Scripted()
    engine.restore(method, training.chosen)
    assert method.steps == 4
    assert float(method.model.head.bias[1].detach()) == 4.0


def test_without_heldout_rows_nothing_is_claimed():
    training = engine.fit(Scripted(), loader(), rows(0), config(2), NullTracker(), quiet=True)
    assert training.last.heldout_accuracy is None
    assert training.chosen.epoch == 2


def test_nan_stops_at_its_step_and_keeps_the_last_good_epoch():
    method = Scripted(fails_at=7)
    training = engine.fit(method, loader(), rows(5, 0), config(5), NullTracker(), quiet=True)
    assert training.divergence is not None
    assert training.divergence.step == 7
    assert training.divergence.lr == method.rates[6]
    assert "step 7" in str(training.divergence)
    assert "training.lr" in str(training.divergence)
    assert training.last.epoch == 1
    assert int(training.last.method["steps"]) == 4


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_kept():
    training = engine.fit(Scripted(ruins_at=8), loader(), rows(5, 0), config(2), NullTracker(), quiet=True)
    assert training.divergence is not None
    assert training.divergence.step == 8
    assert training.last.epoch == 1
    assert all(value.isfinite().all() for value in training.last.main.values())


def test_nan_in_the_first_epoch_keeps_nothing():
    with pytest.raises(TrainingDivergedError, match="step 2"):
        engine.fit(Scripted(fails_at=2), loader(), rows(5, 0), config(5), NullTracker(), quiet=True)


def test_rows_of_metrics_average_over_the_epoch(tmp_path):
    path = tmp_path / "metrics.csv"
    engine.fit(Scripted(), loader(), rows(5, 0), config(2), CsvTracker(path), quiet=True)
    with path.open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table] == [2.5, 6.5]
    assert [float(row["twice"]) for row in table] == [5.0, 13.0]
    assert [row["epoch"] for row in table] == ["1", "2"]


class Restarting(Scripted):
    """Goes through the whole schedule in the second of two epochs, and says so."""

    def step(self, noisy, trusted, context):
        report = super().step(noisy, trusted, context)
        return replace(report, lr=context.lr_since(0.5 if context.progress >= 0.5 else 0.0))


def test_metrics_name_the_rate_of_the_last_step():
    settings = config(2)
    told = engine.fit(Scripted(), loader(), rows(5, 0), settings, NullTracker(), quiet=True).rows
    assert [row["lr"] for row in told] == [learning_rate(settings, share) for share in (3 / 8, 7 / 8)]
    own = engine.fit(Restarting(), loader(), rows(5, 0), settings, NullTracker(), quiet=True).rows
    assert [row["lr"] for row in own] == pytest.approx([learning_rate(settings, share) for share in (3 / 8, 3 / 4)])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {0.0: 0.1, 0.5: 0.05, 1.0: 0.001}),
        ("step", {0.0: 0.1, 0.66: 0.1, 0.67: 0.01, 0.84: 0.001}),
        ("constant", {0.0: 0.1, 0.99: 0.1}),
    ],
)
def test_schedules(schedule, expected):
    settings = TrainingConfig(lr=0.1, schedule=schedule, lr_floor=0.01)
    for progress, rate in expected.items():
        assert learning_rate(settings, progress) == pytest.approx(rate)


def test_predictions_leave_no_trace():
    method = Scripted()
    method.model.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Dropout(0.5))
    before = {k: v.clone() for k, v in method.model.state_dict().items()}
    first = engine.predict(method, torch.randn(2500, 1, generator=torch.Generator().manual_seed(0)))
    assert first.shape == (2500, 2)
    assert not first.requires_grad
    assert all(torch.equal(before[k], v) for k, v in method.model.state_dict().items())
