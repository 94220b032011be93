"""A run folder is read back as a whole, and one that this version cannot read is refused with the difference."""

from __future__ import annotations

import json
import shutil
import warnings

import pandas as pd
import pytest

from ebomlc import DataWarning, InputError, findings, fit
from ebomlc.findings import read_findings, write_report
from ebomlc.run_folder import SUMMARY
from ebomlc.version import __version__


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        fit("digits", noise="flip:0.4", n_trusted=60, pairs=True, method="ce", epochs=2, out=out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def change(run, **changed):
    summary = json.loads((run / SUMMARY).read_text())
    (run / SUMMARY).write_text(
        json.dumps({key: value for key, value in (summary | changed).items() if value != "gone"})
    )


def test_fit_leaves_a_page_with_its_suspects(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 24
    assert "Labels of digits" in page
    assert "flip:0.4" in page


def test_page_is_made_anew_as_it_was(run):
    before = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == before.replace("Labels of digits", "Labels of run")
    assert not list(run.glob(".*.partial"))


def test_everything_is_read_back(run):
    found = read_findings(run)
    assert found.name == "run"
    assert [row["epoch"] for row in found.metrics] == [1, 2]
    assert found.class_names == tuple("0123456789")
    assert len(found.labels) == len(pd.read_parquet(run / "labels.parquet"))
    assert found.trust is not None


def test_run_without_optional_files_has_a_page(run):
    for name in ("trust.json", "metrics.csv"):
        (run / name).unlink(missing_ok=True)
    change(run, classes="gone", versions="gone", test_accuracy=None)
    write_report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "trust.json, which this run has not" in page
    assert "no figures of its epochs" in page
    assert "no figures of its classes" in page


def test_later_version_is_refused_and_named(run):
    change(run, versions={"ebomlc": "99.1.0"})
    with pytest.raises(InputError, match=rf"written by ebomlc 99\.1\.0, and this is {__version__}"):
        read_findings(run)


@pytest.mark.parametrize("version", [__version__, "0.0.1", "0.1.0.dev1", "unknown"])
def test_earlier_and_unknown_versions_are_read(run, version):
    change(run, versions={"ebomlc": version})
    assert read_findings(run).summary["versions"] == {"ebomlc": version}


def test_what_a_summary_lacks_is_named(run):
    change(run, chosen_epoch="gone", versions={"ebomlc": "0.0.1"})
    with pytest.raises(InputError, match=r"written by ebomlc 0\.0\.1, lacks 'chosen_epoch', which ebomlc"):
        read_findings(run)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (SUMMARY, "{", "cannot be read"),
        ("trust.json", "[", "cannot be read"),
        ("metrics.csv", "epoch,loss\n1,many\n", "cannot be read"),
        ("labels.parquet", "PAR1", "cannot be read"),
    ],
)
def test_damaged_files_are_refused(run, name, content, words):
    (run / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_findings(run)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        write_report(tmp_path)


def test_page_that_cannot_be_written_leaves_the_run_and_nothing_else(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(run, tmp_path / "file" / "report.html")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "run"}


def test_run_is_finished_although_its_page_is_not(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise InputError("no room")

    monkeypatch.setattr(findings, "render_report", fail)
    with pytest.warns(DataWarning, match=r"no report\.html: no room"):
        done = fit("digits", noise="flip:0.4", n_trusted=60, method="ce", epochs=1, out=tmp_path / "run")
    assert (done.folder / SUMMARY).exists()
    assert not (done.folder / "report.html").exists()


def test_rows_from_python_are_in_the_page_of_the_fit_only(tmp_path):
    from sklearn.datasets import load_digits

    pixels, right = load_digits(return_X_y=True)
    frame = pd.DataFrame(pixels[:300]).rename(columns=lambda k: f"ink {k}").assign(label=right[:300].astype(str))
    frame["checked_label"] = frame["label"].where(frame.index < 100)
    frame["label"] = frame["label"].where(frame.index % 3 > 0, "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        done = fit(frame, checked="checked_label", method="finetune", epochs=2, out=tmp_path / "run")
    assert "ink 3" in (done.folder / "report.html").read_text(encoding="utf-8")
    write_report(done.folder)
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "came from Python" in page
    assert "ink 3" not in page
