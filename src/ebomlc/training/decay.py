"""How strongly to regularise: images by the length of the training, others by the trusted rows and the noisy ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from ebomlc.data.encoders import Encoded
from ebomlc.methods.transition import (
    bayes_posterior,
    count_pairs,
    transition_from_pairs,
    transition_from_predictions,
)
from ebomlc.records import FloatArray, IntArray
from ebomlc.seeding import child_seed, numpy_generator

Features = npt.NDArray[np.float32]

STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
FOLDS, MOST_ROWS = 5, 1000
SHARE = 0.5
"""Of the linear model's ridge penalty, for the network; within a factor of two it made no difference."""
FALLBACK = 0.01
RAREST = 1e-6
"""Least probability of a class, also of one that no row shown was of."""

IMAGE_DECAYS = (5e-4, 2e-3)
"""Of networks of convolutions: what is usual for long trainings, and the most."""


def image_weight_decay(model: str, steps: int) -> float:
    """Weight decay of a network of convolutions under SGD at a rate of 0.1.

    Where every layer is normalised, weight decay does its work by the rate times the decay summed over the steps, so
    a short training calls for a stronger one. A tenth over the root of the steps joins what was measured to be good for
    ResNet-20 at 2,400 steps (2e-3: results/LOG.md, "weight decay of ResNets") to what is usual at 64,000 (5e-4). The
    small networks lose by more than the usual.

    Parameters
    ----------
    model : str
        Name of the model.
    steps : int > 0
        Of the whole training.

    Returns
    -------
    float
        Between the two of `IMAGE_DECAYS`.
    """
    usual, most = IMAGE_DECAYS
    if not model.startswith("resnet"):
        return usual
    return min(most, max(usual, 0.1 / math.sqrt(steps)))


@dataclass(frozen=True)
class Labelled:
    """Some rows.

    Attributes
    ----------
    features : float array, shape [n, D]
        Encoded.
    right, given : int64 array, shape [n]
        Labels, `NO_LABEL` where they are not known.
    """

    features: Features
    right: IntArray
    given: IntArray

    @classmethod
    def sample(cls, encoded: Encoded, right: IntArray, given: IntArray, rows: IntArray, seed: int) -> Labelled:
        """Of these positions in arrays of N rows, at random so many as a choice is made on."""
        drawn = numpy_generator(seed, "rows to choose the weight decay on").permutation(rows)[:MOST_ROWS]
        return cls(np.asarray(encoded[drawn]).reshape(len(drawn), -1), right[drawn], given[drawn])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.right)

    def __getitem__(self, rows: IntArray) -> Labelled:
        """Some of them."""
        return Labelled(self.features[rows], self.right[rows], self.given[rows])


def choose_ridge(trusted: Labelled, n_classes: int, seed: int) -> float:
    """Ridge penalty of a linear model on the trusted rows, by cross-validation.

    The log loss on the left-out rows tells text with many weak features from clean measurements far more surely than an
    accuracy would (results/LOG.md).

    Parameters
    ----------
    trusted : Labelled
        Rows that train.
    n_classes : int
        K.
    seed : int
        Of the folds.

    Returns
    -------
    float > 0
        One of `STRENGTHS`; `FALLBACK` where fewer than two classes have `FOLDS` rows.
    """
    trusted = _enough(trusted)
    if len(np.unique(trusted.right)) < 2:
        return FALLBACK
    folds = [(shown.features, shown.right, left) for shown, left in _folds(trusted, seed)]
    return _least_loss(folds, STRENGTHS, n_classes)


def choose_weight_decay(trusted: Labelled, noisy: Labelled, n_classes: int, seed: int) -> float:
    """Weight decay of a network that trains on trusted and noisy rows.

    A few hundred trusted rows alone call for a stronger penalty than they do together with the noisy rows, where the
    labels of these can be put right: for each fold, Bayes' rule with the linear model of the other trusted rows gives
    every noisy row its likeliest label, and the penalty is chosen anew on all of them, among those no stronger than
    `choose_ridge` has it: more rows never call for a stronger one, and where they seem to, wrong labels are at fault.

    Parameters
    ----------
    trusted : Labelled
        Rows that train.
    noisy : Labelled
        The others.
    n_classes : int
        K.
    seed : int
        Of the folds.

    Returns
    -------
    float > 0
        `SHARE` of the penalty.
    """
    ridge = choose_ridge(trusted, n_classes, seed)
    trusted = _enough(trusted)
    if len(np.unique(trusted.right)) < 2 or not len(noisy):
        return SHARE * ridge
    folds: list[tuple[Features, IntArray, Labelled]] = []
    for shown, left in _folds(trusted, seed):
        features = np.concatenate([shown.features, noisy.features])
        likeliest = _put_right(shown, noisy, ridge, n_classes)
        folds.append((features, np.concatenate([shown.right, likeliest]), left))
    return SHARE * _least_loss(folds, [strength for strength in STRENGTHS if strength <= ridge], n_classes)


def fit_linear(features: Features, labels: IntArray, penalty: float) -> LogisticRegression:
    """Logistic regression that minimises the mean log loss plus ``penalty / 2`` times the squared norm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at a weak penalty, which then loses anyway
        return LogisticRegression(C=1 / (penalty * len(labels)), max_iter=300).fit(features, labels)


def _put_right(shown: Labelled, noisy: Labelled, ridge: float, n_classes: int) -> IntArray:
    """The likeliest right label [n] of noisy rows by what trusted ones teach."""
    predicted = torch.as_tensor(_predict(fit_linear(shown.features, shown.right, ridge), noisy.features, n_classes))
    given = torch.as_tensor(noisy.given)
    pairs = count_pairs(torch.as_tensor(shown.right), torch.as_tensor(shown.given), n_classes)
    transition = transition_from_pairs(pairs, transition_from_predictions(predicted, given))
    return bayes_posterior(predicted, given, transition).argmax(1).numpy()


def _least_loss(
    folds: Sequence[tuple[Features, IntArray, Labelled]], strengths: Sequence[float], n_classes: int
) -> float:
    """The strength whose mean log loss on what each fold left out is least, from the strongest down to the first rise.

    The loss has one valley, and a fit takes the longer the weaker the penalty.
    """
    best, least = max(strengths), np.inf
    for strength in sorted(strengths, reverse=True):
        loss = np.mean([_log_loss(fit_linear(x, y, strength), left, n_classes) for x, y, left in folds])
        if loss > least:
            break
        best, least = strength, loss
    return best


def _log_loss(model: LogisticRegression, rows: Labelled, n_classes: int) -> float:
    predicted = _predict(model, rows.features, n_classes)
    return float(-np.log(predicted[np.arange(len(rows)), rows.right]).mean())


def _predict(model: LogisticRegression, features: Features, n_classes: int) -> FloatArray:
    predicted = np.full((len(features), n_classes), RAREST)
    predicted[:, model.classes_] += model.predict_proba(features)
    return predicted / predicted.sum(1, keepdims=True)


def _enough(trusted: Labelled) -> Labelled:
    """Those of classes with a row for every fold."""
    counts = np.bincount(trusted.right)
    return trusted[np.flatnonzero(counts[trusted.right] >= FOLDS)]


def _folds(trusted: Labelled, seed: int) -> list[tuple[Labelled, Labelled]]:
    """What each fold shows, and what it leaves out."""
    state = child_seed(seed, "folds of the weight decay") % 2**32
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=state).split(trusted.features, trusted.right)
    return [(trusted[shown], trusted[left]) for shown, left in folds]
