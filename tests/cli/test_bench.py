"""``ebomlc bench`` from end to end on real digits, and every bad input."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ebomlc.cli.bench import bench_app
from ebomlc.errors import DataWarning, InputError

RUN = ("run", "smoke", "--methods", "trusted-only,ce", "--seeds", "0", "--jobs", "2")


def bench(*arguments: str):
    """Exit code and what was printed; errors of the user's are raised, for `main` to show."""
    result = CliRunner().invoke(bench_app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    """A smoke suite with the two cheapest methods."""
    out = tmp_path_factory.mktemp("bench") / "smoke"
    code, printed = bench(*RUN, "--out", out)
    assert code == 0
    assert "suite smoke: 2 cells, 0 of them done, 2 at a time" in printed
    assert "2/2 " in printed
    assert f"next: ebomlc bench table {out}" in printed
    return out


def test_a_suite_is_run_once(smoke):
    code, printed = bench(*RUN, "--out", smoke)
    assert code == 0
    assert "2 cells, 2 of them done" in printed
    assert "seed 0" not in printed, "nothing is run again"
    assert len(pd.read_csv(smoke / "rows.csv")) == 2


def test_the_table_shows_what_was_found(smoke):
    code, printed = bench("table", smoke)
    assert code == 0
    rows = pd.read_csv(smoke / "rows.csv")
    mean = rows.loc[rows["method"] == "trusted-only", "test_accuracy_last"].mean()
    line = next(line for line in printed.splitlines() if line.startswith("trusted-only"))
    assert f"{100 * mean:.1f}" in line
    assert mean > rows.loc[rows["method"] == "ce", "test_accuracy_last"].mean()
    assert "difference from ce" in printed


@pytest.mark.parametrize("form", ["markdown", "csv"])
def test_the_table_may_go_to_a_file(smoke, tmp_path, form):
    file = tmp_path / "table"
    options = ("--format", form, "--metric", "suggested_label_accuracy", "--baseline", "trusted-only")
    printed = bench("table", smoke, *options)
    assert bench("table", smoke / "rows.csv", *options, "--out", file) == (0, "")
    assert printed == (0, file.read_text())
    if form == "csv":
        assert set(pd.read_csv(io.StringIO(printed[1]))["baseline"]) == {"trusted-only"}


def test_pictures_are_drawn_into_the_folder(smoke):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'ebomlc[plot]'")
    code, printed = bench("plot", smoke, "--methods", "ce")
    assert code == 0
    drawn = [Path(line.removeprefix("drew ")) for line in printed.splitlines()]
    assert {path.name for path in drawn} == {path.name for path in (smoke / "plots").iterdir()}
    assert len(drawn) == 3, "ce corrects nothing, so there is no matrix"


def test_pictures_of_rows_alone_are_fewer(smoke, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'ebomlc[plot]'")
    with pytest.warns(DataWarning, match="left out"):
        code, _ = bench("plot", smoke / "rows.csv", "--out", tmp_path / "plots")
    assert code == 0
    assert len(list((tmp_path / "plots").iterdir())) == 2


def test_failed_runs_end_with_one(tmp_path):
    tuned = tmp_path / "tuned.toml"
    tuned.write_text("[glc.training]\nepochs = 1\n")
    options = ("--methods", "glc", "--seeds", "0", "--tuned", tuned, "--out", tmp_path / "out")
    code, printed = bench("run", "smoke", *options)
    assert code == 1
    assert "1 of 1 runs failed; see" in printed
    assert "needs at least 2 epochs" in (tmp_path / "out" / "failures.csv").read_text()


@pytest.mark.slow
def test_the_whole_smoke_suite_takes_less_than_three_minutes(tmp_path):
    started = time.monotonic()
    code, _ = bench("run", "smoke", "--jobs", "2", "--out", tmp_path)
    assert code == 0
    code, printed = bench("table", tmp_path)
    assert code == 0
    assert time.monotonic() - started < 180
    lines = [line.split()[0] for line in printed.split("\n\n")[1].splitlines()[2:]]
    assert set(lines) == {"ce", "trusted-only", "glc", "mlc", "ebomlc", "plus"}
    assert lines[-1] == "ce", "wrong labels hurt plain training most"


def test_time_that_is_up_is_said(tmp_path):
    code, printed = bench(*RUN, "--minutes", "1e-9", "--out", tmp_path / "out")
    assert code == 0
    assert "time is up: 2 of 2 runs are left; the same command continues" in printed


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "suite": (("run", "smke", "--out", "out"), "unknown suite 'smke': did you mean 'smoke'"),
    "method": (("run", "smoke", "--methods", "ebmlc", "--out", "out"), "did you mean 'ebomlc'?"),
    "two methods": (("run", "smoke", "--methods", "glk,mcl", "--out", "out"), "unknown method 'mcl'"),
    "no method": (("run", "smoke", "--methods", " , ", "--out", "out"), "--methods is empty"),
    "seeds": (("run", "smoke", "--seeds", "0,one", "--out", "out"), "--seeds is '0,one': give whole numbers"),
    "noise": (("run", "smoke", "--noise", "flip:0.3", "--out", "out"), "unknown noise 'flip:0.3'"),
    "seed below 0": (("run", "smoke", "--seeds=-1", "--out", "out"), "--seed is -1"),
    "jobs": (("run", "smoke", "--jobs", "0", "--out", "out"), "--jobs is 0"),
    "data": (("run", "desk-cifar", "--out", "out"), "suite desk-cifar cannot run, and nothing was started: cifar10"),
    "all data": (("run", "paper", "--data-dir", ".", "--out", "out"), "cifar100 is not in"),
    "tuned": (("run", "smoke", "--tuned", "gone.toml", "--out", "out"), "gone.toml: cannot be read"),
    "file": (("run", "smoke", "--out", "file"), "file is a file"),
    "folder": (("run", "smoke", "--out", "full"), "full is not empty and holds no benchmark"),
    "no rows": (("table", "gone"), "gone: no rows of a benchmark"),
    "no rows to draw": (("plot", "full"), "rows.csv: no rows of a benchmark"),
    "other rows": (("table", "file"), "its columns are those of another version"),
    "nothing finished": (("plot", "empty.csv"), "empty.csv: no run is finished yet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_nothing_is_written(case, tmp_path, monkeypatch, smoke):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a,b\n1,2\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    pd.read_csv(smoke / "rows.csv").head(0).to_csv("empty.csv", index=False)
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD[case]
    with pytest.raises(InputError) as caught:
        bench(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_that_cannot_be_written_is_refused(smoke, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        bench("table", smoke, "--out", tmp_path / "no" / "folder.txt")
