import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from ebomlc.data.memory import Arrays, arrays_from_object, frame_from_huggingface, is_table
from ebomlc.errors import InputError
from tests.data.conftest import lies_on_disk

DIGITS = load_digits()
PIXELS = (DIGITS.images[:20] * 15).astype(np.uint8)
LABELS = DIGITS.target[:20]


def refusal(data) -> str:
    with pytest.raises(InputError) as caught:
        arrays_from_object(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "kind", "shape"),
    [
        (DIGITS.data[:20], "numbers", (20, 64)),
        (pd.DataFrame(DIGITS.data[:20]), "numbers", (20, 64)),
        (PIXELS, "images", (20, 1, 8, 8)),
        (PIXELS[..., None].repeat(3, -1), "images", (20, 3, 8, 8)),
        (PIXELS[:, None].repeat(3, 1), "images", (20, 3, 8, 8)),
        (torch.as_tensor(PIXELS), "images", (20, 1, 8, 8)),
        ([f"text {k}" for k in range(20)], "texts", (20,)),
    ],
)
def test_what_inputs_are_is_seen_from_their_shape(inputs, kind, shape):
    arrays = arrays_from_object((inputs, LABELS))
    assert (arrays.kind, arrays.inputs.shape) == (kind, shape)
    assert arrays.labels.tolist() == [str(k) for k in LABELS]
    assert arrays.ids.tolist() == [str(k) for k in range(1, 21)]
    assert not arrays.has_ids


def test_floats_from_0_to_1_are_pixels():
    arrays = arrays_from_object((PIXELS / 255, LABELS))
    np.testing.assert_array_equal(arrays.inputs[:, 0], PIXELS)


def test_colours_keep_their_places():
    colours = np.stack([PIXELS, PIXELS // 2, PIXELS // 3], axis=-1)
    channels = arrays_from_object((colours, LABELS)).inputs
    np.testing.assert_array_equal(channels[:, 1], PIXELS // 2)


def test_ids_given_labels_and_gaps_are_kept():
    given = np.where(np.arange(20) % 2, LABELS, np.nan)
    arrays = arrays_from_object(Arrays(PIXELS, LABELS, ids=[f"a/{k}" for k in range(20)], given=given))
    assert arrays.has_ids
    assert arrays.ids[3] == "a/3"
    assert arrays.given[:4].tolist() == [None, str(LABELS[1]), None, str(LABELS[3])]


def test_labels_may_be_words_booleans_or_a_series():
    for labels, expected in (
        (np.array(["x", "y"] * 10), "y"),
        (pd.Series([True, False] * 10, index=range(5, 25)), "False"),
        (pd.Categorical(["p", "q"] * 10), "q"),
    ):
        assert arrays_from_object((PIXELS, labels)).labels[1] == expected


def test_a_gap_in_a_list_of_labels_is_no_class():
    labels = ["p", float("nan"), None, "q"] * 5
    assert arrays_from_object((PIXELS, labels)).labels[:4].tolist() == ["p", None, None, "q"]
    assert arrays_from_object((PIXELS, None)).labels.tolist() == [None] * 20


def test_tensors_with_a_gradient_are_taken_as_they_are():
    inputs = torch.tensor(DIGITS.data[:20], requires_grad=True)
    np.testing.assert_array_equal(arrays_from_object((inputs, torch.as_tensor(LABELS))).inputs, DIGITS.data[:20])


def test_a_torch_dataset_is_read_once_in_its_order():
    dataset = TensorDataset(torch.as_tensor(PIXELS)[:, None].repeat(1, 3, 1, 1), torch.as_tensor(LABELS))
    arrays = arrays_from_object(dataset)
    assert arrays.inputs.shape == (20, 3, 8, 8)
    np.testing.assert_array_equal(arrays.inputs[:, 2], PIXELS)
    assert arrays.labels.tolist() == [str(k) for k in LABELS]


def test_a_dataset_of_feature_rows_is_numbers():
    dataset = TensorDataset(torch.as_tensor(DIGITS.data[:20]), torch.as_tensor(LABELS))
    arrays = arrays_from_object(dataset)
    assert (arrays.kind, arrays.inputs.shape) == ("numbers", (20, 64))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data of type int cannot be read"),
        ((PIXELS, LABELS[:5]), "5 labels, but inputs has 20 rows"),
        (Arrays(PIXELS, LABELS, ids=["a"]), "20 labels, but ids has 1 rows"),
        ((PIXELS * 3.7, LABELS), "give uint8, or floats from 0 to 1"),
        ((PIXELS[:, None].repeat(2, 1), LABELS), "with 1 or 3 channels"),
        ((np.full((20, 3), np.inf), LABELS), "hold infinity"),
        ((np.full((20, 3), "a"), LABELS), "for columns of words give a DataFrame"),
        ((["a"] * 19 + [3], LABELS), "inputs hold 3 among texts"),
        (({"x": [1.0] * 20}, LABELS), "give a DataFrame, pandas.DataFrame(inputs)"),
        (([[1.0], [1.0, 2.0]] * 10, LABELS), "all rows must have one shape"),
        ((PIXELS[:0], []), "the array is empty"),
        (Arrays(PIXELS, LABELS, kind="pictures"), "Arrays.kind is 'pictures'"),  # type: ignore[arg-type]
        (TensorDataset(torch.as_tensor(PIXELS)), "must give (input, label) for each index"),
    ],
)
def test_what_cannot_be_used_is_refused(data, message):
    assert message in refusal(data)


def test_a_hugging_face_dataset_is_a_table_with_the_names_of_its_classes(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["spam", "ham"])}
    )
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, None]}, features=features)
    assert is_table(dataset)
    assert frame_from_huggingface(dataset, tmp_path)[0]["label"].fillna("none").tolist() == ["ham", "spam", "none"]
    dataset.save_to_disk(tmp_path / "saved")
    assert frame_from_huggingface(str(tmp_path / "saved"), tmp_path)[0]["text"].tolist() == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"a DatasetDict is not one table: give one of its splits \(train\)"):
        frame_from_huggingface(datasets.DatasetDict({"train": dataset}), tmp_path)


def test_a_huggingface_dataset_larger_than_memory_is_read_to_the_disk(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    datasets.disable_progress_bars()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digits = load_digits(as_frame=True)
    dataset = datasets.Dataset.from_pandas(digits.data.assign(label=digits.target, id=[f"{k}" for k in range(1797)]))
    dataset = dataset.cast_column("label", datasets.ClassLabel(names=list("abcdefghij")))
    whole, _ = frame_from_huggingface(dataset, tmp_path / "images")
    monkeypatch.setattr("ebomlc.data.stream.MEMORY_SHARE", 0)
    frame, _ = frame_from_huggingface(dataset, tmp_path / "images")
    assert lies_on_disk(frame["pixel_0_1"].to_numpy())
    assert not lies_on_disk(whole["pixel_0_1"].to_numpy())
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), whole, check_dtype=False)
    assert frame["label"].tolist() == [chr(ord("a") + k) for k in digits.target]
    assert list((tmp_path / "images").iterdir()) == [], "what lay in between is removed"


def test_a_folder_that_holds_no_dataset_is_refused(tmp_path):
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match="Hugging Face datasets cannot load it"):
        frame_from_huggingface(str(tmp_path), tmp_path)
