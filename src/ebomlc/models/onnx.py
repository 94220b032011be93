"""A trained main model as an ONNX file: encoded rows in, probabilities out, for use without torch."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebomlc.errors import InputError, listed
from ebomlc.models.backbones import MainModel
from ebomlc.models.wrap import two_rows
from ebomlc.version import __version__

INPUTS, PROBABILITIES = "inputs", "probabilities"
CLASS_NAMES = "class_names"
"""Key of the file's metadata: a JSON list, in the order of the columns of the probabilities."""

OPSET = 18
"""Version of ONNX's operators; the first that can resize with antialiasing, and old enough for every runtime."""

TRACED_ROWS = 4
PARITY = 1e-4
"""Most that a probability of the file may differ from the model's."""


class Probabilities(nn.Module):
    """A main model that gives probabilities [n, K] instead of features and logits."""

    def __init__(self, model: MainModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Rows sum to 1."""
        return self.model(inputs).logits.softmax(dim=1)


def export_onnx(model: MainModel, example: Tensor, path: Path, class_names: Sequence[str]) -> None:
    """Write a main model as ONNX, from ``inputs`` [n, ...] to ``probabilities`` [n, K], for any number of rows n.

    The file is compared with the model where onnxruntime is installed, and takes its place only when it is whole.

    Parameters
    ----------
    model : MainModel
        In any mode, on any device; written as it is in evaluation.
    example : Tensor, shape [n, ...]
        Rows as the model is fed them: float32 features, or uint8 images.
    path : Path
        File to write; one that is there is replaced.
    class_names : sequence of str, length K
        Kept in the file's metadata as a JSON list under ``class_names``.

    Raises
    ------
    InputError
        Where a package is missing, the names do not fit the model, the model holds something that ONNX cannot express
        or expresses otherwise, or the file cannot be written.
    """
    if len(class_names) != model.n_classes:
        raise InputError(f"{len(class_names)} class names for a model of {model.n_classes} classes: give one for each")
    _require_packages()
    network = Probabilities(copy.deepcopy(model)).cpu().eval().requires_grad_(False)
    rows = two_rows(example[:TRACED_ROWS].cpu())
    content = _convert(network, rows, class_names)
    _check_parity(content, network, rows)
    _write_whole(path, content)


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX files need the package {listed(missing)}: pip install 'ebomlc[onnx]'")


def _convert(network: Probabilities, rows: Tensor, class_names: Sequence[str]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecated parts
        try:
            program: Any = torch.onnx.export(
                network,
                (rows,),
                input_names=[INPUTS],
                output_names=[PROBABILITIES],
                dynamic_shapes={"inputs": {0: torch.export.Dim("rows")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = str(cause).strip().partition("\n")[0]
            raise InputError(
                f"the model cannot be written as ONNX ({type(cause).__name__}: {reason}): replace that operation, "
                "or keep to main.safetensors"
            ) from error
    proto = program.model_proto
    for key, value in ((CLASS_NAMES, json.dumps(list(class_names), ensure_ascii=False)), ("ebomlc", __version__)):
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


@torch.no_grad()
def _check_parity(content: bytes, network: Probabilities, rows: Tensor) -> None:
    """Compare on several rows and on one, where onnxruntime is there to do it."""
    if find_spec("onnxruntime") is None:
        return
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for some in (rows, rows[:1]):
        (found,) = session.run([PROBABILITIES], {INPUTS: some.numpy()})
        difference = float((torch.from_numpy(found) - network(some)).abs().max())
        if not difference <= PARITY:
            raise InputError(
                f"the model as ONNX gives probabilities that differ by up to {difference:.2g} from its own, on "
                f"{len(some)} rows: nothing was written; keep to main.safetensors"
            )


def _write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; choose another file") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
