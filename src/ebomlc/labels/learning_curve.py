"""How many checked rows are enough: what fewer would have brought, and what twice as many might."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebomlc.labels.trust import CONFIDENCE, Interval, rate_interval
from ebomlc.records import FloatArray, IntArray
from ebomlc.seeding import numpy_generator

DRAWS = 1000


@dataclass(frozen=True)
class CurveTrial:
    """Suggestions by models that had been shown so many checks.

    Attributes
    ----------
    n_trusted : int
        Checked rows that trained.
    rows : int64 array, shape [n]
        Other checked pairs, as positions among all of them.
    correct : bool array, shape [n]
        Whether the suggestion for each was right.
    """

    n_trusted: int
    rows: IntArray
    correct: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CurvePoint:
    """Share of right suggestions after so many checked rows.

    Attributes
    ----------
    n_trusted : int
        Checked rows that trained.
    n : int
        Others that were scored; 0 for an extrapolation.
    right : Interval
        Exact, or for an extrapolation by bootstrap.
    """

    n_trusted: int
    n: int
    right: Interval


def curve_points(trials: Sequence[CurveTrial]) -> list[CurvePoint]:
    """The measured points, in the order of the trials."""
    return [
        CurvePoint(trial.n_trusted, len(trial.rows), rate_interval(int(trial.correct.sum()), len(trial.rows)))
        for trial in trials
    ]


def extrapolate(trials: Sequence[CurveTrial], n_pairs: int, n_trusted: int, seed: int) -> CurvePoint:
    """What `n_trusted` checked rows might bring.

    The share of wrong suggestions is taken to fall as a + b / sqrt(n) with a, b >= 0, fitted to the trials by least
    squares: the usual rate, and all that three or four points can bear.

    Parameters
    ----------
    trials : sequence of CurveTrial
        At two or more different, rising numbers of checked rows.
    n_pairs : int
        Checked pairs; the trials score some of these each.
    n_trusted : int
        To look ahead to.
    seed : int
        Of the bootstrap over checked pairs, which are drawn for all trials alike.

    Returns
    -------
    CurvePoint
        Its interval says how sure the fit is, not whether the curve is of that form.
    """
    rng = numpy_generator(seed, "bootstrap of the learning curve")
    ahead = 1 / np.sqrt(n_trusted)
    drawn = [_predict(trials, np.bincount(rng.integers(n_pairs, size=n_pairs), minlength=n_pairs), ahead)
             for _ in range(DRAWS)]  # fmt: skip
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    estimate = _predict(trials, np.ones(n_pairs), ahead)
    return CurvePoint(n_trusted, 0, Interval(estimate, min(float(low), estimate), max(float(high), estimate)))


def _predict(trials: Sequence[CurveTrial], counts: npt.NDArray[np.generic], ahead: float) -> float:
    """Share of right suggestions where 1 / sqrt(n) is `ahead`, if each pair had been drawn so often."""
    times = counts.astype(np.float64)
    scored = [(trial, times[trial.rows]) for trial in trials if times[trial.rows].any()]
    wrong = np.array([float((weight * ~trial.correct).sum() / weight.sum()) for trial, weight in scored])
    rates = np.array([trial.n_trusted**-0.5 for trial, _ in scored])
    weights = np.array([float(weight.sum()) for _, weight in scored])
    return 1 - float(_fall(rates, wrong, weights) @ (1.0, ahead))


def _fall(rates: FloatArray, wrong: FloatArray, weights: FloatArray) -> FloatArray:
    """The a and b >= 0 of wrong = a + b rate, by weighted least squares."""
    mean_rate, mean_wrong = np.average(rates, weights=weights), np.average(wrong, weights=weights)
    deviation = rates - mean_rate
    spread = float(weights @ deviation**2)
    slope = max(float(weights @ (deviation * (wrong - mean_wrong))) / spread, 0.0) if spread > 0 else 0.0
    if slope * mean_rate > mean_wrong:  # a would be negative: it falls faster, so go on from the best point
        return np.array([0.0, float(wrong[-1] / rates[-1])])
    return np.array([float(mean_wrong - slope * mean_rate), slope])
