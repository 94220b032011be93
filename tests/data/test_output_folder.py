"""A folder is written whole or not at all, and only an earlier export is ever replaced."""

import json

import pytest

from ebomlc.data.output_folder import MARK, check_output_folder, new_output_folder
from ebomlc.errors import InputError


def write(out, text="new", *, overwrite=False):
    with new_output_folder(out, overwrite, {"format": "cleanlab"}) as folder:
        (folder / "labels.csv").write_text(text)


def left_over(out):
    return [path.name for path in out.parent.iterdir() if path.name != out.name]


def test_a_folder_is_made_with_its_parents_and_says_what_it_is(tmp_path):
    out = tmp_path / "a" / "b"
    write(out)
    assert (out / "labels.csv").read_text() == "new"
    assert json.loads((out / MARK).read_text()) == {"format": "cleanlab"}
    assert left_over(out) == []


def test_an_empty_folder_is_taken(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(out)
    assert (out / "labels.csv").exists()


def test_an_earlier_export_is_replaced_on_demand_only(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    (out / "more.csv").write_text("of the old one")
    with pytest.raises(InputError, match="already holds an export"):
        write(out)
    assert (out / "labels.csv").read_text() == "old"
    write(out, overwrite=True)
    assert (out / "labels.csv").read_text() == "new"
    assert not (out / "more.csv").exists()
    assert left_over(out) == []


def test_anything_else_is_never_replaced(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "thesis.tex").write_text("three years")
    with pytest.raises(InputError, match="holds no export"):
        write(out, overwrite=True)
    assert (out / "thesis.tex").read_text() == "three years"
    with pytest.raises(InputError, match="is a file"):
        check_output_folder(out / "thesis.tex", overwrite=True)


def test_an_error_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    with pytest.raises(ZeroDivisionError), new_output_folder(out, True, {}) as folder:
        (folder / "labels.csv").write_text("half")
        _ = 1 / 0
    assert (out / "labels.csv").read_text() == "old"
    assert left_over(out) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "out")
