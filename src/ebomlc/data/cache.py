"""Arrays that take long to compute, kept on disk from run to run: memory-mapped, and put in place only when whole."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.arrays import map_array
from ebomlc.errors import DataWarning, InputError

Array = npt.NDArray[Any]

HASHED_AT_ONCE = 1 << 24
"""Arrays are hashed in blocks of about so many bytes, so that a memory-mapped one is never read as a whole."""


def cache_folder(given: Path | None = None) -> Path:
    """The folder of the cache, which need not exist.

    Parameters
    ----------
    given : Path, optional
        The user's choice. Without one it is ``$XDG_CACHE_HOME/ebomlc``, or ``~/.cache/ebomlc`` where that is not set.

    Raises
    ------
    InputError
        If nothing is given or set and the user has no home folder.
    """
    if given is not None:
        return Path(given)
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():  # the XDG specification has a relative one ignored
        return chosen / "ebomlc"
    try:
        return Path.home() / ".cache" / "ebomlc"
    except RuntimeError:
        raise InputError(
            "no place for the cache: this user has no home folder; set XDG_CACHE_HOME to a folder"
        ) from None


def content_key(*parts: str | Array) -> str:
    """SHA-256 over parts, as 64 hexadecimal digits; which part holds what counts as well.

    Parameters
    ----------
    *parts : str or array
        Everything that what is cached depends on: the content of the inputs, names, versions, sizes. Arrays of
        objects have no content that could be hashed: pass their texts as parts.
    """
    digest = hashlib.sha256()
    for part in parts:
        blocks = [part.encode("utf-8", "surrogatepass")] if isinstance(part, str) else _blocks(part)
        kind = f"text {len(part)}" if isinstance(part, str) else f"array {part.dtype.str} {part.shape}"
        digest.update(f"{kind}\n".encode())
        for block in blocks:
            digest.update(block)
    return digest.hexdigest()


def _blocks(values: Array) -> Iterator[memoryview]:
    """The bytes of an array, a few rows at a time."""
    if values.dtype.hasobject:
        raise TypeError(f"an array of {values.dtype} has no content to hash")
    rows = np.atleast_1d(values)
    size = max(1, HASHED_AT_ONCE // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), size):
        yield np.ascontiguousarray(rows[start : start + size]).reshape(-1).view(np.uint8).data


def open_cached(key: str, folder: Path) -> Array | None:
    """The array stored under a key, memory-mapped; None where there is none, or its file is damaged.

    Parameters
    ----------
    key : str
        From `content_key`.
    folder : Path
        From `cache_folder`.

    Returns
    -------
    memory-mapped array, or None
        What is written to it stays in memory and never reaches the file.
    """
    path = _path(key, folder)
    try:
        values = map_array(path)
        is_whole = path.stat().st_size == _file_size(values)
    except (OSError, ValueError):
        return None
    return values if is_whole else None


@contextmanager
def new_cached(key: str, folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[Array]:
    """A new array to fill, stored under a key once the block ends without an error.

    Parameters
    ----------
    key, folder
        As for `open_cached`.
    shape, dtype
        Of the array, which begins as zeros.

    Yields
    ------
    array
        Memory-mapped, and good for reading after the block too. Where the folder cannot be written, a `DataWarning`
        says so and the array lies in memory alone.
    """
    try:
        values, partial = _new_file(key, folder, shape, dtype)
    except OSError as error:
        _warn_unwritable(folder, error)
        yield np.zeros(shape, dtype)
        return
    try:
        yield values
        _put_in_place(values, partial, _path(key, folder))
    finally:
        with suppress(OSError):  # Windows does not remove a file that is mapped
            partial.unlink(missing_ok=True)


def _new_file(key: str, folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[np.memmap, Path]:
    """An array in a file with a name of its own, with room on the disk for all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(suffix=".partial", prefix=f"{key}.", dir=folder)
    try:
        values = np.lib.format.open_memmap(Path(name), mode="w+", shape=shape, dtype=np.dtype(dtype))
        if sys.platform == "linux":  # a mapped file that outgrows its disk kills the process without a word
            os.posix_fallocate(descriptor, 0, _file_size(values))
    except BaseException:
        Path(name).unlink()
        raise
    finally:
        os.close(descriptor)
    return values, Path(name)


def _put_in_place(values: np.memmap, partial: Path, path: Path) -> None:
    try:
        values.flush()
        partial.replace(path)
    except OSError as error:
        _warn_unwritable(path.parent, error)


def _warn_unwritable(folder: Path, error: OSError) -> None:
    warnings.warn(
        f"nothing is kept in the cache {folder} ({error.strerror or error}), so the next run computes it anew: set "
        "XDG_CACHE_HOME to a folder that can be written and has room",
        DataWarning,
        stacklevel=4,
    )


def _path(key: str, folder: Path) -> Path:
    return folder / f"{key}.npy"


def _file_size(values: np.memmap) -> int:
    # numpy gives an array without values one byte, because nothing cannot be mapped
    return int(values.offset) + max(1, values.nbytes)
