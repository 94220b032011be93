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


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Everything in an npz file that ``numpy.savez`` wrote.

    Parameters
    ----------
    path : Path
        Not compressed, so that no array is larger than the file, and without objects.

    Raises
    ------
    OSError, ValueError
        Where it is missing, damaged, compressed, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError(f"{path.name}: is compressed or has too many arrays, so ebomlc did not write it")
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
