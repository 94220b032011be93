"""Accuracies against right labels; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def class_figures(
    labels: LabelTable,
    class_names: Sequence[str],
    scored: IntArray,
    truth: IntArray,
    test: IntArray | None,
    predicted: IntArray | None,
) -> list[dict[str, Any]]:
    """What was found of each class, in the order of the classes.

    Parameters
    ----------
    labels : LabelTable
        Of all N rows.
    class_names : sequence of str, length K
        Class k's name.
    scored : int64 array
        Positions of the noisy rows whose right label is known.
    truth : int64 array, shape [N]
        Right labels; read at `scored` only.
    test, predicted : int64 arrays, shape [M], or None
        Right and predicted labels of the test rows.

    Returns
    -------
    list of dict
        ``name``; counts ``given``, ``suggested``, ``trusted`` and ``test`` of rows; shares in [0, 1] or None:
        ``suggested_right`` of the scored rows that are of this class, ``test_recall`` and ``test_precision``.
    """
    index = {name: k for k, name in enumerate(class_names)}
    n_classes = len(class_names)

    def count(classes: npt.NDArray[Any], chosen: npt.NDArray[Any]) -> IntArray:
        return np.bincount(classes[chosen], minlength=n_classes)

    given = np.array([index.get(name, n_classes) for name in labels.given_label])
    suggested = np.array([index[name] for name in labels.suggested_label])
    noisy = ~labels.is_trusted
    found = count(truth, scored[suggested[scored] == truth[scored]])
    counts = {
        "given": count(given, noisy & (given < n_classes)),
        "suggested": count(suggested, noisy),
        "trusted": count(suggested, labels.is_trusted),
    }
    shares = {"suggested_right": _shares(found, count(truth, scored))}
    if test is not None and predicted is not None:
        hits = count(test, predicted == test)
        counts["test"] = np.bincount(test, minlength=n_classes)
        shares["test_recall"] = _shares(hits, counts["test"])
        shares["test_precision"] = _shares(hits, np.bincount(predicted, minlength=n_classes))
    return [
        {"name": name, **{key: int(n[k]) for key, n in counts.items()}, **{key: s[k] for key, s in shares.items()}}
        for k, name in enumerate(class_names)
    ]


def _shares(hits: IntArray, totals: IntArray) -> list[float | None]:
    return [float(hit / total) if total else None for hit, total in zip(hits, totals, strict=True)]
