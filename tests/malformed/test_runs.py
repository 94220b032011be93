"""A run folder in which something is damaged is read as far as it is whole, or refused in one sentence."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebomlc.cli.main import main

KEPT = sorted((Path(__file__).parents[1] / "releases").glob("run-*.json"))[-1]
FILES = [name for name in json.loads(KEPT.read_text(encoding="utf-8"))["files"] if name.startswith("run/")]

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda whole: whole[: len(whole) // 2],
    "a list": lambda whole: b"[]",
    "nothing": lambda whole: b"",
    "zeros": lambda whole: b"\0" * len(whole),
    "an object": lambda whole: b"{}",
    "a deep list": lambda whole: b"[" * 100_000,
    "other numbers": lambda whole: whole.replace(b"1", b"9"),
    "no text": lambda whole: b"\xff\xfe" + whole,
    "a longer one": lambda whole: whole + whole,
}
QUICK = ("half", "a list")

COMMANDS = {
    "report": ["report", "run", "--out", "page.html"],
    "predict": ["predict", "run", "test.csv", "--out", "predicted.csv"],
    "export": ["export", "run", "--to", "csv", "--out", "labels.csv"],
    "verify": ["verify", "run", "--sources"],
    "fit": ["fit", "noisy.csv", "--trusted", "trusted.csv", "--out", "run", "--resume"],
    "reviewed": ["fit", "noisy.csv", "--trusted", "trusted.csv", "--add-reviewed", "run", "--out", "new"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, content in json.loads(KEPT.read_text(encoding="utf-8"))["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(content))
    return folder


def try_commands(whole: Path, folder: Path, file: str, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
    for command, arguments in COMMANDS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["ebomlc", *arguments])
            with pytest.raises(SystemExit) as left:
                main()
        said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
        assert left.value.code in (0, 1, 2), command
        assert len(said) == (left.value.code == 2), command
        assert all(line.startswith("error: ") and len(line) < 3000 for line in said), command
        assert command != "verify" or left.value.code != 0, "a damaged file is found"


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize("damage", QUICK)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_run_is_read_or_refused(whole, tmp_path, file, damage, capfd):
    try_commands(whole, tmp_path, file, damage, capfd)


@pytest.mark.torture
@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage not in QUICK])
@pytest.mark.parametrize("file", FILES)
def test_a_run_damaged_in_other_ways_is_read_or_refused(whole, tmp_path, file, damage, capfd):
    try_commands(whole, tmp_path, file, damage, capfd)
