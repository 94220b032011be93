"""Probabilities that mean what they say: several opinions on a row's label joined so that the checked pairs agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from ebomlc.labels.pairs import CheckedPairs
from ebomlc.labels.scores import brier_score, calibration_error
from ebomlc.labels.trust import rate_interval
from ebomlc.records import FloatArray, IntArray
from ebomlc.seeding import numpy_generator

LEAST_PROBABILITY = 1e-6
"""An opinion that rules a class out counts as this, so that it can be overruled."""

RIDGE = 0.02
"""Pulls the weights of a pool to the mean of the opinions; on hausa and derby .005 to .1 made no difference."""

RELIABILITY_BINS = 10
CHANCE_DRAWS = 200


@dataclass(frozen=True)
class Pool:
    """How opinions on the right label are joined: log q = sum_m weight_m log p_m + bonus [k = given] + constant.

    With one opinion and no bonus that is a temperature (Guo et al. 2017); with several a logarithmic opinion pool
    (Genest and Zidek 1986, Statistical Science 1, 114) whose weights need not sum to one.

    Attributes
    ----------
    weights : float array, shape [M], >= 0
        Of the opinions.
    bonus : float
        For the given label; 0 where none is shown.
    """

    weights: FloatArray
    bonus: float

    def join(self, opinions: FloatArray, given: IntArray | None) -> FloatArray:
        """Joined distributions [n, K] of opinions [M, n, K] on rows with given labels [n], or None for no bonus."""
        logits = np.tensordot(self.weights, _logs(opinions), 1)
        if given is not None:
            logits[np.arange(len(given)), given] += self.bonus
        return softmax(logits, axis=1)


def fit_pool(opinions: FloatArray, pairs: CheckedPairs) -> Pool:
    """The pool under which the right labels of checked pairs are most likely.

    Parameters
    ----------
    opinions : float array, shape [M, n, K]
        Distributions over the classes, of models that were not shown the right labels of these rows.
    pairs : CheckedPairs
        The n rows.

    Returns
    -------
    Pool
        M weights and the bonus; the problem is convex.
    """
    marks = np.zeros(opinions.shape[1:])
    marks[np.arange(len(pairs)), pairs.given] = 1
    weights = _fit(np.concatenate([_logs(opinions), marks[None]]), pairs.right, len(opinions))
    return Pool(weights[:-1], float(weights[-1]))


def fit_temperature(predicted: FloatArray, right: IntArray) -> Pool:
    """The temperature under which right labels [n] are most likely: for p(right | input) [n, K], without given ones."""
    return Pool(_fit(_logs(predicted[None]), right, 1), 0.0)


def fit_pools(opinions: FloatArray, pairs: CheckedPairs, fold: IntArray) -> list[Pool]:
    """For each fold the pool of the pairs in all others; see `fit_pool`. Folds [n] are numbered from 0."""
    return [fit_pool(opinions[:, fold != k], pairs[fold != k]) for k in range(int(fold.max()) + 1)]


def join_by_fold(pools: Sequence[Pool], fold: IntArray, opinions: FloatArray, given: IntArray | None) -> FloatArray:
    """Distributions [n, K] of rows in folds [n], each by the pool that knows nothing of its fold."""
    joined = np.empty(opinions.shape[1:])
    for k, pool in enumerate(pools):
        inside = fold == k
        joined[inside] = pool.join(opinions[:, inside], None if given is None else given[inside])
    return joined


def _fit(terms: FloatArray, right: IntArray, n_opinions: int) -> FloatArray:
    """Weights [M] or, with the marks of the given label as last term, [M + 1]."""
    rows = np.arange(len(right))
    start = np.zeros(len(terms))
    start[:n_opinions] = 1 / n_opinions
    at_right = terms[:, rows, right]

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        log_joined = log_softmax(np.tensordot(weights, terms, 1), axis=1)
        expected = (terms * np.exp(log_joined)).sum(2)
        pull = weights - start
        value = -log_joined[rows, right].mean() + RIDGE / 2 * pull @ pull
        return float(value), (expected - at_right).mean(1) + RIDGE * pull

    bounds = [(0, None)] * n_opinions + [(None, None)] * (len(terms) - n_opinions)
    return minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x


def _logs(opinions: FloatArray) -> FloatArray:
    return np.log(np.clip(opinions, LEAST_PROBABILITY, 1))


def make_folds(classes: IntArray, n_folds: int, seed: int) -> IntArray:
    """A fold in [0, n_folds) for each of n rows [n], at random, every class spread as evenly as can be."""
    order = numpy_generator(seed, "folds of the checked rows").permutation(len(classes))
    fold = np.empty(len(classes), dtype=np.int64)
    fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(classes)) % n_folds
    return fold


@dataclass(frozen=True)
class Bar:
    """One bar of a reliability diagram: answers whose confidence lies in (low, high].

    Attributes
    ----------
    low, high : float in [0, 1]
        Edges.
    n : int
        Answers.
    confidence, right : float in [0, 1]
        Mean confidence, and share of right answers.
    right_low, right_high : float in [0, 1]
        95 % interval of that share.
    """

    low: float
    high: float
    n: int
    confidence: float
    right: float
    right_low: float
    right_high: float


@dataclass(frozen=True)
class Reliability:
    """How far confidences can be believed.

    Attributes
    ----------
    calibration_error, brier : float in [0, 1]
        See `ebomlc.labels.scores`.
    chance_error : float in [0, 1]
        What the calibration error of so few answers would be on average if every confidence were exact.
    auroc : float in [0, 1] or None
        Chance that a right answer is more confident than a wrong one; None without both kinds.
    bars : tuple of Bar
        Of a reliability diagram; empty ones are left out.
    """

    calibration_error: float
    chance_error: float
    brier: float
    auroc: float | None
    bars: tuple[Bar, ...]


def measure_reliability(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> Reliability:
    """Compare confidences [n] in [0, 1] of n >= 1 answers with whether they are right [n]."""
    rng = numpy_generator(0, "answers that are right as often as they say")
    chance = [calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(CHANCE_DRAWS)]
    return Reliability(
        calibration_error(confidence, correct),
        float(np.mean(chance)),
        brier_score(confidence, correct),
        auroc(confidence, correct),
        tuple(_bars(confidence, correct)),
    )


def auroc(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> float | None:
    """Chance that a positive row scores above a negative one, ties counting half; None without both kinds."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    ranks = rankdata(scores)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(ranks / (n_positive * n_negative))


def _bars(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> Sequence[Bar]:
    bin_of = np.clip(np.ceil(confidence * RELIABILITY_BINS).astype(np.int64) - 1, 0, RELIABILITY_BINS - 1)
    bars = []
    for k in np.unique(bin_of):
        inside = bin_of == k
        n, hits = int(inside.sum()), int(correct[inside].sum())
        share = rate_interval(hits, n)
        edges = (float(k / RELIABILITY_BINS), float((k + 1) / RELIABILITY_BINS))
        bars.append(Bar(*edges, n, float(confidence[inside].mean()), share.estimate, share.low, share.high))
    return bars
