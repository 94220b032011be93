"""The learning curve on a law that is known, and on real digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from ebomlc.labels.learning_curve import CurveTrial, curve_points, extrapolate
from ebomlc.labels.trust import rate_interval


def trial(n_trusted, right_share, n=1000):
    return CurveTrial(n_trusted, np.arange(n), np.arange(n) < round(right_share * n))


def test_points_are_counted():
    points = curve_points([trial(50, 0.6), trial(200, 0.8, n=100)])
    assert [(p.n_trusted, p.n, p.right) for p in points] == [
        (50, 1000, rate_interval(600, 1000)),
        (200, 100, rate_interval(80, 100)),
    ]


def test_a_curve_of_the_assumed_form_is_continued():
    trials = [trial(n, 1 - (0.1 + 2 / n**0.5)) for n in (25, 100, 400)]
    ahead = extrapolate(trials, 1000, 1600, seed=0)
    assert ahead.right.estimate == pytest.approx(1 - (0.1 + 2 / 40), abs=1e-3)
    assert ahead.right.low < ahead.right.estimate < ahead.right.high
    assert (ahead.n_trusted, ahead.n) == (1600, 0)


def test_more_checks_never_promise_less_nor_more_than_everything():
    falling = extrapolate([trial(50, 0.9), trial(200, 0.7)], 1000, 400, seed=0)
    assert falling.right.estimate == pytest.approx(0.8)
    steep = extrapolate([trial(50, 0.5), trial(200, 0.99)], 1000, 800, seed=0)
    assert steep.right.estimate == pytest.approx(0.995)
    assert steep.right.high <= 1


def test_the_same_seed_draws_the_same_interval():
    trials = [trial(n, 1 - 2 / n**0.5) for n in (25, 100)]
    first, second = (extrapolate(trials, 1000, 400, seed=5) for _ in range(2))
    assert first == second


def test_digits_say_what_twice_as_many_bring():
    images, right = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(right))
    images, right = images[order], right[order]

    def score(n, rows):
        return LogisticRegression(C=0.01, max_iter=500).fit(images[:n], right[:n]).predict(images[rows]) == right[rows]

    rows = np.arange(800, 1200)
    trials = [CurveTrial(n, np.arange(400), score(n, rows)) for n in (40, 80, 160)]
    ahead = extrapolate(trials, 400, 320, seed=0).right
    found = score(320, np.arange(1200, len(right))).mean()
    assert ahead.low - 0.03 <= found <= ahead.high + 0.03
    assert ahead.estimate > trials[-1].correct.mean() - 0.01
