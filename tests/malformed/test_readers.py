"""Whatever bytes a reader is given, it reads them or says in an InputError what is wrong; nothing else comes out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebomlc.config import RunConfig, build, merge_options, read_toml
from ebomlc.data.columns import Columns, choose_inputs
from ebomlc.data.official import parse_idx
from ebomlc.data.readers import load_vectors
from ebomlc.data.tables import as_strings, read_table
from ebomlc.errors import InputError

from .cases import GOOD_NOISY, GOOD_PARQUET, GOOD_VECTORS, ROWS, npy

FAST = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(FAST, max_examples=3000, derandomize=False)

CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", " ", "NaN", "NA", "inf", "1e999", "-0", "007", "1,5", '"', '""', ",", ";", "\t", "\r", "\n", "\0", "\ufeff"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=8,
)
TOML = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=8,
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        table: st.dictionaries(st.sampled_from(sorted(names)) | CELLS, TOML, max_size=4) | TOML
        for table, names in {
            "data": ("noisy", "trusted", "n_trusted", "text", "features", "image", "noise", "image_size", "id"),
            "training": ("epochs", "lr", "momentum", "batch_size", "optimizer", "schedule", "weight_decay"),
            "model": ("name", "hidden", "dropout"),
            "method": ("name", "settings"),
            "trust": ("precision", "folds"),
            "seed": ("x",),
        }.items()
    },
)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, cut out or doubled."""
    places = st.integers(0, len(whole) - 1)
    change = st.tuples(places, st.binary(max_size=4), st.integers(0, 8))

    def apply(changes: list[tuple[int, bytes, int]]) -> bytes:
        content = whole
        for place, new, gone in changes:
            content = content[:place] + new + content[place + gone :]
        return content

    return st.lists(change, min_size=1, max_size=4).map(apply)


def read_or_refuse(read: Callable[[], Any]) -> None:
    """Read; an InputError must be one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        try:
            read()
        except InputError as error:
            assert str(error)


def use_table(path: Path) -> None:
    """Everything that is done with a table before training."""
    table = read_table(path)
    for column in table.frame.columns:
        as_strings(table.frame[column], table.name)
    choose_inputs(table, Columns())


def check_table(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    read_or_refuse(lambda: use_table(path))


def check_config(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    read_or_refuse(lambda: build(RunConfig, merge_options(read_toml(path), {}), "the configuration"))


def check_vectors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    read_or_refuse(lambda: load_vectors(path))


GOOD_LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
GOOD_IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(24)
GOOD_TOML = tomli_w.dumps(
    {"data": {"noisy": "a.csv", "text": ["x"]}, "training": {"epochs": 3, "lr": 0.1}, "model": {"hidden": [8]}}
).encode()

CHECKS: dict[str, tuple[st.SearchStrategy[bytes], Callable[[Path, bytes], None], str]] = {
    "bytes as CSV": (st.binary(max_size=200), check_table, "a.csv"),
    "bytes as lines": (st.binary(max_size=200), check_table, "a.jsonl"),
    "bytes as Parquet": (st.binary(max_size=200).map(lambda b: b"PAR1" + b + b"PAR1"), check_table, "a.parquet"),
    "bytes as TOML": (st.binary(max_size=200), check_config, "a.toml"),
    "bytes as embeddings": (st.binary(max_size=200).map(lambda b: b"\x93NUMPY" + b), check_vectors, "a.npy"),
    "cells as CSV": (
        st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6).map(
            lambda rows: "\n".join(["id,x,y,label", *rows]).encode()
        ),
        check_table,
        "a.csv",
    ),
    "cells as TSV": (
        st.lists(st.lists(CELLS, min_size=2, max_size=4).map("\t".join), max_size=6).map(
            lambda rows: "\n".join(rows).encode()
        ),
        check_table,
        "a.tsv",
    ),
    "objects as lines": (
        st.lists(st.dictionaries(CELLS, VALUES, max_size=4), max_size=5).map(
            lambda rows: "\n".join(map(json.dumps, rows)).encode()
        ),
        check_table,
        "a.jsonl",
    ),
    "values as TOML": (CONFIGS.map(lambda tables: tomli_w.dumps(tables).encode()), check_config, "a.toml"),
    "a damaged CSV": (damaged(GOOD_NOISY.encode()), check_table, "a.csv"),
    "damaged lines": (damaged(GOOD_LINES), check_table, "a.jsonl"),
    "a damaged Parquet": (damaged(GOOD_PARQUET), check_table, "a.parquet"),
    "damaged TOML": (damaged(GOOD_TOML), check_config, "a.toml"),
    "damaged embeddings": (damaged(npy(GOOD_VECTORS)), check_vectors, "a.npy"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_reader_reads_or_refuses(name, tmp_path):
    strategy, check, file = CHECKS[name]
    FAST(given(strategy)(lambda content: check(tmp_path / file, content)))()


def test_parquet_whose_column_name_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(GOOD_PARQUET.replace(b"label", b"lab\x80l"))
    with pytest.raises(InputError, match="damaged, or of a kind of Parquet that cannot be read"):
        read_table(path)


@pytest.mark.torture
@pytest.mark.parametrize("name", CHECKS)
def test_a_reader_reads_or_refuses_for_long(name, tmp_path):
    strategy, check, file = CHECKS[name]
    LONG(given(strategy)(lambda content: check(tmp_path / file, content)))()


@FAST
@given(damaged(GOOD_IDX))
def test_an_idx_file_is_read_or_refused(content):
    read_or_refuse(lambda: parse_idx(content, Path("images")))


@FAST
@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=5))
def test_cells_come_back_as_they_were_written(tmp_path, rows):
    import csv

    rows = [[cell.replace("\0", "") for cell in row] for row in rows]
    path = tmp_path / "a.csv"
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "x", "label"], *rows])
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return
    filled = [row for row in rows if any(cell and not cell.isspace() for cell in row)]
    found = read_table(path).frame.to_numpy(object)
    assert np.array_equal(found, np.array(filled, dtype=object).reshape(-1, 3))
