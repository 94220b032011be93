"""A Hugging Face dataset of the rows with every label of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ebomlc.errors import InputError
from ebomlc.labels.export import Contents
from ebomlc.labels.export_images import png_bytes

if TYPE_CHECKING:
    import pandas as pd


def write_huggingface(frame: pd.DataFrame, contents: Contents, class_names: Sequence[str], folder: Path) -> int:
    """Write a dataset that ``datasets.load_from_disk`` reads.

    Parameters
    ----------
    frame : DataFrame, N rows
        From `ebomlc.labels.export.decided_table`.
    contents : Contents
        Of the rows: the columns of a table by their names (``input_NAME`` where the label table has such a column),
        images in the column ``image``, embeddings in ``embedding``.
    class_names : sequence of str
        Of ``label``, the final label as a class label.
    folder : Path
        Is there already.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    InputError
        Where the extra is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError("--to huggingface needs an extra: pip install 'ebomlc[hf]'") from error
    features = datasets.Features(
        {
            **_input_features(contents, frame, datasets),
            "label": datasets.ClassLabel(names=list(class_names)),
            **{name: _feature(frame[name], datasets) for name in frame},
        }
    )
    columns = {**_input_columns(contents, frame), "label": list(frame["final_label"])}
    columns |= {name: _cells(frame[name]) for name in frame}
    # the progress bars of the library would be all that the command prints for small sets
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)
    finally:
        datasets.enable_progress_bars()
    return len(frame)


def _cells(column: pd.Series) -> list[Any]:
    return [None if cell is None or cell != cell else cell for cell in column.tolist()]


def _feature(column: pd.Series, datasets: Any) -> Any:  # noqa: ANN401 - the module
    return datasets.Value({"b": "bool", "f": "float64", "i": "int64"}.get(column.dtype.kind, "string"))


def _names(contents: Contents, frame: pd.DataFrame) -> dict[str, str]:
    """What the columns of a table of inputs are called in the dataset."""
    taken = {*frame.columns, "label"}
    return {name: f"input_{name}" if name in taken else name for name in contents.inputs.columns}


def _input_features(contents: Contents, frame: pd.DataFrame, datasets: Any) -> dict[str, Any]:  # noqa: ANN401
    inputs = contents.inputs
    if inputs.kind == "images":
        return {"image": datasets.Image()}
    if inputs.kind == "vectors":
        return {"embedding": datasets.Sequence(datasets.Value("float32"), length=inputs.values.shape[1])}
    return {new: _feature(inputs.values[name], datasets) for name, new in _names(contents, frame).items()}


def _input_columns(contents: Contents, frame: pd.DataFrame) -> dict[str, list[Any]]:
    inputs = contents.inputs
    if inputs.kind == "images":
        return {"image": [_image(contents, row) for row in range(len(frame))]}
    if inputs.kind == "vectors":
        return {"embedding": list(np.asarray(inputs.values))}
    return {new: _cells(inputs.values[name]) for name, new in _names(contents, frame).items()}


def _image(contents: Contents, row: int) -> dict[str, Any]:
    file = contents.files[row]
    if file is None:
        return {"path": None, "bytes": png_bytes(contents.inputs, row)}
    return {"path": file.name, "bytes": file.read_bytes()}
