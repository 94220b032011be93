"""The command line from end to end: good runs, every bad input, and what is only warned about."""

import html
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ebomlc.cli.main import main
from ebomlc.data.splits import split_hash
from ebomlc.records import Split
from ebomlc.training.trackers import CsvTracker
from ebomlc.version import __version__

SHARED = Path(__file__).parents[3] / "shared" / "data"
QUICK = ("--epochs", "1", "--method", "trusted-only")

FILES = {
    "noisy.csv": "id,x,y,label\n" + "".join(f"n{k},{k},{k * k % 17},{'pq'[k % 2]}\n" for k in range(40)),
    "trusted.csv": "id,x,y,label\n" + "".join(f"t{k},{k},{k * k % 17},{'pq'[k % 2]}\n" for k in range(10)),
    "texts.csv": "id,text,label\n" + "".join(f"n{k},{('wuta', 'ruwa')[k % 2]} {k},{'pq'[k % 2]}\n" for k in range(9)),
    "empty.csv": "",
    "header.csv": "id,x,y,label\n",
    "image.csv": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "nul.csv": b"id,x,label\na,1\x00,b\n",
    "latin.csv": "id,x,y,label\na,1,2,café\n".encode("latin-1"),
    "longer.csv": "id,x,y,label\na,1,2,p\nb,1,2,q,7\n",
    "shorter.csv": "id,x,y,label\na,1,2,p\nb,1\n",
    "double.csv": "id,x,x,label\na,1,2,p\n",
    "one.csv": "id,x,y,label\na,1,2,p\nb,2,3,p\n",
    "one_trusted.csv": "id,x,y,label\nt1,1,2,p\nt2,2,3,p\n",
    "one_each.csv": "id,x,y,label\nt1,1,2,p\nt2,2,3,q\n",
    "repeated.csv": "id,x,y,label\na,1,2,p\nb,2,3,q\na,2,3,p\n",
    "unlabelled.csv": "id,x,y,label\na,1,2,p\nb,2,3,\n",
    "no_label.csv": "id,x,y,lable\na,1,2,p\n",
    "other_class.csv": "id,x,y,label\na,1,2,p\nb,1,2,r\n",
    "other_columns.csv": "id,x,label\na,1,p\n",
    "words.csv": "id,x,y,label\na,1,2,p\nb,few,2,q\n",
    "unchecked.csv": "id,x,y,label,seen\n" + "".join(f"n{k},{k},{k % 7},{'pq'[k % 2]},\n" for k in range(40)),
    "twice.csv": "id,x,y,label\nt1,1,2,p\nt2,2,3,q\nt1,1,2,q\n",
    "spelt.csv": "id,x,y,label\n" + "".join(f"n{k},{k},{k % 7},{'pqP'[k % 3]}\n" for k in range(40)),
    "paper.pdf": b"%PDF-1.7",
    "broken.jsonl": '{"id": "a", "x": 1, "label": "p"}\n{"id": "b", \n',
    "broken.parquet": b"PAR1 and nothing more",
    "alone.npy": b"\x93NUMPY",
    "photos/p/1.png": b"%PDF-1.7",
    "photos/q/1.png": b"%PDF-1.7",
    "photos.csv": "id,label\np/1.png,p\nq/1.png,q\n",
    "paths.csv": "id,path,label\na,gone.png,p\nb,gone2.png,q\n",
    "broken.toml": "a = = b",
    "unknown.toml": "[training]\nepohcs = 3\n",
    "file": "not a folder",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with the files above."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ebomlc(monkeypatch, capsys):
    """Run the command line in this process: exit code, what it printed, what it complained about."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebomlc", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err  # type: ignore[return-value]

    return run


def fit_own(*options: str) -> list[str]:
    return ["fit", "noisy.csv", "--trusted", "trusted.csv", *QUICK, "--out", "run", *options]


# --- good runs --------------------------------------------------------------------------------------------------------


def shared_fit(name: str, *options: str) -> list[str]:
    data = SHARED / name
    if not data.is_dir():
        pytest.skip(f"real data not found: {data}")
    files = [f"--{role}={data / role}.csv" for role in ("trusted", "test", "truth")]
    return ["fit", str(data / "noisy.csv"), *files, "--out", "run", *options]


def test_a_run_on_derby_writes_what_it_says(ebomlc):
    code, printed, complaints = ebomlc(*shared_fit("derby", "--epochs", "3"))
    assert (code, complaints) == (0, "")
    for phrase in ("1,763 noisy rows", "2 classes", "right labels on the noisy rows: given 71.6%", "written to run"):
        assert phrase in printed

    noisy, trusted = (
        pd.read_csv(SHARED / "derby" / f"{name}.csv", dtype=str).set_index("id") for name in ("noisy", "trusted")
    )
    labels = pd.read_parquet("run/labels.parquet").set_index("id")
    assert set(labels.index) == {*noisy.index, *trusted.index}
    assert labels.given_label[noisy.index].tolist() == noisy.label.tolist()
    assert labels.given_label[trusted.index].tolist() == trusted.given_label.tolist()
    assert labels.suggested_label[trusted.index].tolist() == trusted.label.tolist()
    assert labels.is_trusted[labels.is_trusted].index.tolist() == trusted.index.tolist()
    assert labels.label_quality.between(0, 1).all()

    summary = json.loads(Path("run/summary.json").read_text(encoding="utf-8"))
    assert (summary["n_noisy"], summary["n_trusted"], summary["n_heldout"], summary["n_classes"]) == (1763, 200, 10, 2)
    assert summary["given_label_accuracy"] == pytest.approx(1 - summary["measured_noise"])
    assert 0 <= summary["test_balanced_accuracy"] <= 1
    with np.load("run/split.npz", allow_pickle=False) as stored:
        split = Split(*(stored[part] for part in ("noisy", "trusted", "heldout")))
        assert stored["ids"].tolist() == labels.index.tolist()
    assert split_hash(split) == summary["split_sha256"]
    assert len(pd.read_csv("run/metrics.csv")) == summary["epochs"] == 3


def test_a_run_on_hausa_in_a_process_of_its_own(folder):
    done = subprocess.run(
        [sys.executable, "-m", "ebomlc", *shared_fit("hausa", "--text=text", "--epochs=3")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "measured noise: 50.4% of the given labels are wrong" in done.stdout
    assert len(pd.read_parquet(folder / "run" / "labels.parquet")) == 2045


def test_ids_and_classes_come_out_as_they_went_in(ebomlc, folder):
    given = {"007": "None", "NA": "1e3", "1e3": "NA", "None": "007", "a/ä b": "NA"}
    rows = "".join(f"{row},{k},{label}\n" for k, (row, label) in enumerate(given.items()))
    checked = "".join(f"{label}{k},{k},{label}\n" for k in range(3) for label in ("None", "1e3", "NA", "007"))
    (folder / "strange.csv").write_text("id,x,label\n" + rows, encoding="utf-8")
    (folder / "checked.csv").write_text("id,x,label\n" + checked, encoding="utf-8")
    code, _, complaints = ebomlc("fit", "strange.csv", "--trusted", "checked.csv", *QUICK, "--out", "run")
    assert code == 0, complaints
    labels = pd.read_parquet("run/labels.parquet")
    assert dict(zip(labels.id[:5], labels.given_label[:5], strict=True)) == given
    assert set(labels.suggested_label) <= {"None", "1e3", "NA", "007"}
    assert labels.suggested_label[5:].tolist() == ["None", "1e3", "NA", "007"] * 3


def test_the_configuration_of_a_run_gives_the_same_table(ebomlc):
    assert ebomlc(*fit_own("--seed", "3"))[0] == 0
    assert ebomlc("fit", "--config", "run/config.toml", "--out", "again")[0] == 0
    first, again = (pd.read_parquet(f"{name}/labels.parquet") for name in ("run", "again"))
    pd.testing.assert_frame_equal(first, again)


def test_an_option_comes_before_the_configuration(ebomlc):
    assert ebomlc(*fit_own())[0] == 0
    assert ebomlc("fit", "--config", "run/config.toml", "--epochs", "2", "--out", "again")[0] == 0
    assert len(pd.read_csv("again/metrics.csv")) == 2


def test_a_run_is_replaced_when_asked(ebomlc):
    assert ebomlc(*fit_own("--seed", "3"))[0] == 0
    Path("run/mine.txt").write_text("not of the run")
    code, _, complaints = ebomlc(*fit_own("--seed", "4"))
    assert (code, complaints) == (
        2,
        "error: run already holds a run; choose another folder, or replace it with --overwrite\n",
    )
    assert json.loads(Path("run/summary.json").read_text())["seed"] == 3
    assert ebomlc(*fit_own("--seed", "4", "--overwrite"))[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["seed"] == 4
    assert Path("run/mine.txt").read_text() == "not of the run"


def test_a_run_stays_until_the_next_one_is_whole(ebomlc, monkeypatch):
    assert ebomlc(*fit_own("--seed", "3"))[0] == 0
    monkeypatch.setattr("ebomlc.training.engine.learning_rate", lambda config, progress: 1e30)
    assert ebomlc(*fit_own("--seed", "4", "--overwrite"))[0] == 3
    assert json.loads(Path("run/summary.json").read_text())["seed"] == 3
    assert not list(Path().glob(".*partial"))


def test_a_folder_with_somebodys_configuration_is_no_run(ebomlc):
    Path("config.toml").write_text("seed = 1\n")
    code, _, complaints = ebomlc(*fit_own("--config", "config.toml", "--overwrite", "--out", "."))
    assert code == 2
    assert "holds no run" in complaints
    assert Path("noisy.csv").exists()


def test_options_come_before_the_configuration(ebomlc):
    assert ebomlc(*fit_own())[0] == 0
    code, _, complaints = ebomlc("fit", "--config", "run/config.toml", "--method", "ce", "--out", "other")
    assert (code, complaints) == (0, "")
    assert json.loads(Path("other/summary.json").read_text())["method"] == "ce"


def test_a_built_in_set_is_not_trusted_to_itself(ebomlc):
    code, _, complaints = ebomlc("fit", "digits", "--noise", "flip:0.4", "--trusted", "digits", "--out", "run")
    assert code == 2
    assert "would train on its test rows" in complaints


def test_an_empty_folder_is_filled(ebomlc):
    assert ebomlc(*fit_own("--out", "nothing"))[0] == 0
    assert Path("nothing/summary.json").exists()


# --- bad input --------------------------------------------------------------------------------------------------------

TRUSTED = ("--trusted", "trusted.csv")
DIGITS = ("digits", "--n-trusted", "50")

BAD = {
    "missing file": (["nosy.csv", *TRUSTED], "nosy.csv: no such file; did you mean 'noisy.csv'?"),
    "missing trusted file": (["noisy.csv", "--trusted", "t.csv"], "t.csv: no such file"),
    "missing test file": (["noisy.csv", *TRUSTED, "--test", "t.csv"], "t.csv: no such file"),
    "missing truth file": (["noisy.csv", *TRUSTED, "--truth", "t.csv"], "t.csv: no such file"),
    "unknown set": (["digit", *TRUSTED], "unknown data set 'digit': did you mean 'digits'?"),
    "no set": ([*TRUSTED], "no noisy set: give a file"),
    "missing id column": (["noisy.csv", *TRUSTED, "--id", "ident"], "noisy.csv: unknown column 'ident'"),
    "missing label column": (["no_label.csv", *TRUSTED], "no_label.csv: unknown column 'label': did you mean 'lable'?"),
    "missing text column": (["texts.csv", *TRUSTED, "--text", "txt"], "'txt': did you mean 'text'?"),
    "missing feature": (["noisy.csv", *TRUSTED, "--features", "z"], "noisy.csv: unknown column 'z': known: id, label"),
    "empty file": (["empty.csv", *TRUSTED], "empty.csv: the file is empty"),
    "header only": (["header.csv", *TRUSTED], "header.csv: a header but no rows"),
    "image": (["image.csv", *TRUSTED], "image.csv: line 1 is not text in UTF-8; if this is a table, save it again"),
    "folder": (["nothing", *TRUSTED], "nothing: no image in this folder; one sub-folder for each class is needed"),
    "folder named like a file": (["folder.csv", *TRUSTED], "folder.csv: no image in this folder"),
    "NUL bytes": (["nul.csv", *TRUSTED], "nul.csv: line 2 holds NUL bytes"),
    "encoding": (["latin.csv", *TRUSTED], "latin.csv: line 2 is not text in UTF-8"),
    "longer row": (["longer.csv", *TRUSTED], "longer.csv: row 3 (the header is row 1) has 5 cells"),
    "shorter row": (["shorter.csv", *TRUSTED], "shorter.csv: row 3 (the header is row 1) has 2 cells"),
    "double header": (["double.csv", *TRUSTED], "double.csv: column 'x' stands in the header more than once"),
    "one class": (["one.csv", "--trusted", "one_trusted.csv"], "one.csv and one_trusted.csv: only one class occurs"),
    "no trusted rows": (["noisy.csv"], "no trusted rows: give a file of checked rows with --trusted FILE"),
    "no rows to draw": (["noisy.csv", "--n-trusted", "5"], "give --truth FILE, or --trusted FILE"),
    "empty trusted file": (["noisy.csv", "--trusted", "header.csv"], "header.csv: a header but no rows"),
    "no row drawn": (["digits", "--n-trusted", "0"], "--n-trusted is 0"),
    "one row drawn": (["digits", "--n-trusted", "1"], "no class has two trusted rows (1 in all)"),
    "too many drawn": (["digits", "--n-trusted", "1347"], "but only 1347 rows have a known right label"),
    "one trusted row a class": (["noisy.csv", "--trusted", "one_each.csv"], "one_each.csv: no class has two trusted"),
    "repeated ids": (["repeated.csv", *TRUSTED], "repeated.csv: id 'a' is repeated in rows 2, 4 (the header"),
    "empty label": (["unlabelled.csv", *TRUSTED], "unlabelled.csv: the label in row 3 (the header is row 1) is empty"),
    "method": (["noisy.csv", *TRUSTED, "--method", "ebmlc"], "unknown method 'ebmlc': did you mean 'ebomlc'?"),
    "model": (["noisy.csv", *TRUSTED, "--model", "resnet21"], "unknown model 'resnet21': did you mean 'resnet20'?"),
    "noise": ([*DIGITS, "--noise", "flp:0.4"], "unknown noise model 'flp': did you mean 'flip'?"),
    "noise above 1": ([*DIGITS, "--noise", "flip:1.4"], "takes a rate from 0 to 1, got 1.4"),
    "noise below 0": ([*DIGITS, "--noise", "flip:-0.1"], "takes a rate from 0 to 1, got -0.1"),
    "human labels": ([*DIGITS, "--noise", "human:worse"], "this data set came without"),
    "no epoch": (["noisy.csv", *TRUSTED, "--epochs", "0"], "--epochs is 0"),
    "seed": (["noisy.csv", *TRUSTED, "--seed=-1"], "--seed is -1"),
    "two kinds of trusted rows": (["noisy.csv", *TRUSTED, "--n-trusted", "5"], "exclude each other"),
    "two kinds of inputs": (
        ["noisy.csv", *TRUSTED, "--text", "x", "--image", "y"],
        "--image excludes --text and --features",
    ),
    "column twice": (["noisy.csv", *TRUSTED, "--features", "x", "--features", "x"], "column 'x' is named twice"),
    "checked and drawn": (["noisy.csv", "--checked", "y", "--n-trusted", "5"], "--checked and --n-trusted exclude"),
    "missing checked column": (["noisy.csv", "--checked", "z"], "noisy.csv: unknown column 'z'"),
    "nothing checked": (["unchecked.csv", "--checked", "seen"], "column 'seen' is empty in every row: check some rows"),
    "checked is the label": (["noisy.csv", "--checked", "label"], "--checked and --label both name column 'label'"),
    "contradicting checks": (
        ["noisy.csv", "--trusted", "twice.csv"],
        "twice.csv: id 't1' was checked twice and got 'p' in row 2",
    ),
    "spelling": (["spelt.csv", *TRUSTED], "labels differ only by case or blanks ('p', 'P'): are they the same?"),
    "overlap": (["noisy.csv", *TRUSTED, "--test", "noisy.csv"], "40 test rows also occur in the training rows"),
    "an empty column": (["noisy.csv", *TRUSTED, "--features", "empty"], "noisy.csv: unknown column 'empty'"),
    "a column without content": (
        ["unchecked.csv", *TRUSTED, "--features", "seen"],
        "column 'seen' cannot be used: empty in every row",
    ),
    "not a table": (["paper.pdf", *TRUSTED], "paper.pdf: this kind of file cannot be read"),
    "broken lines": (["broken.jsonl", *TRUSTED], "broken.jsonl: line 2"),
    "no Parquet": (["broken.parquet", *TRUSTED], "broken.parquet: "),
    "embeddings without a table": (["alone.npy", *TRUSTED], "alone.npy: no table beside it says what its rows are"),
    "PDF among images": (["photos", "--trusted", "photos.csv"], "is a PDF document, not an image"),
    "missing images": (["paths.csv", "--image", "path", "--trusted", "photos.csv"], "paths.csv"),
    "image column of a folder": (
        ["photos", "--trusted", "photos.csv", "--on-bad-input", "skp"],
        "did you mean 'skip'?",
    ),
    "encoder": (["noisy.csv", *TRUSTED, "--encoder", "efficientnet"], "unknown encoder 'efficientnet'"),
    "encoder of another kind": (["noisy.csv", *TRUSTED, "--encoder", "pixels"], "does not read tables"),
    "image size": (["noisy.csv", *TRUSTED, "--image-size", "4"], "--image-size is 4: must be from 8 to 1024 pixels"),
    "missing configuration": (["noisy.csv", "--config", "c.toml"], "c.toml: cannot be read: No such file"),
    "broken configuration": (["noisy.csv", "--config", "broken.toml"], "broken.toml: not a TOML file"),
    "unknown key": (["noisy.csv", "--config", "unknown.toml"], "[training] of unknown.toml: unknown key 'epohcs'"),
    "cifar10 nowhere": (["cifar10", "--n-trusted", "50"], "cifar10 needs --data-dir DIR"),
    "cifar10 not there": (["cifar10", "--n-trusted", "50", "--data-dir", "nothing"], "data_batch_1"),
    "unknown test label": (
        ["noisy.csv", *TRUSTED, "--test", "other_class.csv"],
        "other_class.csv: the row with id 'b' has the label 'r'",
    ),
    "test column": (["noisy.csv", *TRUSTED, "--test", "other_columns.csv"], "other_columns.csv: unknown column 'y'"),
    "trusted column": (["noisy.csv", "--trusted", "other_columns.csv"], "other_columns.csv: unknown column 'y'"),
    "words for numbers": (
        ["noisy.csv", "--trusted", "words.csv"],
        "words.csv: column 'x' holds numbers in noisy.csv, but 'few' stands in row 3",
    ),
    "image model on numbers": (["noisy.csv", *TRUSTED, "--model", "cnn"], "model 'cnn' needs images"),
    "image model on text": (
        ["texts.csv", "--trusted", "texts2.csv", "--text", "text", "--model", "resnet20"],
        "model 'resnet20' needs images",
    ),
    "on failure": (["noisy.csv", *TRUSTED, "--on-failure", "kep"], "unknown --on-failure 'kep': did you mean 'keep'?"),
    "device": (["noisy.csv", *TRUSTED, "--device", "tpu"], "unknown device 'tpu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_nothing_is_written(ebomlc, folder, case):
    (folder / "texts2.csv").write_text(FILES["texts.csv"].replace("\nn", "\nt"))
    before = sorted(folder.rglob("*"))
    arguments, message = BAD[case]
    code, printed, complaints = ebomlc("fit", *arguments, "--out", "run")
    assert complaints.startswith("error: ")
    assert complaints.endswith("\n")
    assert complaints.count("\n") == 1
    assert message in complaints
    assert (code, printed) == (2, "")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("case", ["image", "method"])
def test_a_process_ends_with_two(case):
    done = subprocess.run(
        [sys.executable, "-m", "ebomlc", "fit", *BAD[case][0], "--out", "run"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert BAD[case][1] in done.stderr


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "file is a file; --out names a folder to make"),
        ("file/run", "cannot be written: "),
        ("folder", "folder is not empty and holds no run; choose another folder"),
    ],
)
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_nothing_but_a_run_is_ever_replaced(ebomlc, folder, out, message, overwrite):
    (folder / "folder").mkdir()
    (folder / "folder" / "mine.txt").write_text("precious")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, complaints = ebomlc(*fit_own("--out", out, *overwrite))
    assert code == 2
    assert complaints.startswith("error: ")
    assert complaints.count("\n") == 1
    assert message in complaints
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_option_nobody_knows_ends_with_two(ebomlc):
    code, _, complaints = ebomlc(*fit_own("--epoch", "3"))
    assert code == 2
    assert "--epochs" in complaints
    assert not Path("run").exists()


def test_epochs_must_be_a_number(ebomlc):
    code, _, complaints = ebomlc(*fit_own("--epochs", "many"))
    assert code == 2
    assert "Invalid value for '--epochs'" in complaints


# --- a loss that is no number -----------------------------------------------------------------------------------------


@pytest.fixture
def diverging(monkeypatch):
    """A command whose training diverges after two of four epochs."""
    monkeypatch.setattr(
        "ebomlc.training.engine.learning_rate", lambda config, progress: 0.1 if progress < 0.5 else 1e30
    )
    return ["fit", "noisy.csv", *TRUSTED, "--method", "ce", "--epochs", "4", "--out", "run"]


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize(("asked", "code"), [((), 3), (("--on-failure=stop",), 3), (("--on-failure=keep",), 0)])
def test_a_training_that_diverged_keeps_the_last_good_epoch(ebomlc, diverging, asked, code):
    left, printed, complaints = ebomlc(*diverging, *asked)
    assert left == code
    assert "written to run" in printed
    said = complaints.splitlines()
    assert said[0].startswith("warning: loss or weights became NaN or infinite at step ")
    assert "learning rate" in said[0]
    assert said[0].endswith("the last good epoch was kept")
    assert [line.partition(";")[0] for line in said[1:]] == ["error: the training diverged"] * (code == 3)
    assert json.loads(Path("run/summary.json").read_text())["chosen_epoch"] == 2
    assert "The training diverged: loss" in Path("run/report.html").read_text(encoding="utf-8")
    table = pd.read_parquet("run/labels.parquet")
    assert len(table) == 50
    assert table["suggestion_confidence"].notna().all()


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
def test_a_finished_run_that_diverged_ends_as_it_is_asked_now(ebomlc, diverging):
    assert ebomlc(*diverging)[0] == 3
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert ebomlc(*diverging, "--resume")[0] == 3
    code, printed, complaints = ebomlc(*diverging, "--resume", "--on-failure", "keep")
    assert (code, complaints) == (0, "")
    assert "left as it is" in printed
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize(("asked", "code"), [((), 0), (("--on-failure=stop",), 3), (("--on-failure=keep",), 0)])
def test_a_training_with_symptoms_counts_as_failed_where_that_is_asked(ebomlc, folder, asked, code):
    (folder / "wild.toml").write_text("[method]\nname = 'ebomlc'\nsettings = { xi = 1e4 }\n")
    command = ["fit", "digits", "--noise=flip:0.4", "--n-trusted=100", "--n-noisy=300", "--epochs=2"]
    left, _, complaints = ebomlc(*command, "--folds=0", "--config=wild.toml", "--out=run", *asked)
    assert left == code
    said = [line for line in complaints.splitlines() if "barrier" in line]
    assert said[0].startswith("warning: the barrier's coefficient was ")
    assert [line.partition(";")[0] for line in said[1:]] == ["error: the training has symptoms: barrier"] * (code == 3)
    assert "Something went wrong: the barrier" in html.unescape(Path("run/report.html").read_text(encoding="utf-8"))
    assert len(pd.read_parquet("run/labels.parquet")) == 400


def test_a_loss_that_is_no_number_in_the_first_epoch_leaves_nothing(ebomlc, folder):
    (folder / "fast.toml").write_text("[training]\nlr = 1e30\nepochs = 5\nbatch_size = 4\n")
    command = ["fit", "noisy.csv", *TRUSTED, "--method", "ce", "--config", "fast.toml", "--out", "run"]
    code, _, complaints = ebomlc(*command)
    assert code == 3
    assert complaints.startswith("error: loss or weights became NaN or infinite at step ")
    assert complaints.count("\n") == 1
    assert not Path("run").exists()


# --- warned about and gone on with ------------------------------------------------------------------------------------

WARNED = {
    "class without trusted rows": ("r9,1,1,r\n", "", "warning: no trusted row of class 'r' (1 row)"),
    "class in the trusted set only": ("", "r9,1,1,r\n", "warning: no noisy row of class 'r' (1 row)"),
}


@pytest.mark.filterwarnings("default::ebomlc.errors.DataWarning")
@pytest.mark.parametrize("case", WARNED)
def test_a_class_in_one_set_only_is_warned_about(ebomlc, folder, case):
    noisy, trusted, message = WARNED[case]
    (folder / "noisy.csv").write_text(str(FILES["noisy.csv"]) + noisy)
    (folder / "trusted.csv").write_text(str(FILES["trusted.csv"]) + trusted)
    code, _, complaints = ebomlc(*fit_own())
    assert code == 0
    assert complaints.count(message) == 1
    assert "error" not in complaints
    assert len(pd.read_parquet("run/labels.parquet")) == 51


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_option(ebomlc, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, printed, _ = ebomlc("fit", "--help")
    assert code == 0
    for option in ("--checked", "--image", "--encoder", "--on-bad-input", "--normalise-labels", "--balance"):
        assert option in printed
    for option in ("--trusted", "--n-trusted", "--test", "--truth", "--id", "--label", "--text", "--features"):
        assert option in printed
    for option in ("--noise", "--method", "--model", "--epochs", "--seed", "--data-dir", "--config", "--overwrite"):
        assert option in printed


def test_the_version_is_the_packages(ebomlc):
    assert ebomlc("--version")[:2] == (0, f"ebomlc {__version__}\n")


# --- broken off and continued -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_can_be_continued(ebomlc, monkeypatch, number, code):
    before = signal.getsignal(signal.SIGTERM)
    options = ("--epochs", "3", "--method", "ce", "--resume")
    log = CsvTracker.log

    def told(self, row):
        log(self, row)
        if row["epoch"] == 2:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(CsvTracker, "log", told)
        left, _, complaints = ebomlc(*fit_own(*options))
    assert left == code
    assert "--resume goes on from here" in complaints
    left, _, complaints = ebomlc(*fit_own("--epochs", "3", "--method", "ce"))
    assert left == 2
    assert "run holds a run that was not finished" in complaints
    assert "--resume" in complaints
    assert ebomlc(*fit_own(*options))[0] == 0
    assert len(json.loads(Path("run/summary.json").read_text())["resumed_at"]) == 1
    assert pd.read_csv("run/metrics.csv")["epoch"].tolist() == [1, 2, 3]
    left, printed, _ = ebomlc(*fit_own(*options))
    assert left == 0
    assert "it is left as it is" in printed
    signal.signal(signal.SIGTERM, before)
