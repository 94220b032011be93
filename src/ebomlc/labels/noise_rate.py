"""Share of wrong labels, in all and by class: from checked pairs, helped by what models say of all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from ebomlc.labels.pairs import CheckedPairs
from ebomlc.labels.trust import CONFIDENCE, Interval, rate_interval
from ebomlc.records import FloatArray, IntArray

ENOUGH_PAIRS, ENOUGH_OF_A_KIND = 50, 10
"""With fewer pairs, or fewer of either answer, the law of large numbers that the assisted interval needs is far off."""


@dataclass(frozen=True)
class Assessment:
    """Distributions over the right label, given the input and the given label, of all rows of a set.

    Attributes
    ----------
    of_pairs : float array, shape [n, K]
        Of the checked pairs, by models that were not shown their checks.
    of_rest : float array, shape [m, K]
        Of the rows that nobody checked, by the same models.
    given_of_rest : int64 array, shape [m]
        Their given labels.
    """

    of_pairs: FloatArray
    of_rest: FloatArray
    given_of_rest: IntArray


@dataclass(frozen=True)
class Share:
    """A share of rows, and where it comes from.

    Attributes
    ----------
    interval : Interval
        With 95 % confidence.
    n : int
        Checked pairs.
    is_assisted : bool
        Models helped; otherwise these are the checked pairs alone, with their exact interval.
    """

    interval: Interval
    n: int
    is_assisted: bool


def assisted_share(
    seen: npt.NDArray[np.bool_], expected: FloatArray, weights: FloatArray, expected_of_rest: FloatArray
) -> Interval:
    """Share of a set's rows of which something holds, from some checked rows and a guess at every row.

    The mean guess over all rows, corrected by the mean error of the guess on the checked ones: a difference estimator
    (Cochran 1977, Sampling Techniques, chapter 7), known today as prediction-powered inference with cross-fitted
    predictions (Angelopoulos et al. 2023; Zrnic and Candes 2024). It is right on average however bad the guesses, and
    the better they are the narrower.

    Parameters
    ----------
    seen : bool array, shape [n]
        Whether it holds of each checked row, n >= 2.
    expected : float array in [0, 1], shape [n]
        Its probability by models that were not shown the check of that row.
    weights : float array, shape [n], > 0
        Rows that each checked row stands for, up to a factor.
    expected_of_rest : float array in [0, 1], shape [m]
        The same models' probability for the rows that nobody checked.

    Returns
    -------
    Interval
        With 95 % confidence by Student's law, of the share among exactly these n + m rows. Guesses count by the factor
        in [0, 1] that makes the errors on the checked rows vary least, so that worthless ones do no harm. Its width is
        as if two more rows had come as a full surprise, one either way (after Agresti and Coull 1998): where guesses
        hardly ever fail, a few hundred rows may show none of the failures that there are.
    """
    n, n_all = len(seen), len(seen) + len(expected_of_rest)
    share = weights / weights.sum()
    factor = _best_factor(seen.astype(np.float64), expected, share)
    errors = seen - factor * expected
    correction = float(share @ errors)
    spread = float(np.square(share * (errors - correction)).sum()) + 2 / n**2
    variance = spread * n / (n - 1) * (1 - n / n_all)
    estimate = factor * float(expected.sum() + expected_of_rest.sum()) / n_all + correction
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * variance**0.5
    low, middle, high = np.clip([estimate - half, estimate, estimate + half], 0, 1).tolist()
    return Interval(middle, low, high)


def _best_factor(seen: FloatArray, expected: FloatArray, share: FloatArray) -> float:
    deviation = expected - share @ expected
    variance = float(share @ deviation**2)
    return float(np.clip(share @ (deviation * seen) / variance, 0, 1)) if variance > 0 else 0.0


def has_enough(seen: npt.NDArray[np.bool_]) -> bool:
    """Whether there are pairs enough, of which something holds or not, for `assisted_share`."""
    hits = int(seen.sum())
    return len(seen) >= ENOUGH_PAIRS and min(hits, len(seen) - hits) >= ENOUGH_OF_A_KIND


def noise_share(pairs: CheckedPairs, assessment: Assessment) -> Share | None:
    """Share of wrong labels in the whole set; None without enough pairs for an assisted interval."""
    if not has_enough(pairs.wrong):
        return None
    expected = 1 - _of_label(assessment.of_pairs, pairs.given)
    rest = 1 - _of_label(assessment.of_rest, assessment.given_of_rest)
    return Share(assisted_share(pairs.wrong, expected, pairs.weights, rest), len(pairs), True)


def _of_label(distributions: FloatArray, labels: IntArray) -> FloatArray:
    return distributions[np.arange(len(labels)), labels]


def transition_shares(pairs: CheckedPairs, assessment: Assessment | None, n_classes: int) -> list[list[Share]]:
    """T[given, right] [K][K]: of the rows with each given label, the share that is truly of each class.

    An entry is `assisted_share` of the rows with its given label where `has_enough` allows and models were asked; else
    the exact interval of the pairs alone, which is [0, 1] where there are none.
    """
    return [[_entry(pairs, assessment, given, right) for right in range(n_classes)] for given in range(n_classes)]


def _entry(pairs: CheckedPairs, assessment: Assessment | None, given: int, right: int) -> Share:
    chosen = pairs.given == given
    seen = pairs.right[chosen] == right
    if assessment is None or not has_enough(seen):
        return Share(rate_interval(int(seen.sum()), len(seen)), len(seen), False)
    rest = assessment.of_rest[assessment.given_of_rest == given, right]
    interval = assisted_share(seen, assessment.of_pairs[chosen, right], pairs.weights[chosen], rest)
    return Share(interval, len(seen), True)


def class_shares(pairs: CheckedPairs, assessment: Assessment | None, n_classes: int) -> list[Share]:
    """Share of wrong labels among the rows with each given label [K]; see `transition_shares`."""
    return [_complement(_entry(pairs, assessment, label, label)) for label in range(n_classes)]


def _complement(share: Share) -> Share:
    interval = share.interval
    return Share(Interval(1 - interval.estimate, 1 - interval.high, 1 - interval.low), share.n, share.is_assisted)
