"""A finished run, read back from its folder alone, and applied to new rows."""

from __future__ import annotations

import tomllib
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ebomlc.config import RunConfig, build
from ebomlc.data.columns import Columns
from ebomlc.data.encoders import Encoder, ImageEncoder, TableEncoder, VectorEncoder
from ebomlc.data.frozen import is_frozen
from ebomlc.data.inputs import Inputs
from ebomlc.data.joining import to_index
from ebomlc.data.preprocessing import Preprocessing, load_preprocessing
from ebomlc.data.readers import Reading, Source, read_source
from ebomlc.data.sets import is_empty, respell
from ebomlc.data.spelling import Spelling, fold_label
from ebomlc.errors import DataWarning, InputError, listed, unknown_name
from ebomlc.methods import Method, Setup, find_method
from ebomlc.models import CentreAndScale, MainModel, build_model, model_from_module
from ebomlc.preparation import input_shape
from ebomlc.records import NO_LABEL
from ebomlc.run_folder import CONFIG, ENCODER, MAIN, SUMMARY
from ebomlc.training.device import choose_device, make_optimizer, place, suitable_threads
from ebomlc.training.states import load_state

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ENCODING_BATCH, IMAGE_BATCH, PREDICTION_BATCH = 20_000, 1000, 1000
"""Rows and images that are encoded, and rows that go through the model, at once; the last as in training."""

UNKNOWN_KEPT = 100
"""So many labels that are no class of the run are kept to be named."""


@dataclass(frozen=True)
class Classifier:
    """The main model of a run with everything it needs to read new rows.

    Attributes
    ----------
    folder : Path
        The run folder.
    config : RunConfig
        Its effective configuration.
    class_names : tuple of str, length K
        Class k's name.
    encoder : Encoder
        Its preprocessing.
    like : Inputs
        No rows, of the kind and the columns that the run was trained on.
    spelling : mapping of str to str
        How labels are spelt that came in several ways.
    model : MainModel
        In evaluation mode.
    """

    folder: Path
    config: RunConfig
    class_names: tuple[str, ...]
    encoder: Encoder
    like: Inputs
    spelling: Spelling
    model: MainModel

    def read(self, data: Any, *, on_bad_input: str = "error") -> Source:  # noqa: ANN401 - as `read_source`
        """New rows, read the way the run's own were; ids and labels may be missing.

        Raises
        ------
        InputError
            For rows that are not like those of the run.
        """
        source = read_source(data, _reading(self.config, self.like, on_bad_input), like=self.like, test=True)
        spelling = dict(self.spelling)
        if self.config.data.normalise_labels:
            names = {fold_label(name): name for name in self.class_names}
            found = {*source.labels, *source.checked} - {None}
            spelling |= {label: names.get(fold_label(label), label) for label in found}
        if not spelling:
            return source
        labels, checked = (respell(column, spelling) for column in (source.labels, source.checked))
        return replace(source, labels=labels, checked=checked)

    def exportable(self) -> tuple[MainModel, Tensor, str]:
        """The model with as much of the preprocessing as a network can hold.

        Returns
        -------
        MainModel
            Takes images as they are read, and embeddings as they are in their file; other rows encoded.
        Tensor, shape [4, ...]
            Random rows of the shape and type that it takes.
        str
            What its inputs are.
        """
        generator = torch.Generator().manual_seed(0)
        if isinstance(self.encoder, ImageEncoder):
            shape = (4, *self.like.values.shape[1:])
            return self.model, torch.randint(256, shape, generator=generator, dtype=torch.uint8), "images as uint8"
        example = torch.randn((4, *self.encoder.encode(self.like).shape[1:]), generator=generator)
        if isinstance(self.encoder, VectorEncoder):
            body = nn.Sequential(CentreAndScale(torch.as_tensor(self.encoder.mean)), self.model.body)
            whole = MainModel(body, self.model.feature_dim, self.model.n_classes, self.model.head).eval()
            return whole, example, "embeddings as they are"
        return self.model, example, "rows as load_classifier(run).encoder.encode(inputs) makes them"

    @torch.no_grad()
    def probabilities(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """Probability of each class [N, K], rows in the order of the inputs."""
        device = next(self.model.parameters()).device
        parts = []
        with suitable_threads(self.model):
            size = IMAGE_BATCH if inputs.kind == "images" else ENCODING_BATCH
            for start in range(0, len(inputs), size):
                some = inputs.take(np.arange(start, min(start + size, len(inputs))))
                for chunk in torch.as_tensor(self.encoder.encode(some)).split(PREDICTION_BATCH):
                    parts.append(self.model(chunk.to(device)).logits.softmax(1).float().cpu().numpy())
        return np.concatenate(parts)


def load_classifier(folder: str | Path, *, model: nn.Module | None = None, device: str = "auto") -> Classifier:
    """The classifier of a run folder.

    Parameters
    ----------
    folder : str or Path
        What ``ebomlc fit --out`` wrote.
    model : nn.Module, optional
        The network that the run was given from Python; its weights are replaced by the trained ones.
    device : {"auto", "cpu", "cuda"}
        Where to compute.

    Raises
    ------
    InputError
        Where the folder holds no run, or one of another version or model.
    """
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder}: not a run folder, for it has no {SUMMARY}; name the folder that --out named")
    try:
        tables = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = build(RunConfig, tables, str(folder / CONFIG))
        stored = load_preprocessing(folder / ENCODER)
        state = load_state(folder / MAIN)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: the run cannot be read ({error}); was it written by another version?") from error
    encoder = _with_cache(stored.encoder, config)
    built = build_stored(config, encoder, stored, model)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{folder}: the trained weights do not fit the model {config.model.name}") from error
    placed = place(built, choose_device(device)).eval()
    return Classifier(folder, config, stored.class_names, encoder, stored.like, stored.spelling, placed)


def _with_cache(encoder: Encoder, config: RunConfig) -> Encoder:
    """A frozen network with the cache of the run."""
    if not is_frozen(config.encoder.name) or config.data.cache_dir is None:
        return encoder
    return replace(cast(Any, encoder), folder=Path(config.data.cache_dir))


def restore_method(
    config: RunConfig,
    stored: Preprocessing,
    main: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    device: torch.device,
    module: nn.Module | None = None,
) -> Method:
    """The trained method of a run, which also knows what is right where a label is given.

    Parameters
    ----------
    config : RunConfig
        The run's effective configuration.
    stored : Preprocessing
        Its preprocessing.
    main, state : mapping of str to Tensor
        Main model and method, as `Method` gives them.
    device : torch.device
        Where it is to compute.
    module : nn.Module, optional
        The main model where it came from Python.
    """
    entry = find_method(config.method.name)
    setup = Setup(
        lambda: place(build_stored(config, stored.encoder, stored, module), device),
        len(stored.class_names),
        make_optimizer(config.training),
    )
    method = entry.create(entry.parse_settings(config.method.settings), setup)
    method.model.load_state_dict(main)
    method.load_state_dict({name: tensor.to(device) for name, tensor in state.items()})
    return method


def build_stored(config: RunConfig, encoder: Encoder, stored: Preprocessing, module: nn.Module | None) -> MainModel:
    """The main model that a finished run trained, with weights that wait to be replaced by the trained ones.

    Raises
    ------
    InputError
        Where the network came from Python and is not given again.
    """
    n_classes = len(stored.class_names)
    encoded = encoder.encode(stored.like)
    shape = input_shape(encoder, encoded)
    if module is not None:
        example = torch.zeros((2, *encoded.shape[1:]), dtype=torch.as_tensor(encoded).dtype)
        return model_from_module(module, shape, n_classes, example, head=config.model.head)
    if config.model.name.startswith("("):
        raise InputError(
            f"the model of this run came from Python {config.model.name}: "
            f"use ebomlc.load_classifier(run, model=...) there"
        )
    return build_model(config.model, shape, n_classes, pretrained=False)


def _reading(config: RunConfig, like: Inputs, on_bad_input: str) -> Reading:
    data = config.data
    if on_bad_input not in ("error", "skip"):
        raise unknown_name("--on-bad-input", on_bad_input, ("error", "skip"))
    columns = Columns(
        id=data.id,
        label=data.label,
        checked=data.checked,
        text=like.select("text") if like.kind == "table" else (),
        image=data.image,
    )
    return Reading(
        columns=columns,
        data_dir=Path(data.data_dir) if data.data_dir else None,
        on_bad_input=cast(Any, on_bad_input),
        cache_dir=Path(data.cache_dir) if data.cache_dir else None,
        label_required=False,
        ids_matter=False,
        like_name=f"the rows of the run ({data.noisy})",
    )


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of new rows.

    Attributes
    ----------
    ids : object array of str, shape [N]
        The user's ids, or row numbers.
    class_names : tuple of str, length K
        Class k's name.
    probabilities : float32 array, shape [N, K]
        Rows sum to 1.
    accuracy, balanced_accuracy : float or None
        Against the label column, over the rows that have a label; None where none has, or one is no class of the run.
    n_labelled : int
        Rows that have a label.
    unknown_labels : tuple of str
        Labels of the rows that are no class of the run.
    """

    ids: npt.NDArray[np.object_]
    class_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    accuracy: float | None
    balanced_accuracy: float | None
    n_labelled: int
    unknown_labels: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Columns ``id``, ``predicted_label``, ``predicted_confidence`` and ``p(NAME)`` for each class."""
        import pandas as pd

        names = np.array(self.class_names, dtype=object)
        first = {
            "id": self.ids,
            "predicted_label": names[self.probabilities.argmax(1)],
            "predicted_confidence": self.probabilities.max(1),
        }
        each = pd.DataFrame(self.probabilities, columns=[f"p({name})" for name in self.class_names])
        return pd.concat([pd.DataFrame(first), each], axis=1)

    def to_arrow(self) -> pa.Table:
        """The same columns for a file."""
        import pyarrow as pa

        names = pa.array(self.class_names, pa.string())
        first = {
            "id": pa.array(self.ids, pa.string()),
            "predicted_label": names.take(pa.array(self.probabilities.argmax(1))),
            "predicted_confidence": pa.array(self.probabilities.max(1)),
        }
        each = {f"p({name})": self.probabilities[:, k].copy() for k, name in enumerate(self.class_names)}
        return pa.table(first | each)


@dataclass(frozen=True)
class Tally:
    """What the labels of rows say of their predictions, and what the encoder had never seen.

    Attributes
    ----------
    rows : int
        All rows.
    labelled, right : tuple of int, length K
        Rows with this class as their label, and those of them that are predicted so.
    unknown : tuple of str
        Labels that are no class of the run; no more than `UNKNOWN_KEPT`.
    n_unknown : int
        Rows with such a label.
    unseen : mapping of str to int
        By column, cells of categories that did not occur in training.
    """

    rows: int
    labelled: tuple[int, ...]
    right: tuple[int, ...]
    unknown: tuple[str, ...] = ()
    n_unknown: int = 0
    unseen: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_labelled(self) -> int:
        """Rows that have a label."""
        return sum(self.labelled) + self.n_unknown

    @property
    def accuracy(self) -> float | None:
        """Share of the labels that are predicted; None where none is known, or one is no class of the run."""
        return sum(self.right) / self.n_labelled if self.n_labelled and not self.n_unknown else None

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean of that share over the classes that occur."""
        if self.accuracy is None:
            return None
        return float(np.mean([hits / n for hits, n in zip(self.right, self.labelled, strict=True) if n]))

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.rows + other.rows,
            tuple(a + b for a, b in zip(self.labelled, other.labelled, strict=True)),
            tuple(a + b for a, b in zip(self.right, other.right, strict=True)),
            tuple(sorted({*self.unknown, *other.unknown}))[:UNKNOWN_KEPT],
            self.n_unknown + other.n_unknown,
            dict(Counter(self.unseen) + Counter(other.unseen)),
        )


def _tally(classifier: Classifier, source: Source, probabilities: npt.NDArray[np.float32]) -> Tally:
    names = classifier.class_names
    known = to_index(source.labels, names)
    hits = known[(known != NO_LABEL) & (probabilities.argmax(1) == known)]
    unknown = source.labels[(known == NO_LABEL) & ~is_empty(source.labels)]
    return Tally(
        len(source),
        tuple(np.bincount(known[known != NO_LABEL], minlength=len(names)).tolist()),
        tuple(np.bincount(hits, minlength=len(names)).tolist()),
        tuple(sorted({*unknown})[:UNKNOWN_KEPT]),
        len(unknown),
        count_unseen(classifier, source),
    )


def count_unseen(classifier: Classifier, source: Source) -> Mapping[str, int]:
    """Cells, by column, of categories that did not occur in training."""
    if not isinstance(classifier.encoder, TableEncoder) or source.inputs is None:
        return {}
    return classifier.encoder.count_unseen(source.inputs)


def warn_of_unseen(name: str, unseen: Mapping[str, int]) -> None:
    """Warn of what `count_unseen` counted in rows of this name."""
    if unseen:
        shown = listed([f"{n:,} in {column!r}" for column, n in unseen.items()])
        warnings.warn(
            f"{name}: categories that did not occur in training count for nothing: {shown}", DataWarning, stacklevel=3
        )


def inputs_of(source: Source) -> Inputs:
    """The inputs of rows that were read, refused where there are none."""
    if source.inputs is None:
        raise InputError(f"{source.name}: has none of the inputs that the run was trained on")
    return source.inputs


def classify(classifier: Classifier, source: Source) -> tuple[Predictions, Tally]:
    """What the classifier says of rows that were read."""
    probabilities = classifier.probabilities(inputs_of(source))
    tally = _tally(classifier, source, probabilities)
    predictions = Predictions(
        ids=source.ids,
        class_names=classifier.class_names,
        probabilities=probabilities,
        accuracy=tally.accuracy,
        balanced_accuracy=tally.balanced_accuracy,
        n_labelled=tally.n_labelled,
        unknown_labels=tally.unknown,
    )
    return predictions, tally


def predict(classifier: Classifier, data: Any, *, on_bad_input: str = "error") -> Predictions:  # noqa: ANN401
    """Classify new rows.

    Parameters
    ----------
    classifier : Classifier
        From `load_classifier`.
    data : str, Path or rows
        As for `ebomlc.fit`, with the inputs of the run's own rows; labels and ids are not needed, an array will do.
    on_bad_input : {"error", "skip"}
        What to do about an image that cannot be read.

    Warns
    -----
    DataWarning
        For categories that did not occur in training.
    """
    source = classifier.read(data, on_bad_input=on_bad_input)
    predictions, tally = classify(classifier, source)
    warn_of_unseen(source.name, tally.unseen)
    return predictions
