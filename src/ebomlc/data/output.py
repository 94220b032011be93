"""Tables on their way to a file: never half there, never over one that nobody gave up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ebomlc.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

OUT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def check_output(out: Path, overwrite: bool, *, suffixes: tuple[str, ...] = OUT_SUFFIXES) -> None:
    """Raise InputError for a file that must not or cannot be written.

    Parameters
    ----------
    out : Path
        The file.
    overwrite : bool
        It may be there already.
    suffixes : tuple of str
        What its name may end with.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names a file to write, such as {out / ('rows' + suffixes[0])}")
    if out.suffix.lower() not in suffixes:
        raise InputError(f"{out}: --out must end with {'one of ' * (len(suffixes) > 1)}{', '.join(suffixes)}")
    if out.parent.exists() and not out.parent.is_dir():
        raise InputError(f"{out}: {out.parent} is a file, not a folder to write to; choose another --out")
    if out.exists() and not overwrite:
        raise InputError(f"{out} already exists; choose another --out, or replace it with --overwrite")


def write_table(frame: pd.DataFrame, out: Path, *, decimal: str = ".") -> None:
    """Write a table in the format that the name of its file ends with: beside its place, and moved there when whole.

    Parameters
    ----------
    frame : DataFrame
        Its index is not written.
    out : Path
        Its folder is made where there is none.
    decimal : {".", ","}
        What numbers in cells of text are written with, of which the separator of CSV depends; see `read_table`.

    Raises
    ------
    InputError
        Where the file cannot be written.
    """
    from pyarrow import ArrowException

    beside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_as(out.suffix.lower(), frame, beside, decimal)
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{out}: cannot be written as Parquet ({reason}); let --out end with .jsonl") from error


def sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk and not only in memory."""
    if path.is_dir() and sys.platform == "win32":  # which cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_as(suffix: str, frame: pd.DataFrame, path: Path, decimal: str) -> None:
    if suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            write_text(suffix, frame, file, decimal=decimal)


def write_text(suffix: str, frame: pd.DataFrame, file: TextIO, *, header: bool = True, decimal: str = ".") -> None:
    """Write rows to an open file of text.

    Parameters
    ----------
    suffix : {".csv", ".tsv", ".jsonl", ".ndjson"}
        As what.
    frame : DataFrame
        Its index is not written.
    file : text file
        Opened with ``newline=""``.
    header : bool
        These rows are the first, and the names of the columns come before them where the format has a header.
    decimal : {".", ","}
        See `write_table`.
    """
    if suffix in (".jsonl", ".ndjson"):
        filled = frame.astype(object).where(frame.notna(), None)
        lines = [json.dumps(row, ensure_ascii=False, default=_plain) for row in filled.to_dict("records")]
        file.write("".join(f"{line}\n" for line in lines))
        return
    separator = "\t" if suffix == ".tsv" else ";" if decimal == "," else ","
    # csv puts a cell with a carriage return in quotes only where that is part of the line end
    frame.to_csv(file, sep=separator, index=False, header=header, decimal=decimal, lineterminator="\r\n")


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a cell of a Parquet file held
    """A numpy number or array as what JSON knows; a date and the like as its text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
