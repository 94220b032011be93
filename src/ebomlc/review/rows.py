"""The rows of a run as a person goes through them: which, in which order, and which of them pass a filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebomlc.errors import InputError, unknown_name
from ebomlc.labels.decisions import MODES
from ebomlc.records import NO_LABEL, FloatArray, IntArray, LabelTable

RANDOM, SUSPECT = MODES
UNSURE = "unsure"
ORDERS = (SUSPECT, UNSURE, RANDOM)
"""Orders that rows are shown in. What is decided of unsure rows counts as of suspects: they were chosen, not drawn."""
OPEN, DECIDED, SKIPPED = range(3)
"""How a row stands."""

SHOWN = {"open": (OPEN,), "decided": (DECIDED,), "skipped": (SKIPPED,), "all": (OPEN, DECIDED, SKIPPED)}
"""What a filter by standing lets through."""


@dataclass(frozen=True)
class Rows:
    """The label table with classes as numbers, and the orders that rows are shown in.

    Attributes
    ----------
    ids : object array of str, shape [N]
        The user's ids; everywhere else in this room a row is its position here, which is safe in an address.
    class_names : tuple of str, length K
        Class k's name.
    given, suggested : int64 arrays, shape [N]
        Class numbers; `NO_LABEL` where a row came without a label.
    confidence, quality : float arrays in [0, 1], shape [N]
        Probability of the suggested and of the given label; the latter NaN without a given label.
    is_trusted : bool array, shape [N]
        Checked before the run; never shown.
    suspects : int64 array
        Rows whose suggestion differs from their label, the most doubtful label first.
    unsure : int64 array
        Every row that is not trusted, the least confident suggestion first: their right labels teach the next run most.
    shuffled : int64 array
        Every row that is not trusted, in the stored random order.
    """

    ids: npt.NDArray[np.object_]
    class_names: tuple[str, ...]
    given: IntArray
    suggested: IntArray
    confidence: FloatArray
    quality: FloatArray
    is_trusted: npt.NDArray[np.bool_]
    suspects: IntArray
    unsure: IntArray
    shuffled: IntArray

    def order(self, name: str) -> IntArray:
        """Rows of one of `ORDERS`, the next one first."""
        return {SUSPECT: self.suspects, UNSURE: self.unsure, RANDOM: self.shuffled}[name]


@dataclass(frozen=True)
class Filter:
    """Which suspects, or unsure rows, somebody wants to see.

    Attributes
    ----------
    given, suggested : int or None
        Only these classes.
    low, high : float in [0, 1]
        Limits of the suggestion's confidence; both belong to it.
    show : str
        One of `SHOWN`.

    Raises
    ------
    InputError
        For limits outside [0, 1] or the wrong way round, and for an unknown standing.
    """

    given: int | None = None
    suggested: int | None = None
    low: float = 0.0
    high: float = 1.0
    show: str = "open"

    def __post_init__(self) -> None:
        if self.show not in SHOWN:
            raise unknown_name("filter", self.show, SHOWN)
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(f"no confidence lies between {self.low} and {self.high}: give two numbers from 0 to 1")

    def passes(self, rows: Rows, standing: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Whether each row of a run [N] gets through, with rows standing as `standing` [N] says."""
        passes = np.isin(standing, SHOWN[self.show]) & (self.low <= rows.confidence) & (rows.confidence <= self.high)
        if self.given is not None:
            passes &= rows.given == self.given
        if self.suggested is not None:
            passes &= rows.suggested == self.suggested
        return passes


def rows_to_review(labels: LabelTable, class_names: tuple[str, ...], random_order: Sequence[str]) -> Rows:
    """The rows of a run in the orders to review them in.

    Parameters
    ----------
    labels : LabelTable
        Of the run.
    class_names : tuple of str
        Of the run.
    random_order : sequence of str
        Ids of the rows that are not trusted, shuffled.

    Raises
    ------
    InputError
        Where every row is trusted, so that nothing is left to review.
    """
    if labels.is_trusted.all():
        raise InputError("every row of the run is trusted, that is, was checked before: nothing is left to review")
    given, suggested = (_numbers(column, class_names) for column in (labels.given_label, labels.suggested_label))
    unchecked = np.flatnonzero(~labels.is_trusted)
    doubted = unchecked[given[unchecked] != suggested[unchecked]]
    positions = {row: position for position, row in enumerate(labels.id)}
    # a row without a given label has no quality; it comes last
    worst_first = np.argsort(np.nan_to_num(labels.label_quality[doubted], nan=1.0), kind="stable")
    return Rows(
        ids=labels.id,
        class_names=class_names,
        given=given,
        suggested=suggested,
        confidence=labels.suggestion_confidence,
        quality=labels.label_quality,
        is_trusted=labels.is_trusted,
        suspects=doubted[worst_first],
        unsure=unchecked[np.argsort(labels.suggestion_confidence[unchecked], kind="stable")],
        shuffled=np.array([positions[row] for row in random_order], dtype=np.int64),
    )


def _numbers(names: npt.NDArray[np.object_], class_names: tuple[str, ...]) -> IntArray:
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers.get(name, NO_LABEL) for name in names], dtype=np.int64)
