import csv
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_wine

from ebomlc.data import tables
from ebomlc.data.columns import Columns, choose_inputs
from ebomlc.data.tables import TABLE_SUFFIXES, as_strings, read_table, shorten, table_from_frame
from ebomlc.errors import InputError


def refusal(action, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def frame() -> pd.DataFrame:
    """Real measures of wines beside ids, labels and an empty cell of each kind."""
    wines = load_wine(as_frame=True).frame.head(12).rename(columns={"target": "label", "hue": "tint"})
    ids = pd.array([2**60 + row for row in range(12)], "Int64")
    ids[3] = pd.NA
    checked = pd.array([True, False, None] * 4, "boolean")
    names = pd.Series([f"wine, {row}" if row else None for row in range(12)], dtype=object)
    return wines.assign(id=ids, checked=checked, name=names, ash=wines["ash"].where(wines["ash"] < 2.5))


def columns_of(table):
    return {name: as_strings(table.frame[name]).tolist() for name in table.frame.columns}


# --- CSV and TSV ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hausa", "derby"])
def test_real_tables_are_read_as_the_csv_module_reads_them(name, request):
    path = request.getfixturevalue(name) / "one_file.csv"
    table = read_table(path)
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert list(table.frame.columns) == header
    assert [list(cells) for cells in zip(*(table.frame[name] for name in header), strict=True)] == rows
    assert (table.name, table.frame.index[0]) == (str(path), 2)


def test_cells_of_csv_are_what_they_say(write):
    table = read_table(write("a.csv", "id,label\n007,NA\nNA,None\n1e3,010\nnull,\n"))
    assert columns_of(table) == {"id": ["007", "NA", "1e3", "null"], "label": ["NA", "None", "010", ""]}


def test_lines_in_quotes_bom_crlf_and_blank_lines(write):
    content = '\ufeffid, text ,label\r\nä/1,"two\r\nlines, ""quoted""",a\r\n\r\n2,x,b\r\n\r\n,,\r\n'
    table = read_table(write("a.csv", content))
    assert table.frame["text"].tolist() == ['two\r\nlines, "quoted"', "x"]
    assert table.frame["id"].tolist() == ["ä/1", "2"]


def test_rows_are_placed_by_their_number_in_the_file(write):
    table = read_table(write("a.csv", "id,x\n\n1,2\n2,3\n"))
    assert table.frame.index.tolist() == [3, 4]
    assert table.place(3) == "row 3 (the header is row 1)"
    assert table.place(3, 4) == "rows 3, 4 (the header is row 1)"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(write, end):
    assert read_table(write("a.csv", end.join(["id,x", "1,2", "2,3"]))).frame["x"].tolist() == ["2", "3"]


def test_tabs_separate_the_cells_of_a_tsv_file(write):
    assert read_table(write("a.TSV", "id\ttext\n1\ta, b\n")).frame["text"].tolist() == ["a, b"]


def test_a_cell_may_be_long_and_the_limit_of_the_csv_module_is_put_back(write):
    limit = csv.field_size_limit()
    text = "word " * 50_000
    assert read_table(write("a.csv", f"id,text\n1,{text}\n")).frame["text"].tolist() == [text]
    assert csv.field_size_limit() == limit


def test_a_table_without_rows_keeps_its_header(write):
    table = read_table(write("a.csv", "id,label\n"))
    assert (list(table.frame.columns), len(table.frame)) == (["id", "label"], 0)


def test_rows_are_put_together_from_chunks(write, monkeypatch):
    path = write("a.csv", "id,x\n" + "".join(f"{row},{row**2}\n" for row in range(10)))
    whole = read_table(path)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 3)
    pd.testing.assert_frame_equal(read_table(path).frame, whole.frame)


BAD_CSV = {
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
    "bars": ("id|x|label\n1|2|a\n", "this one seems to be split at '|': save it with ','"),
    "open quote": ('id,x,label\n1,2,a\n2,"3,b\n4,5,c\n', "row 3 (the header is row 1) cannot be split into cells"),
    "stray quote": ('id,x,label\n1,"2"3,a\n', "row 2 (the header is row 1) cannot be split into cells"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_file_that_is_no_csv_is_refused_with_its_place(write, case):
    content, message = BAD_CSV[case]
    path, limit = write("a.csv", content), csv.field_size_limit()
    said = refusal(read_table, path)
    assert csv.field_size_limit() == limit
    assert said.startswith(f"{path}: ")
    assert message in said


# --- JSON Lines -------------------------------------------------------------------------------------------------------

JSON_LINES = (
    '{"id": 12345678901234567890, "x": 1, "t": "007", "ok": true}\r\n\n'
    '{"x": 2.5, "t": null, "n": [1, 2], "ok": false}\n{"id": 3, "t": "ü \\u00fc"}\n'
)


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson"])
def test_json_lines_keep_types_and_lack_what_is_not_there(write, suffix):
    table = read_table(write(f"a.{suffix}", "\ufeff" + JSON_LINES))
    assert list(table.frame.columns) == ["id", "x", "t", "ok", "n"]
    assert as_strings(table.frame["id"]).tolist() == ["12345678901234567890", None, "3"]
    assert as_strings(table.frame["t"]).tolist() == ["007", None, "ü ü"]
    assert table.frame["n"].tolist()[1] == [1, 2]
    assert table.frame.index.tolist() == [1, 3, 4]
    assert table.place(3) == "line 3"


def test_json_columns_of_one_type_are_arrays(write):
    lines = [json.dumps({"i": row, "f": row / 2, "b": row > 1, "s": str(row), "big": 2**70}) for row in range(4)]
    frame = read_table(write("a.jsonl", "\n".join(lines))).frame
    assert frame.dtypes.astype(str).to_dict() == {
        "i": "int64",
        "f": "float64",
        "b": "bool",
        "s": "object",
        "big": "object",
    }
    assert frame["big"].tolist() == [2**70] * 4


BAD_JSON = {
    "empty": ("", "the file is empty"),
    "an array over lines": ('[\n{"a": 1}\n]', "line 1 is not JSON"),
    "an array": ('[{"a": 1}]', "line 1 holds an array; write one object a line"),
    "a number": ('{"a": 1}\n\n7\n', "line 3 holds 7; each line must hold one object"),
    "broken": ('{"a": 1}\n{"a": \n', "line 2 is not JSON (Expecting value, character "),
    "single quotes": ("{'a': 1}", "line 1 is not JSON"),
    "latin-1": ('{"a": "x"}\n{"a": "é"}'.encode("latin-1"), "line 2 is not text in UTF-8"),
    "half a pair": ('{"a": "\\ud800"}', "line 1 cannot be read as JSON"),
    "brackets": ("[" * 200_000, "line 1 cannot be read as JSON"),
    "digits": ('{"a": ' + "9" * 5000 + "}", "line 1 cannot be read as JSON"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_file_that_is_no_json_lines_is_refused_with_its_place(write, case):
    content, message = BAD_JSON[case]
    path = write("a.jsonl", content)
    said = refusal(read_table, path)
    assert said.startswith(f"{path}: ")
    assert message in said


# --- Parquet and DataFrames -------------------------------------------------------------------------------------------


def test_one_table_reads_the_same_from_every_kind_of_file(tmp_path):
    own = frame()
    own.to_parquet(tmp_path / "a.parquet")
    own.to_csv(tmp_path / "a.csv", index=False)
    own.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    own.to_json(tmp_path / "a.jsonl", orient="records", lines=True, double_precision=15)
    expected = columns_of(table_from_frame(own, "(frame)"))
    assert expected["id"][2:5] == [str(2**60 + 2), None, str(2**60 + 4)]
    for suffix in ("parquet", "jsonl", "csv", "tsv"):
        read = columns_of(read_table(tmp_path / f"a.{suffix}"))
        assert list(read) == list(expected)
        for name in ("id", "label", "checked", "name"):
            assert [cell or None for cell in read[name]] == expected[name], (suffix, name)
        for name in ("alcohol", "ash", "proline"):
            values = [float(cell) if cell else np.nan for cell in read[name]]
            np.testing.assert_array_equal(values, own[name])


def test_floats_of_parquet_stay_floats(tmp_path):
    own = pd.DataFrame({"x": [0.1, np.nan], "y": np.array([1, 2], np.float32)})
    own.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert [str(kind) for kind in table.frame.dtypes] == ["float64", "float32"]
    assert (table.place(2), table.frame.index.tolist()) == ("row 2", [1, 2])


def test_categories_become_strings_and_stay_categories(tmp_path):
    own = pd.DataFrame({"c": pd.Categorical(["3", "1", None, "1"])})
    own.to_parquet(tmp_path / "a.parquet")
    numbers = pd.DataFrame({"c": pd.Categorical([3, 1, None, 1])})
    for table in (read_table(tmp_path / "a.parquet"), *(table_from_frame(one, "(frame)") for one in (own, numbers))):
        assert isinstance(table.frame["c"].dtype, pd.CategoricalDtype)
        assert table.frame["c"].tolist() == ["3", "1", np.nan, "1"]
        assert as_strings(table.frame["c"]).tolist() == ["3", "1", None, "1"]


def test_a_frame_is_left_as_it_is_and_its_rows_are_numbered():
    own = pd.DataFrame({0: [1.5, 2], "c": pd.Categorical(["a", "b"])}, index=["r", "s"])
    before = own.copy()
    table = table_from_frame(own, "(DataFrame from Python)")
    pd.testing.assert_frame_equal(own, before)
    assert list(table.frame.columns) == ["0", "c"]
    assert table.place(table.frame.index[1]) == "row 2 (the first is row 1)"


def test_a_frame_that_names_columns_twice_is_refused():
    own = pd.DataFrame([[1, 2]], columns=[1, "1"])
    assert "(frame): column '1' stands in the header more than once" in refusal(table_from_frame, own, "(frame)")


def test_bad_parquet_is_refused(tmp_path, write):
    frame().to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    assert "does not begin with PAR1" in refusal(read_table, write("b.parquet", "id,x\n1,2\n"))
    assert "is cut off at its end" in refusal(read_table, write("c.parquet", whole[:-100]))
    assert "is cut off at its end" in refusal(read_table, write("d.parquet", b"PAR1"))
    assert "the file is empty" in refusal(read_table, write("e.parquet", ""))
    middle = bytes(len(whole) - 16)
    assert "e.parquet: damaged" in refusal(read_table, write("e.parquet", whole[:8] + middle + whole[-8:]))


def test_parquet_that_names_columns_twice_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "a.parquet")
    assert "column 'x' stands in the header more than once" in refusal(read_table, tmp_path / "a.parquet")


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_nearest_neighbour(write):
    path = write("noisy.jsonl", "{}")
    assert refusal(read_table, path.with_name("nosy.jsonl")).endswith("no such file; did you mean 'noisy.jsonl'?")
    assert refusal(read_table, path.with_name("z.csv")).endswith("no such file; is the path right?")
    assert "no such file" in refusal(read_table, path.parent / "none" / "noisy.csv")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "noisy.csv").mkdir()
    assert "this is a folder" in refusal(read_table, tmp_path)
    assert "this is a folder" in refusal(read_table, tmp_path / "noisy.csv")


def test_other_kinds_of_files_are_refused_with_those_that_can_be_read(write):
    said = refusal(read_table, write("a.xlsx", b"PK"))
    assert all(suffix in said for suffix in TABLE_SUFFIXES)


# --- cells as strings -------------------------------------------------------------------------------------------------


def test_cells_as_strings():
    cells = [3, 3.0, 2.5, True, np.int8(4), np.float32(5), "3.0", "", None, np.nan, pd.NA, pd.NaT, Decimal("1.50")]
    expected = ["3", "3", "2.5", "True", "4", "5", "3.0", "", None, None, None, None, "1.50"]
    assert as_strings(pd.Series(cells, dtype=object)).tolist() == expected
    assert as_strings(pd.Series([1.0, np.nan])).tolist() == ["1", None]
    assert as_strings(pd.Series([], dtype=object)).tolist() == []


@given(st.lists(st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_strings_stay_and_none_gets_lost(cells):
    strings = as_strings(pd.Series(cells, dtype=object)).tolist()
    assert [string is None for string in strings] == [cell is None for cell in cells]
    assert all(string == str(cell) for string, cell in zip(strings, cells, strict=True) if cell is not None)


@pytest.mark.parametrize(("cell", "kind"), [([1], "a list"), ({"a": 1}, "an object"), (b"x", "bytes")])
def test_nested_cells_are_no_strings(cell, kind):
    column = pd.Series(["a", cell], [1, 5], dtype=object, name="label")
    assert f"a.jsonl: column 'label' holds {kind} in row 5" in refusal(as_strings, column, "a.jsonl")


def test_long_cells_are_shortened():
    assert shorten("x" * 50) == repr("x" * 40 + "...")
    assert (shorten("1"), shorten(1), shorten([1] * 40)) == ("'1'", "1", str([1] * 40)[:40] + "...")


# --- as spreadsheets write it in half of Europe -----------------------------------------------------------------------


def test_semicolons_separate_where_numbers_have_a_decimal_comma(write):
    content = "\ufeffid;area;n;remark;label\r\n1;1.001,5;3;a, b;x\r\n2;-0,25;1.200;c;y\r\n3;12;7;;x\r\n"
    table = read_table(write("a.csv", content))
    assert table.decimal == ","
    assert table.frame["remark"].tolist() == ["a, b", "c", ""]
    inputs = choose_inputs(table, Columns(features=("area", "n")))
    assert inputs.values["area"].tolist() == [1001.5, -0.25, 12.0]
    assert inputs.values["n"].tolist() == [3, 1.2, 7], "without a comma in the column a point is a point"


def test_commas_separate_wherever_the_header_has_one(write):
    table = read_table(write("a.csv", "id,remark\n1,a; b\n"))
    assert table.decimal == "."
    assert table.frame["remark"].tolist() == ["a; b"]
    with pytest.raises(InputError, match="cells, but the header has"):
        read_table(write("b.csv", "id,a;b\n1;2;3\n"))


def test_a_real_table_says_the_same_in_both_forms(tmp_path):
    frame = load_breast_cancer(as_frame=True).frame
    frame.to_csv(tmp_path / "point.csv", index=False)
    frame.to_csv(tmp_path / "comma.csv", index=False, sep=";", decimal=",")
    points, commas = (
        choose_inputs(read_table(tmp_path / f"{name}.csv"), Columns(label="target")) for name in ("point", "comma")
    )
    assert points.roles == commas.roles
    np.testing.assert_array_equal(points.values, commas.values)
