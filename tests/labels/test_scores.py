"""Calibration error and Brier score against counting by hand and against scikit-learn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from ebomlc.labels.scores import CALIBRATION_BINS, LABEL_FIGURES, brier_score, calibration_error, label_accuracies
from ebomlc.records import LabelTable


def test_calibration_error_counts_bins_by_their_rows():
    confidence = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.95])
    correct = np.array([False, True, True, True, True, False])
    expected = 2 / 6 * abs(0.05 - 0.5) + 4 / 6 * abs(0.95 - 0.75)
    assert calibration_error(confidence, correct) == pytest.approx(expected)


def test_calibration_error_is_that_of_a_loop_over_bins():
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    correct = rng.random(500) < confidence**2
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert calibration_error(confidence, correct) == pytest.approx(expected)
    assert expected > 0.1


@pytest.mark.parametrize("edge", [0.0, 1.0, 1 / 15, 14 / 15])
def test_the_edges_belong_to_a_bin(edge):
    assert calibration_error(np.array([edge]), np.array([True])) == pytest.approx(1 - edge)


def test_brier_score_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    confidence = rng.random(200)
    correct = rng.random(200) < 0.7
    assert brier_score(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))


def table() -> LabelTable:
    given = np.array(["a", "b", "a", None], dtype=object)
    suggested = np.array(["a", "a", "b", "b"], dtype=object)
    number = np.array([0.9, 0.6, 0.8, 1.0])
    flag = np.array([False, False, False, True])
    return LabelTable(given, given, suggested, number, number, flag, suggested, number, flag)


def test_label_figures_look_at_the_asked_rows_only():
    figures = label_accuracies(table(), np.array([0, 1]), np.array(["a", "b"], dtype=object))
    assert tuple(figures) == LABEL_FIGURES
    assert figures["given_label_accuracy"] == 1.0
    assert figures["suggested_label_accuracy"] == 0.5
    assert figures["suggestion_brier"] == pytest.approx((0.1**2 + 0.6**2) / 2)
    assert figures["suggestion_calibration_error"] == pytest.approx((0.1 + 0.6) / 2)


def test_without_rows_there_are_no_figures():
    figures = label_accuracies(table(), np.array([], dtype=np.int64), np.array([], dtype=object))
    assert figures == dict.fromkeys(LABEL_FIGURES)
