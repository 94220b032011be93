"""Images in one folder for each class, as many tools want them."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ebomlc.data.inputs import Inputs
from ebomlc.errors import InputError, listed
from ebomlc.labels.export import Contents, write_labels

if TYPE_CHECKING:
    import pandas as pd

UNSAFE = re.compile(r"[^\w .()+,=@-]|[\x00-\x1f]")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices, which are no names of files on Windows."""

LONGEST_NAME = 120


def safe_names(names: Sequence[str], suffixes: Sequence[str] = ()) -> list[str]:
    """Names of files or folders for any texts, no two alike even where upper and lower case are one.

    Parameters
    ----------
    names : sequence of str
        Such as ids or class names, with slashes, dots and whatever else people write.
    suffixes : sequence of str, optional
        To be put at the end of each.

    Returns
    -------
    list of str
        Each the name of something right below a folder: never empty, hidden, ``..`` or the name of a device. A second
        name that comes out like an earlier one gets ``_2``, and so on.
    """
    taken: set[str] = set()
    found = []
    for name, suffix in zip(names, suffixes or [""] * len(names), strict=True):
        plain = UNSAFE.sub("_", name.removesuffix(suffix)).strip(" .") or "_"
        plain = f"_{plain}" if RESERVED.fullmatch(plain) else plain
        plain = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
        number, unique = 1, f"{plain}{suffix}"
        while unique.casefold() in taken:
            number += 1
            unique = f"{plain}_{number}{suffix}"
        taken.add(unique.casefold())
        found.append(unique)
    return found


def png_bytes(inputs: Inputs, row: int) -> bytes:
    """An image of a set that was read, as PNG."""
    from PIL import Image

    pixels = np.ascontiguousarray(inputs.values[row])
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write_image_folders(frame: pd.DataFrame, contents: Contents, folder: Path, *, link: bool = False) -> int:
    """Write each image into the folder of its final label.

    Parameters
    ----------
    frame : DataFrame, N rows
        From `ebomlc.labels.export.decided_table`.
    contents : Contents
        Of the rows.
    folder : Path
        Is there already. ``files.csv`` in it says of each file which row it is, and every label of it.
    link : bool
        Links to the files instead of copies; images that lie in no file of their own are written all the same.

    Returns
    -------
    int
        Images written.

    Raises
    ------
    InputError
        For rows that are no images, and for images that are gone.
    """
    if contents.inputs.kind != "images":
        raise InputError(
            f"imagefolder needs rows that are images, but those of the run are {contents.inputs.kind}: "
            f"take --to csv or --to huggingface"
        )
    _check_there(frame, contents)
    classes = list(dict.fromkeys(frame["final_label"]))
    folders = dict(zip(classes, safe_names(classes), strict=True))
    suffixes = [".png" if file is None else file.suffix.lower() for file in contents.files]
    names = safe_names(list(frame["id"]), suffixes)
    places = [f"{folders[label]}/{name}" for label, name in zip(frame["final_label"], names, strict=True)]
    for name in folders.values():
        (folder / name).mkdir()
    for row, place in enumerate(places):
        _put(contents, row, folder / place, link=link)
    written = frame.copy()
    written.insert(0, "file", places)
    write_labels(written, folder / "files.csv")
    return len(places)


def _check_there(frame: pd.DataFrame, contents: Contents) -> None:
    files = zip(frame["id"], contents.files, strict=True)
    gone = [row for row, file in files if file is not None and not file.is_file()]
    if gone:
        raise InputError(f"{len(gone)} of {len(frame)} images are gone ({listed(gone)}): put them back, then try again")


def _put(contents: Contents, row: int, place: Path, *, link: bool) -> None:
    file = contents.files[row]
    if file is None:
        place.write_bytes(png_bytes(contents.inputs, row))
    elif link:
        place.symlink_to(file.resolve())
    else:
        shutil.copyfile(file, place)
