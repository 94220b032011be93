"""Any number of rows through a finished run into a file: what they are, or what their labels should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import nn

from ebomlc.data.inputs import Inputs
from ebomlc.data.joining import to_index
from ebomlc.data.parts import check_parts, is_whole, new_parts
from ebomlc.data.preprocessing import Preprocessing
from ebomlc.data.readers import Source, is_built_in
from ebomlc.data.sets import check_labelled, first_filled, is_empty
from ebomlc.data.stream import CELL_BYTES, TableStream, open_stream, rows_at_once
from ebomlc.errors import InputError, listed
from ebomlc.labels.correct import correct
from ebomlc.methods import Method
from ebomlc.prediction import Classifier, Tally, classify, count_unseen, inputs_of, restore_method, warn_of_unseen
from ebomlc.records import CHECKED_COLUMN, NO_LABEL, IntArray
from ebomlc.run_folder import ENCODER, MAIN, METHOD
from ebomlc.training.device import suitable_threads
from ebomlc.training.states import load_state

BYTES_MADE = 12
"""Of a row, for each class: its probability, as it comes from the model, in the array of all and in the table."""


def predict_to(
    classifier: Classifier,
    data: Any,  # noqa: ANN401
    out: str | Path,
    *,
    suggest: Method | None = None,
    on_bad_input: str = "error",
    overwrite: bool = False,
    resume: bool = False,
) -> Tally | None:
    """Classify new rows into a file, some at a time.

    Parquet and CSV files and folders of Parquet shards are also read some rows at a time, where the run's rows are
    columns; everything else is read as a whole.

    Parameters
    ----------
    classifier, data, on_bad_input
        As for `predict`.
    out : str or Path
        The file: .csv, .tsv, .jsonl or .parquet. It is there when it is whole; until then, the rows that are done lie
        beside it, in ``OUT.unfinished``.
    suggest : Method, optional
        From `load_method`: write the label table of the rows instead, which need labels then. Confidences are the
        method's own, and every suggestion of another label counts as an issue.
    overwrite, resume : bool
        Replace the file that is there, finished or not; continue it, where nothing changed that its rows depend on.

    Returns
    -------
    Tally or None
        Of all rows; None where nothing was left to be done.

    Raises
    ------
    InputError
        For what cannot be read or written, and for rows that are not like those of the run.

    Warns
    -----
    DataWarning
        As `predict`.
    """
    out = Path(out)
    check_parts(out, overwrite=overwrite, resume=resume)
    if resume and is_whole(out):
        return None
    rows = _open_rows(classifier, data, on_bad_input)
    begun = {
        "run": _fingerprint(classifier),
        "data": rows.fingerprint(),
        "on_bad_input": on_bad_input,
        "table": "predictions" if suggest is None else "suggestions",
    }
    with new_parts(out, begun, overwrite=overwrite, resume=resume) as parts:
        for source in rows.chunks(parts.rows):
            table, tally = _predicted(classifier, source) if suggest is None else _judged(classifier, suggest, source)
            parts.append(table, asdict(tally))
        tally = sum((_restore_tally(notes) for notes in parts.notes[1:]), _restore_tally(parts.notes[0]))
    warn_of_unseen(rows.name, tally.unseen)
    return tally


def _predicted(classifier: Classifier, source: Source) -> tuple[pa.Table, Tally]:
    predictions, tally = classify(classifier, source)
    return predictions.to_arrow(), tally


def load_method(classifier: Classifier, *, model: nn.Module | None = None) -> Method:
    """The trained method of a run, which also knows what is right where a label is given.

    Parameters
    ----------
    classifier : Classifier
        From `load_classifier`.
    model : nn.Module, optional
        As for `load_classifier`.

    Raises
    ------
    InputError
        Where it was written by another version.
    """
    config, device = classifier.config, next(classifier.model.parameters()).device
    stored = Preprocessing(classifier.encoder, classifier.like, classifier.class_names, classifier.spelling)
    path = classifier.folder / METHOD
    try:
        return restore_method(config, stored, classifier.model.state_dict(), load_state(path), device, model)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read ({reason}); was it written by another version?") from error


def _judged(classifier: Classifier, method: Method, source: Source) -> tuple[pa.Table, Tally]:
    """The label table of rows that carry labels, and what the labels say of the predictions."""
    inputs = inputs_of(source)
    check_labelled(source, first_filled(source.labels, source.checked))
    names = classifier.class_names
    given, checked = (_indices(source, labels, names) for labels in (source.labels, source.checked))
    with suitable_threads(method.model):
        labels = correct(method, classifier.encoder.encode(inputs), given, checked, source.ids, names)
    columns = {field.name: getattr(labels, field.name) for field in fields(labels)}
    words = ("id", *(name for name in columns if name.endswith("_label")))
    table = pa.table({n: pa.array(cells, pa.string() if n in words else None) for n, cells in columns.items()})
    known, hits = given[given != NO_LABEL], given[(given != NO_LABEL) & (labels.predicted_label == labels.given_label)]
    labelled, right = (tuple(np.bincount(rows, minlength=len(names)).tolist()) for rows in (known, hits))
    return table, Tally(len(source), labelled, right, unseen=count_unseen(classifier, source))


def _indices(source: Source, labels: npt.NDArray[np.object_], names: tuple[str, ...]) -> IntArray:
    """Labels as class indices, `NO_LABEL` where there is none."""
    found = to_index(labels, names)
    unknown = (found == NO_LABEL) & ~is_empty(labels)
    if unknown.any():
        row = int(unknown.argmax())
        raise InputError(
            f"{source.name}: {source.place(row)} has the label {labels[row]!r}, which is no class of the run; "
            f"correct it or remove the row; known: {listed(names)}"
        )
    return found


def _restore_tally(notes: Mapping[str, Any]) -> Tally:
    lists = {name: tuple(notes[name]) for name in ("labelled", "right", "unknown")}
    return Tally(**{**notes, **lists})


@dataclass(frozen=True)
class _Rows:
    """New rows, some at a time.

    Attributes
    ----------
    name : str
        For messages.
    classifier : Classifier
        Whose run says how they are read.
    on_bad_input : {"error", "skip"}
        See `predict`.
    stream : TableStream or None
        Where they come from.
    whole : Source or None
        All of them, where they cannot be streamed.
    """

    name: str
    classifier: Classifier
    on_bad_input: str
    stream: TableStream | None
    whole: Source | None

    def chunks(self, start: int) -> Iterator[Source]:
        """Sources of the rows from one on."""
        classifier = self.classifier
        made = BYTES_MADE * len(classifier.class_names)
        if self.stream is not None:
            wanted = _wanted_columns(classifier, self.stream)
            for table in self.stream.tables(wanted, start=start, row_bytes=made):
                yield classifier.read(table, on_bad_input=self.on_bad_input)
        elif self.whole is not None:
            size = rows_at_once(made + _row_bytes(inputs_of(self.whole)))
            for first in range(start, len(self.whole), size):
                yield self.whole.take(np.arange(first, min(first + size, len(self.whole))))

    def fingerprint(self) -> list[Any]:
        """What changes where the rows do: each file's name, size and time; of what is no stream, the ids."""
        if self.stream is not None:
            states = [(shard.path.resolve(), shard.path.stat()) for shard in self.stream.shards]
            return [[str(path), state.st_size, state.st_mtime_ns] for path, state in states]
        ids = [] if self.whole is None else self.whole.ids
        return [self.name, len(ids), hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()]


def _row_bytes(inputs: Inputs) -> int:
    """What a row takes in memory, at least."""
    return CELL_BYTES * len(inputs.columns) if inputs.kind == "table" else inputs.values[:1].nbytes


def _open_rows(classifier: Classifier, data: Any, on_bad_input: str) -> _Rows:  # noqa: ANN401
    is_file = isinstance(data, str | Path) and not is_built_in(str(data))
    stream = open_stream(Path(data)) if is_file and classifier.like.kind == "table" else None
    whole = None if stream is not None else classifier.read(data, on_bad_input=on_bad_input)
    name = stream.name if stream is not None else whole.name if whole is not None else ""
    return _Rows(name, classifier, on_bad_input, stream, whole)


def _wanted_columns(classifier: Classifier, stream: TableStream) -> frozenset[str]:
    """The columns to read: the inputs, ids and labels; all, where an input is missing, for its error names them."""
    inputs = classifier.like.columns
    if not {*inputs} <= {*stream.columns}:
        return frozenset(stream.columns)
    data = classifier.config.data
    return frozenset((*inputs, data.id or "id", data.label, data.checked or CHECKED_COLUMN))


def _fingerprint(classifier: Classifier) -> str:
    """SHA-256 of the weights and the preprocessing of a run."""
    digest = hashlib.sha256()
    for path in (classifier.folder / MAIN, *sorted((classifier.folder / ENCODER).iterdir())):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
