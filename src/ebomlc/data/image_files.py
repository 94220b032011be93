"""Where users' own images are: in a folder with a sub-folder for each class, or named by a column of a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.errors import DataWarning, InputError, listed, nearest_name

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"}
)
IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What systems leave in folders, in lower case; names that begin with a dot are ignored as well."""

PARTS_OF_A_SET = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
LAYOUT = "one sub-folder for each class is needed, such as {root}/cat/001.png, named after the label of what is in it"
SIBLINGS_READ = 2000


@dataclass(frozen=True)
class ImageFiles:
    """Images of a folder, sorted by id.

    Attributes
    ----------
    ids : object array of str, shape [N]
        Path of each image below the folder, with forward slashes.
    labels : object array of str or None, shape [N]
        Name of the sub-folder that each image is in, the uppermost where there are several.
    paths : tuple of Path, length N
    """

    ids: npt.NDArray[np.object_]
    labels: npt.NDArray[np.object_]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


def list_image_folder(root: Path, *, flat: bool = False) -> ImageFiles:
    """Images of a folder that has one sub-folder for each class; they may lie deeper.

    Links to folders are not followed. Hidden files and what systems leave behind are passed over in silence.

    Parameters
    ----------
    root : Path
        The folder.
    flat : bool
        Images may also lie directly in it, and have no label then.

    Raises
    ------
    InputError
        Where it is no folder, cannot be listed, holds no image, holds an image outside of any sub-folder, or a name
        that is not text in UTF-8.

    Warns
    -----
    DataWarning
        For files that are no images by their suffix, links to folders, sub-folders without an image, and sub-folders
        that are called like the parts of a set and not like classes.
    """
    _check_root(root)
    images, others, links = _walk(root)
    _check_images(root, images, others, flat=flat)
    labels = [name.partition("/")[0] if "/" in name else None for name in images]
    _warn(root, links, "a link to a folder", "links to folders", "not followed: put the folder itself there")
    _warn(root, others, "a file that is no image", "files that are no images", "left out")
    _warn(root, _empty_classes(root, labels), "a folder", "folders", "no class: no image in it")
    named = {label for label in labels if label is not None}
    if named and {label.lower() for label in named} <= PARTS_OF_A_SET:
        parts = listed(sorted(named))
        warnings.warn(f"{root}: the classes are {parts}; is one of them the folder to give?", DataWarning, stacklevel=2)
    return ImageFiles(np.array([*images], dtype=object), np.array(labels, dtype=object), tuple(images.values()))


def _check_root(root: Path) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise InputError(f"{root}: this is a file, not a folder of images; {LAYOUT.format(root=root.parent)}")
    siblings = [folder.name for folder in root.parent.iterdir() if folder.is_dir()] if root.parent.is_dir() else []
    near = nearest_name(root.name, siblings)
    raise InputError(f"{root}: no such folder; " + (f"did you mean {near!r}?" if near else "is the path right?"))


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def _walk(root: Path) -> tuple[dict[str, Path], list[str], list[str]]:
    """Images by their path below the root, sorted; paths of other files; paths of links to folders."""
    images: dict[str, Path] = {}
    others: list[str] = []
    links: list[str] = []
    for folder, inner, files in os.walk(root, onerror=_refuse_unlisted):
        inner[:] = [name for name in inner if not _is_ignored(name)]
        prefix = Path(folder).relative_to(root)
        links += [(prefix / name).as_posix() for name in inner if Path(folder, name).is_symlink()]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not _is_ignored(name):
                images[(prefix / name).as_posix()] = Path(folder, name)
            elif not _is_ignored(name):
                others.append((prefix / name).as_posix())
    return dict(sorted(images.items())), sorted(others), sorted(links)


def _refuse_unlisted(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}; allow this folder to be read") from error


def _empty_classes(root: Path, labels: Sequence[str | None]) -> list[str]:
    folders = {folder.name for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink()}
    return sorted(name for name in folders - set(labels) if not _is_ignored(name))


def _check_images(root: Path, images: Mapping[str, Path], others: Sequence[str], *, flat: bool) -> None:
    if not images:
        found = f"; {len(others)} other files are there ({listed(others[:3])})" if others else ""
        raise InputError(f"{root}: no image in this folder{found}; {LAYOUT.format(root=root)}")
    loose = [name for name in images if "/" not in name]
    if loose and not flat:
        raise InputError(
            f"{root}: {loose[0]!r} lies directly in this folder (as do {len(loose) - 1} more images) and so has no "
            f"label; {LAYOUT.format(root=root)}"
        )
    for name in images:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(f"{root}: the name {name!a} is not text in UTF-8; rename the file or folder") from None


def _warn(root: Path, names: Sequence[str], one: str, many: str, outcome: str) -> None:
    """Warn of names, if there are any."""
    if names:
        what = one if len(names) == 1 else f"{len(names)} {many}"
        warnings.warn(f"{root}: {what} ({listed(names)}): {outcome}", DataWarning, stacklevel=3)


def resolve_image_paths(cells: pd.Series, table_path: Path, *, skip_missing: bool = False) -> tuple[Path, ...]:
    """The files that a column of a table names.

    Parameters
    ----------
    cells : Series of str
        Paths, absolute or relative to the table's folder; its index is the row in the file.
    table_path : Path
        The table.
    skip_missing : bool
        A file that is not there is left to `load_images`, which skips it too.

    Raises
    ------
    InputError
        Where a cell is empty or names no file: the first of them, and how many there are.
    """
    paths = [None if _is_empty(cell) else _find(str(cell).strip(), table_path.parent) for cell in cells]
    missing = [position for position, path in enumerate(paths) if path is None]
    if missing and skip_missing:
        named = (table_path.parent / str(cell).strip() for cell in cells)
        return tuple(path or name for path, name in zip(paths, named, strict=True))
    if missing:
        cell, row = cells.iloc[missing[0]], cells.index[missing[0]]
        counted = f" ({len(missing) - 1} more rows of {len(paths)} name no file either)" if len(missing) > 1 else ""
        raise InputError(
            f"{table_path}: column {cells.name!r}, row {row}: {_why_missing(cell, table_path.parent)}{counted}"
        )
    return tuple(path for path in paths if path is not None)


def _is_empty(cell: object) -> bool:
    return not isinstance(cell, str) or not cell.strip()


def _find(cell: str, folder: Path) -> Path | None:
    """The file that a cell names; one written on Windows may separate folders by backslashes."""
    candidates = (folder / cell, folder / cell.replace("\\", "/"))
    return next((path for path in candidates if _is_file(path)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a cell of text is longer than any file name may be
        return False


def _why_missing(cell: object, folder: Path) -> str:
    if _is_empty(cell):
        return "the cell is empty; fill in the path of the image or remove the row"
    name = str(cell).strip()
    shown = repr(name if len(name) <= 80 else name[:80] + "...")
    if "://" in name:
        return f"{shown} is an address and not a file; download the images and give their paths"
    path = folder / name
    with suppress(OSError):
        siblings = [file.name for file in islice(path.parent.iterdir(), SIBLINGS_READ)] if path.parent.is_dir() else []
        near = nearest_name(path.name, siblings)
        if near is not None:
            return f"no file {shown}; did you mean {near!r}?"
    return f"no file {shown} below {folder.absolute()}; paths must be absolute or begin at the folder of the table"
