import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebomlc.data.columns import Columns
from ebomlc.data.memory import Arrays
from ebomlc.data.readers import Reading, read_built_in, read_source
from ebomlc.errors import DataWarning, InputError


def reading(**settings) -> Reading:
    own = {name: settings.pop(name) for name in ("image_size", "on_bad_input", "cache_dir") if name in settings}
    return Reading(columns=Columns(**settings), **own)


def refusal(data, how=None, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_source(data, how or Reading(), **options)
    return str(caught.value)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_real_texts_are_read_as_the_csv_module_reads_them(hausa):
    source = read_source(hausa / "noisy.csv", Reading())
    with (hausa / "noisy.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert source.ids.tolist() == [row["id"] for row in rows]
    assert source.labels.tolist() == [row["label"] for row in rows]
    assert source.inputs is not None
    assert source.inputs.roles == {"text": "text"}
    assert source.inputs.values["text"].tolist() == [row["text"] for row in rows]
    assert source.has_ids
    assert all(label is None for label in (*source.given, *source.checked, *source.provenance))


def test_a_real_column_of_checked_labels_is_empty_where_nobody_looked(derby):
    source = read_source(derby / "one_file.csv", Reading())
    frame = pd.read_csv(derby / "one_file.csv")
    checked = frame["checked_label"].notna()
    assert [label is not None for label in source.checked] == checked.tolist()
    assert source.checked[checked].tolist() == frame["checked_label"][checked].tolist()
    assert source.inputs is not None
    assert set(source.inputs.roles.values()) == {"number"}
    assert len(source.inputs.columns) == 65


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_says_the_same(tmp_path, suffix):
    frame = pd.DataFrame({"id": ["a", "b", "c"], "x": [1.5, 2, 4], "label": [1, 2, 1], "given_label": ["2", None, "1"]})
    path = tmp_path / f"rows.{suffix}"
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }
    writers[suffix]()
    source = read_source(path, Reading())
    assert (source.ids.tolist(), source.labels.tolist()) == (["a", "b", "c"], ["1", "2", "1"])
    assert source.given.tolist() == ["2", None, "1"]
    assert source.inputs is not None
    np.testing.assert_array_equal(source.inputs.numbers(), [[1.5], [2], [4]])


def test_without_an_id_column_rows_are_numbered_and_that_is_said(write):
    source = read_source(write("a.csv", "x,label\n5,a\n6,b\n"), Reading())
    assert (source.ids.tolist(), source.has_ids) == (["1", "2"], False)
    assert source.place(1) == "row 3 (the header is row 1)"


def test_columns_are_found_by_the_names_given(write):
    path = write("a.csv", "key,x,y,class,right,id\n1,2,3,a,,9\n2,3,4,b,a,9\n")
    source = read_source(path, reading(id="key", label="class", checked="right", features=("y", "x")))
    assert (source.ids.tolist(), source.labels.tolist(), source.checked.tolist()) == (
        ["1", "2"],
        ["a", "b"],
        [None, "a"],
    )
    assert source.inputs is not None
    assert source.inputs.columns == ("y", "x")


def test_why_a_row_was_checked_and_what_it_stands_for_are_kept(write):
    path = write("a.csv", "id,x,label,provenance,sampling_weight\n1,1,a,random,2.5\n2,2,b,suspect,\n3,3,b,,1\n")
    source = read_source(path, Reading())
    assert source.provenance.tolist() == ["random", "suspect", None]
    np.testing.assert_array_equal(source.weights, [2.5, np.nan, 1])


@pytest.mark.parametrize("weight", ["many", "-1", "0", "inf"])
def test_a_weight_must_be_a_positive_number(write, weight):
    said = refusal(write("a.csv", f"id,x,label,sampling_weight\n1,1,a,{weight}\n"))
    assert f"sampling_weight in row 2 (the header is row 1) is {weight!r}" in said


def test_an_unknown_provenance_is_refused(write):
    assert "unknown provenance 'randm': did you mean 'random'?" in refusal(
        write("a.csv", "id,x,label,given_label,provenance\n1,1,a,b,randm\n")
    )


def test_a_table_that_only_joins_labels_needs_no_inputs(write):
    noisy = read_source(write("n.csv", "id,x,label\n1,1,a\n2,2,b\n"), Reading())
    source = read_source(write("t.csv", "id,label\n2,a\n"), Reading(), like=noisy.inputs)
    assert source.inputs is None
    assert source.labels.tolist() == ["a"]
    assert "column 'x'" in refusal(write("u.csv", "label\na\n"), like=noisy.inputs), "rows without ids join nothing"


# --- vectors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vectors(tmp_path):
    """Digits as embeddings, with their table beside them."""
    images, right = load_digits(return_X_y=True)

    vectors = images[:30].astype(np.float32)

    def write_vectors(array=vectors, n=30, suffix="csv"):
        np.save(tmp_path / "rows.npy", array)
        frame = pd.DataFrame({"id": [f"r{k}" for k in range(n)], "label": right[:n].astype(str)})
        frame.to_csv(tmp_path / f"rows.{suffix}", index=False, sep="\t" if suffix == "tsv" else ",")
        return tmp_path / "rows.npy"

    return write_vectors


def test_embeddings_lie_beside_a_table_of_the_same_name(vectors):
    source = read_source(vectors(suffix="tsv"), Reading())
    assert source.inputs is not None
    assert (source.inputs.kind, source.inputs.values.dtype) == ("vectors", np.float32)
    np.testing.assert_array_equal(source.inputs.values, load_digits().data[:30])
    assert source.ids.tolist() == [f"r{k}" for k in range(30)]


def test_embeddings_of_another_type_become_float32(vectors):
    source = read_source(vectors(load_digits().data[:30]), Reading())
    assert source.inputs is not None
    assert source.inputs.values.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((29, 4), np.float32), "has 29 rows, but rows.csv has 30"),
        (np.zeros((30, 4, 2), np.float32), "numbers [rows, dimensions] needed"),
        (np.array([["a"] * 3] * 30), "numbers [rows, dimensions] needed"),
        (np.array([[1.0, 2]] * 29 + [[1, np.nan]]), "row 30 holds NaN or infinity"),
        (np.array([[object()]] * 30), "cannot load without pickle"),
    ],
)
def test_embeddings_that_cannot_be_used_are_refused(vectors, array, message):
    path = vectors()
    np.save(path, array, allow_pickle=array.dtype == object)
    assert message.replace("cannot load", "can load") in refusal(path)


def test_embeddings_need_exactly_one_table(vectors):
    path = vectors()
    path.with_suffix(".tsv").write_bytes(b"id\tlabel\n")
    assert "rows.csv, rows.tsv lie beside it: remove all but one" in refusal(path)
    path.with_suffix(".tsv").unlink()
    path.with_suffix(".csv").unlink()
    assert "no table beside it says what its rows are: write rows.csv" in refusal(path)


def test_a_file_that_is_no_array_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("id,label\n1,a\n")
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY no")
    assert "not an array that numpy can load without pickle" in refusal(tmp_path / "rows.npy")


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Digits as PNG files, in a folder for each class."""
    digits = load_digits()
    for number, (pixels, right) in enumerate(zip(digits.images[:20], digits.target, strict=False)):
        path = tmp_path / "photos" / str(right) / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(path)
    return tmp_path / "photos"


def test_a_folder_of_images_has_ids_labels_and_pixels(photos, tmp_path):
    source = read_source(photos, reading(cache_dir=tmp_path / "cache"))
    digits = load_digits()
    assert source.inputs is not None
    assert source.inputs.values.shape == (20, 1, 8, 8)
    for name, label, pixels in zip(source.ids, source.labels, source.inputs.values, strict=True):
        number = int(name.split("/")[1].removesuffix(".png"))
        assert label == str(digits.target[number])
        np.testing.assert_array_equal(pixels[0], digits.images[number] * 15)


def test_a_table_may_hold_paths(photos, tmp_path):
    rows = [
        f"x{k},{path.relative_to(tmp_path)},{path.parent.name}" for k, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (tmp_path / "images.csv").write_text("id,path,label\n" + "\n".join(rows))
    how = reading(image="path", cache_dir=tmp_path / "cache")
    source = read_source(tmp_path / "images.csv", how)
    folder = read_source(photos, how)
    assert source.inputs is not None
    assert folder.inputs is not None
    np.testing.assert_array_equal(source.inputs.values, folder.inputs.values)
    assert source.labels.tolist() == folder.labels.tolist()
    test = read_source(photos, reading(cache_dir=tmp_path / "cache", image_size=16), like=source.inputs)
    assert test.inputs is not None
    assert test.inputs.values.shape[2:] == (8, 8), "further sets take the size of the first"


def test_a_bad_image_of_a_table_takes_its_row_along(photos, tmp_path):
    files = sorted(photos.rglob("*.png"))
    rows = [f"x{k},{path.relative_to(tmp_path)},{path.parent.name}" for k, path in enumerate(files)]
    (tmp_path / "images.csv").write_text("id,path,label\n" + "\n".join(rows))
    files[2].write_bytes(b"PK\x03\x04")
    with pytest.warns(DataWarning, match="1 of 20 images cannot be read"):
        source = read_source(
            tmp_path / "images.csv", reading(image="path", cache_dir=tmp_path / "cache", on_bad_input="skip")
        )
    assert source.ids.tolist() == [f"x{k}" for k in range(20) if k != 2]
    assert source.skipped_ids == {"x2"}
    assert source.inputs is not None
    for name, label, pixels in zip(source.ids, source.labels, source.inputs.values, strict=True):
        path = files[int(name[1:])]
        assert label == path.parent.name
        np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(path)))


def test_rows_unlike_those_of_the_first_set_are_refused(vectors):
    like = read_source(vectors(), Reading()).inputs
    for data in (Arrays(np.ones((3, 63)), list("aab"), kind="embeddings"), (np.ones((3, 8, 8)), list("aab"))):
        assert "but a row of the noisy set is an embedding of 64 numbers" in refusal(data, like=like)


def test_a_bad_image_is_refused_or_left_out_with_its_row(photos, tmp_path):
    bad = sorted(photos.rglob("*.png"))[3]
    bad.write_bytes(b"%PDF-1.7")
    assert "PDF" in refusal(photos, reading(cache_dir=tmp_path / "cache"))
    with pytest.warns(DataWarning, match="1 of 20 images cannot be read and are left out"):
        source = read_source(photos, reading(cache_dir=tmp_path / "cache", on_bad_input="skip"))
    name = bad.relative_to(photos).as_posix()
    assert [skipped for skipped, _ in source.skipped] == [name]
    assert name not in source.ids
    assert source.inputs is not None
    assert len(source) == len(source.inputs) == 19


# --- Python objects and names -----------------------------------------------------------------------------------------


def test_a_frame_is_a_table():
    frame = pd.DataFrame({"x": np.arange(30) / 2, "kind": ["a", "b", "a"] * 10, "label": [0, 1, 0] * 10})
    frame["checked_label"] = [None, 1, None] * 10
    source = read_source(frame, Reading())
    assert source.labels[:3].tolist() == ["0", "1", "0"]
    assert source.checked[:3].tolist() == [None, "1", None]
    assert source.name == "(DataFrame from Python)"
    assert source.inputs is not None
    assert source.inputs.roles == {"x": "number", "kind": "category"}


def test_arrays_are_rows():
    images, right = load_digits(return_X_y=True)
    source = read_source(Arrays(images[:9], right[:9], given=right[1:10], kind="embeddings"), Reading())
    assert source.inputs is not None
    assert source.inputs.kind == "vectors"
    assert source.given.tolist() == [str(k) for k in right[1:10]]
    assert not source.has_ids


def test_built_in_sets_are_in_official_order():
    train, test = read_built_in("digits", None)
    assert len(train) + len(test) == 1797
    assert train.ids[0] == "train-0"
    assert train.inputs is not None
    assert test.inputs is not None
    rows = np.concatenate([train.inputs.numbers(), test.inputs.numbers()])
    np.testing.assert_array_equal(np.sort(rows.sum(1)), np.sort(load_digits().data.sum(1) / 16))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("nothing/here.csv", "no such file; is the path right?"),
        ("cifar10", "cifar10 needs --data-dir DIR"),
    ],
)
def test_names_of_nothing_are_refused(name, message):
    assert message in refusal(name)


def test_a_file_name_that_is_nearly_right_is_hinted_at(write):
    path = write("noisy.csv", "id,x,label\n1,1,a\n")
    assert "no such file; did you mean 'noisy.csv'?" in refusal(path.with_name("nosy.csv"))


def test_a_hugging_face_dataset_of_images_is_a_table_of_them(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    digits = load_digits()
    pixels = (digits.images[:12] * 15).astype(np.uint8)
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))})
    rows = {"picture": [Image.fromarray(image) for image in pixels], "label": digits.target[:12].tolist()}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(tmp_path / "saved")
    for data in (dataset, tmp_path / "saved"):
        source = read_source(data, reading(cache_dir=tmp_path / "cache"))
        assert source.labels.tolist() == [str(k) for k in digits.target[:12]]
        assert source.inputs is not None
        np.testing.assert_array_equal(source.inputs.values[:, 0], pixels)
