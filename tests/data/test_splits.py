import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebomlc.data.splits import KEPT_PER_CLASS, draw_trusted, make_split, split_hash
from ebomlc.errors import InputError
from ebomlc.records import NO_LABEL, Split

SEEDS = st.integers(0, 2**40)
LABELS = st.lists(st.integers(NO_LABEL, 4), min_size=1, max_size=80).map(lambda labels: np.array(labels, np.int64))


def is_sorted(rows):
    return (np.diff(rows) > 0).all()


# --- roles of rows ----------------------------------------------------------------------------------------------------


@given(LABELS, st.floats(0, 0.5), SEEDS)
def test_every_row_has_one_role(right, fraction, seed):
    split = make_split(right, np.flatnonzero(right != NO_LABEL), fraction, seed)
    parts = list(split.arrays().values())
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(right)))
    assert all(is_sorted(part) for part in parts)
    np.testing.assert_array_equal(split.noisy, np.flatnonzero(right == NO_LABEL))


@given(LABELS, st.floats(0, 0.5), SEEDS)
def test_two_of_each_class_always_train(right, fraction, seed):
    trusted = np.flatnonzero(right != NO_LABEL)
    split = make_split(right, trusted, fraction, seed)
    for label in range(5):
        there = (right == label).sum()
        assert (right[split.trusted] == label).sum() >= min(there, KEPT_PER_CLASS)


@given(LABELS, st.floats(0, 0.5), SEEDS)
def test_as_many_are_held_out_as_asked_for_or_as_can_be(right, fraction, seed):
    trusted = np.flatnonzero(right != NO_LABEL)
    split = make_split(right, trusted, fraction, seed)
    counts = np.bincount(right[trusted], minlength=5)
    spare = (counts - KEPT_PER_CLASS).clip(0).sum()
    assert len(split.heldout) == min(round(fraction * len(trusted)), spare)


@given(LABELS, SEEDS)
def test_the_seed_decides_the_split(right, seed):
    trusted = np.flatnonzero(right != NO_LABEL)
    first, second = (make_split(right, trusted, 0.3, seed) for _ in range(2))
    assert split_hash(first) == split_hash(second)


def test_another_seed_holds_out_other_rows():
    right = np.repeat([0, 1, NO_LABEL], 100)
    hashes = {split_hash(make_split(right, np.arange(200), 0.3, seed)) for seed in range(20)}
    assert len(hashes) == 20


def test_held_out_rows_are_drawn_from_every_class_alike():
    right = np.repeat([0, 1], 100)
    held = sum((right[make_split(right, np.arange(200), 0.3, seed).heldout] == 0).sum() for seed in range(30))
    assert 0.45 < held / (30 * 60) < 0.55


def test_labels_of_noisy_rows_play_no_part():
    right = np.repeat([0, 1], 20)
    other = np.where(np.arange(40) % 2, right, 1 - right)  # odd rows are trusted
    splits = [make_split(labels, np.arange(1, 40, 2), 0.3, 0) for labels in (right, other)]
    assert split_hash(splits[0]) == split_hash(splits[1])


# --- the hash ---------------------------------------------------------------------------------------------------------

SPLIT = Split(np.array([0, 3]), np.array([1, 4]), np.array([2]))


def test_the_hash_is_the_same_on_every_machine():
    assert split_hash(SPLIT) == "fbfebd5190876e321bd979635fc687ab80dce810587444eeb7083ea1c84f19c0"
    assert split_hash(Split(*(part.astype(">i8") for part in SPLIT.arrays().values()))) == split_hash(SPLIT)


def test_the_hash_is_the_same_in_another_process():
    code = (
        "import numpy as np; from ebomlc.data.splits import *; from ebomlc.records import Split;"
        "print(split_hash(make_split(np.repeat([0, 1, -1], 9), np.arange(18), 0.3, 1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == split_hash(make_split(np.repeat([0, 1, -1], 9), np.arange(18), 0.3, 1))


@pytest.mark.parametrize(
    "other",
    [
        Split(np.array([0, 3]), np.array([2, 4]), np.array([1])),
        Split(np.array([0, 3, 1]), np.array([4]), np.array([2])),
        Split(np.array([1, 4]), np.array([0, 3]), np.array([2])),
    ],
)
def test_a_row_in_another_role_changes_the_hash(other):
    assert split_hash(other) != split_hash(SPLIT)


# --- drawing trusted rows ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.data(), SEEDS)
def test_as_many_rows_are_drawn_as_asked_for(labels, data, seed):
    truth = np.array(labels)
    candidates = np.sort(
        data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=2, unique=True).map(np.array), "candidates")
    )
    n = data.draw(st.integers(1, len(candidates) - 1), "n")
    drawn = draw_trusted(truth, candidates, n, seed)
    assert len(drawn) == n
    assert is_sorted(drawn)
    assert set(drawn) <= set(candidates)
    np.testing.assert_array_equal(draw_trusted(truth, candidates, n, seed), drawn)


def test_rows_are_drawn_in_proportion_to_their_classes():
    truth = np.repeat([0, 1, 2], [600, 300, 100])
    for seed in range(5):
        assert np.bincount(truth[draw_trusted(truth, np.arange(1000), 100, seed)]).tolist() == [60, 30, 10]


def test_more_rows_than_there_are_cannot_be_drawn():
    with pytest.raises(InputError, match="--n-trusted is 5, but only 5 rows have a known right label"):
        draw_trusted(np.arange(9) % 2, np.arange(5), 5, 0)
