import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from ebomlc.data.content import count_overlap, row_digests
from ebomlc.data.inputs import Inputs, table_of_numbers

IMAGES = load_digits().images[:50].astype(np.uint8)[:, None]


def as_kind(kind, rows):
    rows = np.asarray(rows)
    if kind == "images":
        return Inputs("images", IMAGES[rows])
    if kind == "vectors":
        return Inputs("vectors", IMAGES[rows].reshape(len(rows), -1).astype(np.float32))
    if kind == "numbers":
        return table_of_numbers(IMAGES[rows].reshape(len(rows), -1), tuple(f"x{k}" for k in range(64)))
    frame = pd.DataFrame({"text": [f"row {row}" for row in rows], "kind": ["a", None][0]})
    return Inputs("table", frame, {"text": "text", "kind": "category"})


@pytest.mark.parametrize("kind", ["images", "vectors", "numbers", "texts"])
def test_equal_rows_and_only_they_have_equal_digests(kind):
    rows = [0, 1, 2, 1, 40, 0]
    digests = row_digests(as_kind(kind, rows))
    for row, one in enumerate(digests):
        for other_row, other in enumerate(digests):
            assert (one == other) == (rows[row] == rows[other_row])
    np.testing.assert_array_equal(row_digests(as_kind(kind, [40, 2])), digests[[4, 2]])


def test_an_empty_cell_is_like_an_empty_cell_and_unlike_nought():
    values = np.array([[np.nan, 1], [np.nan, 1], [0, 1]])
    digests = row_digests(table_of_numbers(values, ("x", "y")))
    assert digests[0] == digests[1] != digests[2]


def test_overlap_counts_each_row_that_has_a_twin():
    training = row_digests(as_kind("images", [0, 1, 0, 2, 3, 0, 3]))
    labels = np.array([5, 1, 5, 1, 1, 5, 2])
    is_trusted = np.array([0, 1, 1, 0, 0, 0, 1], bool)
    overlap = count_overlap(training, labels, is_trusted, row_digests(as_kind("images", [3, 9, 3, 8])), "images")
    assert (overlap.within, overlap.disagreeing, overlap.trusted, overlap.test) == (5, 2, 2, 2)
    assert overlap.identifying


def test_equal_rows_mean_nothing_in_a_table_where_they_are_common():
    few = table_of_numbers(np.arange(40)[:, None] % 4, ("x",))
    many = table_of_numbers(np.arange(40)[:, None], ("x",))
    labels, nobody = np.zeros(40, np.int64), np.zeros(40, bool)
    assert not count_overlap(row_digests(few), labels, nobody, None, "table").identifying
    assert count_overlap(row_digests(many), labels, nobody, None, "table").identifying


def test_copies_between_noisy_and_trusted_rows_are_copies():
    twice = table_of_numbers(np.arange(40)[:, None] % 20, ("x",))
    half = np.arange(40) < 20
    overlap = count_overlap(row_digests(twice), np.zeros(40, np.int64), half, None, "table")
    assert (overlap.identifying, overlap.trusted) == (True, 20)
