"""Tables that are written part by part: there when whole, continued where they broke off, no row lost or doubled.

While a table is under way, its parts lie in a folder beside it, ``NAME.unfinished``. Each is a Parquet file that gets
its name only when it is whole and synced, and carries whatever its maker has to remember of it. When all of them are
there, they are joined to one file in that folder, a row group for each, and that is moved to its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ebomlc.data.output import check_output, sync, write_text
from ebomlc.errors import InputError

UNFINISHED, BEGUN, LOCK, JOINED = ".unfinished", "begun.json", ".lock", "joined"
NOTES = b"ebomlc"
"""What the maker's notes are called in the metadata of a part."""


@dataclass
class Parts:
    """The parts of a table that are written so far.

    Attributes
    ----------
    out : Path
        The table.
    rows : int
        How many rows they hold.
    notes : list of dict
        What was noted of each.
    """

    out: Path
    rows: int = 0
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return unfinished_folder(self.out)

    @property
    def files(self) -> list[Path]:
        """Each part's file, in order."""
        return [self._file(k) for k in range(len(self.notes))]

    def append(self, table: pa.Table, notes: Mapping[str, Any]) -> None:
        """Write the next rows, which are there for good when this returns.

        Parameters
        ----------
        table : pyarrow Table
            With the same schema each time.
        notes : mapping
            Of what JSON can hold.

        Raises
        ------
        InputError
            Where they cannot be written.
        """
        partial = self.folder / "partial"
        named = table.replace_schema_metadata({NOTES: json.dumps(notes, ensure_ascii=False)})
        with _writing(self.out):
            pq.write_table(named, partial, row_group_size=max(1, len(named)), **_options(table.schema))
            sync(partial)
            partial.replace(self._file(len(self.notes)))
            sync(self.folder)
        self.rows += len(table)
        self.notes.append(dict(notes))

    def _file(self, k: int) -> Path:
        return self.folder / f"part-{k:08}.parquet"

    def find(self) -> None:
        """Take up the parts that are there.

        Raises
        ------
        InputError
            Where one cannot be read.
        """
        while (file := self._file(len(self.notes))).exists():
            try:
                metadata = pq.read_metadata(file)
                notes = json.loads((metadata.metadata or {})[NOTES])
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise InputError(f"{file}: damaged; begin again with --overwrite") from error
            self.rows += metadata.num_rows
            self.notes.append(notes)


def unfinished_folder(out: Path) -> Path:
    """Where the parts of a table lie while it is under way."""
    return out.with_name(out.name + UNFINISHED)


def is_whole(out: Path) -> bool:
    """Whether a table is there and none is under way to its place."""
    return out.is_file() and not unfinished_folder(out).exists()


def check_parts(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a file that must not or cannot be written.

    Parameters
    ----------
    out : Path
        The table to write, in any format of `ebomlc.data.output`.
    overwrite, resume : bool
        What is there, finished or not, may be replaced; or continued.

    Raises
    ------
    InputError
        As `check_output`; for an unfinished table that is neither to be replaced nor continued, and for a folder in its
        place that is none.
    """
    if overwrite and resume:
        raise InputError("--overwrite and --resume exclude each other: replace what is there, or continue it")
    check_output(out, overwrite or resume)
    folder = unfinished_folder(out)
    if not folder.exists():
        return
    if not (folder / BEGUN).is_file() and any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(f"{folder} is in the way, and holds no table that was begun; move it, or choose another --out")
    if not overwrite and not resume:
        raise InputError(
            f"{folder} holds a part of a table that was not finished; continue it with --resume, replace it with "
            f"--overwrite, or choose another --out"
        )


@contextmanager
def new_parts(out: Path, begun: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False) -> Iterator[Parts]:
    """A table to write part by part; it takes its place when the block ends without an error.

    A block that ends with one leaves the parts that are whole, to be continued, and nothing where there is none.

    Parameters
    ----------
    out : Path
        The table.
    begun : mapping
        Everything that the rows depend on, as JSON; a table that was begun with another is not continued.
    overwrite, resume
        As for `check_parts`.

    Raises
    ------
    InputError
        As `check_parts`; where another process writes the table, where it was begun with something else, and where
        nothing can be written.
    """
    check_parts(out, overwrite=overwrite, resume=resume)
    folder = unfinished_folder(out)
    with _writing(out):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        parts = Parts(out)
        try:
            with _writing(out):
                _take_up(parts, begun, overwrite=overwrite, resume=resume)
            yield parts
            with _writing(out):
                _finish(parts)
        finally:
            if not any(folder.glob("part-*")):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say what is wrong where something cannot be written."""
    try:
        yield
    except OSError as error:
        kept = ", or make room and continue with --resume" if unfinished_folder(out).exists() else ""
        reason = error.strerror or str(error).splitlines()[0]
        raise InputError(f"{out}: cannot be written: {reason}; choose another --out{kept}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out; the lock of a dead process is no obstacle, for the system drops it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder}: another process is writing there; wait for it, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def _take_up(parts: Parts, begun: Mapping[str, Any], *, overwrite: bool, resume: bool) -> None:
    """Find the parts that are there and to be continued; or remove them, and note what is begun."""
    out, folder = parts.out, parts.folder
    if not resume or not (folder / BEGUN).exists():
        for path in folder.iterdir():
            if path.name != LOCK:
                path.unlink()
        text = json.dumps({"replaces": overwrite, "begun": begun}, indent=2, ensure_ascii=False)
        (folder / BEGUN).write_text(text + "\n", encoding="utf-8")
        return
    known = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    if known["begun"] != begun:
        changed = sorted(name for name in {*known["begun"], *begun} if known["begun"].get(name) != begun.get(name))
        raise InputError(
            f"{folder} was begun with another {' and another '.join(changed)}; begin again with --overwrite"
        )
    if out.exists() and not known["replaces"]:
        raise InputError(f"{out} is there, and so is {folder} to be continued: remove whichever is not wanted")
    parts.find()


def _finish(parts: Parts) -> None:
    """Join the parts and move the whole to its place; killed in between, the next one does it again."""
    joined = parts.folder / (JOINED + parts.out.suffix.lower())
    (_join_parquet if joined.suffix == ".parquet" else _join_text)(parts.files, joined)
    sync(joined)
    joined.replace(parts.out)
    sync(parts.out.parent)
    shutil.rmtree(parts.folder)


def _join_parquet(files: list[Path], joined: Path) -> None:
    schema = pq.read_schema(files[0]).remove_metadata()
    with pq.ParquetWriter(joined, schema, **_options(schema)) as writer:
        for file in files:
            rows = pq.read_table(file).replace_schema_metadata(None)
            writer.write_table(rows, row_group_size=max(1, len(rows)))


def _options(schema: pa.Schema) -> dict[str, Any]:
    """A dictionary only for columns that it makes smaller: of probabilities it takes eight times as long to write."""
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {"use_dictionary": [name for name in schema.names if name not in {*floats, "id"}]}


def _join_text(files: list[Path], joined: Path) -> None:
    with joined.open("w", encoding="utf-8", newline="") as text:
        for k, file in enumerate(files):
            write_text(joined.suffix, pq.read_table(file).to_pandas(), text, header=k == 0)
