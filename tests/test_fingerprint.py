"""What makes a run another one is refused with its name; what does not is let through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ebomlc.config import DataConfig, RunConfig, TrainingConfig, to_dict
from ebomlc.errors import DataWarning, InputError
from ebomlc.fingerprint import agree, check_asked, check_same, fingerprint
from ebomlc.preparation import Given, prepare

OUT = Path("run")
CONFIG = RunConfig(DataConfig("digits", n_noisy=100, n_trusted=50, noise="flip:0.4"), training=TrainingConfig(epochs=3))


@pytest.fixture(scope="module")
def job():
    return prepare(CONFIG, Given(), None)


def test_the_same_job_has_the_same_fingerprint(job):
    check_same(fingerprint(job), fingerprint(prepare(CONFIG, Given(), None)), OUT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, ["seed 1 instead of 0", "other split", "other labels", "other first weights"]),
        ({"training": TrainingConfig(epochs=3, lr=0.05)}, ["training.lr 0.05 instead of 0.1"]),
        ({"data": replace(CONFIG.data, n_noisy=101)}, ["data.n_noisy 101 instead of 100", "other ids"]),
    ],
    ids=str,
)
def test_another_job_is_told_apart(job, changes, said):
    other = prepare(replace(CONFIG, **changes), Given(), None)
    with pytest.raises(InputError) as error:
        check_same(fingerprint(job), fingerprint(other), OUT)
    assert all(part in str(error.value) for part in said)
    assert "\n" not in str(error.value)


def test_how_often_checkpoints_are_written_makes_no_other_run(job):
    often = replace(CONFIG, training=TrainingConfig(epochs=3, checkpoint_steps=3, checkpoint_minutes=0.5))
    check_same(fingerprint(job), fingerprint(prepare(often, Given(), None)), OUT)
    check_asked(often, to_dict(job.config), OUT)


def test_another_version_is_refused_and_another_machine_warned_about(job):
    now = fingerprint(job)
    older = {**now, "versions": {**now["versions"], "torch": "1.0"}}
    with pytest.raises(InputError, match=r"torch .* instead of 1\.0"):
        check_same(older, now, OUT)
    with pytest.warns(DataWarning, match="the last bits may differ"):
        check_same({**now, "machine": "an abacus"}, now, OUT)


def test_what_was_left_to_the_tool_may_have_become_anything(job):
    there = to_dict(job.config)
    assert there["model"]["name"] != CONFIG.model.name
    check_asked(CONFIG, there, OUT)
    with pytest.raises(InputError, match=r"training\.epochs 4 instead of 3"):
        check_asked(replace(CONFIG, training=TrainingConfig(epochs=4)), there, OUT)


def test_paths_are_the_same_from_another_folder(tmp_path, monkeypatch):
    there = {"data": {"noisy": str(tmp_path / "noisy.csv")}}
    monkeypatch.chdir(tmp_path)
    asked = RunConfig(DataConfig("noisy.csv"))
    kept = {**to_dict(asked), **there, "data": {**to_dict(asked)["data"], **there["data"]}}
    check_asked(asked, kept, OUT)
    with pytest.raises(InputError, match=r"data\.noisy other\.csv instead of"):
        check_asked(RunConfig(DataConfig("other.csv")), kept, OUT)


def test_a_damaged_note_is_said_so(job, tmp_path):
    path = tmp_path / "begun.json"
    agree(path, job, OUT)
    agree(path, job, OUT)
    path.write_text(path.read_text()[:100])
    with pytest.raises(InputError, match=r"begun\.json: damaged"):
        agree(path, job, OUT)
