"""Where images are: folders with a class each, and columns of paths."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ebomlc.data.image_files import list_image_folder, resolve_image_paths
from ebomlc.data.images import image_bytes, load_images
from ebomlc.errors import DataWarning, InputError
from tests.data.test_images import DIGITS, cache, digit, digits, encoded, place, refusal

__all__ = ["cache", "digits"]  # fixtures


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_digits_is_read_back_as_it_was(digits):
    files = list_image_folder(digits)
    rows = [int(path.stem) for path in files.paths]
    assert sorted(rows) == list(range(40)) == list(range(len(files)))
    assert files.ids.tolist() == sorted(files.ids)
    assert [str(path.relative_to(digits)) for path in files.paths] == files.ids.tolist()
    assert files.labels.tolist() == [str(DIGITS.target[row]) for row in rows]
    loaded = load_images(files.paths, files.ids)
    expected = np.stack([np.asarray(digit(row)) for row in rows])[:, None]
    np.testing.assert_array_equal(loaded.values, expected)
    assert loaded.values.dtype == np.uint8
    assert (loaded.size, loaded.channels, loaded.bad) == (8, 1, ())
    assert loaded.values.nbytes == image_bytes(40, 8, 1)


def test_images_may_lie_deeper_and_system_files_are_passed_over(tmp_path):
    png = encoded(digit(0), "PNG")
    junk = ("Thumbs.db", ".DS_Store", "a/desktop.ini", "a/._1.png", ".git/x.png", "__MACOSX/a/1.png")
    place(tmp_path, {"a/x/2.JPG": png, "a/1.png": png, "a b/ü.webp": png, **dict.fromkeys(junk, png)})
    files = list_image_folder(tmp_path)
    assert files.ids.tolist() == ["a b/ü.webp", "a/1.png", "a/x/2.JPG"]
    assert files.labels.tolist() == ["a b", "a", "a"]


def test_other_files_empty_classes_and_links_are_named(tmp_path):
    place(tmp_path, {"a/1.png": b"", "notes.txt": b"", "a/2.pdf": b""})
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    with pytest.warns(DataWarning) as caught:
        files = list_image_folder(tmp_path)
    assert files.ids.tolist() == ["a/1.png"]
    assert [str(one.message).removeprefix(f"{tmp_path}: ") for one in caught] == [
        "2 links to folders (a/loop, c): not followed: put the folder itself there",
        "2 files that are no images (a/2.pdf, notes.txt): left out",
        "a folder (b): no class: no image in it",
    ]


def test_parts_of_a_set_taken_for_classes_are_pointed_out(tmp_path):
    place(tmp_path, {"train/a/1.png": b"", "Test/a/1.png": b""})
    with pytest.warns(DataWarning, match="the classes are Test, train; is one of them the folder to give"):
        assert len(list_image_folder(tmp_path)) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no image in this folder; one sub-folder for each class is needed, such as"),
        (["a/x.txt", "y.csv"], r"no image in this folder; 2 other files are there \(a/x.txt, y.csv\)"),
        (["a/1.png", "2.png", "3.png"], r"'2.png' lies directly in this folder \(as do 1 more images\).*cat/001.png"),
    ],
)
def test_folders_without_classes_are_refused(tmp_path, names, message):
    place(tmp_path, dict.fromkeys(names, b"x"))
    with pytest.raises(InputError, match=message):
        list_image_folder(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path):
    place(tmp_path, {"photos/a/1.png": b"", "table.csv": b""})
    assert "did you mean 'photos'?" in refusal(list_image_folder, tmp_path / "photo")
    assert "is the path right?" in refusal(list_image_folder, tmp_path / "x" / "y")
    assert "this is a file, not a folder" in refusal(list_image_folder, tmp_path / "table.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_not_text_is_refused(tmp_path):
    place(tmp_path, {"a/1.png": b""})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xff.png")).write_bytes(b"")
    assert r"'a/\udcff.png' is not text in UTF-8" in refusal(list_image_folder, tmp_path)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    place(tmp_path, {"a/1.png": b"", "b/1.png": b""})
    scandir = os.scandir

    def forbid(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbid)
    assert refusal(list_image_folder, tmp_path) == (
        f"{tmp_path / 'b'}: cannot be listed: Permission denied; allow this folder to be read"
    )


# --- paths in a table -------------------------------------------------------------------------------------------------


def column(*cells: str) -> pd.Series:
    return pd.Series(cells, index=range(2, 2 + len(cells)), name="photo", dtype=object)


def test_paths_begin_at_the_folder_of_the_table(tmp_path):
    place(tmp_path, {"set/img/1.png": b"", "2.png": b""})
    absolute = tmp_path / "2.png"
    paths = resolve_image_paths(column(" img/1.png", str(absolute), "../2.png", "img\\1.png"), tmp_path / "set/a.csv")
    assert [path.resolve() for path in paths] == [tmp_path / "set/img/1.png", absolute, absolute, paths[0].resolve()]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("1.png", "1.jpg"), "column 'photo', row 3: no file '1.jpg'; did you mean '1.png'?"),
        (("img/1.png", "1.png", ""), r"row 2: no file 'img/1.png' below /.*\(1 more rows of 3 name no file either\)"),
        (("1.png", " "), "row 3: the cell is empty; fill in the path"),
        (("https://example.org/1.png",), "is an address and not a file; download the images"),
        ((".",), "row 2: no file '.'"),
        (("word " * 100,), r"no file '(word ){16}\.\.\.' below"),
    ],
)
def test_paths_that_name_no_file_are_refused(tmp_path, cells, message):
    place(tmp_path, {"1.png": b""})
    with pytest.raises(InputError, match=message.replace("?", r"\?") if message.endswith("?") else message):
        resolve_image_paths(column(*cells), tmp_path / "a.csv")
