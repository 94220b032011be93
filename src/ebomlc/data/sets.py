"""The sets of a run as they were read: noisy, trusted, test, and what is known of the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ebomlc.config import DataConfig
from ebomlc.data.columns import Columns
from ebomlc.data.readers import Reading, Source, is_built_in, read_source
from ebomlc.data.spelling import Spelling, choose_spelling
from ebomlc.errors import InputError
from ebomlc.records import CHECKED_COLUMN

Labels = npt.NDArray[np.object_]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sets:
    """Everything that was read.

    Attributes
    ----------
    noisy : Source
        The large set.
    trusted : Source or None
        Checked rows from elsewhere: `Source.labels` are right, `Source.given` those before the check. Each id once.
    test : Source or None
        Rows whose labels are right.
    truth : mapping of str to str
        Right labels of noisy rows by id.
    spelling : mapping of str to str
        How labels are spelt that came in several ways.
    reviewed : tuple of Source
        Noisy rows that people decided on in other runs: `Source.labels` are right, `Source.given` those they saw.
    """

    noisy: Source
    trusted: Source | None
    test: Source | None
    truth: Mapping[str, str]
    spelling: Spelling
    reviewed: tuple[Source, ...] = ()


def read_sets(config: DataConfig, objects: Mapping[str, Any], largest_image: int, say: Say | None) -> Sets:
    """Read everything that a configuration names.

    Parameters
    ----------
    config : DataConfig
        Files or built-in names, columns.
    objects : mapping
        Rows given from Python in place of the file of the same name: ``noisy``, ``trusted``, ``test``, ``truth``; and
        ``reviewed``, a sequence of Source, one for each of ``config.add_reviewed``.
    largest_image : int
        Pixels a side that large images are brought to, where the configuration does not say.
    say : callable, optional
        Takes lines about slow reading and about rows that are not checked yet.

    Raises
    ------
    InputError
        For everything that cannot be read.
    """
    reading = _reading(config, largest_image, say)
    if is_built_in(config.noisy) and (config.text or config.features or config.image or config.checked):
        raise InputError(
            f"{config.noisy} is built in and has no columns: leave --text, --features, --image and --checked out"
        )
    noisy = read_source(
        objects.get("noisy", config.noisy),
        replace(reading, checked_required=config.checked is not None, role="noisy"),
    )
    _check_unique(noisy)
    _check_options(config, noisy)
    trusted = _read_trusted(config, objects, reading, noisy, say)
    test = _read_test(config, objects, reading, noisy, say)
    truth = _read_truth(config, objects, reading, noisy)
    reviewed = tuple(objects.get("reviewed", ()))
    if len(reviewed) != len(config.add_reviewed):
        raise ValueError(f"{len(config.add_reviewed)} reviewed runs are asked for, but {len(reviewed)} were read")
    return _one_spelling(Sets(noisy, trusted, test, truth, {}, reviewed), config.normalise_labels)


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


def _check_options(config: DataConfig, noisy: Source) -> None:
    """Raise InputError for an option that says nothing about such rows."""
    kind = "table" if noisy.inputs is None else noisy.inputs.kind
    columns = [f"--{name}" for name in ("text", "features") if getattr(config, name)]
    if kind != "table" and columns:
        raise InputError(f"{noisy.name} holds {kind}, not columns: leave {' and '.join(columns)} out")
    if kind != "images" and config.image_size is not None:
        raise InputError(f"{noisy.name} holds no images: leave --image-size out")


def _check_unique(source: Source) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(source.ids):
        if name in first:
            raise InputError(
                f"{source.name}: id {name!r} is repeated in {source.places(first[name], row)}; ids must be unique"
            )
        first[name] = row


# --- trusted rows -----------------------------------------------------------------------------------------------------


def _read_trusted(
    config: DataConfig, objects: Mapping[str, Any], reading: Reading, noisy: Source, say: Say | None
) -> Source | None:
    if config.trusted is None:
        return None
    if is_built_in(config.noisy) and config.trusted == config.noisy:
        raise InputError(f"--trusted {config.trusted} would train on its test rows: draw trusted rows, --n-trusted N")
    trusted = read_source(
        objects.get("trusted", config.trusted),
        replace(reading, like_name=noisy.name, role="trusted"),
        like=noisy.inputs,
        test=is_built_in(config.trusted),
    )
    return _merge_repeated(checked_rows(trusted, say), say)


def checked_rows(source: Source, say: Say | None) -> Source:
    """The rows of a set that were checked, its `labels` the right ones and its `given` those before.

    A set with a column of checked labels is one that ``ebomlc sample`` wrote: its label column is what was given.
    """
    if not source.asks_for_checks:
        check_labelled(source, source.labels)
        return source
    done = np.flatnonzero(~is_empty(source.checked))
    if not len(done):
        raise InputError(f"{source.name}: its column of checked labels is empty in every row: fill in those you know")
    if say is not None and len(done) < len(source):
        say(f"{source.name}: {len(source) - len(done)} of {len(source)} rows are not checked yet and are left out")
    return replace(source, labels=source.checked, given=first_filled(source.given, source.labels)).take(done)


def _merge_repeated(trusted: Source, say: Say | None) -> Source:
    """Each id once, with all that any of its rows says; an id checked twice must have got the same label both times."""
    first: dict[str, int] = {}
    given, provenance, weights = trusted.given.copy(), trusted.provenance.copy(), trusted.weights.copy()
    for row, name in enumerate(trusted.ids):
        known = first.setdefault(name, row)
        if trusted.labels[known] != trusted.labels[row]:
            raise InputError(
                f"{trusted.name}: id {name!r} was checked twice and got {trusted.labels[known]!r} in "
                f"{trusted.places(known)}, {trusted.labels[row]!r} in {trusted.places(row)}: keep the right one"
            )
        for column in (given, provenance):
            column[known] = column[row] if column[known] is None else column[known]
        weights[known] = weights[row] if np.isnan(weights[known]) else weights[known]
    if say is not None and len(first) < len(trusted):
        say(f"{trusted.name}: {len(trusted) - len(first)} rows repeat the id and the label of another; counted once")
    merged = replace(trusted, given=given, provenance=provenance, weights=weights)
    return merged.take(np.array([*first.values()]))


def is_empty(labels: Labels) -> npt.NDArray[np.bool_]:
    """Where a column of strings holds none."""
    return np.array([label is None for label in labels], dtype=bool)


def first_filled(labels: Labels, others: Labels) -> Labels:
    """A column of strings, where it is empty from another."""
    return np.where(is_empty(labels), others, labels)


def check_labelled(source: Source, labels: Labels) -> None:
    """Raise InputError where a row has no label."""
    empty = is_empty(labels)
    if empty.any():
        row = int(empty.argmax())
        raise InputError(f"{source.name}: the label in {source.places(row)} is empty; fill it or remove the row")


# --- sets for scoring -------------------------------------------------------------------------------------------------


def _read_test(
    config: DataConfig, objects: Mapping[str, Any], reading: Reading, noisy: Source, say: Say | None
) -> Source | None:
    if config.test is None:
        return read_source(config.noisy, reading, test=True) if is_built_in(config.noisy) else None
    settings = replace(reading, like_name=noisy.name, ids_matter=False, role="test")
    test = read_source(objects.get("test", config.test), settings, like=noisy.inputs, test=True)
    return checked_rows(test, say)


def _read_truth(config: DataConfig, objects: Mapping[str, Any], reading: Reading, noisy: Source) -> Mapping[str, str]:
    if config.truth is None:
        return {}
    if config.noise is not None:
        raise InputError("--truth and --noise exclude each other: noise is laid over labels taken as right")
    if not noisy.has_ids:
        raise InputError(f"{noisy.name}: has no column 'id', which {config.truth} is joined by; name it with --id")
    known = _labels_by_id(
        read_source(objects.get("truth", config.truth), replace(reading, role="truth"), labels_only=True)
    )
    if not any(row in known for row in noisy.ids):
        raise InputError(f"{config.truth}: none of its ids occurs in {noisy.name}; is --id right?")
    return known


def _labels_by_id(source: Source) -> dict[str, str]:
    """Right labels by id; a row with an empty label says nothing."""
    if not source.has_ids:
        raise InputError(f"{source.name}: has no column 'id', which labels are joined by; name it with --id")
    known: dict[str, str] = {}
    for row, (name, label) in enumerate(
        zip(source.ids, source.checked if source.asks_for_checks else source.labels, strict=True)
    ):
        if label is not None and known.setdefault(name, label) != label:
            raise InputError(
                f"{source.name}: id {name!r} has the label {known[name]!r} and in {source.places(row)} {label!r}: "
                f"keep the right one"
            )
    return known


# --- spelling ---------------------------------------------------------------------------------------------------------


def _one_spelling(sets: Sets, wanted: bool | None) -> Sets:
    """Labels that differ only by case or blanks become one, stay apart, or are asked about."""
    sources = [source for source in (sets.noisy, sets.trusted, sets.test, *sets.reviewed) if source is not None]
    columns = [column for source in sources for column in (source.labels, source.checked, source.given)]
    spelling = choose_spelling([*columns, np.array([*sets.truth.values()], dtype=object)], wanted)
    return Sets(
        noisy=_respelt(sets.noisy, spelling),
        trusted=None if sets.trusted is None else _respelt(sets.trusted, spelling),
        test=None if sets.test is None else _respelt(sets.test, spelling),
        truth={row: spelling.get(label, label) for row, label in sets.truth.items()},
        spelling=spelling,
        reviewed=tuple(_respelt(source, spelling) for source in sets.reviewed),
    )


def _respelt(source: Source, spelling: Spelling) -> Source:
    if not spelling:
        return source
    columns = {name: respell(getattr(source, name), spelling) for name in ("labels", "checked", "given")}
    return replace(source, **columns)


def respell(labels: Labels, spelling: Spelling) -> Labels:
    """Labels as they are spelt in a run."""
    return np.array([label if label is None else spelling.get(label, label) for label in labels], dtype=object)
