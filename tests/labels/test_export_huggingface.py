"""Datasets that the library reads back."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ebomlc.data.inputs import Inputs
from ebomlc.labels.export import Contents
from ebomlc.labels.export_huggingface import write_huggingface

datasets = pytest.importorskip("datasets", reason="the extra [hf] is not installed")

pytestmark = pytest.mark.filterwarnings("default")  # those of the library are not ours

PIXELS = np.random.default_rng(0).integers(256, size=(3, 3, 8, 8), dtype=np.uint8)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": np.array(["=a", "b", "c"], dtype=object),
            "given_label": np.array(["p", None, "q"], dtype=object),
            "label_quality": [0.5, np.nan, 0.25],
            "is_label_issue": [True, False, False],
            "final_label": np.array(["q", "p", "q"], dtype=object),
        }
    )


def write(folder, contents):
    assert write_huggingface(frame(), contents, ("p", "q"), folder) == 3
    return datasets.load_from_disk(str(folder))


def test_the_final_label_is_a_class_label_and_the_given_one_stays(tmp_path):
    values = pd.DataFrame({"text": ["u", "v", "w"], "id": [1.0, 2.0, np.nan]})
    contents = Contents(Inputs("table", values, {"text": "text", "id": "number"}), (None,) * 3)
    back = write(tmp_path, contents)
    assert back.features["label"].names == ["p", "q"]
    assert back["label"][:] == [1, 0, 1]
    assert back["given_label"][:] == ["p", None, "q"]
    assert back["label_quality"][:] == [0.5, None, 0.25]
    assert back["is_label_issue"][:] == [True, False, False]
    assert back["id"][:] == ["=a", "b", "c"]
    assert back["input_id"][:] == [1.0, 2.0, None]
    assert back["text"][:] == ["u", "v", "w"]


def test_images_are_in_the_dataset_itself(tmp_path):
    file = tmp_path / "1.png"
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(file)
    back = write(tmp_path / "out", Contents(Inputs("images", PIXELS), (file, None, None)))
    file.unlink()
    for k in range(3):
        np.testing.assert_array_equal(np.asarray(back[k]["image"]), PIXELS[k].transpose(1, 2, 0))


def test_embeddings_stay_what_they_are(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    back = write(tmp_path, Contents(Inputs("vectors", vectors), (None,) * 3))
    np.testing.assert_array_equal(np.array(back["embedding"][:], np.float32), vectors)
