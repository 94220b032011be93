"""The rows of a run shown as what they are, image, text or cells, from the sources that the run was made of."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ebomlc.config import DataConfig, RunConfig, build, read_toml
from ebomlc.data.cache import cache_folder
from ebomlc.data.documents import read_document
from ebomlc.data.image_files import resolve_image_paths
from ebomlc.data.images import load_picture
from ebomlc.data.inputs import Inputs, Role
from ebomlc.data.memory import frame_from_huggingface
from ebomlc.data.originals import image_roots
from ebomlc.data.pool import Pool
from ebomlc.data.preprocessing import DETAILS
from ebomlc.data.readers import is_built_in, read_built_in
from ebomlc.data.tables import TABLE_SUFFIXES, Table, as_strings, read_table, table_from_frame
from ebomlc.errors import InputError
from ebomlc.records import CHECKED_COLUMN, GIVEN_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN, Sample
from ebomlc.run_folder import CONFIG, ENCODER

SIDE = 320
"""Pixels of the longer side of an image, where nothing else is asked for."""

LONGEST_TEXT, LONGEST_CELL, MOST_FIELDS = 4000, 300, 100
"""Characters of a text and of a cell, and cells of a row, that are shown."""

DIGITS_SIDE = 8
ABOUT_LABELS = (GIVEN_COLUMN, CHECKED_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN)


class Shelf(Protocol):
    """One of the sources of a run."""

    def find(self, row_id: str, side: int) -> Sample | None:
        """The row with an id; None where this source has no such row."""
        ...


@dataclass(frozen=True)
class Samples:
    """All rows of a run; see `open_samples`.

    Attributes
    ----------
    shelves : tuple of Shelf
        Where to look, in this order.
    """

    shelves: tuple[Shelf, ...]

    def show(self, row_id: str, *, side: int = SIDE) -> Sample:
        """A row by its id in the label table.

        Parameters
        ----------
        row_id : str
            The user's id.
        side : int
            Pixels that the longer side of an image is made smaller to, where it is longer.

        Returns
        -------
        Sample
            Of kind ``missing``, with the reason, where there is nothing to look at any more.
        """
        first = None
        for shelf in self.shelves:
            sample = shelf.find(row_id, side)
            if sample is not None and sample.kind != "missing":
                return sample
            first = first or sample
        return first or _missing(f"no row with the id {row_id!r} is in the data of the run any more")


def open_samples(run: Path, *, images: Sequence[Path] = (), pool: Pool | None = None) -> Samples:
    """Find the rows of a run where its configuration says that they came from; nothing is read yet.

    Parameters
    ----------
    run : Path
        The run folder.
    images : sequence of Path
        Folders that images may lie in, beside the folder that was given as the set or holds its table.
    pool : Pool, optional
        The rows themselves, which a run has while it is made: those that came from Python are nowhere else, and those
        of a built-in set need not be read again.

    Raises
    ------
    InputError
        Where the folder holds no configuration that can be read.
    """
    config = build(RunConfig, read_toml(run / CONFIG), str(run / CONFIG)).data
    roots = tuple(folder.resolve() for folder in images)
    roles = _roles(run)
    names = [name for name in (config.noisy, config.trusted) if name is not None]
    return Samples(tuple(_open(name, config, roles, roots, pool) for name in dict.fromkeys(names)))


def _roles(run: Path) -> Mapping[str, Role]:
    """What the columns of the run's inputs hold."""
    try:
        return read_document(run / ENCODER / DETAILS)["roles"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{run}: the run cannot be read ({error}); was it written by another version?") from error


def _open(
    name: str, config: DataConfig, roles: Mapping[str, Role], roots: tuple[Path, ...], pool: Pool | None
) -> Shelf:
    if pool is not None and (name.startswith("(") or is_built_in(name)):
        return _InMemory(pool, is_digits=name == "digits")
    if name.startswith("("):
        return _Closed(name)
    if is_built_in(name):
        return _BuiltIn(name, Path(config.data_dir) if config.data_dir else None)
    path = Path(name)
    is_dataset = name.startswith("hf:") or (path / "state.json").exists() or (path / "dataset_dict.json").exists()
    if path.is_dir() and not is_dataset:
        return _Folder(path, (path.resolve(), *roots))
    return _InTable(name, config, roles, roots, is_dataset)


def _missing(reason: str) -> Sample:
    return Sample("missing", reason=reason)


def cut(text: str, longest: int) -> str:
    """A text, with an ellipsis where the rest is left out."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()} …"


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder:
    """A folder of images, whose ids are paths below it."""

    root: Path
    allowed: tuple[Path, ...]

    def find(self, row_id: str, side: int) -> Sample | None:
        return _show_file(self.root / row_id, self.allowed, side)


def _show_file(path: Path, allowed: tuple[Path, ...], side: int, fields: tuple[tuple[str, str], ...] = ()) -> Sample:
    """An image, if it is there and, links resolved, in one of the folders that are allowed."""
    try:
        resolved = path.resolve()
        is_there = resolved.is_file()
    except (OSError, RuntimeError, ValueError):  # too long a name, a loop of links, a NUL
        return _missing(f"{path}: not a path of an image")
    if not any(resolved.is_relative_to(root) for root in allowed):
        where = allowed[0] if allowed else path.parent
        return _missing(f"{path} is outside of {where}, and is not shown; allow its folder with --images DIR")
    if not is_there:
        return _missing(f"{path} is gone")
    try:
        return _from_picture(load_picture(resolved, side), fields)
    except InputError as error:
        return _missing(str(error))


def _from_picture(picture: Image.Image, fields: tuple[tuple[str, str], ...] = ()) -> Sample:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return Sample("image", png=file.getvalue(), size=picture.size, fields=fields)


def _from_pixels(pixels: npt.NDArray[np.uint8], side: int) -> Sample:
    """An image [C, H, W]."""
    picture = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return _from_picture(picture)


# --- rows that were read into memory ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _InMemory:
    """The rows of a run while it is made."""

    pool: Pool
    is_digits: bool

    def find(self, row_id: str, side: int) -> Sample | None:
        row = self._rows.get(row_id)
        return None if row is None else _show_input(self.pool.inputs, row, side, is_digits=self.is_digits)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return _numbered(self.pool.ids)


@dataclass(frozen=True)
class _BuiltIn:
    """Training and test rows of a built-in set, of which the latter may have been given as trusted."""

    name: str
    data_dir: Path | None

    def find(self, row_id: str, side: int) -> Sample | None:
        try:
            sources = self._sources
        except InputError as error:
            return _missing(str(error))
        found = ((inputs, rows[row_id]) for rows, inputs in sources if row_id in rows)
        return next((_show_input(*each, side, is_digits=self.name == "digits") for each in found), None)

    @cached_property
    def _sources(self) -> list[tuple[dict[str, int], Inputs]]:
        both = read_built_in(self.name, self.data_dir)
        return [(_numbered(source.ids), source.inputs) for source in both if source.inputs is not None]


def _numbered(ids: Sequence[str] | npt.NDArray[np.object_]) -> dict[str, int]:
    return {name: row for row, name in enumerate(ids)}


def _show_input(inputs: Inputs, row: int, side: int, *, is_digits: bool) -> Sample:
    if inputs.kind == "images":
        return _from_pixels(np.asarray(inputs.values[row]), side)
    if is_digits:
        ink = inputs.numbers()[row].reshape(1, DIGITS_SIDE, DIGITS_SIDE)
        return _from_pixels(np.rint(255 * (1 - ink)).astype(np.uint8), side)
    if inputs.kind == "table":
        return _from_cells(inputs.values.iloc[row], inputs.roles)
    return _missing("an embedding given from Python has nothing to look at")


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _InTable:
    """A table, the table beside embeddings, or a Hugging Face dataset, which is read as one."""

    name: str
    config: DataConfig
    roles: Mapping[str, Role]
    roots: tuple[Path, ...]
    is_dataset: bool

    def find(self, row_id: str, side: int) -> Sample | None:
        try:
            row = self._rows.get(row_id)
        except InputError as error:
            return _missing(str(error))
        if row is None:
            return None
        table, image = self._opened
        if image is None:
            return _from_cells(self._cells(row, self.roles), self.roles)
        path = resolve_image_paths(table.frame[image].iloc[[row]], Path(table.name), skip_missing=True)[0]
        fields = _fields(self._cells(row, ()).drop(image))
        return _show_file(path, (*image_roots(self.name, self.config), *self.roots), side, fields)

    @cached_property
    def _opened(self) -> tuple[Table, str | None]:
        """The table and its column of images."""
        if not self.is_dataset:
            table, image = read_table(_table_file(Path(self.name))), self.config.image
        else:
            frame, found = frame_from_huggingface(self.name, self._cache)
            table, image = table_from_frame(frame, self.name), self.config.image or found
        return table, image if image in table.frame.columns else None

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Positions by id; rows without ids have their numbers, and with ``trusted-`` in front as well."""
        frame = self._opened[0].frame
        column = self.config.id or "id"
        if column in frame.columns:
            return _numbered(as_strings(frame[column], self.name))
        numbers = {str(row + 1): row for row in range(len(frame))}
        return numbers if self.name == self.config.noisy else {f"trusted-{name}": row for name, row in numbers.items()}

    @property
    def _cache(self) -> Path:
        return cache_folder(Path(self.config.cache_dir) if self.config.cache_dir else None)

    def _cells(self, row: int, first: Sequence[str] | Mapping[str, Role]) -> pd.Series:
        """A row of the table: the inputs, then what else stands there but labels and ids."""
        frame = self._opened[0].frame
        taken = {self.config.id or "id", self.config.label, self.config.checked, *ABOUT_LABELS}
        inputs = [name for name in first if name in frame.columns]
        others = [name for name in frame.columns if name not in taken and name not in inputs]
        return frame.iloc[row][[*inputs, *others]]


def _table_file(path: Path) -> Path:
    """The table itself, or the one beside a file of embeddings."""
    if path.suffix.lower() != ".npy":
        return path
    beside = [path.with_suffix(suffix) for suffix in TABLE_SUFFIXES]
    return next((file for file in beside if file.exists()), beside[0])


def _from_cells(cells: pd.Series, roles: Mapping[str, Role]) -> Sample:
    """A text, where a text is the only input, else a row."""
    if list(roles.values()) == ["text"] and next(iter(roles)) in cells.index:
        name = next(iter(roles))
        return Sample("text", text=cut(_written(cells[name]), LONGEST_TEXT), fields=_fields(cells.drop(name)))
    if not len(cells):
        return _missing("an embedding has nothing to look at; put a column such as a text or a name into its table")
    return Sample("row", fields=_fields(cells))


def _fields(cells: pd.Series) -> tuple[tuple[str, str], ...]:
    shown = list(cells.items())[:MOST_FIELDS]
    return tuple((str(name), cut(_written(cell), LONGEST_CELL)) for name, cell in shown)


def _written(cell: Any) -> str:  # noqa: ANN401 - whatever a cell of a table holds
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


# --- nothing to open --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Closed:
    """Rows given from Python, which only the process that gave them had."""

    name: str

    def find(self, row_id: str, side: int) -> Sample | None:
        return _missing(f"the rows of this run came from Python {self.name} and are not kept in the run folder")
