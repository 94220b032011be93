"""Which checked rows count, and that a row without a given label can never be a pair."""

from __future__ import annotations

import numpy as np
import pytest

from ebomlc.labels.pairs import CheckedPairs, find_pairs
from ebomlc.records import NO_LABEL

NOBODY = np.nan


def find(provenance, weights=None, given=(0, 1, 2, 0), right=(0, 0, 2, 1)):
    n = len(provenance)
    weighted = np.full(n, NOBODY) if weights is None else np.array(weights, dtype=float)
    return find_pairs(np.array(given), np.array(right), np.array(provenance, dtype=object), weighted)


def test_rows_of_unknown_origin_count_while_none_is_random():
    pairs = find(["unknown", "unknown", "suspect", "unknown"])
    assert pairs.rows.tolist() == [0, 1, 3]
    assert pairs.wrong.tolist() == [False, True, True]
    assert not pairs.is_random


def test_random_rows_push_the_others_out():
    pairs = find(["unknown", "random", "suspect", "random"])
    assert pairs.rows.tolist() == [1, 3]
    assert pairs.is_random


def test_suspects_alone_are_no_pairs():
    assert len(find(["suspect"] * 4)) == 0


def test_a_draw_by_label_counts_rows_with_a_weight_only():
    pairs = find(["random"] * 4, weights=[2.0, 5.0, NOBODY, 2.0])
    assert pairs.is_stratified
    assert pairs.rows.tolist() == [0, 1, 3]
    assert pairs.weights.tolist() == [2, 5, 2]


def test_equal_weights_are_a_simple_draw():
    pairs = find(["random"] * 4, weights=[3.0] * 4)
    assert not pairs.is_stratified
    assert pairs.weights.tolist() == [1] * 4


def test_a_row_without_a_given_label_is_no_pair():
    pairs = find(["random"] * 4, given=(0, NO_LABEL, 2, NO_LABEL))
    assert pairs.rows.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"given": [NO_LABEL, 1]}, "both labels"),
        ({"right": [0, NO_LABEL]}, "both labels"),
        ({"weights": [0.0, 1.0]}, "above 0"),
        ({"right": [0]}, "lengths differ"),
    ],
)
def test_the_record_refuses_what_is_no_pair(change, message):
    parts = {"rows": [4, 7], "given": [0, 1], "right": [1, 1], "weights": [1.0, 1.0], **change}
    arrays = {name: np.array(values) for name, values in parts.items()}
    with pytest.raises(ValueError, match=message):
        CheckedPairs(**arrays, is_random=True, is_stratified=False)


def test_a_mask_picks_pairs():
    pairs = find(["random"] * 4)[np.array([True, False, False, True])]
    assert (pairs.rows.tolist(), pairs.given.tolist(), pairs.right.tolist()) == ([0, 3], [0, 0], [0, 1])
