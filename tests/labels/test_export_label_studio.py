"""Tasks as Label Studio's documentation describes them (guide/predictions, guide/task_format)."""

import base64
import io
import json
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ebomlc.data.inputs import Inputs
from ebomlc.errors import InputError
from ebomlc.labels.export import Contents
from ebomlc.labels.export_label_studio import local_files_root, write_label_studio

NAMES = ('"<b>&\n', "good")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "given_label": ["good", NAMES[0], "good", "good"],
            "suggested_label": [NAMES[0], "good", "good", "good"],
            "suggestion_confidence": [0.9, 0.4, 0.7, 1.0],
            "final_label": ["good"] * 4,
            "label_source": ["suggested", "given", "given", "trusted"],
        }
    )


def texts() -> Contents:
    values = pd.DataFrame({"text": ["=a", "<script>", "c", "d"]})
    return Contents(Inputs("table", values, {"text": "text"}), (None,) * 4)


def write(folder, contents):
    n = write_label_studio(frame(), contents, NAMES, "glc", folder)
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    interface = ElementTree.fromstring((folder / "config.xml").read_text(encoding="utf-8"))
    assert n == len(tasks)
    return tasks, interface


def check_format(tasks, interface):
    """What the documentation asks of tasks with predictions, and that they fit the labelling interface."""
    (control,) = interface.iter("Choices")
    names = {tag.get("name"): tag for tag in interface.iter() if tag.get("name")}
    shown = names[control.get("toName")]
    assert shown.get("value").startswith("$")
    choices = [choice.get("value") for choice in control.iter("Choice")]
    for task in tasks:
        assert set(task) == {"data", "predictions"}
        assert task["data"][shown.get("value")[1:]]
        (prediction,) = task["predictions"]
        assert set(prediction) == {"model_version", "score", "result"}
        assert 0 <= prediction["score"] <= 1
        (result,) = prediction["result"]
        assert result["type"] == "choices"
        assert (result["from_name"], result["to_name"]) == (control.get("name"), shown.get("name"))
        assert result["value"]["choices"][0] in choices
    ids = [task["predictions"][0]["result"][0]["id"] for task in tasks]
    assert len(set(ids)) == len(ids)


def test_open_rows_are_tasks_with_predictions_the_most_doubtful_first(tmp_path):
    tasks, interface = write(tmp_path, texts())
    check_format(tasks, interface)
    assert [task["data"]["id"] for task in tasks] == ["b", "c", "a"]
    assert [task["predictions"][0]["score"] for task in tasks] == [0.4, 0.7, 0.9]
    assert tasks[0]["data"]["text"] == "<script>"
    assert tasks[0]["data"]["given_label"] == NAMES[0]
    assert interface.find("Text") is not None


def test_rows_of_a_table_are_shown_as_tables(tmp_path):
    values = pd.DataFrame({"x": [1.5, np.nan, 2.0, 3.0], "c": ["u", None, "v", "w"]})
    contents = Contents(Inputs("table", values, {"x": "number", "c": "category"}), (None,) * 4)
    tasks, interface = write(tmp_path, contents)
    check_format(tasks, interface)
    assert interface.find("Table").get("value") == "$row"
    assert tasks[0]["data"]["row"] == {"x": "", "c": ""}
    assert tasks[1]["data"]["row"] == {"x": 2.0, "c": "v"}


def test_images_in_files_are_served_from_their_common_folder(tmp_path):
    files = tuple(tmp_path / "photos" / name for name in ("p/1 a.png", "p/2&.png", "q/é.png", "q/4.png"))
    contents = Contents(Inputs("images", np.zeros((4, 1, 8, 8), np.uint8)), files)
    tasks, interface = write(tmp_path, contents)
    check_format(tasks, interface)
    root = local_files_root(contents)
    assert root == tmp_path / "photos"
    served = [root / unquote(task["data"]["image"].removeprefix("/data/local-files/?d=")) for task in tasks]
    assert served == [files[1], files[2], files[0]]
    assert not [task for task in tasks if "&" in task["data"]["image"]]


def test_images_without_files_are_in_the_tasks(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(4, 3, 8, 8), dtype=np.uint8)
    contents = Contents(Inputs("images", pixels), (None,) * 4)
    tasks, interface = write(tmp_path, contents)
    check_format(tasks, interface)
    head, _, content = tasks[0]["data"]["image"].partition(",")
    assert head == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(shown, pixels[1].transpose(1, 2, 0))
    assert local_files_root(contents) is None


def test_what_cannot_be_shown_or_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="the rows are embeddings"):
        write(tmp_path, Contents(Inputs("vectors", np.zeros((4, 2), np.float32)), (None,) * 4))
    with pytest.raises(InputError, match="control character"):
        write_label_studio(frame(), texts(), ("good", "a\x07b"), "glc", tmp_path)
