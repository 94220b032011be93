"""Official data sets read from their official files: checksums first, and no general unpickler."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import pickle
import shlex
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.arrays import load_arrays
from ebomlc.data.download import LARGEST_MEMBER, Say, download, extract, only_one
from ebomlc.errors import InputError, listed, unknown_name
from ebomlc.records import NO_LABEL, IntArray

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

CIFAR100_FOLDER = "cifar-100-python"
CIFAR100_MD5: Mapping[str, str] = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
"""MD5 of each file of the official "CIFAR-100 python version"."""

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


MOST_DIMENSIONS = 3
"""Of an IDX file: labels have one, images three."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of an official set as its publisher offers it: address, MD5 of the file, and its bytes."""

    url: str
    md5: str
    size: int

    @property
    def name(self) -> str:
        """The file's own name, without the path."""
        return self.url.rpartition("/")[2]


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # it answers no https; the checksums guard it
REMOTE_FILES: Mapping[str, tuple[RemoteFile, ...]] = {
    "digits": (),
    "fashion-mnist": (
        RemoteFile(f"{_ZALANDO}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        RemoteFile(f"{_ZALANDO}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29_515),
        RemoteFile(f"{_ZALANDO}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        RemoteFile(f"{_ZALANDO}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    ),
    "cifar10": (RemoteFile(f"{_TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),),
    "cifar100": (RemoteFile(f"{_TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),),
}
"""What `fetch` gets for each built-in set; the digits come with scikit-learn."""

_BY_HAND: Mapping[str, str] = {
    "cifar10": (
        'unpack "CIFAR-10 python version" (cifar-10-python.tar.gz, from the CIFAR page of the University of Toronto) '
        f"and pass the folder that holds {CIFAR10_FOLDER} with --data-dir DIR"
    ),
    "cifar100": (
        'unpack "CIFAR-100 python version" (cifar-100-python.tar.gz, from the CIFAR page of the University of Toronto) '
        f"and pass the folder that holds {CIFAR100_FOLDER} with --data-dir DIR"
    ),
    "fashion-mnist": (
        "run `apt-get install dataset-fashion-mnist`, or get the four .gz files from the Fashion-MNIST repository of "
        "Zalando Research and pass their folder with --data-dir DIR"
    ),
}
HUMAN_HELP = (
    "the human labels, CIFAR-10N, are not fetched: write the arrays of CIFAR-10_human.pt, from "
    f"https://github.com/UCSC-REAL/cifar-10-100n, to {CIFAR10_HUMAN_FILE} with numpy.savez and put it beside the "
    f"folder {CIFAR10_FOLDER}"
)
"""Where the labels that ``human:NAME`` reads come from: their publisher has them as a pickle only."""


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
    folder = _cifar_folder(Path(data_dir), CIFAR10_FOLDER, CIFAR10_MD5)
    _check_complete("cifar10", data_dir, folder, CIFAR10_MD5)
    batches = (_read_pickle("cifar10", folder / name, md5) for name, md5 in CIFAR10_MD5.items())
    parts = [_images_and_labels(batch, b"labels") for batch in batches]
    train = [images for images, _ in parts[:-1]]
    train_labels = np.concatenate([labels for _, labels in parts[:-1]])
    human = _read_cifar10_human(folder, train_labels)
    return OfficialSet(np.concatenate(train), train_labels, *parts[-1], CIFAR10_CLASSES, human)


def load_cifar100(data_dir: Path) -> OfficialSet:
    """CIFAR-100 (Krizhevsky 2009): the hundred fine classes, and the superclass of each.

    Parameters
    ----------
    data_dir : Path
        Folder that holds ``cifar-100-python``, or that folder itself.

    Returns
    -------
    OfficialSet
        uint8 images [50000, 3, 32, 32] and [10000, 3, 32, 32] in the official order, labels in 0..99, and
        `OfficialSet.superclass`, shape [100], in 0..19. Class names are written as in the official file, such as
        ``aquarium_fish``.

    Raises
    ------
    InputError
        If a file is missing or is not the official one by its MD5.
    """
    folder = _cifar_folder(Path(data_dir), CIFAR100_FOLDER, CIFAR100_MD5)
    _check_complete("cifar100", data_dir, folder, CIFAR100_MD5)
    train, test, meta = (_read_pickle("cifar100", folder / name, md5) for name, md5 in CIFAR100_MD5.items())
    names = tuple(name.decode("ascii") for name in meta[b"fine_label_names"])
    superclass = _superclass_of_each(train, len(names), folder / "train")
    return OfficialSet(
        *_images_and_labels(train, b"fine_labels"),
        *_images_and_labels(test, b"fine_labels"),
        names,
        superclass=superclass,
    )


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
    _check_complete("fashion-mnist", data_dir, folder, FASHION_MNIST_MD5)
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
    is_idx = len(content) >= 4 and content[:3] == b"\0\0\x08" and content[3] <= MOST_DIMENSIONS
    if not is_idx or len(content) < 4 + 4 * content[3]:
        raise InputError(
            f"{path} is not an IDX file of bytes (it begins with {content[:4].hex()}): {_repair('fashion-mnist')}"
        )
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    if not len(values) or len(values) != math.prod(shape):  # numpy's product would wrap around
        raise InputError(
            f"{path}: the header states {' x '.join(map(str, shape))} values, but {len(values)} follow: the file is "
            f"damaged; {_repair('fashion-mnist')}"
        )
    return values.reshape(shape).copy()  # a view of bytes is read-only, which torch.from_numpy refuses quietly


def fetch(name: str, data_dir: Path, *, say: Say | None = None) -> Path | None:
    """Get what is missing of a built-in set from its publisher, and check all of it.

    Parameters
    ----------
    name : str
        One of `REMOTE_FILES`.
    data_dir : Path
        Folder for the set, as its loader takes it; it is made. Files that are there already are not touched, and an
        archive that this call has fetched is removed once it is unpacked.
    say : callable, optional
        Takes lines that say what is being done; also switches the progress bar on.

    Returns
    -------
    Path or None
        The folder that holds the files of the set; None for ``digits``, which has none.

    Raises
    ------
    InputError
        If the name is unknown, a file cannot be fetched or written, or one that is there is not the official one.
    """
    if name not in REMOTE_FILES:
        raise unknown_name("data set", name, REMOTE_FILES)
    if name == "cifar10":
        return _fetch_archive(name, Path(data_dir), CIFAR10_FOLDER, CIFAR10_MD5, say)
    if name == "cifar100":
        return _fetch_archive(name, Path(data_dir), CIFAR100_FOLDER, CIFAR100_MD5, say)
    return _fetch_fashion_mnist(Path(data_dir), say) if name == "fashion-mnist" else None


def has_human_labels(data_dir: Path) -> bool:
    """Whether the file of CIFAR-10N is where `load_cifar10` looks for it."""
    return _human_file(_cifar_folder(Path(data_dir), CIFAR10_FOLDER, CIFAR10_MD5)) is not None


def _fetch_archive(name: str, data_dir: Path, inner: str, md5s: Mapping[str, str], say: Say | None) -> Path:
    folder = _cifar_folder(data_dir, inner, md5s)
    if _missing(folder, md5s):
        with only_one(folder, say):  # or another process would remove the archive before it is unpacked here
            _fetch_members(REMOTE_FILES[name][0], data_dir, {f"{inner}/{file}": folder / file for file in md5s}, say)
    for file, md5 in md5s.items():
        _check_md5((folder / file).read_bytes(), md5, folder / file, _repair(name))
    return folder


def _fetch_members(remote: RemoteFile, data_dir: Path, members: Mapping[str, Path], say: Say | None) -> None:
    """Those files of the archive that are not where they are to be."""
    missing = {member: path for member, path in members.items() if not path.is_file()}
    if not missing:
        return
    archive = data_dir / remote.name
    was_there = archive.exists()
    download(remote.url, archive, checksum=f"md5:{remote.md5}", size=remote.size, say=say)
    extract(archive, missing)
    if not was_there:
        archive.unlink()


def _fetch_fashion_mnist(data_dir: Path, say: Say | None) -> Path:
    """The four files where the loader looks for them: nothing is fetched where the Debian package has them."""
    folder = _fashion_mnist_folder(data_dir)
    if _missing(folder, FASHION_MNIST_MD5):
        folder = data_dir if _some(data_dir, FASHION_MNIST_MD5) else data_dir / FASHION_MNIST_FOLDER
    for remote in REMOTE_FILES["fashion-mnist"]:
        if not (folder / remote.name).is_file():
            download(remote.url, folder / remote.name, checksum=f"md5:{remote.md5}", size=remote.size, say=say)
    for file, md5 in FASHION_MNIST_MD5.items():
        _read_gzipped(folder / file, md5)
    return folder


def _cifar_folder(data_dir: Path, inner: str, names: Mapping[str, str]) -> Path:
    """The folder itself where it holds the first of the files, else the official one in it."""
    folder = data_dir / inner
    return data_dir if not folder.is_dir() and (data_dir / next(iter(names))).is_file() else folder


def _fashion_mnist_folder(data_dir: Path | None) -> Path:
    """The first folder with any of the files, else the one that was given."""
    given = [] if data_dir is None else [Path(data_dir), Path(data_dir) / FASHION_MNIST_FOLDER]
    folders = [*given, FASHION_MNIST_DEBIAN]
    return next((folder for folder in folders if _some(folder, FASHION_MNIST_MD5)), folders[0])


def _some(folder: Path, names: Mapping[str, str]) -> bool:
    return any((folder / name).is_file() for name in names)


def _missing(folder: Path, names: Mapping[str, str]) -> list[str]:
    return [name for name in names if not (folder / name).is_file()]


def _check_complete(name: str, data_dir: Path | None, folder: Path, files: Mapping[str, str]) -> None:
    missing = _missing(folder, files)
    if missing:
        where, option = (folder, "DIR") if data_dir is None else (data_dir, shlex.quote(str(data_dir)))
        raise InputError(
            f"{name} is not in {where}: get it with `ebomlc data {name} --data-dir {option}`, or {_BY_HAND[name]} "
            f"({listed(missing)} not found in {folder})"
        )


def _repair(name: str) -> str:
    return f"run `ebomlc data {name} --data-dir DIR`, or {_BY_HAND[name]}"


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
            f"together: {_repair('fashion-mnist')}"
        )


def _read_gzipped(path: Path, md5: str) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(LARGEST_MEMBER)  # a few bytes may unpack to more than the memory holds
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be unpacked ({error}): delete it and get it again: {_repair('fashion-mnist')}"
        ) from None
    repair = f"{_repair('fashion-mnist')} (the files of MNIST bear the same names)"
    _check_md5(content, md5, path, repair, "of its uncompressed content ")
    return content


def _read_pickle(name: str, path: Path, md5: str) -> dict[bytes, Any]:
    """What an official file of CIFAR holds; unpickled only once the checksum has matched."""
    content = path.read_bytes()
    _check_md5(content, md5, path, _repair(name))
    try:
        return _ArrayUnpickler(content, path).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle makes nearly every exception there is
        raise InputError(f"{path} is damaged ({error}): delete it and get it again: {_repair(name)}") from error


def _images_and_labels(batch: Mapping[bytes, Any], key: bytes) -> tuple[npt.NDArray[np.uint8], IntArray]:
    return batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[key], dtype=np.int64)


def _superclass_of_each(batch: Mapping[bytes, Any], n_classes: int, path: Path) -> IntArray:
    """Superclass of each class [K], from the two labels that every row has."""
    fine, coarse = (np.array(batch[key], dtype=np.int64) for key in (b"fine_labels", b"coarse_labels"))
    superclass = np.full(n_classes, NO_LABEL)
    superclass[fine] = coarse
    if (superclass[fine] != coarse).any() or (superclass == NO_LABEL).any():
        raise InputError(f"{path}: the coarse labels do not follow from the fine ones; {_repair('cifar100')}")
    return superclass


def _read_cifar10_human(folder: Path, clean: IntArray) -> dict[str, IntArray]:
    """Human labels from beside or inside the folder of the batches; empty where the file isn't there."""
    path = _human_file(folder)
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


def _human_file(folder: Path) -> Path | None:
    return next((p for p in (folder.parent / CIFAR10_HUMAN_FILE, folder / CIFAR10_HUMAN_FILE) if p.is_file()), None)


def _read_human_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    keys = ("clean_label", *CIFAR10_HUMAN_KEYS.values())
    try:
        stored = load_arrays(path, most_bytes=LARGEST_MEMBER)
        return {key: stored[key] for key in keys}
    except KeyError as error:
        reason = f"lacks an array: {error.args[0]}"
    except (OSError, ValueError) as error:
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
                f"{self.path} calls {module_name}.{global_name}, which no file of CIFAR does: it is refused, and "
                "nothing in it was run; delete it and get the official file again"
            ) from None
