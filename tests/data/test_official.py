import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ebomlc.data import official
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.official import (
    CIFAR10_CLASSES,
    CIFAR10_FOLDER,
    CIFAR10_HUMAN_FILE,
    CIFAR10_HUMAN_KEYS,
    CIFAR10_MD5,
    CIFAR100_FOLDER,
    FASHION_MNIST_CLASSES,
    FASHION_MNIST_DEBIAN,
    FASHION_MNIST_MD5,
    RemoteFile,
    fetch,
    load_cifar10,
    load_cifar100,
    load_digits_set,
    load_fashion_mnist,
    parse_idx,
)
from ebomlc.errors import InputError
from tests.data.test_download import Site, go_direct

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


def python2_list(items):
    return b"](" + b"".join(text(item) if isinstance(item, bytes) else b"K" + bytes([item]) for item in items) + b"e"


def python2_file(**entries):
    """A dictionary of lists and uint8 matrices."""
    return b"\x80\2}(" + b"".join(text(key.encode()) + python2_value(value) for key, value in entries.items()) + b"u."


def python2_value(value):
    if isinstance(value, bytes):
        return text(value)
    return python2_array(value) if isinstance(value, np.ndarray) and value.ndim == 2 else python2_list(value)


def put_files(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def expect(monkeypatch, table, contents):
    """Make the checksums of these small files the expected ones: the official files are too large for a test."""
    monkeypatch.setattr(official, table, {name: md5(content) for name, content in contents.items()})


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A data folder with six tiny batches; what is in them, by name."""
    rng = np.random.default_rng(0)
    batches = {name: (rng.integers(0, 256, (ROWS, 3072), np.uint8), rng.integers(0, 10, ROWS)) for name in CIFAR10_MD5}
    contents = {name: python2_file(labels=labels, data=rows) for name, (rows, labels) in batches.items()}
    put_files(tmp_path / CIFAR10_FOLDER, contents)
    expect(monkeypatch, "CIFAR10_MD5", contents)
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
    with pytest.raises(InputError, match=r"with --data-dir DIR \(data_batch_2 not found in .*cifar-10-batches-py\)$"):
        load_cifar10(folder)
    nowhere = tmp_path / "no where"
    with pytest.raises(InputError) as caught:
        load_cifar10(nowhere)
    assert str(caught.value).startswith(
        f"cifar10 is not in {nowhere}: get it with `ebomlc data cifar10 --data-dir '{nowhere}'`, or unpack"
    )
    assert "data_batch_1, data_batch_2" in str(caught.value)


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


# --- a small CIFAR-100, in the same opcodes: no official file of it is on the machines that test ----------------------

CIFAR100_SUPERCLASS = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1),
    *(10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12),
    *(12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0),
    *(17, 8, 14, 13),
]
"""Superclass of each class as it is published: 0, apple, is one of 4, fruit and vegetables."""


def cifar100_part(rng, n_rows):
    fine = rng.permutation(np.arange(n_rows) % 100)
    rows = rng.integers(0, 256, (n_rows, 3072), np.uint8)
    names = [f"image_{k}.png".encode() for k in range(n_rows)]
    coarse = np.array(CIFAR100_SUPERCLASS)[fine]
    return {"filenames": names, "batch_label": b"one", "fine_labels": fine, "coarse_labels": coarse, "data": rows}


def cifar100_files(parts):
    return {name: python2_file(**part) for name, part in parts.items()}


@pytest.fixture
def cifar100_parts():
    rng = np.random.default_rng(0)
    fine = [f"class_{k}".encode() for k in range(100)]
    meta = {"fine_label_names": fine, "coarse_label_names": [f"group_{k}".encode() for k in range(20)]}
    return {"train": cifar100_part(rng, 200), "test": cifar100_part(rng, 100), "meta": meta}


@pytest.fixture
def cifar100(tmp_path, monkeypatch, cifar100_parts):
    """A data folder with a small CIFAR-100, two training rows a class; what is in it, by file."""
    contents = cifar100_files(cifar100_parts)
    put_files(tmp_path / CIFAR100_FOLDER, contents)
    expect(monkeypatch, "CIFAR100_MD5", contents)
    return tmp_path, cifar100_parts


@pytest.mark.parametrize("inner", [".", CIFAR100_FOLDER])
def test_cifar100_with_its_superclasses(cifar100, inner):
    folder, parts = cifar100
    loaded = load_cifar100(folder / inner)
    assert loaded.train_inputs.shape == (200, 3, 32, 32)
    assert loaded.train_inputs.dtype == np.uint8
    assert np.array_equal(loaded.train_inputs.reshape(-1, 3072), parts["train"]["data"])
    assert np.array_equal(loaded.train_labels, parts["train"]["fine_labels"])
    assert np.array_equal(loaded.test_inputs.reshape(-1, 3072), parts["test"]["data"])
    assert np.array_equal(loaded.test_labels, parts["test"]["fine_labels"])
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == loaded.superclass.dtype == np.int64
    assert loaded.class_names == tuple(f"class_{k}" for k in range(100))
    assert loaded.superclass.tolist() == CIFAR100_SUPERCLASS
    assert loaded.human == {}


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_cifar100_checks_each_file(cifar100, name):
    folder, _ = cifar100
    path = folder / CIFAR100_FOLDER / name
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(InputError, match=rf"{path} is not the official file: .*`ebomlc data cifar100 --data-dir DIR`"):
        load_cifar100(folder)
    path.unlink()
    with pytest.raises(InputError, match=rf"^cifar100 is not in {folder}: .*data cifar100 .*\({name} not found in"):
        load_cifar100(folder)


def test_a_malicious_cifar100_runs_nothing(cifar100, monkeypatch):
    folder, parts = cifar100
    target = folder / "proof"
    contents = {**cifar100_files(parts), "meta": pickle.dumps(Malicious(os.mkdir, str(target)), protocol=2)}
    (folder / CIFAR100_FOLDER / "meta").write_bytes(contents["meta"])
    expect(monkeypatch, "CIFAR100_MD5", contents)
    with pytest.raises(InputError, match="mkdir, which no file of CIFAR does"):
        load_cifar100(folder)
    assert not target.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part["coarse_labels"].__setitem__(7, (part["coarse_labels"][7] + 1) % 20),
        lambda part: part.update(
            {key: part[key][part["fine_labels"] != 3] for key in ("coarse_labels", "fine_labels")}
        ),
    ],
)
def test_superclasses_that_do_not_follow_from_the_classes(cifar100, monkeypatch, change):
    folder, parts = cifar100
    change(parts["train"])
    contents = cifar100_files(parts)
    (folder / CIFAR100_FOLDER / "train").write_bytes(contents["train"])
    expect(monkeypatch, "CIFAR100_MD5", contents)
    with pytest.raises(InputError, match="train: the coarse labels do not follow from the fine ones"):
        load_cifar100(folder)


@pytest.mark.parametrize(("kind", "n_targets"), [("hierarchical", 4), ("asymmetric", 1)])
def test_noise_stays_inside_the_superclasses_of_cifar100(cifar100, kind, n_targets):
    loaded = load_cifar100(cifar100[0])
    labels = np.repeat(loaded.train_labels, 50)
    noisy = apply_noise(
        labels,
        parse_noise(f"{kind}:0.4"),
        len(loaded.class_names),
        seed=1,
        class_names=loaded.class_names,
        superclass=loaded.superclass,
    )
    assert np.array_equal(loaded.superclass[noisy.labels], loaded.superclass[labels])
    assert noisy.measured_rate == pytest.approx(0.4, abs=0.02)
    wrong = noisy.transition - 0.6 * np.eye(100)
    assert np.count_nonzero(wrong > 1e-9, axis=1).tolist() == [n_targets] * 100
    np.testing.assert_allclose(wrong[wrong > 1e-9], 0.4 / n_targets)
    np.testing.assert_allclose(wrong.sum(axis=0), 0.4)  # every class gets as many wrong labels as it loses


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
    folder = tmp_path / (given or "debian")
    option = folder if given else "DIR"
    with pytest.raises(InputError) as caught:
        load_fashion_mnist(given and folder)
    assert str(caught.value).startswith(
        f"fashion-mnist is not in {folder}: get it with `ebomlc data fashion-mnist --data-dir {option}`, or run "
        "`apt-get install dataset-fashion-mnist`"
    )
    assert f"t10k-labels-idx1-ubyte.gz not found in {folder}" in str(caught.value)


def test_fashion_mnist_incomplete(tmp_path, monkeypatch, fashion_arrays, no_debian):
    put_fashion(tmp_path, monkeypatch, fashion_arrays)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=rf"\(t10k-labels-idx1-ubyte.gz not found in {tmp_path}\)$"):
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


# --- getting them from their publishers, here a server of this process ------------------------------------------------


@pytest.fixture
def direct(monkeypatch):
    go_direct(monkeypatch)


def publish(monkeypatch, root, name, files):
    """Let `fetch` find these files of a set on the test's server, with checksums and sizes as they are."""
    remote = tuple(RemoteFile(f"{root}/{file}", md5(content), len(content)) for file, content in files.items())
    monkeypatch.setattr(official, "REMOTE_FILES", {**official.REMOTE_FILES, name: remote})


def tar_of(folder, contents):
    """A .tar.gz as the University of Toronto packs it: a folder with the files, and a page beside them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {**contents, "readme.html": b"<html>"}.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def cifar100_site(monkeypatch, direct, cifar100_parts):
    contents = cifar100_files(cifar100_parts)
    expect(monkeypatch, "CIFAR100_MD5", contents)
    archive = tar_of(CIFAR100_FOLDER, contents)
    with Site(files={"cifar-100-python.tar.gz": archive}) as site:
        publish(monkeypatch, site.root, "cifar100", site.files)
        yield site


def test_every_set_has_its_files_on_the_web():
    files = [file for remote in official.REMOTE_FILES.values() for file in remote]
    assert list(official.REMOTE_FILES) == ["digits", "fashion-mnist", "cifar10", "cifar100"]
    assert [file.name for file in official.REMOTE_FILES["fashion-mnist"]] == list(FASHION_MNIST_MD5)
    assert all(len(bytes.fromhex(file.md5)) == 16 for file in files)
    assert len({file.md5 for file in files}) == len(files) == 6


def published(name):
    """A file of Fashion-MNIST as Zalando published it: the stream of Debian behind the header with name and time."""
    second = 1504176606 if name.startswith("train") else 1504176627
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", second) + b"\0\3" + name.removesuffix(".gz").encode() + b"\0"
    return header + (FASHION_MNIST_DEBIAN / name).read_bytes()[10:]


@pytest.mark.skipif(not FASHION_MNIST_DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_fetch_the_real_fashion_mnist(tmp_path, monkeypatch, direct):
    """The very bytes of the publisher, with the sizes and checksums of the publisher."""
    files = {name: published(name) for name in FASHION_MNIST_MD5}
    monkeypatch.setattr(official, "FASHION_MNIST_DEBIAN", tmp_path / "debian")
    with Site(files=files) as site:
        here = [replace(remote, url=f"{site.root}/{remote.name}") for remote in official.REMOTE_FILES["fashion-mnist"]]
        monkeypatch.setattr(official, "REMOTE_FILES", {"fashion-mnist": here})
        folder = fetch("fashion-mnist", tmp_path)
    assert names_in(folder) == sorted(files)


def test_fetch_cifar100(tmp_path, cifar100_site, cifar100_parts):
    folder, lines = tmp_path / "new" / "data", []
    assert fetch("cifar100", folder, say=lines.append) == folder / CIFAR100_FOLDER
    assert names_in(folder) == [f"{CIFAR100_FOLDER}/{name}" for name in ("meta", "test", "train")]
    assert load_cifar100(folder).superclass.tolist() == CIFAR100_SUPERCLASS
    assert fetch("cifar100", folder) == fetch("cifar100", folder / CIFAR100_FOLDER) == folder / CIFAR100_FOLDER
    assert cifar100_site.ranges == [None]


def test_fetch_cifar10(tmp_path, monkeypatch, direct, cifar):
    folder, _ = cifar
    contents = {path.name: path.read_bytes() for path in (folder / CIFAR10_FOLDER).iterdir()}
    (folder / CIFAR10_FOLDER / "data_batch_2").unlink()
    kept = folder / CIFAR10_FOLDER / "data_batch_1"
    before = kept.stat()
    with Site(files={"cifar-10-python.tar.gz": tar_of(CIFAR10_FOLDER, contents)}) as site:
        publish(monkeypatch, site.root, "cifar10", site.files)
        assert fetch("cifar10", folder) == folder / CIFAR10_FOLDER
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(load_cifar10(folder).train_labels) == 5 * ROWS
    assert names_in(folder) == [f"{CIFAR10_FOLDER}/{name}" for name in sorted(contents)]


def test_fetch_fashion_mnist(tmp_path, monkeypatch, direct, fashion_arrays, no_debian):
    put_fashion(tmp_path / "there", monkeypatch, fashion_arrays)
    files = {name: (tmp_path / "there" / name).read_bytes() for name in FASHION_MNIST_MD5}
    with Site(files=files) as site:
        publish(monkeypatch, site.root, "fashion-mnist", files)
        folder = fetch("fashion-mnist", tmp_path / "here")
        assert folder == tmp_path / "here" / "fashion-mnist"
        assert names_in(folder) == sorted(files)
        assert len(load_fashion_mnist(tmp_path / "here").train_labels) == 7
        (folder / "t10k-labels-idx1-ubyte.gz").unlink()
        packed_again = gzip.compress(idx(fashion_arrays[1]), compresslevel=1, mtime=0)
        (folder / "train-labels-idx1-ubyte.gz").write_bytes(packed_again)  # as Debian does: the same content
        fetch("fashion-mnist", tmp_path / "here")
        assert len(site.ranges) == 5
        assert (
            (folder / "train-labels-idx1-ubyte.gz").read_bytes() == packed_again != files["train-labels-idx1-ubyte.gz"]
        )
    put_fashion(no_debian, monkeypatch, fashion_arrays)
    assert fetch("fashion-mnist", tmp_path / "elsewhere") == no_debian
    assert not (tmp_path / "elsewhere").exists()


def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path, cifar100_site):
    archive = tmp_path / "cifar-100-python.tar.gz"
    archive.write_bytes(cifar100_site.files[archive.name])
    fetch("cifar100", tmp_path)
    assert archive.exists()
    assert cifar100_site.ranges == []
    assert len(load_cifar100(tmp_path).test_labels) == 100


def test_a_damaged_file_is_named_and_not_replaced(tmp_path, cifar100_site):
    path = tmp_path / CIFAR100_FOLDER / "meta"
    put_files(path.parent, {"meta": b"mine"})
    with pytest.raises(InputError, match=rf"{path} is not the official file: .*delete it and get it again"):
        fetch("cifar100", tmp_path)
    assert path.read_bytes() == b"mine"


def test_two_fetches_at_once(tmp_path, cifar100_site):
    together, done = threading.Barrier(3), []

    def run():
        together.wait()
        done.append(fetch("cifar100", tmp_path))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [tmp_path / CIFAR100_FOLDER] * 3
    assert cifar100_site.ranges == [None]
    assert names_in(tmp_path) == [f"{CIFAR100_FOLDER}/{name}" for name in ("meta", "test", "train")]


def test_an_archive_without_the_files(tmp_path, monkeypatch, cifar100_site):
    files = {"cifar-100-python.tar.gz": tar_of("other", {"train": b""})}
    cifar100_site.files = files
    publish(monkeypatch, cifar100_site.root, "cifar100", files)
    with pytest.raises(InputError, match=r"lacks cifar-100-python/train, cifar-100-python/test, cifar-100-python/meta"):
        fetch("cifar100", tmp_path)


def test_nothing_to_fetch_and_unknown_sets(tmp_path):
    assert fetch("digits", tmp_path / "new") is None
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="unknown data set 'cifar-100': did you mean 'cifar100'"):
        fetch("cifar-100", tmp_path)


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
