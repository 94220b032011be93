"""Checked rows that carry both labels: the only ones that can say how far a corrected label is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebomlc.records import NO_LABEL, FloatArray, IntArray


@dataclass(frozen=True)
class CheckedPairs:
    """Rows whose given label is known, and whose right label somebody looked up.

    A corrector answers "what is right, if this label was given". Shown the right label as the given one, it looks far
    better than it is; so whatever measures it takes this record, which such a row cannot enter.

    Attributes
    ----------
    rows : int64 array, shape [n]
        Positions in the pool, rising.
    given, right : int64 arrays in [0, K), shape [n]
        Labels before and after the check.
    weights : float array, shape [n], > 0
        Rows of the set that each stands for; all 1 where they were not drawn by given label.
    is_random : bool
        They are known to have been drawn at random; otherwise nobody said how they were picked.
    is_stratified : bool
        They were drawn by given label, with weights.

    Raises
    ------
    ValueError
        For arrays of unequal length, a label that is missing, a weight that is not above 0.
    """

    rows: IntArray
    given: IntArray
    right: IntArray
    weights: FloatArray
    is_random: bool
    is_stratified: bool

    def __post_init__(self) -> None:
        """Check that every row is a pair."""
        if not len(self.rows) == len(self.given) == len(self.right) == len(self.weights):
            raise ValueError("a pair is a row, a given label, a right label and a weight: the lengths differ")
        if (self.given == NO_LABEL).any() or (self.right == NO_LABEL).any():
            raise ValueError("a pair has both labels: a row without a given label says nothing about a corrector")
        if not (self.weights > 0).all():
            raise ValueError("every weight must be above 0")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Whether each given label is wrong [n]."""
        return self.given != self.right

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> CheckedPairs:
        """The pairs that are chosen, by a mask [n]."""
        parts = (self.rows[chosen], self.given[chosen], self.right[chosen], self.weights[chosen])
        return CheckedPairs(*parts, self.is_random, self.is_stratified)


def find_pairs(
    given: IntArray, right: IntArray, provenance: npt.NDArray[np.object_], weights: FloatArray
) -> CheckedPairs:
    """The checked rows that say something about the whole set.

    Parameters
    ----------
    given, right : int64 arrays, shape [N]
        Labels of all rows; `NO_LABEL` where one is not known.
    provenance : object array of str or None, shape [N]
        Why a row was checked: where any was drawn at random, only those count, else those of which nobody knows. Rows
        that were checked because they looked wrong never count.
    weights : float array, shape [N]
        Rows of the set that a random row stands for; NaN where that is not known. Unequal weights mean a draw by given
        label, of which only rows with a weight count.

    Returns
    -------
    CheckedPairs
        Possibly none.
    """
    whole = (given != NO_LABEL) & (right != NO_LABEL)
    is_random = bool((provenance[whole] == "random").any())
    rows = np.flatnonzero(whole & (provenance == ("random" if is_random else "unknown")))
    weighted = rows[np.isfinite(weights[rows])]
    is_stratified = len(weighted) > 0 and not np.allclose(weights[weighted], weights[weighted[0]])
    rows = weighted if is_stratified else rows
    counted = weights[rows] if is_stratified else np.ones(len(rows))
    return CheckedPairs(rows, given[rows], right[rows], counted, is_random, is_stratified)
