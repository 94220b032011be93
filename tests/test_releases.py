"""Runs that earlier versions wrote can still be read, by every command that reads one."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pandas as pd
import pytest

from ebomlc.exports import export
from ebomlc.findings import write_report
from ebomlc.prediction import load_classifier
from ebomlc.prediction import predict as predict_rows
from ebomlc.review.server import open_desk
from ebomlc.verify import verify

KEPT = sorted((Path(__file__).parent / "releases").glob("run-*.json"))


@pytest.fixture(params=KEPT, ids=lambda path: path.stem)
def run(request, tmp_path) -> Path:
    """The folder of a run that another version wrote, with the rows it was made of beside it."""
    kept = json.loads(request.param.read_text(encoding="utf-8"))
    for name, content in kept["files"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(base64.b64decode(content))
    return tmp_path / "run"


def test_a_run_of_this_version_is_kept():
    assert KEPT


def test_it_is_what_it_claims(run):
    assert verify(run).broken == ()


def test_it_predicts(run):
    found = predict_rows(load_classifier(run, device="cpu"), str(run.parent / "test.csv"))
    stated = json.loads((run / "summary.json").read_text())["test_accuracy"]
    assert found.accuracy == pytest.approx(stated)


def test_it_is_shown(run):
    write_report(run)
    assert "grignolino" in (run / "report.html").read_text(encoding="utf-8")


def test_it_is_exported(run, tmp_path):
    export(run, "csv", tmp_path / "labels.csv")
    frame = pd.read_csv(tmp_path / "labels.csv")
    assert len(frame) == len(pd.read_parquet(run / "labels.parquet"))
    assert set(frame["final_label"]) == {"barolo", "grignolino", "barbera"}


def test_it_is_reviewed(run):
    with open_desk(run, "ada") as desk:
        assert desk.counts()["rows"] == json.loads((run / "summary.json").read_text())["n_noisy"]
