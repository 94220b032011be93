"""Where to cut the list of suspects: how sure it is that most labels up to a cut are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from ebomlc.labels.pairs import CheckedPairs
from ebomlc.labels.trust import Interval, rate_interval, weighted_rate_interval
from ebomlc.records import FloatArray, IntArray

MOST_CUTS = 40
"""Cuts that are looked at; each is an end of an equal share of the doubtful checked pairs."""


@dataclass(frozen=True)
class Suspects:
    """Rows with a label that another one is suggested for, as far as a cut is concerned.

    Attributes
    ----------
    quality : float array in [0, 1], shape [n]
        Probability that the given label is right.
    is_doubtful : bool array, shape [n]
        Another label is suggested; only such rows are ever called wrong.
    given : int64 array, shape [n]
        Given labels.
    """

    quality: FloatArray
    is_doubtful: npt.NDArray[np.bool_]
    given: IntArray

    def up_to(self, quality: float) -> npt.NDArray[np.bool_]:
        """The rows [n] that a cut calls wrong."""
        return self.is_doubtful & (self.quality <= quality)


def suspects_of(distributions: FloatArray, given: IntArray) -> Suspects:
    """Suspects among rows with distributions [n, K] over their right label and given labels [n]."""
    quality = distributions[np.arange(len(given)), given]
    return Suspects(quality, distributions.argmax(1) != given, given)


@dataclass(frozen=True)
class Cut:
    """What calling every doubtful row wrong would mean whose quality is no higher.

    Attributes
    ----------
    quality : float in [0, 1]
        Highest `label_quality` that is called wrong.
    rows : int
        Rows nobody checked that would be called wrong.
    n : int
        Checked pairs that would have been.
    precision : Interval
        Share of them whose label is wrong indeed: exact, by themselves.
    """

    quality: float
    rows: int
    n: int
    precision: Interval


@dataclass(frozen=True)
class Cuts:
    """All cuts, by rising quality, and the one that keeps a promise.

    Attributes
    ----------
    points : tuple of Cut
        Empty without doubtful pairs.
    chosen : Cut or None
        The loosest one whose precision is above the target with 97.5 % confidence, by `choose_cut`.
    """

    points: tuple[Cut, ...]
    chosen: Cut | None


def find_cuts(pairs: CheckedPairs, checked: Suspects, rest: Suspects, precision: float) -> Cuts:
    """Estimate the precision at each cut, and choose one.

    Parameters
    ----------
    pairs : CheckedPairs
        The n checked rows.
    checked : Suspects
        The same rows, by models that were not shown their checks.
    rest : Suspects
        The rows nobody checked.
    precision : float in (0, 1)
        Wanted share of wrong labels among those that are called wrong.
    """
    qualities = np.unique(checked.quality[checked.is_doubtful])
    if len(qualities) > MOST_CUTS:
        qualities = np.unique(np.quantile(qualities, np.linspace(0, 1, MOST_CUTS), method="higher"))
    points = tuple(_cut(float(quality), pairs, checked, rest) for quality in qualities)
    expected = [float(1 - checked.quality[checked.up_to(point.quality)].mean()) for point in points]
    return Cuts(points, choose_cut(points, expected, precision))


def _cut(quality: float, pairs: CheckedPairs, checked: Suspects, rest: Suspects) -> Cut:
    called, called_of_rest = checked.up_to(quality), rest.up_to(quality)
    wrong = pairs.wrong[called]
    if not pairs.is_stratified:
        interval = rate_interval(int(wrong.sum()), len(wrong))
    else:
        labels = np.concatenate([pairs.given[called], rest.given[called_of_rest]])
        sizes = {int(label): int(n) for label, n in zip(*np.unique(labels, return_counts=True), strict=True)}
        interval = weighted_rate_interval(wrong, pairs.weights[called], pairs.given[called], sizes)
    return Cut(quality, int(called_of_rest.sum()), len(wrong), interval)


def choose_cut(points: Sequence[Cut], expected: Sequence[float], precision: float) -> Cut | None:
    """The loosest cut that surely has a precision.

    To look at many cuts and take the best would be to take luck for precision. So the one that should pass most likely,
    by the confidences alone, is tested first, and then looser ones until the first that fails: a fixed sequence of
    tests, all of which together err no more often than one (Maurer, Hothorn and Lehmacher 1995; Angelopoulos et al.
    2021, Learn then Test).

    Parameters
    ----------
    points : sequence of Cut
        By rising quality.
    expected : sequence of float
        Precision of each by its rows' confidences, which know nothing of their checks.
    precision : float in (0, 1)
        Wanted at the lower limit of the interval.
    """
    if not points:
        return None
    chances = [_chance_to_pass(point.n, share, precision) for point, share in zip(points, expected, strict=True)]
    chosen = None
    for point in points[int(np.argmax(chances)) :]:
        if point.precision.low < precision:
            break
        chosen = point
    return chosen


def _chance_to_pass(n: int, expected: float, precision: float) -> float:
    """Chance that n rows, each wrong with the expected chance, show a precision with its lower limit."""
    fewest = next((k for k in range(int(precision * n), n + 1) if rate_interval(k, n).low >= precision), n + 1)
    return float(binom.sf(fewest - 1, n, expected))
