"""From a file or a DataFrame to a table: cells as they were written, and where each row is found."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebomlc.errors import InputError, listed, nearest_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
OTHER_SEPARATORS = (";", "\t", "|", ",")
EUROPEAN, HEADER_LINES = ";", 100
LONGEST_CELL, LONGEST_SHOWN = 2**31 - 1, 40
CHUNK_ROWS = 65_536
PARQUET_MAGIC, PARQUET_BUFFER = b"PAR1", 1 << 18
ROWS_PER_BYTE = 100
"""More rows than that in a byte of a Parquet file cannot have ids of their own, however well they are packed."""

NESTED = (list, tuple, dict, set, np.ndarray, bytes, bytearray)


@dataclass(frozen=True)
class Table:
    """Rows and named columns as they were read.

    Attributes
    ----------
    name : str
        The file as the user wrote it, or what stands for a DataFrame; messages begin with it.
    frame : DataFrame, N rows
        Its index is each row's number in the file, for `place`. Cells of CSV and TSV are str; those of other files and
        of DataFrames keep their type.
    unit, note : str
        What a row is called, and what its number has to be read with.
    decimal : {".", ","}
        What numbers are written with.
    first : int
        Which of all rows the first is, from 1; above 1 where only some of them were read.
    """

    name: str
    frame: pd.DataFrame
    unit: str = "row"
    note: str = ""
    decimal: str = "."
    first: int = 1

    def place(self, *rows: int) -> str:
        """Where rows are found, for messages, from their numbers in the index of `frame`."""
        numbers = ", ".join(str(row) for row in rows)
        return f"{self.unit}{'s' if len(rows) > 1 else ''} {numbers}{self.note}"


def read_table(path: Path) -> Table:
    """A table from a file: CSV or TSV, JSON Lines (an object a line), or Parquet.

    Returns
    -------
    Table
        Of CSV and TSV every cell is the string it is: "007", "NA" and "None" are what they say. Rows without any
        content are left out. Of JSON Lines a key that a line lacks is a missing cell.

    Raises
    ------
    InputError
        Where the file is missing, empty, of another kind than its suffix says, damaged, or repeats a column name.
    """
    suffix = _checked_suffix(path)
    try:
        return _READERS[suffix](path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def table_from_frame(frame: pd.DataFrame, name: str) -> Table:
    """A table from a DataFrame, whose index is ignored and whose rows are numbered from 1.

    Parameters
    ----------
    frame : DataFrame
        Is left as it is. Column names that are no str are made one, and so are the values of categories.
    name : str
        What stands for it in messages.

    Raises
    ------
    InputError
        Where two columns have one name.
    """
    named = frame.set_axis([str(column) for column in frame.columns], axis=1)
    _check_names(list(named.columns), name)
    categories = [column for column in named.columns if isinstance(named[column].dtype, pd.CategoricalDtype)]
    named = named.assign(**{column: _text_categories(named[column]) for column in categories})
    return Table(name, named.set_axis(_numbers_from(1, len(named)), axis=0), note=" (the first is row 1)")


def as_strings(column: pd.Series, name: str = "the table") -> npt.NDArray[np.object_]:
    """A column's cells as strings, for labels and ids.

    Parameters
    ----------
    column : Series
        Of a `Table`.
    name : str
        The table's name, for messages.

    Returns
    -------
    object array of str or None
        Strings as they are, 3 and 3.0 as "3", None where a cell is missing. The empty cells of CSV stay "".

    Raises
    ------
    InputError
        For a cell that holds several values.
    """
    cells = column.to_numpy(object)
    filled = ~np.asarray(pd.isna(cells), bool)
    strings = np.full(len(cells), None, dtype=object)
    strings[filled] = [cell if type(cell) is str else _string(cell, column, name) for cell in cells[filled]]
    return strings


def shorten(cell: object) -> str:
    """A cell as a message shows it: in quotes where it is text, cut where it is long."""
    text = cell if isinstance(cell, str) else str(cell)
    cut = text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."
    return repr(cut) if isinstance(cell, str) else cut


def _string(cell: Any, column: pd.Series, name: str) -> str:  # noqa: ANN401 - any cell
    if isinstance(cell, NESTED):
        row = column.index[next(k for k, one in enumerate(column) if isinstance(one, NESTED))]
        raise InputError(
            f"{name}: column {column.name!r} holds {_kind_of(cell)} in row {row}, {shorten(cell)}; "
            f"a cell must be a single text or number"
        )
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)


def _kind_of(cell: object) -> str:
    if isinstance(cell, bytes | bytearray):
        return "bytes"
    return "an object" if isinstance(cell, dict) else "a list"


def _text_categories(column: pd.Series) -> pd.Series:
    """The same column with categories of str; they may get equal by it, as 1 and "1" do."""
    strings = pd.Series(as_strings(column), column.index, dtype=object)
    return strings.astype("category")


def _numbers_from(first: int, n: int) -> pd.RangeIndex:
    return pd.RangeIndex(first, first + n)


# --- what every file is checked for -----------------------------------------------------------------------------------


def _checked_suffix(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give a file ({listed(TABLE_SUFFIXES)})")
    if not path.exists():
        near = nearest_name(path.name, _tables_beside(path))
        raise InputError(f"{path}: no such file; " + (f"did you mean {near!r}?" if near else "is the path right?"))
    if not path.is_file():  # whoever reads from a pipe may wait for ever
        raise InputError(f"{path}: this is a pipe or a device, not a file; write its rows to one")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(f"{path}: this kind of file cannot be read; a table is one of {listed(TABLE_SUFFIXES)}")
    return suffix


def _tables_beside(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    return [file.name for file in path.parent.iterdir() if file.suffix.lower() in TABLE_SUFFIXES]


def _check_names(names: Sequence[str], where: Path | str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        name = f"column {repeated[0]!r} stands" if repeated[0] else "a column without a name stands"
        raise InputError(f"{where}: {name} in the header more than once; rename or remove one")


@contextmanager
def _utf8(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise InputError(
            f"{path}: line {line} is not text in UTF-8; if this is a table, save it again in UTF-8"
        ) from error


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Table:
    with _csv_body(path) as (table, header, rows):
        return replace(table, frame=_csv_frame(rows, header, table))


def csv_tables(path: Path, rows_at_once: int, start: int = 0) -> Iterator[Table]:
    """The rows of a CSV or TSV file, some at a time; what `read_table` says of the file goes for each table.

    A file without rows gives one table without any.

    Parameters
    ----------
    path : Path
        The file.
    rows_at_once : int >= 1
        Rows of each table; the last may have fewer.
    start : int >= 0
        Rows to leave out at the beginning.
    """
    with _csv_body(path) as (table, header, rows):
        for _ in islice(rows, start):
            pass
        chunk = list(islice(rows, rows_at_once))
        while chunk or start == 0:
            yield replace(table, frame=_csv_frame(iter(chunk), header, table), first=start + 1)
            start += len(chunk) or 1
            chunk = list(islice(rows, rows_at_once))


def csv_columns(path: Path) -> tuple[str, ...]:
    """The names in the header of a CSV or TSV file."""
    with _csv_body(path) as (_, header, _):
        return tuple(header)


def has_decimal_commas(path: Path) -> bool:
    """Whether the numbers of a CSV file may have decimal commas, which only all cells of a column together show."""
    return _separator(path) == EUROPEAN


@contextmanager
def _csv_body(path: Path) -> Iterator[tuple[Table, list[str], Iterator[tuple[int, list[str]]]]]:
    """The table without its rows, the names of its columns, and the rows."""
    separator = _separator(path)
    decimal = "," if separator == EUROPEAN else "."
    table = Table(str(path), pd.DataFrame(), note=" (the header is row 1)", decimal=decimal)
    with closing(_csv_rows(path, table, separator)) as rows:
        _, first = next(rows, (0, None))
        if first is None:
            raise InputError(f"{path}: the file is empty; a header and at least one row are needed")
        header = [name.strip() for name in first]
        _check_names(header, path)
        _check_separator(header, path)
        yield table, header, rows


def _separator(path: Path) -> str:
    """What the cells of a file are separated by: semicolons where the header of a CSV file has them and no comma.

    So spreadsheets write it wherever numbers have a decimal comma.
    """
    usual = SEPARATORS[path.suffix.lower()]
    with _utf8(path), path.open(encoding="utf-8-sig", newline="") as file:
        header = next((line for line in islice(file, HEADER_LINES) if line.strip()), "")
    return EUROPEAN if usual == "," and EUROPEAN in header and "," not in header else usual


def _csv_frame(rows: Iterator[tuple[int, list[str]]], header: Sequence[str], table: Table) -> pd.DataFrame:
    numbers, chunks = [np.empty(0, np.int64)], [[pa.array([], pa.large_string()) for _ in header]]
    while chunk := list(islice(rows, CHUNK_ROWS)):
        _check_widths(chunk, header, table)
        numbers.append(np.array([row for row, _ in chunk], np.int64))
        columns = zip(*(cells for _, cells in chunk), strict=True)
        # as Python strings, millions of rows would not fit into memory
        chunks.append([pa.array(cells, pa.large_string()) for cells in columns])
    cells = [pd.array(pa.chunked_array(parts), "string[pyarrow]") for parts in zip(*chunks, strict=True)]
    return pd.DataFrame(dict(zip(header, cells, strict=True)), np.concatenate(numbers))


def _csv_rows(path: Path, table: Table, separator: str) -> Generator[tuple[int, list[str]], None, None]:
    """Rows that have any content, each with its number in the file, from 1."""
    row, limit = 0, csv.field_size_limit(LONGEST_CELL)
    try:
        with _utf8(path), path.open(encoding="utf-8-sig", newline="") as file:
            lines = _without_nul(file, path)
            for row, cells in enumerate(csv.reader(lines, delimiter=separator, strict=True), 1):
                if any(cell and not cell.isspace() for cell in cells):
                    yield row, cells
    except csv.Error as error:
        raise InputError(
            f"{path}: {table.place(row + 1)} cannot be split into cells ({error}); "
            f'a cell in quotes must end with one, and a quote inside it is written twice, ""'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise InputError(f"{path}: line {number} holds NUL bytes, so this is no text table; save it again as CSV")
        yield line


def _check_widths(rows: Sequence[tuple[int, list[str]]], header: Sequence[str], table: Table) -> None:
    for row, cells in rows:
        if len(cells) != len(header):
            repair = "fill in what is missing" if len(cells) < len(header) else "put a cell with a separator in quotes"
            raise InputError(
                f"{table.name}: {table.place(row)} has {len(cells)} cells, but the header has {len(header)}; {repair}"
            )


def _check_separator(header: Sequence[str], path: Path) -> None:
    other = next((separator for separator in OTHER_SEPARATORS if separator in header[0]), None)
    if len(header) == 1 and other is not None:
        here = SEPARATORS[path.suffix.lower()]
        raise InputError(
            f"{path}: the header is one cell, {shorten(header[0])}; a {path.suffix} file is split at {here!r}, "
            f"this one seems to be split at {other!r}: save it with {here!r}"
        )


# --- JSON Lines -------------------------------------------------------------------------------------------------------


def _read_json_lines(path: Path) -> Table:
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    with _utf8(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                _append(_json_object(line, number, path), columns, len(numbers))
                numbers.append(number)
    if not columns:
        raise InputError(f"{path}: the file is empty; at least one line that holds an object is needed")
    for cells in columns.values():
        _fill_up(cells, len(numbers))
    series = {name: pd.Series(cells, numbers, dtype=object) for name, cells in columns.items()}
    return Table(str(path), pd.DataFrame({name: _compact(cells) for name, cells in series.items()}), unit="line")


def _json_object(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "\\u" in line:  # half a surrogate pair is no character, and could not be written again
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {number} is not JSON ({error.msg}, character {error.colno}); each line must hold one object"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise InputError(f"{path}: line {number} cannot be read as JSON: {error}") from error
    if isinstance(row, list):
        raise InputError(f"{path}: line {number} holds an array; write one object a line, without commas between")
    if not isinstance(row, dict):
        raise InputError(f"{path}: line {number} holds {shorten(row)}; each line must hold one object in braces")
    return row


def _append(row: dict[str, Any], columns: dict[str, list[Any]], n_before: int) -> None:
    for name, cell in row.items():
        cells = columns.setdefault(name, [])
        _fill_up(cells, n_before)
        cells.append(cell)


def _fill_up(cells: list[Any], n: int) -> None:
    cells.extend([None] * (n - len(cells)))


def _compact(cells: pd.Series) -> pd.Series:
    """The same cells as an array of floats, integers or booleans where they are all of one type."""
    kinds = set(map(type, cells))
    if kinds == {float} or kinds == {bool} or kinds == {float, type(None)}:
        return cells.infer_objects()
    if kinds == {int} and max(map(abs, cells)) < 2**63:
        return cells.astype(np.int64)
    return cells


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Table:
    with open_parquet(path) as file:
        return table_from_arrow(file.read(), str(path))


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file to read from, of each column `PARQUET_BUFFER` bytes at a time.

    Raises
    ------
    InputError
        Where it is cut off, no Parquet, or repeats a column name; and for what reading from it raises.
    """
    _check_parquet_ends(path)
    try:
        # otherwise whole row groups would be in memory, and many writers make them of a million rows
        with pq.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names, path)
            _check_rows(file.metadata.num_rows, path)
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: damaged, or of a kind of Parquet that cannot be read: {_first_line(error)}"
        ) from error


def table_from_arrow(columns: pa.Table, name: str, *, start: int = 0) -> Table:
    """A table from the columns of a Parquet file.

    Parameters
    ----------
    columns : pyarrow Table
        As read.
    name : str
        The file.
    start : int >= 0
        Rows of the file before these.
    """
    frame = columns.to_pandas(types_mapper=_pandas_type, ignore_metadata=True, split_blocks=True)
    named = table_from_frame(frame, name).frame
    return Table(name, named.set_axis(_numbers_from(start + 1, len(named)), axis=0), first=start + 1)


def _check_rows(n: int, path: Path) -> None:
    """Refuse a file that unpacks to far more than any table of ids and labels, which may fill the memory."""
    size = path.stat().st_size
    if n > ROWS_PER_BYTE * size:
        raise InputError(
            f"{path}: claims {n:,} rows in {size:,} bytes, so nearly all of them are the same; write each row once"
        )


def _check_parquet_ends(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty")
    with path.open("rb") as file:
        first = file.read(len(PARQUET_MAGIC))
        file.seek(max(0, size - len(PARQUET_MAGIC)))
        last = file.read()
    if first != PARQUET_MAGIC:
        raise InputError(f"{path}: not a Parquet file, for it does not begin with {PARQUET_MAGIC.decode()}")
    if last != PARQUET_MAGIC or size < 3 * len(PARQUET_MAGIC):
        raise InputError(f"{path}: the Parquet file is cut off at its end; write or copy it again")


def _pandas_type(kind: pa.DataType) -> Any:  # noqa: ANN401 - a dtype of pandas, or None for its default
    """Integers and booleans that may be missing: as floats, ids of many digits would change."""
    if pa.types.is_boolean(kind):
        return pd.BooleanDtype()
    if pa.types.is_signed_integer(kind):
        return pd.Int64Dtype()
    return pd.UInt64Dtype() if pa.types.is_unsigned_integer(kind) else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
