"""Noisy and trusted sets joined into one pool of training rows with class indices, and the test set beside it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.config import DataConfig, automatic_heldout_fraction
from ebomlc.data.content import Overlap, count_overlap, row_digests
from ebomlc.data.images import LARGEST_SIZE
from ebomlc.data.inputs import Inputs
from ebomlc.data.joining import Rows, check_several, join_sets, name_classes, thin, to_index
from ebomlc.data.readers import Source
from ebomlc.data.sets import Sets, check_labelled, read_sets
from ebomlc.data.spelling import Spelling
from ebomlc.data.splits import make_split
from ebomlc.errors import DataWarning, InputError, listed, nearest_name
from ebomlc.records import CHECKED_COLUMN, NO_LABEL, FloatArray, IntArray, Split

Labels = npt.NDArray[np.object_]
Say = Callable[[str], None]

FEW = 2
"""So few rows of a class are as likely a slip of the pen."""


@dataclass(frozen=True)
class TestSet:
    """Rows with right labels that are only scored."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    inputs: Inputs
    labels: IntArray


@dataclass(frozen=True)
class Pool:
    """All training rows.

    Attributes
    ----------
    ids : object array of str, shape [N]
        The user's ids.
    inputs : Inputs
        Of every row.
    given : int64 array, shape [N]
        Given labels; `NO_LABEL` on trusted rows that carry none.
    right : int64 array, shape [N]
        Right labels of trusted rows; `NO_LABEL` on noisy rows.
    truth : int64 array, shape [N]
        Right labels of all rows as far as they are known; for scoring, and for the method ``oracle``.
    provenance : object array of str or None, shape [N]
        Why a trusted row was checked: ``random``, ``suspect`` or ``unknown``; None on noisy rows.
    weights : float array, shape [N]
        How many rows a trusted row stands for; NaN where that is not known.
    class_names : tuple of str, length K
        Class k's name.
    split : Split
        The role of each row.
    test : TestSet or None
        Held apart from the pool.
    overlap : Overlap
        Rows of equal content.
    stratum_sizes : int64 array, shape [K]
        Rows of the whole set, before any were left out, by given label.
    spelling : mapping of str to str
        How labels are spelt that came in several ways.
    skipped : tuple of (str, str)
        Names of inputs that could not be read, and why.
    """

    ids: Labels
    inputs: Inputs
    given: IntArray
    right: IntArray
    truth: IntArray
    provenance: Labels
    weights: FloatArray
    class_names: tuple[str, ...]
    split: Split
    test: TestSet | None
    overlap: Overlap
    stratum_sizes: IntArray
    spelling: Spelling
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def checked(self) -> IntArray:
        """Positions of all trusted rows, those that train and those that are only watched."""
        return np.flatnonzero(self.right != NO_LABEL)

    @property
    def scored(self) -> IntArray:
        """Positions of the noisy rows whose right label is known."""
        return self.split.noisy[self.truth[self.split.noisy] != NO_LABEL]

    @property
    def measured_noise(self) -> float | None:
        """Share of the noisy rows whose given label is not the right one; None where the truth is not known."""
        rows = self.scored
        return float((self.given[rows] != self.truth[rows]).mean()) if len(rows) else None


def load_pool(
    config: DataConfig,
    seed: int,
    *,
    objects: Mapping[str, Any] | None = None,
    largest_image: int = LARGEST_SIZE,
    say: Say | None = None,
) -> Pool:
    """Read, join and split what a configuration asks for.

    Parameters
    ----------
    config : DataConfig
        Files or built-in names, columns, noise.
    seed : int
        Of noise and split.
    objects : mapping, optional
        Rows given from Python in place of the file of the same name: ``noisy``, ``trusted``, ``test``, ``truth``; and
        ``reviewed``, see `ebomlc.data.sets.read_sets`.
    largest_image : int
        Pixels a side that large images are brought to, where the configuration does not say.
    say : callable, optional
        Takes lines about slow reading and about rows that are left out.

    Raises
    ------
    InputError
        For every input that cannot be used, before anything is written.

    Warns
    -----
    DataWarning
        For a class without trusted rows, and for a class that occurs in one set only.
    """
    sets = read_sets(config, objects or {}, largest_image, say)
    if sets.noisy.class_names and sets.trusted is not None:
        _check_known(sets.trusted, sets.trusted.labels, sets.noisy.class_names)
    for reviewed in sets.reviewed if sets.noisy.class_names else ():
        _check_known(reviewed, reviewed.labels, sets.noisy.class_names)
    rows = join_sets(sets, config, seed, say)
    # laid-over noise may leave a rare class without a single given label
    known = (rows.given, rows.right, rows.truth) if config.noise else (rows.given, rows.right)
    names = sets.noisy.class_names or name_classes(*known)
    given = to_index(rows.given, names)
    sizes = np.bincount(given[given != NO_LABEL], minlength=len(names))
    if config.n_noisy is not None:
        rows = thin(rows, config.n_noisy, seed)
    return _index(rows, names, sizes, sets, config, seed)


def _index(rows: Rows, names: tuple[str, ...], sizes: IntArray, sets: Sets, config: DataConfig, seed: int) -> Pool:
    check_several(names, _training_sets(config))
    _check_truth(rows, names, config.truth)
    given, right, truth = (to_index(labels, names) for labels in (rows.given, rows.right, rows.truth))
    trusted = np.flatnonzero(right != NO_LABEL)
    _check_trusted(given, right, names, _trusted_name(config))
    tested = None
    if sets.test is not None and sets.test.inputs is not None:
        check_labelled(sets.test, sets.test.labels)
        _check_known(sets.test, sets.test.labels, names)
        tested = TestSet(sets.test.inputs, to_index(sets.test.labels, names))
    fraction = config.heldout_fraction
    if fraction is None:
        fraction = automatic_heldout_fraction(len(trusted))
    return Pool(
        ids=rows.ids,
        inputs=rows.inputs,
        given=given,
        right=right,
        truth=truth,
        provenance=rows.provenance,
        weights=rows.weights,
        class_names=names,
        split=make_split(right, trusted, fraction, seed),
        test=tested,
        overlap=_overlap(rows, given, right, tested, config),
        stratum_sizes=sizes,
        spelling=sets.spelling,
        skipped=tuple(bad for source in (sets.noisy, sets.trusted, sets.test) if source for bad in source.skipped),
    )


def _overlap(rows: Rows, given: IntArray, right: IntArray, test: TestSet | None, config: DataConfig) -> Overlap:
    """Counts of equal content; test rows of the user's that also train are refused, for their score would flatter."""
    is_trusted = right != NO_LABEL
    labels = np.where(is_trusted, right, given)
    tested = None if test is None else row_digests(test.inputs)
    overlap = count_overlap(row_digests(rows.inputs), labels, is_trusted, tested, rows.inputs.kind)
    if config.test is not None and overlap.test and overlap.identifying and not config.allow_overlap:
        raise InputError(
            f"{config.test}: {overlap.test} test rows also occur in the training rows, by content, so their score "
            f"would flatter: remove them, or score them all the same with --allow-overlap"
        )
    return overlap


def _training_sets(config: DataConfig) -> str:
    return config.noisy if config.trusted is None else f"{config.noisy} and {config.trusted}"


def _trusted_name(config: DataConfig) -> str:
    if config.n_trusted is not None:
        return "--n-trusted"
    if config.trusted is None and config.checked is None and config.add_reviewed:
        return "--add-reviewed"
    return (
        config.trusted if config.trusted is not None else f"{config.noisy}, column {config.checked or CHECKED_COLUMN!r}"
    )


def _check_known(source: Source, labels: Labels, names: tuple[str, ...]) -> None:
    known = {None, *names}
    for row, label in enumerate(labels):
        if label not in known:
            raise InputError(
                f"{source.name}: {source.place(row)} has the label {label!r}, which no training row has; "
                f"correct it or remove the row; known: {listed(names)}"
            )


def _check_truth(rows: Rows, names: tuple[str, ...], file: str | None) -> None:
    known = {None, *names}
    for row, label in zip(rows.ids, rows.truth, strict=True):
        if label not in known:
            raise InputError(
                f"{file}: the row with id {row!r} has the label {label!r}, which occurs neither as a given nor as a "
                f"trusted label; correct it or remove the row; known: {listed(names)}"
            )


def _check_trusted(given: IntArray, right: IntArray, names: tuple[str, ...], where: str) -> None:
    trusted = np.bincount(right[right != NO_LABEL], minlength=len(names))
    noisy = np.bincount(given[(right == NO_LABEL) & (given != NO_LABEL)], minlength=len(names))
    if trusted.max() < 2:
        raise InputError(
            f"{where}: no class has two trusted rows ({trusted.sum()} in all): check more, "
            f"at least a few of each class, for each step trains on some of them and judges by others"
        )
    if not (trusted[noisy > 0]).any():
        raise InputError(
            f"{where}: no trusted row has a label that also occurs among the noisy ones "
            f"({listed(names)}); are they spelt alike?"
        )
    unchecked = [_shown(name, n, names) for name, n, m in zip(names, noisy, trusted, strict=True) if not m]
    unseen = [_shown(name, m, names) for name, n, m in zip(names, noisy, trusted, strict=True) if m and not n]
    if unchecked:
        _warn(f"no trusted row of class {listed(unchecked)}: it can hardly be corrected; check a few rows of it")
    if unseen:
        _warn(f"no noisy row of class {listed(unseen)}: it occurs in the trusted set only")


def _shown(name: str, n: int, names: tuple[str, ...]) -> str:
    """A class for a warning; one that hardly occurs may be another, misspelt."""
    near = nearest_name(name, [other for other in names if other != name]) if n <= FEW else None
    rows = f" ({n} row{'' if n == 1 else 's'}{f', did you mean {near!r}?' if near else ''})" if n <= FEW else ""
    return f"{name!r}{rows}"


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)
