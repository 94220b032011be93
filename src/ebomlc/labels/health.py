"""Signs that a training went wrong although it ended: labels copied, one class, a wild barrier, a wrong trusted set.

Each sign compares what came out with the checked rows, so that a set which is hard, clean or unbalanced raises none.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from ebomlc.errors import listed
from ebomlc.records import FloatArray, IntArray, LabelTable
from ebomlc.seeding import child_seed, numpy_generator

ENOUGH_ROWS, ENOUGH_STEPS = 100, 200
"""Shares of fewer noisy rows are mostly chance; and every corrector copies, until it has had some steps to learn."""

LEAST_NOISE, COPIED = 0.05, 0.1
"""With so many wrong labels, a corrector that changes less than a tenth of them has learnt to copy: those that learn
anything change most (on digits with 40 % wrong, 37 to 51 % of all labels; a copying one, none)."""

WILD_BARRIER = 1000.0
"""Of an epoch's mean. Where all is well it is at most 4 on digits, 15 on hausa, and 68 on breast cancer, whose gap
vanishes."""

CONTRADICTED = 0.1
"""Share of the trusted rows that trained which the classifier contradicts all the same.

At most 1 % on digits, breast cancer and hausa as they are, 10 to 19 % on the first two with a fifth made wrong. A set
as hard as derby reaches 12 % without: hence the message is a question. `glc`, and any method on texts of few rows,
learn wrong ones by heart (3 and 1 %) and do not show them.
"""

ENOUGH_TRUSTED, FOLDS, MOST_ROWS = 40, 5, 1000
RIDGE = 0.01


@dataclass(frozen=True)
class Symptom:
    """A sign that something is wrong.

    Attributes
    ----------
    kind : {"copies", "one class", "barrier", "trusted set"}
        Which.
    message : str
        What was seen, and what can be done.
    """

    kind: str
    message: str


def unseen_error(features: npt.NDArray[np.floating], right: IntArray, seed: int) -> float | None:
    """How often a linear model errs on trusted rows that it was not shown.

    Parameters
    ----------
    features : float array, shape [n, D]
        Encoded trusted rows.
    right : int64 array, shape [n]
        Their checked labels.
    seed : int
        Of the folds.

    Returns
    -------
    float in [0, 1], or None
        None where fewer than `ENOUGH_TRUSTED` rows are of a class with `FOLDS`, or all of one class.
    """
    rows = numpy_generator(seed, "trusted rows to ask about").permutation(len(right))[:MOST_ROWS]
    rows = rows[np.bincount(right[rows])[right[rows]] >= FOLDS]
    if len(rows) < ENOUGH_TRUSTED or len(np.unique(right[rows])) < 2:
        return None
    state = child_seed(seed, "folds of trusted rows to ask about") % 2**32
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=state)
    model = LogisticRegression(C=1 / (RIDGE * len(rows)), max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        said = cross_val_predict(model, features[rows], right[rows], cv=folds)
    return float(np.mean(np.asarray(said) != right[rows]))


def find_symptoms(
    labels: LabelTable,
    epochs: Sequence[Mapping[str, float | int | None]],
    least_noise: float | None,
    error: float | None,
    contradicted: Mapping[str, bool],
) -> list[Symptom]:
    """Look for everything that `Symptom` knows.

    Parameters
    ----------
    labels : LabelTable
        What came out.
    epochs : sequence of mapping
        Figures of each epoch, as in ``metrics.csv``.
    least_noise : float in [0, 1], optional
        Share of wrong labels that the checked rows say there is at least.
    error : float in [0, 1], optional
        `unseen_error`.
    contradicted : mapping of str to bool
        For the id of each trusted row that trained, whether the classifier predicts another label.
    """
    barrier = _barrier(epochs)
    if not epochs or (epochs[-1].get("step") or 0) < ENOUGH_STEPS:
        return [] if barrier is None else [barrier]
    found = [
        barrier,
        _copies(labels, least_noise, error),
        _one_class(labels, labels.suggested_label, "suggested"),
        _one_class(labels, labels.predicted_label, "predicted"),
    ]
    symptoms = [symptom for symptom in found if symptom is not None]
    doubt = _trusted_set(contradicted)
    # a classifier that collapsed contradicts whatever was checked
    return symptoms if doubt is None or any(one.kind == "one class" for one in symptoms) else [*symptoms, doubt]


def _copies(labels: LabelTable, least_noise: float | None, error: float | None) -> Symptom | None:
    asked = ~labels.is_trusted
    if asked.sum() < ENOUGH_ROWS:
        return None
    given = labels.given_label[asked]
    changed = float((labels.suggested_label[asked] != given).mean())
    if least_noise is None and error is not None:
        # the classifier contradicts more labels than a simpler one errs on rows that it was not shown
        least_noise = float((labels.predicted_label[asked] != given).mean()) - error
    if least_noise is None or least_noise < LEAST_NOISE or changed >= COPIED * least_noise:
        return None
    return Symptom(
        "copies",
        f"the suggestions repeat the given labels (they change {changed:.1%}), although at least {least_noise:.0%} are "
        f"wrong: the corrector learnt to copy; try another method, or check rows and keep the label they were given",
    )


def _one_class(labels: LabelTable, column: npt.NDArray[np.object_], what: str) -> Symptom | None:
    asked = ~labels.is_trusted
    if asked.sum() < ENOUGH_ROWS:
        return None
    names, counts = np.unique(column[asked].astype(str), return_counts=True)
    name, share = str(names[counts.argmax()]), float(counts.max() / asked.sum())
    usual = max(
        float((labels.given_label[asked] == name).mean()),
        float((labels.suggested_label[labels.is_trusted] == name).mean()) if labels.is_trusted.any() else 0.0,
    )
    if share <= (1 + usual) / 2:  # half of the way from what is usual to everything
        return None
    return Symptom(
        "one class",
        f"{share:.0%} of the {what} labels are {name!r}, which is at most {usual:.0%} of the given and of the checked "
        f"ones: the training collapsed to one class; try a lower rate (training.lr) or another method",
    )


def _barrier(epochs: Sequence[Mapping[str, float | int | None]]) -> Symptom | None:
    means: FloatArray = np.array([row.get("beta") or 0.0 for row in epochs], dtype=np.float64)
    if len(means) == 0 or means.max() <= WILD_BARRIER:
        return None
    return Symptom(
        "barrier",
        f"the barrier's coefficient was {means.max():.3g} on average in epoch {int(means.argmax()) + 1}: steps went "
        f"along the gap alone; lower xi or delta (method.settings), or raise training.lr_floor",
    )


def _trusted_set(contradicted: Mapping[str, bool]) -> Symptom | None:
    doubted = [name for name, is_contradicted in contradicted.items() if is_contradicted]
    if len(contradicted) < ENOUGH_TRUSTED or len(doubted) <= CONTRADICTED * len(contradicted):
        return None
    return Symptom(
        "trusted set",
        f"the classifier contradicts {len(doubted)} of the {len(contradicted)} trusted rows that it was trained on: "
        f"are they just hard, or are their checked labels wrong? Look at {listed(doubted)}",
    )
