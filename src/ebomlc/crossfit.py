"""Short trainings that are not shown some of the checks, so that those can say how good the suggestions are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression

from ebomlc.data.loader import PairedLoader, StoredRows
from ebomlc.labels.calibration import Pool, fit_pools, join_by_fold, make_folds
from ebomlc.labels.correct import ask
from ebomlc.labels.learning_curve import CurveTrial
from ebomlc.labels.noise_rate import Assessment
from ebomlc.labels.pairs import CheckedPairs
from ebomlc.methods import Method, find_method
from ebomlc.preparation import Job, telling_labels
from ebomlc.records import NO_LABEL, FloatArray, IntArray
from ebomlc.seeding import child_seed
from ebomlc.training import engine
from ebomlc.training.decay import fit_linear
from ebomlc.training.trackers import NullTracker

SHARE_OF_EPOCHS = 0.3
"""Of the run's epochs. On hausa and derby the average of five such trainings ranks wrong labels better than the run's
own, and better than that of five full ones."""

ENOUGH_FOR_A_CURVE = 100
"""With fewer pairs a quarter of them is too little to train on."""

ASKED_AT_ONCE = 1000


@dataclass(frozen=True)
class Member:
    """Models that were not shown some of the checks.

    Attributes
    ----------
    method : Method
        Trained like the run's own, with those rows among the noisy ones under the label they were given.
    linear : LogisticRegression or None
        On the trusted rows that were shown; None where these are all of one class.
    """

    method: Method
    linear: LogisticRegression | None

    def opinions(self, job: Job, rows: IntArray) -> FloatArray:
        """Distributions [3, n, K] over the right label: the method's suggestion, main model, linear model."""
        inputs = job.encoded[rows]
        answers = ask(self.method, inputs, job.pool.given[rows])
        linear = np.full(answers.suggested.shape, 1 / job.pool.n_classes)
        if self.linear is not None:
            linear[:] = 0
            linear[:, self.linear.classes_] = self.linear.predict_proba(_flat(inputs))
        return np.stack([answers.suggested, answers.predicted, linear])


def train_member(job: Job, left_out: IntArray, name: str) -> Member:
    """Train without the checks of some rows; `name` decides the random numbers."""
    torch.manual_seed(child_seed(job.config.seed, name))
    right = job.pool.right.copy()
    right[left_out] = NO_LABEL
    # those left out come last, wherever they lie in the pool: the order of the rows does not hang on who was checked
    noisy = np.concatenate([np.flatnonzero(job.pool.right == NO_LABEL), np.sort(left_out)])
    trusted = np.flatnonzero(right != NO_LABEL)
    method = job.create()
    training = job.config.training
    epochs = max(round(SHARE_OF_EPOCHS * (training.epochs or 1)), find_method(job.config.method.name).min_epochs)
    loader = _make_loader(job, right, noisy, trusted)
    nothing = job.heldout[slice(0, 0)]
    trained = engine.fit(method, loader, nothing, replace(training, epochs=epochs), NullTracker(), quiet=True)
    engine.restore(method, trained.chosen)
    return Member(method, _fit_linear(job, right, trusted))


def _make_loader(job: Job, right: IntArray, noisy: IntArray, trusted: IntArray) -> PairedLoader:
    loader, training = job.loader, job.config.training
    given = telling_labels(job.pool)

    def rows(positions: IntArray) -> StoredRows:
        return StoredRows(job.encoded, given, right, positions, loader.device)

    return PairedLoader(
        rows(noisy),
        rows(trusted),
        batch_size=training.batch_size,
        trusted_batch_size=training.trusted_batch_size,
        seed=job.config.seed,
        device=loader.device,
        augment=loader.augment,
        trusted_classes=torch.as_tensor(right[trusted]) if training.balance else None,
    )


def _fit_linear(job: Job, right: IntArray, trusted: IntArray) -> LogisticRegression | None:
    classes = right[trusted]
    if len(np.unique(classes)) < 2:
        return None
    return fit_linear(_flat(job.encoded[trusted]), classes, job.ridge)


def _flat(inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(inputs).reshape(len(inputs), -1)


@dataclass(frozen=True)
class CrossFit:
    """What models say of checked pairs whose checks they were not shown, and of all other rows.

    Attributes
    ----------
    own : float array, shape [n, K]
        The method's own suggestions for the pairs.
    assessment : Assessment
        Opinions joined: each fold's by a pool that was fitted to the pairs of the others, so that no row calibrates and
        is scored at once; for the rest, the average over the folds.
    trials : tuple of CurveTrial
        Suggestions after fewer checked rows, by rising number; empty where there are too few pairs.
    """

    own: FloatArray
    assessment: Assessment
    trials: tuple[CurveTrial, ...]


def cross_fit(job: Job, pairs: CheckedPairs, n_folds: int) -> CrossFit:
    """Train `n_folds` times without a part of the pairs, and join what the models say.

    Parameters
    ----------
    job : Job
        Whose method is trained anew.
    pairs : CheckedPairs
        The pairs; other trusted rows train every time.
    n_folds : int
        Two or more.

    Raises
    ------
    TrainingDivergedError
        From a training.
    """
    fold = make_folds(pairs.right, n_folds, job.config.seed)
    members = [train_member(job, pairs.rows[fold == k], f"left out {k} of {n_folds}") for k in range(n_folds)]
    opinions = np.empty((3, len(pairs), job.pool.n_classes))
    for k, member in enumerate(members):
        opinions[:, fold == k] = member.opinions(job, pairs.rows[fold == k])
    pools = fit_pools(opinions, pairs, fold)
    of_pairs = join_by_fold(pools, fold, opinions, pairs.given)
    noisy = job.pool.split.noisy
    assessment = Assessment(of_pairs, _average(job, members, pools, noisy), job.pool.given[noisy])
    trials = _curve(job, pairs, fold, pools) if len(pairs) >= ENOUGH_FOR_A_CURVE else []
    if trials:
        shown = len(job.pool.checked) - round(len(pairs) / n_folds)
        trials.append(CurveTrial(shown, np.arange(len(pairs)), of_pairs.argmax(1) == pairs.right))
    return CrossFit(opinions[0], assessment, tuple(trials))


def _average(job: Job, members: Sequence[Member], pools: Sequence[Pool], rows: IntArray) -> FloatArray:
    """Mean over the folds of the joined distributions [n, K] of rows."""
    mean = np.zeros((len(rows), job.pool.n_classes))
    for start in range(0, len(rows), ASKED_AT_ONCE):
        some = rows[start : start + ASKED_AT_ONCE]
        for member, pool in zip(members, pools, strict=True):
            joined = pool.join(member.opinions(job, some), job.pool.given[some])
            mean[start : start + ASKED_AT_ONCE] += joined / len(members)
    return mean


def _curve(job: Job, pairs: CheckedPairs, fold: IntArray, pools: Sequence[Pool]) -> list[CurveTrial]:
    """A training on a quarter of the pairs, and two that each have a half."""
    quarter, half = (make_folds(pairs.right, parts, job.config.seed) for parts in (4, 2))
    trials = (("a quarter", [quarter != 0]), ("a half", [half == 0, half == 1]))
    return [_trial(job, pairs, fold, pools, left_out, name) for name, left_out in trials]


def _trial(
    job: Job,
    pairs: CheckedPairs,
    fold: IntArray,
    pools: Sequence[Pool],
    left_out: Sequence[npt.NDArray[np.bool_]],
    name: str,
) -> CurveTrial:
    """One training for each mask [n] of pairs that are left out of it, which are scored."""
    opinions = np.full((3, len(pairs), job.pool.n_classes), 1 / job.pool.n_classes)
    for k, mask in enumerate(left_out):
        opinions[:, mask] = train_member(job, pairs.rows[mask], f"{name} {k}").opinions(job, pairs.rows[mask])
    scored = np.flatnonzero(np.any(left_out, axis=0))
    suggested = join_by_fold(pools, fold, opinions, pairs.given)[scored].argmax(1)
    n_trusted = len(job.pool.checked) - int(left_out[0].sum())
    return CurveTrial(n_trusted, scored, suggested == pairs.right[scored])
