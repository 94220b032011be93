"""Keys, versions and rows: what is found again, what is refused, and that rows say what the runs found."""

from __future__ import annotations

import copy
import json
import shutil

import pandas as pd
import pytest

from ebomlc.bench import store as room
from ebomlc.bench.store import (
    COLUMNS,
    check_versions,
    current_versions,
    derive_rows,
    finished,
    make_record,
    outdated,
    read_records,
    read_rows,
    read_summary,
    record_key,
)  # fmt: skip
from ebomlc.config import TrainingConfig
from ebomlc.errors import InputError
from ebomlc.run_folder import SUMMARY

from .conftest import tiny_suite


@pytest.fixture
def copied(grid, tmp_path):
    return shutil.copytree(grid, tmp_path / "copy")


@pytest.fixture
def record():
    cell = tiny_suite("glc").cells[0]
    return make_record("smoke", cell, cell.config(TrainingConfig(epochs=2), {}, None))


# --- keys and versions ------------------------------------------------------------------------------------------------


def test_the_key_is_of_the_request_and_not_of_where_the_data_lie(record):
    elsewhere = copy.deepcopy(record)
    elsewhere["config"]["data"]["data_dir"] = "/somewhere/else"
    elsewhere["name"] = "under another name"
    assert record_key(elsewhere) == record_key(record)
    assert len(record_key(record)) == 16


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [("method", "settings", {}), ("training", "epochs", 3), ("data", "noise", "flip:0.3"), ("versions", "torch", "1")],
)
def test_whatever_decides_the_result_changes_the_key(record, table, name, value):
    other = copy.deepcopy(record)
    (other if table == "versions" else other["config"])[table][name] = value
    assert record_key(other) != record_key(record)


@pytest.mark.parametrize(
    ("table", "name", "there"), [("METHOD_REVISIONS", "glc", "7.1"), ("MODEL_REVISIONS", "cnn-tiny", "1.7")]
)
def test_a_revision_of_one_method_or_model_outdates_its_cells_only(record, monkeypatch, table, name, there):
    record["config"]["model"]["name"] = "cnn-tiny"
    assert outdated(record) is None
    monkeypatch.setattr(room, table, {name: 7})
    assert outdated(record) == f"revision {room.REVISION}.1.1 instead of {room.REVISION}.{there}"
    assert current_versions("ce", "mlp")["revision"] == f"{room.REVISION}.1.1"


def test_cells_of_another_version_are_refused_with_the_difference(record, tmp_path):
    record["versions"] |= {"ebomlc": "0.0.1", "torch": "2.11.0"}
    with pytest.raises(InputError, match=r"ebomlc 0\.0\.1 instead of .*, torch 2\.11\.0 instead of"):
        check_versions(tmp_path, {"k": record})
    with pytest.raises(InputError) as caught:
        check_versions(tmp_path, {"k": record}, ("ebomlc",))
    assert "torch" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {}}'])
def test_a_record_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "k.json").write_text(content)
    with pytest.raises(InputError, match=r"k\.json: (not a stored cell|a cell of another version)"):
        read_records(tmp_path)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_run_found(grid):
    rows = pd.read_csv(grid / "rows.csv")
    assert tuple(rows.columns) == COLUMNS
    assert sorted(zip(rows["method"], rows["seed"], strict=True)) == [
        ("glc", 0), ("glc", 1), ("trusted-only", 0), ("trusted-only", 1),
    ]  # fmt: skip
    for _, record, summary in finished(grid):
        row = rows[(rows["method"] == record["name"]) & (rows["seed"] == summary["seed"])].iloc[0]
        for name in ("test_accuracy", "test_accuracy_last", "suggested_label_accuracy", "measured_noise", "seconds"):
            assert row[name] == pytest.approx(summary[name])
        assert row["ms_per_step"] == pytest.approx(1000 * summary["training_seconds"] / summary["steps"])
        assert row["calibration_error"] == pytest.approx(summary["suggestion_calibration_error"])
        assert row["brier"] == pytest.approx(summary["suggestion_brier"])
        assert (row["n_trusted"], row["epochs"], row["steps"]) == (100, 2, 24)
        assert row["peak_memory_mb"] > 50


def test_rows_are_derived_from_the_runs_and_never_kept(copied):
    (copied / "rows.csv").write_text("nonsense")
    key = next(iter(read_records(copied)))
    (copied / "runs" / key / SUMMARY).unlink()
    rows = derive_rows(copied)
    assert len(rows) == 3
    pd.testing.assert_frame_equal(pd.read_csv(copied / "rows.csv", dtype=dict.fromkeys(room.TEXTS, str)), rows)


def test_a_run_counts_only_for_the_cell_that_asked_for_it(copied):
    records = read_records(copied)
    key, record = next(iter(records.items()))
    assert read_summary(copied, key, record) is not None
    edited = copy.deepcopy(record)
    edited["config"]["training"]["epochs"] = 3
    assert read_summary(copied, key, edited) is None, "the summary alone does not tell"
    summary = copied / "runs" / key / SUMMARY
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "seed": 77}))
    assert read_summary(copied, key, record) is None
    summary.write_text("{")
    assert read_summary(copied, key, record) is None


def test_rows_come_from_the_folder_and_from_a_file_alike(grid, tmp_path):
    file = tmp_path / "rows.csv"
    shutil.copy(grid / "rows.csv", file)
    here = read_rows(grid)
    pd.testing.assert_frame_equal(read_rows(file), here)
    pd.testing.assert_frame_equal(read_rows(tmp_path), here)


def changed(frame, case):
    if case == "columns":
        return frame.drop(columns="brier").rename(columns={"steps": "stepps"})
    if case == "torch":
        return frame.assign(torch=["2.12.0+cpu", *frame["torch"][1:]])
    if case == "twice":
        return pd.concat([frame, frame.head(1)])
    if case == "number":
        return frame.assign(seconds=["long", *frame["seconds"][1:].astype(str)])
    return frame.head(0)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("columns", r"another version \(missing: steps, brier; unknown: stepps\)"),
        ("torch", r"several versions of torch, which are not compared: 3 rows of .*, 1 rows of 2\.12\.0"),
        ("twice", "glc, digits flip:0.4, 100 trusted, seed 0 stands there twice"),
        ("number", "column 'seconds' holds 'long' in line 2: not a number"),
        ("empty", "no run is finished yet"),
    ],
)
def test_rows_that_do_not_compare_are_refused(grid, tmp_path, case, message):
    file = tmp_path / "rows.csv"
    changed(pd.read_csv(grid / "rows.csv"), case).to_csv(file, index=False)
    with pytest.raises(InputError, match=message):
        read_rows(file)


def test_a_folder_of_another_version_gives_no_rows(copied, monkeypatch):
    before = room.REVISION
    monkeypatch.setattr(room, "REVISION", before + 1)
    with pytest.raises(InputError, match=rf"another version: revision {before}\.1\.1 instead of {before + 1}\.1\.1"):
        read_rows(copied)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(InputError, match="no rows of a benchmark: No such file"):
        read_rows(tmp_path / "gone")
    (tmp_path / "rows.csv").write_bytes(b"\x89PNG\x00\xff")
    with pytest.raises(InputError, match=r"not a table of rows|another version"):
        read_rows(tmp_path)
