"""Assisted shares: right on average, honest in their width, narrower than the pairs alone; on real digits."""

from __future__ import annotations

import numpy as np
import pytest

from ebomlc.labels.noise_rate import (
    Assessment,
    assisted_share,
    class_shares,
    has_enough,
    noise_share,
    transition_shares,
)
from ebomlc.labels.trust import rate_interval

N_PAIRS, DRAWS = 200, 200


def draw(digits, seed):
    """Checked pairs at random, and what the models say of them and of all other rows."""
    order = np.random.default_rng(seed).permutation(len(digits.right))
    rows, rest = np.sort(order[:N_PAIRS]), np.sort(order[N_PAIRS:])
    said = digits.opinions[0]
    return digits.pairs(rows), Assessment(said[rows], said[rest], digits.given[rest])


def test_intervals_cover_and_are_narrower_than_those_of_the_pairs_alone(digits):
    truth = (digits.given != digits.right).mean()
    found = [noise_share(*draw(digits, seed)).interval for seed in range(DRAWS)]
    alone = [rate_interval(int(pairs.wrong.sum()), N_PAIRS, finite=len(digits.right))
             for pairs, _ in (draw(digits, seed) for seed in range(DRAWS))]  # fmt: skip
    covered = np.mean([one.low <= truth <= one.high for one in found])
    widths = [np.mean([one.high - one.low for one in some]) for some in (found, alone)]
    assert covered >= 0.92
    assert widths[0] < 0.8 * widths[1]
    assert np.mean([one.estimate for one in found]) == pytest.approx(truth, abs=0.004)


def test_guesses_that_are_wrong_throughout_neither_bias_nor_widen():
    rng = np.random.default_rng(0)
    wrong = rng.random(3000) < 0.3
    backwards = 1 - wrong * 0.9
    covered, widths, plain = [], [], []
    for _ in range(DRAWS):
        order = rng.permutation(3000)
        some, rest = order[:150], order[150:]
        one = assisted_share(wrong[some], backwards[some], np.ones(150), backwards[rest])
        alone = rate_interval(int(wrong[some].sum()), 150, finite=3000)
        covered.append(one.low <= wrong.mean() <= one.high)
        widths.append(one.high - one.low)
        plain.append(alone.high - alone.low)
    assert np.mean(covered) >= 0.92
    assert np.mean(widths) <= 1.02 * np.mean(plain)


def test_guesses_that_hardly_ever_fail_do_not_promise_too_much():
    """One row in a hundred surprises: 120 checked rows often show no such row, and must not be sure of it."""
    rng = np.random.default_rng(2)
    guess = (np.arange(5000) % 3 == 0).astype(float)
    wrong = (guess > 0) ^ (rng.random(5000) < 0.01)
    covered = []
    for _ in range(DRAWS):
        order = rng.permutation(5000)
        one = assisted_share(wrong[order[:120]], guess[order[:120]], np.ones(120), guess[order[120:]])
        covered.append(one.low <= wrong.mean() <= one.high)
    assert np.mean(covered) >= 0.95


def test_weights_undo_a_draw_by_label():
    """Label 0 is rare and always wrong, and half of the draw; unweighted, the share would be far too high."""
    rng = np.random.default_rng(1)
    given = np.where(np.arange(4000) < 400, 0, 1)
    wrong = (given == 0) | (rng.random(4000) < 0.1)
    expected = np.clip(wrong * 0.6 + 0.2 + rng.normal(0, 0.1, 4000), 0, 1)
    weights = np.where(given == 0, 4.0, 36.0)
    covered, plain = [], []
    for _ in range(DRAWS):
        some = np.concatenate([rng.choice(400, 100, replace=False), 400 + rng.choice(3600, 100, replace=False)])
        rest = np.setdiff1d(np.arange(4000), some)
        one = assisted_share(wrong[some], expected[some], weights[some], expected[rest])
        covered.append(one.low <= wrong.mean() <= one.high)
        plain.append(wrong[some].mean())
    assert np.mean(covered) >= 0.92
    assert min(plain) > wrong.mean() + 0.2


def test_checking_everything_leaves_no_doubt():
    wrong = np.array([True] * 30 + [False] * 40)
    one = assisted_share(wrong, np.linspace(0, 1, 70), np.ones(70), np.empty(0))
    assert one.low == pytest.approx(one.high)
    assert one.estimate == pytest.approx(30 / 70)


@pytest.mark.parametrize(("hits", "n", "enough"), [(10, 50, True), (9, 50, False), (41, 50, False), (20, 49, False)])
def test_few_pairs_get_no_assistance(hits, n, enough):
    assert has_enough(np.arange(n) < hits) is enough


def test_without_enough_wrong_pairs_there_is_no_assisted_rate(digits):
    pairs, assessment = draw(digits, 0)
    fine = ~pairs.wrong
    assert noise_share(pairs[fine], Assessment(assessment.of_pairs[fine], *parts(assessment))) is None


def parts(assessment):
    return assessment.of_rest, assessment.given_of_rest


def test_rows_of_the_matrix_are_those_of_the_pairs_where_these_are_few(digits):
    pairs, assessment = draw(digits, 3)
    matrix = transition_shares(pairs, assessment, 10)
    for given in range(10):
        chosen = pairs.given == given
        for right in range(10):
            share = matrix[given][right]
            exact = rate_interval(int((pairs.right[chosen] == right).sum()), int(chosen.sum()))
            assert (share.interval, share.n, share.is_assisted) == (exact, chosen.sum(), False)


def test_entries_with_many_pairs_are_assisted_and_true(digits):
    order = np.random.default_rng(0).permutation(len(digits.right))
    rows, rest = np.sort(order[:1200]), np.sort(order[1200:])
    said = digits.opinions[0]
    assessment = Assessment(said[rows], said[rest], digits.given[rest])
    matrix = transition_shares(digits.pairs(rows), assessment, 10)
    assert all(matrix[k][k].is_assisted for k in range(10))
    for k in range(10):
        truth = (digits.right[digits.given == k] == k).mean()
        assert matrix[k][k].interval.low - 0.02 <= truth <= matrix[k][k].interval.high + 0.02


def test_class_noise_is_what_the_diagonal_leaves(digits):
    pairs, assessment = draw(digits, 5)
    noise, matrix = class_shares(pairs, assessment, 10), transition_shares(pairs, None, 10)
    for label in range(10):
        kept = matrix[label][label].interval
        assert noise[label].interval.estimate == pytest.approx(1 - kept.estimate)
        assert (noise[label].interval.low, noise[label].interval.high) == pytest.approx((1 - kept.high, 1 - kept.low))
