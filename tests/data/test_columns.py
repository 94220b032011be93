import re
import warnings
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from ebomlc.data.columns import NEVER_INPUTS, Columns, choose_inputs, describe_inputs
from ebomlc.data.inputs import Inputs
from ebomlc.data.tables import read_table, table_from_frame
from ebomlc.errors import DataWarning, InputError

CHECKED = Columns(checked="checked_label")
SENTENCES = ["the first of some words", "another row of words", "a third one says more", "here is the last of them"]


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def table(file="noisy.csv", /, **columns):
    return table_from_frame(pd.DataFrame(columns), file)


def choose(columns=CHECKED, /, like=None, **cells) -> Inputs:
    return choose_inputs(table(**cells), columns, like)


def wines() -> pd.DataFrame:
    """Real measures of wines; some of them in classes, as a form would ask for them."""
    frame = load_wine(as_frame=True).frame.rename(columns={"target": "label"})
    strength = pd.cut(frame.pop("alcohol"), 3, labels=["weak", "middling", "strong"]).astype(object)
    return frame.assign(strength=strength, dark=frame["color_intensity"] > 5, vat=(frame["proline"] // 10).astype(str))


# --- roles ------------------------------------------------------------------------------------------------------------


def test_roles_of_real_tables(hausa, derby):
    headlines = choose_inputs(read_table(hausa / "one_file.csv"), CHECKED)
    assert headlines.roles == {"text": "text"}
    assert describe_inputs(headlines) == "1 column of text ('text')"
    metrics = choose_inputs(read_table(derby / "one_file.csv"), CHECKED)
    assert set(metrics.roles.values()) == {"number"}
    assert describe_inputs(metrics) == "65 columns of numbers"
    later = choose_inputs(read_table(derby / "test.csv"), Columns(), metrics)
    assert (later.roles, len(later)) == (metrics.roles, 2206)


def test_numbers_of_a_frame_are_its_numbers():
    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "label"})
    inputs = choose_inputs(table_from_frame(frame, "(frame)"), Columns())
    np.testing.assert_array_equal(inputs.numbers(), frame.drop(columns="label").to_numpy())
    assert inputs.columns == tuple(frame.columns.drop("label"))


def test_numbers_categories_and_booleans_of_a_mixed_frame():
    frame = wines()
    inputs = choose_inputs(table_from_frame(frame, "(frame)"), Columns())
    assert inputs.columns == tuple(frame.columns.drop("label"))
    assert inputs.select("category") == ("strength", "dark")
    assert inputs.values["strength"].tolist() == frame["strength"].tolist()
    assert set(inputs.values["dark"]) == {"True", "False"}
    np.testing.assert_array_equal(inputs.values["vat"], frame["vat"].astype(float))
    assert describe_inputs(inputs) == "13 columns of numbers, 2 of categories (one-hot 2)"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_roles_and_values_are_the_same_from_every_kind_of_file(tmp_path, kind):
    frame = wines().assign(remark=[f"{SENTENCES[row % 4]} in vat {row}" for row in range(178)])
    expected = choose_inputs(table_from_frame(frame, "(frame)"), Columns())
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, double_precision=15)
    else:
        frame.to_parquet(path)
    inputs = choose_inputs(read_table(path), Columns())
    assert inputs.roles == expected.roles
    assert set(inputs.roles.values()) == {"number", "category", "text"}
    if kind == "jsonl":
        inputs.values["dark"] = inputs.values["dark"].str.capitalize()
    pd.testing.assert_frame_equal(inputs.values, expected.values)


def test_numbers_may_be_missing_integers_decimals_or_strings():
    inputs = choose(
        a=["1", "NA", " 3 ", "-.5", "1e3"],
        b=pd.array([1, None, 2**60, 0, 3], "Int64"),
        c=[Decimal("1.5"), None, Decimal(2), Decimal(3), Decimal(4)],
        d=[0, 1, 0, 1, 0],
        e=pd.Series([1, 2.5, None, "4", 2**80], dtype=object),
    )
    assert set(inputs.roles.values()) == {"number"}
    expected = [[1, 1, 1.5, 0, 1], [np.nan, np.nan, np.nan, 1, 2.5], [3, 2**60, 2, 0, np.nan], [-0.5, 0, 3, 1, 4]]
    np.testing.assert_array_equal(inputs.numbers()[:4], expected)
    assert inputs.numbers()[4].tolist() == [1000, 3, 4, 0, 2.0**80]


def test_few_values_that_repeat_are_categories_whatever_they_look_like():
    inputs = choose(
        a=["long words of a form", "other words of a form"] * 5,
        b=["yes", "no", "", None, " "] * 2,
        c=pd.Series([True, False, None, True, False] * 2, dtype=object),
        d=pd.Categorical(list(range(10))),
    )
    assert set(inputs.roles.values()) == {"category"}
    assert inputs.values["b"].tolist() == ["yes", "no", None, None, None] * 2
    assert inputs.values["c"].tolist()[:3] == ["True", "False", None]
    assert inputs.values["d"].tolist() == [str(value) for value in range(10)]


def test_many_values_are_categories_where_each_is_frequent():
    towns = [f"town {row % 40}" for row in range(800)]
    assert choose(town=towns).roles == {"town": "category"}
    with pytest.warns(DataWarning, match=r"'town' \(nearly every cell differs"):
        assert choose(town=towns[:80], x=np.arange(80) / 2).roles == {"x": "number"}


@pytest.mark.parametrize(
    "texts",
    [
        SENTENCES,
        ["ɗan ƙasa ya tafi gida", "ina kwana da safe", "", "kasuwa ta yau ce"],
        ["東京では今日も雨が降る", "大阪は晴れています今日", "明日は雪が降るでしょう", "x"],
    ],
)
def test_texts_are_known_by_their_words(texts):
    inputs = choose(remark=texts)
    assert inputs.roles == {"remark": "text"}
    assert inputs.values["remark"].tolist() == texts


def test_missing_texts_are_empty():
    inputs = choose(remark=[*SENTENCES, None, np.nan])
    assert inputs.values["remark"].tolist() == [*SENTENCES, "", ""]


def test_an_infinite_cell_is_in_the_way_of_numbers():
    with pytest.warns(DataWarning, match="column 'y' is left out, for inf in row 2"):
        assert choose(x=[1, 2, 3], y=[1, np.inf, 2]).columns == ("x",)


# --- what is never an input, or left out ------------------------------------------------------------------------------


def test_columns_that_say_something_about_labels_are_never_inputs():
    names = [
        *NEVER_INPUTS,
        "key",
        "class",
        "right",
        "file",
        "",
        "Unnamed: 0",
        "__index_level_0__",
        "x",
        "id",
    ]
    columns = Columns("key", "class", "right", image="file")
    inputs = choose(columns, **{name: [1, 2] for name in names})
    assert inputs.columns == ("x", "id")


def test_one_warning_says_what_is_left_out_and_why():
    left_out = {
        "code": [f"c{row:03}" for row in range(5)],
        "name": ["Ann Lee", "Bob Ray", "Cy Young", "Di Orr", "Ed Poe"],
        "day": ["2020-01-01", "2020-01-02", "2020-01-03", "12 March 2020", "Mon Jan 5 2020"],
        "when": pd.date_range("2020-01-01", periods=5),
        "box": [[1], [2], [3], [4], [5]],
        "mixed": pd.Series(["a", {"b": 1}, None, 2, 3], dtype=object),
        "empty": ["", None, "NA", "", ""],
    }
    with pytest.warns(DataWarning) as caught:
        inputs = choose(x=range(5), **left_out)
    assert inputs.columns == ("x",)
    assert [str(warning.message) for warning in caught] == [
        "noisy.csv: left out as inputs: 'code', 'name', 'day' (nearly every cell differs, as in names, codes and "
        "dates); 'when' (dates and times are no input); 'box', 'mixed' (lists, objects and bytes are no input); "
        "'empty' (empty in every row); --features and --text say which columns to use"
    ]


def test_a_column_of_numbers_with_a_slip_is_left_out_aloud(write):
    path = write("a.csv", "id,x,y,label\n1,1,1,a\n2,2,2,b\n3,3,1o,b\n")
    with pytest.warns(DataWarning) as caught:
        assert choose_inputs(read_table(path), Columns()).columns == ("x",)
    message = (
        "column 'y' is left out, for '1o' in row 4 (the header is row 1) is not a number; empty such cells to use it"
    )
    assert [str(warning.message) for warning in caught] == [f"{path}: {message}"]


def test_a_true_among_numbers_is_not_one():
    with pytest.warns(DataWarning, match="column 'y' is left out, for True in row 1"):
        choose(x=[1, 2, 3], y=pd.Series([True, 2, 3], dtype=object))


def test_nothing_to_learn_from_is_refused_with_a_hint():
    said = refusal(choose, name=["ann", "bob"], label=["a", "b"])
    assert "no column to learn from beside the labels ('name' (nearly every cell differs" in said
    assert said.endswith("if one holds text, say --text name")
    assert "no column to learn from" in refusal(choose, id=[1, 2], label=["a", "b"])


# --- named columns ----------------------------------------------------------------------------------------------------


def test_named_columns_and_no_others_are_used():
    cells = {"a": [1, 2, 3, 4], "b": ["x", "y", "y", "z"], "remark": SENTENCES, "title": list("abcd")}
    assert choose(Columns(features=("b", "a")), **cells).roles == {"b": "category", "a": "number"}
    assert choose(Columns(text=("title",)), **cells).roles == {"title": "text"}
    both = choose(Columns(text=("remark",), features=("a",)), **cells)
    assert both.roles == {"a": "number", "remark": "text"}


REFUSED = {
    "unknown": (Columns(features=("xx",)), "unknown column 'xx': did you mean 'x'?"),
    "unknown text": (Columns(text=("tex",)), "unknown column 'tex': did you mean 'text'?"),
    "empty": (Columns(features=("empty",)), "column 'empty' cannot be used: empty in every row"),
    "empty text": (Columns(text=("empty",)), "column 'empty' is empty in every row; take it from --text"),
    "dates": (Columns(features=("when",)), "column 'when' cannot be used: dates and times are no input"),
    "texts": (Columns(features=("text",)), "column 'text' holds texts, not numbers or categories; say --text text"),
    "nested": (Columns(text=("box",)), "column 'box' holds a list in row 1, [1]; a cell must be"),
    "the label": (Columns(features=("label",)), "column 'label' says something about the labels"),
    "given": (Columns(text=("given_label",)), "column 'given_label' says something about the labels"),
    "a slip": (
        Columns(features=("slip",)),
        "'2o' in column 'slip', row 2 (the first is row 1), is not a finite number",
    ),
    "a long slip": (Columns(features=("long",)), f"'{'9' * 40}...' in column 'long', row 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_named_columns_that_cannot_be_used_are_refused(case):
    columns, message = REFUSED[case]
    cells = {
        "x": range(4),
        "text": SENTENCES,
        "empty": ["", None, "", ""],
        "when": pd.date_range("2020-01-01", periods=4),
        "box": [[1], [2], [3], [4]],
        "label": [1, 0, 1, 0],
        "given_label": list("abab"),
        "slip": ["1", "2o", "3", "4"],
        "long": ["9" * 400, "1", "2", "3"],
    }
    said = refusal(choose, columns, **cells)
    assert said.startswith("noisy.csv: ")
    assert message in said


# --- as in the first table --------------------------------------------------------------------------------------------


def mixed(**changes) -> dict:
    return {"age": [1, 2, 3, 4], "kind": ["a", "b"] * 2, "remark": SENTENCES, **changes}


def test_another_table_is_read_as_the_first_one_whatever_it_looks_like():
    first = choose(**mixed())
    later = mixed(age=["", "NA", "5", "6.5"], kind=[7, 8.0, None, "new"], remark=["x", "y", None, 3], more=[1, 2, 3, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = choose(like=first, **dict(reversed(later.items())))
    assert inputs.roles == first.roles
    assert inputs.columns == ("age", "kind", "remark")
    np.testing.assert_array_equal(inputs.values["age"], [np.nan, np.nan, 5, 6.5])
    assert inputs.values["kind"].tolist() == ["7", "8", None, "new"]
    assert inputs.values["remark"].tolist() == ["x", "y", "", "3"]
    assert len(first.join(inputs)) == 8


def test_no_row_of_the_first_table_is_needed():
    first = choose(**mixed())
    empty = replace(first, values=first.values.iloc[:0])
    pd.testing.assert_frame_equal(choose(like=empty, **mixed()).values, first.values)


@pytest.mark.parametrize("wrong", ["old", True, [1], np.inf])
def test_a_cell_of_another_type_is_refused_with_both_tables(wrong):
    first = choose(**mixed())
    later = table("test.csv", **mixed(age=pd.Series([1, 2, wrong, 3], dtype=object)))
    said = refusal(choose_inputs, later, Columns(), first, like_name="noisy.csv")
    assert said.startswith(
        f"test.csv: column 'age' holds numbers in noisy.csv, but {wrong!r} stands in row 3 (the first"
    )


def test_a_missing_column_is_refused_with_its_near_name():
    first = choose(**mixed())
    cells = mixed(Age=[1, 2, 3, 4])
    del cells["age"]
    said = refusal(choose_inputs, table("test.csv", **cells), Columns(), first)
    assert "test.csv: unknown column 'age': did you mean 'Age'?" in said
    assert "the noisy set has numbers there" in said


def test_a_table_is_not_read_as_images():
    images = Inputs("images", np.zeros((1, 1, 8, 8), np.uint8))
    assert "holds images; give images too" in refusal(choose, like=images, x=[1, 2])


# --- what is said of them ---------------------------------------------------------------------------------------------


def test_everything_is_described_in_one_line():
    n = 1500
    inputs = choose(
        **{f"x{k}": np.arange(n) / 2 for k in range(11)},
        gap=[None, *range(n - 1)],
        colour=["red", "green", None] * 500,
        town=[f"town {row % 30}" for row in range(n)],
        headline=[f"{SENTENCES[row % 4]} {row}" for row in range(n)],
    )
    assert describe_inputs(inputs) == (
        "12 columns of numbers, 2 of categories (one-hot 1, ordinal 1), 1 of text ('headline'); "
        "501 empty cells filled in ('gap', 'colour')"
    )


def test_a_single_column_is_described_in_the_singular():
    assert describe_inputs(choose(x=[1, None])) == "1 column of numbers; 1 empty cell filled in ('x')"
    assert describe_inputs(choose(c=["a", "a"])) == "1 column of categories (one-hot 1)"


def test_vectors_and_images_are_described():
    assert describe_inputs(Inputs("vectors", np.zeros((3, 1024), np.float32))) == "vectors of 1,024 numbers"
    assert describe_inputs(Inputs("images", np.zeros((3, 1, 8, 9), np.uint8))) == "images of 1 x 8 x 9"


def test_columns_without_a_name_are_known_by_how_pandas_writes_them(tmp_path):
    frame = wines()
    frame.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "twice.csv")
    frame.iloc[::2].to_parquet(tmp_path / "index.parquet")
    for name in ("once.csv", "twice.csv", "index.parquet"):
        inputs = choose_inputs(read_table(tmp_path / name), Columns())
        assert not any(re.search("index|Unnamed", column) for column in inputs.columns)
        assert len(inputs.columns) == 15


# --- columns that are most likely no inputs ---------------------------------------------------------------------------


def table_of(**columns):
    return table_from_frame(pd.DataFrame({"label": ["p", "q", "r"] * 20, "x": np.arange(60) / 2, **columns}), "n.csv")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({"Patient No": np.random.default_rng(0).permutation(60) + 500}, "as ids do: --id 'Patient No'"),
        ({"row": range(60)}, "as ids do: --id 'row'"),
        ({"seen": ["p", "q"] + [None] * 58}, "if somebody checked these, --checked 'seen'"),
        ({"file": [f"photos/{k}.JPG" for k in range(60)]}, "paths of images: --image 'file'"),
        ({"area": [f"{k}1,{k % 10}" for k in range(60)]}, "numbers as in '01,0': write them with a decimal point"),
        ({"share": [f"{k}.5 %" for k in range(60)]}, "numbers as in '0.5 %'"),
        ({"price": [f"€ 1.{k:03},00" for k in range(60)]}, "numbers as in '€ 1.000,00'"),
    ],
)
def test_what_looks_like_an_input_and_is_none_is_left_out_aloud(column, reason):
    with pytest.warns(DataWarning) as warned:
        assert choose_inputs(table_of(**column), Columns()).columns == ("x",)
    assert reason in str(warned[0].message)


def test_checked_numbers_are_no_input_either():
    frame = pd.DataFrame({"label": [1, 2, 3] * 20, "x": np.arange(60) / 2, "seen": [1, 3] + [None] * 58})
    with pytest.warns(DataWarning, match="--checked 'seen'"):
        assert choose_inputs(table_from_frame(frame, "n.csv"), Columns()).columns == ("x",)


def test_answers_in_the_words_of_the_label_are_inputs_where_they_are_full():
    frame = pd.DataFrame({"label": ["yes", "no"] * 30, "smokes": ["no", "no", "yes"] * 20})
    assert choose_inputs(table_from_frame(frame, "n.csv"), Columns()).roles == {"smokes": "category"}


def test_a_column_that_counts_is_an_input_beside_ids_and_where_it_is_asked_for():
    table = table_of(id=[f"a{k}" for k in range(60)], day=range(60))
    assert choose_inputs(table, Columns()).columns == ("x", "day")
    assert choose_inputs(table_of(row=range(60)), Columns(features=("row",))).columns == ("row",)


def test_numbers_written_otherwise_are_refused_where_they_are_asked_for():
    table = table_of(area=[f"{k}1,{k % 10}" for k in range(60)])
    with pytest.raises(InputError, match="column 'area' cannot be used, for it holds numbers as in '01,0'"):
        choose_inputs(table, Columns(features=("area",)))
