"""Draws to be checked: at random, in a random order, and with weights that make shares unbiased."""

import csv
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.datasets import load_digits

from ebomlc.data.sampling import MIN_PER_CLASS, WHOLE, allocate, draw_rows
from ebomlc.errors import InputError

LABELS = np.array(["cat"] * 60 + ["dog"] * 30 + ["007"] * 9 + ["None"], dtype=object)
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)


def labels_of(sizes):
    return np.repeat(np.array([f"class {k}" for k in range(len(sizes))], dtype=object), sizes)


# --- a simple draw ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 100), st.integers(0, 2**40))
def test_rows_are_drawn_once_each(n, seed):
    drawn = draw_rows(LABELS, n, stratify=False, seed=seed)
    assert drawn.rows.dtype == np.int64
    assert len(set(drawn.rows.tolist())) == n
    assert set(drawn.rows.tolist()) <= set(range(100))
    np.testing.assert_allclose(drawn.weights, 100 / n)
    assert set(drawn.strata) == {WHOLE}
    assert drawn.sizes == {WHOLE: 100}


@pytest.mark.parametrize("place", [0, 4, 9])
def test_every_row_is_as_likely_in_every_place(place):
    found = [draw_rows(LABELS[:20], 10, stratify=False, seed=seed).rows[place] for seed in range(2000)]
    assert chisquare(np.bincount(found, minlength=20)).pvalue > 0.001


@pytest.mark.parametrize("stratify", [False, True])
def test_the_seed_decides_the_draw(stratify):
    first, again, other = (draw_rows(LABELS, 30, stratify=stratify, seed=seed).rows for seed in (5, 5, 6))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


# --- a stratified draw ------------------------------------------------------------------------------------------------


@given(SIZES, st.data())
def test_every_class_has_its_rows(sizes, data):
    n = data.draw(st.integers(len(sizes), sum(sizes)))
    taken = allocate(np.array(sizes), n)
    floor = np.minimum(sizes, MIN_PER_CLASS)
    assert taken.sum() == n
    assert (taken <= sizes).all()
    assert (taken >= (floor if floor.sum() <= n else 1)).all()


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data())
def test_no_other_allocation_has_a_lighter_heaviest_row(sizes, data):
    n = data.draw(st.integers(int(np.minimum(sizes, MIN_PER_CLASS).sum()), sum(sizes)))
    choices = np.stack(np.meshgrid(*(range(min(2, size), size + 1) for size in sizes)), -1).reshape(-1, len(sizes))
    best = min((np.array(sizes) / taken).max() for taken in choices if taken.sum() == n)
    assert (np.array(sizes) / allocate(np.array(sizes), n)).max() == best


def test_classes_are_drawn_in_proportion():
    assert allocate(np.array([6000, 3000, 1000]), 100).tolist() == [60, 30, 10]
    digits = np.bincount(load_digits().target)
    np.testing.assert_allclose(allocate(digits, 300), 300 * digits / digits.sum(), atol=1)


@given(SIZES, st.data(), st.integers(0, 2**40))
def test_a_stratified_draw_is_what_was_allocated(sizes, data, seed):
    labels = labels_of(sizes)
    n = data.draw(st.integers(len(sizes), sum(sizes)))
    drawn = draw_rows(labels, n, stratify=True, seed=seed)
    assert len(set(drawn.rows.tolist())) == n
    assert drawn.strata.tolist() == labels[drawn.rows].tolist()
    assert drawn.sizes == Counter(labels)
    counts = Counter(drawn.strata)
    assert [counts[f"class {k}"] for k in range(len(sizes))] == allocate(np.array(sizes), n).tolist()
    np.testing.assert_allclose(drawn.weights, [drawn.sizes[name] / counts[name] for name in drawn.strata])
    assert drawn.weights.sum() == pytest.approx(len(labels))


@given(SIZES, st.data(), st.integers(0, 2**40))
def test_every_beginning_holds_the_classes_in_proportion(sizes, data, seed):
    n = data.draw(st.integers(len(sizes), sum(sizes)))
    strata = draw_rows(labels_of(sizes), n, stratify=True, seed=seed).strata
    for name, count in Counter(strata).items():
        steps = np.flatnonzero(strata == name)
        # the j-th of a class stands where the share j / count of all rows is through, up to one row of each class
        assert (np.abs(steps - n * (np.arange(count) + 0.5) / count) <= 0.5 * n / count + len(sizes)).all()


@pytest.mark.parametrize("beginning", [25, 100])
def test_the_weighted_share_is_unbiased(beginning):
    """Whoever checks all rows, or only the first quarter of them, estimates the true share of wrong labels."""
    sizes = np.array([800, 120, 60, 20])
    labels, wrong = (
        labels_of(sizes),
        np.concatenate([np.arange(size) % every == 0 for size, every in zip(sizes, (20, 4, 2, 1), strict=True)]),
    )
    shares = []
    for seed in range(1500):
        drawn = draw_rows(labels, 100, stratify=True, seed=seed)
        rows, weights = drawn.rows[:beginning], drawn.weights[:beginning]
        shares.append((weights * wrong[rows]).sum() / len(labels) * 100 / beginning)
    error = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - wrong.mean()) < 3 * error
    assert error < 0.002


def test_a_stratified_draw_of_the_news(hausa):
    with (hausa / "noisy.csv").open(encoding="utf-8", newline="") as file:
        labels = np.array([row["label"] for row in csv.DictReader(file)], dtype=object)
    drawn = draw_rows(labels, 300, stratify=True, seed=0)
    counts = Counter(drawn.strata)
    assert set(counts) == set(labels)
    for name, size in drawn.sizes.items():
        assert counts[name] == pytest.approx(300 * size / len(labels), abs=2)


# --- draws that cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "stratify", "message"),
    [
        (0, False, "-n is 0; ask for at least one row"),
        (-3, True, "-n is -3"),
        (101, False, "only 100 rows to draw from"),
        (3, True, "-n is 3, but the labels name 4 classes"),
    ],
)
def test_a_draw_that_cannot_be_says_why(n, stratify, message):
    with pytest.raises(InputError, match=message):
        draw_rows(LABELS, n, stratify=stratify, seed=0)
