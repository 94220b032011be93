"""Files to read: real ones where they are there, and small ones written on the spot."""

import mmap
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

SHARED = Path(__file__).parents[3] / "shared" / "data"


def shared(name: str) -> Path:
    """A folder of real data beside the repository; the test is skipped where there is none."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder}")
    return folder


def lies_on_disk(values) -> bool:
    """Whether the bytes of an array are those of a mapped file."""
    while getattr(values, "base", None) is not None:
        values = values.base
    return isinstance(getattr(values, "obj", values), mmap.mmap)


@pytest.fixture
def hausa() -> Path:
    return shared("hausa")


@pytest.fixture
def derby() -> Path:
    return shared("derby")


@pytest.fixture
def write(tmp_path):
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write_file
