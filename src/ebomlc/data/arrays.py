"""Arrays in npz and npy files, read so that a file from somebody else can do no harm."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_ARRAYS = 10_000

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, MemoryError, OverflowError),
    *(SyntaxError, tokenize.TokenError, TypeError, NotImplementedError, RuntimeError),
)
"""What numpy and zipfile raise for files that are none of theirs, beside OSError and ValueError."""


def load_arrays(path: Path, *, most_bytes: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Everything in an npz file.

    Parameters
    ----------
    path : Path
        As ``numpy.savez`` writes it, without objects.
    most_bytes : int
        What arrays that were compressed may unpack to; those of a run never were.

    Raises
    ------
    OSError, ValueError
        Where it is missing, damaged, unpacks to more, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.file_size for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
            if len(archive.infolist()) > MOST_ARRAYS or sum(packed) > most_bytes:
                raise ValueError(f"{path.name}: has more arrays, or unpacks to more, than it may")
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except DAMAGE as error:
        raise ValueError(f"{path.name}: damaged ({error})") from error


def map_array(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    """The array in an npy file, read from the disk where it is used; what is written to it does not reach the file.

    Raises
    ------
    OSError, ValueError
        Where it is missing, damaged, or holds objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="c")  # refuses objects, and so never unpickles
    except DAMAGE as error:
        raise ValueError(f"{path.name}: damaged ({error})") from error
