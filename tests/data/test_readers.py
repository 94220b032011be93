import csv

import numpy as np
import pytest

from ebomlc.data.readers import Columns, is_built_in, read_built_in, read_file, read_labels, read_table
from ebomlc.errors import DataWarning, InputError

TEXT = Columns(text="text")


def refusal(action, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    return str(caught.value)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_real_texts_are_read_as_the_csv_module_reads_them(hausa):
    source = read_file(hausa / "noisy.csv", TEXT)
    with (hausa / "noisy.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert source.ids.tolist() == [row["id"] for row in rows]
    assert source.labels.tolist() == [row["label"] for row in rows]
    assert source.inputs.values.tolist() == [row["text"] for row in rows]
    assert (source.inputs.kind, source.inputs.columns) == ("text", ("text",))
    assert source.has_ids
    assert all(label is None for label in source.given)


def test_real_numbers_are_read_as_the_csv_module_reads_them(derby):
    source = read_file(derby / "trusted.csv", Columns())
    with (derby / "trusted.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("id", "label", "given_label")]
    assert source.inputs.columns == tuple(names)
    np.testing.assert_array_equal(source.inputs.values, [[float(row[name]) for name in names] for row in rows])
    assert source.given.tolist() == [row["given_label"] for row in rows]


def test_ids_and_classes_are_what_they_say(write):
    path = write("a.csv", "id,text,label\n007,a,NA\nNA,b,None\n1e3,c,010\nnull,,1.0\n")
    source = read_file(path, TEXT)
    assert source.ids.tolist() == ["007", "NA", "1e3", "null"]
    assert source.labels.tolist() == ["NA", "None", "010", "1.0"]
    assert source.inputs.values.tolist() == ["a", "b", "c", ""]


def test_lines_in_quotes_bom_crlf_and_blank_lines(write):
    content = '\ufeffid,text,label\r\nä/1,"two\r\nlines, ""quoted""",a\r\n\r\n2,x,b\r\n\r\n,,\r\n'
    source = read_file(write("a.csv", content), TEXT)
    assert source.ids.tolist() == ["ä/1", "2"]
    assert source.inputs.values.tolist() == ['two\r\nlines, "quoted"', "x"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(write, end):
    source = read_file(write("a.csv", end.join(["id,x,label", "1,2,a", "2,3,b"])), Columns())
    assert source.inputs.values.tolist() == [[2.0], [3.0]]


def test_tabs_separate_the_cells_of_a_tsv_file(write):
    source = read_file(write("a.TSV", "id\ttext\tlabel\n1\ta, b\tx\n"), TEXT)
    assert source.inputs.values.tolist() == ["a, b"]


def test_a_cell_may_be_long_and_the_limit_of_the_csv_module_is_put_back(write):
    limit = csv.field_size_limit()
    text = "word " * 50_000
    assert read_file(write("a.csv", f"id,text,label\n1,{text},a\n"), TEXT).inputs.values[0] == text
    assert csv.field_size_limit() == limit


def test_columns_are_found_by_the_names_given(write):
    path = write("a.csv", "key,x,y,class,id\n1,2,3,a,9\n2,3,4,b,9\n")
    source = read_file(path, Columns(id="key", label="class", features=("y", "x")))
    assert source.ids.tolist() == ["1", "2"]
    assert source.labels.tolist() == ["a", "b"]
    assert source.inputs.values.tolist() == [[3.0, 2.0], [4.0, 3.0]]


def test_without_an_id_column_rows_are_numbered_and_that_is_said(write):
    source = read_file(write("a.csv", "x,label\n5,a\n6,b\n"), Columns())
    assert (source.ids.tolist(), source.has_ids) == (["1", "2"], False)


def test_all_other_numeric_columns_are_features(write):
    path = write("a.csv", ",id,label,given_label,x,name, y ,empty\n0,1,3,4,1e3,ann,-.5,\n1,2,4,4,,bob,NA,\n")
    source = read_file(path, Columns())
    assert source.inputs.columns == ("x", "y")
    np.testing.assert_array_equal(source.inputs.values, [[1000, -0.5], [np.nan, np.nan]])


def test_a_column_of_numbers_with_a_slip_is_left_out_aloud(write):
    path = write("a.csv", "id,x,y,label\n1,1,1,a\n2,2,2,b\n3,3,1o,b\n")
    with pytest.warns(DataWarning, match=r"column 'y' is left out, for '1o' in row 4 \(the header is row 1\)"):
        assert read_file(path, Columns()).inputs.columns == ("x",)


def test_an_empty_given_label_is_none(write):
    source = read_file(write("a.csv", "id,x,label,given_label\n1,1,a,b\n2,2,b,\n"), Columns())
    assert source.given.tolist() == ["b", None]


def test_right_labels_are_read_by_id_and_an_empty_one_says_nothing(write):
    assert read_labels(write("t.csv", "id,label\n7,a\n8,\n9,b\n"), Columns()) == {"7": "a", "9": "b"}


def test_a_table_without_rows_has_no_right_labels(write):
    assert read_labels(write("t.csv", "id,label\n"), Columns()) == {}


# --- what is refused --------------------------------------------------------------------------------------------------

BAD_FILES = {
    "empty": ("", "the file is empty"),
    "blank lines": ("\n\n", "the file is empty"),
    "png": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "line 1 is not text in UTF-8"),
    "zip": (b"PK\x03\x04\x14\x00\x06\x00", "line 1 holds NUL bytes"),
    "nul": (b"id,x,label\n1,2\x00,a\n", "line 2 holds NUL bytes"),
    "latin-1": ("id,x,label\n1,2,a\n2,3,café\n".encode("latin-1"), "line 3 is not text in UTF-8"),
    "utf-16": ("id,x,label\n".encode("utf-16"), "line 1 is not text in UTF-8"),
    "longer": ("id,x,label\n1,2,a\n\n2,3,b,4\n", "row 4 (the header is row 1) has 4 cells, but the header has 3"),
    "shorter": ("id,x,label\n1,2\n", "row 2 (the header is row 1) has 2 cells, but the header has 3"),
    "one column twice": ("id,x,x,label\n1,2,3,a\n", "column 'x' stands in the header more than once"),
    "two columns without a name": ("id,,,label\n1,2,3,a\n", "a column without a name stands in the header"),
    "semicolons": ("id;x;label\n1;2;a\n", "this one seems to be split at ';': save it with ','"),
    "open quote": ('id,x,label\n1,2,a\n2,"3,b\n4,5,c\n', "row 3 (the header is row 1) cannot be split into cells"),
    "stray quote": ('id,x,label\n1,"2"3,a\n', "row 2 (the header is row 1) cannot be split into cells"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_table_is_refused_with_its_place(write, case):
    content, message = BAD_FILES[case]
    path = write("a.csv", content)
    said = refusal(read_table, path)
    assert said.startswith(f"{path}: ")
    assert message in said


BAD_ROWS = {
    "no rows": ("id,x,label\n", Columns(), "a header but no rows"),
    "no label": ("id,x,lable\n1,2,a\n", Columns(), "unknown column 'label': did you mean 'lable'?"),
    "no id": ("id,x,label\n1,2,a\n", Columns(id="key"), "unknown column 'key'"),
    "no text": ("id,txt,label\n1,2,a\n", TEXT, "unknown column 'text': did you mean 'txt'?"),
    "no feature": ("id,x,label\n1,2,a\n", Columns(features=("xx",)), "unknown column 'xx': did you mean 'x'?"),
    "ids repeated": ("id,x,label\n1,2,a\n2,2,a\n1,2,b\n", Columns(), "id '1' is repeated in rows 2, 4"),
    "an empty id": ("id,x,label\n1,2,a\n ,2,a\n", Columns(), "the id in row 3 (the header is row 1) is empty"),
    "an empty label": ("id,x,label\n1,2,a\n\n2,2, \n", Columns(), "the label in row 4 (the header is row 1) is empty"),
    "not a number": ("id,x,label\n1,2,a\n2,2o,b\n", Columns(features=("x",)), "'2o' in column 'x', row 3"),
    "a long cell": (f"id,x,label\n1,{'9' * 400},a\n", Columns(), f"'{'9' * 40}...' in column 'x', row 2"),
    "infinite": ("id,x,label\n1,2,a\n2,-inf,b\n", Columns(), "'-inf' in column 'x', row 3"),
    "text only": ("id,name,label\n1,ann,a\n", Columns(), "if one holds text, say --text name"),
    "nothing else": ("id,label\n1,a\n", Columns(), "no column of numbers to learn from"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_cannot_be_used_are_refused_with_their_place(write, case):
    content, columns, message = BAD_ROWS[case]
    path = write("a.csv", content)
    said = refusal(read_file, path, columns)
    assert said.startswith(f"{path}: ")
    assert message in said


def test_a_missing_file_is_named_with_its_nearest_neighbour(write):
    path = write("noisy.csv", "id,x,label\n1,2,a\n")
    assert refusal(read_table, path.with_name("nosy.csv")).endswith("no such file; did you mean 'noisy.csv'?")
    assert refusal(read_table, path.with_name("z.csv")).endswith("no such file; is the path right?")
    assert "no such file" in refusal(read_table, path.parent / "none" / "noisy.csv")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "noisy.csv").mkdir()
    assert "this is a folder" in refusal(read_table, tmp_path)
    assert "this is a folder" in refusal(read_table, tmp_path / "noisy.csv")


def test_other_kinds_of_files_are_refused(write):
    assert "cannot be read yet; give a .csv or .tsv file" in refusal(read_table, write("a.parquet", b"PAR1"))


def test_right_labels_need_ids(write):
    assert "has no column 'id'" in refusal(read_labels, write("t.csv", "label\na\n"), Columns())


# --- built-in sets ----------------------------------------------------------------------------------------------------


def test_digits_have_ids_class_names_and_disjoint_parts():
    train, test = read_built_in("digits", None)
    assert (len(train), len(test)) == (1347, 450)
    assert train.ids[0] == "train-0"
    assert test.ids[-1] == "test-449"
    assert set(train.labels) == set(train.class_names) == {str(digit) for digit in range(10)}


def test_built_in_names_are_told_from_files(write):
    assert is_built_in("digits")
    assert not is_built_in(str(write("digits.csv", "")))
    assert not is_built_in("missing.csv")
    assert "did you mean 'digits'?" in refusal(is_built_in, "digit")


def test_cifar10_needs_a_folder():
    assert "--data-dir DIR" in refusal(read_built_in, "cifar10", None)
