"""From a file or a built-in name to rows: ids, labels and inputs, as strings and numbers, nothing encoded."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.data.inputs import Inputs
from ebomlc.data.official import OfficialSet, load_cifar10, load_digits_set, load_fashion_mnist
from ebomlc.errors import DataWarning, InputError, nearest_name, unknown_name
from ebomlc.records import IntArray

Labels = npt.NDArray[np.object_]

GIVEN_COLUMN = "given_label"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHER_SEPARATORS = (";", "\t", "|", ",")
LONGEST_CELL, LONGEST_SHOWN = 2**31 - 1, 40
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""What stands in a column of numbers where there is none."""


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

    def place(self, row: int) -> str:
        """Where a row is found, for messages."""
        return f"the row with id {self.ids[row]!r}" if self.has_ids else f"row {self.ids[row]} below the header"


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV file with every cell as the string it is: "007", "NA" and "None" are what they say.

    Returns
    -------
    DataFrame of str
        Its index is the row in the file, the header being row 1. Rows without any content are left out.

    Raises
    ------
    InputError
        Where the file is missing, empty, not text, not a table, or repeats a column name.
    """
    _check_path(path)
    rows = _read_rows(path)
    if not rows:
        raise InputError(f"{path}: the file is empty; a header and at least one row are needed")
    (_, first), *rest = rows.items()
    header = [name.strip() for name in first]
    _check_header(header, path)
    for row, cells in rest:
        if len(cells) != len(header):
            repair = "fill in what is missing" if len(cells) < len(header) else "put a cell with a separator in quotes"
            raise InputError(
                f"{path}: {_place(row)} has {len(cells)} cells, but the header has {len(header)}; {repair}"
            )
    return pd.DataFrame([cells for _, cells in rest], [row for row, _ in rest], header, dtype=object)


def _place(row: int) -> str:
    return f"row {row} (the header is row 1)"


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= LONGEST_SHOWN else cell[:LONGEST_SHOWN] + "...")


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give a .csv or .tsv file")
    if not path.exists():
        siblings = [file.name for file in path.parent.glob("*.[ct]sv")] if path.parent.is_dir() else []
        near = nearest_name(path.name, siblings)
        raise InputError(f"{path}: no such file; " + (f"did you mean {near!r}?" if near else "is the path right?"))
    if path.suffix.lower() not in SEPARATORS:
        raise InputError(f"{path}: this kind of file cannot be read yet; give a .csv or .tsv file, or a built-in name")


def _read_rows(path: Path) -> dict[int, list[str]]:
    """Rows that have any content by their number in the file, from 1."""
    rows: dict[int, list[str]] = {}
    row, limit = 0, csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _without_nul(file, path)
            for row, cells in enumerate(csv.reader(lines, delimiter=SEPARATORS[path.suffix.lower()], strict=True), 1):
                if any(cell and not cell.isspace() for cell in cells):
                    rows[row] = cells
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise InputError(
            f"{path}: line {line} is not text in UTF-8; if this is a table, save it again as CSV in UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"{path}: {_place(row + 1)} cannot be split into cells ({error}); "
            f'a cell in quotes must end with one, and a quote inside it is written twice, ""'
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _without_nul(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise InputError(f"{path}: line {number} holds NUL bytes, so this is no text table; save it again as CSV")
        yield line


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _check_header(header: Sequence[str], path: Path) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        name = f"column {repeated[0]!r} stands" if repeated[0] else "a column without a name stands"
        raise InputError(f"{path}: {name} in the header more than once; rename or remove one")
    other = next((separator for separator in OTHER_SEPARATORS if separator in header[0]), None)
    if len(header) == 1 and other is not None:
        here = SEPARATORS[path.suffix.lower()]
        raise InputError(
            f"{path}: the header is one cell, {_short(header[0])}; a {path.suffix} file is split at {here!r}, "
            f"this one seems to be split at {other!r}: save it with {here!r}"
        )


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

    Warns
    -----
    DataWarning
        For a column that is left out though most of its cells are numbers.
    """
    frame = read_table(path)
    if frame.empty:
        raise InputError(f"{path}: a header but no rows; at least one row is needed")
    ids, has_ids = _ids(frame, columns, path)
    labels = _filled(_column(frame, columns.label, path, "name another with --label"), "label", path)
    given = np.full(len(frame), None, dtype=object)
    if GIVEN_COLUMN in frame.columns:
        filled = (frame[GIVEN_COLUMN].str.strip() != "").to_numpy(bool)
        given[filled] = frame[GIVEN_COLUMN].to_numpy(object)[filled]
    return Source(str(path), ids, has_ids, labels, given, _inputs(frame, columns, path))


def read_labels(path: Path, columns: Columns) -> dict[str, str]:
    """Right labels by id, from a file with an id and a label column; a row with an empty label says nothing."""
    frame = read_table(path)
    ids, has_ids = _ids(frame, columns, path)
    if not has_ids:
        raise InputError(f"{path}: has no column 'id', which labels are joined by; name it with --id")
    labels = _column(frame, columns.label, path, "name another with --label")
    return {row: label for row, label in zip(ids, labels, strict=True) if label != ""}


def _column(frame: pd.DataFrame, name: str, path: Path, repair: str) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"{path}: {unknown_name('column', name, frame.columns)}; {repair}")
    return frame[name]


def _filled(cells: pd.Series, name: str, path: Path) -> Labels:
    empty = (cells.str.strip() == "").to_numpy(bool)
    if empty.any():
        raise InputError(
            f"{path}: the {name} in {_place(cells.index[int(empty.argmax())])} is empty; fill it or remove the row"
        )
    return cells.to_numpy(object)


def _ids(frame: pd.DataFrame, columns: Columns, path: Path) -> tuple[Labels, bool]:
    if columns.id is None and "id" not in frame.columns:
        return np.array([str(row + 1) for row in range(len(frame))], dtype=object), False
    cells = _column(frame, columns.id or "id", path, "name another with --id")
    ids = _filled(cells, "id", path)
    repeated = cells.duplicated(keep=False).to_numpy(bool)
    if repeated.any():
        first = ids[repeated][0]
        rows = [str(row) for row in frame.index[ids == first][:3]]
        raise InputError(
            f"{path}: id {first!r} is repeated in rows {', '.join(rows)} (the header is row 1); ids must be unique"
        )
    return ids, True


def _inputs(frame: pd.DataFrame, columns: Columns, path: Path) -> Inputs:
    if columns.text is not None:
        texts = _column(frame, columns.text, path, "name another with --text")
        return Inputs("text", texts.to_numpy(object), (columns.text,))
    names = columns.features or _numeric_columns(frame, columns, path)
    hint = "every file needs the same features; choose them with --features, once for each column"
    values = [_numbers(_column(frame, name, path, hint), name, path) for name in names]
    return Inputs("numbers", np.stack(values, axis=1), tuple(names))


def _numeric_columns(frame: pd.DataFrame, columns: Columns, path: Path) -> tuple[str, ...]:
    """Names of the columns of numbers; one without a name is the row numbers that pandas writes."""
    taken = {columns.label, GIVEN_COLUMN, columns.id or "id", ""}
    rest = [name for name in frame.columns if name not in taken]
    share = {name: _share_of_numbers(frame[name]) for name in rest}
    numeric = tuple(name for name in rest if share[name] == 1)
    if not numeric:
        hint = f"--text {rest[0]}" if rest else "--text COL or --features COL"
        raise InputError(f"{path}: no column of numbers to learn from beside the labels; if one holds text, say {hint}")
    for name in rest:
        if 0.5 < share[name] < 1:
            warnings.warn(_left_out(frame[name], path), DataWarning, stacklevel=2)
    return numeric


def _share_of_numbers(cells: pd.Series) -> float:
    filled = cells[~cells.isin(MISSING)]
    return float(pd.to_numeric(filled, errors="coerce").notna().mean()) if len(filled) else 0.0


def _left_out(cells: pd.Series, path: Path) -> str:
    wrong = (pd.to_numeric(cells, errors="coerce").isna() & ~cells.isin(MISSING)).to_numpy(bool)
    row = int(wrong.argmax())
    return (
        f"{path}: column {cells.name!r} is left out, for {_short(cells.iloc[row])} in {_place(cells.index[row])} "
        f"is not a number; empty such cells to use it"
    )


def _numbers(cells: pd.Series, name: str, path: Path) -> npt.NDArray[np.float64]:
    filled = ~cells.isin(MISSING).to_numpy(bool)
    numbers = np.full(len(cells), np.nan)
    numbers[filled] = pd.to_numeric(cells[filled], errors="coerce")
    wrong = filled & ~np.isfinite(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        cell, place = _short(cells.iloc[row]), _place(cells.index[row])
        raise InputError(
            f"{path}: {cell} in column {name!r}, {place}, is not a finite number; "
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
        raise InputError("cifar10 needs --data-dir DIR, the folder that holds cifar-10-batches-py")
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
        raise InputError(f"{unknown_name('data set', name, BUILT_IN)}, or a .csv or .tsv file")
    return False
