"""How strongly to regularise a network without convolutions: asked of the trusted rows."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from ebomlc.records import IntArray
from ebomlc.seeding import child_seed, numpy_generator

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1)
FOLDS, MOST_ROWS = 5, 1000
SHARE = 0.5
"""Of the linear model's ridge penalty, for the network; within a factor of two it made no difference."""
FALLBACK = 0.01


def choose_weight_decay(features: npt.NDArray[np.float32], right: IntArray, seed: int) -> float:
    """Weight decay by cross-validation of a linear model on the trusted rows that train.

    A ridge-penalised logistic regression is fitted for each strength; the log loss on the left-out rows tells text with
    many weak features from clean measurements far more surely than an accuracy would (results/LOG.md).

    Parameters
    ----------
    features : float array, shape [n, D]
        Encoded trusted rows.
    right : int64 array, shape [n]
        Their right labels.
    seed : int
        Of the folds.

    Returns
    -------
    float > 0
        `SHARE` of the best of `STRENGTHS`; of `FALLBACK` where fewer than two classes have `FOLDS` rows.
    """
    rows = numpy_generator(seed, "rows to choose the weight decay on").permutation(len(right))[:MOST_ROWS]
    counts = np.bincount(right[rows])
    rows = rows[counts[right[rows]] >= FOLDS]
    if len(np.unique(right[rows])) < 2:
        return SHARE * FALLBACK
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=child_seed(seed, "folds of the weight decay") % 2**32)
    n_fitted = len(rows) * (FOLDS - 1) / FOLDS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at a weak penalty, which then loses anyway
        scores = [
            cross_val_score(
                LogisticRegression(C=1 / (strength * n_fitted), max_iter=300),
                features[rows],
                right[rows],
                cv=folds,
                scoring="neg_log_loss",
            ).mean()
            for strength in STRENGTHS
        ]
    return SHARE * STRENGTHS[int(np.argmax(scores))]
