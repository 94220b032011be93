"""Which rows are shown, in which order, and what a filter lets through."""

from dataclasses import fields

import numpy as np
import pytest

from ebomlc.errors import InputError
from ebomlc.records import NO_LABEL, LabelTable
from ebomlc.review.rows import DECIDED, OPEN, SKIPPED, Filter, rows_to_review
from ebomlc.reviewed import read_labels

NAMES = ("a", "b", "c")


def table(**changed: list) -> LabelTable:
    columns = {
        "id": ["r0", "r1", "r2", "r3", "r4"],
        "given_label": ["a", "a", "b", None, "c"],
        "suggested_label": ["b", "b", "b", "a", "a"],
        "suggestion_confidence": [0.9, 0.6, 1.0, 0.7, 1.0],
        "label_quality": [0.05, 0.3, 1.0, np.nan, 0.0],
        "is_label_issue": [True, True, False, False, True],
        "predicted_label": ["b", "b", "b", "a", "a"],
        "predicted_confidence": [0.9] * 5,
        "is_trusted": [False, False, False, False, True],
        **changed,
    }
    kinds = {"suggestion_confidence": float, "label_quality": float, "predicted_confidence": float}
    kinds |= {"is_label_issue": bool, "is_trusted": bool}
    names = [f.name for f in fields(LabelTable) if f.name in columns]
    return LabelTable(**{name: np.array(columns[name], dtype=kinds.get(name, object)) for name in names})


def rows(**changed: list):
    return rows_to_review(table(**changed), NAMES, ["r3", "r0", "r2", "r1"])


def test_orders_of_rows_hold_no_trusted_one_and_suspects_are_the_doubted_worst_first():
    assert rows().suspects.tolist() == [0, 1, 3]
    assert rows().unsure.tolist() == [1, 3, 0, 2]
    assert rows().shuffled.tolist() == [3, 0, 2, 1]
    assert rows().given.tolist() == [0, 0, 1, NO_LABEL, 2]


def test_a_run_of_trusted_rows_alone_has_nothing_to_review():
    with pytest.raises(InputError, match="every row of the run is trusted"):
        rows(is_trusted=[True] * 5)


def test_a_filter_lets_through_what_it_says():
    standing = np.array([OPEN, DECIDED, OPEN, SKIPPED, OPEN], dtype=np.uint8)

    def passing(**wanted) -> list[int]:
        return np.flatnonzero(Filter(**wanted).passes(rows(), standing)).tolist()

    assert passing() == [0, 2, 4]
    assert passing(show="all", given=0) == [0, 1]
    assert passing(show="all", suggested=0) == [3, 4]
    assert passing(show="all", low=0.6, high=0.9) == [0, 1, 3]
    assert passing(show="decided") == [1]
    assert passing(show="skipped") == [3]


@pytest.mark.parametrize(("low", "high"), [(0.6, 0.5), (-0.1, 1), (0, 1.1), (float("nan"), 1)])
def test_limits_that_hold_nothing_are_refused(low, high):
    with pytest.raises(InputError, match="two numbers from 0 to 1"):
        Filter(low=low, high=high)


def test_an_unknown_standing_is_hinted_at():
    with pytest.raises(InputError, match="did you mean 'open'"):
        Filter(show="opn")


def test_the_orders_of_a_real_run(desk, run):
    labels, _ = read_labels(run)
    frame = labels.to_frame()
    doubted = frame[~frame.is_trusted & (frame.given_label != frame.suggested_label)]
    assert labels.id[desk.rows.suspects].tolist() == doubted.sort_values("label_quality", kind="stable").id.tolist()
    assert sorted(desk.rows.shuffled) == np.flatnonzero(~labels.is_trusted).tolist()
