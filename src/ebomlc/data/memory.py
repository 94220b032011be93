"""Rows that are given from Python instead of as files: arrays, torch datasets, Hugging Face datasets."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.data.stream import open_stream, outgrows_memory
from ebomlc.data.tables import as_strings
from ebomlc.errors import InputError, listed

ArrayKind = Literal["numbers", "embeddings", "images", "texts"]
KINDS = ("numbers", "embeddings", "images", "texts")


@dataclass(frozen=True)
class Arrays:
    """Rows as arrays.

    Attributes
    ----------
    inputs : array or sequence, N rows
        Numbers or embeddings [N, D]; images as uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels;
        texts [N].
    labels : array or sequence of str or int, length N, optional
        Labels; None or NaN where there is none. New rows to predict need none.
    ids : sequence, length N, optional
        The user's ids; row numbers from 1 without.
    given : array or sequence, length N, optional
        Of trusted rows: the label before somebody checked.
    kind : {"numbers", "embeddings", "images", "texts"}, optional
        What `inputs` are; by default seen from their shape, [N, D] being numbers, each column with a meaning and a
        scale of its own.
    """

    inputs: Any
    labels: Any = None
    ids: Any = None
    given: Any = None
    kind: ArrayKind | None = None


@dataclass(frozen=True)
class CheckedArrays:
    """`Arrays` in one form: float arrays [N, D], uint8 images [N, C, H, W] or object arrays of str; strings or None."""

    kind: ArrayKind
    inputs: npt.NDArray[Any]
    labels: npt.NDArray[np.object_]
    ids: npt.NDArray[np.object_]
    given: npt.NDArray[np.object_]
    has_ids: bool


def is_table(data: object) -> bool:
    """True for a pandas DataFrame and for a Hugging Face dataset, which is read as one."""
    return isinstance(data, pd.DataFrame) or _is_huggingface(data)


def arrays_from_object(data: Any) -> CheckedArrays:  # noqa: ANN401 - any Python object
    """Arrays, a pair (inputs, labels), or a torch dataset of such pairs, in one form.

    Raises
    ------
    InputError
        For any other object, and for arrays that do not fit together.
    """
    if isinstance(data, Arrays):
        arrays = data
    elif isinstance(data, tuple) and len(data) == 2:
        arrays = Arrays(*data)
    elif isinstance(data, np.ndarray | list) or hasattr(data, "toarray") or hasattr(data, "detach"):
        arrays = Arrays(data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Sequence | np.ndarray):
        arrays = _from_torch(data)
    else:
        raise InputError(
            f"data of type {type(data).__name__} cannot be read: give a file name, a DataFrame, (inputs, labels), "
            f"ebomlc.Arrays, or a torch or Hugging Face dataset"
        )
    return _checked(arrays)


def _checked(arrays: Arrays) -> CheckedArrays:
    if arrays.labels is None:
        arrays = replace(arrays, labels=[None] * _n_rows(arrays.inputs))
    labels = _strings(arrays.labels)
    n = len(labels)
    kind = arrays.kind or _kind(arrays.inputs)
    if kind not in KINDS:
        raise InputError(f"Arrays.kind is {kind!r}: must be one of {listed(KINDS)}")
    inputs = {"images": _images, "texts": _texts}.get(kind, _numbers)(arrays.inputs)
    ids = np.array([str(row + 1) for row in range(n)], dtype=object) if arrays.ids is None else _strings(arrays.ids)
    given = np.full(n, None, dtype=object) if arrays.given is None else _strings(arrays.given)
    for name, part in (("inputs", inputs), ("ids", ids), ("given", given)):
        if len(part) != n:
            raise InputError(f"{n} labels, but {name} has {len(part)} rows: one for each")
    return CheckedArrays(kind, inputs, labels, ids, given, has_ids=arrays.ids is not None)


def _n_rows(inputs: Any) -> int:  # noqa: ANN401
    return inputs.shape[0] if hasattr(inputs, "shape") else len(inputs)


def _strings(values: Any) -> npt.NDArray[np.object_]:  # noqa: ANN401 - any sequence
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    plain = values.to_numpy() if isinstance(values, pd.Series | pd.Index | pd.DataFrame) else values
    if not isinstance(plain, np.ndarray):
        plain = pd.array(list(plain), dtype=object).to_numpy()
    if plain.ndim == 2 and plain.size == len(plain):
        plain = plain.reshape(-1)
    if plain.ndim != 1:
        raise InputError(f"labels have shape {plain.shape}: one for each row is needed; of one-hot labels, argmax(1)")
    column = pd.Series(plain)
    if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64").astype(object)  # labels with gaps: NaN made floats of them
    return as_strings(column, "the labels")


def _kind(inputs: Any) -> ArrayKind:  # noqa: ANN401
    is_array = isinstance(inputs, pd.DataFrame | Mapping) or hasattr(inputs, "toarray")
    if not is_array and len(inputs) and isinstance(next(iter(inputs)), str):
        return "texts"
    return "images" if _array(inputs).ndim in (3, 4) else "numbers"


def _array(inputs: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    if hasattr(inputs, "detach"):
        inputs = inputs.detach().cpu()
    if isinstance(inputs, Mapping):
        raise InputError("inputs are a mapping: for columns with names give a DataFrame, pandas.DataFrame(inputs)")
    if hasattr(inputs, "toarray"):  # a sparse matrix
        return inputs.toarray()
    try:
        return inputs.to_numpy() if isinstance(inputs, pd.DataFrame) else np.asarray(inputs)
    except ValueError as error:
        raise InputError(f"inputs do not make one array: {error}; all rows must have one shape") from error


def _numbers(inputs: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    array = _array(inputs)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise InputError(
            f"inputs have shape {array.shape} and type {array.dtype}: numbers [rows, columns] are needed; for columns "
            f"of words give a DataFrame"
        )
    if np.isinf(array.astype(np.float64)).any():
        raise InputError("inputs hold infinity: replace it by a number, or by NaN where nothing is known")
    return array


def _texts(inputs: Any) -> npt.NDArray[np.object_]:  # noqa: ANN401
    texts = list(inputs)
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"inputs hold {wrong!r} among texts: every row must be a str")
    return np.array(texts, dtype=object)


def _images(inputs: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401
    array = _array(inputs)
    if not array.size:
        raise InputError("there are no images: the array is empty")
    if array.dtype != np.uint8:
        array = _as_pixels(array)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise InputError(f"images have shape {array.shape}: [N, H, W], [N, H, W, C], [N, C, H, W] with 1 or 3 channels")
    return np.ascontiguousarray(array)


def _as_pixels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return np.round(array * 255).astype(np.uint8)
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)
    raise InputError(
        f"images are {array.dtype} from {array.min():g} to {array.max():g}: give uint8, or floats from 0 to 1; "
        f"leave standardising to ebomlc"
    )


def _from_torch(dataset: Any) -> Arrays:  # noqa: ANN401 - a torch dataset, or one that behaves like it
    items = []
    for index in range(len(dataset)):
        try:
            items.append(dataset[index])
        except Exception as error:  # somebody else's code
            raise InputError(f"item {index} of the dataset cannot be read: {type(error).__name__}: {error}") from error
    if not items:
        raise InputError("the dataset is empty: at least one (input, label) is needed")
    if not isinstance(items[0], tuple | list) or len(items[0]) != 2:
        raise InputError(f"a dataset of type {type(dataset).__name__} must give (input, label) for each index")
    inputs = [item[0] if isinstance(item[0], str) else np.asarray(item[0]) for item in items]
    shapes = {np.shape(item) for item in inputs}
    if len(shapes) > 1:
        raise InputError(f"the dataset's inputs have several shapes, {listed(sorted(map(str, shapes)))}: resize them")
    labels = [label.item() if hasattr(label, "item") else label for label in (item[1] for item in items)]
    return Arrays(inputs if isinstance(inputs[0], str) else _stacked(inputs), labels)


def _stacked(inputs: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.stack([item[None] if item.ndim == 2 else item for item in inputs])


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def _is_huggingface(data: object) -> bool:
    return type(data).__module__.split(".")[0] == "datasets"


def _datasets() -> Any:  # noqa: ANN401 - a module
    try:
        import datasets
    except ImportError as error:
        raise InputError("Hugging Face datasets need an extra: pip install 'ebomlc[hf]'") from error
    return datasets


def frame_from_huggingface(data: Any, folder: Path) -> tuple[pd.DataFrame, str | None]:  # noqa: ANN401
    """A Hugging Face dataset as a DataFrame, its class labels as names; a DataFrame as it is.

    Parameters
    ----------
    data : DataFrame, Dataset or str
        ``hf:NAME`` or ``hf:NAME:SPLIT`` (default ``train``) is loaded from the hub; a folder from disk.
    folder : Path
        Where images that the dataset holds are put as files.

    Returns
    -------
    DataFrame
        The rows.
    str or None
        The first column that holds paths of images.
    """
    if isinstance(data, pd.DataFrame):
        return data, None
    dataset = _load_huggingface(data) if isinstance(data, str) else data
    if not hasattr(dataset, "features") or not hasattr(dataset, "to_pandas"):
        splits = listed(list(dataset)) if hasattr(dataset, "keys") else "none"
        raise InputError(f"a {type(dataset).__name__} is not one table: give one of its splits ({splits})")
    frame = _frame_on_disk(dataset, folder) if outgrows_memory(*dataset.shape) else dataset.to_pandas()
    for name, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            frame[name] = [None if pd.isna(k) or k < 0 else feature.int2str(int(k)) for k in frame[name]]
    images = [name for name, feature in dataset.features.items() if type(feature).__name__ == "Image"]
    for name in images:
        frame[name] = [_image_file(cell, folder) for cell in frame[name]]
    return frame, images[0] if images else None


def _frame_on_disk(dataset: Any, folder: Path) -> pd.DataFrame:  # noqa: ANN401
    """The rows of a dataset, its floating point numbers on the disk; by way of Parquet, some rows at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as between:
        path = Path(between, "rows.parquet")
        dataset.to_parquet(path)
        stream = open_stream(path)
        return dataset.to_pandas() if stream is None else stream.read(on_disk=True).frame


def _image_file(cell: Any, folder: Path) -> str | None:  # noqa: ANN401 - what the library makes of an image
    """Path of an image: its own, or that of a file made of its bytes, named by what is in it."""
    if cell is None or cell.get("bytes") is None:
        return None if cell is None else cell["path"]
    content = bytes(cell["bytes"])
    suffix = Path(cell.get("path") or "").suffix or ".png"
    path = folder / "images" / f"{hashlib.sha256(content).hexdigest()}{suffix}"
    if not path.exists() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)


def _load_huggingface(name: str) -> Any:  # noqa: ANN401 - a dataset
    datasets = _datasets()
    try:
        if not name.startswith("hf:"):
            return datasets.load_from_disk(name)
        path, _, split = name.removeprefix("hf:").partition(":")
        return datasets.load_dataset(path, split=split or "train")
    except Exception as error:  # the library raises whatever its file formats and the network raise
        where = Path(name).name if not name.startswith("hf:") else name
        raise InputError(f"{where}: Hugging Face datasets cannot load it: {str(error).splitlines()[0]}") from error
