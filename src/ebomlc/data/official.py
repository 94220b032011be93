"""Official data sets read from their official files: checksums first, and no general unpickler."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.errors import InputError
from ebomlc.records import IntArray

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_HUMAN_FILE = "CIFAR-10_human.npz"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_MD5: Mapping[str, str] = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""MD5 of each batch of the official "CIFAR-10 python version"."""

CIFAR10_HUMAN_KEYS: Mapping[str, str] = {
    "aggre": "aggre_label",
    "worse": "worse_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}
"""Sets of human labels of CIFAR-10N, by the name that ``human:NAME`` uses."""

FASHION_MNIST_FOLDER = "fashion-mnist"
FASHION_MNIST_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FASHION_MNIST_MD5: Mapping[str, str] = {
    "train-images-idx3-ubyte.gz": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte.gz": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte.gz": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte.gz": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""MD5 of the *uncompressed* content, because Debian's .gz files carry other headers than Zalando's.

With the header of the original files (name, and time 2017-08-31) put back, Debian's streams have the published MD5s
8d4fb7e6..., 25c81989..., bef4ecab... and bb300cfd...: the content is the same.
"""

_CIFAR10_HELP = (
    'unpack "CIFAR-10 python version" (cifar-10-python.tar.gz, from the CIFAR-10 page of the University of Toronto) '
    "and pass the folder that holds cifar-10-batches-py with --data-dir DIR"
)
_FASHION_HELP = (
    "run `apt-get install dataset-fashion-mnist`, or get the four .gz files from the Fashion-MNIST repository of "
    "Zalando Research and pass their folder with --data-dir DIR"
)


@dataclass(frozen=True)
class OfficialSet:
    """A data set with right labels and its official split.

    Attributes
    ----------
    train_inputs, test_inputs : arrays, shape [N, ...]
        uint8 images [N, C, H, W], or float32 features in [0, 1], shape [N, D].
    train_labels, test_labels : int64 arrays, shape [N]
        Right labels as class indices.
    class_names : tuple of str, length K
    human : mapping of str to int64 array, shape [N]
        Labels that people gave to the training rows, by name; empty where there are none.
    superclass : int64 array, shape [K], or None
        Superclass of each class, where the set has them.
    """

    train_inputs: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    train_labels: IntArray
    test_inputs: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    test_labels: IntArray
    class_names: tuple[str, ...]
    human: Mapping[str, IntArray] = field(default_factory=dict)
    superclass: IntArray | None = None


def load_cifar10(data_dir: Path) -> OfficialSet:
    """CIFAR-10 (Krizhevsky 2009), with the human labels of CIFAR-10N (Wei et al. 2022) where they are there.

    Parameters
    ----------
    data_dir : Path
        Folder that holds ``cifar-10-batches-py``, or that folder itself. ``CIFAR-10_human.npz`` is looked for in
        either; its arrays are ``clean_label``, ``aggre_label``, ``worse_label`` and ``random_label1`` to ``3``.

    Returns
    -------
    OfficialSet
        uint8 images [50000, 3, 32, 32] and [10000, 3, 32, 32], in the official order.

    Raises
    ------
    InputError
        If a file is missing, is not the official one by its MD5, or the human labels belong to other images.
    """
    folder = _cifar10_folder(Path(data_dir))
    parts = [_read_cifar_batch(folder / name, md5) for name, md5 in CIFAR10_MD5.items()]
    train = [images for images, _ in parts[:-1]]
    train_labels = np.concatenate([labels for _, labels in parts[:-1]])
    human = _read_cifar10_human(folder, train_labels)
    return OfficialSet(np.concatenate(train), train_labels, *parts[-1], CIFAR10_CLASSES, human)


def load_fashion_mnist(data_dir: Path | None = None) -> OfficialSet:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017) from its four gzipped IDX files.

    Parameters
    ----------
    data_dir : Path, optional
        Folder that holds the files, or their folder ``fashion-mnist``. Where they aren't there, or without a folder,
        those of the Debian package ``dataset-fashion-mnist`` are read.

    Returns
    -------
    OfficialSet
        uint8 images [60000, 1, 28, 28] and [10000, 1, 28, 28].

    Raises
    ------
    InputError
        If a file is missing, damaged, or its content is not the official one by its MD5.
    """
    folder = _fashion_mnist_folder(data_dir)
    contents = [_read_gzipped(folder / name, md5) for name, md5 in FASHION_MNIST_MD5.items()]
    paths = [folder / name for name in FASHION_MNIST_MD5]
    train_images, train_labels, test_images, test_labels = map(parse_idx, contents, paths)
    _check_same_length(train_images, train_labels, paths[0])
    _check_same_length(test_images, test_labels, paths[2])
    return OfficialSet(
        train_images[:, None],
        train_labels.astype(np.int64),
        test_images[:, None],
        test_labels.astype(np.int64),
        FASHION_MNIST_CLASSES,
    )


def load_digits_set() -> OfficialSet:
    """Split the 8x8 digits of scikit-learn (Alpaydin and Kaynak 1998): features for training, a quarter for test.

    Returns
    -------
    OfficialSet
        float32 features [1347, 64] and [450, 64] in [0, 1]; one fixed split, stratified by class.
    """
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import, and only this set needs it
    from sklearn.model_selection import train_test_split

    pixels, digits = load_digits(return_X_y=True)
    features, labels = np.asarray(pixels / 16, np.float32), np.asarray(digits, np.int64)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=0.25, stratify=labels, random_state=0)
    names = tuple(str(digit) for digit in range(10))
    return OfficialSet(features[train], labels[train], features[test], labels[test], names)


def parse_idx(content: bytes, path: Path) -> npt.NDArray[np.uint8]:
    """Array in an IDX file of unsigned bytes (LeCun's format for MNIST).

    Parameters
    ----------
    content : bytes
        The uncompressed file: two zero bytes, the type 8, the number of dimensions, their sizes, the values.
    path : Path
        Named in errors.

    Returns
    -------
    uint8 array
        In the shape that the header states.

    Raises
    ------
    InputError
        If it is no IDX file of bytes, or holds more or fewer values than its header states.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise InputError(f"{path} is not an IDX file of bytes (it begins with {content[:4].hex()}): {_FASHION_HELP}")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise InputError(
            f"{path}: the header states {' x '.join(map(str, shape))} values, but {len(values)} follow: the file is "
            f"damaged; {_FASHION_HELP}"
        )
    return values.reshape(shape).copy()  # a view of bytes is read-only, which torch.from_numpy refuses quietly


def _cifar10_folder(data_dir: Path) -> Path:
    """Find the folder of the batches, with all of them in it."""
    inner = data_dir / CIFAR10_FOLDER
    folder = data_dir if not inner.is_dir() and (data_dir / "data_batch_1").is_file() else inner
    _check_complete(folder, CIFAR10_MD5, "CIFAR-10", _CIFAR10_HELP)
    return folder


def _fashion_mnist_folder(data_dir: Path | None) -> Path:
    """Find the first folder with any of the files, and make sure that it has all of them."""
    given = [] if data_dir is None else [Path(data_dir), Path(data_dir) / FASHION_MNIST_FOLDER]
    folders = [*given, FASHION_MNIST_DEBIAN]
    held = (folder for folder in folders if any((folder / name).is_file() for name in FASHION_MNIST_MD5))
    folder = next(held, given[0] if given else FASHION_MNIST_DEBIAN)
    _check_complete(folder, FASHION_MNIST_MD5, "Fashion-MNIST", _FASHION_HELP)
    return folder


def _check_complete(folder: Path, names: Mapping[str, str], title: str, repair: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{title}: {', '.join(missing)} not found in {folder}: {repair}")


def _check_md5(content: bytes, expected: str, path: Path, repair: str, what: str = "") -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the official file: the md5 {what}is {found}, expected {expected}; "
            f"delete it and get it again: {repair}"
        )


def _check_same_length(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], path: Path) -> None:
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path} has images of shape {images.shape} and its labels have shape {labels.shape}, which don't go "
            f"together: {_FASHION_HELP}"
        )


def _read_gzipped(path: Path, md5: str) -> bytes:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({error}): delete it and get it again: {_FASHION_HELP}") from None
    repair = f"{_FASHION_HELP} (the files of MNIST bear the same names)"
    _check_md5(content, md5, path, repair, "of its uncompressed content ")
    return content


def _read_cifar_batch(path: Path, md5: str) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """Images [n, 3, 32, 32] and labels [n] of one batch; unpickled only once the checksum has matched."""
    content = path.read_bytes()
    _check_md5(content, md5, path, _CIFAR10_HELP)
    batch = _ArrayUnpickler(content, path).load()
    return batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[b"labels"], dtype=np.int64)


def _read_cifar10_human(folder: Path, clean: IntArray) -> dict[str, IntArray]:
    """Human labels from beside or inside the folder of the batches; empty where the file isn't there."""
    path = next((p for p in (folder.parent / CIFAR10_HUMAN_FILE, folder / CIFAR10_HUMAN_FILE) if p.is_file()), None)
    if path is None:
        return {}
    arrays = _read_human_arrays(path)
    if not np.array_equal(arrays["clean_label"], clean):
        raise InputError(
            f"{path}: clean_label is not the labels of the CIFAR-10 training batches in {folder}, so its rows belong "
            "to other images: replace it by the labels in the official order, or remove it to go without human labels"
        )
    human = {name: arrays[key].astype(np.int64) for name, key in CIFAR10_HUMAN_KEYS.items()}
    for name, labels in human.items():
        if labels.shape != clean.shape or labels.min() < 0 or labels.max() >= len(CIFAR10_CLASSES):
            raise InputError(f"{path}: {CIFAR10_HUMAN_KEYS[name]} must hold {len(clean)} labels in 0..9: replace it")
    return human


def _read_human_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    keys = ("clean_label", *CIFAR10_HUMAN_KEYS.values())
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in keys}
    except KeyError as error:
        reason = f"lacks an array: {error.args[0]}"
    except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"cannot be read: {error}"
    raise InputError(f"{path} {reason}. Write it with numpy.savez, with integer arrays {', '.join(keys)}, or remove it")


# numpy moved this function between versions; an array itself says where it lives now
_RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # pyright: ignore[reportAssignmentType]


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers, strings, numbers and numpy arrays; refuses every other name in the file."""

    ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.path = path

    def find_class(self, module_name: str, global_name: str, /) -> Callable[..., Any]:
        try:
            return self.ALLOWED[module_name, global_name]
        except KeyError:
            raise InputError(
                f"{self.path} calls {module_name}.{global_name}, which no CIFAR-10 batch does: it is refused, and "
                f"nothing in it was run; {_CIFAR10_HELP}"
            ) from None
