"""Noisy and trusted sets joined into one pool of training rows with class indices, and the test set beside it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ebomlc.config import DataConfig, automatic_heldout_fraction
from ebomlc.data.columns import Columns
from ebomlc.data.content import Overlap, count_overlap, row_digests
from ebomlc.data.images import LARGEST_SIZE
from ebomlc.data.inputs import Inputs
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.readers import CHECKED_COLUMN, Reading, Source, is_built_in, read_labels, read_source
from ebomlc.data.spelling import Spelling, choose_spelling
from ebomlc.data.splits import draw_trusted, make_split
from ebomlc.errors import DataWarning, InputError, listed
from ebomlc.records import NO_LABEL, FloatArray, IntArray, Split
from ebomlc.seeding import child_seed, numpy_generator

Labels = npt.NDArray[np.object_]
Say = Callable[[str], None]


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


@dataclass(frozen=True)
class _Sets:
    """Everything that was read."""

    noisy: Source
    trusted: Source | None
    test: Source | None
    truth: Mapping[str, str]


@dataclass(frozen=True)
class _Rows:
    """A pool before its split: which rows are trusted is known."""

    ids: Labels
    inputs: Inputs
    given: Labels
    right: Labels
    truth: Labels
    provenance: Labels
    weights: FloatArray
    class_names: tuple[str, ...]


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
        Rows given from Python in place of the file of the same name: ``noisy``, ``trusted``, ``test``, ``truth``.
    largest_image : int
        Pixels a side that large images are brought to, where the configuration does not say.
    say : callable, optional
        Takes lines about slow reading.

    Raises
    ------
    InputError
        For every input that cannot be used, before anything is written.

    Warns
    -----
    DataWarning
        For a class without trusted rows, and for a class that occurs in one set only.
    """
    sets = _one_spelling(
        _read_sets(config, objects or {}, _reading(config, largest_image, say)), config.normalise_labels
    )
    rows = _noisy_rows(sets, config, seed)
    if sets.trusted is not None:
        if sets.noisy.class_names:
            _check_known(sets.trusted, sets.trusted.labels, sets.noisy.class_names)
        rows = _with_trusted(rows, _merge_repeated(_checked_rows(sets.trusted, say)), sets.noisy)
    elif config.n_trusted is not None:
        rows = _with_drawn(rows, config, seed)
    if all(label is None for label in rows.right):
        raise InputError(_no_trusted_rows(config))
    # laid-over noise may leave a rare class without a single given label
    known = (rows.given, rows.right, rows.truth) if config.noise else (rows.given, rows.right)
    names = sets.noisy.class_names or _class_names(*known)
    if config.n_noisy is not None:
        rows = _thinned(rows, config.n_noisy, seed)
    return _index(rows, names, sets, config, seed)


def _no_trusted_rows(config: DataConfig) -> str:
    if config.checked is not None:
        return f"{config.noisy}: column {config.checked!r} is empty in every row: check some rows, and fill it there"
    return (
        "no trusted rows: give a file of checked rows with --trusted FILE, a column of checked labels with "
        "--checked COL, or --n-trusted N to draw them from a set whose right labels are known; "
        "`ebomlc sample` draws rows to check"
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_sets(config: DataConfig, objects: Mapping[str, Any], reading: Reading) -> _Sets:
    if is_built_in(config.noisy) and (config.text or config.features or config.image or config.checked):
        raise InputError(
            f"{config.noisy} is built in and has no columns: leave --text, --features, --image and --checked out"
        )
    noisy = read_source(
        objects.get("noisy", config.noisy), replace(reading, checked_required=config.checked is not None)
    )
    _check_unique(noisy)
    test = read_source(config.noisy, reading, test=True) if is_built_in(config.noisy) else None
    if config.test is not None:
        # ids of test rows play no part
        test = _read(objects.get("test", config.test), _without_id(reading), noisy, test=True)
    trusted = None
    if config.trusted is not None:
        if is_built_in(config.noisy) and config.trusted == config.noisy:
            raise InputError(
                f"--trusted {config.trusted} would train on its test rows: draw trusted rows, --n-trusted N"
            )
        trusted = _read(objects.get("trusted", config.trusted), reading, noisy, test=is_built_in(config.trusted))
    truth = {}
    if config.truth is not None:
        truth = _read_truth(objects.get("truth", config.truth), reading, config, noisy)
    return _Sets(noisy, trusted, test, truth)


def _reading(config: DataConfig, largest_image: int, say: Say | None) -> Reading:
    columns = Columns(
        id=config.id,
        label=config.label,
        checked=config.checked or CHECKED_COLUMN,
        text=config.text,
        features=config.features,
        image=config.image,
    )
    return Reading(
        columns=columns,
        data_dir=Path(config.data_dir) if config.data_dir else None,
        image_size=config.image_size,
        largest_image=largest_image,
        on_bad_input=cast(Any, config.on_bad_input),
        cache_dir=Path(config.cache_dir) if config.cache_dir else None,
        say=say,
    )


def _without_id(reading: Reading) -> Reading:
    return replace(reading, columns=replace(reading.columns, id=None))


def _read(data: Any, reading: Reading, noisy: Source, *, test: bool) -> Source:  # noqa: ANN401 - as `read_source`
    """The trusted or the test set, whose inputs must be like those of the noisy set."""
    source = read_source(data, replace(reading, like_name=noisy.name), like=noisy.inputs, test=test)
    if source.inputs is None or noisy.inputs is None:
        return source
    here, there = (_describe(one.inputs) for one in (source, noisy))
    if here != there:
        raise InputError(f"a row of {source.name} is {here}, but a row of {noisy.name} is {there}: they must be alike")
    return source


def _describe(inputs: Inputs | None) -> str:
    if inputs is None:
        return "nothing"
    if inputs.kind == "table":
        return f"{len(inputs.roles)} columns ({listed(inputs.columns)})"
    size = " x ".join(map(str, inputs.values.shape[1:]))
    return f"an image of {size}" if inputs.kind == "images" else f"an embedding of {size} numbers"


def _read_truth(data: Any, reading: Reading, config: DataConfig, noisy: Source) -> Mapping[str, str]:  # noqa: ANN401
    if config.noise is not None:
        raise InputError("--truth and --noise exclude each other: noise is laid over labels taken as right")
    if not noisy.has_ids:
        raise InputError(f"{noisy.name}: has no column 'id', which {config.truth} is joined by; name it with --id")
    known = read_labels(data, reading)
    if not any(row in known for row in noisy.ids):
        raise InputError(f"{config.truth}: none of its ids occurs in {noisy.name}; is --id right?")
    return known


def _check_unique(source: Source) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(source.ids):
        if name in first:
            raise InputError(
                f"{source.name}: id {name!r} is repeated in {source.places(first[name], row)}; ids must be unique"
            )
        first[name] = row


def _one_spelling(sets: _Sets, wanted: bool | None) -> _Sets:
    """Labels that differ only by case or blanks become one, stay apart, or are asked about."""
    sources = [source for source in (sets.noisy, sets.trusted, sets.test) if source is not None]
    columns = [column for source in sources for column in (source.labels, source.checked, source.given)]
    spelling = choose_spelling([*columns, np.array([*sets.truth.values()], dtype=object)], wanted)
    if spelling is None:
        return sets

    def respelt(source: Source | None) -> Source | None:
        return None if source is None else _respelt(source, spelling)

    noisy = cast(Source, respelt(sets.noisy))
    truth = {row: spelling.get(label, label) for row, label in sets.truth.items()}
    return _Sets(noisy, respelt(sets.trusted), respelt(sets.test), truth)


def _respelt(source: Source, spelling: Spelling) -> Source:
    def mapped(labels: Labels) -> Labels:
        return np.array([label if label is None else spelling.get(label, label) for label in labels], dtype=object)

    return replace(source, labels=mapped(source.labels), checked=mapped(source.checked), given=mapped(source.given))


# --- joining ----------------------------------------------------------------------------------------------------------


def _noisy_rows(sets: _Sets, config: DataConfig, seed: int) -> _Rows:
    """The noisy set with its given labels, its truth where known, and its own checked rows."""
    noisy = sets.noisy
    assert noisy.inputs is not None, "the noisy set is always read with its inputs"
    nothing = np.full(len(noisy), None, dtype=object)
    right = nothing if config.n_trusted is not None else noisy.checked
    _check_labelled(noisy, noisy.labels, right)
    given, truth = noisy.labels, right
    if config.noise is not None:
        given, truth = _corrupt(noisy, config.noise, seed), noisy.labels
    elif noisy.class_names:
        truth = noisy.labels
    if config.truth is not None:
        truth = np.array([sets.truth.get(row) for row in noisy.ids], dtype=object)
        truth = np.where(_empty(right), truth, right)
    provenance = np.where(_empty(noisy.provenance), "unknown", noisy.provenance)
    provenance[_empty(right)] = None
    weights = np.where(_empty(right), np.nan, noisy.weights)
    return _Rows(noisy.ids, noisy.inputs, given, right, truth, provenance, weights, noisy.class_names)


def _empty(labels: Labels) -> npt.NDArray[np.bool_]:
    return np.array([label is None for label in labels], dtype=bool)


def _check_labelled(source: Source, labels: Labels, right: Labels) -> None:
    for row, (label, checked) in enumerate(zip(labels, right, strict=True)):
        if label is None and checked is None:
            raise InputError(f"{source.name}: the label in {source.places(row)} is empty; fill it or remove the row")


def _corrupt(noisy: Source, noise: str, seed: int) -> Labels:
    names = noisy.class_names or _class_names(noisy.labels)
    _check_several(names, noisy.name)
    labels = _to_index(noisy.labels, names)
    numbers = None if noisy.inputs is None else noisy.inputs.numbers()
    drawn = apply_noise(
        labels,
        parse_noise(noise),
        len(names),
        child_seed(seed, "noise"),
        inputs=numbers if numbers is not None and numbers.shape[1] else None,
        human=noisy.human,
        class_names=names,
        superclass=noisy.superclass,
    )
    return np.array(names, dtype=object)[drawn.labels]


def _with_drawn(rows: _Rows, config: DataConfig, seed: int) -> _Rows:
    known = ~_empty(rows.truth)
    if not known.any():
        raise InputError("--n-trusted draws rows whose right label is known: give --truth FILE, or --trusted FILE")
    index = _to_index(rows.truth, tuple(sorted(set(rows.truth[known]))))
    drawn = draw_trusted(index, np.flatnonzero(known), config.n_trusted or 0, seed)
    right, given, provenance = rows.right.copy(), rows.given.copy(), rows.provenance.copy()
    right[drawn], provenance[drawn] = rows.truth[drawn], "random"
    if not config.pairs:
        given[drawn] = None
    return replace(rows, right=right, given=given, provenance=provenance)


def _thinned(rows: _Rows, n: int, seed: int) -> _Rows:
    """All trusted rows and n of the noisy ones, in the order they had."""
    is_noisy = _empty(rows.right)
    noisy = np.flatnonzero(is_noisy)
    if n > len(noisy):
        raise InputError(f"--n-noisy is {n:,}, but there are only {len(noisy):,} noisy rows; ask for fewer")
    kept = ~is_noisy
    kept[numpy_generator(seed, "noisy rows").permutation(noisy)[:n]] = True
    return replace(
        rows,
        ids=rows.ids[kept],
        inputs=rows.inputs.take(np.flatnonzero(kept)),
        given=rows.given[kept],
        right=rows.right[kept],
        truth=rows.truth[kept],
        provenance=rows.provenance[kept],
        weights=rows.weights[kept],
    )


def _checked_rows(trusted: Source, say: Say | None) -> Source:
    """The rows of a trusted set that were checked, its `labels` the right ones and its `given` those before.

    A file with a column of checked labels is one that ``ebomlc sample`` wrote: its label column is what was given.
    """
    if not trusted.asks_for_checks:
        _check_labelled(trusted, trusted.labels, trusted.checked)
        return trusted
    done = np.flatnonzero(~_empty(trusted.checked))
    if not len(done):
        raise InputError(f"{trusted.name}: its column of checked labels is empty in every row: fill in those you know")
    if say is not None and len(done) < len(trusted):
        say(f"{trusted.name}: {len(trusted) - len(done)} of {len(trusted)} rows are not checked yet and are left out")
    given = np.where(_empty(trusted.given), trusted.labels, trusted.given)
    return replace(trusted, labels=trusted.checked, given=given).take(done)


def _merge_repeated(trusted: Source) -> Source:
    """Each id once; an id that was checked twice must have got the same label both times."""
    first: dict[str, int] = {}
    for row, name in enumerate(trusted.ids):
        known = first.setdefault(name, row)
        if trusted.labels[known] != trusted.labels[row]:
            raise InputError(
                f"{trusted.name}: id {name!r} was checked twice and got {trusted.labels[known]!r} in "
                f"{trusted.places(known)}, {trusted.labels[row]!r} in {trusted.places(row)}: keep the right one"
            )
    if len(first) == len(trusted):
        return trusted
    _warn(f"{trusted.name}: {len(trusted) - len(first)} rows repeat the id and the label of another; counted once")
    return trusted.take(np.array([*first.values()]))


def _with_trusted(rows: _Rows, trusted: Source, noisy: Source) -> _Rows:
    """Noisy and then trusted rows; a trusted row whose id is in the noisy set replaces that row, keeping its label."""
    # the ids of a sample of rows without ids are their numbers, as `ebomlc sample` wrote them
    joinable = trusted.has_ids and (noisy.has_ids or trusted.asks_for_checks)
    ids = trusted.ids if trusted.has_ids else np.array([f"trusted-{row}" for row in trusted.ids], dtype=object)
    both = set() if joinable else set(rows.ids) & set(ids)
    if both:
        raise InputError(
            f"{trusted.name}: id {min(both)!r} also names a row of {noisy.name}; both files need an id column, "
            f"so that one can tell whether these are the same row"
        )
    position = {row: index for index, row in enumerate(rows.ids)} if joinable else {}
    old = np.array([position.get(row, -1) for row in ids])
    given, own = trusted.given.copy(), np.flatnonzero(old >= 0)
    given[own] = np.where(_empty(given[own]), rows.given[old[own]], given[own])
    _check_agreement(rows, trusted, own, old[own])
    provenance = np.where(_empty(trusted.provenance), "unknown", trusted.provenance)
    fresh = replace(
        rows, ids=ids, given=given, right=trusted.labels, truth=trusted.labels, provenance=provenance,
        weights=trusted.weights,
    )  # fmt: skip
    if trusted.inputs is None:
        return _marked(rows, fresh, trusted, noisy, old)
    keep = np.ones(len(rows.ids), dtype=bool)
    keep[old[own]] = False
    if not (keep & _empty(rows.right)).any():
        raise InputError(f"every row of the noisy set is also in {trusted.name}: there is nothing left to correct")
    return _joined(rows, np.flatnonzero(keep), replace(fresh, inputs=trusted.inputs))


def _check_agreement(rows: _Rows, trusted: Source, own: IntArray, old: IntArray) -> None:
    """A row that is checked in both files must have got the same label in both."""
    for row, position in zip(own, old, strict=True):
        here, there = trusted.labels[row], rows.right[position]
        if there is not None and here != there:
            raise InputError(
                f"{trusted.name}: id {trusted.ids[row]!r} is {here!r} there, but its checked label in the noisy set is "
                f"{there!r}: keep the right one"
            )


def _marked(rows: _Rows, fresh: _Rows, trusted: Source, noisy: Source, old: IntArray) -> _Rows:
    """The noisy rows with what a file without inputs says of some of them."""
    if (old < 0).any():
        stranger = trusted.ids[int((old < 0).argmax())]
        raise InputError(
            f"{trusted.name}: id {stranger!r} is not in {noisy.name}, and the file has no inputs of its own "
            f"({int((old < 0).sum())} such ids): correct the ids, or add the columns that {noisy.name} has"
        )

    def put(into: Any, values: Any) -> Any:  # noqa: ANN401 - arrays of several types
        changed = into.copy()
        changed[old] = values
        return changed

    columns = ("given", "right", "truth", "provenance", "weights")
    return replace(rows, **{name: put(getattr(rows, name), getattr(fresh, name)) for name in columns})


def _joined(rows: _Rows, kept: IntArray, fresh: _Rows) -> _Rows:
    columns = ("ids", "given", "right", "truth", "provenance", "weights")
    joined = {name: np.concatenate([getattr(rows, name)[kept], getattr(fresh, name)]) for name in columns}
    inputs = rows.inputs if len(kept) == len(rows.ids) else rows.inputs.take(kept)
    return replace(rows, **joined, inputs=inputs.join(fresh.inputs))


# --- indexing ---------------------------------------------------------------------------------------------------------


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


def _index(rows: _Rows, names: tuple[str, ...], sets: _Sets, config: DataConfig, seed: int) -> Pool:
    _check_several(names, _training_sets(config))
    _check_truth(rows, names, config.truth)
    given, right, truth = (_to_index(labels, names) for labels in (rows.given, rows.right, rows.truth))
    trusted = np.flatnonzero(right != NO_LABEL)
    _check_trusted(given, right, names, _trusted_name(config))
    tested = None
    if sets.test is not None and sets.test.inputs is not None:
        _check_labelled(sets.test, sets.test.labels, np.full(len(sets.test), None, dtype=object))
        _check_known(sets.test, sets.test.labels, names)
        tested = TestSet(sets.test.inputs, _to_index(sets.test.labels, names))
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
        skipped=tuple(bad for source in (sets.noisy, sets.trusted, sets.test) if source for bad in source.skipped),
    )


def _overlap(rows: _Rows, given: IntArray, right: IntArray, test: TestSet | None, config: DataConfig) -> Overlap:
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
    return (
        config.trusted if config.trusted is not None else f"{config.noisy}, column {config.checked or CHECKED_COLUMN!r}"
    )


def _check_several(names: tuple[str, ...], where: str) -> None:
    if len(names) < 2:
        raise InputError(
            f"{where}: only one class occurs, {listed(names)!r}: there is nothing to tell apart; is --label right?"
        )


def _check_known(source: Source, labels: Labels, names: tuple[str, ...]) -> None:
    known = {None, *names}
    for row, label in enumerate(labels):
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


def _check_trusted(given: IntArray, right: IntArray, names: tuple[str, ...], where: str) -> None:
    trusted = np.bincount(right[right != NO_LABEL], minlength=len(names))
    noisy = np.bincount(given[(right == NO_LABEL) & (given != NO_LABEL)], minlength=len(names))
    if trusted.max() < 2:
        raise InputError(
            f"{where}: no class has two trusted rows ({trusted.sum()} in all): half of them train and "
            f"half judge, so check more rows, at least a few of each class"
        )
    if not (trusted[noisy > 0]).any():
        raise InputError(
            f"{where}: no trusted row has a label that also occurs among the noisy ones "
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
