"""The folder of a run: what is in it, and how it comes into being whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebomlc.errors import InputError

CONFIG, SPLIT, ENCODER, METRICS = "config.toml", "split.npz", "encoder", "metrics.csv"
MAIN, METHOD, LABELS, SUMMARY = "main.safetensors", "method.safetensors", "labels.parquet", "summary.json"
CONTENTS = (CONFIG, SPLIT, ENCODER, METRICS, MAIN, METHOD, LABELS, SUMMARY)


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written to.

    Raises
    ------
    InputError
        For a file, a folder with anything but a run in it, and a run that is not to be replaced.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder to make")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / SUMMARY).exists() or not (out / SPLIT).exists():
        raise InputError(f"{out} is not empty and holds no run; choose another folder, nothing in it was touched")
    if not overwrite:
        raise InputError(f"{out} already holds a run; choose another folder, or replace it with --overwrite")


@contextmanager
def new_run(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write a run to; it takes its place in `out` when the block ends without an error.

    A run that was there stays until then, and of it only the files named in `CONTENTS` are replaced.

    Raises
    ------
    InputError
        Where the folder cannot be made.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(".partial", f".{out.name}.", out.parent))
        beside.chmod(0o777 & ~_umask())
        (beside / ENCODER).mkdir()
    except OSError as error:
        reason = "a part of its path is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{out}: cannot be written: {reason}; choose another --out") from error
    try:
        yield beside
        _put_in_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _umask() -> int:
    """The permissions that new files do not get, which the system tells only when it is asked to change them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_in_place(beside: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    for name in CONTENTS:
        old = out / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    # the summary comes last: a folder is a run once it is there
    for name in CONTENTS:
        (beside / name).replace(out / name)
