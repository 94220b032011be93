"""Accuracies against right labels; numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ebomlc.records import IntArray, LabelTable


def accuracy(predicted: IntArray, right: IntArray) -> float:
    """Share in [0, 1] of the rows that are predicted right."""
    return float((predicted == right).mean())


def balanced_accuracy(predicted: IntArray, right: IntArray) -> float:
    """Mean over the classes that occur in `right` of the share of their rows that are predicted right, in [0, 1]."""
    return float(np.mean([(predicted[right == k] == k).mean() for k in np.unique(right)]))


def label_accuracies(labels: LabelTable, rows: IntArray, truth: npt.NDArray[np.object_]) -> dict[str, float | None]:
    """Shares of some rows whose given, and whose suggested label is right; None without any rows.

    Parameters
    ----------
    labels : LabelTable
        Of all rows.
    rows : int64 array, shape [n]
        Positions to score.
    truth : object array of str, shape [n]
        Right labels of those rows.
    """
    if not len(rows):
        return {"given_label_accuracy": None, "suggested_label_accuracy": None}
    return {
        "given_label_accuracy": float((labels.given_label[rows] == truth).mean()),
        "suggested_label_accuracy": float((labels.suggested_label[rows] == truth).mean()),
    }
