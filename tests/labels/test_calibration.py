"""Pools of opinions on real digits, against an exhaustive fit, and the figures that say how good they are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ebomlc.labels.calibration import (
    Pool,
    auroc,
    fit_pool,
    fit_pools,
    fit_temperature,
    join_by_fold,
    make_folds,
    measure_reliability,
)
from ebomlc.labels.scores import calibration_error


def test_a_pool_multiplies_powers_of_opinions_and_favours_the_given_label():
    opinions = np.array([[[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]]])
    joined = Pool(np.array([2.0, 0.5]), 0.7).join(opinions, np.array([2]))
    plain = opinions[0] ** 2 * opinions[1] ** 0.5 * np.exp([0, 0, 0.7])
    assert joined == pytest.approx(plain / plain.sum())


def test_an_opinion_that_rules_a_class_out_can_be_overruled():
    joined = Pool(np.array([1.0, 1.0]), 0.0).join(np.array([[[0.0, 1.0]], [[1.0, 0.0]]]), None)
    assert joined == pytest.approx(np.array([[0.5, 0.5]]))


def test_no_other_weights_make_the_right_labels_likelier(digits):
    rows = np.arange(300)
    pairs = digits.pairs(rows)
    pool = fit_pool(digits.opinions[:, rows], pairs)

    def penalised(weights, bonus):
        joined = Pool(np.array(weights), bonus).join(digits.opinions[:, rows], pairs.given)
        pull = np.square(np.array([*weights, bonus]) - [0.5, 0.5, 0]).sum()
        return -np.log(joined[rows, pairs.right]).mean() + 0.01 * pull

    best = penalised(pool.weights, pool.bonus)
    for steps in product((-0.05, 0, 0.05), repeat=3):
        weights, bonus = np.maximum(pool.weights + steps[:2], 0), pool.bonus + steps[2]
        assert best <= penalised(weights, bonus) + 1e-9


def test_a_pool_mends_overconfidence_on_rows_it_has_not_seen(digits):
    seen, unseen = np.arange(300), np.arange(300, len(digits.right))
    pool = fit_pool(digits.opinions[:, seen], digits.pairs(seen))
    right, own = digits.right[unseen], digits.opinions[0, unseen]
    joined = pool.join(digits.opinions[:, unseen], digits.given[unseen])
    before, after = (calibration_error(p.max(1), p.argmax(1) == right) for p in (own, joined))
    assert before > 0.06
    assert after < 0.04
    each = np.arange(len(unseen))
    fine = digits.given[unseen] == right
    qualities = [roc_auc_score(fine, p[each, digits.given[unseen]]) for p in (own, joined)]
    assert qualities[1] >= qualities[0]


def test_a_temperature_changes_no_answer(digits):
    rows = np.arange(300)
    sure = digits.opinions[1, rows] ** 4
    sure /= sure.sum(1, keepdims=True)
    temperature = fit_temperature(sure, digits.right[rows])
    joined = temperature.join(sure[None], None)
    assert temperature.bonus == 0
    assert 0.15 < temperature.weights[0] < 0.9
    assert (joined.argmax(1) == sure.argmax(1)).all()


def test_no_row_has_a_say_in_its_own_pool(digits):
    rows = np.arange(200)
    pairs, opinions = digits.pairs(rows), digits.opinions[:, rows]
    fold = make_folds(pairs.right, 5, seed=0)
    joined = join_by_fold(fit_pools(opinions, pairs, fold), fold, opinions, pairs.given)
    lying = digits.pairs(rows)
    lying.right[fold == 2] = (lying.right[fold == 2] + 1) % 10
    other = join_by_fold(fit_pools(opinions, lying, fold), fold, opinions, pairs.given)
    assert np.array_equal(joined[fold == 2], other[fold == 2])
    assert not np.allclose(joined[fold != 2], other[fold != 2])


def test_folds_spread_every_class():
    classes = np.repeat([0, 1, 2], [50, 7, 13])
    fold = make_folds(classes, 5, seed=3)
    assert np.bincount(fold).tolist() == [14] * 5
    for label, least in ((0, 10), (1, 1), (2, 2)):
        counts = np.bincount(fold[classes == label], minlength=5)
        assert counts.min() >= least
        assert counts.max() <= least + 1
    assert np.array_equal(fold, make_folds(classes, 5, seed=3))
    assert not np.array_equal(fold, make_folds(classes, 5, seed=4))


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(20, size=300) / 20, rng.random(300) < 0.3
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert auroc(scores, np.ones(300, dtype=bool)) is None


def test_chance_error_is_about_that_of_exact_confidences():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1, 400)
    exact = measure_reliability(confidence, rng.random(400) < confidence)
    boasting = measure_reliability(confidence, rng.random(400) < confidence**3)
    assert exact.calibration_error == pytest.approx(exact.chance_error, abs=0.03)
    assert boasting.calibration_error > 3 * boasting.chance_error


def test_bars_hold_every_answer_and_a_true_share():
    rng = np.random.default_rng(2)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence
    bars = measure_reliability(confidence, correct).bars
    assert sum(bar.n for bar in bars) == 500
    for bar in bars:
        inside = (confidence > bar.low) & (confidence <= bar.high)
        assert (bar.n, bar.right) == (inside.sum(), pytest.approx(correct[inside].mean()))
        assert bar.right_low <= bar.right <= bar.right_high
        assert bar.low < bar.confidence <= bar.high
