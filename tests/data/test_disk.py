"""Arrays on the disk: they hold what arrays in memory hold, leave nothing behind, and say where there is no room."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine

from ebomlc.data import disk as room
from ebomlc.data.disk import disk_array, encode_to_disk
from ebomlc.data.encoders import LazyEncoded, TableEncoder
from ebomlc.data.inputs import table_of_numbers
from ebomlc.errors import InputError
from tests.data.conftest import lies_on_disk


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ebomlc"


def test_an_array_begins_as_zeros_and_can_be_written(cache):
    values = disk_array((3, 4), np.float32)
    assert lies_on_disk(values)
    assert not values.any()
    values[1] = 7
    assert values.sum() == 28
    assert list(cache.iterdir()) == [], "its file has no name, so that nothing is left of it"
    assert disk_array((0, 5), np.float64).shape == (0, 5)


def test_rows_are_encoded_as_they_are_at_once(monkeypatch):
    monkeypatch.setattr(room, "CHUNK_ROWS", 50)
    inputs = table_of_numbers(load_wine().data, tuple(load_wine().feature_names))
    encoder = TableEncoder.fit(inputs)
    values = encode_to_disk(LazyEncoded(encoder, inputs))
    assert lies_on_disk(values)
    np.testing.assert_array_equal(values, encoder.encode(inputs))


def test_a_disk_without_room_is_said(cache):
    with pytest.raises(InputError, match=r"no place for \d+\.\d GiB of rows .* set XDG_CACHE_HOME"):
        disk_array((1 << 40, 1 << 10), np.float64)
    cache.rmdir()
    cache.write_text("a file")
    with pytest.raises(InputError, match="no place for"):
        disk_array((3,), np.float64)
