"""Findings of a small run, in whatever state a test wants them."""

from __future__ import annotations

import numpy as np

from ebomlc.labels.page import Findings
from ebomlc.records import LabelTable

NAMES = ("bird", "cat", "dog")


def labels_of(given, suggested, quality, trusted=None, ids=None):
    n = len(given)
    return LabelTable(
        id=np.array(ids or [f"row/{k}" for k in range(n)], dtype=object),
        given_label=np.array(given, dtype=object),
        suggested_label=np.array(suggested, dtype=object),
        suggestion_confidence=1 - np.array(quality, float) / 2,
        label_quality=np.array(quality, float),
        is_label_issue=np.array(given, dtype=object) != np.array(suggested, dtype=object),
        predicted_label=np.array(suggested, dtype=object),
        predicted_confidence=np.full(n, 0.9),
        is_trusted=np.zeros(n, bool) if trusted is None else np.array(trusted),
    )


def summary_of(**changed):
    return {
        "data": "photos",
        "method": "ebomlc",
        "n_noisy": 4,
        "n_trusted": 1,
        "n_heldout": 0,
        "n_test": 0,
        "epochs": 2,
        "chosen_epoch": 2,
        "seconds": 61.2,
        "training_seconds": 50.0,
        "versions": {"ebomlc": "0.1.0"},
        **changed,
    }


def trust_of(names=NAMES, **changed):
    share = {"estimate": 0.4, "low": 0.3, "high": 0.5}
    bins = [
        {"low": 0.5, "high": 0.75, "n": 20, "confidence": 0.6, "right": 0.55, "right_low": 0.3, "right_high": 0.75},
        {"low": 0.75, "high": 1.0, "n": 0, "confidence": None, "right": None, "right_low": None, "right_high": None},
    ]
    figures = {"calibration_error": 0.12, "brier": 0.2, "auroc": None, "reliability": bins}
    size = len(names)
    return {
        "version": 1,
        "basis": {"reason": "five folds"},
        "noise": {
            "n": 50,
            **share,
            "method": "assisted",
            "pairs": {"estimate": 0.44, "low": 0.3, "high": 0.59},
            "classes": [{"name": name, "rows": 9, "n": 5, **share, "method": "pairs"} for name in names]
            + [{"name": "never", "rows": 0, "n": 0, "estimate": None, "low": None, "high": None, "method": "pairs"}],
        },
        "transition": {
            "estimate": [[0.5] * size] * (size - 1) + [[None] * size],
            "low": [[0.4] * size] * (size - 1) + [[None] * size],
            "high": [[0.6] * size] * (size - 1) + [[None] * size],
        },
        "calibration": {"target": "given", "n": 50, "before": figures, "after": {**figures, "calibration_error": 0.02}},
        "cuts": {
            "precision": 0.9,
            "quality": 0.2,
            "n_issues": 300,
            "n_review": 40,
            "points": [
                {"quality": 0.1, "rows": 100, "n": 20, "precision": 1.0, "low": 0.95, "high": 1.0},
                {"quality": 0.2, "rows": 300, "n": 40, "precision": 0.95, "low": 0.9, "high": 0.99},
                {"quality": 0.9, "rows": 900, "n": 0, "precision": None, "low": None, "high": None},
            ],
        },
        "learning_curve": {
            "points": [
                {"n_trusted": 25, "n": 25, "right": 0.5, "low": 0.4, "high": 0.6},
                {"n_trusted": 50, "n": 25, "right": 0.7, "low": 0.6, "high": 0.8},
            ],
            "twice": {"n_trusted": 100, "right": 0.8, "low": 0.6, "high": 0.9},
        },
        **changed,
    }


def findings_of(labels=None, names=NAMES, trust=None, metrics=(), name="run", config="seed = 0\n", **summary):
    if labels is None:
        labels = labels_of(
            ["bird", "cat", "cat", "dog", "dog"],
            ["bird", "dog", "bird", "dog", "cat"],
            [0.9, 0.1, 0.3, 0.8, 0.0],
            [False, False, False, False, True],
        )
    return Findings(name, summary_of(**summary), config, labels, tuple(names), metrics, trust)
