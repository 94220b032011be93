import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ebomlc.data import official
from ebomlc.data.official import (
    CIFAR10_CLASSES,
    CIFAR10_FOLDER,
    CIFAR10_HUMAN_FILE,
    CIFAR10_HUMAN_KEYS,
    CIFAR10_MD5,
    FASHION_MNIST_CLASSES,
    FASHION_MNIST_DEBIAN,
    FASHION_MNIST_MD5,
    load_cifar10,
    load_digits_set,
    load_fashion_mnist,
    parse_idx,
)
from ebomlc.errors import InputError

SHARED_CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar.py"
ROWS = 6


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# --- a small CIFAR-10, in the opcodes of Python 2 ---------------------------------------------------------------------


def text(value):
    return b"T" + struct.pack("<i", len(value)) + value


def python2_array(rows):
    """A uint8 matrix as Python 2's cPickle and the numpy of 2009 wrote it."""
    shape = b"".join(b"J" + struct.pack("<i", extent) for extent in rows.shape)
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\0K\1\x87R(K\3"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
    return empty + b"(K\1" + shape + b"\x86" + dtype + b"\x89" + text(rows.tobytes()) + b"tb"


def python2_batch(rows, labels):
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\2}(" + text(b"labels") + numbers + text(b"data") + python2_array(rows) + b"u."


def put_cifar(folder, monkeypatch, contents):
    """Write batch files and make their checksums the expected ones."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(official, "CIFAR10_MD5", {name: md5(content) for name, content in contents.items()})


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A data folder with six tiny batches; what is in them, by name."""
    rng = np.random.default_rng(0)
    batches = {name: (rng.integers(0, 256, (ROWS, 3072), np.uint8), rng.integers(0, 10, ROWS)) for name in CIFAR10_MD5}
    contents = {name: python2_batch(*batch) for name, batch in batches.items()}
    put_cifar(tmp_path / CIFAR10_FOLDER, monkeypatch, contents)
    return tmp_path, batches


def human_arrays(batches):
    clean = np.concatenate([labels for _, labels in list(batches.values())[:5]]).astype(np.uint8)
    return {"clean_label": clean, **{key: (clean + i) % 10 for i, key in enumerate(CIFAR10_HUMAN_KEYS.values())}}


def test_cifar10_in_the_order_of_its_batches(cifar):
    folder, batches = cifar
    loaded = load_cifar10(folder)
    rows = np.concatenate([images for images, _ in list(batches.values())[:5]])
    assert loaded.train_inputs.shape == (5 * ROWS, 3, 32, 32)
    assert loaded.train_inputs.dtype == np.uint8
    assert np.array_equal(loaded.train_inputs.reshape(-1, 3072), rows)
    assert loaded.train_labels.tolist() == [label for _, labels in list(batches.values())[:5] for label in labels]
    assert np.array_equal(loaded.test_inputs.reshape(-1, 3072), batches["test_batch"][0])
    assert np.array_equal(loaded.test_labels, batches["test_batch"][1])
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == np.int64
    assert loaded.class_names == CIFAR10_CLASSES
    assert loaded.human == {}
    assert loaded.superclass is None


def test_cifar10_from_the_folder_of_the_batches_itself(cifar):
    folder, batches = cifar
    np.savez(folder / CIFAR10_HUMAN_FILE, **human_arrays(batches))
    outer, inner = load_cifar10(folder), load_cifar10(folder / CIFAR10_FOLDER)
    assert np.array_equal(outer.train_inputs, inner.train_inputs)
    assert set(inner.human) == set(outer.human) == {"aggre", "worse", "random1", "random2", "random3"}


def test_wrong_checksum_is_named(cifar):
    folder, _ = cifar
    path = folder / CIFAR10_FOLDER / "data_batch_3"
    expected = md5(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError) as caught:
        load_cifar10(folder)
    for word in (str(path), expected, md5(path.read_bytes()), "delete it and get it again"):
        assert word in str(caught.value)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("checksum_matches", [True, False])
@pytest.mark.parametrize("function", [os.system, eval, os.mkdir])
def test_a_malicious_pickle_runs_nothing(cifar, monkeypatch, tmp_path, function, checksum_matches):
    folder, _ = cifar
    target = tmp_path / "proof"
    argument = {os.system: f"mkdir {target}", eval: f"__import__('os').mkdir({str(target)!r})"}.get(
        function, str(target)
    )
    content = pickle.dumps(Malicious(function, argument), protocol=2)
    (folder / CIFAR10_FOLDER / "data_batch_1").write_bytes(content)
    if checksum_matches:
        monkeypatch.setitem(official.CIFAR10_MD5, "data_batch_1", md5(content))
    with pytest.raises(InputError, match=f"calls .*{function.__name__}" if checksum_matches else "is not the official"):
        load_cifar10(folder)
    assert not target.exists()
    pickle.loads(content)  # the very same bytes do harm to a general reader
    assert target.exists()


@pytest.mark.parametrize("name", [("numpy", "load"), ("builtins", "getattr"), ("numpy.core.multiarray", "scalar")])
def test_only_the_array_constructors_are_allowed(name):
    with pytest.raises(InputError, match=f"{name[0]}.{name[1]}"):
        official._ArrayUnpickler(b"", Path("batch")).find_class(*name)


def test_missing_cifar_files(cifar, tmp_path):
    folder, _ = cifar
    (folder / CIFAR10_FOLDER / "data_batch_2").unlink()
    with pytest.raises(InputError, match=r"data_batch_2 not found in .*cifar-10-batches-py.*--data-dir"):
        load_cifar10(folder)
    with pytest.raises(InputError, match=r"data_batch_1, .*test_batch not found in .*CIFAR-10 python version"):
        load_cifar10(tmp_path / "nowhere")


def test_human_labels_by_name(cifar):
    folder, batches = cifar
    arrays = human_arrays(batches)
    np.savez(folder / CIFAR10_HUMAN_FILE, **arrays)
    human = load_cifar10(folder).human
    assert list(human) == ["aggre", "worse", "random1", "random2", "random3"]
    for name, key in CIFAR10_HUMAN_KEYS.items():
        assert np.array_equal(human[name], arrays[key])
        assert human[name].dtype == np.int64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update(clean_label=np.roll(a["clean_label"], 1)), "belong to other images"),
        (lambda a: a.pop("worse_label"), "lacks an array.*worse_label"),
        (lambda a: a.update(worse_label=np.array([{}], dtype=object)), "cannot be read"),
        (lambda a: a.update(worse_label=a["worse_label"][1:]), "worse_label must hold 30 labels"),
        (lambda a: a.update(worse_label=a["worse_label"] + 9), "worse_label must hold 30 labels in 0..9"),
    ],
)
def test_human_labels_that_do_not_fit(cifar, change, words):
    folder, batches = cifar
    arrays = human_arrays(batches)
    change(arrays)
    np.savez(folder / CIFAR10_HUMAN_FILE, **arrays)
    with pytest.raises(InputError, match=words):
        load_cifar10(folder)


def npy_bytes():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut off", b"something else", npy_bytes()])
def test_human_labels_that_are_no_npz(cifar, content):
    folder, _ = cifar
    (folder / CIFAR10_HUMAN_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"CIFAR-10_human.npz cannot be read"):
        load_cifar10(folder)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_CIFAR.is_file(), reason="needs ../shared/data/cifar.py beside the repository")
def test_the_real_cifar10(tmp_path):
    subprocess.run([sys.executable, str(SHARED_CIFAR), str(tmp_path)], check=True, capture_output=True)
    loaded = load_cifar10(tmp_path)
    assert loaded.train_inputs.shape == (50_000, 3, 32, 32)
    assert loaded.test_inputs.shape == (10_000, 3, 32, 32)
    assert np.bincount(loaded.train_labels).tolist() == [5000] * 10
    assert np.bincount(loaded.test_labels).tolist() == [1000] * 10
    wrong = {name: round(100 * np.mean(labels != loaded.train_labels), 1) for name, labels in loaded.human.items()}
    assert wrong == {"aggre": 9.0, "worse": 40.2, "random1": 17.2, "random2": 18.1, "random3": 17.6}
    means = loaded.train_inputs.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)  # as everybody normalises them


# --- Fashion-MNIST ----------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put_fashion(folder, monkeypatch, arrays):
    folder.mkdir(parents=True, exist_ok=True)
    contents = dict(zip(FASHION_MNIST_MD5, map(idx, arrays), strict=True))
    for name, content in contents.items():
        (folder / name).write_bytes(gzip.compress(content))
    monkeypatch.setattr(official, "FASHION_MNIST_MD5", {name: md5(content) for name, content in contents.items()})


@pytest.fixture
def fashion_arrays():
    rng = np.random.default_rng(0)
    sizes = [(7, 28, 28), (7,), (4, 28, 28), (4,)]
    return [rng.integers(0, 256 if len(size) == 3 else 10, size, np.uint8) for size in sizes]


@pytest.fixture
def no_debian(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "FASHION_MNIST_DEBIAN", tmp_path / "debian")
    return tmp_path / "debian"


@pytest.mark.parametrize("inner", [".", "fashion-mnist"])
def test_fashion_mnist_from_a_folder(tmp_path, monkeypatch, fashion_arrays, no_debian, inner):
    put_fashion(tmp_path / inner, monkeypatch, fashion_arrays)
    loaded = load_fashion_mnist(tmp_path)
    assert loaded.train_inputs.shape == (7, 1, 28, 28)
    assert np.array_equal(loaded.train_inputs[:, 0], fashion_arrays[0])
    assert np.array_equal(loaded.train_labels, fashion_arrays[1])
    assert np.array_equal(loaded.test_inputs[:, 0], fashion_arrays[2])
    assert np.array_equal(loaded.test_labels, fashion_arrays[3])
    assert loaded.train_labels.dtype == np.int64
    assert loaded.train_inputs.flags.writeable
    assert loaded.class_names == FASHION_MNIST_CLASSES


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_fashion_mnist_falls_back_on_debian(tmp_path, monkeypatch, fashion_arrays, no_debian, given):
    put_fashion(no_debian, monkeypatch, fashion_arrays)
    loaded = load_fashion_mnist(given and tmp_path / given)
    assert np.array_equal(loaded.train_labels, fashion_arrays[1])


@pytest.mark.parametrize("given", [None, "elsewhere"])
def test_fashion_mnist_nowhere(tmp_path, no_debian, given):
    folder = given or "debian"
    with pytest.raises(InputError, match=rf"train-images-idx3-ubyte.gz.*not found in .*{folder}.*apt-get install"):
        load_fashion_mnist(given and tmp_path / given)


def test_fashion_mnist_incomplete(tmp_path, monkeypatch, fashion_arrays, no_debian):
    put_fashion(tmp_path, monkeypatch, fashion_arrays)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"Fashion-MNIST: t10k-labels-idx1-ubyte.gz not found in .*--data-dir"):
        load_fashion_mnist(tmp_path)


def test_fashion_mnist_with_other_content(tmp_path, monkeypatch, fashion_arrays, no_debian):
    put_fashion(tmp_path, monkeypatch, fashion_arrays)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    other = idx(np.zeros((7, 28, 28), np.uint8))
    path.write_bytes(gzip.compress(other))
    with pytest.raises(
        InputError, match=rf"{path} is not the official file.*{md5(other)}, expected .*MNIST bear the same"
    ):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("damage", [lambda c: c[:-12], lambda c: b"plain", lambda c: c[:20] + b"\xff" * 40 + c[60:]])
def test_fashion_mnist_that_cannot_be_unpacked(tmp_path, monkeypatch, fashion_arrays, no_debian, damage):
    put_fashion(tmp_path, monkeypatch, fashion_arrays)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(256)) * 40)))
    with pytest.raises(InputError, match=rf"{path} cannot be unpacked .*get it again"):
        load_fashion_mnist(tmp_path)


def test_fashion_mnist_of_unequal_lengths(tmp_path, monkeypatch, fashion_arrays, no_debian):
    put_fashion(tmp_path, monkeypatch, [*fashion_arrays[:3], fashion_arrays[3][:2]])
    with pytest.raises(InputError, match=r"t10k-images.* \(4, 28, 28\) .* \(2,\)"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "not an IDX file"),  # floats
        (b"\1\0\x08\1\0\0\0\1\0", "not an IDX file"),
        (b"\0\0\x08\3\0\0\0\1", "not an IDX file"),  # header cut off
        (idx(np.zeros((3, 2), np.uint8)) + b"\0", "states 3 x 2 values, but 7 follow"),
        (idx(np.zeros((3, 2), np.uint8))[:-1], "states 3 x 2 values, but 5 follow"),
        (b"\0\0\x08\3" + b"\xff" * 12, "damaged"),  # sizes that overflow 64 bits
    ],
)
def test_idx_headers_are_checked(content, words):
    with pytest.raises(InputError, match=f"some file.*{words}"):
        parse_idx(content, Path("some file"))


def test_idx_keeps_shape_and_order():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(parse_idx(idx(array), Path("x")), array)


@pytest.mark.skipif(not FASHION_MNIST_DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    loaded = load_fashion_mnist(None)
    assert loaded.train_inputs.shape == (60_000, 1, 28, 28)
    assert loaded.test_inputs.shape == (10_000, 1, 28, 28)
    assert np.bincount(loaded.train_labels).tolist() == [6000] * 10
    assert np.bincount(loaded.test_labels).tolist() == [1000] * 10
    assert loaded.train_inputs.mean() / 255 == pytest.approx(0.2860, abs=1e-4)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    loaded, again = load_digits_set(), load_digits_set()
    assert (loaded.train_inputs.shape, loaded.test_inputs.shape) == ((1347, 64), (450, 64))
    assert loaded.train_inputs.dtype == np.float32
    assert (loaded.train_inputs.min(), loaded.train_inputs.max()) == (0, 1)
    assert np.array_equal(loaded.test_inputs, again.test_inputs)
    share = np.bincount(loaded.test_labels) / (np.bincount(loaded.test_labels) + np.bincount(loaded.train_labels))
    np.testing.assert_allclose(share, 0.25, atol=0.01)
    assert len(np.unique(np.concatenate([loaded.train_inputs, loaded.test_inputs]), axis=0)) == 1797
    assert loaded.class_names == tuple("0123456789")
