"""A row is shown as what it is, and what is gone or must not be shown says so."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from ebomlc.config import DataConfig, RunConfig, to_toml
from ebomlc.data.inputs import Inputs, table_of_numbers
from ebomlc.errors import InputError
from ebomlc.samples import LONGEST_CELL, LONGEST_TEXT, MOST_FIELDS, open_samples

PIXELS = (load_digits().images[:6] * 15).astype(np.uint8)


def run_of(folder, noisy, roles=None, **data):
    """As much of a run folder as samples are opened by."""
    run = folder / "run"
    (run / "encoder").mkdir(parents=True)
    (run / "config.toml").write_text(to_toml(RunConfig(DataConfig(noisy=str(noisy), **data))), encoding="utf-8")
    (run / "encoder" / "encoder.json").write_text(json.dumps({"roles": roles or {}}), encoding="utf-8")
    return run


def write_images(folder):
    (folder / "images" / "zero").mkdir(parents=True)
    for row, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / "images" / "zero" / f"{row}.png")
    return folder / "images"


def picture(sample):
    assert sample.kind == "image", sample.reason
    image = Image.open(io.BytesIO(sample.png))
    assert image.format == "PNG"
    assert image.size == sample.size
    return np.asarray(image)


def test_image_of_a_folder_is_shown_as_it_is(tmp_path):
    samples = open_samples(run_of(tmp_path, write_images(tmp_path)))
    assert (picture(samples.show("zero/3.png")) == PIXELS[3]).all()


def test_large_image_keeps_its_proportions(tmp_path):
    root = write_images(tmp_path)
    Image.new("RGB", (900, 300), "red").save(root / "zero" / "wide.jpg")
    sample = open_samples(run_of(tmp_path, root)).show("zero/wide.jpg", side=90)
    assert sample.size == (90, 30)
    assert picture(sample)[15, 45, 0] > 240


def test_image_that_is_gone_or_damaged_says_so(tmp_path):
    root = write_images(tmp_path)
    samples = open_samples(run_of(tmp_path, root))
    (root / "zero" / "1.png").unlink()
    (root / "zero" / "2.png").write_bytes(b"%PDF-1.4")
    assert samples.show("zero/1.png").reason.endswith("1.png is gone")
    assert "a PDF document, not an image" in samples.show("zero/2.png").reason
    assert samples.show("zero/\0.png").kind == "missing"
    assert samples.show("zero").kind == "missing"


@pytest.mark.parametrize(
    "attack", ["../secret.png", "zero/../../secret.png", "link.png", "elsewhere/secret.png", "/ABS"]
)
def test_paths_do_not_leave_their_root(tmp_path, attack):
    root = write_images(tmp_path)
    (tmp_path / "private").mkdir()
    for place in (tmp_path / "secret.png", tmp_path / "private" / "secret.png"):
        Image.fromarray(PIXELS[0]).save(place)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "elsewhere").symlink_to(tmp_path / "private")
    run = run_of(tmp_path, root)
    row = attack.replace("/ABS", str(tmp_path / "secret.png"))
    sample = open_samples(run).show(row)
    assert (sample.kind, sample.png) == ("missing", b"")
    assert "--images" in sample.reason
    assert open_samples(run, images=[tmp_path]).show(row).kind == "image"


def test_link_within_the_root_is_followed(tmp_path):
    root = write_images(tmp_path)
    (root / "zero" / "again.png").symlink_to(root / "zero" / "1.png")
    (root / "zero" / "loop.png").symlink_to(root / "zero" / "loop.png")
    samples = open_samples(run_of(tmp_path, root))
    assert (picture(samples.show("zero/again.png")) == PIXELS[1]).all()
    assert samples.show("zero/loop.png").kind == "missing"


def test_images_named_by_a_table(tmp_path):
    write_images(tmp_path)
    Image.fromarray(PIXELS[0]).save(tmp_path / "outside.png")
    (tmp_path / "table").mkdir()
    (tmp_path / "images").rename(tmp_path / "table" / "images")
    paths = ["images/zero/0.png", "images\\zero\\1.png", "../outside.png", "images/zero/none.png"]
    frame = pd.DataFrame({"name": ["a", "b", "c", "d"], "file": paths, "label": "zero", "taken": "by night"})
    frame.to_csv(tmp_path / "table" / "rows.csv", index=False)
    samples = open_samples(run_of(tmp_path, tmp_path / "table" / "rows.csv", id="name", image="file"))
    assert (picture(samples.show("b")) == PIXELS[1]).all()
    assert samples.show("a").fields == (("taken", "by night"),)
    assert "outside of" in samples.show("c").reason
    assert samples.show("d").reason.endswith("none.png is gone")


def test_row_shows_inputs_first_and_no_labels(tmp_path):
    cells = {
        "note": ["x" * 400],
        "id": ["7"],
        "age": ["031"],
        "label": ["sick"],
        "checked_label": ["well"],
        "who": [""],
    }
    pd.DataFrame(cells).to_csv(tmp_path / "rows.csv", index=False)
    sample = open_samples(run_of(tmp_path, tmp_path / "rows.csv", {"age": "number", "who": "category"})).show("7")
    assert [name for name, _ in sample.fields] == ["age", "who", "note"]
    assert dict(sample.fields)["age"] == "031"
    assert len(dict(sample.fields)["note"]) == LONGEST_CELL + 2


def test_wide_row_is_cut_and_parquet_is_readable(tmp_path):
    values = load_breast_cancer().data[:3]
    frame = pd.DataFrame(np.tile(values, 5)).rename(columns=str)
    frame["label"] = "benign"
    frame.to_parquet(tmp_path / "rows.parquet")
    sample = open_samples(run_of(tmp_path, tmp_path / "rows.parquet")).show("2")
    assert len(sample.fields) == MOST_FIELDS
    assert sample.fields[0] == ("0", f"{values[1, 0]:.6g}")


def test_text_is_a_text_with_what_stands_beside_it(tmp_path):
    texts = ["<b>short</b>\x07", "word " * 2000]
    pd.DataFrame({"text": texts, "label": "a", "source": "web"}).to_json(
        tmp_path / "rows.jsonl", orient="records", lines=True
    )
    samples = open_samples(run_of(tmp_path, tmp_path / "rows.jsonl", {"text": "text"}))
    first, second = samples.show("1"), samples.show("2")
    assert (first.kind, first.text, first.fields) == ("text", texts[0], (("source", "web"),))
    assert len(second.text) <= LONGEST_TEXT + 2
    assert second.text.endswith(" …")


def test_trusted_rows_come_from_their_own_file(tmp_path):
    pd.DataFrame({"age": [1, 2], "label": "a"}).to_csv(tmp_path / "noisy.csv", index=False)
    pd.DataFrame({"age": [30, 40], "label": "a"}).to_csv(tmp_path / "trusted.csv", index=False)
    run = run_of(tmp_path, tmp_path / "noisy.csv", {"age": "number"}, trusted=str(tmp_path / "trusted.csv"))
    samples = open_samples(run)
    assert samples.show("2").fields == (("age", "2"),)
    assert samples.show("trusted-2").fields == (("age", "40"),)
    assert "'3'" in samples.show("3").reason


def test_embeddings_show_the_table_beside_them(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((2, 3), np.float32))
    pd.DataFrame({"id": ["a", "b"], "label": "x", "title": ["one", "two"]}).to_csv(tmp_path / "rows.csv", index=False)
    run = run_of(tmp_path, tmp_path / "rows.npy")
    assert open_samples(run).show("b").fields == (("title", "two"),)
    pd.DataFrame({"id": ["a", "b"], "label": "x"}).to_csv(tmp_path / "rows.csv", index=False)
    assert "nothing to look at" in open_samples(run).show("b").reason


def test_table_that_is_gone_says_so(tmp_path):
    sample = open_samples(run_of(tmp_path, tmp_path / "rows.csv")).show("1")
    assert sample.kind == "missing"
    assert "no such file" in sample.reason


def test_digits_are_pictures(tmp_path):
    sample = open_samples(run_of(tmp_path, "digits")).show("train-0")
    assert picture(sample).shape == (8, 8)
    assert picture(sample).max() == 255  # paper is white
    assert open_samples(run_of(tmp_path / "again", "digits")).show("test-3").kind == "image"


def test_built_in_set_whose_files_are_gone_says_so(tmp_path):
    sample = open_samples(run_of(tmp_path, "cifar10", data_dir=str(tmp_path))).show("train-0")
    assert "cifar10" in sample.reason


def test_rows_from_python_are_shown_while_they_are_there(tmp_path):
    run = run_of(tmp_path, "(Arrays from Python)")
    assert "came from Python" in open_samples(run).show("1").reason
    ids = np.array(["1", "2"], dtype=object)
    images = Inputs("images", np.stack([PIXELS[:2]] * 3, axis=1))
    shown = open_samples(run, pool=SimpleNamespace(ids=ids, inputs=images)).show("2")
    assert (picture(shown)[:, :, 0] == PIXELS[1]).all()
    numbers = table_of_numbers(np.array([[1.5, np.nan]]), ("a", "b"))
    assert open_samples(run, pool=SimpleNamespace(ids=ids[:1], inputs=numbers)).show("1").fields == (
        ("a", "1.5"),
        ("b", ""),
    )


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.toml"):
        open_samples(tmp_path)
    run = run_of(tmp_path, "digits")
    (run / "encoder" / "encoder.json").write_text("{}")
    with pytest.raises(InputError, match="another version"):
        open_samples(run)
