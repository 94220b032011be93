"""Images in folders of their classes, whatever classes and ids are called."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebomlc.data.inputs import Inputs, table_of_numbers
from ebomlc.errors import InputError
from ebomlc.labels.export import Contents
from ebomlc.labels.export_images import safe_names, write_image_folders

AWKWARD = ("../../etc", "..", ".", "", "a/b", "a\\b", ".hidden", "CON", "con.txt", "nul", "a\0b", "x" * 500, "é" * 200)
DIGITS = (255 * load_digits().images[:6] / 16).astype(np.uint8)[:, None]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_name_is_that_of_something_right_below(tmp_path, name):
    (safe,) = safe_names([name])
    assert safe not in ("", ".", "..")
    assert not safe.startswith(".")
    assert not set(safe) & set('/\\\0:*?"<>|')
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()
    (tmp_path / safe).mkdir()
    assert len(safe.encode()) <= 130


def test_names_that_collide_are_told_apart():
    found = safe_names(["a/b", "a_b", "A_B", "a_b_2", "../x", "_x"])
    assert len({name.casefold() for name in found}) == len(found)
    assert found[:2] == ["a_b", "a_b_2"]


def test_suffixes_stay():
    assert safe_names(["cat/1.png", "cat/1.jpg", "7"], [".png", ".jpg", ".png"]) == ["cat_1.png", "cat_1.jpg", "7.png"]


def frame_of(ids, labels):
    return pd.DataFrame({"id": ids, "given_label": ["cat"] * len(ids), "final_label": labels}, dtype=object)


@pytest.fixture
def photos(tmp_path):
    """Four files below folders, two of them with the same name but for the case."""
    paths = [tmp_path / "in" / name for name in ("p/1.png", "q/1.png", "p/A.png", "p/a.png")]
    for k, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[k, 0]).save(path)
    return paths


def write(tmp_path, photos, *, link=False):
    frame = frame_of(["p/1.png", "q/1.png", "p/A.png", "p/a.png"], ["../cat", "../cat", "dog", "DOG"])
    out = tmp_path / "out"
    out.mkdir()
    assert write_image_folders(frame, Contents(Inputs("images", DIGITS[:4]), tuple(photos)), out, link=link) == 4
    return out


def test_files_are_copied_by_final_label_and_listed(tmp_path, photos):
    out = write(tmp_path, photos)
    listed = pd.read_csv(out / "files.csv")
    assert sorted(path.name for path in out.iterdir()) == sorted({*listed["file"].str.split("/").str[0], "files.csv"})
    assert listed["final_label"].tolist() == ["../cat", "../cat", "dog", "DOG"]
    assert len(set(listed["file"].str.casefold())) == 4
    for name, photo in zip(listed["file"], photos, strict=True):
        assert (out / name).read_bytes() == photo.read_bytes()
        assert not (out / name).is_symlink()
        assert (out / name).resolve().is_relative_to(out.resolve())


def test_files_are_linked_on_demand(tmp_path, photos):
    out = write(tmp_path, photos, link=True)
    for name, photo in zip(pd.read_csv(out / "files.csv")["file"], photos, strict=True):
        assert (out / name).is_symlink()
        assert (out / name).resolve() == photo.resolve()


def test_images_without_files_are_written_as_png(tmp_path):
    frame = frame_of([f"train-{k}" for k in range(6)], ["a", "b"] * 3)
    write_image_folders(frame, Contents(Inputs("images", DIGITS), (None,) * 6), tmp_path)
    for k, name in enumerate(pd.read_csv(tmp_path / "files.csv")["file"]):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), DIGITS[k, 0])


def test_a_file_that_is_gone_is_said_before_anything_is_written(tmp_path, photos):
    photos[2].unlink()
    with pytest.raises(InputError, match=r"1 of 4 images are gone \(p/A.png\)"):
        write(tmp_path, photos)
    assert list((tmp_path / "out").iterdir()) == []


def test_rows_that_are_no_images_are_refused(tmp_path):
    contents = Contents(table_of_numbers(np.zeros((2, 1)), ("x",)), (None, None))
    with pytest.raises(InputError, match="needs rows that are images"):
        write_image_folders(frame_of(["a", "b"], ["p", "q"]), contents, tmp_path)
