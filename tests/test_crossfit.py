"""Short trainings that are not shown some checks, on real digits: what they see, what they say, that they repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import ebomlc.crossfit as room
from ebomlc.config import DataConfig, MethodConfig, RunConfig, TrainingConfig
from ebomlc.crossfit import cross_fit, train_member
from ebomlc.labels.pairs import find_pairs
from ebomlc.preparation import Given, prepare
from ebomlc.records import NO_LABEL
from ebomlc.training import engine


def make_job(n_trusted=120, **options):
    data = DataConfig("digits", noise="flip:0.4", n_trusted=n_trusted, n_noisy=500, pairs=True)
    training = TrainingConfig(epochs=10, device="cpu")
    return prepare(RunConfig(data, training=training, **options), Given(), None)


@pytest.fixture(scope="module")
def job():
    return make_job()


@pytest.fixture(scope="module")
def pairs(job):
    pool = job.pool
    return find_pairs(pool.given, pool.right, pool.provenance, pool.weights)


@pytest.fixture(scope="module")
def crossed(job, pairs):
    return cross_fit(job, pairs, 3)


@pytest.fixture
def seen(monkeypatch):
    """What the last training was given."""
    given_to = {}
    fit = engine.fit

    def of_pool(rows):
        return replace(rows[slice(None)], index=torch.as_tensor(rows.positions))

    def spy(method, loader, heldout, config, *rest, **options):
        given_to.update(noisy=of_pool(loader.noisy), trusted=of_pool(loader.trusted), heldout=heldout)
        given_to["epochs"] = config.epochs
        return fit(method, loader, heldout, config, *rest, **options)

    monkeypatch.setattr(room.engine, "fit", spy)
    return given_to


def test_rows_that_are_left_out_are_noisy_ones_with_the_label_they_were_given(job, pairs, seen):
    left_out = pairs.rows[:40]
    train_member(job, left_out, "some")
    noisy, trusted = seen["noisy"], seen["trusted"]
    assert set(left_out) <= set(noisy.index.tolist())
    assert not set(left_out) & set(trusted.index.tolist())
    assert sorted([*noisy.index.tolist(), *trusted.index.tolist()]) == list(range(len(job.pool.ids)))
    assert (noisy.right == NO_LABEL).all(), "no right label is to be seen among the noisy rows"
    assert (noisy.given.numpy() == job.pool.given[noisy.index.numpy()]).all()
    assert len(seen["heldout"]) == 0, "rows that are watched otherwise train as well"
    assert seen["epochs"] == 3


def test_suspects_train_without_the_label_they_were_given(job, pairs, seen):
    provenance = job.pool.provenance.copy()
    provenance[pairs.rows[50:70]] = "suspect"
    train_member(replace(job, pool=replace(job.pool, provenance=provenance)), pairs.rows[:40], "some")
    trusted = seen["trusted"]
    is_suspect = np.isin(trusted.index.numpy(), pairs.rows[50:70])
    assert is_suspect.sum() == 20
    assert (trusted.given.numpy() == NO_LABEL).tolist() == is_suspect.tolist()


def test_nothing_said_of_a_row_depends_on_its_own_check(job, pairs):
    """A member that leaves rows out is the same whatever their checks say."""
    left_out = pairs.rows[:40]
    before = train_member(job, left_out, "some").opinions(job, left_out)
    right = job.pool.right.copy()
    try:
        job.pool.right[left_out] = (right[left_out] + 1) % 10
        after = train_member(job, left_out, "some").opinions(job, left_out)
    finally:
        job.pool.right[:] = right
    assert np.array_equal(before, after)


def test_opinions_are_distributions_of_three(job, pairs):
    opinions = train_member(job, pairs.rows[:40], "some").opinions(job, pairs.rows[:7])
    assert opinions.shape == (3, 7, 10)
    assert opinions.sum(2) == pytest.approx(np.ones((3, 7)), abs=1e-5)


def test_one_class_of_trusted_rows_leaves_the_linear_model_without_opinion(job, pairs):
    one_class = pairs.rows[pairs.right != pairs.right[0]]
    member = train_member(job, one_class, "one class")
    assert member.linear is None
    assert (member.opinions(job, pairs.rows[:3])[2] == 0.1).all()


def test_suggestions_of_the_joined_models_are_better_than_the_labels(job, pairs, crossed):
    truth = job.pool.truth[job.pool.split.noisy]
    assert crossed.assessment.of_rest.shape == (500, 10)
    assert crossed.assessment.of_rest.sum(1) == pytest.approx(np.ones(500))
    assert (crossed.assessment.given_of_rest == job.pool.given[job.pool.split.noisy]).all()
    found = (crossed.assessment.of_rest.argmax(1) == truth).mean()
    assert found > 0.85 > 0.7 > (crossed.assessment.given_of_rest == truth).mean()
    checked = (crossed.assessment.of_pairs.argmax(1) == pairs.right).mean()
    assert checked == pytest.approx(found, abs=0.1), "pairs whose checks were not shown stand for the rest"


def test_a_curve_rises_with_the_checked_rows(crossed):
    assert [trial.n_trusted for trial in crossed.trials] == [30, 60, 80]
    assert [len(trial.rows) for trial in crossed.trials] == [90, 120, 120]
    assert crossed.trials[0].correct.mean() < crossed.trials[-1].correct.mean()


def test_the_same_seed_gives_the_same_models_whatever_was_drawn_before(job, pairs, crossed):
    torch.rand(7)
    again = cross_fit(job, pairs, 3)
    assert np.array_equal(again.assessment.of_rest, crossed.assessment.of_rest)
    assert np.array_equal(again.own, crossed.own)


def test_few_pairs_make_no_curve(job, pairs):
    few = pairs[np.arange(len(pairs)) < 60]
    assert cross_fit(job, few, 2).trials == ()


def test_a_method_with_phases_gets_the_epochs_it_needs():
    job = make_job(method=MethodConfig("glc"))
    left_out = job.pool.checked[:40]
    assert train_member(job, left_out, "some").opinions(job, left_out).shape == (3, 40, 10)
