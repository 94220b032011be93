from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from ebomlc.data import cache
from ebomlc.data.cache import cache_folder, content_key, new_cached, open_cached
from ebomlc.errors import DataWarning, InputError

KEY = content_key("a key")


def stored(folder: Path, values: np.ndarray) -> Path:
    with new_cached(KEY, folder, values.shape, values.dtype) as new:
        new[:] = values
    return folder / f"{KEY}.npy"


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_folder_is_the_given_one_then_xdg_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(tmp_path / "own") == tmp_path / "own"
    assert cache_folder() == tmp_path / "xdg" / "ebomlc"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "ebomlc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "ebomlc"


def test_without_a_home_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        cache_folder()


def test_key_is_a_file_name_and_repeats():
    assert re.fullmatch("[0-9a-f]{64}", KEY)
    assert content_key("a", numbers(3, 2)) == content_key("a", numbers(3, 2))
    assert content_key("\udcff") != content_key("\udcfe")  # names of files that are no UTF-8


@pytest.mark.parametrize(
    "parts",
    [
        ("b",),
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        (numbers(3, 2),),
        (numbers(2, 3),),
        (numbers(3, 2).view(np.int32),),
        (numbers(3, 2).T,),
        (numbers(3, 2) + np.eye(3, 2, dtype=np.float32) * 1e-3,),
        (np.float32(1.0) * np.ones(()),),
        (np.empty((0, 2), np.float32),),
    ],
)
def test_key_differs_with_every_part(parts):
    others = [("a",), ("ab",), (numbers(6),), (numbers(3, 2, 1),), (np.empty((0, 3), np.float32),)]
    assert content_key(*parts) not in {content_key(*other) for other in others}


def test_key_of_an_array_does_not_depend_on_its_layout_or_blocks(monkeypatch):
    values = numbers(50, 7)
    whole = content_key(values)
    assert content_key(np.asfortranarray(values)) == whole
    monkeypatch.setattr(cache, "HASHED_AT_ONCE", 3 * 7 * 4)
    assert content_key(values) == whole


def test_arrays_of_objects_are_refused():
    with pytest.raises(TypeError, match="no content to hash"):
        content_key(np.array(["a", None], object))


@pytest.mark.parametrize("values", [numbers(5, 3), np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), numbers(0, 4)])
def test_what_was_stored_comes_back(tmp_path, values):
    stored(tmp_path / "made" / "here", values)
    found = open_cached(KEY, tmp_path / "made" / "here")
    assert found is not None
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    assert [path.name for path in (tmp_path / "made" / "here").iterdir()] == [f"{KEY}.npy"]


def test_values_stay_readable_after_the_block(tmp_path):
    with new_cached(KEY, tmp_path, (2, 2), np.float32) as values:
        values[:] = 3
    np.testing.assert_array_equal(values, np.full((2, 2), 3, np.float32))


def test_changes_never_reach_the_file(tmp_path):
    stored(tmp_path, numbers(4, 2))
    found = open_cached(KEY, tmp_path)
    torch.from_numpy(found).zero_()  # torch warns of arrays that cannot be written
    np.testing.assert_array_equal(open_cached(KEY, tmp_path), numbers(4, 2))


def test_an_error_in_the_block_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), new_cached(KEY, tmp_path, (2,), np.float32) as values:
        values[:] = 1 / 0
    assert not list(tmp_path.iterdir())
    assert open_cached(KEY, tmp_path) is None


def test_an_unfinished_array_is_not_found(tmp_path):
    with new_cached(KEY, tmp_path, (2,), np.float32):
        assert open_cached(KEY, tmp_path) is None
    assert open_cached(KEY, tmp_path) is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"no array", lambda whole: whole[:-1], lambda whole: whole[:40], lambda whole: whole + b"\0"],
    ids=["empty", "garbage", "short", "half a header", "long"],
)
def test_a_damaged_file_is_ignored_and_replaced(tmp_path, content):
    path = stored(tmp_path, numbers(4, 2))
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    assert open_cached(KEY, tmp_path) is None
    stored(tmp_path, numbers(4, 2))
    np.testing.assert_array_equal(open_cached(KEY, tmp_path), numbers(4, 2))


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / f"{KEY}.npy", np.array([print], object), allow_pickle=True)
    assert open_cached(KEY, tmp_path) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_other_users_cannot_read_it(tmp_path):
    assert stat.S_IMODE(stored(tmp_path, numbers(2, 2)).stat().st_mode) == 0o600


def test_a_cache_that_cannot_be_written_only_warns(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.warns(DataWarning, match="nothing is kept in the cache .*set XDG_CACHE_HOME"),
        new_cached(KEY, tmp_path / "file" / "cache", (2,), np.float32) as values,
    ):
        values[:] = 5
    np.testing.assert_array_equal(values, [5, 5])


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not reserved on this system")
def test_a_full_disk_only_warns(tmp_path, monkeypatch):
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.warns(DataWarning, match="No space left on device"),
        new_cached(KEY, tmp_path, (2,), np.float32) as values,
    ):
        values[:] = 5
    np.testing.assert_array_equal(values, [5, 5])
    assert not list(tmp_path.iterdir())


def test_a_cache_that_goes_away_only_warns(tmp_path, monkeypatch):
    def gone(*arguments: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", gone)
    with (
        pytest.warns(DataWarning, match="Read-only file system"),
        new_cached(KEY, tmp_path, (2,), np.float32) as values,
    ):
        values[:] = 5
    np.testing.assert_array_equal(values, [5, 5])
    assert not list(tmp_path.iterdir())
