"""Runs to review: real digits, and texts whose classes, ids and words are attacks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebomlc.labels.decisions import Decisions
from ebomlc.review.desk import Desk
from ebomlc.review.rows import rows_to_review
from ebomlc.reviewed import DECISIONS, read_labels
from ebomlc.run import fit
from ebomlc.samples import open_samples

ATTACKS = (
    "<script>document.title='hit'</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd|' /C calc'!A0",
    "{{ 7 * 7 }}",
)
ESCAPE = "\x1b[31mred\x1b[0m\u202egnp.exe"


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A run on real digits with 40 % of the labels flipped; not to be written to."""
    folder = tmp_path_factory.mktemp("review") / "digits"
    fit("digits", noise="flip:0.4", n_trusted=100, method="glc", epochs=3, out=folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def hostile(tmp_path_factory) -> Path:
    """A run whose classes, ids and texts try to break out of the page; not to be written to."""
    folder = tmp_path_factory.mktemp("review")
    rng = np.random.default_rng(0)
    rows = {"id": [], "words": [], "label": [], "checked_label": []}
    for k in range(120):
        right = k % len(ATTACKS)
        rows["id"].append(f"../{k}/<b>'\"&{ESCAPE}")
        rows["words"].append(f"{'abcd'[right] * 3} {ATTACKS[k % 3]} {ESCAPE} word{rng.integers(9)} and more {k}")
        rows["label"].append(ATTACKS[right if rng.random() > 0.3 else (right + 1) % len(ATTACKS)])
        rows["checked_label"].append(ATTACKS[right] if k % 3 == 0 else None)
    pd.DataFrame(rows).to_csv(folder / "hostile.csv", index=False)
    fit(folder / "hostile.csv", text="words", method="glc", epochs=60, out=folder / "run", seed=0)
    return folder / "run"


@pytest.fixture
def photos(tmp_path) -> tuple[Path, Path]:
    """A run on a folder of images, real digits in larger pixels, and the folder."""
    folder, digits = tmp_path / "photos", load_digits()
    rng = np.random.default_rng(0)
    kept = np.flatnonzero(digits.target < 2)[:80]
    for k, row in enumerate(kept):
        label = digits.target[row] if rng.random() > 0.2 else 1 - digits.target[row]
        image = Image.fromarray((255 - digits.images[row] * 15).astype(np.uint8)).resize(
            (120, 120), Image.Resampling.NEAREST
        )
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        image.save(folder / f"class{label}" / f"{k}.png")
    ids = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))][::4]
    right = [f"class{digits.target[kept[int(Path(name).stem)]]}" for name in ids]
    pd.DataFrame({"id": ids, "label": right}).to_csv(tmp_path / "trusted.csv", index=False)
    options = {"encoder": "pixels", "method": "trusted-only", "epochs": 1}
    fit(folder, trusted=tmp_path / "trusted.csv", out=tmp_path / "run", seed=0, **options)
    return tmp_path / "run", folder


def copied(run: Path, folder: Path) -> Path:
    """A run to write to."""
    return Path(shutil.copytree(run, folder / run.name))


@pytest.fixture
def run(digits, tmp_path) -> Path:
    """The digits, to write to."""
    return copied(digits, tmp_path)


@pytest.fixture
def desk(run) -> Iterator[Desk]:
    """The digits on a desk of their own."""
    with desk_of(run) as found:
        yield found


@contextmanager
def desk_of(run: Path, reviewer: str = "anna") -> Iterator[Desk]:
    labels, names = read_labels(run)
    with Decisions(run / DECISIONS, labels, names) as decisions:
        rows = rows_to_review(labels, names, decisions.random_order())
        yield Desk(rows, decisions, open_samples(run), reviewer)


# --- a running server -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A server in a process of its own, and the address that it printed."""

    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def entry(self) -> str:
        return urlsplit(self.address).path

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.address).query)["token"][0]

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; `path` below the entry unless it begins with a slash."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path if path.startswith("/") else self.entry + path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def served(run: Path, *options: str, port: int = 0) -> Iterator[Served]:
    """`ebomlc review` as somebody starts it."""
    command = [sys.executable, "-m", "ebomlc", "review", str(run), "--port", str(port), "--reviewer", "anna", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, encoding="utf-8"
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        address = re.search(r"open (http://\S+)", said)
        assert address, said
        yield Served(process, address[1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
