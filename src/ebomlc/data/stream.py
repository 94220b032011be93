"""Tables that need not fit into memory: read some rows at a time, and from any row on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebomlc.data.disk import disk_array
from ebomlc.data.tables import (
    Table,
    csv_columns,
    csv_tables,
    has_decimal_commas,
    open_parquet,
    table_from_arrow,
)
from ebomlc.environment import available_memory_mb
from ebomlc.errors import InputError, listed

MEMORY_SHARE = 1 / 8
"""Reading a table as a whole takes three times what its numbers do, and encoding it half as much again."""

BYTES_AT_ONCE, ROWS_AT_ONCE, FEWEST_AT_ONCE = 1 << 24, 65_536, 1000
"""A table holds so many bytes, but no more rows than the second and no fewer than the third.

Arrays above 32 MiB get fresh pages from the system each time, which takes longer than to fill them.
"""

CELL_BYTES, TEXT_BYTES = 8, 64
"""A cell takes at least so much once it is read, however little it takes in its file; one of CSV, being text, more."""

SHARD_OF = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<count>\d+)(?P<after>\D*)")
"""What the files of a set are called that says in each name how many there are."""


@dataclass(frozen=True)
class Shard:
    """One file of a table.

    Attributes
    ----------
    path : Path
        The file.
    rows : int or None
        How many it holds; None where only reading it tells.
    row_bytes : int
        What a row takes in memory, at least.
    """

    path: Path
    rows: int | None
    row_bytes: int


@dataclass(frozen=True)
class TableStream:
    """A table that is read some rows at a time.

    Attributes
    ----------
    name : str
        As the user wrote it.
    shards : tuple of Shard
        Its files, in order, with the same columns.
    columns : tuple of str
        Their names.
    numbers : tuple of str
        Those of them that hold floating point numbers in every file.
    """

    name: str
    shards: tuple[Shard, ...]
    columns: tuple[str, ...]
    numbers: tuple[str, ...] = ()

    @property
    def outgrows_memory(self) -> bool:
        """See `outgrows_memory`."""
        return outgrows_memory(self.rows or 0, len(self.columns))

    @property
    def rows(self) -> int | None:
        """How many there are; None where only reading them tells."""
        known = [shard.rows for shard in self.shards if shard.rows is not None]
        return sum(known) if len(known) == len(self.shards) else None

    def tables(self, wanted: Collection[str], *, start: int = 0, row_bytes: int = 0) -> Iterator[Table]:
        """The rows in order, some at a time; whatever the start, tables end at the same rows.

        Parameters
        ----------
        wanted : collection of str
            Columns to read; those that are not there are not missed. Of CSV, all are read.
        start : int >= 0
            Rows to leave out at the beginning: where an earlier table ended.
        row_bytes : int >= 0
            What whoever asks makes of a row, and keeps as long as the table.

        Raises
        ------
        InputError
            For a file that was removed or damaged since the stream was opened, and as `read_table` does.
        """
        first = 0
        for shard in self.shards:
            skipped = min(max(0, start - first), shard.rows if shard.rows is not None else start)
            if shard.rows is None or skipped < shard.rows:
                size = rows_at_once(shard.row_bytes + row_bytes)
                yield from self._tables_of(shard, wanted, skipped, first, size)
            first += shard.rows or 0

    def read(self, *, on_disk: bool) -> Table:
        """All rows of Parquet files as one table.

        Parameters
        ----------
        on_disk : bool
            Columns of floating point numbers lie on the disk, and need no memory; see `ebomlc.data.disk`.

        Raises
        ------
        InputError
            Where a column holds several types that do not go together, or the disk has no room.
        """
        # of the others there must be one, for a table to have its rows
        numbers = self.numbers[int(len(self.numbers) == len(self.columns)) :] if on_disk else ()
        values = disk_array((len(numbers), self.rows or 0), np.float64)
        others, first = [], 0
        for shard in self.shards:
            with open_parquet(shard.path) as file:
                others.append(file.read([name for name in self.columns if name not in numbers]))
                _fill(values[:, first : first + (shard.rows or 0)], file, numbers, rows_at_once(shard.row_bytes))
            first += shard.rows or 0
        table = table_from_arrow(_concatenate(others, self.name), self.name)
        stored = {name: pd.Series(values[k], table.frame.index, copy=False) for k, name in enumerate(numbers)}
        columns = {name: stored[name] if name in stored else table.frame[name] for name in self.columns}
        return Table(self.name, pd.DataFrame(columns, copy=False))

    def _tables_of(self, shard: Shard, wanted: Collection[str], skipped: int, first: int, size: int) -> Iterator[Table]:
        if shard.rows is None:
            yield from csv_tables(shard.path, size, skipped)
            return
        columns = [name for name in self.columns if name in wanted]
        yield from _parquet_tables(shard.path, columns, skipped, first, size)


def _concatenate(tables: list[pa.Table], name: str) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: its files hold other types ({reason}); write all shards alike") from error


def outgrows_memory(n_rows: int, n_columns: int) -> bool:
    """Whether rows take more than `MEMORY_SHARE` of the memory that is free."""
    room = available_memory_mb()
    return room is not None and CELL_BYTES * n_rows * n_columns / 2**20 > MEMORY_SHARE * room


def _fill(values: npt.NDArray[np.float64], file: pq.ParquetFile, names: tuple[str, ...], size: int) -> None:
    """Put the columns of a file, some rows at a time, into the rows of an array [columns, rows]."""
    first = 0
    for batch in file.iter_batches(size, columns=list(names)) if names else ():
        for k, name in enumerate(names):
            values[k, first : first + batch.num_rows] = batch.column(name).to_numpy(zero_copy_only=False)
        first += batch.num_rows


def rows_at_once(row_bytes: int) -> int:
    """Rows that fit into `BYTES_AT_ONCE`, within reason."""
    return min(ROWS_AT_ONCE, max(FEWEST_AT_ONCE, BYTES_AT_ONCE // max(1, row_bytes)))


def open_stream(path: Path) -> TableStream | None:
    """What can be read some rows at a time, with all of its files looked at; None for everything else.

    Parameters
    ----------
    path : Path
        A Parquet, CSV or TSV file, or a folder of Parquet files and nothing else, which are shards of one table in the
        order of their names.

    Raises
    ------
    InputError
        Where a shard is missing that the names of the others count, is damaged, or has other columns.
    """
    files = _files(path)
    if not files:
        return None
    if files[0].suffix.lower() != ".parquet":
        return None if has_decimal_commas(files[0]) else _open_csv(files[0])
    _check_count(files, path)
    opened = [_open_shard(file) for file in files]
    columns, numbers = tuple(opened[0][1].names), {*opened[0][1].names}
    for shard, schema in opened:
        _check_columns(shard.path, tuple(schema.names), files[0], columns)
        numbers &= {field.name for field in schema if pa.types.is_floating(field.type)}
    found = tuple(name for name in columns if name in numbers)
    stream = TableStream(str(path), tuple(shard for shard, _ in opened), columns, found)
    return stream if stream.rows else None


def _open_csv(path: Path) -> TableStream:
    columns = csv_columns(path)
    return TableStream(str(path), (Shard(path, None, TEXT_BYTES * len(columns)),), columns)


def _files(path: Path) -> list[Path]:
    """The files of a table that can be streamed; none where there is no such table."""
    if not path.is_dir():
        return [path] if path.is_file() and path.suffix.lower() in (".parquet", ".csv", ".tsv") else []
    # as other programs do, that leave their own notes beside the shards
    files = sorted(file for file in path.iterdir() if file.name[0] not in "._")
    return files if all(file.is_file() and file.suffix.lower() == ".parquet" for file in files) else []


def _check_count(files: list[Path], folder: Path) -> None:
    """Raise InputError where the names say that there should be other files than there are."""
    found = [match for match in (SHARD_OF.fullmatch(file.name) for file in files) if match is not None]
    counts = {int(match["count"]) for match in found}
    if not folder.is_dir() or len(found) < len(files) or len(counts) > 1:
        return
    numbers = {int(match["number"]) for match in found}
    first = 1 if max(numbers) == max(counts) else 0
    missing = sorted({*range(first, first + max(counts))} - numbers)
    if missing:
        width = len(found[0]["number"])
        names = [f"{found[0]['before']}{n:0{width}}-of-{found[0]['count']}{found[0]['after']}" for n in missing]
        raise InputError(f"{folder}: {listed(names)} missing beside {files[0].name}; put all shards there")


def _open_shard(path: Path) -> tuple[Shard, pa.Schema]:
    with open_parquet(path) as file:
        schema, rows, written = file.schema_arrow, file.metadata.num_rows, _uncompressed(file.metadata)
        return Shard(path, rows, max(CELL_BYTES * len(schema.names), written // max(1, rows))), schema


def _uncompressed(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups))


def _check_columns(path: Path, columns: tuple[str, ...], first: Path, expected: tuple[str, ...]) -> None:
    if {*columns} == {*expected}:
        return
    less, more = ([repr(name) for name in a if name not in b] for a, b in ((expected, columns), (columns, expected)))
    differences = [f"lacks {listed(less)}"] * bool(less) + [f"has {listed(more)} besides"] * bool(more)
    raise InputError(
        f"{path}: {' and '.join(differences)}, other than {first.name}: shards of one table need the same columns"
    )


def _parquet_tables(path: Path, columns: list[str], skipped: int, first: int, size: int) -> Iterator[Table]:
    """Tables of `size` rows from the first row of the file on, less those that are skipped."""
    if not path.exists():
        raise InputError(f"{path}: no longer there; put it back, and continue with --resume")
    with open_parquet(path) as file:
        before, groups = _row_groups_from(file.metadata, skipped)
        batches = file.iter_batches(size, row_groups=groups, columns=columns)
        for rows in _regroup(batches, size, skipped - before, size - skipped % size):
            table = table_from_arrow(rows, str(path), start=skipped)
            skipped += rows.num_rows
            yield Table(table.name, table.frame, first=first + table.first)


def _row_groups_from(metadata: pq.FileMetaData, row: int) -> tuple[int, list[int]]:
    """The row groups of a file from the one on that a row is in, and how many rows there are before that."""
    before = 0
    for group in range(metadata.num_row_groups):
        n = metadata.row_group(group).num_rows
        if before + n > row:
            return before, list(range(group, metadata.num_row_groups))
        before += n
    return before, []


def _regroup(batches: Iterator[pa.RecordBatch], size: int, skipped: int, first: int) -> Iterator[pa.Table]:
    """The rows of batches in tables of `size` rows, the first of `first`, less those that are skipped."""
    waiting: list[pa.RecordBatch] = []
    wanted = first
    for batch in batches:
        rest = batch.slice(min(skipped, batch.num_rows))
        skipped -= batch.num_rows - rest.num_rows
        while (have := sum(part.num_rows for part in waiting)) + rest.num_rows >= wanted:
            cut = wanted - have
            yield pa.Table.from_batches([*waiting, rest.slice(0, cut)])
            waiting, rest, wanted = [], rest.slice(cut), size
        if rest.num_rows:
            waiting.append(rest)
    if waiting:
        yield pa.Table.from_batches(waiting)
