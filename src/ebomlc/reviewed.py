"""What people decided in a finished run, read back from its folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ebomlc.data.preprocessing import load_preprocessing
from ebomlc.errors import InputError
from ebomlc.labels.decisions import Decision, Decisions, read_decisions
from ebomlc.records import LabelTable
from ebomlc.run_folder import ENCODER, LABELS, SUMMARY

if TYPE_CHECKING:
    import pandas as pd

DECISIONS = "decisions.sqlite"


def read_labels(run: Path) -> tuple[LabelTable, tuple[str, ...]]:
    """The label table and the class names of a run.

    Raises
    ------
    InputError
        Where the folder holds no run, or one of another version.
    """
    import pandas as pd
    from pyarrow import ArrowException

    if not (run / SUMMARY).is_file():
        raise InputError(f"{run}: not a run folder, for it has no {SUMMARY}; name the folder that --out named")
    try:
        frame = pd.read_parquet(run / LABELS)
        columns = {f.name: frame[f.name] for f in fields(LabelTable)}
        names = load_preprocessing(run / ENCODER).class_names
    except (OSError, KeyError, ValueError, ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{run}: the run cannot be read ({error}); was it written by another version?") from error
    return LabelTable(**{name: _array(column) for name, column in columns.items()}), names


def _array(column: pd.Series) -> npt.NDArray[Any]:
    """Strings as Python has them, None where there is none; numbers as they are."""
    if column.dtype.kind in "fib":
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy()


def open_decisions(run: Path, *, seed: int = 0) -> Decisions:
    """The decisions on the rows of a run, to add to them; see `Decisions`."""
    return Decisions(run / DECISIONS, *read_labels(run), seed=seed)


def decided(run: Path, labels: LabelTable, class_names: tuple[str, ...]) -> dict[str, Decision]:
    """What stands for each row of a run that somebody decided on; see `Decisions.latest`."""
    return read_decisions(run / DECISIONS, labels, class_names)
