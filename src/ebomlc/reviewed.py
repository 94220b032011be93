"""What people decided in a finished run, read back from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.preprocessing import load_preprocessing
from ebomlc.data.readers import Source
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
        reason = " ".join(str(error).split())  # Arrow writes on several lines
        raise InputError(f"{run}: the run cannot be read ({reason}); was it written by another version?") from error
    return LabelTable(**{name: _array(column) for name, column in columns.items()}), names


def _array(column: pd.Series) -> npt.NDArray[Any]:
    """Strings as Python has them, None where there is none; numbers as they are."""
    if column.dtype.kind in "fib":
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy()


def open_decisions(run: Path, *, seed: int = 0) -> Decisions:
    """The decisions on the rows of a run, to add to them; see `Decisions`."""
    return Decisions(run / DECISIONS, *read_labels(run), seed=seed)


def read_decided(run: Path, labels: LabelTable, class_names: tuple[str, ...]) -> dict[str, Decision]:
    """What stands for each row of a run that somebody decided on; see `Decisions.latest`."""
    return read_decisions(run / DECISIONS, labels, class_names)


def load_reviewed(runs: Sequence[str]) -> dict[str, tuple[Source, ...]]:
    """The rows that people decided on in some runs, for `ebomlc.data.pool.load_pool`.

    Raises
    ------
    InputError
        For a folder without a run, and a run in which nobody decided anything.
    """
    return {"reviewed": tuple(reviewed_rows(Path(run)) for run in runs)}


def reviewed_rows(run: Path) -> Source:
    """The rows of a run that people decided on, as a set that is joined by ids; skipped ones are none of them.

    Its labels are the decided ones, ``given`` what people saw, ``provenance`` whether the row was shown at random.
    """
    labels, names = read_labels(run)
    decided = [decision for decision in read_decided(run, labels, names).values() if decision.label is not None]
    if not decided:
        raise InputError(f"{run}: nobody has decided on a row of this run yet: `ebomlc review {run}`")
    nothing = np.full(len(decided), None, dtype=object)
    return Source(
        name=f"{run} (reviewed)",
        ids=_objects([decision.id for decision in decided]),
        has_ids=True,
        labels=_objects([decision.label for decision in decided]),
        checked=nothing,
        given=_objects([decision.event.given_label for decision in decided]),
        provenance=_objects([decision.provenance for decision in decided]),
        weights=np.full(len(decided), np.nan),
        inputs=None,
        places=lambda *rows: f"row{'s' * (len(rows) > 1)} {', '.join(str(row + 1) for row in rows)}",
        asks_for_checks=True,
    )


def _objects(values: Sequence[str | None]) -> npt.NDArray[np.object_]:
    return np.array(values, dtype=object)
