"""What was changed in a run is found: by its checksums, and by its figures where somebody wrote new checksums."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from ebomlc.cli.main import app
from ebomlc.errors import InputError
from ebomlc.run_folder import CHECKSUMS, CONTENTS, ENCODER, write_checksums
from ebomlc.training.states import load_state, save_state
from ebomlc.verify import verify

KEPT = sorted((Path(__file__).parent / "releases").glob("run-*.json"))[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run and the rows it was made of, to be copied."""
    folder = tmp_path_factory.mktemp("verify")
    for name, content in json.loads(KEPT.read_text(encoding="utf-8"))["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(content))
    config = folder / "run" / "config.toml"
    there = next(line for line in config.read_text().splitlines() if line.startswith("noisy = ")).split('"')[1]
    for file in (config, folder / "run" / "summary.json"):
        file.write_text(file.read_text().replace(str(Path(there).parent), str(folder)))
    write_checksums(folder / "run")
    return folder


@pytest.fixture
def run(whole, tmp_path) -> Path:
    shutil.copytree(whole / "run", tmp_path / "run")
    return tmp_path / "run"


def change_summary(run, **figures):
    summary = json.loads((run / "summary.json").read_text())
    assert figures.keys() <= summary.keys()
    (run / "summary.json").write_text(json.dumps({**summary, **figures}))


def change_table(run, row, **cells):
    frame = pd.read_parquet(run / "labels.parquet")
    for name, cell in cells.items():
        frame[name] = frame[name].mask(frame.index == row, cell)
    frame.to_parquet(run / "labels.parquet", index=False)


def change_split(run, **parts):
    with np.load(run / "split.npz") as stored:
        arrays = {**stored, **parts}
    np.savez(run / "split.npz", **arrays)


def noisy_row(run, *, is_issue):
    frame = pd.read_parquet(run / "labels.parquet")
    return int(frame.index[~frame.is_trusted & (frame.is_label_issue == is_issue)][0])


def test_a_run_is_what_it_claims(run):
    found = verify(run, sources=True)
    assert found.is_sound, found.broken
    assert len(found.held) == 16
    assert [line for line in found.open if "sources" in line] == []


def test_without_sources_nothing_but_the_folder_is_read(run, whole, monkeypatch):
    monkeypatch.setattr("ebomlc.verify.load_pool", lambda *_, **__: pytest.fail("read"))
    found = verify(run)
    assert found.is_sound
    assert any("--sources" in line for line in found.open)


@pytest.mark.parametrize("name", CONTENTS)
def test_every_file_is_under_a_checksum(run, name):
    path = run / name / "encoder.json" if name == ENCODER else run / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert any(f"{path.relative_to(run).as_posix()} was changed" in line for line in verify(run).broken)


@pytest.mark.parametrize("name", ["metrics.csv", "trust.json", "method.safetensors"])
def test_a_file_that_is_gone_is_missed(run, name):
    (run / name).unlink()
    assert any(f"{name} is missing" in line for line in verify(run).broken)


def test_a_list_that_leaves_a_file_out_is_found(run):
    lines = (run / CHECKSUMS).read_text().splitlines(keepends=True)
    (run / CHECKSUMS).write_text("".join(line for line in lines if "labels.parquet" not in line))
    assert any("labels.parquet is not listed" in line for line in verify(run).broken)


@pytest.mark.parametrize("name", ["../noisy.csv", "/etc/hostname", "link"])
def test_a_list_cannot_name_files_elsewhere(run, name):
    (run / "link").symlink_to(run / "summary.json")
    (run / CHECKSUMS).write_text(f"{'0' * 64}  {name}\n")
    assert any(f"{name} is no file of the run" in line for line in verify(run).broken)


def test_a_run_without_checksums_is_said_to_be_one(run):
    (run / CHECKSUMS).unlink()
    found = verify(run)
    assert found.is_sound
    assert any(CHECKSUMS in line for line in found.open)


def trust_of(run):
    return json.loads((run / "summary.json").read_text())["trust"]


LIES = {
    "more noisy rows": (lambda run: change_summary(run, n_noisy=999), "n_noisy is 999"),
    "a count as a fraction": (lambda run: change_summary(run, n_heldout=3.0), "n_heldout is 3.0"),
    "another split": (lambda run: change_summary(run, split_sha256="0" * 64), "split_sha256 is"),
    "another method": (lambda run: change_summary(run, method="oracle"), "method is 'oracle'"),
    "another seed": (lambda run: change_summary(run, seed=7), "seed is 7"),
    "more epochs": (lambda run: change_summary(run, epochs=120), "120 epochs are stated"),
    "a later epoch": (lambda run: change_summary(run, chosen_epoch=99), "the chosen epoch is 99"),
    "held-out accuracy": (lambda run: change_summary(run, heldout_accuracy=0.125), "heldout_accuracy is another"),
    "classes": (lambda run: change_summary(run, classes=[]), "they are other classes"),
    "sentences": (
        lambda run: change_summary(run, trust={**trust_of(run), "sentences": ["all labels are right"]}),
        "trust.json says something else",
    ),
    "fewer issues": (lambda run: change_summary(run, trust={**trust_of(run), "n_issues": 0}), "n_issues is 0"),
    "a tighter cut": (
        lambda run: change_summary(run, trust={**trust_of(run), "cut": -1.0}),
        "a label is called wrong above the cut",
    ),
    "another suggestion": (
        lambda run: change_table(run, noisy_row(run, is_issue=False), suggested_label="barbera"),
        "the figures of each class",
    ),
    "a class of its own": (
        lambda run: change_table(run, noisy_row(run, is_issue=False), suggested_label="merlot"),
        "a label is no class of the run (1 rows)",
    ),
    "a confidence above one": (lambda run: change_table(run, 0, predicted_confidence=1.5), "is no probability"),
    "an issue hidden": (
        lambda run: change_table(run, noisy_row(run, is_issue=True), is_label_issue=False),
        "trust.json and the summary",
    ),
    "a row trusted": (lambda run: change_table(run, noisy_row(run, is_issue=False), is_trusted=True), "is trusted in"),
    "an id renamed": (lambda run: change_table(run, 0, id="other"), "their ids differ"),
    "a row in two parts": (lambda run: change_split(run, heldout=np.arange(3)), "has several"),
    "a row in no part": (lambda run: change_split(run, noisy=np.empty(0, np.int64)), "rows have none"),
    "a row outside": (lambda run: change_split(run, heldout=np.array([10**6])), "a row is none of the table's"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_though_its_checksum_is_right(run, lie):
    tell, message = LIES[lie]
    before = verify(run)
    tell(run)
    write_checksums(run)
    found = verify(run)
    assert before.is_sound
    assert any(message in line for line in found.broken), found.broken


FLATTERY = {
    "noise": ({"measured_noise": 0.5}, "measured_noise is 0.5"),
    "given labels": ({"given_label_accuracy": 0.1}, "given_label_accuracy is 0.1"),
    "suggested labels": ({"suggested_label_accuracy": 1.0}, "suggested_label_accuracy is 1.0"),
    "test accuracy": ({"test_accuracy": 0.25}, "accuracy is 0.25"),
    "test rows": ({"n_test": 10_000}, "n_test is 10000"),
    "balanced accuracy": ({"test_balanced_accuracy": 0.2}, "balanced accuracy is 0.2"),
    "an overlap hidden": ({"n_test_overlap": 5}, "n_test_overlap is 5"),
}


@pytest.mark.parametrize("lie", FLATTERY)
def test_a_figure_that_rests_on_the_sources_is_recomputed_from_them(run, lie):
    figures, message = FLATTERY[lie]
    change_summary(run, **figures)
    write_checksums(run)
    assert verify(run).is_sound, "the folder alone cannot tell"
    found = verify(run, sources=True)
    assert any(message in line for line in found.broken), found.broken


def test_sources_that_changed_are_found(run, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "moved")
    noisy = tmp_path / "moved" / "noisy.csv"
    noisy.write_text(noisy.read_text().replace(",barolo\n", ",barbera\n", 1))
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(whole), str(tmp_path / "moved")))
    change_summary(run, data=str(noisy))
    write_checksums(run)
    assert any("given labels differ" in line for line in verify(run, sources=True).broken)


def test_sources_that_are_gone_are_an_error(run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("noisy.csv", "gone.csv"))
    change_summary(run, data=json.loads((run / "summary.json").read_text())["data"].replace("noisy.csv", "gone.csv"))
    write_checksums(run)
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        verify(run, sources=True)


@pytest.mark.parametrize("name", ["main.safetensors", "method.safetensors"])
def test_weights_that_were_damaged_are_said_so(run, name):
    state = {key: tensor * torch.nan for key, tensor in load_state(run / name).items()}
    for content, message in ((b"\0" * 100, f"{name}: "), (None, f"{name} holds NaN or infinity")):
        if content is None:
            save_state(run / name, state)
        else:
            (run / name).write_bytes(content)
        write_checksums(run)
        assert any(message in line for line in verify(run).broken)


def test_a_run_of_a_network_from_python_is_checked_as_far_as_its_folder_goes(run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace('name = "mlp"', 'name = "(Net from Python)"'))
    change_summary(run, model="(Net from Python)")
    write_checksums(run)
    assert verify(run).is_sound
    with pytest.raises(InputError, match="came from Python"):
        verify(run, sources=True)


def test_the_command_says_what_holds_and_ends_with_one_where_something_does_not(run):
    done = CliRunner().invoke(app, ["verify", str(run)])
    assert done.exit_code == 0, done.output
    assert done.output.count("holds: ") == 11
    assert "is what it claims" in done.output
    change_summary(run, n_noisy=999)
    done = CliRunner().invoke(app, ["verify", str(run)])
    assert done.exit_code == 1
    assert done.output.count("WRONG: ") == 2
    assert "is not what it claims: 2 of 11 claims fail" in done.output


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        verify(tmp_path)
