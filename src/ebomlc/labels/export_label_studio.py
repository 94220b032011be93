"""Tasks for Label Studio: what is still open, the most doubtful first, with the suggestions as predictions."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from ebomlc.errors import InputError
from ebomlc.labels.export import Contents
from ebomlc.labels.export_images import png_bytes
from ebomlc.version import __version__

if TYPE_CHECKING:
    import pandas as pd

CONTROL, SHOWN = "label", "sample"
"""What the choice and the sample are called in the labelling interface, by which predictions name them."""

TAGS = {"image": "Image", "text": "Text", "row": "Table"}


def write_label_studio(
    frame: pd.DataFrame, contents: Contents, class_names: Sequence[str], method: str, folder: Path
) -> int:
    """Write ``tasks.json`` to be imported and ``config.xml``, the labelling interface they need.

    Parameters
    ----------
    frame : DataFrame, N rows
        From `ebomlc.labels.export.decided_table`; rows that are trusted or decided make no task.
    contents : Contents
        Of the rows.
    class_names : sequence of str
        To choose from.
    method : str
        For ``model_version``.
    folder : Path
        Is there already.

    Returns
    -------
    int
        Tasks written, in the order of rising confidence of the suggestion, which is the score of its prediction.

    Raises
    ------
    InputError
        For embeddings, which nobody can look at, and a class name that XML cannot hold.
    """
    kind = _kind(contents)
    is_open = ~frame["label_source"].isin(["trusted", "decision"]).to_numpy()
    order = np.argsort(frame["suggestion_confidence"].to_numpy(), kind="stable")
    root = _common_folder(contents)
    model = f"ebomlc {__version__} {method}"
    tasks = [_task(frame, row, {kind: _sample(contents, row, root)}, model) for row in order[is_open[order]]]
    text = json.dumps(tasks, ensure_ascii=False, allow_nan=False, indent=1)
    (folder / "tasks.json").write_text(text + "\n", encoding="utf-8")
    (folder / "config.xml").write_text(_interface(kind, class_names), encoding="utf-8")
    return len(tasks)


def local_files_root(contents: Contents) -> Path | None:
    """The folder that Label Studio has to serve for the tasks' images; None where they are in the tasks."""
    return _common_folder(contents)


def _kind(contents: Contents) -> str:
    inputs = contents.inputs
    if inputs.kind == "vectors":
        raise InputError("label-studio needs something to look at, but the rows are embeddings: take --to csv")
    if inputs.kind == "images":
        return "image"
    return "text" if list(inputs.roles.values()) == ["text"] else "row"


def _common_folder(contents: Contents) -> Path | None:
    folders = {_served(file).parent for file in contents.files if file is not None}
    if not folders:
        return None
    first = min(folders)
    return next(folder for folder in (first, *first.parents) if all(f.is_relative_to(folder) for f in folders))


def _served(file: Path) -> Path:
    """A file by a path that goes down only, as Label Studio serves it."""
    return file.resolve() if ".." in file.parts else file.absolute()


def _sample(contents: Contents, row: int, root: Path | None) -> Any:  # noqa: ANN401 - any JSON value
    inputs, file = contents.inputs, contents.files[row]
    if root is not None and file is not None:
        return f"/data/local-files/?d={quote(_served(file).relative_to(root).as_posix())}"
    if inputs.kind == "images":
        return f"data:image/png;base64,{base64.b64encode(png_bytes(inputs, row)).decode()}"
    cells = {name: _plain(inputs.values[name].iloc[row]) for name in inputs.columns}
    return cells if _kind(contents) == "row" else next(iter(cells.values()))


def _plain(cell: Any) -> Any:  # noqa: ANN401 - a cell of a table of inputs
    """A cell as JSON knows it; what is empty as an empty text."""
    if cell is None or cell != cell:
        return ""
    return float(cell) if isinstance(cell, float) else str(cell)


def _task(frame: pd.DataFrame, row: int, sample: dict[str, Any], model: str) -> dict[str, Any]:
    said = frame.iloc[row]
    score = float(said["suggestion_confidence"])
    result = {
        "id": f"suggestion-{row}",
        "type": "choices",
        "from_name": CONTROL,
        "to_name": SHOWN,
        "value": {"choices": [said["suggested_label"]]},
        "score": score,
    }
    data = {"id": said["id"], "given_label": said["given_label"], **sample}
    return {"data": data, "predictions": [{"model_version": model, "score": score, "result": [result]}]}


def _interface(kind: str, class_names: Sequence[str]) -> str:
    choices = "".join(f"    <Choice value={_attribute(name)}/>\n" for name in class_names)
    return (
        f"<View>\n"
        f'  <Header value="Given label: $given_label"/>\n'
        f'  <{TAGS[kind]} name="{SHOWN}" value="${kind}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{SHOWN}" choice="single" showInline="true" required="true">\n'
        f"{choices}"
        f"  </Choices>\n"
        f"</View>\n"
    )


def _attribute(name: str) -> str:
    if not all(ord(letter) >= 32 or letter in "\t\n\r" for letter in name):
        raise InputError(f"label-studio: class {name!r} holds a control character, which XML cannot: rename the class")
    return quoteattr(name)
