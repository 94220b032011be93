"""The image files that rows were read from, by their ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ebomlc.config import DataConfig
from ebomlc.data.cache import cache_folder
from ebomlc.data.image_files import list_image_folder, resolve_image_paths
from ebomlc.data.memory import frame_from_huggingface
from ebomlc.data.readers import is_built_in
from ebomlc.data.tables import Table, as_strings, read_table, table_from_frame


def find_originals(config: DataConfig) -> Mapping[str, Path]:
    """Where the image of each row lies.

    Parameters
    ----------
    config : DataConfig
        Of a run; its noisy and trusted sets are looked at.

    Returns
    -------
    mapping of str to Path
        By id; empty for sets that are no image files. A file may be gone by now.

    Raises
    ------
    InputError
        Where a table or folder cannot be read.
    """
    found: dict[str, Path] = {}
    for name in (config.trusted, config.noisy):
        if name is not None and not is_built_in(name) and not name.startswith("("):
            found |= _originals(name, config)
    return found


def _originals(name: str, config: DataConfig) -> Mapping[str, Path]:
    path = Path(name)
    if name.startswith("hf:") or (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        frame, image = frame_from_huggingface(name, cache_folder(Path(config.cache_dir) if config.cache_dir else None))
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
