"""From a file, a folder, a built-in name or a Python object to rows: ids, labels and inputs, nothing encoded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ebomlc.data.arrays import map_array
from ebomlc.data.cache import cache_folder
from ebomlc.data.columns import MISSING, Columns, choose_inputs
from ebomlc.data.image_files import list_image_folder, resolve_image_paths
from ebomlc.data.images import LARGEST_SIZE, choose_image_size, load_images
from ebomlc.data.inputs import Inputs, table_of_numbers
from ebomlc.data.memory import CheckedArrays, arrays_from_object, frame_from_huggingface, is_table
from ebomlc.data.official import OfficialSet, load_cifar10, load_cifar100, load_digits_set, load_fashion_mnist
from ebomlc.data.stream import open_stream
from ebomlc.data.tables import TABLE_SUFFIXES, Table, as_strings, read_table, table_from_frame
from ebomlc.errors import DataWarning, InputError, listed, nearest_name, unknown_name
from ebomlc.records import CHECKED_COLUMN, GIVEN_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN, FloatArray, IntArray

Labels = npt.NDArray[np.object_]

PROVENANCES = ("random", "suspect", "unknown")
SHOWN_SKIPPED = 3


@dataclass(frozen=True)
class Reading:
    """How sets are read.

    Attributes
    ----------
    columns, data_dir, image_size, on_bad_input, cache_dir
        See `ebomlc.config.DataConfig`.
    largest_image : int
        Pixels a side that large images are brought to, where `image_size` does not say.
    label_required, checked_required : bool
        A set without these labels is refused.
    ids_matter : bool
        Rows are joined by their ids: every row needs one, and a column of ids that was named must be there.
    role, like_name : str
        What an object from Python is called in messages, and what the set is called that a further one is compared to.
    say : callable, optional
        Takes lines about slow reading; also switches progress bars on.
    """

    columns: Columns = field(default_factory=Columns)
    data_dir: Path | None = None
    image_size: int | None = None
    largest_image: int = LARGEST_SIZE
    on_bad_input: Literal["error", "skip"] = "error"
    cache_dir: Path | None = None
    label_required: bool = True
    checked_required: bool = False
    ids_matter: bool = True
    role: str = ""
    like_name: str = "the noisy set"
    say: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Source:
    """Rows as they were read. Columns that are not there are None in every row.

    Attributes
    ----------
    name : str
        File or built-in name, for messages.
    ids : object array of str, shape [N]
        The user's ids, or row numbers from 1 where there is no id column.
    has_ids : bool
        False where the ids are row numbers, which mean nothing in another file.
    labels, checked, given : object arrays of str or None, shape [N]
        The label column; the checked label, which is right; the label before somebody checked.
    asks_for_checks : bool
        Whether there is a column of checked labels, be it empty.
    provenance : object array of str or None, shape [N]
        Why a row was checked: one of `PROVENANCES`.
    weights : float array, shape [N]
        How many rows a row that was drawn to be checked stands for; NaN where it is not known.
    inputs : Inputs or None
        Of every row; None for a file that only joins labels to rows of another.
    places : callable
        From positions to where the rows are found, for messages.
    class_names : tuple of str
        In official order for built-in sets, else empty.
    human : mapping of str to int64 array
        Human labels of built-in sets that have them.
    superclass : int64 array, shape [K], or None
        Superclass of each class of built-in sets that have one.
    skipped : tuple of (str, str)
        Names of inputs that could not be read, and why.
    skipped_ids : frozenset of str
        Ids of their rows.
    """

    name: str
    ids: Labels
    has_ids: bool
    labels: Labels
    checked: Labels
    given: Labels
    provenance: Labels
    weights: FloatArray
    inputs: Inputs | None
    places: Callable[..., str]
    asks_for_checks: bool = False
    class_names: tuple[str, ...] = ()
    human: Mapping[str, IntArray] = field(default_factory=dict)
    superclass: IntArray | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_ids: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, row: int) -> str:
        """Where a row is found, for messages."""
        return f"the row with id {self.ids[row]!r}" if self.has_ids else self.places(row)

    def take(self, rows: IntArray) -> Source:
        """Some rows, in the order asked for."""
        return replace(
            self,
            ids=self.ids[rows],
            labels=self.labels[rows],
            checked=self.checked[rows],
            given=self.given[rows],
            provenance=self.provenance[rows],
            weights=self.weights[rows],
            inputs=None if self.inputs is None else self.inputs.take(rows),
            places=lambda *chosen: self.places(*(int(rows[row]) for row in chosen)),
        )


def read_source(
    data: Any,  # noqa: ANN401 - a name, a path, or any Python object that holds rows
    reading: Reading,
    *,
    like: Inputs | None = None,
    test: bool = False,
    labels_only: bool = False,
) -> Source:
    """Rows of whatever the user has.

    Parameters
    ----------
    data : str, Path, DataFrame, Arrays, (inputs, labels), torch Dataset, Hugging Face Dataset, Table or Source
        A name may be a built-in set, a table, a folder of Parquet files that are one table, a folder with a sub-folder
        of images for each class, an ``.npy`` file of embeddings beside a table of the same name, a folder written by
        ``Dataset.save_to_disk``, or ``hf:NAME:SPLIT``.
        A Source has been read and is taken as it is.
    reading : Reading
        Columns and settings.
    like : Inputs, optional
        Inputs of the noisy set, which the rows must resemble. A table with an id column and none of those inputs is
        read without them.
    test : bool
        Take the test rows of a built-in set.
    labels_only : bool
        The inputs are not wanted.

    Raises
    ------
    InputError
        For everything that cannot be used.
    """
    source = _read(data, reading, like, test=test, labels_only=labels_only)
    if like is not None and source.inputs is not None:
        _check_alike(source.inputs, like, source.name, reading.like_name)
    return source


def _read(data: Any, reading: Reading, like: Inputs | None, *, test: bool, labels_only: bool) -> Source:  # noqa: ANN401
    if isinstance(data, Source):
        return data
    if isinstance(data, Table):
        return _read_table(data, reading, like, labels_only)
    if not isinstance(data, str | Path):
        return _read_object(data, reading, like, labels_only)
    name = str(data)
    if name in BUILT_IN:
        return read_built_in(name, reading.data_dir)[int(test)]
    if name.startswith("hf:"):
        return _read_dataset(name, name, reading, like, labels_only)
    path = Path(name)
    _check_name(path)
    stream = open_stream(path) if path.is_dir() or path.suffix.lower() == ".parquet" else None
    if stream is not None and (path.is_dir() or stream.outgrows_memory):
        return _read_table(stream.read(on_disk=stream.outgrows_memory), reading, like, labels_only)
    if path.is_dir():
        return _read_folder(path, reading, like, labels_only)
    if path.suffix.lower() == ".npy":
        return _read_vectors(path, reading, labels_only)
    return _read_table(read_table(path), reading, like, labels_only)


def _check_alike(inputs: Inputs, like: Inputs, name: str, like_name: str) -> None:
    here, there = _describe(inputs), _describe(like)
    if here != there:
        raise InputError(f"a row of {name} is {here}, but a row of {like_name} is {there}: they must be alike")


def _describe(inputs: Inputs) -> str:
    if inputs.kind == "table":
        return f"{len(inputs.roles)} columns ({listed(inputs.columns)})"
    size = " x ".join(map(str, inputs.values.shape[1:]))
    return f"an image of {size}" if inputs.kind == "images" else f"an embedding of {size} numbers"


def _check_name(path: Path) -> None:
    """Raise InputError for a name that is neither built in nor an existing file nor looks like one."""
    if path.exists():
        return
    if str(path).startswith("("):
        raise InputError(f"the rows of that run came from Python {path}: give them again beside the configuration")
    if not path.suffix and path.parent == Path():
        raise InputError(f"{unknown_name('data set', str(path), BUILT_IN)}, or a file ({listed(TABLE_SUFFIXES)}, .npy)")
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest_name(path.name, siblings)
    kind = "file" if path.suffix else "file or folder"
    raise InputError(f"{path}: no such {kind}; " + (f"did you mean {near!r}?" if near else "is the path right?"))


# --- tables -----------------------------------------------------------------------------------------------------------


def _read_table(table: Table, reading: Reading, like: Inputs | None, labels_only: bool) -> Source:
    if table.frame.empty:
        raise InputError(f"{table.name}: a header but no rows; at least one row is needed")
    columns = reading.columns
    _check_columns(table, reading, is_joined=labels_only or like is not None)
    ids, has_ids = _ids(table, reading)
    skipped: tuple[tuple[str, str], ...] = ()
    kept = np.arange(len(ids))
    inputs = None
    if not labels_only and not (has_ids and like is not None and _joins_only(table, columns, like)):
        if columns.image is not None:
            cells = _column(table, columns.image, "name another with --image")
            skip = reading.on_bad_input == "skip"
            paths = resolve_image_paths(cells, Path(table.name), skip_missing=skip)
            inputs, kept, skipped = _load_images(paths, [str(path) for path in paths], reading, like, table.name)
        elif like is not None and like.kind != "table" and not has_ids:
            raise InputError(
                f"{table.name}: has no column 'id', by which its labels are joined to {reading.like_name}; "
                f"name it with --id"
            )
        else:
            inputs = choose_inputs(table, columns, like, like_name=reading.like_name)
    source = _with_columns(table, columns, ids, has_ids)
    return _with_inputs(source, inputs, kept, skipped)


def _with_inputs(source: Source, inputs: Inputs | None, kept: IntArray, skipped: tuple[tuple[str, str], ...]) -> Source:
    """The rows whose inputs could be read, with them."""
    left_out = frozenset(np.delete(source.ids, kept))
    rows = source if not left_out else source.take(kept)
    return replace(rows, inputs=inputs, skipped=skipped, skipped_ids=left_out)


def _check_columns(table: Table, reading: Reading, *, is_joined: bool) -> None:
    """Raise InputError where a column that is needed is missing; checked labels are enough for rows known elsewhere."""
    columns = reading.columns
    if reading.label_required and not (is_joined and CHECKED_COLUMN in table.frame.columns):
        _column(table, columns.label, "name another with --label")
    if reading.checked_required:
        _column(table, columns.checked or CHECKED_COLUMN, "name the column of checked labels with --checked")


def _joins_only(table: Table, columns: Columns, like: Inputs) -> bool:
    """True for a table that has none of the inputs, and so only says something about rows of another."""
    wanted = like.columns if like.kind == "table" else tuple(filter(None, [columns.image]))
    return not any(name in table.frame.columns for name in wanted)


def _with_columns(table: Table, columns: Columns, ids: Labels, has_ids: bool) -> Source:
    """Everything but the inputs."""
    named = columns.checked or CHECKED_COLUMN
    checked = named if named in table.frame.columns else CHECKED_COLUMN
    labels = _optional(table, columns.label)
    return Source(
        name=table.name,
        ids=ids,
        has_ids=has_ids,
        labels=labels,
        checked=_without_missing(_optional(table, checked), labels),
        asks_for_checks=checked in table.frame.columns,
        given=_optional(table, GIVEN_COLUMN),
        provenance=_provenance(table, is_ours=checked in table.frame.columns or GIVEN_COLUMN in table.frame.columns),
        weights=_weights(table),
        inputs=None,
        places=lambda *rows: table.place(*table.frame.index[list(rows)].tolist()),
    )


def _column(table: Table, name: str, repair: str) -> Any:  # noqa: ANN401 - a column of a DataFrame
    if name not in table.frame.columns:
        raise InputError(f"{table.name}: {unknown_name('column', name, table.frame.columns)}; {repair}")
    return table.frame[name]


def _optional(table: Table, name: str) -> Labels:
    """A column's filled cells as strings; None in the others, and everywhere where there is no such column."""
    if name not in table.frame.columns:
        return np.full(len(table.frame), None, dtype=object)
    cells = as_strings(table.frame[name], table.name)
    return np.array([None if cell is None or not cell.strip() else cell for cell in cells], dtype=object)


def _without_missing(checked: Labels, labels: Labels) -> Labels:
    """Checked labels less what other programs write where there is none, such as NA, unless it is a label."""
    missing = set(MISSING) - {label for label in labels if label is not None}
    return np.array([None if cell in missing else cell for cell in checked], dtype=object)


def _ids(table: Table, reading: Reading) -> tuple[Labels, bool]:
    name, numbers = reading.columns.id or "id", _row_numbers(len(table.frame), table.first)
    if name not in table.frame.columns and (reading.columns.id is None or not reading.ids_matter):
        return numbers, False
    _column(table, name, "name another with --id")
    ids = _optional(table, name)
    empty = np.array([row is None for row in ids])
    if not reading.ids_matter:
        return np.where(empty, numbers, ids), True
    if empty.any():
        place = table.place(table.frame.index[int(empty.argmax())])
        raise InputError(f"{table.name}: the id in {place} is empty; fill it or remove the row")
    return ids, True


def _row_numbers(n: int, first: int = 1) -> Labels:
    return np.array([str(row) for row in range(first, first + n)], dtype=object)


def _provenance(table: Table, *, is_ours: bool) -> Labels:
    """Why rows were checked; where nothing is, a column of that name is the user's own and says something else."""
    cells = _optional(table, PROVENANCE_COLUMN)
    if not is_ours and not {cell for cell in cells if cell is not None} <= set(PROVENANCES):
        return np.full(len(cells), None, dtype=object)
    for row, cell in enumerate(cells):
        if cell is not None and cell not in PROVENANCES:
            place = table.place(table.frame.index[row])
            raise InputError(f"{table.name}: {unknown_name('provenance', cell, PROVENANCES)}; see {place}")
    return cells


def _weights(table: Table) -> FloatArray:
    weights = np.full(len(table.frame), np.nan)
    for row, cell in enumerate(_optional(table, WEIGHT_COLUMN)):
        if cell is not None:
            weights[row] = _weight(cell, table, row)
    return weights


def _weight(cell: str, table: Table, row: int) -> float:
    try:
        weight = float(cell.replace(table.decimal, "."))
    except ValueError:
        weight = np.nan
    if not 0 < weight < np.inf:
        place = table.place(table.frame.index[row])
        raise InputError(f"{table.name}: {WEIGHT_COLUMN} in {place} is {cell!r}; it must be a positive number or empty")
    return weight


# --- images and vectors -----------------------------------------------------------------------------------------------


def _read_folder(path: Path, reading: Reading, like: Inputs | None, labels_only: bool) -> Source:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _read_dataset(str(path), str(path), reading, like, labels_only)
    files = list_image_folder(path, flat=not reading.label_required)
    inputs, kept, skipped = None, np.arange(len(files.ids)), ()
    if not labels_only:
        inputs, kept, skipped = _load_images(files.paths, list(files.ids), reading, like, str(path))
    return _with_inputs(_bare(str(path), files.ids, files.labels, has_ids=True), inputs, kept, skipped)


def _load_images(
    paths: tuple[Path, ...], names: list[str], reading: Reading, like: Inputs | None, where: str
) -> tuple[Inputs, IntArray, tuple[tuple[str, str], ...]]:
    size, channels = reading.image_size, None
    if like is not None and like.kind == "images":
        channels, size = like.values.shape[1:3]
    elif size is None and paths:
        size = choose_image_size(paths, reading.largest_image)
    loaded = load_images(
        paths,
        names,
        size,
        channels=channels,
        on_bad=reading.on_bad_input,
        cache_dir=reading.cache_dir,
        say=reading.say,
    )
    if loaded.bad:
        shown = "; ".join(f"{name}: {reason}" for name, reason in loaded.bad[:SHOWN_SKIPPED])
        warnings.warn(
            f"{where}: {len(loaded.bad)} of {len(paths)} images cannot be read and are left out: {shown}"
            f"{'; summary.json lists them all' if reading.label_required else ''}",
            DataWarning,
            stacklevel=2,
        )
    return Inputs("images", loaded.values), loaded.kept, loaded.bad


def _read_vectors(path: Path, reading: Reading, labels_only: bool) -> Source:
    """Row i of ``NAME.npy`` is what row i of the table ``NAME.csv`` (or another kind of table) is about."""
    tables = [path.with_suffix(suffix) for suffix in TABLE_SUFFIXES if path.with_suffix(suffix).exists()]
    if not tables and not reading.label_required:
        return _without_labels(str(path), Inputs("vectors", load_vectors(path)))
    if not tables:
        raise InputError(
            f"{path}: no table beside it says what its rows are: write {path.stem}.csv with a row for each, "
            f"ids and labels in the same order"
        )
    if len(tables) > 1:
        raise InputError(f"{path}: {listed([file.name for file in tables])} lie beside it: remove all but one")
    table = read_table(tables[0])
    _check_columns(table, reading, is_joined=labels_only)
    source = _with_columns(table, reading.columns, *_ids(table, reading))
    if labels_only:
        return source
    vectors = load_vectors(path)
    if len(vectors) != len(source):
        raise InputError(f"{path} has {len(vectors):,} rows, but {tables[0].name} has {len(source):,}: one for each")
    return replace(source, inputs=Inputs("vectors", vectors))


def _without_labels(name: str, inputs: Inputs) -> Source:
    nothing = np.full(len(inputs), None, dtype=object)
    return replace(_bare(name, _row_numbers(len(inputs)), nothing, has_ids=False), inputs=inputs)


def load_vectors(path: Path) -> npt.NDArray[np.float32]:
    """Embeddings [N, D] from an ``.npy`` file, as float32; a large file of float32 stays on disk."""
    try:
        array = map_array(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not an array that numpy can load without pickle; write it with numpy.save"
        ) from error
    return check_vectors(array, str(path))


def check_vectors(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    """The array as float32 [N, D].

    Raises
    ------
    InputError
        Where it has another shape, holds no numbers, or a row that is not finite.
    """
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise InputError(f"{name}: has shape {array.shape} and type {array.dtype}: numbers [rows, dimensions] needed")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported below
        vectors = array if array.dtype == np.float32 else array.astype(np.float32)
    for start in range(0, len(vectors), 65_536):
        wrong = ~np.isfinite(vectors[start : start + 65_536]).all(1)
        if wrong.any():
            raise InputError(f"{name}: row {start + int(wrong.argmax()) + 1} holds NaN or infinity; mend or remove it")
    return vectors


def _read_dataset(data: Any, name: str, reading: Reading, like: Inputs | None, labels_only: bool) -> Source:  # noqa: ANN401
    """A DataFrame or a Hugging Face dataset; one that holds images is a table of their paths."""
    frame, image = frame_from_huggingface(data, cache_folder(reading.cache_dir))
    if image is not None and reading.columns.image is None:
        reading = replace(reading, columns=replace(reading.columns, image=image))
    return _read_table(table_from_frame(frame, name), reading, like, labels_only)


# --- Python objects ---------------------------------------------------------------------------------------------------


def _read_object(data: Any, reading: Reading, like: Inputs | None, labels_only: bool) -> Source:  # noqa: ANN401
    name = f"{reading.role} {object_name(data)}".strip()
    if is_table(data):
        return _read_dataset(data, name, reading, like, labels_only)
    arrays = arrays_from_object(data)
    source = _bare(name, arrays.ids, arrays.labels, has_ids=arrays.has_ids)
    return replace(source, given=arrays.given, inputs=None if labels_only else _inputs_of(arrays))


def _inputs_of(arrays: CheckedArrays) -> Inputs:
    if arrays.kind == "images":
        return Inputs("images", arrays.inputs)
    if arrays.kind == "embeddings":
        return Inputs("vectors", check_vectors(arrays.inputs, "embeddings"))
    if arrays.kind == "texts":
        import pandas as pd

        return Inputs("table", pd.DataFrame({"text": arrays.inputs}), {"text": "text"})
    return table_of_numbers(arrays.inputs, tuple(f"x{k}" for k in range(arrays.inputs.shape[1])))


def object_name(data: object) -> str:
    """What a Python object is called in messages and in ``config.toml``."""
    return f"({type(data).__name__} from Python)"


def _bare(name: str, ids: Labels, labels: Labels, *, has_ids: bool) -> Source:
    """Rows of which nothing but ids and labels is known so far."""
    nothing = np.full(len(ids), None, dtype=object)
    return Source(
        name=name,
        ids=ids,
        has_ids=has_ids,
        labels=labels,
        checked=nothing,
        given=nothing,
        provenance=nothing,
        weights=np.full(len(ids), np.nan),
        inputs=None,
        places=lambda *rows: f"row{'s' * (len(rows) > 1)} {', '.join(str(row + 1) for row in rows)}",
    )


# --- built-in sets ----------------------------------------------------------------------------------------------------

BUILT_IN: dict[str, Callable[[Path | None], OfficialSet]] = {
    "digits": lambda _: load_digits_set(),
    "fashion-mnist": load_fashion_mnist,
    "cifar10": lambda data_dir: load_cifar10(_required("cifar10", data_dir)),
    "cifar100": lambda data_dir: load_cifar100(_required("cifar100", data_dir)),
}


def _required(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise InputError(
            f"{name} needs --data-dir DIR, the folder of its files; get them with `ebomlc data {name} --data-dir DIR`"
        )
    return data_dir


def read_built_in(name: str, data_dir: Path | None) -> tuple[Source, Source]:
    """Training and test rows of a built-in set; ids are ``train-0``, ``train-1``, ... in official order."""
    official = BUILT_IN[name](data_dir)
    return (
        _official_source(official, name, "train", official.train_inputs, official.train_labels),
        _official_source(official, name, "test", official.test_inputs, official.test_labels),
    )


def _official_source(
    official: OfficialSet, name: str, part: str, inputs: npt.NDArray[np.generic], labels: IntArray
) -> Source:
    if inputs.ndim == 4:
        own = Inputs("images", inputs)
    else:
        own = table_of_numbers(inputs, tuple(f"x{k}" for k in range(inputs.shape[1])))
    ids = np.array([f"{part}-{row}" for row in range(len(labels))], dtype=object)
    names = np.array(official.class_names, dtype=object)
    return replace(
        _bare(f"{name} ({part})", ids, names[labels], has_ids=True),
        inputs=own,
        class_names=official.class_names,
        human=official.human if part == "train" else {},
        superclass=official.superclass,
    )


def is_built_in(name: str) -> bool:
    """True for the name of a built-in set."""
    return name in BUILT_IN
