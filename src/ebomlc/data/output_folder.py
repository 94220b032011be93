"""Folders on their way to the disk: whole or not at all, and never over anything that is not ours."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebomlc.errors import InputError

MARK = "export.json"
"""The file that says of a folder what it is; without it nothing in a folder is ever replaced."""


def check_output_folder(out: Path, overwrite: bool) -> None:
    """Raise InputError for a folder that must not or cannot be written.

    Parameters
    ----------
    out : Path
        The folder.
    overwrite : bool
        An earlier export may be there already; anything else never.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder to make")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / MARK).is_file():
        raise InputError(f"{out} is not empty and holds no export; choose another --out, nothing in it was touched")
    if not overwrite:
        raise InputError(f"{out} already holds an export; choose another --out, or replace it with --overwrite")


@contextmanager
def new_output_folder(out: Path, overwrite: bool, description: Mapping[str, Any]) -> Iterator[Path]:
    """A folder beside `out` to write to; it takes the place of `out` when the block ends without an error.

    Parameters
    ----------
    out, overwrite
        As for `check_output_folder`.
    description : mapping
        What `MARK` will hold.

    Raises
    ------
    InputError
        As `check_output_folder`, and where something cannot be written.
    """
    check_output_folder(out, overwrite)
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(".partial", f".{out.name}.", out.parent, ignore_cleanup_errors=True) as beside:
            made = Path(beside, "new")
            made.mkdir()
            yield made
            (made / MARK).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            if out.exists():
                out.rename(Path(beside, "old"))
            made.rename(out)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{out}: cannot be written: {reason} ({error.filename or out}); choose another --out"
        ) from error
