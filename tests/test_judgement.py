"""What a run says of its labels, on real digits: with checked pairs, with watched rows, with next to nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import ebomlc.judgement as room
from ebomlc.config import DataConfig, MethodConfig, RunConfig, TrainingConfig, TrustConfig
from ebomlc.errors import TrainingDivergedError
from ebomlc.judgement import judge
from ebomlc.labels.correct import correct
from ebomlc.preparation import Given, prepare
from ebomlc.training import engine
from ebomlc.training.trackers import NullTracker


def train(*, method="ebomlc", trust=None, epochs=10, **data):
    chosen = DataConfig("digits", **{"noise": "flip:0.4", "n_trusted": 200, "pairs": True, "n_noisy": 600} | data)
    training = TrainingConfig(epochs=epochs, device="cpu")
    config = RunConfig(chosen, method=MethodConfig(method), training=training, trust=trust or TrustConfig())
    job = prepare(config, Given(), None)
    trained = engine.fit(job.method, job.loader, job.heldout, job.config.training, NullTracker(), quiet=True)
    engine.restore(job.method, trained.chosen)
    return job


def own_labels(job):
    pool = job.pool
    return correct(job.method, job.encoded, pool.given, pool.right, pool.ids, pool.class_names)


@pytest.fixture(scope="module")
def job():
    return train(trust=TrustConfig(folds=3))


@pytest.fixture(scope="module")
def judged(job):
    return judge(job)


def test_the_label_table_is_that_of_the_joined_models(job, judged):
    labels, own = judged.labels, own_labels(job)
    noisy, trusted = job.pool.split.noisy, job.pool.checked
    names = np.array(job.pool.class_names, dtype=object)
    right = names[job.pool.truth[noisy]]
    found = (labels.suggested_label[noisy] == right).mean()
    assert found > 0.93
    assert found >= (own.suggested_label[noisy] == right).mean() - 0.03, "short trainings on two thirds of the checks"
    assert (labels.given_label == own.given_label).all(), "the given label is never overwritten"
    assert (labels.predicted_label == own.predicted_label).all()
    assert (labels.suggested_label[trusted] == names[job.pool.right[trusted]]).all()
    assert (labels.label_quality[trusted] == own.label_quality[trusted]).all()


def test_confidences_mean_what_they_say(job, judged):
    calibration = judged.verdict.calibration
    assert (calibration.target, calibration.n) == ("given", 200)
    assert calibration.after.brier < calibration.before.brier
    assert calibration.quality_after.auroc >= calibration.quality_before.auroc
    assert calibration.after.calibration_error < 2 * calibration.after.chance_error


def test_rows_below_the_cut_are_issues_and_the_other_doubtful_ones_wait(job, judged):
    labels, verdict = judged.labels, judged.verdict
    noisy = job.pool.split.noisy
    doubtful = (labels.suggested_label != labels.given_label)[noisy]
    quality = labels.label_quality[noisy]
    highest = -1 if verdict.cuts.chosen is None else verdict.cuts.chosen.quality
    assert (labels.is_label_issue[noisy] == (doubtful & (quality <= highest))).all()
    assert (labels.needs_review[noisy] == (doubtful & (quality > highest))).all()
    assert verdict.n_issues + verdict.n_review == doubtful.sum() > 100


def test_the_promised_precision_is_kept(job, judged):
    noisy = job.pool.split.noisy
    issues = judged.labels.is_label_issue[noisy]
    wrong = (job.pool.given != job.pool.truth)[noisy]
    assert issues.sum() > 50, "digits are easy: a cut is found"
    assert wrong[issues].mean() >= 0.9


def test_the_noise_rate_is_narrower_than_that_of_the_pairs_and_true(job, judged):
    verdict = judged.verdict
    share, alone = verdict.noise.interval, verdict.noise_of_pairs.interval
    assert share.low <= (job.pool.given != job.pool.truth).mean() <= share.high
    assert share.high - share.low < 0.8 * (alone.high - alone.low)


def test_the_verdict_can_be_written(judged):
    text = json.dumps(judged.verdict.to_dict(), allow_nan=False)
    assert json.loads(text)["basis"]["folds"] == 3
    assert json.loads(text)["learning_curve"]["twice"]["n_trusted"] == 400


def test_without_folds_watched_pairs_temper_the_suggestions_and_change_none():
    job = train(trust=TrustConfig(folds=0), n_trusted=300, heldout_fraction=0.3)
    judged, own = judge(job), own_labels(job)
    labels, verdict = judged.labels, judged.verdict
    assert (verdict.folds, verdict.calibration.target, verdict.calibration.n) == (0, "given", 90)
    assert "only watched" in verdict.reason
    assert (labels.suggested_label == own.suggested_label).all()
    assert not np.allclose(labels.suggestion_confidence, own.suggestion_confidence)
    assert verdict.noise is None
    assert verdict.noise_of_pairs.n == 300, "for the rate every pair counts, trained on or not"
    assert verdict.calibration.after.brier <= verdict.calibration.before.brier


def test_without_given_labels_only_the_prediction_is_calibrated():
    job = train(pairs=False, n_trusted=300, heldout_fraction=0.3)
    judged, own = judge(job), own_labels(job)
    labels, verdict = judged.labels, judged.verdict
    assert verdict.calibration.target == "input"
    assert verdict.cuts is None
    assert verdict.noise_of_pairs is None
    assert (labels.suggestion_confidence == own.suggestion_confidence).all()
    assert (labels.is_label_issue == own.is_label_issue).all()
    assert (labels.predicted_label == own.predicted_label).all()
    assert not np.allclose(labels.predicted_confidence, own.predicted_confidence)
    assert any("0 trusted rows say what a label was before the check" in line for line in verdict.sentences())


def test_with_few_pairs_nothing_is_calibrated_and_that_is_said():
    job = train(n_trusted=40, epochs=2)
    judged, own = judge(job), own_labels(job)
    assert judged.verdict.calibration is None
    assert judged.labels.to_frame().equals(own.to_frame())
    assert any("40 trusted rows" in line and "50 are needed" in line for line in judged.verdict.sentences())


def test_suspects_never_enter(job):
    provenance = job.pool.provenance.copy()
    provenance[job.pool.checked[:170]] = "suspect"
    some = replace(job, pool=replace(job.pool, provenance=provenance))
    verdict = judge(some).verdict
    assert (len(verdict.pairs), verdict.n_suspects, verdict.noise_of_pairs.n) == (30, 170, 30)
    assert verdict.calibration is None


def test_a_method_that_sees_every_right_label_is_not_calibrated():
    verdict = judge(train(method="oracle", epochs=2)).verdict
    assert verdict.folds == 0
    assert "shown every right label" in verdict.reason


def test_a_training_that_diverges_costs_the_calibration_only(job, monkeypatch):
    def diverge(*_):
        raise TrainingDivergedError("loss is NaN")

    monkeypatch.setattr(room, "cross_fit", diverge)
    judged = judge(job)
    assert judged.verdict.calibration is None
    assert "diverged" in judged.verdict.reason
    assert judged.labels.to_frame().equals(own_labels(job).to_frame())


def test_what_takes_long_is_announced(job, monkeypatch):
    lines = []
    judge(job, lines.append)
    assert lines == ["calibrating on 200 checked rows: short trainings that are not shown a part of them"]
