"""Rows that are streamed through a run: what they get at once, and none lost or doubled by being killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from ebomlc import InputError, fit, load_classifier, predict
from ebomlc.data.readers import read_built_in
from ebomlc.streaming import load_method, predict_to

DIGITS, RIGHT = load_digits(return_X_y=True)
RIGHT = RIGHT.astype(str)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming") / "run"
    return fit("digits", noise="flip:0.3", n_trusted=100, pairs=True, folds=0, epochs=6, out=folder)


def many_rows(n=1000):
    """Digits with ids and, in a few rows, another label than the right one."""
    frame = pd.DataFrame(DIGITS[:n] / 16, columns=[f"x{k}" for k in range(64)])
    return frame.assign(id=[f"scan/{k}" for k in range(n)], label=np.where(np.arange(n) % 50, RIGHT[:n], "3"))


@pytest.fixture
def in_hundreds(monkeypatch):
    monkeypatch.setattr("ebomlc.data.stream.ROWS_AT_ONCE", 100)


@pytest.mark.parametrize("kind", ["csv", "parquet", "shards", "frame"])
def test_rows_that_are_streamed_get_what_they_get_at_once(run, tmp_path, in_hundreds, kind):
    frame, classifier = many_rows(), load_classifier(run.folder)
    data, out = tmp_path / f"new.{kind}", tmp_path / "out.parquet"
    if kind == "csv":
        frame.to_csv(data, index=False)
    elif kind == "parquet":
        frame.to_parquet(data, row_group_size=330)
    elif kind == "shards":
        data.mkdir()
        for k in range(4):
            frame[250 * k : 250 * (k + 1)].to_parquet(data / f"{k}-of-4.parquet")
    tally = predict_to(classifier, frame if kind == "frame" else data, out)
    whole = predict(classifier, frame)
    found = pd.read_parquet(out)
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["predicted_label"].tolist() == whole.to_frame()["predicted_label"].tolist()
    np.testing.assert_allclose(found.filter(like="p(").to_numpy(), whole.probabilities, atol=1e-6)
    assert list(found.columns) == list(whole.to_frame().columns)
    assert (tally.rows, tally.accuracy, tally.balanced_accuracy) == (1000, whole.accuracy, whole.balanced_accuracy)
    assert pq.read_metadata(out).num_row_groups == (12 if kind == "shards" else 10)


def test_rows_without_ids_are_numbered_through(run, tmp_path, in_hundreds):
    many_rows(250).drop(columns=["id", "label"]).to_parquet(tmp_path / "new.parquet")
    tally = predict_to(load_classifier(run.folder), tmp_path / "new.parquet", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["id"].tolist() == list(range(1, 251))
    assert (tally.n_labelled, tally.accuracy) == (0, None)


KILLED = """
import os, signal, sys
import ebomlc.data.parts as parts, ebomlc.data.stream as stream
from ebomlc.cli.main import main
stream.ROWS_AT_ONCE = 100
event, count = sys.argv.pop(1), int(sys.argv.pop(1))
seen = 0
def die(*_):
    global seen
    seen += 1
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)
def before(function):
    return lambda *arguments, **options: (die(), function(*arguments, **options))[1]
def after(function):
    return lambda *arguments, **options: (function(*arguments, **options), die())[0]
if event == "half a part":
    parts.pq.write_table = after(parts.pq.write_table)
elif event == "between parts":
    parts.Parts.append = after(parts.Parts.append)
elif event == "half joined":
    parts.pq.ParquetWriter.write_table = after(parts.pq.ParquetWriter.write_table)
elif event == "moved":
    parts.shutil.rmtree = before(parts.shutil.rmtree)
main()
"""


def test_a_killed_prediction_is_continued_without_a_lost_or_doubled_row(run, tmp_path, in_hundreds):
    data, out, undisturbed = (tmp_path / name for name in ("new.parquet", "out.parquet", "undisturbed.parquet"))
    many_rows().to_parquet(data, row_group_size=330)
    unfinished = tmp_path / "out.parquet.unfinished"
    command = ["predict", run.folder, data, "--out", out]
    written = []
    for event, count in (("half a part", "3"), ("between parts", "4"), ("half joined", "5")):
        resume = ["--resume"] * bool(written)
        killed = subprocess.run([sys.executable, "-c", KILLED, event, count, *command, *resume], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not out.exists()
        written.append(len(list(unfinished.glob("part-*"))))
    assert written == [2, 6, 10]

    classifier = load_classifier(run.folder)
    with pytest.raises(InputError, match="a part of a table that was not finished; continue it with --resume"):
        predict_to(classifier, data, out)
    tally = predict_to(classifier, data, out, resume=True)
    assert tally == predict_to(classifier, data, undisturbed)
    assert pq.read_table(out).equals(pq.read_table(undisturbed))
    assert out.read_bytes() == undisturbed.read_bytes()
    assert not unfinished.exists()
    assert predict_to(classifier, data, out, resume=True) is None, "what is whole is left as it is"
    assert out.read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_a_prediction_that_is_killed_when_it_is_in_place_is_whole(run, tmp_path, in_hundreds):
    data, out = tmp_path / "new.parquet", tmp_path / "out.parquet"
    many_rows().to_parquet(data)
    command = ["predict", run.folder, data, "--out", out, "--overwrite"]
    killed = subprocess.run([sys.executable, "-c", KILLED, "moved", "1", *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = out.read_bytes()
    predict_to(load_classifier(run.folder), data, out, resume=True)
    assert out.read_bytes() == before
    assert not (tmp_path / "out.parquet.unfinished").exists()


def test_a_prediction_of_other_rows_or_another_run_is_not_continued(run, tmp_path, in_hundreds, monkeypatch):
    data, out = tmp_path / "new.csv", tmp_path / "out.csv"
    many_rows(250).to_csv(data, index=False)
    classifier = load_classifier(run.folder)
    broken = many_rows(251).assign(x3=[*DIGITS[:250, 3], "many"])
    broken.to_csv(data, index=False)
    with pytest.raises(InputError, match=r"column 'x3' holds numbers in the rows of the run .* stands in row 252"):
        predict_to(classifier, data, out)
    assert not out.exists()
    many_rows(251).to_csv(data, index=False)
    with pytest.raises(InputError, match="was begun with another data; begin again with --overwrite"):
        predict_to(classifier, data, out, resume=True)
    assert predict_to(classifier, data, out, overwrite=True).rows == 251


def test_nothing_is_written_where_a_shard_does_not_fit(run, tmp_path):
    data, out = tmp_path / "new", tmp_path / "out.parquet"
    data.mkdir()
    many_rows(50).to_parquet(data / "0-of-2.parquet")
    many_rows(50).drop(columns="x7").to_parquet(data / "1-of-2.parquet")
    with pytest.raises(InputError, match=r"1-of-2\.parquet: lacks 'x7', other than 0-of-2\.parquet"):
        predict_to(load_classifier(run.folder), data, out)
    (data / "1-of-2.parquet").unlink()
    with pytest.raises(InputError, match=r"1-of-2\.parquet missing beside"):
        predict_to(load_classifier(run.folder), data, out)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_column_that_is_missing_is_named_with_its_like(run, tmp_path):
    many_rows(50).rename(columns={"x7": "X7"}).to_parquet(tmp_path / "new.parquet")
    with pytest.raises(InputError, match="unknown column 'x7': did you mean 'X7'"):
        predict_to(load_classifier(run.folder), tmp_path / "new.parquet", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.unfinished").exists()


# --- the label pass ---------------------------------------------------------------------------------------------------


def test_the_label_pass_over_a_file_says_what_the_run_said_of_its_own_rows(run, tmp_path, in_hundreds):
    own = pd.read_parquet(run.folder / "labels.parquet")
    source, _ = read_built_in("digits", None)
    rows = source.inputs.values.assign(id=source.ids).merge(
        own[["id", "given_label", "suggested_label", "is_trusted"]], on="id"
    )
    rows["label"] = rows["given_label"]
    rows["checked_label"] = rows["suggested_label"].where(rows["is_trusted"])
    rows.drop(columns=["given_label", "suggested_label", "is_trusted"]).to_parquet(tmp_path / "rows.parquet")
    classifier = load_classifier(run.folder)
    method = load_method(classifier)
    tally = predict_to(classifier, tmp_path / "rows.parquet", tmp_path / "out.parquet", suggest=method)
    found = pd.read_parquet(tmp_path / "out.parquet").set_index("id")
    own = own.set_index("id").loc[found.index]
    assert tally.rows == len(own) == len(rows)
    assert list(found.columns) == list(own.columns)
    words = ["given_label", "suggested_label", "predicted_label", "is_label_issue", "is_trusted"]
    pd.testing.assert_frame_equal(found[words], own[words], check_dtype=False)
    np.testing.assert_allclose(found["label_quality"], own["label_quality"], atol=1e-5)
    assert 0 < found["is_label_issue"].sum() < len(found)


@pytest.mark.parametrize(
    ("label", "message"),
    [(None, "the label in row 131 is empty"), ("ten", "the row with id 'scan/130' has the label 'ten', which is no")],
)
def test_rows_that_cannot_be_judged_are_named(run, tmp_path, in_hundreds, label, message):
    frame = many_rows(150)
    frame.loc[130, "label"] = label
    frame.to_parquet(tmp_path / "rows.parquet")
    classifier = load_classifier(run.folder)
    with pytest.raises(InputError, match=message):
        predict_to(classifier, tmp_path / "rows.parquet", tmp_path / "out.csv", suggest=load_method(classifier))
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(InputError, match="was begun with another table; begin again"):
        predict_to(classifier, tmp_path / "rows.parquet", tmp_path / "out.csv", resume=True)


def test_a_damaged_method_is_refused(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "method.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"method\.safetensors: cannot be read"):
        load_method(load_classifier(tmp_path / "run"))
