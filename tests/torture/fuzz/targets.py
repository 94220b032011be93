"""What is fuzzed: each target takes bytes and may only end well, or with an InputError.

The checksums of official files would keep every changed byte out, so what lies behind them is called by itself.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebomlc.config import RunConfig, build, merge_options, read_toml, to_toml
from ebomlc.data import official
from ebomlc.data.readers import load_vectors
from ebomlc.data.tables import read_table
from ebomlc.errors import InputError

Use = Callable[[bytes], None]

_FOLDER = Path(tempfile.gettempdir(), "ebomlc-fuzz")


def _file(name: str, content: bytes) -> Path:
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / name
    path.write_bytes(content)
    return path


def _idx(content: bytes) -> None:
    array = official.parse_idx(content, Path("images"))
    assert array.size == len(content) - 4 - 4 * array.ndim


def _gzip(content: bytes) -> None:
    official._read_gzipped(_file("labels.gz", content), "0" * 32)


def _cifar(content: bytes) -> None:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    official._read_pickle("cifar10", _file("data_batch_1", content), digest)


def _human(content: bytes) -> None:
    official._read_human_arrays(_file("human.npz", content))


def _configuration(content: bytes) -> None:
    tables = read_toml(_file("c.toml", content))
    config = build(RunConfig, merge_options(tables, {}), "the configuration")
    assert build(RunConfig, read_toml(_file("again.toml", to_toml(config).encode())), "again") == config


def _table(suffix: str) -> Use:
    return lambda content: [None, read_table(_file(f"rows{suffix}", content))][0]


def _vectors(content: bytes) -> None:
    load_vectors(_file("rows.npy", content))


def _saved(save: Callable[..., object], *given: object, **named: object) -> bytes:
    file = io.BytesIO()
    save(file, *given, **named)
    return file.getvalue()


_LABELS = np.arange(5)
_HUMAN = dict.fromkeys(("clean_label", *official.CIFAR10_HUMAN_KEYS.values()), _LABELS)
_BATCH = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
_IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(24)


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes
    ----------
    use : callable
        Takes a file's bytes.
    seeds : tuple of bytes
        Good files to start from.
    """

    use: Use
    seeds: tuple[bytes, ...]


TARGETS: dict[str, Target] = {
    "idx": Target(_idx, (_IDX,)),
    "gzip": Target(_gzip, (gzip.compress(_IDX, mtime=0),)),
    "cifar": Target(_cifar, (pickle.dumps(_BATCH, 2), pickle.dumps({b"labels": [1]}, 0))),
    "human": Target(_human, (_saved(np.savez, **_HUMAN), _saved(np.savez_compressed, **_HUMAN))),
    "config": Target(
        _configuration,
        (
            b'seed = 3\n[data]\nnoisy = "a.csv"\ntext = ["x"]\n[training]\nlr = 0.1\nepochs = 3\nnesterov = true\n',
            b'[data]\nnoisy = "a"\n[method]\nname = "ce"\n[method.settings]\nx = 1979-05-27\n[model]\nhidden = [8]\n',
        ),
    ),
    "csv": Target(_table(".csv"), (b'\xef\xbb\xbfid,x,label\r\na,"1\n2",p\r\n', b"id;x\na;1,5\n")),
    "jsonl": Target(_table(".jsonl"), (b'{"id": 1, "x": [1.5, null], "label": "\\u00e9"}\n',)),
    "npy": Target(_vectors, (_saved(np.save, np.ones((3, 2), np.float32)),)),
}


def survives(name: str, content: bytes) -> None:
    """Run a target; whatever but an InputError comes out of it is a crash."""
    try:
        TARGETS[name].use(content)
    except InputError as error:
        assert str(error)
