"""Every block of every page is run as it stands, in a folder of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
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


def own_data_commands() -> list[str]:
    """The commands of the README's part on own data."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split("## From your CSV")[1].split("## Where to read on")[0]
    return re.findall(r"^    (ebomlc .*)$", part, re.MULTILINE)


def write_own_data(folder: Path) -> pd.Series:
    """Make the README's all.csv and new.csv of scikit-learn's wines, some labels wrong; gives the right ones."""
    wine = load_wine(as_frame=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(wine.target))
    right = wine.target.map({0: "Barolo", 1: "Grignolino", 2: "Barbera"}).iloc[order].reset_index(drop=True)
    frame = wine.data.iloc[order].reset_index(drop=True)
    frame[150:].to_csv(folder / "new.csv", index=False)
    given = right.where(rng.random(len(right)) > 0.3, rng.permutation(right))
    frame = frame.assign(id=[f"w{k}" for k in frame.index], label=given)
    frame.assign(checked_label=right.where(frame.index % 3 == 0))[:150].to_csv(folder / "all.csv", index=False)
    return right


def say_and_stop(command: str) -> str:
    """What a command that serves until it is stopped says first."""
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True) as server:
        try:
            return next(line for line in server.stdout if "http" in line)
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_readme_leads_from_a_csv_to_corrected_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    right = write_own_data(tmp_path)
    commands = own_data_commands()
    assert [command.split()[1] for command in commands] == ["fit", "review", "export", "sample", "fit"]
    for command in commands:
        if "review" in command:
            assert "127.0.0.1" in say_and_stop(command.replace("--browser", "--port 0"))
            continue
        subprocess.run(shlex.split(command.replace("-n 300", "-n 60")), check=True)
        if "sample" in command:
            rows = pd.read_csv("to_check.csv")
            rows["checked_label"] = [right[int(name[1:])] for name in rows["id"]]
            rows.to_csv("to_check.csv", index=False)
    corrected = pd.read_csv("corrected.csv").set_index("id")
    truth = right[:150].set_axis([f"w{k}" for k in range(150)])
    assert (corrected["final_label"] == truth).mean() > (corrected["given_label"] == truth).mean() + 0.05
    subprocess.run(["ebomlc", "predict", "run", "new.csv", "--out", "predicted.csv"], check=True)
    assert len(pd.read_csv("predicted.csv")) == 28
