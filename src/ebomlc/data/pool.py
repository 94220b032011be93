"""Noisy and trusted sets joined into one pool of training rows with class indices, and the test set beside it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ebomlc.config import DataConfig, automatic_heldout_fraction
from ebomlc.data.inputs import Inputs
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.readers import Columns, Source, is_built_in, read_built_in, read_file, read_labels
from ebomlc.data.splits import draw_trusted, make_split
from ebomlc.errors import DataWarning, InputError, listed
from ebomlc.records import NO_LABEL, IntArray, Split
from ebomlc.seeding import child_seed

Labels = npt.NDArray[np.object_]


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
    class_names : tuple of str, length K
        Class k's name.
    split : Split
        The role of each row.
    test : TestSet or None
        Held apart from the pool.
    """

    ids: Labels
    inputs: Inputs
    given: IntArray
    right: IntArray
    truth: IntArray
    class_names: tuple[str, ...]
    split: Split
    test: TestSet | None

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def scored(self) -> IntArray:
        """Positions of the noisy rows whose right label is known."""
        return self.split.noisy[self.truth[self.split.noisy] != NO_LABEL]

    @property
    def measured_noise(self) -> float | None:
        """Share of the noisy rows whose given label is not the right one; None where the truth is not known."""
        rows = self.scored
        return float((self.given[rows] != self.truth[rows]).mean()) if len(rows) else None


@dataclass(frozen=True)
class _Rows:
    """A pool before its split: which rows are trusted is known."""

    ids: Labels
    inputs: Inputs
    given: Labels
    right: Labels
    truth: Labels
    class_names: tuple[str, ...]


def load_pool(config: DataConfig, seed: int) -> Pool:
    """Read, join and split what a configuration asks for.

    Parameters
    ----------
    config : DataConfig
        Files or built-in names, columns, noise.
    seed : int
        Of noise and split.

    Raises
    ------
    InputError
        For every input that cannot be used, before anything is written.

    Warns
    -----
    DataWarning
        For a class without trusted rows, and for a class that occurs in one set only.
    """
    noisy, test = _read_noisy(config)
    columns = _columns(config, noisy)
    if config.test is not None:
        test = _read(config.test, config, replace(columns, id=None), noisy)  # ids of test rows play no part
    if config.trusted is not None:
        if config.trusted == config.noisy and test is not None:
            raise InputError(
                f"--trusted {config.trusted} would train on its test rows: draw trusted rows, --n-trusted N"
            )
        trusted = _read(config.trusted, config, columns, noisy)
        if noisy.class_names:
            _check_known(trusted, noisy.class_names)
        rows = _with_trusted(_noisy_rows(noisy, config, seed), trusted, noisy)
    elif config.n_trusted is not None:
        rows = _with_drawn(_noisy_rows(noisy, config, seed), config, seed)
    else:
        raise InputError(
            "no trusted rows: give a file of checked rows with --trusted FILE, "
            "or --n-trusted N to draw them from a set whose right labels are known"
        )
    # laid-over noise may leave a rare class without a single given label
    known = (rows.given, rows.right, rows.truth) if config.noise else (rows.given, rows.right)
    names = noisy.class_names or _class_names(*known)
    return _index(rows, names, test, config, seed)


def _read_noisy(config: DataConfig) -> tuple[Source, Source | None]:
    if is_built_in(config.noisy):
        if config.text is not None or config.features:
            raise InputError(f"{config.noisy} is built in and has no columns: leave --text and --features out")
        return read_built_in(config.noisy, Path(config.data_dir) if config.data_dir else None)
    return read_file(Path(config.noisy), Columns(config.id, config.label, config.text, config.features)), None


def _columns(config: DataConfig, noisy: Source) -> Columns:
    """Columns of the other files: the features are those that the noisy file was found to have."""
    features = noisy.inputs.columns if noisy.inputs.kind == "numbers" else ()
    return Columns(config.id, config.label, config.text, features)


def _read(name: str, config: DataConfig, columns: Columns, noisy: Source) -> Source:
    """The trusted or the test set, whose inputs must be like those of the noisy set."""
    if is_built_in(name):
        source = read_built_in(name, Path(config.data_dir) if config.data_dir else None)[1]
    else:
        source = read_file(Path(name), columns)
    here, there = (_describe(one.inputs) for one in (source, noisy))
    if here != there:
        raise InputError(f"a row of {source.name} is {here}, but a row of {noisy.name} is {there}: they must be alike")
    return source


def _describe(inputs: Inputs) -> str:
    if inputs.kind == "text":
        return "a text"
    size = " x ".join(map(str, inputs.values.shape[1:]))
    return f"an image of {size}" if inputs.kind == "images" else f"{size} numbers ({listed(inputs.columns)})"


def _noisy_rows(noisy: Source, config: DataConfig, seed: int) -> _Rows:
    """The noisy set with its given labels, its truth where known, and no trusted row yet."""
    nothing = np.full(len(noisy), None, dtype=object)
    given, truth = noisy.labels, nothing
    if config.noise is not None:
        given, truth = _corrupt(noisy, config.noise, seed), noisy.labels
    elif noisy.class_names:
        truth = noisy.labels
    if config.truth is not None:
        if config.noise is not None:
            raise InputError("--truth and --noise exclude each other: noise is laid over labels taken as right")
        truth = _read_truth(config.truth, config, noisy)
    return _Rows(noisy.ids, noisy.inputs, given, nothing, truth, noisy.class_names)


def _read_truth(name: str, config: DataConfig, noisy: Source) -> Labels:
    if not noisy.has_ids:
        raise InputError(f"{noisy.name}: has no column 'id', which {name} is joined by; name it with --id")
    known = read_labels(Path(name), Columns(config.id, config.label))
    truth = np.array([known.get(row) for row in noisy.ids], dtype=object)
    if all(label is None for label in truth):
        raise InputError(f"{name}: none of its ids occurs in {noisy.name}; is --id right?")
    return truth


def _corrupt(noisy: Source, noise: str, seed: int) -> Labels:
    names = noisy.class_names or _class_names(noisy.labels)
    _check_several(names, noisy.name)
    labels = _to_index(noisy.labels, names)
    inputs = noisy.inputs.values if noisy.inputs.kind != "text" else None
    drawn = apply_noise(
        labels,
        parse_noise(noise),
        len(names),
        child_seed(seed, "noise"),
        inputs=inputs,
        human=noisy.human,
        class_names=names,
        superclass=noisy.superclass,
    )
    return np.array(names, dtype=object)[drawn.labels]


def _with_drawn(rows: _Rows, config: DataConfig, seed: int) -> _Rows:
    known = np.array([label is not None for label in rows.truth])
    if not known.any():
        raise InputError("--n-trusted draws rows whose right label is known: give --truth FILE, or --trusted FILE")
    index = _to_index(rows.truth, tuple(sorted(set(rows.truth[known]))))
    drawn = draw_trusted(index, np.flatnonzero(known), config.n_trusted or 0, seed)
    right, given = rows.right.copy(), rows.given.copy()
    right[drawn] = rows.truth[drawn]
    if not config.pairs:
        given[drawn] = None
    return replace(rows, right=right, given=given)


def _with_trusted(rows: _Rows, trusted: Source, noisy: Source) -> _Rows:
    """Noisy and then trusted rows; a trusted row whose id is in the noisy set replaces that row, keeping its label."""
    joinable = noisy.has_ids and trusted.has_ids
    ids = trusted.ids if trusted.has_ids else np.array([f"trusted-{row}" for row in trusted.ids], dtype=object)
    both = set() if joinable else set(rows.ids) & set(ids)
    if both:
        raise InputError(
            f"{trusted.name}: id {min(both)!r} also names a row of {noisy.name}; both files need an id column, "
            f"so that one can tell whether these are the same row"
        )
    given = trusted.given.copy()
    keep = np.ones(len(rows.ids), dtype=bool)
    if joinable:
        position = {row: index for index, row in enumerate(rows.ids)}
        for index, row in enumerate(ids):
            if row in position:
                keep[position[row]] = False
                given[index] = rows.given[position[row]] if given[index] is None else given[index]
    kept = np.flatnonzero(keep)
    if not len(kept):
        raise InputError(f"every row of the noisy set is also in {trusted.name}: there is nothing left to correct")
    return _Rows(
        ids=np.concatenate([rows.ids[kept], ids]),
        inputs=rows.inputs.take(kept).join(trusted.inputs),
        given=np.concatenate([rows.given[kept], given]),
        right=np.concatenate([rows.right[kept], trusted.labels]),
        truth=np.concatenate([rows.truth[kept], trusted.labels]),
        class_names=rows.class_names,
    )


def _class_names(*labels: Labels) -> tuple[str, ...]:
    """Every class that occurs, numbers in the order of their value, else by alphabet."""
    names = {label for some in labels for label in some if label is not None}
    try:
        value = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not all(map(math.isfinite, value.values())):  # "nan" is a number to Python, and has no place among others
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (value[name], name)))


def _to_index(labels: Labels, names: tuple[str, ...]) -> IntArray:
    index = {name: k for k, name in enumerate(names)}
    return np.array([NO_LABEL if label is None else index.get(label, NO_LABEL) for label in labels], dtype=np.int64)


def _index(rows: _Rows, names: tuple[str, ...], test: Source | None, config: DataConfig, seed: int) -> Pool:
    _check_several(names, _training_sets(config))
    _check_truth(rows, names, config.truth)
    given, right, truth = (_to_index(labels, names) for labels in (rows.given, rows.right, rows.truth))
    trusted = np.flatnonzero(right != NO_LABEL)
    _check_trusted(given, right, names, config.trusted)
    tested = None
    if test is not None:
        _check_known(test, names)
        tested = TestSet(test.inputs, _to_index(test.labels, names))
    fraction = config.heldout_fraction
    if fraction is None:
        fraction = automatic_heldout_fraction(len(trusted))
    split = make_split(right, trusted, fraction, seed)
    return Pool(rows.ids, rows.inputs, given, right, truth, names, split, tested)


def _training_sets(config: DataConfig) -> str:
    return config.noisy if config.trusted is None else f"{config.noisy} and {config.trusted}"


def _check_several(names: tuple[str, ...], where: str) -> None:
    if len(names) < 2:
        raise InputError(
            f"{where}: only one class occurs, {listed(names)!r}: there is nothing to tell apart; is --label right?"
        )


def _check_known(source: Source, names: tuple[str, ...]) -> None:
    known = set(names)
    for row, label in enumerate(source.labels):
        if label not in known:
            raise InputError(
                f"{source.name}: {source.place(row)} has the label {label!r}, which no training row has; "
                f"correct it or remove the row; known: {listed(names)}"
            )


def _check_truth(rows: _Rows, names: tuple[str, ...], file: str | None) -> None:
    known = {None, *names}
    for row, label in zip(rows.ids, rows.truth, strict=True):
        if label not in known:
            raise InputError(
                f"{file}: the row with id {row!r} has the label {label!r}, which occurs neither as a given nor as a "
                f"trusted label; correct it or remove the row; known: {listed(names)}"
            )


def _check_trusted(given: IntArray, right: IntArray, names: tuple[str, ...], file: str | None) -> None:
    trusted = np.bincount(right[right != NO_LABEL], minlength=len(names))
    noisy = np.bincount(given[(right == NO_LABEL) & (given != NO_LABEL)], minlength=len(names))
    if trusted.max() < 2:
        raise InputError(
            f"{file or '--n-trusted'}: no class has two trusted rows ({trusted.sum()} in all): half of them train and "
            f"half judge, so check more rows, at least a few of each class"
        )
    if not (trusted[noisy > 0]).any():
        raise InputError(
            f"{file or '--n-trusted'}: no trusted row has a label that also occurs among the noisy ones "
            f"({listed(names)}); are they spelt alike?"
        )
    unchecked = [repr(name) for name, count in zip(names, trusted, strict=True) if not count]
    unseen = [repr(name) for name, n, m in zip(names, noisy, trusted, strict=True) if m and not n]
    if unchecked:
        _warn(f"no trusted row of class {listed(unchecked)}: it can hardly be corrected; check a few rows of it")
    if unseen:
        _warn(f"no noisy row of class {listed(unseen)}: it occurs in the trusted set only")


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)
