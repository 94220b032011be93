"""Main models as ONNX files: the same probabilities for any number of rows, and nothing half-written."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

from ebomlc.bilevel import FlatParameters
from ebomlc.config import ModelConfig
from ebomlc.errors import InputError
from ebomlc.models import InputShape, MainModel, build_model, onnx
from ebomlc.models.onnx import export_onnx

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

CELLS = torch.tensor(load_breast_cancer().data[:20] / 1000, dtype=torch.float32)
DIGITS = torch.tensor(load_digits().images[:20] * 15, dtype=torch.uint8)[:, None]
COLOURED = DIGITS.expand(-1, 3, -1, -1).contiguous()
NAMES = ["zero", "naïve", '"two"', "数"]


def trained(name: str, rows: torch.Tensor) -> MainModel:
    """A model whose batch statistics are those of the rows, and that is in training."""
    torch.manual_seed(0)
    channels = rows.shape[1] if rows.dim() == 4 else 0
    inputs = InputShape(tuple(rows.shape[1:]), (0.3,) * channels, (0.4,) * channels)
    model = build_model(ModelConfig(name, dropout=0.2), inputs, len(NAMES)).train()
    model(rows)
    return model


@pytest.mark.parametrize(
    ("name", "rows"),
    [("mlp", CELLS), ("mlp", DIGITS), ("cnn", DIGITS), ("resnet20", COLOURED)],
    ids=["features", "flattened", "cnn", "resnet20"],
)
def test_probabilities_are_those_of_the_model(name, rows, tmp_path, recwarn, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = trained(name, rows)
    flat = FlatParameters(model)  # as it is after a run
    export_onnx(model, rows[:3], tmp_path / "model.onnx", NAMES)
    flat.check()
    assert model.training
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")

    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == NAMES
    for n_rows in (1, 3, 20):
        (found,) = session.run(["probabilities"], {"inputs": rows[:n_rows].numpy()})
        with torch.no_grad():
            expected = model.eval()(rows[:n_rows]).logits.softmax(1)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    assert float(expected.std(0).min()) > 1e-4  # rows that all look alike would prove nothing


def test_file_is_valid_and_describes_itself(tmp_path):
    import onnx as library

    export_onnx(trained("cnn", DIGITS), DIGITS[:1], tmp_path / "model.onnx", NAMES)
    proto = library.load(tmp_path / "model.onnx")
    library.checker.check_model(proto, full_check=True)
    (given,), (returned,) = proto.graph.input, proto.graph.output
    assert (given.name, returned.name) == ("inputs", "probabilities")
    sizes = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
    assert sizes == ["rows", 1, 8, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    monkeypatch.setattr(onnx, "PARITY", -1.0)
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"differ by up to .*nothing was written"):
        export_onnx(trained("mlp", CELLS), CELLS, path, NAMES)
    assert path.read_bytes() == b"earlier"
    monkeypatch.undo()
    export_onnx(trained("mlp", CELLS), CELLS, path, NAMES)
    assert len(path.read_bytes()) > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "_convert", lambda *_: b"content")
    monkeypatch.setattr(onnx, "_check_parity", lambda *_: None)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "model.onnx", tmp_path / "file" / "model.onnx"):
        with pytest.raises(InputError, match=r"model.onnx: cannot be written: .*; choose another file"):
            export_onnx(trained("mlp", CELLS), CELLS, path, NAMES)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        export_onnx(trained("mlp", CELLS), CELLS, tmp_path / "folder", NAMES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_names_must_fit_the_model(tmp_path):
    with pytest.raises(InputError, match="3 class names for a model of 4 classes"):
        export_onnx(trained("mlp", CELLS), CELLS, tmp_path / "model.onnx", NAMES[:3])


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_package_is_named(missing, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(InputError, match=rf"need the package {missing}: pip install 'ebomlc\[onnx\]'"):
        export_onnx(trained("mlp", CELLS), CELLS, tmp_path / "model.onnx", NAMES)


class Undecided(nn.Module):
    """Goes another way for other values, which a graph cannot."""

    def forward(self, rows):
        return rows * 2 if float(rows.sum()) > 0 else rows


def test_model_that_onnx_cannot_express_is_refused(tmp_path):
    model = MainModel(nn.Sequential(Undecided(), nn.Linear(30, 8)), 8, 4)
    with pytest.raises(InputError, match=r"cannot be written as ONNX \(\w+: .*replace that operation") as caught:
        export_onnx(model, CELLS, tmp_path / "model.onnx", NAMES)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
