"""What a run did to inputs and labels, on disk, so that new rows can be treated alike: JSON and npz, never pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from ebomlc.data.arrays import load_arrays
from ebomlc.data.documents import read_document
from ebomlc.data.encoders import ELSEWHERE, ENCODERS, Encoder
from ebomlc.data.inputs import Inputs, no_rows
from ebomlc.data.spelling import Spelling
from ebomlc.errors import InputError, unknown_name

DETAILS, ARRAYS = "encoder.json", "encoder.npz"


@dataclass(frozen=True)
class Preprocessing:
    """Everything between what a user has and what the main model is fed and says.

    Attributes
    ----------
    encoder : Encoder
        Fitted.
    like : Inputs
        Inputs of which further ones are read alike; what is stored has none of their rows.
    class_names : tuple of str, length K
        In the order of the model's outputs.
    spelling : mapping of str to str
        How labels are spelt that came in several ways.
    """

    encoder: Encoder
    like: Inputs
    class_names: tuple[str, ...]
    spelling: Spelling = field(default_factory=dict)


def save_preprocessing(preprocessing: Preprocessing, folder: Path) -> None:
    """Write ``encoder.json`` and ``encoder.npz`` into an existing folder."""
    encoder, like = preprocessing.encoder, preprocessing.like
    content = {
        "encoder": encoder.name,
        "kind": like.kind,
        "roles": dict(like.roles),
        "shape": () if like.kind == "table" else like.values.shape[1:],
        "class_names": preprocessing.class_names,
        "spelling": dict(preprocessing.spelling),
        "details": encoder.details(),
    }
    (folder / DETAILS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    np.savez(folder / ARRAYS, **encoder.arrays())  # type: ignore[arg-type] - the stub of numpy


def load_preprocessing(folder: Path) -> Preprocessing:
    """What `save_preprocessing` wrote.

    Raises
    ------
    InputError
        For an encoder that this version does not know.
    OSError, ValueError, KeyError
        Where a file is missing or damaged.
    """
    content = read_document(folder / DETAILS)
    name = content.get("encoder", "(none)")
    if name in ELSEWHERE:
        import_module(ELSEWHERE[name])
    if name not in ENCODERS:
        raise InputError(
            f"{folder / DETAILS}: {unknown_name('encoder', name, ENCODERS)}; use the version of ebomlc that wrote it"
        )
    encoder = ENCODERS[name].restore(content["details"], load_arrays(folder / ARRAYS))
    like = no_rows(content["kind"], content["roles"], tuple(content["shape"]))
    return Preprocessing(encoder, like, tuple(content["class_names"]), content["spelling"])
