"""From a file or a built-in name to rows: ids, labels and inputs, as strings and numbers, nothing encoded."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.data.inputs import Inputs
from ebomlc.data.official import OfficialSet, load_cifar10, load_digits_set, load_fashion_mnist
from ebomlc.errors import InputError, unknown_name
from ebomlc.records import IntArray

Labels = npt.NDArray[np.object_]

GIVEN_COLUMN = "given_label"
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; see `ebomlc.config.DataConfig`."""

    id: str | None = None
    label: str = "label"
    text: str | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Rows as they were read.

    Attributes
    ----------
    name : str
        File or built-in name, for messages.
    ids : object array of str, shape [N]
        The user's ids, or row numbers from 1 where there is no id column.
    has_ids : bool
        False where the ids are row numbers, which mean nothing in another file.
    labels : object array of str, shape [N]
        The label column.
    given : object array of str or None, shape [N]
        The column ``given_label`` of a trusted file; None where it is empty or there is none.
    inputs : Inputs
        Of every row.
    class_names : tuple of str
        In official order for built-in sets, else empty.
    human : mapping of str to int64 array
        Human labels of built-in sets that have them.
    superclass : int64 array, shape [K], or None
        Superclass of each class of built-in sets that have one.
    """

    name: str
    ids: Labels
    has_ids: bool
    labels: Labels
    given: Labels
    inputs: Inputs
    class_names: tuple[str, ...] = ()
    human: Mapping[str, IntArray] = field(default_factory=dict)
    superclass: IntArray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV file with every cell as the string it is: "007", "NA" and "None" are what they say.

    Raises
    ------
    InputError
        Where the file is missing, empty, not text, not a table, or repeats a column name.
    """
    if path.suffix.lower() not in SEPARATORS:
        raise InputError(f"{path}: this kind of file cannot be read yet; give a .csv or .tsv file, or a built-in name")
    try:
        frame = pd.read_csv(
            path, sep=SEPARATORS[path.suffix.lower()], header=None, dtype=str, na_filter=False, encoding="utf-8-sig"
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty; a header and at least one row are needed") from error
    except (UnicodeDecodeError, pd.errors.ParserError, csv.Error) as error:
        raise InputError(f"{path}: not a readable {path.suffix[1:]} table in UTF-8: {_one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    header = [str(name) for name in frame.iloc[0]]
    _check_cells(frame, header, path)
    return frame.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_cells(frame: pd.DataFrame, header: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(f"{path}: column {repeated[0]!r} stands in the header more than once; rename one")
    short = frame.isna().any(axis=1).to_numpy()
    if short.any():
        raise InputError(f"{path}: row {int(short.argmax())} has fewer cells than the header")
    if any("\0" in name for name in header):
        raise InputError(f"{path}: contains NUL bytes, so it is not a text table; was it saved in another format?")


def read_file(path: Path, columns: Columns) -> Source:
    """Rows of a CSV or TSV file.

    Parameters
    ----------
    path : Path
        The file.
    columns : Columns
        Which columns to use; `Columns.features` empty means every other numeric column.

    Raises
    ------
    InputError
        For a missing column, an empty table, a repeated id, an empty label, a cell that is not a number.
    """
    frame = read_table(path)
    if frame.empty:
        raise InputError(f"{path}: a header but no rows")
    ids, has_ids = _ids(frame, columns, path)
    labels = _column(frame, columns.label, path, "--label").to_numpy(object)
    empty = labels == ""
    if empty.any():
        raise InputError(f"{path}: the label in row {int(empty.argmax()) + 1} is empty; fill it or remove the row")
    given = np.full(len(frame), None, dtype=object)
    if GIVEN_COLUMN in frame.columns:
        cells = frame[GIVEN_COLUMN].to_numpy(object)
        given[cells != ""] = cells[cells != ""]
    return Source(str(path), ids, has_ids, labels, given, _inputs(frame, columns, path))


def read_labels(path: Path, columns: Columns) -> dict[str, str]:
    """Right labels by id, from a file with an id and a label column."""
    frame = read_table(path)
    ids, has_ids = _ids(frame, columns, path)
    if not has_ids:
        raise InputError(f"{path}: has no column 'id'; name it with --id, labels are joined by it")
    return dict(zip(ids, _column(frame, columns.label, path, "--label"), strict=True))


def _column(frame: pd.DataFrame, name: str, path: Path, option: str) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"{path}: {unknown_name('column', name, frame.columns)}; name another with {option}")
    return frame[name]


def _ids(frame: pd.DataFrame, columns: Columns, path: Path) -> tuple[Labels, bool]:
    if columns.id is None and "id" not in frame.columns:
        return np.array([str(row + 1) for row in range(len(frame))], dtype=object), False
    ids = _column(frame, columns.id or "id", path, "--id")
    repeated = ids.duplicated(keep=False).to_numpy()
    if repeated.any():
        first = ids[repeated].iloc[0]
        rows = [str(row + 1) for row in np.flatnonzero(ids == first)[:3]]
        raise InputError(f"{path}: id {first!r} is repeated in rows {', '.join(rows)}; ids must be unique")
    return ids.to_numpy(object), True


def _inputs(frame: pd.DataFrame, columns: Columns, path: Path) -> Inputs:
    if columns.text is not None:
        return Inputs("text", _column(frame, columns.text, path, "--text").to_numpy(object), (columns.text,))
    names = columns.features or _numeric_columns(frame, columns, path)
    values = [_numbers(_column(frame, name, path, "--features"), name, path) for name in names]
    return Inputs("numbers", np.stack(values, axis=1), tuple(names))


def _numeric_columns(frame: pd.DataFrame, columns: Columns, path: Path) -> tuple[str, ...]:
    taken = {columns.label, GIVEN_COLUMN, columns.id or "id"}
    rest = [name for name in frame.columns if name not in taken]
    numeric = tuple(name for name in rest if _is_numeric(frame[name]))
    if not numeric:
        hint = f"--text {rest[0]}" if rest else "--text COL or --features COL"
        raise InputError(f"{path}: no column of numbers to learn from beside the labels; if one holds text, say {hint}")
    return numeric


def _is_numeric(cells: pd.Series) -> bool:
    filled = cells[cells != ""]
    return len(filled) > 0 and bool(pd.to_numeric(filled, errors="coerce").notna().all())


def _numbers(cells: pd.Series, name: str, path: Path) -> npt.NDArray[np.float64]:
    numbers = pd.to_numeric(cells.where(cells != ""), errors="coerce").to_numpy(np.float64)
    wrong = ((np.isnan(numbers)) & (cells != "").to_numpy()) | np.isinf(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{path}: {cells.iloc[row]!r} in column {name!r}, row {row + 1}, is not a finite number; "
            f"correct it, empty the cell, or leave the column out with --features"
        )
    return numbers


BUILT_IN: dict[str, Callable[[Path | None], OfficialSet]] = {
    "digits": lambda _: load_digits_set(),
    "fashion-mnist": load_fashion_mnist,
    "cifar10": lambda data_dir: load_cifar10(_required(data_dir)),
}


def _required(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise InputError("cifar10 needs --data-dir DIR: the folder that holds cifar-10-batches-py")
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
    n = len(labels)
    kind = "images" if inputs.ndim == 4 else "numbers"
    columns = () if kind == "images" else tuple(f"x{k}" for k in range(inputs.shape[1]))
    return Source(
        name=f"{name} ({part})",
        ids=np.array([f"{part}-{row}" for row in range(n)], dtype=object),
        has_ids=True,
        labels=np.array(official.class_names, dtype=object)[labels],
        given=np.full(n, None, dtype=object),
        inputs=Inputs(kind, inputs, columns),
        class_names=official.class_names,
        human=official.human if part == "train" else {},
        superclass=official.superclass,
    )


def is_built_in(name: str) -> bool:
    """True for the name of a built-in set.

    Raises
    ------
    InputError
        For a name that is neither built in nor an existing file nor looks like one.
    """
    if name in BUILT_IN:
        return True
    path = Path(name)
    if not path.exists() and not path.suffix:
        raise unknown_name("data set", name, BUILT_IN)
    return False
