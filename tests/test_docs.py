"""Every block of every page is run as it stands, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

import ebomlc

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NOTHING_TO_RUN = {"benchmarks", "index", "log", "results"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block, in the order of the page."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def test_every_page_can_be_tried():
    for page in PAGES:
        languages = [language for language, _ in blocks(page)]
        assert set(languages) <= {"python", "sh"}, page
        assert bool(languages) != (page.stem in NOTHING_TO_RUN), f"{page} has nothing to run, or is excused"


def test_the_reference_names_everything_public():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto\w+:: ebomlc\.(\w+)$", text, re.MULTILINE)
    assert sorted(documented) == sorted(ebomlc.__all__)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_takes_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.glob("*.html"))
    assert {page.stem for page in PAGES} <= {page.stem for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:link|script|img)[^>]+(?:src|href)=\"(?:https?:)?//", text), page.name


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: dict[str, object] = {"__name__": "__main__"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
            continue
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout}\n{done.stderr}"


def own_data_blocks() -> list[str]:
    """The indented blocks of the README's part on own data."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split("## Your own data in three commands")[1].split("## What comes out")[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", part, re.MULTILINE)]


def write_own_data(folder: Path) -> None:
    """What the README calls all.csv, new.csv and sheet.csv, from the wines of scikit-learn, some with wrong labels."""
    wine = load_wine(as_frame=True)
    rng = np.random.default_rng(0)
    right = wine.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"})
    order = rng.permutation(len(right))
    frame, right = wine.data.iloc[order].reset_index(drop=True), right.iloc[order].reset_index(drop=True)
    given = right.where(rng.random(len(right)) > 0.3, rng.permutation(right))
    frame.assign(id=[f"w{k}" for k in frame.index], label=given)[:150].to_csv(folder / "all.csv", index=False)
    frame[150:].to_csv(folder / "new.csv", index=False)
    checked = right.where(frame.index % 3 == 0)
    sheet = frame.assign(**{"Patient No": frame.index, "Diagnosis": given.str.upper(), "Verified by": checked})
    sheet.to_csv(folder / "sheet.csv", index=False)
    right[:150].to_csv(folder / "right.csv", index=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_readme_runs_on_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    write_own_data(tmp_path)
    commands = own_data_blocks()
    assert len(commands) >= 4
    for block in commands:
        if block.startswith("from "):
            exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
            continue
        block = block.replace("-n 300", "-n 60")
        done = subprocess.run(["bash", "-euc", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if "sample" in block:
            rows = pd.read_csv("to_check.csv")
            right = pd.read_csv("right.csv").iloc[:, 0]
            rows["checked_label"] = [right[int(name[1:])] for name in rows["id"]]
            rows.to_csv("to_check.csv", index=False)
    done = subprocess.run(["ebomlc", "predict", "run", "new.csv", "--out", "predicted.csv"], check=False)
    assert done.returncode == 0
    assert len(pd.read_csv("predicted.csv")) == 28
