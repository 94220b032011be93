"""``ebomlc sample``: draw random rows for a person to check, and say what that many tell."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebomlc.cli.screen import echo
from ebomlc.data.output import OUT_SUFFIXES, check_output
from ebomlc.errors import DataWarning, InputError, unknown_name
from ebomlc.records import CHECKED_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from ebomlc.data.sampling import Drawn
    from ebomlc.data.tables import Table

LABEL = "label"
RANDOM = "random"
ROWS = 300


@dataclass(frozen=True)
class _Rows:
    """Rows that may be drawn, with a column of ids, and how many were left out."""

    frame: pd.DataFrame
    labels: npt.NDArray[np.object_]
    n_all: int
    n_checked: int
    n_unlabelled: int
    decimal: str = "."


def sample(
    data: Annotated[
        Path, typer.Argument(help="The large set: a table, or a folder with a sub-folder of images for each class.")
    ],
    *,
    out: Annotated[Path, typer.Option(help=f"File to write: {', '.join(OUT_SUFFIXES)}.")],
    n: Annotated[int, typer.Option("-n", help="How many rows to draw.")] = ROWS,
    stratify: Annotated[
        bool, typer.Option("--stratify", help="Draw in proportion from every given label, two of each at least.")
    ] = False,
    label: Annotated[str, typer.Option(help="Label column.")] = LABEL,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Id column. Default: 'id' if there is one, else the row number.")
    ] = None,
    checked: Annotated[
        str | None,
        typer.Option(
            help=f"Column of right labels, filled in rows somebody has checked, which are not drawn again. "
            f"Default: {CHECKED_COLUMN}."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file --out.")] = False,
) -> None:
    """Draw random rows for a person to check before anything is trained, and say what that many tell.

    Fill the column checked_label with the right label of each row, from the top; the order is random too, so that the
    rows checked so far are a random sample whenever you stop.

        ebomlc sample noisy.csv -n 300 --out to_check.csv
        ebomlc fit noisy.csv --trusted to_check.csv --out run
    """
    from ebomlc.data.output import write_table
    from ebomlc.data.sampling import draw_rows

    _check_out(out, data, overwrite)
    options = {"--label": label if label != LABEL else None, "--id": id_column, "--checked": checked}
    rows = _read_folder(data, options) if data.is_dir() else _read_table(data, label, id_column, checked)
    if not len(rows.labels):
        raise InputError(f"{data}: no row is left to draw{_left_out(rows)}")
    drawn = draw_rows(rows.labels, n, stratify=stratify, seed=seed)
    _warn_of_few(n, rows.labels)
    write_table(_table_to_check(rows.frame, drawn, checked or CHECKED_COLUMN), out, decimal=rows.decimal)
    echo(f"drew {n:,} of {len(rows.labels):,} rows at random{_left_out(rows)}; written to {out}")
    echo(_what_it_tells(n, drawn.sizes))
    echo(_next_step(data, out, checked or CHECKED_COLUMN, options))


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_table(path: Path, label: str, id_column: str | None, checked: str | None) -> _Rows:
    from ebomlc.data.tables import read_table

    table = read_table(path)
    if table.frame.empty:
        raise InputError(f"{path}: a header but no rows; at least one row is needed")
    _check_columns(table, {"--label": label, "--id": id_column, "--checked": checked})
    is_checked = _filled(table, checked) | _filled(table, CHECKED_COLUMN)
    is_labelled = _filled(table, label)
    kept = is_labelled & ~is_checked
    _check_free(table, kept)
    return _Rows(
        frame=_with_ids(table, id_column)[kept],
        labels=_strings(table, label)[kept],
        n_all=len(kept),
        n_checked=int(is_checked.sum()),
        n_unlabelled=int((~is_labelled & ~is_checked).sum()),
        decimal=table.decimal,
    )


def _check_columns(table: Table, options: Mapping[str, str | None]) -> None:
    for option, name in options.items():
        if name is not None and name not in table.frame.columns:
            known = table.frame.columns
            raise InputError(f"{table.name}: {unknown_name('column', name, known)}; name another with {option}")
    if options["--label"] in (CHECKED_COLUMN, PROVENANCE_COLUMN, WEIGHT_COLUMN, options["--checked"]):
        raise InputError(
            f"{table.name}: {options['--label']!r} is a column that the sample writes; "
            f"name the column of given labels with --label"
        )


def _check_free(table: Table, kept: npt.NDArray[np.bool_]) -> None:
    """Refuse to write over what stands in a column of the user's."""
    for name in (PROVENANCE_COLUMN, WEIGHT_COLUMN):
        clash = _filled(table, name) & kept
        if clash.any():
            place = table.place(table.frame.index[int(clash.argmax())])
            raise InputError(
                f"{table.name}: column {name!r} is filled in {place}, but the sample writes its own; rename the column"
            )


def _strings(table: Table, name: str) -> npt.NDArray[np.object_]:
    """Cells of a column as strings; None where one is empty or blank."""
    import numpy as np

    from ebomlc.data.tables import as_strings

    cells = as_strings(table.frame[name], table.name)
    return np.array([None if cell is None or not cell.strip() else cell for cell in cells], dtype=object)


def _filled(table: Table, name: str | None) -> npt.NDArray[np.bool_]:
    import numpy as np

    if name is None or name not in table.frame.columns:
        return np.zeros(len(table.frame), dtype=bool)
    return np.array([cell is not None for cell in _strings(table, name)], dtype=bool)


def _with_ids(table: Table, id_column: str | None) -> pd.DataFrame:
    """The table with an id column, which holds the row numbers of `ebomlc.data.readers` where there was none."""
    frame = table.frame
    if id_column is None and "id" not in frame.columns:
        numbered = frame.copy()
        numbered.insert(0, "id", [str(row + 1) for row in range(len(frame))])
        return numbered
    name = id_column or "id"
    _check_ids(table, name)
    return frame


def _check_ids(table: Table, name: str) -> None:
    rows: dict[str, int] = {}
    for row, cell in zip(table.frame.index, _strings(table, name), strict=True):
        if cell is None:
            raise InputError(f"{table.name}: the id in {table.place(row)} is empty; fill it or remove the row")
        if cell in rows:
            raise InputError(
                f"{table.name}: id {cell!r} is repeated in {table.place(rows[cell], row)}, so a checked row could not "
                f"be found again; make ids unique, or name another column with --id"
            )
        rows[cell] = row


def _read_folder(root: Path, options: Mapping[str, str | None]) -> _Rows:
    import pandas as pd

    from ebomlc.data.image_files import list_image_folder

    named = [option for option, name in options.items() if name is not None]
    if named:
        raise InputError(f"{root}: a folder of images has no columns; leave {' and '.join(named)} out")
    files = list_image_folder(root)
    frame = pd.DataFrame({"id": files.ids, "label": files.labels, "file": [str(path) for path in files.paths]})
    return _Rows(frame, files.labels, len(frame), 0, 0)


# --- writing ----------------------------------------------------------------------------------------------------------


def _check_out(out: Path, data: Path, overwrite: bool) -> None:
    if out.exists() and data.exists() and out.samefile(data):
        raise InputError(f"{out} is the set itself; choose another --out")
    check_output(out, overwrite)


def _table_to_check(frame: pd.DataFrame, drawn: Drawn, answer: str) -> pd.DataFrame:
    return frame.iloc[drawn.rows].assign(**{answer: "", PROVENANCE_COLUMN: RANDOM, WEIGHT_COLUMN: drawn.weights})


def _warn_of_few(n: int, labels: npt.NDArray[np.object_]) -> None:
    n_classes = len(set(labels))
    if n < 2 * n_classes:
        warnings.warn(
            f"-n {n} is less than two rows for each of {n_classes} classes: some will have no trusted row to learn "
            f"from; ask for more",
            DataWarning,
            stacklevel=2,
        )


def _left_out(rows: _Rows) -> str:
    reasons = [
        f"{count:,} {why}"
        for count, why in ((rows.n_checked, "checked already"), (rows.n_unlabelled, "without a label"))
        if count
    ]
    return f" (of {rows.n_all:,}, left out: {', '.join(reasons)})" if reasons else ""


def _what_it_tells(n: int, sizes: Mapping[str, int]) -> str:
    total, more = sum(sizes.values()), 2 * n
    if n == total:
        return "these are all rows: once they are checked, the share of wrong labels is known exactly"
    half, fifth = (f"±{100 * _half_width(n, sizes, rate):.1f}" for rate in (0.5, 0.2))
    outlook = f"all {total:,} would tell it exactly"
    if more < total:
        outlook = f"{more:,} would give ±{100 * _half_width(more, sizes, 0.5):.1f}"
    return (
        f"{n:,} random rows tell the share of wrong labels to about {half} points "
        f"(95 % interval, if half are wrong; {fifth} if 20 % are); {outlook}"
    )


def _half_width(n: int, sizes: Mapping[str, int], rate: float) -> float:
    """What n rows of these strata tell; a stratified interval makes no use of how many rows there are in all."""
    import numpy as np

    from ebomlc.data.sampling import allocate
    from ebomlc.labels.trust import effective_rows, expected_half_width

    if len(sizes) == 1:
        return expected_half_width(n, rate, finite=sum(sizes.values()))
    rows = np.array(list(sizes.values()))
    taken = allocate(rows, n)
    return expected_half_width(effective_rows(np.repeat(rows / taken, taken)), rate)


def _next_step(data: Path, out: Path, answer: str, options: Mapping[str, str | None]) -> str:
    given = [part for option, value in options.items() if value is not None for part in (option, value)]
    command = shlex.join(["ebomlc", "fit", str(data), "--trusted", str(out), *given, "--out", "run"])
    return (
        f"next: write the right label of each row into its column {answer}, also where the given one is right;\n"
        f"stop where you like, for the rows from the top down to any row are a random sample too; then\n  {command}"
    )
