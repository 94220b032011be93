"""``ebomlc sample`` from end to end: what is written, what is said, and every bad input."""

import csv
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from sklearn.datasets import load_wine
from typer.testing import CliRunner

from ebomlc.cli.sample import RANDOM, sample
from ebomlc.config import DataConfig
from ebomlc.data import readers
from ebomlc.data.columns import Columns
from ebomlc.data.pool import load_pool
from ebomlc.data.readers import Reading, read_source
from ebomlc.data.tables import TABLE_SUFFIXES, read_table
from ebomlc.errors import DataWarning, InputError
from ebomlc.records import CHECKED_COLUMN as CHECKED
from ebomlc.records import PROVENANCE_COLUMN as PROVENANCE
from ebomlc.records import WEIGHT_COLUMN as WEIGHT

SHARED = Path(__file__).parents[3] / "shared" / "data"

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(sample)

STRANGE = (
    "=1+2",
    "+49 30",
    "-x",
    "@home",
    "\ttab",
    "\rreturn",
    "two\nlines",
    "both\r\nends",
    'a "quote", and a comma',
    " blank ",
    "'",
    "Kur'arsa Ƙasa 猫",
    "NA",
    "None",
    "1e3",
    "007",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wine() -> Path:
    """178 real rows of three classes, the ids being w0, w1, ..."""
    frame = load_wine(as_frame=True).frame
    frame.insert(0, "id", [f"w{row}" for row in range(len(frame))])
    frame["label"] = [("Barolo", "Grignolino", "Barbera")[k] for k in frame.pop("target")]
    frame.to_csv("wine.csv", index=False)
    return Path("wine.csv")


def run(*arguments: object) -> str:
    """What is printed, where all goes well; else what went wrong is raised."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def read_strings(path: str | Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_rows_come_with_all_their_columns(wine):
    run(wine, "-n", 40, "--out", "to_check.csv")
    noisy, drawn = read_strings(wine), read_strings("to_check.csv")
    assert drawn.columns.tolist() == [*noisy.columns, CHECKED, PROVENANCE, WEIGHT]
    assert drawn.id.is_unique
    pd.testing.assert_frame_equal(
        drawn[noisy.columns], noisy.set_index("id").loc[drawn.id].reset_index()[noisy.columns]
    )
    assert set(drawn[CHECKED]) == {""}
    assert set(drawn[PROVENANCE]) == {RANDOM}
    assert drawn[WEIGHT].astype(float).unique().tolist() == [178 / 40]
    assert not list(Path().glob(".*"))


def test_a_table_with_decimal_commas_comes_back_as_it_was(wine):
    frame = pd.read_csv(wine)
    frame.to_csv("wein.csv", index=False, sep=";", decimal=",")
    run("wein.csv", "-n", 40, "--stratify", "--out", "zu_pruefen.csv")
    sample = pd.read_csv("zu_pruefen.csv", sep=";", decimal=",", dtype={CHECKED: str})
    sample[CHECKED] = sample["label"]
    sample.to_csv("zu_pruefen.csv", index=False, sep=";", decimal=",")
    pool = load_pool(DataConfig("wein.csv", trusted="zu_pruefen.csv"), 0)
    assert len(pool.checked) == 40
    assert (len(pool.ids), len(pool.inputs.columns)) == (178, 13)
    np.testing.assert_array_equal(pool.inputs.numbers(), frame.drop(columns=["id", "label"]).to_numpy(float))
    assert np.nansum(pool.weights) == pytest.approx(178)


def test_the_order_is_random(wine):
    run(wine, "-n", 178, "--out", "all.csv")
    rows = read_strings("all.csv").id.str[1:].astype(int)
    assert sorted(rows) == list(range(178))
    assert abs(np.corrcoef(rows, np.arange(178))[0, 1]) < 0.3


def test_the_seed_decides_the_rows(wine):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(wine, "-n", 20, "--out", f"{name}.csv", "--seed", seed)
    first, again, other = (Path(f"{name}.csv").read_bytes() for name in "abc")
    assert first == again != other


def test_a_stratified_draw_takes_every_label(wine):
    frame = read_strings(wine)
    frame.loc[[3, 30, 170], "label"] = "Freisa"
    frame.to_csv("rare.csv", index=False)
    run("rare.csv", "-n", 30, "--stratify", "--out", "to_check.csv")
    drawn = read_strings("to_check.csv")
    counts, sizes = drawn.label.value_counts(), frame.label.value_counts()
    assert counts["Freisa"] == 2
    assert drawn[WEIGHT].astype(float).tolist() == pytest.approx([sizes[name] / counts[name] for name in drawn.label])


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_texts_come_out_as_they_went_in(suffix):
    rows = [{"name": f"r/{k}", "text": text, "label": STRANGE[k % 16 - 5]} for k, text in enumerate(2 * STRANGE)]
    Path("noisy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run("noisy.jsonl", "-n", 32, "--id", "name", "--out", f"one{suffix}", "--stratify")
    # a second time, from the file that was just written, without what it says of the first draw
    again = read_table(Path(f"one{suffix}")).frame.drop(columns=[PROVENANCE, WEIGHT])
    again.to_parquet("again.parquet", index=False)
    run("again.parquet", "-n", 32, "--id", "name", "--out", f"two{suffix}")
    for name in ("one", "two"):
        found = read_table(Path(f"{name}{suffix}")).frame
        assert {row.name: (row.text, row.label) for row in found.itertuples(index=False)} == {
            row["name"]: (row["text"], row["label"]) for row in rows
        }


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
def test_numbers_and_empty_cells_come_out_as_they_went_in(suffix):
    frame = pd.DataFrame(
        {
            "id": [2**60 + k for k in range(4)],
            "x": [0.1 + 0.2, 1e-300, np.nan, 3.0],
            "when": pd.to_datetime(["2024-02-29"] * 4),
            "label": [1, 2, 1, 2],
        }
    )
    frame.to_parquet("noisy.parquet")
    run("noisy.parquet", "-n", 4, "--out", f"out{suffix}")
    found = read_table(Path(f"out{suffix}")).frame.sort_values("id").reset_index(drop=True)
    assert [int(cell) for cell in found.id] == frame.id.tolist()
    np.testing.assert_array_equal(pd.to_numeric(found.x.replace("", np.nan)), frame.x)
    assert [int(cell) for cell in found.label] == [1, 2, 1, 2]
    assert pd.to_datetime(found.when).tolist() == frame.when.tolist()


def test_lists_stay_lists_in_json_lines():
    pd.DataFrame({"x": [[1.5, 2.0], [3.0]], "label": ["p", "q"]}).to_parquet("noisy.parquet")
    with pytest.warns(DataWarning):
        run("noisy.parquet", "-n", 2, "--out", "out.jsonl")
    found = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["id"]: row["x"] for row in found} == {"1": [1.5, 2.0], "2": [3.0]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("noisy.csv", "x,label\n" + "\n" + "".join(f"{k},{'pq'[k % 2]}\n\n" for k in range(9))),
        ("noisy.jsonl", "\n" + "".join(f'{{"x": {k}, "label": "{"pq"[k % 2]}"}}\n\n' for k in range(9))),
    ],
)
def test_without_an_id_column_the_id_is_the_readers_row_number(name, content):
    Path(name).write_text(content, encoding="utf-8")
    run(name, "-n", 6, "--out", "to_check.csv")
    drawn = read_strings("to_check.csv")
    assert drawn.columns[0] == "id"
    source = read_source(name, Reading(Columns()), labels_only=True)
    assert not source.has_ids
    assert (
        dict(zip(drawn.id, drawn.x.astype(int), strict=True)).items()
        <= dict(zip(source.ids, range(9), strict=True)).items()
    )


def test_the_file_is_read_as_checked_rows(wine):
    run(wine, "-n", 12, "--out", "to_check.csv")
    drawn = read_strings("to_check.csv")
    drawn.loc[:4, CHECKED] = "Barbera"
    drawn.to_csv("to_check.csv", index=False)
    source = read_source("to_check.csv", Reading(Columns()), labels_only=True)
    assert source.ids.tolist() == drawn.id.tolist()
    assert source.checked.tolist() == ["Barbera"] * 5 + [None] * 7
    assert set(source.provenance) == {RANDOM}
    assert source.weights.tolist() == pytest.approx([178 / 12] * 12)


def test_the_words_are_those_of_the_reader():
    assert (CHECKED, PROVENANCE, WEIGHT) == (
        readers.CHECKED_COLUMN,
        readers.PROVENANCE_COLUMN,
        readers.WEIGHT_COLUMN,
    )
    assert RANDOM in readers.PROVENANCES


def test_images_are_listed_by_their_files(folder):
    generator = np.random.default_rng(0)
    for name in ("cat", "a dog"):
        (folder / "pets" / name).mkdir(parents=True)
        for k in range(6):
            pixels = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{k}.png")
    printed = run("pets", "-n", 8, "--out", "to_check.csv")
    drawn = read_strings("to_check.csv")
    assert drawn.columns.tolist() == ["id", "label", "file", CHECKED, PROVENANCE, WEIGHT]
    assert len(drawn) == 8
    for row in drawn.itertuples():
        assert Path(str(row.file)).is_file()
        assert Path(str(row.file)) == Path("pets") / str(row.id)
        assert str(row.id).startswith(f"{row.label}/")
    assert "ebomlc fit pets --trusted to_check.csv" in printed


# --- rows that are left out -------------------------------------------------------------------------------------------

PART = "id,x,label,checked_label,seen\n" + "".join(
    f"n{k},{k},{'pq'[k % 2] if k != 11 else ' '},{'p' if k in (2, 3) else ''},{'q' if k in (3, 4) else ' '}\n"
    for k in range(12)
)


def test_checked_and_unlabelled_rows_are_left_out():
    Path("noisy.csv").write_text(PART)
    printed = run("noisy.csv", "-n", 9, "--out", "to_check.csv")
    assert set(read_strings("to_check.csv").id) == {f"n{k}" for k in range(11)} - {"n2", "n3"}
    assert "drew 9 of 9 rows at random (of 12, left out: 2 checked already, 1 without a label)" in printed
    assert "known exactly" in printed


def test_a_column_can_be_named_that_says_what_was_checked():
    Path("noisy.csv").write_text(PART)
    printed = run("noisy.csv", "-n", 8, "--out", "to_check.csv", "--checked", "seen")
    drawn = read_strings("to_check.csv")
    assert set(drawn.id) == {f"n{k}" for k in range(11)} - {"n2", "n3", "n4"}
    assert drawn.columns.tolist() == ["id", "x", "label", CHECKED, "seen", PROVENANCE, WEIGHT]
    assert set(drawn["seen"]) == {""}
    assert "right label of each row into its column seen," in printed
    assert "3 checked already" in printed
    assert "--checked seen" in printed.splitlines()[-1]


# --- what is said -----------------------------------------------------------------------------------------------------


def many(n: int) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([("x", "kind"), *((k, "pqr"[k % 3]) for k in range(n))])
    Path("my set.csv").write_text(text.getvalue(), encoding="utf-8")
    return Path("my set.csv")


def test_what_the_rows_tell_and_what_comes_next():
    printed = run(many(90_000), "--label", "kind", "--out", "to_check.csv").splitlines()
    assert printed[0] == "drew 300 of 90,000 rows at random; written to to_check.csv"
    assert printed[1] == (
        "300 random rows tell the share of wrong labels to about ±5.8 points (95 % interval, if half are wrong; "
        "±4.7 if 20 % are); 600 would give ±4.1"
    )
    assert printed[2].startswith("next: write the right label of each row into its column checked_label")
    assert shlex.split(printed[-1]) == [
        *("ebomlc", "fit", "my set.csv", "--trusted", "to_check.csv"),
        *("--label", "kind", "--out", "run"),
    ]


def test_a_small_set_is_known_better():
    printed = run(many(400), "--label", "kind", "--out", "to_check.csv")
    assert "to about ±2.9 points" in printed
    assert "all 400 would tell it exactly" in printed


def test_a_stratified_draw_says_what_its_weights_leave():
    printed = run(many(90_000), "--label", "kind", "--out", "to_check.csv", "--stratify")
    assert "±5.8 points" in printed
    frame = read_strings("my set.csv")
    frame["kind"] = np.where(frame.index < 89_000, "p", [f"rare {k % 100}" for k in range(90_000)])
    frame.to_csv("rare.csv", index=False)
    # 200 of the 300 rows go to the hundred rare kinds, so that the others tell little more than 100 rows would
    printed = run("rare.csv", "--label", "kind", "--out", "rare_to_check.csv", "--stratify")
    assert "±10.1 points" in printed


def test_the_news_of_hausa_are_drawn_from(folder):
    data = SHARED / "hausa"
    if not data.is_dir():
        pytest.skip(f"real data not found: {data}")
    printed = run(data / "one_file.csv", "-n", 100, "--stratify", "--out", "to_check.csv")
    noisy, drawn = read_table(data / "one_file.csv").frame.set_index("id"), read_table(Path("to_check.csv")).frame
    assert not (noisy.loc[drawn.id, "checked_label"] != "").any()
    assert drawn.text.tolist() == noisy.loc[drawn.id, "text"].tolist()
    assert "checked already" in printed


def test_few_rows_are_warned_about(wine):
    with pytest.warns(DataWarning, match="-n 5 is less than two rows for each of 3 classes"):
        run(wine, "-n", 5, "--out", "to_check.csv")
    assert len(read_strings("to_check.csv")) == 5


# --- bad input --------------------------------------------------------------------------------------------------------

FILES = {
    "noisy.csv": "id,x,label\n" + "".join(f"n{k},{k},{'pq'[k % 2]}\n" for k in range(40)),
    "header.csv": "id,x,label\n",
    "repeated.csv": "id,x,label\na,1,p\nb,2,q\na,3,q\n",
    "no_id.csv": "id,x,label\na,1,p\n,2,q\n",
    "suspects.csv": "id,x,label,provenance\na,1,p,\nb,2,q,suspect\n",
    "weighted.csv": "id,x,label,sampling_weight\na,1,p,\nb,2,q,3\n",
    "done.csv": "id,x,label,checked_label\na,1,p,p\nb,2,,\n",
    "there.csv": "mine\n",
    "file": "not a folder",
}

BAD = {
    "missing file": (["nosy.csv"], "nosy.csv: no such file; did you mean 'noisy.csv'?"),
    "label": (["noisy.csv", "--label", "lable"], "noisy.csv: unknown column 'lable': did you mean 'label'?"),
    "id": (["noisy.csv", "--id", "idd"], "noisy.csv: unknown column 'idd': did you mean 'id'?"),
    "checked": (["noisy.csv", "--checked", "seen"], "noisy.csv: unknown column 'seen': known: id, label, x"),
    "no rows": (["header.csv"], "header.csv: a header but no rows"),
    "repeated id": (["repeated.csv"], "repeated.csv: id 'a' is repeated in rows 2, 4 (the header is row 1)"),
    "empty id": (["no_id.csv"], "no_id.csv: the id in row 3 (the header is row 1) is empty"),
    "provenance": (["suspects.csv"], "suspects.csv: column 'provenance' is filled in row 3 (the header is row 1)"),
    "weights": (["weighted.csv"], "weighted.csv: column 'sampling_weight' is filled in row 3"),
    "own column": (["done.csv", "--label", "checked_label"], "'checked_label' is a column that the sample writes"),
    "nothing left": (["done.csv"], "done.csv: no row is left to draw (of 2, left out: 1 checked already, 1 without"),
    "label is checked": (["done.csv", "--checked", "label"], "'label' is a column that the sample writes"),
    "column of a folder": (["folder", "--id", "x"], "folder: a folder of images has no columns; leave --id out"),
    "no row": (["noisy.csv", "-n", "0"], "-n is 0; ask for at least one row"),
    "too many": (["noisy.csv", "-n", "41"], "-n is 41, but there are only 40 rows to draw from"),
    "fewer than classes": (["noisy.csv", "-n", "1", "--stratify"], "-n is 1, but the labels name 2 classes"),
    "out is a folder": (["noisy.csv", "-n", "5", "--out", "folder"], "folder is a folder; --out names a file"),
    "out exists": (["noisy.csv", "-n", "5", "--out", "there.csv"], "there.csv already exists; choose another --out"),
    "out is the set": (["noisy.csv", "-n", "5", "--out", "noisy.csv", "--overwrite"], "noisy.csv is the set itself"),
    "out below a file": (
        ["noisy.csv", "-n", "5", "--out", "file/out.csv"],
        "file/out.csv: file is a file, not a folder",
    ),
    "out far below a file": (["noisy.csv", "-n", "5", "--out", "file/a/out.csv"], "cannot be written: Not a directory"),
    "kind of out": (["noisy.csv", "--out", "out.xlsx"], "out.xlsx: --out must end with one of .csv, .tsv"),
    "folder without images": (["folder"], "folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(folder, case):
    for name, content in FILES.items():
        (folder / name).write_text(content)
    (folder / "folder").mkdir()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments, message = BAD[case]
    out = () if "--out" in arguments else ("--out", "out.csv")
    with pytest.raises(InputError) as refused:
        run(*arguments, *out)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_cells_that_parquet_cannot_hold_together_are_named():
    Path("noisy.jsonl").write_text('{"x": 1, "label": "p"}\n{"x": "one", "label": "p"}\n')
    with pytest.raises(InputError, match=r"out.parquet: cannot be written as Parquet .* let --out end with .jsonl"):
        run("noisy.jsonl", "-n", 2, "--out", "out.parquet")
    assert not list(Path().glob("*out*"))


def test_a_file_is_replaced_when_asked(wine):
    Path("there.csv").write_text("old")
    run(wine, "-n", 10, "--out", "there.csv", "--overwrite")
    assert len(read_strings("there.csv")) == 10


def test_the_old_file_stays_until_the_new_one_is_whole(wine, monkeypatch):
    Path("there.csv").write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match=r"there.csv: cannot be written: No space left on device; choose another"):
        run(wine, "-n", 10, "--out", "there.csv", "--overwrite")
    assert Path("there.csv").read_text() == "old"
    assert not list(Path().glob(".*"))


def test_folders_are_made_on_the_way(wine):
    run(wine, "-n", 10, "--out", "new/deep/to_check.csv")
    assert len(read_strings("new/deep/to_check.csv")) == 10


def test_help_names_every_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("--help")
    for option in ("-n", "--out", "--stratify", "--label", "--id", "--checked", "--seed", "--overwrite"):
        assert option in printed
