"""From the sets of a run to one set of rows that says of each what was given, what is right, and who looked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ebomlc.config import DataConfig
from ebomlc.data.content import row_digests
from ebomlc.data.inputs import Inputs
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.readers import Source
from ebomlc.data.sets import Sets, check_labelled, first_filled, is_empty
from ebomlc.data.splits import draw_trusted
from ebomlc.errors import DataWarning, InputError, listed, nearest_name
from ebomlc.records import NO_LABEL, FloatArray, IntArray
from ebomlc.seeding import child_seed, numpy_generator

Labels = npt.NDArray[np.object_]
Say = Callable[[str], None]

MOST_CLASSES, LONGEST_NAME, SHOWN_LETTERS = 10_000, 500, 40
"""Beyond these, a column of labels holds ids or texts; a table of all pairs of classes has to fit into memory."""


@dataclass(frozen=True)
class Rows:
    """All training rows; labels are names, or None.

    Attributes
    ----------
    ids, given, right, truth : object arrays, shape [N]
        The user's ids; given labels; right labels of trusted rows; right labels as far as they are known.
    inputs : Inputs
        Of every row.
    provenance : object array of str or None, shape [N]
        Why a trusted row was checked: ``random``, ``suspect`` or ``unknown``.
    weights : float array, shape [N]
        How many rows a trusted row stands for; NaN where that is not known.
    """

    ids: Labels
    inputs: Inputs
    given: Labels
    right: Labels
    truth: Labels
    provenance: Labels
    weights: FloatArray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_trusted(self) -> npt.NDArray[np.bool_]:
        """Which rows somebody checked."""
        return ~is_empty(self.right)

    def take(self, rows: IntArray) -> Rows:
        """Some rows, in the order asked for."""
        columns = ("ids", "given", "right", "truth", "provenance", "weights")
        return replace(self, inputs=self.inputs.take(rows), **{name: getattr(self, name)[rows] for name in columns})

    def extend(self, other: Rows) -> Rows:
        """These rows, and then others."""
        columns = ("ids", "given", "right", "truth", "provenance", "weights")
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in columns}
        return replace(self, inputs=self.inputs.join(other.inputs), **joined)


def join_sets(sets: Sets, config: DataConfig, seed: int, say: Say | None) -> Rows:
    """The noisy rows, those of them that were checked marked as such; then the trusted rows that are not among them.

    Parameters
    ----------
    sets : Sets
        As read.
    config : DataConfig
        Noise to lay over the labels, rows to draw.
    seed : int
        Of noise and draws.
    say : callable, optional
        Takes lines about rows that are left out.

    Raises
    ------
    InputError
        Where the sets do not fit together, or no trusted or no noisy row is left.
    """
    rows = _noisy_rows(sets, config, seed)
    if sets.trusted is not None:
        rows = _with_trusted(rows, sets.trusted, sets.noisy, say)
    elif config.n_trusted is not None:
        rows = _with_drawn(rows, config, seed)
    for reviewed in sets.reviewed:
        rows = _with_reviewed(rows, reviewed, sets.noisy, say)
    if not rows.is_trusted.any():
        raise InputError(_no_trusted_rows(config))
    if rows.is_trusted.all():
        raise InputError(f"every row of {sets.noisy.name} is a trusted one: there is nothing left to correct")
    return rows


def _no_trusted_rows(config: DataConfig) -> str:
    if config.checked is not None:
        return f"{config.noisy}: column {config.checked!r} is empty in every row: check some rows, and fill it there"
    return (
        "no trusted rows: give a file of checked rows with --trusted FILE, a column of checked labels with "
        "--checked COL, or --n-trusted N to draw them from a set whose right labels are known; "
        "`ebomlc sample` draws rows to check"
    )


def _noisy_rows(sets: Sets, config: DataConfig, seed: int) -> Rows:
    """The noisy set with its given labels, its truth where known, and its own checked rows."""
    noisy = sets.noisy
    if noisy.inputs is None:
        raise ValueError("the noisy set is always read with its inputs")
    if config.n_trusted is not None and not is_empty(noisy.checked).all():
        raise InputError(f"{noisy.name} has checked rows of its own: leave --n-trusted out")
    right = noisy.checked
    check_labelled(noisy, noisy.labels if config.noise is not None else first_filled(noisy.labels, right))
    given, truth = noisy.labels, right
    if config.noise is not None:
        given, truth = _corrupt(noisy, config.noise, seed), noisy.labels
    elif noisy.class_names:
        truth = noisy.labels
    if config.truth is not None:
        truth = first_filled(right, np.array([sets.truth.get(row) for row in noisy.ids], dtype=object))
    return Rows(
        noisy.ids,
        noisy.inputs,
        given,
        right,
        truth,
        np.where(is_empty(right), np.array(None, dtype=object), _provenance(noisy)),
        np.where(is_empty(right), np.nan, noisy.weights),
    )


def _provenance(source: Source) -> Labels:
    return np.where(is_empty(source.provenance), "unknown", source.provenance)


def _corrupt(noisy: Source, noise: str, seed: int) -> Labels:
    names = noisy.class_names or name_classes(noisy.labels)
    check_several(names, noisy.name)
    numbers = None if noisy.inputs is None else noisy.inputs.numbers()
    drawn = apply_noise(
        to_index(noisy.labels, names),
        parse_noise(noise),
        len(names),
        child_seed(seed, "noise"),
        inputs=numbers if numbers is not None and numbers.shape[1] else None,
        human=noisy.human,
        class_names=names,
        superclass=noisy.superclass,
    )
    return np.array(names, dtype=object)[drawn.labels]


def _with_drawn(rows: Rows, config: DataConfig, seed: int) -> Rows:
    known = ~is_empty(rows.truth)
    if not known.any():
        raise InputError("--n-trusted draws rows whose right label is known: give --truth FILE, or --trusted FILE")
    index = to_index(rows.truth, tuple(sorted(set(rows.truth[known]))))
    drawn = draw_trusted(index, np.flatnonzero(known), config.n_trusted or 0, seed)
    right, given, provenance = rows.right.copy(), rows.given.copy(), rows.provenance.copy()
    right[drawn], provenance[drawn] = rows.truth[drawn], "random"
    if not config.pairs:
        given[drawn] = None
    return replace(rows, right=right, given=given, provenance=provenance)


def thin(rows: Rows, n: int, seed: int) -> Rows:
    """All trusted rows and n of the noisy ones, in the order they had."""
    noisy = np.flatnonzero(~rows.is_trusted)
    if n > len(noisy):
        raise InputError(f"--n-noisy is {n:,}, but there are only {len(noisy):,} noisy rows; ask for fewer")
    kept = rows.is_trusted
    kept[numpy_generator(seed, "noisy rows").permutation(noisy)[:n]] = True
    return rows.take(np.flatnonzero(kept))


# --- trusted rows from elsewhere --------------------------------------------------------------------------------------


def _with_trusted(rows: Rows, trusted: Source, noisy: Source, say: Say | None) -> Rows:
    trusted = _without_skipped(trusted, noisy, say)
    position = _positions(rows, trusted, noisy)
    own = np.flatnonzero(position >= 0)
    _check_agreement(rows, trusted, own, position[own])
    rows = _marked(rows, trusted.take(own), position[own])
    strangers = np.flatnonzero(position < 0)
    if not len(strangers):
        return rows
    if trusted.inputs is None:
        raise _stranger(rows, trusted, noisy, strangers)
    return rows.extend(_as_rows(trusted.take(strangers), trusted.inputs.take(strangers)))


def _stranger(rows: Rows, trusted: Source, noisy: Source, strangers: IntArray) -> InputError:
    name, more = trusted.ids[strangers[0]], len(strangers) - 1
    start = f"{trusted.name}: id {name!r}{f' (and {more} more)' if more else ''} is not in {noisy.name}"
    if rows.inputs.kind == "table":
        return InputError(f"{start}, and the file has no inputs of its own: correct it, or add {noisy.name}'s columns")
    near = nearest_name(str(name), rows.ids)
    return InputError(f"{start}: correct it; ids there are such as {(near or rows.ids[0])!r}")


def _without_skipped(trusted: Source, noisy: Source, say: Say | None) -> Source:
    """Checked rows less those whose input could not be read, which the user wanted to be left out."""
    if trusted.inputs is not None or not noisy.skipped_ids:
        return trusted
    kept = np.array([row not in noisy.skipped_ids for row in trusted.ids])
    if say is not None and not kept.all():
        say(
            f"{trusted.name}: {(~kept).sum()} of {len(kept)} checked rows are left out, for their inputs cannot be read"
        )
    return trusted.take(np.flatnonzero(kept))


def _positions(rows: Rows, trusted: Source, noisy: Source) -> IntArray:
    """Where each trusted row is among the noisy ones; -1 for one that is not."""
    # the ids of a sample of rows without ids are their numbers, as `ebomlc sample` wrote them
    by_number = trusted.has_ids and not noisy.has_ids and trusted.asks_for_checks
    if not by_number and not (noisy.has_ids and trusted.has_ids):
        both = set(rows.ids) & set(_own_ids(trusted))
        if both:
            raise InputError(
                f"{trusted.name}: id {min(both)!r} also names a row of {noisy.name}; both files need an id column, "
                f"so that one can tell whether these are the same row"
            )
        return np.full(len(trusted), -1)
    index = {row: position for position, row in enumerate(rows.ids)}
    ids = trusted.ids
    if rows.inputs.kind == "images" and trusted.inputs is None:
        ids = [row if row in index else _below_folder(row, noisy.name) for row in ids]
    position = np.array([index.get(row, -1) for row in ids], dtype=np.int64)
    if by_number:
        _check_same_rows(rows, trusted, noisy, position)
    return position


def _below_folder(path: str, folder: str) -> str:
    """An image's path as Windows writes it, or with the folder's name in front, as it is below the folder."""
    plain = PurePosixPath(path.replace("\\", "/"))
    parts = plain.parts
    return "/".join(parts[1:]) if parts and parts[0] == Path(folder).name else str(plain)


def _own_ids(trusted: Source) -> Labels:
    return trusted.ids if trusted.has_ids else np.array([f"trusted-{row}" for row in trusted.ids], dtype=object)


def _check_same_rows(rows: Rows, trusted: Source, noisy: Source, position: IntArray) -> None:
    """Numbers of rows name the same rows only as long as the file is as it was."""
    other = (position < 0) | (~is_empty(trusted.given) & (rows.given[position] != trusted.given))
    if trusted.inputs is not None:
        other |= row_digests(rows.inputs.take(position)) != row_digests(trusted.inputs)
    if other.any():
        row = int(other.argmax())
        raise InputError(
            f"{trusted.name}: the row with number {trusted.ids[row]} is another one in {noisy.name}, which has no ids: "
            f"give both files an id column, or draw the sample anew if the file was changed"
        )


def _check_agreement(rows: Rows, trusted: Source, own: IntArray, position: IntArray) -> None:
    """A row that is checked in both files must have got the same label in both."""
    for row, place in zip(own, position, strict=True):
        here, there = trusted.labels[row], rows.right[place]
        if there is not None and here != there:
            raise InputError(
                f"{trusted.name}: id {trusted.ids[row]!r} is {here!r} there, but its checked label in the noisy set is "
                f"{there!r}: keep the right one"
            )


def _marked(rows: Rows, trusted: Source, position: IntArray) -> Rows:
    """The rows with what a trusted file says of some of them, which comes before what they say themselves."""
    given, right, truth = rows.given.copy(), rows.right.copy(), rows.truth.copy()
    provenance, weights = rows.provenance.copy(), rows.weights.copy()
    given[position] = first_filled(trusted.given, given[position])
    right[position] = truth[position] = trusted.labels
    known = first_filled(trusted.provenance, provenance[position])
    provenance[position] = np.where(is_empty(known), "unknown", known)
    weights[position] = np.where(np.isnan(trusted.weights), weights[position], trusted.weights)
    inputs = rows.inputs if trusted.inputs is None else rows.inputs.replace(position, trusted.inputs)
    return replace(rows, inputs=inputs, given=given, right=right, truth=truth, provenance=provenance, weights=weights)


def _as_rows(trusted: Source, inputs: Inputs) -> Rows:
    return Rows(
        _own_ids(trusted),
        inputs,
        trusted.given,
        trusted.labels,
        trusted.labels,
        _provenance(trusted),
        trusted.weights,
    )


# --- rows that people decided on in another run -----------------------------------------------------------------------


def _with_reviewed(rows: Rows, reviewed: Source, noisy: Source, say: Say | None) -> Rows:
    reviewed = _without_skipped(reviewed, noisy, say)
    position = _positions(rows, reviewed, noisy)
    strangers = [str(row) for row in reviewed.ids[position < 0]]
    if strangers:
        raise InputError(
            f"{reviewed.name}: {len(strangers)} of its {len(reviewed)} decided rows are not in {noisy.name} "
            f"({listed(strangers)}): --add-reviewed takes runs on the same set"
        )
    _check_decisions(rows, reviewed, position)
    _warn_of_changed(rows, reviewed, position)
    if say is not None:
        n_random = int((reviewed.provenance == "random").sum())
        say(f"{reviewed.name}: {len(reviewed):,} rows that people decided on are trusted, {n_random:,} shown at random")
    # a random draw stays one when somebody looks at the row again; the label that counts as given is the present one
    was_random = rows.provenance[position] == "random"
    known = replace(
        reviewed,
        provenance=np.where(was_random, "random", reviewed.provenance),
        given=np.full(len(reviewed), None, dtype=object),
    )
    return _marked(rows, known, position)


def _check_decisions(rows: Rows, reviewed: Source, position: IntArray) -> None:
    """What people decided must not contradict what is trusted already."""
    known = rows.right[position]
    other = ~is_empty(known) & (known != reviewed.labels)
    if other.any():
        row = int(other.argmax())
        raise InputError(
            f"{reviewed.name}: people decided that id {reviewed.ids[row]!r} is {reviewed.labels[row]!r}, but its "
            f"trusted label is {known[row]!r} ({other.sum()} such rows): correct that one, or the decision with "
            f"`ebomlc review`"
        )


def _warn_of_changed(rows: Rows, reviewed: Source, position: IntArray) -> None:
    given = rows.given[position]
    changed = ~is_empty(given) & ~is_empty(reviewed.given) & (given != reviewed.given)
    if changed.any():
        warnings.warn(
            f"{reviewed.name}: {changed.sum()} of {len(changed)} decided rows have another given label now than people "
            f"saw; the present one counts as given",
            DataWarning,
            stacklevel=2,
        )


# --- classes ----------------------------------------------------------------------------------------------------------


def name_classes(*labels: Labels) -> tuple[str, ...]:
    """Every class that occurs, numbers in the order of their value, else by alphabet."""
    names = {label for some in labels for label in some if label is not None}
    try:
        value = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not all(map(math.isfinite, value.values())):  # "nan" is a number to Python, and has no place among others
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (value[name], name)))


def to_index(labels: Labels, names: tuple[str, ...]) -> IntArray:
    """Class indices of labels; `NO_LABEL` for None and for a label that is no class."""
    index = {name: k for k, name in enumerate(names)}
    return np.array([NO_LABEL if label is None else index.get(label, NO_LABEL) for label in labels], dtype=np.int64)


def check_several(names: tuple[str, ...], where: str) -> None:
    """Raise InputError unless there are two classes at least, and all of them can be names of classes."""
    if len(names) < 2:
        raise InputError(
            f"{where}: only one class occurs, {listed(names)!r}: there is nothing to tell apart; is --label right?"
        )
    if len(names) > MOST_CLASSES:
        raise InputError(
            f"{where}: {len(names):,} labels differ, and {MOST_CLASSES:,} classes are the most; is --label right?"
        )
    longest = max(names, key=len)
    if len(longest) > LONGEST_NAME:
        raise InputError(
            f"{where}: a label has {len(longest):,} letters, {longest[:SHOWN_LETTERS]!r}..., and {LONGEST_NAME:,} are "
            f"the most: is --label right, or are these texts?"
        )
