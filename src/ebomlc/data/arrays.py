"""Arrays in npz files that this package wrote, read so that a file from somebody else can do no harm."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_ARRAYS = 10_000


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
    except (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path.name}: damaged ({error})") from error
