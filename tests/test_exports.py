"""Whole runs handed to other tools: every format, with decisions, and the places it may be written to."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebomlc import fit
from ebomlc.errors import InputError
from ebomlc.exports import FORMATS, export
from ebomlc.reviewed import DECISIONS, open_decisions

QUICK = {"method": "trusted-only", "epochs": 1}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A run on texts of our own, two of its rows decided on."""
    folder = tmp_path_factory.mktemp("texts")
    words = {"fire": "wuta zafi hayaki", "=water": "ruwa kogi kifi"}
    rows = [
        {"id": f"=n{k}", "text": f"{words[name]} {k}", "label": name} for k in range(40) for name in [[*words][k % 2]]
    ]
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "noisy.csv", index=False)
    frame[:10].to_csv(folder / "trusted.csv", index=False)
    fit(folder / "noisy.csv", trusted=folder / "trusted.csv", **QUICK, out=folder / "run")
    with open_decisions(folder / "run") as store:
        store.record("=n20", "other", label="=water", mode="suspect", reviewer="ana")
        store.record("=n21", "other", label="fire", mode="random", reviewer="ana")
    return folder / "run"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A run on a folder of images, two of which have the same name in different folders."""
    folder = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    kept = [k for name in (0, 1) for k in np.flatnonzero(digits.target == name)[:20]]
    for row, k in enumerate(kept):
        path = folder / "set" / ["zero", "one"][digits.target[k]] / f"{row % 20}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(255 * digits.images[k] / 16, np.ones((2, 2))).astype(np.uint8)).save(path)
    ids = [path.relative_to(folder / "set").as_posix() for path in sorted((folder / "set").rglob("*.png"))]
    checked = ids[::3]
    pd.DataFrame({"id": checked, "label": [name.split("/")[0] for name in checked]}).to_csv(
        folder / "checked.csv", index=False
    )
    fit(folder / "set", trusted=folder / "checked.csv", encoder="pixels", model="mlp", **QUICK, out=folder / "run")
    return folder / "run"


def test_csv_holds_decisions_beside_given_labels_and_no_formula(texts, tmp_path):
    said = export(texts, "csv", tmp_path / "labels.csv")
    assert "2 decided by people, 10 trusted" in said
    rows = pd.read_csv(tmp_path / "labels.csv", dtype=str).set_index("id")
    assert len(rows) == 40
    decided = rows.loc[["'=n20", "'=n21"]]
    assert decided["given_label"].tolist() == ["fire", "'=water"]
    assert decided["final_label"].tolist() == ["'=water", "fire"]
    assert decided["label_source"].tolist() == ["decision"] * 2
    assert decided["provenance"].tolist() == ["suspect", "random"]


def test_parquet_has_the_ids_as_they_are(texts, tmp_path):
    export(texts, "parquet", tmp_path)
    rows = pd.read_parquet(tmp_path / "labels.parquet").set_index("id")
    assert rows.loc["=n20", "final_label"] == "=water"


def test_label_studio_gets_what_is_still_open(texts, tmp_path):
    export(texts, "label-studio", tmp_path / "tasks")
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text(encoding="utf-8"))
    assert len(tasks) == 28
    assert {task["data"]["id"] for task in tasks} == {f"=n{k}" for k in range(10, 40)} - {"=n20", "=n21"}
    assert all(task["data"]["text"].startswith(("wuta", "ruwa")) for task in tasks)


def test_cleanlab_gets_the_probabilities_of_the_classifier(texts, tmp_path):
    export(texts, "cleanlab", tmp_path / "cleanlab")
    rows = pd.read_csv(tmp_path / "cleanlab" / "labels.csv")
    probabilities = np.load(tmp_path / "cleanlab" / "pred_probs.npy", allow_pickle=False)
    table = pd.read_parquet(texts / "labels.parquet").set_index("id")
    assert probabilities.shape == (len(rows), 2)
    ids = rows["id"].str.removeprefix("'")
    np.testing.assert_allclose(probabilities.max(1), table.loc[ids, "predicted_confidence"], atol=1e-6)


@pytest.mark.filterwarnings("default")  # those of the library are not ours
def test_huggingface_gets_the_inputs_as_they_were_read(texts, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra [hf] is not installed")
    export(texts, "huggingface", tmp_path / "set")
    back = datasets.load_from_disk(str(tmp_path / "set"))
    assert len(back) == 40
    assert back["text"][0] == "wuta zafi hayaki 0"
    assert [back.features["label"].int2str(k) for k in back["label"][20:22]] == ["=water", "fire"]


def test_image_folders_hold_the_files_themselves(photos, tmp_path):
    name = pd.read_parquet(photos / "labels.parquet").query("not is_trusted")["id"].iloc[0]
    with open_decisions(photos) as store:
        label = "one" if name.startswith("zero") else "zero"
        store.record(name, "other", label=label, mode="suspect", reviewer="ana")
    said = export(photos, "imagefolder", tmp_path / "set")
    assert "40 images copied into 2 classes" in said
    rows = pd.read_csv(tmp_path / "set" / "files.csv").set_index("id")
    assert rows.loc[name, "file"].startswith(f"{label}/")
    for row, file in rows["file"].items():
        assert (tmp_path / "set" / file).read_bytes() == (photos.parent / "set" / row).read_bytes()
    export(photos, "imagefolder", tmp_path / "links", link=True)
    assert all((tmp_path / "links" / file).is_symlink() for file in rows["file"])


def test_label_studio_is_told_where_images_lie(photos, tmp_path):
    said = export(photos, "label-studio", tmp_path / "tasks")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={photos.parent / 'set'}" in said
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={tasks[0]['data']['id']}"


def test_an_export_that_fails_leaves_nothing(tmp_path):
    fit("digits", noise="flip:0.4", n_trusted=50, **QUICK, out=tmp_path / "run")
    with pytest.raises(InputError, match="needs rows that are images, but those of the run are table"):
        export(tmp_path / "run", "imagefolder")
    assert list((tmp_path / "run").rglob("*imagefolder*")) == []


def test_without_a_place_exports_go_below_the_run_and_are_not_replaced_unasked(texts):
    for to in ("csv", "cleanlab"):
        export(texts, to)
        with pytest.raises(InputError, match="--overwrite"):
            export(texts, to)
        export(texts, to, overwrite=True)
    assert (texts / "export" / "labels.csv").is_file()
    assert (texts / "export" / "cleanlab" / "pred_probs.npy").is_file()
    fit(config=texts / "config.toml", out=texts, overwrite=True)
    assert (texts / "export" / "labels.csv").is_file()


def test_what_cannot_be_is_said(texts, tmp_path):
    before = (texts / "config.toml").read_bytes()
    with pytest.raises(InputError, match=r"unknown format 'imagenet'.*known: cleanlab, csv"):
        export(texts, "imagenet")
    with pytest.raises(InputError, match="--link is for imagefolder"):
        export(texts, "csv", link=True)
    with pytest.raises(InputError, match="is a file; --out names a folder"):
        export(texts, "cleanlab", texts / "config.toml", overwrite=True)
    with pytest.raises(InputError, match="must end with"):
        export(texts, "parquet", texts / "config.toml", overwrite=True)
    with pytest.raises(InputError, match="not a run folder"):
        export(tmp_path, "csv")
    assert (texts / "config.toml").read_bytes() == before


def test_rows_that_are_gone_are_said_but_labels_need_none(texts, tmp_path):
    moved = texts.parent / "moved.csv"
    source = texts.parent / "noisy.csv"
    frame = pd.read_csv(source)
    source.rename(moved)
    try:
        assert "40 rows" in export(texts, "csv", tmp_path / "labels.csv")
        with pytest.raises(InputError, match="no such file"):
            export(texts, "cleanlab", tmp_path / "cleanlab")
        frame[frame["id"] != "=n30"].to_csv(source, index=False)
        with pytest.raises(InputError, match=r"1 of 40 rows of .* are not in .*noisy.csv any more \(=n30\)"):
            export(texts, "cleanlab", tmp_path / "cleanlab")
        assert list(tmp_path.glob("*cleanlab*")) == []
    finally:
        moved.replace(source)


def test_rows_from_python_are_not_there_any_more(tmp_path):
    frame = pd.DataFrame({"id": range(40), "x": np.arange(40.0), "label": ["a", "b"] * 20})
    fit(frame, trusted=frame[:10], **QUICK, out=tmp_path / "run")
    with pytest.raises(InputError, match="came from Python"):
        export(tmp_path / "run", "cleanlab")
    assert "40 rows" in export(tmp_path / "run", "csv")


def test_formats_are_those_of_the_help():
    from ebomlc.cli.export import TO_HELP

    for name in FORMATS:
        assert name in TO_HELP


def test_a_decision_file_that_is_damaged_stops_the_export(photos, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(photos, run)
    (run / DECISIONS).write_bytes(b"not a database, " * 50)
    with pytest.raises(InputError, match="something else than decisions"):
        export(run, "csv", tmp_path / "labels.csv")
    assert not (tmp_path / "labels.csv").exists()


# --- images outside of the folder of their table ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """A run on a table of images, of which one is named by a way up, one by a full path, and one is a link."""
    folder = tmp_path_factory.mktemp("scattered")
    (folder / "table").mkdir()
    digits = load_digits()
    kept = [k for name in (0, 1) for k in np.flatnonzero(digits.target == name)[:12]]
    for row, k in enumerate(kept):
        place = folder / (f"{row}.png" if row < 3 else f"table/{row}.png")
        Image.fromarray(np.kron(255 * digits.images[k] / 16, np.ones((2, 2))).astype(np.uint8)).save(place)
    (folder / "table" / "link.png").symlink_to(folder / "2.png")
    paths = ["../0.png", str(folder / "1.png"), "link.png", *(f"{row}.png" for row in range(3, 24))]
    frame = pd.DataFrame({"id": range(24), "file": paths, "label": np.where(digits.target[kept], "one", "zero")})
    frame.to_csv(folder / "table" / "rows.csv", index=False)
    frame[3::3].to_csv(folder / "table" / "checked.csv", index=False)
    sources = {"noisy": folder / "table" / "rows.csv", "trusted": folder / "table" / "checked.csv", "image": "file"}
    fit(**sources, encoder="pixels", model="mlp", **QUICK, out=folder / "run")
    return folder / "run"


def test_a_table_of_paths_is_fitted_as_it_stands(scattered):
    assert pd.read_parquet(scattered / "labels.parquet")["predicted_label"].notna().sum() == 24


@pytest.mark.parametrize("to", ["imagefolder", "label-studio", "huggingface"])
def test_images_outside_are_not_handed_on_unasked(scattered, tmp_path, to):
    with pytest.raises(InputError, match=r"row '0', .*0\.png \(and 2 more of 24 images\).*--images DIR"):
        export(scattered, to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_images_outside_are_handed_on_from_a_folder_that_is_allowed(scattered, tmp_path):
    export(scattered, "imagefolder", tmp_path / "set", images=[scattered.parent])
    rows = pd.read_csv(tmp_path / "set" / "files.csv").set_index("id")
    for row in range(3):
        assert (tmp_path / "set" / rows.loc[row, "file"]).read_bytes() == (scattered.parent / f"{row}.png").read_bytes()


def test_label_studio_is_given_no_path_that_leads_up(scattered, tmp_path):
    said = export(scattered, "label-studio", tmp_path / "tasks", images=[scattered.parent])
    assert said.partition("DOCUMENT_ROOT=")[2].splitlines()[0] == str(scattered.parent)
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text(encoding="utf-8"))
    shown = {task["data"]["id"]: task["data"]["image"].partition("?d=")[2] for task in tasks}
    assert [shown[row] for row in ("0", "1", "2", "4")] == ["0.png", "1.png", "table/link.png", "table/4.png"]


def test_what_holds_no_image_needs_no_leave(scattered, tmp_path):
    export(scattered, "cleanlab", tmp_path / "cleanlab")
    export(scattered, "csv", tmp_path / "labels.csv")
    assert len(pd.read_csv(tmp_path / "labels.csv")) == 24
