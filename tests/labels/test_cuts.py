"""Cuts: counts by hand, exact intervals, and a promise that holds over many draws of real digits."""

from __future__ import annotations

import numpy as np
import pytest

from ebomlc.labels.cuts import MOST_CUTS, Cut, Suspects, choose_cut, find_cuts, suspects_of
from ebomlc.labels.pairs import CheckedPairs
from ebomlc.labels.trust import Interval, rate_interval


def make_pairs(given, right, weights=None):
    n = len(given)
    counted = np.ones(n) if weights is None else np.array(weights, dtype=float)
    return CheckedPairs(np.arange(n), np.array(given), np.array(right), counted, True, weights is not None)


def test_only_rows_with_another_suggestion_are_suspects():
    suspects = suspects_of(np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]]), np.array([0, 1, 0]))
    assert suspects.quality.tolist() == [0.6, 0.4, 0.1]
    assert suspects.is_doubtful.tolist() == [False, True, True]
    assert suspects.up_to(0.2).tolist() == [False, False, True]


def test_each_cut_counts_what_it_would_call_wrong():
    pairs = make_pairs([0, 0, 0, 1, 1], [1, 1, 0, 0, 1])
    doubtful = np.array([True, True, True, True, False])
    checked = Suspects(np.array([0.1, 0.2, 0.2, 0.4, 0.05]), doubtful, pairs.given)
    rest = Suspects(np.array([0.1, 0.15, 0.3, 0.01]), np.array([True, True, True, False]), np.zeros(4, dtype=int))
    points = find_cuts(pairs, checked, rest, 0.9).points
    assert [(one.quality, one.rows, one.n) for one in points] == [(0.1, 1, 1), (0.2, 2, 3), (0.4, 3, 4)]
    assert [one.precision for one in points] == [rate_interval(1, 1), rate_interval(2, 3), rate_interval(3, 4)]


def test_without_suspects_there_is_no_cut():
    pairs = make_pairs([0, 1], [0, 1])
    certain = Suspects(np.array([0.9, 0.9]), np.zeros(2, dtype=bool), pairs.given)
    found = find_cuts(pairs, certain, certain, 0.9)
    assert (found.points, found.chosen) == ((), None)


def test_a_draw_by_label_counts_by_weight():
    pairs = make_pairs([0] * 10 + [1] * 10, [1] * 10 + [0] * 5 + [1] * 5, [1.0] * 10 + [9.0] * 10)
    checked = Suspects(np.full(20, 0.2), np.ones(20, dtype=bool), pairs.given)
    rest_given = np.repeat([0, 1], [40, 360])
    rest = Suspects(np.full(400, 0.1), np.ones(400, dtype=bool), rest_given)
    (cut,) = find_cuts(pairs, checked, rest, 0.9).points
    assert cut.precision.estimate == pytest.approx((50 * 1.0 + 370 * 0.5) / 420)


def cut(quality, hits, n):
    return Cut(quality, 0, n, rate_interval(hits, n))


def test_the_loosest_cut_before_the_first_failure_is_chosen():
    points = [cut(0.1, 40, 40), cut(0.2, 60, 60), cut(0.3, 97, 100), cut(0.4, 120, 130), cut(0.5, 400, 410)]
    assert choose_cut(points, [0.97, 0.97, 0.95, 0.9, 0.8], 0.9) is points[2]


def test_luck_at_a_cut_that_should_fail_is_not_looked_at():
    """The confidences say that the second is the one to pass; it fails, so nothing looser is tried."""
    points = [cut(0.1, 5, 5), cut(0.2, 50, 60), cut(0.3, 100, 100)]
    assert choose_cut(points, [0.99, 0.99, 0.6], 0.9) is None
    assert choose_cut([], [], 0.9) is None


def test_the_promise_holds(digits):
    """In all but few draws the labels up to the chosen cut are wrong at least as often as was asked for."""
    said, wanted = digits.opinions[0], 0.9
    kept, chosen = 0, 0
    for seed in range(60):
        order = np.random.default_rng(seed).permutation(len(digits.right))
        rows, rest = order[:250], order[250:]
        checked, others = (suspects_of(said[some], digits.given[some]) for some in (rows, rest))
        best = find_cuts(digits.pairs(rows), checked, others, wanted).chosen
        if best is not None:
            called = others.up_to(best.quality)
            chosen += 1
            kept += (digits.given != digits.right)[rest][called].mean() >= wanted
            assert called.sum() == best.rows
    assert chosen >= 20
    assert kept >= chosen - 3


def test_many_suspects_are_looked_at_in_steps(digits):
    rows = np.arange(len(digits.right))
    suspects = suspects_of(digits.opinions[0], digits.given)
    points = find_cuts(digits.pairs(rows), suspects, suspects, 0.9).points
    assert 20 < len(points) <= MOST_CUTS
    assert [one.quality for one in points] == sorted(one.quality for one in points)
    assert points[-1].n == suspects.is_doubtful.sum()
    assert isinstance(points[0].precision, Interval)
