"""Arrays that lie on the disk instead of in memory, and are gone with the process."""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.cache import cache_folder
from ebomlc.data.encoders import CHUNK_ROWS, LazyEncoded
from ebomlc.errors import InputError


def disk_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros in a file without a name, in the folder of the cache.

    The system keeps in memory what it has room for, and takes it back for others at any time.

    Raises
    ------
    InputError
        Where there is no room for it.
    """
    folder = cache_folder()
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if sys.platform == "linux":  # a mapped file that outgrows its disk kills the process without a word
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            else:
                file.truncate(max(1, size))
            mapped = mmap.mmap(file.fileno(), max(1, size))
    except OSError as error:
        raise InputError(
            f"{folder}: no place for {size / 2**30:.1f} GiB of rows that do not fit into memory ({error.strerror}); "
            f"set XDG_CACHE_HOME to a folder that has room"
        ) from error
    return np.frombuffer(mapped, dtype, math.prod(shape)).reshape(shape)


def encode_to_disk(lazy: LazyEncoded) -> npt.NDArray[Any]:
    """All rows encoded, a part of them at a time, in an array on the disk."""
    values = disk_array(lazy.shape, lazy[:1].dtype)
    for start in range(0, len(lazy), CHUNK_ROWS):
        values[start : start + CHUNK_ROWS] = lazy[start : start + CHUNK_ROWS]
    return values
