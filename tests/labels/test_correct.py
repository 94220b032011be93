"""The label pass: one row per id, trusted rows as they were checked, names instead of numbers."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from ebomlc.labels import correct as room
from ebomlc.labels.correct import ask, correct, with_distributions
from ebomlc.models import MainModel
from ebomlc.records import NO_LABEL, LabelTable

NAMES = ("cat", "007", "NA")
COLUMNS = [
    "id",
    "given_label",
    "suggested_label",
    "suggestion_confidence",
    "label_quality",
    "is_label_issue",
    "predicted_label",
    "predicted_confidence",
    "is_trusted",
]


class Echo:
    """Predicts the class that the input names; suggests it with 0.6, the given label with 0.4."""

    def __init__(self) -> None:
        self.model = MainModel(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5)), 3, 3)
        with torch.no_grad():
            self.model.head.weight.copy_(5 * torch.eye(3))
            self.model.head.bias.zero_()

    def suggest(self, inputs, given):
        assert not self.model.training
        one_hot = torch.eye(3)
        return 0.6 * one_hot[inputs.argmax(1)] + 0.4 * one_hot[given]


def table(n=8, chunk=3, monkeypatch=None):
    monkeypatch.setattr(room, "CORRECTION_BATCH", chunk)
    named = np.arange(n) % 3
    inputs = np.eye(3, dtype=np.float32)[named]
    given = np.array([0, 0, 0, 0, NO_LABEL, 2, 1, 1])
    right = np.array([NO_LABEL, NO_LABEL, NO_LABEL, 2, 1, NO_LABEL, NO_LABEL, 1])
    ids = np.array([f"row/{k}" for k in range(n)], dtype=object)
    return correct(Echo(), inputs, given, right, ids, NAMES)


def test_columns_are_those_of_the_design(monkeypatch):
    assert [f.name for f in fields(LabelTable)] == COLUMNS
    assert list(table(monkeypatch=monkeypatch).to_frame().columns) == COLUMNS


def test_noisy_rows_get_the_suggestion(monkeypatch):
    frame = table(monkeypatch=monkeypatch).to_frame().set_index("id")
    same, other = frame.loc["row/0"], frame.loc["row/1"]
    assert (same.given_label, same.suggested_label, same.is_label_issue) == ("cat", "cat", False)
    assert same.suggestion_confidence == pytest.approx(1.0)
    assert (other.given_label, other.suggested_label, other.is_label_issue) == ("cat", "007", True)
    assert other.suggestion_confidence == pytest.approx(0.6)
    assert other.label_quality == pytest.approx(0.4)
    assert list(frame.predicted_label) == ["cat", "007", "NA"] * 2 + ["cat", "007"]


def test_trusted_rows_keep_what_was_checked(monkeypatch):
    frame = table(monkeypatch=monkeypatch).to_frame().set_index("id")
    wrong, bare, fine = frame.loc["row/3"], frame.loc["row/4"], frame.loc["row/7"]
    assert (wrong.given_label, wrong.suggested_label, wrong.is_label_issue) == ("cat", "NA", True)
    assert (wrong.label_quality, wrong.suggestion_confidence) == (0.0, 1.0)
    assert bare.given_label is None or bare.given_label != bare.given_label
    assert (bare.suggested_label, bare.is_label_issue) == ("007", False)
    assert np.isnan(bare.label_quality)
    assert (fine.label_quality, fine.is_label_issue) == (1.0, False)
    assert list(frame.index[frame.is_trusted]) == ["row/3", "row/4", "row/7"]


def test_chunks_make_no_difference(monkeypatch):
    first = table(chunk=3, monkeypatch=monkeypatch).to_frame()
    second = table(chunk=100, monkeypatch=monkeypatch).to_frame()
    assert first.equals(second)


def test_another_opinion_replaces_the_suggestions_of_its_rows_only(monkeypatch):
    before = table(monkeypatch=monkeypatch)
    rows, given = np.array([0, 5]), np.array([0, 2])
    after = with_distributions(before, rows, np.array([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]), given, NAMES)
    frame = after.to_frame()
    changed = frame.iloc[rows]
    assert changed["suggested_label"].tolist() == ["007", "NA"]
    assert changed["suggestion_confidence"].tolist() == [0.7, 0.6]
    assert changed["label_quality"].tolist() == [0.2, 0.6]
    assert changed["is_label_issue"].tolist() == [True, False]
    assert changed["predicted_label"].tolist() == before.predicted_label[rows].tolist()
    assert frame.drop(index=rows).equals(before.to_frame().drop(index=rows))
    assert before.suggested_label[0] == "cat", "the table that was there stays as it was"


def test_doubtful_rows_below_the_cut_wait_for_review(monkeypatch):
    labels = table(monkeypatch=monkeypatch)
    assert not labels.needs_review.any()
    nobody = replace(labels, is_label_issue=np.zeros(8, dtype=bool))
    assert np.flatnonzero(nobody.needs_review).tolist() == [1, 2, 6], "trusted rows and those without a label never do"


def test_a_method_is_asked_in_evaluation_mode(monkeypatch):
    method = Echo()
    method.model.train()
    answers = ask(method, np.eye(3, dtype=np.float32), np.array([0, 0, 1]))
    assert answers.suggested.sum(1) == pytest.approx(1)
    assert answers.suggested[1] == pytest.approx([0.4, 0.6, 0])
    assert answers.predicted.argmax(1).tolist() == [0, 1, 2]
