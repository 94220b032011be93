"""The image files that rows were read from, by their ids, and the folders they may lie in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ebomlc.config import DataConfig
from ebomlc.data.cache import cache_folder
from ebomlc.data.image_files import list_image_folder, resolve_image_paths
from ebomlc.data.memory import frame_from_huggingface
from ebomlc.data.readers import is_built_in
from ebomlc.data.tables import Table, as_strings, read_table, table_from_frame
from ebomlc.errors import InputError


def find_originals(config: DataConfig, wanted: Collection[str], images: Sequence[Path] = ()) -> Mapping[str, Path]:
    """Where the images of rows lie that are handed on.

    Parameters
    ----------
    config : DataConfig
        Of a run; its noisy and trusted sets are looked at.
    wanted : collection of str
        Ids of the rows.
    images : sequence of Path
        Folders that images may lie in, beside `image_roots`.

    Returns
    -------
    mapping of str to Path
        By id; empty for sets that are no image files. A file may be gone by now.

    Raises
    ------
    InputError
        Where a table or folder cannot be read, or an image, links resolved, lies outside of those folders.
    """
    found: dict[str, Path] = {}
    asked, also = set(wanted), [folder.resolve() for folder in images]
    for name in (config.trusted, config.noisy):
        if name is not None and not is_built_in(name) and not name.startswith("("):
            files = {row: file for row, file in _originals(name, config).items() if row in asked}
            _check_inside(name, files, (*image_roots(name, config), *also))
            found |= files
    return found


def image_roots(name: str, config: DataConfig) -> tuple[Path, ...]:
    """Folders, links resolved, in which the images of a set lie: its own or its table's; the cache for a dataset's."""
    own = Path(name).resolve()
    if _is_dataset(name):
        return _cache(config).resolve() / "images", own
    return (own,) if own.is_dir() else (own.parent,)


def _check_inside(name: str, files: Mapping[str, Path], roots: Sequence[Path]) -> None:
    outside = [row for row, file in files.items() if not any(file.resolve().is_relative_to(root) for root in roots)]
    if outside:
        more = f" (and {len(outside) - 1} more of {len(files)} images)" if len(outside) > 1 else ""
        raise InputError(
            f"{name}: the image of row {outside[0]!r}, {files[outside[0]].resolve()}{more}, lies outside of "
            f"{roots[0]}: allow its folder with --images DIR if it is meant to be handed on"
        )


def _is_dataset(name: str) -> bool:
    """Whether this is a Hugging Face dataset."""
    path = Path(name)
    return name.startswith("hf:") or (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def _cache(config: DataConfig) -> Path:
    return cache_folder(Path(config.cache_dir) if config.cache_dir else None)


def _originals(name: str, config: DataConfig) -> Mapping[str, Path]:
    path = Path(name)
    if _is_dataset(name):
        frame, image = frame_from_huggingface(name, _cache(config))
        return _in_table(table_from_frame(frame, name), config.image or image, config)
    if path.is_dir():
        files = list_image_folder(path)
        return dict(zip(files.ids, files.paths, strict=True))
    return _in_table(read_table(path), config.image, config) if config.image is not None else {}


def _in_table(table: Table, image: str | None, config: DataConfig) -> Mapping[str, Path]:
    """The files that a column of a table names; rows without ids go by their numbers."""
    if image is None or image not in table.frame.columns:
        return {}
    paths = resolve_image_paths(table.frame[image], Path(table.name), skip_missing=True)
    column = config.id or "id"
    numbers = map(str, range(1, len(paths) + 1))
    ids = as_strings(table.frame[column], table.name) if column in table.frame.columns else numbers
    return dict(zip(ids, paths, strict=True))
