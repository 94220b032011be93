"""Which rows a person should check first: a random draw from all rows, or in proportion from every class."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebomlc.errors import InputError
from ebomlc.records import FloatArray, IntArray
from ebomlc.seeding import numpy_generator

MIN_PER_CLASS = 2
"""Rows that a stratified draw takes of every class that has as many: one can be trained on, one watched."""

WHOLE = ""
"""Name of the one stratum of a draw that is not stratified."""


@dataclass(frozen=True)
class Drawn:
    """A random draw without replacement.

    Attributes
    ----------
    rows : int64 array, shape [n]
        Positions, in an order that leaves the first m of them a random draw too, for every m: who stops half-way has
        still checked a random sample.
    weights : float array, shape [n]
        Rows of the stratum / rows drawn of it, so that a weighted share is unbiased.
    strata : object array of str, shape [n]
        The given label that a row was drawn under; `WHOLE` for all where the draw is not stratified.
    sizes : mapping of str to int
        Rows of each stratum that could be drawn.
    """

    rows: IntArray
    weights: FloatArray
    strata: npt.NDArray[np.object_]
    sizes: Mapping[str, int]


def draw_rows(labels: npt.NDArray[np.object_], n: int, *, stratify: bool, seed: int) -> Drawn:
    """Draw rows at random to be checked.

    Parameters
    ----------
    labels : object array of str, shape [N]
        Given labels of the rows that may be drawn.
    n : int in [1, N]
        How many.
    stratify : bool
        False: every set of n rows is equally likely, and in every order. True: a random draw from each class, in
        proportion to its given labels but at least `MIN_PER_CLASS` where it has as many; the classes are spread evenly
        over the order, so that each beginning holds every class in proportion to its drawn rows, to within one.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        For n outside [1, N], and for fewer rows than classes where the draw is stratified.
    """
    if n < 1:
        raise InputError(f"-n is {n}; ask for at least one row")
    if n > len(labels):
        raise InputError(f"-n is {n}, but there are only {len(labels)} rows to draw from; ask for that many or fewer")
    generator = numpy_generator(seed, "rows to check")
    if stratify:
        return _draw_stratified(labels, n, generator)
    rows = generator.choice(len(labels), n, replace=False).astype(np.int64)
    strata = np.full(n, WHOLE, dtype=object)
    return Drawn(rows, np.full(n, len(labels) / n), strata, {WHOLE: len(labels)})


def _draw_stratified(labels: npt.NDArray[np.object_], n: int, generator: np.random.Generator) -> Drawn:
    names, index = np.unique(labels.astype(str), return_inverse=True)
    sizes = np.bincount(index)
    taken = allocate(sizes, n)
    picks = [generator.choice(np.flatnonzero(index == k), m, replace=False) for k, m in enumerate(taken)]
    # one random start for each class and equal steps from there: systematic order, Cochran 1977, chapter 8
    places = np.concatenate([(np.arange(m) + generator.random()) / m for m in taken])
    rows = np.concatenate(picks).astype(np.int64)[np.argsort(places, kind="stable")]
    return Drawn(
        rows=rows,
        weights=(sizes / taken)[index[rows]],
        strata=labels[rows],
        sizes=dict(zip(names.tolist(), sizes.tolist(), strict=True)),
    )


def allocate(sizes: IntArray, n: int) -> IntArray:
    """Rows to draw of each class: as near to proportional as leaves the heaviest row as light as can be.

    Parameters
    ----------
    sizes : int64 array, shape [K], >= 1
        Rows of each class.
    n : int in [K, sum of sizes]
        Rows to draw in all.

    Returns
    -------
    int64 array, shape [K]
        At least `MIN_PER_CLASS` of each class that has as many, one where n is too small for that. The rest goes, row
        by row, to the class with the most rows for each drawn one (Adams's rule of apportionment): the largest weight
        sets the width of the interval, see `ebomlc.labels.trust.effective_rows`.

    Raises
    ------
    InputError
        For fewer rows than classes.
    """
    if n < len(sizes):
        raise InputError(
            f"-n is {n}, but the labels name {len(sizes)} classes: a stratified draw takes a row of each at least; "
            f"ask for more rows, or leave --stratify out"
        )
    taken = np.minimum(sizes, MIN_PER_CLASS)
    if taken.sum() > n:
        taken = np.ones_like(sizes)
    waiting = [(-sizes[k] / taken[k], k) for k in np.flatnonzero(taken < sizes)]
    heapq.heapify(waiting)
    for _ in range(n - int(taken.sum())):
        _, k = waiting[0]
        taken[k] += 1
        if taken[k] < sizes[k]:
            heapq.heapreplace(waiting, (-sizes[k] / taken[k], k))
        else:
            heapq.heappop(waiting)
    return taken
