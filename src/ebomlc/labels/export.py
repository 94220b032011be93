"""The label table with people's decisions, in forms that other tools read; no given label is ever written over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.output import write_table
from ebomlc.labels.decisions import Decision
from ebomlc.records import LabelTable

if TYPE_CHECKING:
    import pandas as pd

    from ebomlc.data.inputs import Inputs

DANGEROUS = re.compile(r"[=+\-@\t\r\n']")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Contents:
    """What the rows of a label table are, in its order.

    Attributes
    ----------
    inputs : Inputs
        As they were read.
    files : tuple of Path or None
        The image that a row was read from; None where it is not a file.
    """

    inputs: Inputs
    files: tuple[Path | None, ...]


def decided_table(labels: LabelTable, decisions: Mapping[str, Decision], *, best_guess: bool = False) -> pd.DataFrame:
    """The label table, and what is to be done about each row.

    Parameters
    ----------
    labels : LabelTable
        Of a run.
    decisions : mapping of str to Decision
        What stands for each row that somebody decided on, by id.
    best_guess : bool
        Take the suggested label of every row that nobody looked at, sure or not.

    Returns
    -------
    DataFrame
        The columns of the label table as they are, then

        - ``needs_review``: that of the label table, and nobody has decided yet.
        - ``final_label`` and ``label_source``: the label of a person's ``decision`` where there is one; else of a
          ``trusted`` row the checked one; else the ``suggested`` one where ``is_label_issue``, or for `best_guess`
          where it differs; else the ``given`` one.
          Who skipped a row decided nothing.
        - ``decision``, ``provenance``, ``reviewer``, ``decided_at``: of the latest event on the row, None without.
    """
    frame = labels.to_frame()
    events = [decisions.get(row) for row in labels.id]
    is_decided = np.array([event is not None and event.label is not None for event in events], dtype=bool)
    is_taken = labels.suggested_label != labels.given_label if best_guess else labels.is_label_issue
    conditions = [is_decided, labels.is_trusted, is_taken]
    chosen = np.array([None if event is None else event.label for event in events], dtype=object)
    final = np.select(conditions, [chosen, labels.suggested_label, labels.suggested_label], labels.given_label)
    frame["needs_review"] = labels.needs_review & ~is_decided
    frame["final_label"] = final
    frame["label_source"] = np.select(conditions, ["decision", "trusted", "suggested"], "given").astype(object)
    for name, value in (
        ("decision", lambda decision: decision.event.action),
        ("provenance", lambda decision: decision.provenance),
        ("reviewer", lambda decision: decision.event.reviewer),
        ("decided_at", lambda decision: decision.event.at),
    ):
        frame[name] = np.array([None if event is None else value(event) for event in events], dtype=object)
    return frame


def write_labels(frame: pd.DataFrame, out: Path) -> None:
    """Write a table of labels; cells of text files are made harmless first.

    Parameters
    ----------
    frame : DataFrame
        Such as `decided_table` gives.
    out : Path
        Ends with .csv, .tsv, .jsonl or .parquet.
    """
    write_table(harmless(frame) if out.suffix.lower() in (".csv", ".tsv") else frame, out)


def harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """A table that no spreadsheet takes for formulas.

    A cell of text that begins with ``= + - @``, a tab, a line end or an apostrophe gets an apostrophe in front, unless
    it is a number. Taking one apostrophe away from every cell that begins with one gives back what was there. So are
    the names of the columns.
    """
    done = frame.rename(columns=_harmless)
    for position, (_, column) in enumerate(frame.items()):
        if column.dtype.kind not in "biuf":
            done.isetitem(position, [_harmless(cell) for cell in column])
    return done


def _harmless(cell: Any) -> Any:  # noqa: ANN401 - any cell
    is_open = isinstance(cell, str) and DANGEROUS.match(cell) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if is_open else cell


def write_cleanlab(
    frame: pd.DataFrame, probabilities: npt.NDArray[np.floating[Any]], class_names: Sequence[str], folder: Path
) -> int:
    """Write what cleanlab takes: ``pred_probs.npy`` and ``labels.csv``, one row for each row with a given label.

    Parameters
    ----------
    frame : DataFrame, N rows
        From `decided_table`.
    probabilities : float array, shape [N, K]
        Of the main model, from the inputs alone.
    class_names : sequence of str, length K
        Their position is the integer in the column ``label`` of ``labels.csv`` and the column of ``pred_probs.npy``.
    folder : Path
        Is there already.

    Returns
    -------
    int
        Rows written.
    """
    import pandas as pd

    index = {name: k for k, name in enumerate(class_names)}
    kept = np.flatnonzero(frame["given_label"].notna())
    rows = frame.iloc[kept]
    numbered = rows[["id", "given_label", "final_label", "label_source"]].copy()
    numbered.insert(1, "label", [index[name] for name in rows["given_label"]])
    np.save(folder / "pred_probs.npy", probabilities[kept], allow_pickle=False)
    write_labels(numbered, folder / "labels.csv")
    write_labels(pd.DataFrame({"label": range(len(class_names)), "name": class_names}), folder / "classes.csv")
    return len(kept)
