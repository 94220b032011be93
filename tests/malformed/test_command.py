"""Whatever the command line is given, it refuses in one sentence, soon, in little memory, and writes nothing."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import pytest

from ebomlc.cli.main import main

from .cases import CASES, GOOD_NOISY, GOOD_TRUSTED

SECONDS, MEGABYTES = 20.0, 600.0
"""Of processor time and of memory beyond what was held before, that refusing anything may take."""

LONG = {
    name
    for name in CASES
    if any(part in name for part in ("ten million", "100,000 classes", "a bomb", "unpacks to a gigabyte", "20,000 col"))
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a good noisy and a good trusted set, and no cache but its own."""
    place = tmp_path / "here"
    place.mkdir()
    (place / "noisy.csv").write_text(GOOD_NOISY)
    (place / "trusted.csv").write_text(GOOD_TRUSTED)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


def refuse(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    command = CASES[name](folder)
    before, started = sorted(folder.rglob("*")), time.process_time()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(sys, "argv", ["ebomlc", *command])
    with pytest.raises(SystemExit) as left:
        main()
    seconds = time.process_time() - started
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    printed = capfd.readouterr()
    said = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert left.value.code == 2, printed.err
    assert len(said) == 1, printed.err
    assert said[0].startswith("error: ")
    assert len(said[0]) < 3000
    assert said[0].isprintable()
    assert printed.out == ""
    assert sorted(folder.rglob("*")) == before
    assert seconds < SECONDS
    assert taken < MEGABYTES


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name not in LONG])
def test_a_malformed_input_is_refused(name, folder, monkeypatch, capfd):
    refuse(name, folder, monkeypatch, capfd)


@pytest.mark.torture
@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize("name", sorted(LONG))
def test_a_huge_malformed_input_is_refused(name, folder, monkeypatch, capfd):
    refuse(name, folder, monkeypatch, capfd)


def test_there_are_enough_of_them():
    assert len(CASES) >= 300
