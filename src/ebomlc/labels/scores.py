"""Accuracies against right labels; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.records import FloatArray, IntArray, LabelTable

CALIBRATION_BINS = 15

LABEL_FIGURES = (
    "given_label_accuracy",
    "suggested_label_accuracy",
    "suggestion_calibration_error",
    "suggestion_brier",
)


def accuracy(predicted: IntArray, right: IntArray) -> float:
    """Share in [0, 1] of the rows that are predicted right."""
    return float((predicted == right).mean())


def balanced_accuracy(predicted: IntArray, right: IntArray) -> float:
    """Mean over the classes that occur in `right` of the share of their rows that are predicted right, in [0, 1]."""
    return float(np.mean([(predicted[right == k] == k).mean() for k in np.unique(right)]))


def calibration_error(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> float:
    """Mean distance in [0, 1] between confidence and share of right answers, over bins of equal width.

    Parameters
    ----------
    confidence : float array in [0, 1], shape [n]
        Probability of each answer.
    correct : bool array, shape [n]
        Whether the answer is right.

    Returns
    -------
    float
        Expected calibration error with `CALIBRATION_BINS` bins, each weighted by its rows (Guo et al. 2017, On
        Calibration of Modern Neural Networks, equation 3). A bin holds its upper edge.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> float:
    """Mean of (confidence - correct)^2, in [0, 1].

    That is the two-class score of Brier (1950, Monthly Weather Review 78, 1) for the event "this answer is right". The
    score over all classes would need every class's probability, and the label table holds that of the answer only.
    Parameters are those of `calibration_error`.
    """
    return float(np.square(confidence - correct).mean())


def label_accuracies(labels: LabelTable, rows: IntArray, truth: npt.NDArray[np.object_]) -> dict[str, float | None]:
    """How right the given and the suggested labels of some rows are, and how well the suggestions know it.

    Each figure is in [0, 1], or None without any rows: shares of right given and of right suggested labels, and of the
    suggestions `calibration_error` and `brier_score`.

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
        return dict.fromkeys(LABEL_FIGURES)
    correct, confidence = labels.suggested_label[rows] == truth, labels.suggestion_confidence[rows]
    return dict(
        zip(
            LABEL_FIGURES,
            (
                float((labels.given_label[rows] == truth).mean()),
                float(correct.mean()),
                calibration_error(confidence, correct),
                brier_score(confidence, correct),
            ),
            strict=True,
        )
    )


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
