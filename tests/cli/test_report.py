"""``ebomlc report`` makes the page of a run anew, where it is asked to."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from ebomlc import InputError, fit
from ebomlc.cli.main import app

CLASSES = ("<b>one<i>", "'two\" & more")


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a folder of images whose classes are named with markup."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits()
    names = []
    for row in np.flatnonzero(digits.target < 2)[:80]:
        given = CLASSES[digits.target[row] ^ (row % 4 == 0)]
        names.append((f"{given}/{row}.png", CLASSES[digits.target[row]]))
        (folder / "all" / given).mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15).astype(np.uint8)).save(folder / "all" / names[-1][0])
    pd.DataFrame(names[:40], columns=["id", "label"]).to_csv(folder / "checked.csv", index=False)
    out = folder / "run"
    fit(folder / "all", trusted=folder / "checked.csv", encoder="pixels", model="mlp", method="ce", epochs=2, out=out)
    return out


def test_page_is_written_where_asked(run, tmp_path):
    done = report(run, "--out", tmp_path / "pages" / "a.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "pages" / "a.html").read_text() == (run / "report.html").read_text()
    assert "pages/a.html" in done.stdout


def test_classes_named_with_markup_stay_text(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<b>one" not in page
    assert "&lt;b&gt;one" in page


def test_page_in_the_run_is_replaced_and_another_file_is_not(run, tmp_path):
    assert report(run).exit_code == 0
    (tmp_path / "a.html").write_text("mine")
    refused = report(run, "--out", tmp_path / "a.html")
    assert isinstance(refused.exception, InputError)
    assert "already exists" in str(refused.exception)
    assert (tmp_path / "a.html").read_text() == "mine"
    assert report(run, "--out", tmp_path / "a.html", "--overwrite").exit_code == 0


def test_only_a_page_can_be_asked_for(run, tmp_path):
    assert "must end with" in str(report(run, "--out", tmp_path / "a.csv").exception)


def test_image_that_moved_is_shown_where_it_is_allowed(run, tmp_path):
    first = re.search(r'alt="([^"]+\.png)"', (run / "report.html").read_text(encoding="utf-8"))
    assert first is not None
    path = run.parent / "all" / unescape(first[1])
    path.rename(tmp_path / "moved.png")
    path.symlink_to(tmp_path / "moved.png")
    try:
        assert report(run, "--out", tmp_path / "refused.html").exit_code == 0
        assert report(run, "--out", tmp_path / "allowed.html", "--images", tmp_path).exit_code == 0
        counts = [(tmp_path / f"{name}.html").read_text().count("data:image/png") for name in ("refused", "allowed")]
        assert counts[0] == counts[1] - 1
        assert "allow its folder with --images DIR" in (tmp_path / "refused.html").read_text()
    finally:
        path.unlink()
        (tmp_path / "moved.png").rename(path)


def test_no_run_no_page(tmp_path):
    refused = report(tmp_path)
    assert isinstance(refused.exception, InputError)
    assert "not a run folder" in str(refused.exception)
