"""Intervals: by brute force where the set is small, by simulation where it is not."""

import math
import subprocess
import sys
from dataclasses import astuple
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom
from sklearn.datasets import load_digits

from ebomlc.data.sampling import allocate
from ebomlc.labels.trust import (
    Interval,
    effective_rows,
    estimate_noise,
    expected_half_width,
    rate_interval,
    rows_needed,
    transition_counts,
    transition_interval,
    weighted_rate_interval,
)
from ebomlc.records import NO_LABEL

# --- a simple random sample -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("wrong", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (150, 300), (1, 5000)])
def test_the_limits_are_those_of_clopper_and_pearson(wrong, n, confidence):
    expected = binomtest(wrong, n).proportion_ci(confidence, method="exact")
    interval = rate_interval(wrong, n, confidence=confidence)
    assert interval.estimate == wrong / n
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [5, 30, 100])
def test_the_limits_hold_at_every_rate(n):
    intervals = [rate_interval(wrong, n) for wrong in range(n + 1)]
    for rate in np.linspace(0, 1, 101):
        holds = np.array([one.low <= rate <= one.high for one in intervals])
        assert binom.pmf(np.arange(n + 1), n, rate)[holds].sum() >= 0.95 - 1e-9


@pytest.mark.parametrize("finite", [1, 2, 7, 20])
def test_the_limits_of_a_small_set_hold_for_every_number_of_wrong_rows(finite):
    for n in range(1, finite + 1):
        intervals = [rate_interval(wrong, n, finite=finite) for wrong in range(n + 1)]
        for total in range(finite + 1):
            holds = np.array([one.low <= total / finite <= one.high for one in intervals])
            chances = hypergeom.pmf(np.arange(n + 1), finite, total, n)
            assert chances[holds].sum() >= 0.95 - 1e-9


def tails(wrong, n, finite, total):
    """Chances of so few and of so many wrong rows, in exact arithmetic."""
    ways = [
        Fraction(math.comb(total, k) * math.comb(finite - total, n - k), math.comb(finite, n)) for k in range(n + 1)
    ]
    return sum(ways[: wrong + 1]), sum(ways[wrong:])


@pytest.mark.parametrize(("finite", "n"), [(12, 5), (25, 10), (9, 9)])
def test_the_limits_of_a_small_set_are_as_near_as_can_be(finite, n):
    for wrong in range(n + 1):
        kept = [total for total in range(finite + 1) if min(tails(wrong, n, finite, total)) > Fraction(1, 40)]
        interval = rate_interval(wrong, n, finite=finite)
        assert (interval.low, interval.high) == (kept[0] / finite, kept[-1] / finite)


def test_a_set_that_was_checked_whole_is_known():
    assert rate_interval(3, 10, finite=10) == Interval(0.3, 0.3, 0.3)


def test_a_large_set_is_like_an_endless_one_and_a_smaller_one_is_known_better():
    endless, large, small = (rate_interval(30, 100, finite=finite) for finite in (None, 10**7, 150))
    assert (large.low, large.high) == pytest.approx((endless.low, endless.high), abs=1e-5)
    assert endless.low < small.low < 0.3 < small.high < endless.high


def test_without_a_checked_row_nothing_is_known():
    for interval in (rate_interval(0, 0), rate_interval(0, 0, finite=5)):
        assert math.isnan(interval.estimate)
        assert (interval.low, interval.high) == (0, 1)


@pytest.mark.parametrize(("wrong", "n", "finite"), [(-1, 3, None), (4, 3, None), (1, 3, 2)])
def test_counts_that_cannot_be_are_refused(wrong, n, finite):
    with pytest.raises(ValueError, match="cannot be"):
        rate_interval(wrong, n, finite=finite)


@pytest.mark.parametrize("confidence", [-0.5, 0, 1, 1.5, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match=f"confidence is {confidence}; it must lie between 0 and 1"):
        rate_interval(1, 3, confidence=confidence)


# --- a stratified sample ----------------------------------------------------------------------------------------------


def weighted(drawn, sizes, **options):
    """The interval from (wrong, checked) of each stratum."""
    wrong = np.concatenate([np.arange(n) < w for w, n in drawn])
    strata = np.repeat(np.arange(len(sizes)), [n for _, n in drawn])
    weights = np.array([size / max(n, 1) for size, (_, n) in zip(sizes, drawn, strict=True)])[strata]
    return weighted_rate_interval(wrong, weights, strata, dict(enumerate(sizes)), **options)


def coverage(sizes, drawn, rates, draws, seed):
    """Share of the draws whose interval holds the true rate."""
    generator = np.random.default_rng(seed)
    sizes, drawn = np.array(sizes), np.array(drawn)
    wrong = np.round(sizes * np.array(rates)).astype(int)
    true, above, below = wrong.sum() / sizes.sum(), 0, 0
    for found in generator.hypergeometric(wrong, sizes - wrong, drawn, size=(draws, len(sizes))):
        interval = weighted(list(zip(found, drawn, strict=True)), sizes.tolist())
        above += interval.low > true
        below += interval.high < true
    return 1 - (above + below) / draws


RARE = np.array([2000] + [8] * 99)
SETTINGS = {
    "same rate everywhere": ([1000] * 3, [30] * 3, lambda rate: [rate] * 3),
    "thirty of each of three unequal classes": ([5000, 1000, 200], [30] * 3, lambda rate: [rate, rate / 2, 0.5]),
    "a large class with few and a small one with many": ([9000, 1000], [30, 30], lambda rate: [rate, 0.5]),
    "all wrong rows where few were checked": ([500, 500], [10, 400], lambda rate: [rate, 0]),
    "three rows each of a hundred classes": ([50] * 100, [3] * 100, lambda rate: [rate] * 100),
    "two rows each of many rare classes": (RARE, allocate(RARE, 300), lambda rate: [rate] + [0.25] * 99),
}


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.35, 0.5])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_interval_of_a_stratified_draw_holds_the_true_rate(setting, rate):
    sizes, drawn, rates = SETTINGS[setting]
    assert coverage(sizes, drawn, rates(rate), draws=300, seed=7) >= 0.93


def test_one_stratum_is_a_simple_sample():
    assert astuple(weighted([(7, 30)], [1000])) == pytest.approx(astuple(rate_interval(7, 30)))


def test_equal_weights_are_a_simple_sample():
    assert astuple(weighted([(1, 10), (6, 20)], [100, 200])) == pytest.approx(astuple(rate_interval(7, 30)))


def test_the_estimate_weighs_each_stratum_by_its_size():
    interval = weighted([(3, 30), (15, 30)], [900, 100])
    assert interval.estimate == pytest.approx(0.9 * 0.1 + 0.1 * 0.5)
    assert interval.low < interval.estimate < interval.high


def test_a_stratum_that_was_checked_whole_is_known():
    interval = weighted([(1, 2), (5, 50)], [2, 98])
    rest = rate_interval(5, 50)
    assert interval.low == pytest.approx(0.01 + 0.98 * rest.low)
    assert interval.high == pytest.approx(0.01 + 0.98 * rest.high)
    assert astuple(weighted([(1, 2), (1, 3)], [2, 3])) == pytest.approx(astuple(Interval(0.4, 0.4, 0.4)))


def test_a_stratum_without_a_checked_row_may_hold_anything():
    interval = weighted([(6, 30), (0, 0)], [800, 200])
    seen = rate_interval(6, 30)
    assert interval.estimate == pytest.approx(0.2)
    assert (interval.low, interval.high) == pytest.approx((0.8 * seen.low, 0.8 * seen.high + 0.2))


def test_no_row_and_one_row_do_not_fail():
    nothing = weighted([(0, 0)], [9])
    assert math.isnan(nothing.estimate)
    assert (nothing.low, nothing.high) == (0, 1)
    assert astuple(weighted([(1, 1)], [9])) == pytest.approx(astuple(rate_interval(1, 1)))


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=6),
    st.sampled_from([0.8, 0.95]),
)
@settings(max_examples=100, deadline=None)
def test_limits_are_shares_around_the_estimate(strata, confidence):
    drawn = [(min(a, b), max(a, b)) for a, b, _ in strata]
    sizes = [max(a, b, 1) + more for a, b, more in strata]
    interval = weighted(drawn, sizes, confidence=confidence)
    assert 0 <= interval.low <= interval.high <= 1
    if any(n for _, n in drawn):
        assert interval.low - 1e-9 <= interval.estimate <= interval.high + 1e-9


@pytest.mark.parametrize(
    ("weights", "strata", "sizes", "message"),
    [
        ([1.0], ["a", "a"], {"a": 5}, "2 rows, but 1 weights and 2 strata"),
        ([1.0, 0.0], ["a", "a"], {"a": 5}, "above 0"),
        ([1.0, 1.0], ["a", "b"], {"a": 5}, "stratum 'b' has no size"),
        ([1.0, 1.0], ["a", "a"], {"a": 1}, "more rows were checked"),
    ],
)
def test_a_draw_that_cannot_be_is_refused(weights, strata, sizes, message):
    with pytest.raises(ValueError, match=message):
        weighted_rate_interval(np.array([True, False]), np.array(weights), np.array(strata, dtype=object), sizes)


# --- what n buys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("n", "finite"), [(50, None), (300, None), (300, 900), (300, 100_000)])
def test_the_expected_width_is_that_of_the_intervals(n, finite, rate):
    counts = np.arange(n + 1)
    chances = binom.pmf(counts, n, rate) if finite is None else hypergeom.pmf(counts, finite, round(rate * finite), n)
    likely = counts[chances > 1e-4]
    intervals = [rate_interval(int(wrong), n, finite=finite) for wrong in likely]
    mean = sum(chances[likely] * [(one.high - one.low) / 2 for one in intervals])
    assert expected_half_width(n, rate, finite) == pytest.approx(mean, rel=0.05)


def test_known_widths():
    assert expected_half_width(300, 0.5) == pytest.approx(0.058, abs=5e-4)
    assert expected_half_width(300, 0.2) == pytest.approx(0.0468, abs=5e-4)
    assert expected_half_width(40, 0.5, finite=40) == 0
    assert expected_half_width(1, 0.5, finite=1) == 0
    # a single row tells the same of two rows as of an endless set: it is right or wrong
    assert expected_half_width(1, 0.5, finite=2) == expected_half_width(1, 0.5)
    # among 101 rows of which 36 are checked, the errors of an endless set shrink by sqrt((101 - 36) / (101 - 1))
    assert expected_half_width(36, 0.5, finite=101) == pytest.approx(expected_half_width(36, 0.5) * math.sqrt(0.65))
    # where every label is wrong, the upper limit is 1 and the lower one (1 - confidence) / 2 to the power of 1 / n
    assert expected_half_width(30, 1.0) == pytest.approx((1 - 0.025 ** (1 / 30)) / 2)
    assert expected_half_width(30, 0.0, confidence=0.8) == pytest.approx((1 - 0.1 ** (1 / 30)) / 2)


@pytest.mark.parametrize("finite", [None, 2000])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("half_width", [0.3, 0.1, 0.04])
def test_the_fewest_rows_that_are_enough(half_width, rate, finite):
    n = rows_needed(half_width, rate, finite)
    assert expected_half_width(n, rate, finite) <= half_width
    assert n == 1 or expected_half_width(n - 1, rate, finite) > half_width


def test_more_confidence_needs_more_rows():
    """With every label wrong, n rows give +- (1 - tail ** (1 / n)) / 2."""
    for confidence in (0.5, 0.99):
        n = math.log((1 - confidence) / 2) / math.log(1 - 2 * 0.1)
        assert rows_needed(0.1, 1.0, confidence=confidence) == math.ceil(n)


def test_more_rows_than_there_are_are_never_needed():
    assert rows_needed(1e-6, finite=70) == 70
    assert rows_needed(0.5) == 1


@pytest.mark.parametrize(("n", "rate", "finite"), [(0, 0.5, None), (5, 1.5, None), (5, 0.5, 4)])
def test_widths_that_cannot_be_are_refused(n, rate, finite):
    with pytest.raises(ValueError, match="cannot be"):
        expected_half_width(n, rate, finite)


def test_no_number_of_rows_leaves_no_doubt():
    with pytest.raises(ValueError, match="above 0"):
        rows_needed(0)


def test_unequal_weights_tell_less():
    assert effective_rows(np.full(30, 4.0)) == 30
    assert effective_rows(np.array([1.0, 1.0, 2.0])) == 2


# --- transition matrix ------------------------------------------------------------------------------------------------


def test_pairs_are_counted_by_true_and_given_label():
    given_labels = np.array([0, 1, 1, 2, NO_LABEL, 0])
    right = np.array([0, 0, 0, 1, 1, NO_LABEL])
    counts = transition_counts(given_labels, right, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_no_pairs_are_no_counts():
    assert transition_counts(np.array([], np.int64), np.array([], np.int64), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("given_labels", "right", "message"), [([3], [0], "class indices"), ([0, 1], [0], "2 given")])
def test_pairs_that_cannot_be_are_refused(given_labels, right, message):
    with pytest.raises(ValueError, match=message):
        transition_counts(np.array(given_labels), np.array(right), 3)


def test_each_entry_of_the_transition_matrix_has_its_own_interval():
    found = transition_interval(np.array([[8, 2, 0], [1, 5, 4], [0, 0, 0]]))
    np.testing.assert_allclose(found.estimate[:2], [[0.8, 0.2, 0], [0.1, 0.5, 0.4]])
    assert np.isnan(found.estimate[2]).all()
    assert found.interval.shape == (3, 3, 2)
    for k, row in enumerate(([8, 2, 0], [1, 5, 4])):
        for j, count in enumerate(row):
            expected = rate_interval(count, 10)
            assert tuple(found.interval[k, j]) == pytest.approx((expected.low, expected.high))
    assert found.interval[2].tolist() == [[0, 1]] * 3


def test_a_single_pair_of_a_class_is_an_estimate_with_a_wide_interval():
    """By hand: of one row, the limits of 1 in 1 are tail and 1, those of 0 in 1 are 0 and 1 - tail."""
    found = transition_interval(np.array([[1, 0], [0, 1]]), confidence=0.9)
    assert found.estimate.tolist() == [[1, 0], [0, 1]]
    np.testing.assert_allclose(found.interval, [[[0.05, 1], [0, 0.95]], [[0, 0.95], [0.05, 1]]])


# --- what it needs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ["trust", "verdict"])
def test_neither_torch_nor_pandas_is_needed(room):
    """The verdict imports all the others."""
    code = f"import sys, ebomlc.labels.{room}; assert not {{'torch', 'pandas'}} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- of a whole set ---------------------------------------------------------------------------------------------------


SIZES = np.bincount(load_digits().target)


def labels_of_a_set():
    """Digits of which every tenth given label is wrong, in class 3 every second; nobody has looked at any."""
    right = load_digits().target.astype(np.int64)
    given = right.copy()
    wrong = (np.arange(len(right)) % 10 == 0) | ((right == 3) & (np.arange(len(right)) % 2 == 0))
    given[wrong] = (right[wrong] + 1) % 10
    nothing = np.full(len(right), None, dtype=object)
    return given, right, nothing, np.full(len(right), np.nan)


def seen(right, rows):
    known = np.full(len(right), NO_LABEL)
    known[rows] = right[rows]
    return known


def test_random_rows_tell_the_noise_rate():
    given, right, provenance, weights = labels_of_a_set()
    rows = np.random.default_rng(0).permutation(len(right))[:200]
    provenance[rows], weights[rows] = "random", len(right) / 200
    found = estimate_noise(given, seen(right, rows), provenance, weights, SIZES)
    assert found is not None
    assert (found.n, found.is_random, found.is_stratified) == (200, True, False)
    assert found.interval == rate_interval(int((given[rows] != right[rows]).sum()), 200)
    assert found.interval.low < (given != right).mean() < found.interval.high


def test_suspects_never_count_and_unknown_rows_only_where_none_is_random():
    given, right, provenance, weights = labels_of_a_set()
    suspects, unknown, random = np.flatnonzero(given != right)[:50], np.arange(1, 101), np.arange(200, 260)
    provenance[unknown], provenance[suspects] = "unknown", "suspect"
    found = estimate_noise(given, seen(right, [*unknown, *suspects]), provenance, weights, SIZES)
    assert found is not None
    clean = np.setdiff1d(unknown, suspects)
    assert (found.n, found.is_random) == (len(clean), False)
    provenance[random] = "random"
    again = estimate_noise(given, seen(right, [*unknown, *suspects, *random]), provenance, weights, SIZES)
    assert again is not None
    assert (again.n, again.is_random) == (60, True)
    provenance[provenance != "suspect"] = None
    assert estimate_noise(given, seen(right, suspects), provenance, weights, SIZES) is None


def test_rows_without_a_given_label_tell_nothing():
    _, right, provenance, weights = labels_of_a_set()
    provenance[:] = "random"
    assert estimate_noise(np.full(len(right), NO_LABEL), right, provenance, weights, SIZES) is None


def test_a_draw_by_class_is_weighted_back():
    """Label 4 is drawn five times as densely as the others, and is the most often wrong."""
    truth, estimates, unweighted, held = 0.0, [], [], 0
    for seed in range(50):
        given, right, provenance, weights = labels_of_a_set()
        rng, drawn = np.random.default_rng(seed), []
        for label in range(10):
            members = np.flatnonzero(given == label)
            chosen = rng.permutation(members)[: 90 if label == 4 else 18]
            weights[chosen] = len(members) / len(chosen)
            drawn.extend(chosen)
        rows = np.sort(drawn)
        provenance[rows] = "random"
        sizes = {label: int((given == label).sum()) for label in range(10)}
        weights[0] = np.nan  # one row whose weight got lost does not turn the others into a simple draw
        found = estimate_noise(given, seen(right, rows), provenance, weights, np.array([*sizes.values()]))
        assert found is not None
        assert (found.n, found.is_random, found.is_stratified) == (len(rows) - (0 in rows), True, True)
        rows = rows[rows != 0]
        assert found.interval == weighted_rate_interval(given[rows] != right[rows], weights[rows], given[rows], sizes)
        truth = (given != right).mean()
        held += found.interval.low <= truth <= found.interval.high
        estimates.append(found.interval.estimate)
        unweighted.append((given[rows] != right[rows]).mean())
    assert abs(np.mean(estimates) - truth) < 0.01 < np.mean(unweighted) - truth
    assert held >= 47
