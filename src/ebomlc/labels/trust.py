"""How sure a figure about wrong labels is that comes from a few checked rows; numpy and scipy only."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, hypergeom

from ebomlc.labels.pairs import find_pairs
from ebomlc.records import NO_LABEL, FloatArray, IntArray

CONFIDENCE = 0.95
"""An interval holds the true value in this share of all draws, at least."""

ROUNDING = 1e-9
"""Counts that come from weights are whole numbers up to this much."""


@dataclass(frozen=True)
class Interval:
    """A share of rows and the values that the checked rows leave possible.

    Attributes
    ----------
    estimate : float in [0, 1]
        NaN where no row was checked.
    low, high : float in [0, 1]
        Both belong to the interval.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class TransitionInterval:
    """A transition matrix T[true, given] from checked pairs.

    Attributes
    ----------
    estimate : float array, shape [K, K]
        Each row sums to 1; NaN in the row of a class without pairs.
    interval : float array, shape [K, K, 2]
        Low and high limit of each entry.
    """

    estimate: FloatArray
    interval: FloatArray


def rate_interval(wrong: int, n: int, *, confidence: float = CONFIDENCE, finite: int | None = None) -> Interval:
    """Share of wrong labels in a set, from a simple random sample of it.

    Parameters
    ----------
    wrong, n : int
        Wrong labels among the n checked rows.
    confidence : float in (0, 1)
        Of the interval.
    finite : int or None
        Rows in the set. Given, the limits are shares of exactly these rows, and checking all of them leaves no doubt;
        None is for rows still to come from the same source, and never narrower.

    Returns
    -------
    Interval
        Exact: neither limit fails in more than (1 - confidence) / 2 of all draws, at any true share. The binomial
        limits are those of Clopper and Pearson (1934, Biometrika 26, 404); the finite ones invert the tails of the
        hypergeometric distribution in the same way (Wright 1991, Exact Confidence Bounds when Sampling from Small
        Finite Universes). Without any checked row: [0, 1].

    Raises
    ------
    ValueError
        Unless 0 <= wrong <= n <= finite.
    """
    _check_confidence(confidence)
    if not 0 <= wrong <= n or (finite is not None and n > finite):
        raise ValueError(f"{wrong} wrong of {n} checked of {finite} rows cannot be")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    tail = (1 - confidence) / 2
    if finite is not None:
        return Interval(wrong / n, *_finite_limits(wrong, n, finite, tail))
    low, high = _binomial_limits(np.float64(wrong), np.float64(n), tail)
    return Interval(wrong / n, float(low), float(high))


def weighted_rate_interval(
    wrong: npt.NDArray[np.bool_],
    weights: FloatArray,
    strata: npt.NDArray[Any],
    sizes: Mapping[Any, int],
    *,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Share of wrong labels in a set, from a random sample of each of its strata.

    Parameters
    ----------
    wrong : bool array, shape [n]
        Whether each checked row's label is wrong.
    weights : float array, shape [n], > 0
        Rows of its stratum that a checked row stands for. They count within a stratum only, so that they still hold
        where fewer rows were checked than drawn.
    strata : array, shape [n]
        The stratum each row was drawn from.
    sizes : mapping of stratum to int
        Rows in each stratum of the set.
    confidence : float in (0, 1)
        Of the interval.

    Returns
    -------
    Interval
        Around the stratified estimate, sum over strata of size x rate / rows. Its limits are Clopper and Pearson's for
        `effective_rows` (as Korn and Graubard 1998, Survey Methodology 24, 193, but with the heaviest row setting that
        number instead of an estimated variance, which is 0 wherever a stratum shows no wrong label). A weighted sum
        with that heaviest weight spreads no more than the binomial it is compared with; for equal weights this is
        Hoeffding (1956, Annals of Mathematical Statistics 27, 713). So the interval is honest for the smallest strata,
        and wider than need be for very unequal weights. Strata that were checked whole are known; those without any
        checked row may hold anything from none to all, and the estimate is that of the others.

    Raises
    ------
    ValueError
        For arrays of unequal length, weights <= 0, a stratum without a size, more checked rows than a stratum has.
    """
    _check_confidence(confidence)
    size = np.array(list(sizes.values()), dtype=np.float64)
    stratum = _stratum_index(wrong, weights, strata, sizes)
    checked = np.bincount(stratum, minlength=len(size))
    if (checked > size).any():
        raise ValueError("more rows were checked than a stratum has")
    if not len(wrong):
        return Interval(math.nan, 0.0, 1.0)
    # the share of the whole set that each checked row stands for
    share = size[stratum] * weights / np.bincount(stratum, weights, len(size))[stratum] / size.sum()
    is_open = (checked < size)[stratum]
    unseen = float(size[checked == 0].sum() / size.sum())
    known = float(share[wrong & ~is_open].sum())
    low, high = _open_limits(wrong[is_open], share[is_open], (1 - confidence) / 2)
    return Interval(float(share[wrong].sum() / share.sum()), known + low, min(known + high + unseen, 1.0))


def effective_rows(weights: FloatArray) -> float:
    """Rows of a simple random sample that tell as much for sure as a weighted one: sum of the weights / largest one.

    Parameters
    ----------
    weights : float array, shape [n], > 0
        What each row stands for.

    Returns
    -------
    float in [1, n]
        n for equal weights.
    """
    return float(weights.sum() / weights.max())


def expected_half_width(n: float, rate: float, finite: int | None = None, *, confidence: float = CONFIDENCE) -> float:
    """Half the width of `rate_interval` that checking n rows will give: what n buys.

    Parameters
    ----------
    n : float, >= 1
        Rows to check; not whole where it is `effective_rows`.
    rate : float in [0, 1]
        Share of wrong labels; 0.5 is the worst case.
    finite : int or None
        Rows in the set, of which n are drawn without replacement.
    confidence : float in (0, 1)
        Of the interval.

    Returns
    -------
    float in [0, 0.5]
        The width at the expected number of wrong rows, times the root of the finite-population factor.

    Raises
    ------
    ValueError
        For n < 1, n > finite and a rate outside [0, 1].
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= rate <= 1 or (finite is not None and n > finite):
        raise ValueError(f"{n} checked of {finite} rows at a rate of {rate} cannot be")
    low, high = _binomial_limits(np.float64(rate * n), np.float64(n), (1 - confidence) / 2)
    left = 1.0 if finite is None else math.sqrt((finite - n) / max(finite - 1, 1))
    return float(high - low) / 2 * left


def rows_needed(
    half_width: float, rate: float = 0.5, finite: int | None = None, *, confidence: float = CONFIDENCE
) -> int:
    """The fewest rows to check for an interval of plus or minus `half_width`; see `expected_half_width`.

    Parameters
    ----------
    half_width : float, > 0
        Wanted; 0.05 for plus or minus five points.
    rate : float in [0, 1]
        Share of wrong labels; 0.5 is the worst case.
    finite : int or None
        Rows in the set; never more are needed.
    confidence : float in (0, 1)
        Of the interval.

    Raises
    ------
    ValueError
        For a half width of 0 or less.
    """
    if half_width <= 0:
        raise ValueError(f"half_width is {half_width}; it must be above 0")

    def narrowness(n: int) -> float:
        return -expected_half_width(n, rate, finite, confidence=confidence)

    most = finite or 1
    while finite is None and narrowness(most) < -half_width:
        most *= 2
    return 1 + bisect_left(range(1, most), -half_width, key=narrowness)


def transition_counts(given: IntArray, right: IntArray, n_classes: int) -> IntArray:
    """How often each class was given each label, from checked pairs.

    Parameters
    ----------
    given, right : int64 arrays, shape [n]
        Class indices; pairs in which either is `NO_LABEL` do not count.
    n_classes : int
        K.

    Returns
    -------
    int64 array, shape [K, K]
        counts[true, given].

    Raises
    ------
    ValueError
        For arrays of unequal length and indices outside [0, K).
    """
    if given.shape != right.shape:
        raise ValueError(f"{len(given)} given labels, but {len(right)} right ones")
    whole = (given != NO_LABEL) & (right != NO_LABEL)
    pairs = np.stack([right[whole], given[whole]])
    if ((pairs < 0) | (pairs >= n_classes)).any():
        raise ValueError(f"class indices must lie in [0, {n_classes})")
    cells = np.bincount(np.ravel_multi_index(tuple(pairs), (n_classes, n_classes)), minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def transition_interval(counts: IntArray, *, confidence: float = CONFIDENCE) -> TransitionInterval:
    """Transition matrix with an exact interval for each entry, taken by itself.

    Parameters
    ----------
    counts : int64 array, shape [K, K]
        counts[true, given] of a simple random sample: one stratified by the given label over-represents the rare ones
        in every row.
    confidence : float in (0, 1)
        Of each interval; that all K x K hold at once is less likely.

    Returns
    -------
    TransitionInterval
        Clopper and Pearson's limits; [0, 1] in the row of a class without pairs.
    """
    _check_confidence(confidence)
    n = np.broadcast_to(counts.sum(1, keepdims=True), counts.shape).astype(np.float64)
    limits = _binomial_limits(counts.astype(np.float64), n, (1 - confidence) / 2)
    estimate = np.divide(counts, n, out=np.full(counts.shape, math.nan), where=n > 0)
    return TransitionInterval(estimate, np.stack(limits, axis=-1))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")


def _binomial_limits(wrong: Any, n: Any, tail: float) -> tuple[Any, Any]:  # noqa: ANN401 - numbers or arrays alike
    """Clopper and Pearson's limits; counts need not be whole."""
    right = n - wrong
    low = beta.ppf(tail, np.maximum(wrong, ROUNDING), right + 1)
    high = beta.ppf(1 - tail, wrong + 1, np.maximum(right, ROUNDING))
    return np.where(wrong > ROUNDING, low, 0.0), np.where(right > ROUNDING, high, 1.0)


def _finite_limits(wrong: int, n: int, finite: int, tail: float) -> tuple[float, float]:
    """The numbers of wrong rows that neither tail of the hypergeometric distribution rejects, as shares."""
    possible = range(wrong, finite - (n - wrong) + 1)

    def at_least(total: int) -> float:
        return float(hypergeom.sf(wrong - 1, finite, total, n))

    def at_most(total: int) -> float:
        return float(hypergeom.cdf(wrong, finite, total, n))

    fewest = bisect_right(possible, tail, key=at_least)
    above_most = bisect_left(possible, -tail, key=lambda total: -at_most(total))
    return possible[fewest] / finite, possible[above_most - 1] / finite


def _open_limits(wrong: npt.NDArray[np.bool_], share: FloatArray, tail: float) -> tuple[float, float]:
    """Limits of what strata contribute that were checked in part."""
    if not len(wrong):
        return 0.0, 0.0
    whole, n = share.sum(), effective_rows(share)
    low, high = _binomial_limits(share[wrong].sum() / whole * n, n, tail)
    return float(whole * low), float(whole * high)


def _stratum_index(
    wrong: npt.NDArray[np.bool_], weights: FloatArray, strata: npt.NDArray[Any], sizes: Mapping[Any, int]
) -> IntArray:
    if not len(wrong) == len(weights) == len(strata):
        raise ValueError(f"{len(wrong)} rows, but {len(weights)} weights and {len(strata)} strata")
    if not (weights > 0).all():
        raise ValueError("every weight must be above 0")
    index = {name: k for k, name in enumerate(sizes)}
    unknown = [name for name in strata.tolist() if name not in index]
    if unknown:
        raise ValueError(f"stratum {unknown[0]!r} has no size")
    return np.array([index[name] for name in strata.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class NoiseEstimate:
    """Share of wrong labels in a set, as far as its checked rows tell.

    Attributes
    ----------
    interval : Interval
        The share.
    n : int
        Checked rows it comes from.
    is_random : bool
        They are known to have been drawn at random; otherwise nobody said how they were picked.
    is_stratified : bool
        They were drawn by given label, with weights.
    """

    interval: Interval
    n: int
    is_random: bool
    is_stratified: bool


def estimate_noise(
    given: IntArray,
    right: IntArray,
    provenance: npt.NDArray[np.object_],
    weights: FloatArray,
    sizes: IntArray,
) -> NoiseEstimate | None:
    """Share of wrong given labels in a set, from the rows of it that somebody checked.

    Parameters
    ----------
    given, right : int64 arrays, shape [N]
        Labels of all rows; `NO_LABEL` where one is not known.
    provenance, weights : arrays, shape [N]
        Why a row was checked and how many it stands for: `ebomlc.labels.pairs.find_pairs` says which rows count.
    sizes : int64 array, shape [K]
        Rows of the whole set by given label.

    Returns
    -------
    NoiseEstimate or None
        None where no row that counts carries both labels. The interval is that of `rate_interval`, or that of
        `weighted_rate_interval` by given label.
    """
    pairs = find_pairs(given, right, provenance, weights)
    n = len(pairs)
    if not n:
        return None
    if not pairs.is_stratified:
        return NoiseEstimate(rate_interval(int(pairs.wrong.sum()), n), n, pairs.is_random, False)
    of_label = {label: int(rows) for label, rows in enumerate(sizes) if rows}
    interval = weighted_rate_interval(pairs.wrong, pairs.weights, pairs.given, of_label)
    return NoiseEstimate(interval, n, pairs.is_random, True)
