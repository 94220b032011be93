"""Which columns of a table are inputs, and whether they hold numbers, categories or texts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.data.doubts import like_checked_labels, like_ids, like_other_numbers, like_paths
from ebomlc.data.inputs import Inputs, Role
from ebomlc.data.tables import NESTED, Table, as_strings, shorten
from ebomlc.errors import DataWarning, InputError, listed, unknown_name
from ebomlc.records import CHECKED_COLUMN, GIVEN_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""What stands in a column of numbers where there is none."""

NEVER_INPUTS = (GIVEN_COLUMN, CHECKED_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN)
"""Columns that say something about labels, whatever else is named."""

WITHOUT_NAME = re.compile(r"\s*|Unnamed: \d+|__index_level_\d+__")
"""Row numbers that pandas writes beside a table, and what it calls them when it reads them again."""

ONE_HOT_VALUES = 20
"""A category with more values than this is coded by how frequent they are."""

REPEATED = 10
"""A category with more values than `ONE_HOT_VALUES` has this many rows for each, on average."""

MOSTLY = 0.5
"""A column is what more than this share of its filled cells are."""

WORDS_OF_TEXT, SHOWN_WORDS = 3, 12
LETTERS = re.compile(r"[^\W\d_]{2}")
SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{6}")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese are written without spaces."""

COMMA_NUMBER = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?([eE][-+]?\d+)?")

TIMES = ("datetime", "datetime64", "date", "timedelta", "timedelta64", "time", "period", "interval")
SCALARS = (str, int, float, bool, Decimal, np.generic)

Array = npt.NDArray[Any]
Cells = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; see `ebomlc.config.DataConfig`.

    Attributes
    ----------
    id, checked, image : str, optional
        Names of these columns. `image` holds paths, which another module reads.
    label : str
        Name of the label column.
    text : tuple of str
        Columns to read as texts. Without `features`, nothing else is an input.
    features : tuple of str
        Columns of numbers and categories. Without `text`, nothing else is an input.
    checked_required : bool
        Whether a table without the column `checked` is refused.
    """

    id: str | None = None
    label: str = "label"
    checked: str | None = None
    text: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    image: str | None = None
    checked_required: bool = True

    def taken(self) -> frozenset[str]:
        """Names of columns that are something else than an input."""
        own = (self.id or "id", self.label, self.checked, self.image)
        return frozenset(NEVER_INPUTS) | frozenset(name for name in own if name is not None)


def choose_inputs(
    table: Table, columns: Columns, like: Inputs | None = None, *, like_name: str = "the noisy set"
) -> Inputs:
    """The inputs of every row of a table.

    Parameters
    ----------
    table : Table
        N rows.
    columns : Columns
        Named columns are used; where none is, every column of numbers, categories and texts.
    like : Inputs, optional
        Inputs of the first table: exactly its columns are read, as what they were there.
    like_name : str
        What the first table is called in messages.

    Returns
    -------
    Inputs
        A table of N rows.

    Raises
    ------
    InputError
        For a column that is missing or cannot be used, a cell of another type than its column, or no usable column.

    Warns
    -----
    DataWarning
        For columns that are left out.
    """
    if like is not None:
        return _as_before(table, like, like_name)
    if columns.text or columns.features:
        features = {name: _named_feature(table, columns, name) for name in columns.features}
        texts = {name: _named_text(table, columns, name) for name in columns.text}
        return _inputs(features | texts)
    labels = _labels(table, columns)
    names = [str(name) for name in table.frame.columns if _is_free(str(name), columns)]
    found = {name: _find(table, name, columns, labels) for name in names}
    usable = {name: finding for name, finding in found.items() if finding.role is not None}
    if not usable:
        raise _nothing_usable(table, found)
    _warn_of_rest(table, {name: finding for name, finding in found.items() if finding.role is None})
    return _inputs(usable)


def describe_inputs(inputs: Inputs) -> str:
    """One line that says what the inputs are, and in how many cells a stand-in takes the place of a missing value."""
    if inputs.kind == "vectors":
        return f"vectors of {inputs.values.shape[1]:,} numbers"
    if inputs.kind == "images":
        return "images of " + " x ".join(str(size) for size in inputs.values.shape[1:])
    numbers, texts = inputs.select("number"), inputs.select("text")
    parts = [f"{len(numbers):,} of numbers"] if numbers else []
    if inputs.select("category"):
        parts.append(_describe_categories(inputs))
    if texts:
        parts.append(f"{len(texts):,} of text ({listed([repr(name) for name in texts])})")
    first, _, rest = ", ".join(parts).partition(" ")
    return f"{first} {'column' if first == '1' else 'columns'} {rest}{_describe_empty(inputs)}"


def _describe_categories(inputs: Inputs) -> str:
    names = inputs.select("category")
    one_hot = sum(inputs.values[name].nunique() <= ONE_HOT_VALUES for name in names)
    counts = {"one-hot": one_hot, "ordinal": len(names) - one_hot}
    return f"{len(names):,} of categories ({', '.join(f'{kind} {count:,}' for kind, count in counts.items() if count)})"


def _describe_empty(inputs: Inputs) -> str:
    counted = {name: int(inputs.values[name].isna().sum()) for name in inputs.columns if inputs.roles[name] != "text"}
    empty = {name: count for name, count in counted.items() if count}
    if not empty:
        return ""
    total = sum(empty.values())
    return f"; {total:,} empty cell{'s' if total > 1 else ''} filled in ({listed([repr(name) for name in empty])})"


# --- what a column holds ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Finding:
    """What a column was found to hold: its role and the values `Inputs` keeps, or why it is left out."""

    role: Role | None
    values: Array | None = None
    reason: str = ""
    row: int | None = None
    """The first cell that is in the way of a column of numbers."""


@dataclass(frozen=True)
class _Parsed:
    """A column read as numbers: float64 values, NaN where there is none; which cells are filled; which are wrong."""

    values: npt.NDArray[np.float64]
    filled: npt.NDArray[np.bool_]
    wrong: npt.NDArray[np.bool_]


def _find(table: Table, name: str, columns: Columns, labels: frozenset[str]) -> _Finding:
    """What a column is used as that nobody named."""
    cells = table.frame[name]
    finding = _number_or_category(cells, table)
    has_ids = (columns.id or "id") in table.frame.columns
    if finding.role == "number" and like_ids(name, np.asarray(finding.values, np.float64), has_ids=has_ids):
        return _Finding(None, reason=f"whole numbers that all differ, as ids do: --id {name!r}, or --features {name!r}")
    if finding.values is None:
        return finding
    filled = _filled(finding.values)
    words = np.array([f"{number:g}" for number in filled], dtype=object) if finding.role == "number" else filled
    if like_checked_labels(words, len(cells), labels):
        return _Finding(None, reason=f"mostly empty, else a label: if somebody checked these, --checked {name!r}")
    if finding.role is not None:
        return finding
    reason = _doubt(filled, name)
    if reason is not None:
        return _Finding(None, finding.values, reason)
    if _is_category(filled):
        return _Finding("category", finding.values)
    if _is_text(filled):
        return _Finding("text", _texts(cells, table))
    return _Finding(None, finding.values, "nearly every cell differs, as in names, codes and dates")


def _doubt(filled: Cells, name: str) -> str | None:
    """Why a column of strings is most likely no input, whatever it looks like."""
    if like_paths(filled):
        return f"paths of images: --image {name!r} reads them"
    if like_other_numbers(filled):
        return f"numbers as in {shorten(filled[0])}: write them with a decimal point and nothing else"
    return None


def _number_or_category(cells: pd.Series, table: Table) -> _Finding:
    """A finding without a role that has values holds strings, of which it depends what they are."""
    if isinstance(cells.dtype, pd.CategoricalDtype):
        strings = _categories(cells, table)
        return _Finding("category", strings) if any(strings) else _Finding(None, reason="empty in every row")
    kind = pd.api.types.infer_dtype(cells, skipna=True)
    if kind in TIMES:
        return _Finding(None, reason="dates and times are no input")
    if kind in ("bytes", "complex") or (kind.startswith("mixed") and _has_objects(cells)):
        return _Finding(None, reason="lists, objects and bytes are no input")
    if kind == "boolean":
        return _Finding("category", _categories(cells, table))
    parsed = _parse(cells, table.decimal)
    if not parsed.filled.any():
        return _Finding(None, reason="empty in every row")
    if not parsed.wrong.any():
        return _Finding("number", parsed.values)
    if parsed.wrong.sum() <= MOSTLY * parsed.filled.sum():
        return _Finding(None, reason="nearly a column of numbers", row=int(parsed.wrong.argmax()))
    return _Finding(None, _categories(cells, table))


def _has_objects(cells: pd.Series) -> bool:
    return any(not isinstance(cell, SCALARS) for cell in cells[cells.notna().to_numpy(bool)])


def _parse(cells: pd.Series, decimal: str) -> _Parsed:
    if pd.api.types.is_any_real_numeric_dtype(cells.dtype):
        extended = isinstance(cells.dtype, pd.api.extensions.ExtensionDtype)
        values = cells.to_numpy(np.float64, na_value=np.nan) if extended else cells.to_numpy(np.float64)
        return _Parsed(values, ~np.isnan(values), np.isinf(values))
    written = cells.to_numpy(object)
    if decimal == ",":
        written = _with_points(written)
    filled = ~(cells.isna() | cells.isin(MISSING)).to_numpy(bool)
    readable = filled.copy()
    if cells.dtype == object:  # pandas would read true as 1
        readable &= np.array([not isinstance(cell, bool | np.bool_) for cell in written], bool)
    values = np.full(len(cells), np.nan)
    values[readable] = _to_floats(written[readable])
    return _Parsed(values, filled, filled & ~np.isfinite(values))


def _with_points(written: Cells) -> Cells:
    """Cells with a decimal point instead of a comma, where any of them has one; points are thousands then."""
    plain = np.array([cell.strip() if isinstance(cell, str) else "" for cell in written], dtype=object)
    if not any("," in cell and COMMA_NUMBER.fullmatch(cell) for cell in plain):
        return written
    changed = written.copy()
    for row, cell in enumerate(plain):
        if COMMA_NUMBER.fullmatch(cell):
            changed[row] = cell.replace(".", "").replace(",", ".")
    return changed


def _to_floats(cells: Cells) -> npt.NDArray[np.float64]:
    try:
        numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    except OverflowError:  # an integer of hundreds of digits; written out, it is infinite
        numbers = pd.to_numeric(pd.Series([str(cell) for cell in cells], dtype=object), errors="coerce")
    return numbers.to_numpy(np.float64)


def _categories(cells: pd.Series, table: Table) -> Cells:
    strings = as_strings(cells, table.name)
    return np.array([cell if cell is not None and cell.strip() else None for cell in strings], dtype=object)


def _texts(cells: pd.Series, table: Table) -> Cells:
    return np.array([cell or "" for cell in as_strings(cells, table.name)], dtype=object)


def _filled(strings: Array) -> Cells:
    return strings[pd.notna(strings)]


def _is_category(filled: Cells) -> bool:
    distinct = len(set(filled))
    return distinct <= max(ONE_HOT_VALUES, len(filled) / REPEATED) and distinct <= len(filled) / 2


def _is_text(filled: Cells) -> bool:
    return sum(map(_reads_like_text, filled)) > MOSTLY * len(filled)


def _reads_like_text(cell: str) -> bool:
    words = cell.split(None, SHOWN_WORDS)[:SHOWN_WORDS]
    return sum(LETTERS.search(word) is not None for word in words) >= WORDS_OF_TEXT or bool(SPACELESS.search(cell))


# --- named columns ----------------------------------------------------------------------------------------------------


def _labels(table: Table, columns: Columns) -> frozenset[str]:
    if columns.label not in table.frame.columns:
        return frozenset()
    return frozenset(_filled(_categories(table.frame[columns.label], table)))


def _is_free(name: str, columns: Columns) -> bool:
    return name not in columns.taken() and not WITHOUT_NAME.fullmatch(name)


def _named(table: Table, columns: Columns, name: str, option: str) -> pd.Series:
    if name not in table.frame.columns:
        raise InputError(
            f"{table.name}: {unknown_name('column', name, table.frame.columns)}; name another with {option}"
        )
    if name in columns.taken():
        raise InputError(
            f"{table.name}: column {name!r} says something about the labels or rows; take it from {option}"
        )
    return table.frame[name]


def _named_feature(table: Table, columns: Columns, name: str) -> _Finding:
    cells = _named(table, columns, name, "--features")
    finding = _number_or_category(cells, table)
    if finding.role is not None:
        return finding
    if finding.values is None:
        raise _unusable(table, name, finding)
    filled = _filled(finding.values)
    doubt = _doubt(filled, name)
    if doubt is not None:
        raise InputError(f"{table.name}: column {name!r} cannot be used, for it holds {doubt}")
    if not _is_category(filled) and _is_text(filled):
        raise InputError(f"{table.name}: column {name!r} holds texts, not numbers or categories; say --text {name}")
    return _Finding("category", finding.values)


def _unusable(table: Table, name: str, finding: _Finding) -> InputError:
    if finding.row is None:
        return InputError(f"{table.name}: column {name!r} cannot be used: {finding.reason}; leave it out of --features")
    cell, place = _cell(table, name, finding.row)
    return InputError(
        f"{table.name}: {cell} in column {name!r}, {place}, is not a finite number; "
        f"correct it, empty the cell, or leave the column out with --features"
    )


def _named_text(table: Table, columns: Columns, name: str) -> _Finding:
    texts = _texts(_named(table, columns, name, "--text"), table)
    if not any(text.strip() for text in texts):
        raise InputError(f"{table.name}: column {name!r} is empty in every row; take it from --text")
    return _Finding("text", texts)


# --- as in another table ----------------------------------------------------------------------------------------------


def _as_before(table: Table, like: Inputs, like_name: str) -> Inputs:
    if like.kind != "table":
        raise InputError(
            f"{table.name}: is a table of columns, but {like_name} holds {like.kind}; give {like.kind} too"
        )
    findings = {name: _read_as(table, name, role, like_name) for name, role in like.roles.items()}
    return _inputs(findings)


def _read_as(table: Table, name: str, role: Role, like_name: str) -> _Finding:
    if name not in table.frame.columns:
        raise InputError(
            f"{table.name}: {unknown_name('column', name, table.frame.columns)}; "
            f"every file needs the same inputs, and {like_name} has {role_in_words(role)} there"
        )
    cells = table.frame[name]
    if role == "number":
        return _Finding(role, _numbers_as_before(cells, table, like_name))
    return _Finding(role, _categories(cells, table) if role == "category" else _texts(cells, table))


def _numbers_as_before(cells: pd.Series, table: Table, like_name: str) -> npt.NDArray[np.float64]:
    name = str(cells.name)
    nested = [isinstance(cell, NESTED) for cell in cells] if cells.dtype == object else [False]
    if any(nested):
        raise _wrong_type(table, name, nested.index(True), like_name)
    parsed = _parse(cells, table.decimal)
    if parsed.wrong.any():
        raise _wrong_type(table, name, int(parsed.wrong.argmax()), like_name)
    return parsed.values


def _wrong_type(table: Table, name: str, row: int, like_name: str) -> InputError:
    cell, place = _cell(table, name, row)
    return InputError(
        f"{table.name}: column {name!r} holds numbers in {like_name}, but {cell} stands in {place}; "
        f"write a finite number there, or empty the cell"
    )


def role_in_words(role: Role) -> str:
    """What a column of a role holds."""
    return {"number": "numbers", "category": "categories", "text": "texts"}[role]


# --- putting together -------------------------------------------------------------------------------------------------


def _inputs(findings: Mapping[str, _Finding]) -> Inputs:
    roles: dict[str, Role] = {name: finding.role for name, finding in findings.items() if finding.role is not None}
    series = {
        name: pd.Series(findings[name].values, dtype=np.float64 if role == "number" else object, copy=False)
        for name, role in roles.items()
    }
    return Inputs("table", pd.DataFrame(series, copy=False), roles)


def _cell(table: Table, name: str, row: int) -> tuple[str, str]:
    """A cell as messages show it, and where it stands."""
    return shorten(table.frame[name].iloc[row]), table.place(table.frame.index[row])


def _nothing_usable(table: Table, found: Mapping[str, _Finding]) -> InputError:
    name = next((name for name, finding in found.items() if finding.values is not None), "COL")
    hint = f"if one holds text, say --text {name}" if found else "add one of numbers, categories or texts"
    reasons = f" ({_reasons(found)})" if found else ""
    return InputError(f"{table.name}: no column to learn from beside the labels{reasons}; {hint}")


def _warn_of_rest(table: Table, rest: Mapping[str, _Finding]) -> None:
    for name, finding in rest.items():
        if finding.row is not None:
            cell, place = _cell(table, name, finding.row)
            message = f"column {name!r} is left out, for {cell} in {place} is not a number; empty such cells to use it"
            warnings.warn(f"{table.name}: {message}", DataWarning, stacklevel=3)
    others = {name: finding for name, finding in rest.items() if finding.row is None}
    if others:
        message = f"left out as inputs: {_reasons(others)}; --features and --text say which columns to use"
        warnings.warn(f"{table.name}: {message}", DataWarning, stacklevel=3)


def _reasons(findings: Mapping[str, _Finding]) -> str:
    names: dict[str, list[str]] = {}
    for name, finding in findings.items():
        names.setdefault(finding.reason, []).append(repr(name))
    return "; ".join(f"{listed(some)} ({reason})" for reason, some in names.items())
