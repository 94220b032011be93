"""A checkpoint is there whole or not at all; a damaged one is noticed and passed over; the last two are kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from ebomlc.errors import DataWarning
from ebomlc.training import checkpoint as room
from ebomlc.training.checkpoint import KEPT, Checkpoint, FileCheckpoints, NullCheckpoints, write_durably

FIGURES = {"loss": 0.1 + 0.2, "rows": [{"epoch": 1, "heldout_accuracy": None}], "nan": float("nan")}


def checkpoint(step):
    generator = torch.Generator().manual_seed(step)
    tensors = {
        "weights": torch.randn(3, 4, generator=generator).to(memory_format=torch.contiguous_format).T,
        "steps": torch.tensor(step),
        "generator": torch.get_rng_state(),
        "empty": torch.zeros(0, 3, dtype=torch.float64),
    }
    return Checkpoint(step, tensors, FIGURES)


def assert_same(found, expected):
    assert found is not None
    assert found.step == expected.step
    assert found.figures["rows"] == expected.figures["rows"]
    assert found.figures["loss"] == expected.figures["loss"]
    assert found.figures["nan"] != found.figures["nan"]
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


def test_what_is_kept_comes_back(folder):
    assert FileCheckpoints(folder).latest() is None
    FileCheckpoints(folder).save(checkpoint(7))
    assert_same(FileCheckpoints(folder).latest(), checkpoint(7))


def test_the_last_two_are_kept_and_nothing_beside_them(folder):
    checkpoints = FileCheckpoints(folder)
    for step in (5, 10, 100, 1000):
        checkpoints.save(checkpoint(step))
    assert sorted(path.name[:14] for path in folder.iterdir()) == ["step-000000100", "step-000001000"]
    assert KEPT == 2
    assert_same(checkpoints.latest(), checkpoint(1000))


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_one_is_passed_over_with_a_warning(folder, damage):
    checkpoints = FileCheckpoints(folder)
    checkpoints.save(checkpoint(5))
    checkpoints.save(checkpoint(10))
    newest = max(folder.iterdir())
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes({"cut": content[:-1], "bit": content, "empty": b""}[damage])
    with pytest.warns(DataWarning, match="damaged"):
        assert_same(FileCheckpoints(folder).latest(), checkpoint(5))
    assert not newest.exists()
    assert_same(FileCheckpoints(folder).latest(), checkpoint(5))


def test_all_damaged_is_as_none(folder):
    FileCheckpoints(folder).save(checkpoint(5))
    next(folder.iterdir()).write_bytes(b"nothing")
    with pytest.warns(DataWarning, match="damaged"):
        assert FileCheckpoints(folder).latest() is None


def test_what_a_killed_process_was_writing_is_removed(folder):
    FileCheckpoints(folder).save(checkpoint(5))
    (folder / f".step-000000010-{'0' * 64}.safetensors.new").write_bytes(b"half")
    assert_same(FileCheckpoints(folder).latest(), checkpoint(5))
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(folder, failing, monkeypatch):
    checkpoints = FileCheckpoints(folder)
    checkpoints.save(checkpoint(5))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(checkpoint(10))
    monkeypatch.undo()
    assert len(list(folder.iterdir())) == 1
    assert_same(FileCheckpoints(folder).latest(), checkpoint(5))


def test_content_is_synced_before_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("content"))
    monkeypatch.setattr(room, "sync", lambda path: calls.append(path))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, other: (calls.append("name"), replace(path, other))[1])
    write_durably(tmp_path / "file", b"content")
    assert calls == ["content", "name", tmp_path]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_due_by_steps_by_minutes_and_at_the_end_of_an_epoch(folder, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    checkpoints = FileCheckpoints(folder, steps=10)
    assert not checkpoints.is_due(9)
    assert checkpoints.is_due(10)
    checkpoints.save(checkpoint(10))
    assert not checkpoints.is_due(19)
    now[0] += 61
    assert not checkpoints.is_due(11)
    assert checkpoints.is_due(11, is_epoch_end=True)
    now[0] += 240
    assert checkpoints.is_due(11)
    assert FileCheckpoints(folder, minutes=0).is_due(1)
    assert not NullCheckpoints().is_due(10**6)
