"""The tool as a classifier by scikit-learn's conventions: the rooms of `ebomlc.fit`, in memory."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ebomlc.config import RunConfig, build, to_dict
from ebomlc.data.columns import Columns, choose_inputs, describe_inputs
from ebomlc.data.encoders import TEXT_COMPONENTS, LazyEncoded
from ebomlc.data.inputs import Inputs, table_of_numbers
from ebomlc.data.joining import to_index
from ebomlc.data.memory import ArrayKind, Arrays, arrays_from_object
from ebomlc.data.preprocessing import Preprocessing, load_preprocessing, save_preprocessing
from ebomlc.data.readers import Source, check_vectors, object_name
from ebomlc.data.tables import shorten, table_from_frame
from ebomlc.errors import DataWarning, InputError, unknown_name
from ebomlc.judgement import judge
from ebomlc.labels.correct import correct
from ebomlc.methods import Method, find_method
from ebomlc.prediction import Classifier, restore_method
from ebomlc.preparation import Given, Job, prepare
from ebomlc.records import NO_LABEL, LabelTable
from ebomlc.run_folder import ENCODER, LABELS, MAIN, METHOD
from ebomlc.seeding import only_repeatable
from ebomlc.training import engine
from ebomlc.training.device import choose_device, suitable_threads
from ebomlc.training.states import load_state, save_state
from ebomlc.training.trackers import NullTracker
from ebomlc.version import __version__

Array = npt.NDArray[Any]
Names = npt.NDArray[np.object_]
State = Mapping[str, Tensor]

NOISY, TRUSTED = "(X, y)", "(X_trusted, y_trusted)"
"""What the rows are called in messages and in `LabelCorrector.config_`."""

NO_CHECK = -1
"""Stands in `y_trusted` for a row that nobody checked, unless it is a class."""

ESTIMATOR, COMPONENTS = "estimator.json", "components.npz"
"""Files of a saved estimator; the others are called as in a run folder."""

SEEN = ("n_features_in_", "feature_names_in_")

_ONE_AT_A_TIME = threading.Lock()
"""Weights are drawn from torch's global generator, which all threads share."""


class LabelCorrector(ClassifierMixin, BaseEstimator):
    """Classifier for labels that are partly wrong, which also says which of them are.

    It does what `ebomlc.fit` does, without files; parameters of the same name mean the same.

    Parameters
    ----------
    method : str
        See ``ebomlc fit --help``; all but ``oracle``.
    settings : mapping, optional
        Hyper-parameters of the method, by name.
    encoder : str
        What turns rows into what the model is fed; see `ebomlc.config.EncoderConfig`. With ``"vectors"`` the columns of
        an array are the dimensions of an embedding; by default each has a meaning and a scale of its own.
    model : str or nn.Module
        A name, or a network of your own, which is copied.
    head : str, optional
        Name of your network's last linear layer, where it is not the one that runs last.
    epochs : int, optional
        Passes over the noisy rows.
    balance : bool, optional
        Count every class alike.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    deterministic : bool
        On a GPU, take only operations that repeat their own bits.
    precision : float in [0.5, 1)
        Share of the labels called wrong in `labels_` that shall be wrong indeed.
    folds : int, optional
        Short trainings that are each not shown a part of the checked rows, to calibrate `labels_` on these, which takes
        two to three times as long; with 0 there are none, which is all a search for parameters needs.
    random_state : int, RandomState or None
        Seed of everything drawn; None draws one from numpy's global generator.

    Attributes
    ----------
    classes_ : array, shape [K]
        Every label that occurs among given and checked ones, sorted.
    labels_ : DataFrame
        The label table of the rows of `X` that `fit` was given, in the form that `correct` describes; a checked row
        keeps its label. Where enough checked rows carry a given label, suggestions and confidences are calibrated on
        them.
    trust_ : dict or None
        How far to trust `labels_`: what ``trust.json`` of a run holds, such as ``sentences`` in plain English, the
        share of wrong labels (``noise``) and the ``calibration``. None without any checked row.
    config_ : RunConfig
        Everything that was decided.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn; not where a row is a text or an image.

    Notes
    -----
    torch's global generator is left as it was. Fits in several threads wait for each other.
    """

    def __init__(
        self,
        method: str = "plus",
        *,
        settings: Mapping[str, Any] | None = None,
        encoder: str = "auto",
        model: str | nn.Module = "auto",
        head: str | None = None,
        epochs: int | None = None,
        balance: bool | None = None,
        device: str = "auto",
        deterministic: bool = False,
        precision: float = 0.9,
        folds: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.method = method
        self.settings = settings
        self.encoder = encoder
        self.model = model
        self.head = head
        self.epochs = epochs
        self.balance = balance
        self.device = device
        self.deterministic = deterministic
        self.precision = precision
        self.folds = folds
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any, *, X_trusted: Any = None, y_trusted: Any = None, given_trusted: Any = None
    ) -> LabelCorrector:
        """Train on noisy and trusted rows.

        Parameters
        ----------
        X : array, sparse matrix, DataFrame or sequence of str, N rows
            Numbers [N, D], NaN where one is missing; images as for `ebomlc.Arrays`; texts. A DataFrame with columns of
            words is read as ``ebomlc fit`` reads a table. A sparse matrix of more than 200 columns is reduced to 200
            components and never made dense; a smaller one is made dense, and with ``encoder="columns"`` any.
        y : sequence of str, int or bool, shape [N]
            Given labels, some of them wrong.
        X_trusted : like `X`, M rows, optional
            Checked rows that are not among those of `X`.
        y_trusted : sequence, shape [M] or [N], optional
            Their right labels. Without `X_trusted`, the right labels of the rows of `X`, with NaN, None or -1 where
            nobody looked (-1 is a label where `y` has it).
        given_trusted : sequence, shape [M], optional
            Labels of the rows of `X_trusted` before the check, where they are known.

        Raises
        ------
        InputError
            For anything that cannot be used; what scikit-learn refuses is a plain ValueError.
        TrainingDivergedError
            Where the loss stopped being a number in the first epoch.

        Warns
        -----
        DataWarning
            Without any checked row, when the labels are learnt as they are; for a class without checked rows; where the
            training ended early.
        """
        self._components = None
        inputs, given = self._read_inputs(X), _read_given(y)
        check_consistent_length(inputs, given)
        labels = _read_labels(given, X_trusted, y_trusted, given_trusted)
        sources = {"noisy": _source(NOISY, inputs, labels.given, checked=labels.checked)}
        if labels.right is not None:
            rows = self._read_inputs(X_trusted, like=inputs)
            sources["trusted"] = _source(TRUSTED, rows, labels.right, before=labels.before)
        elif not labels.any_trusted:
            # ce weighs noisy and trusted rows alike, so with the same rows as both it is the plain one
            sources["trusted"] = _source(TRUSTED, inputs, labels.given)
        config = self._make_config(sources, has_trusted=labels.any_trusted)
        if not labels.any_trusted:
            warnings.warn(_untrusted(self.method), DataWarning, stacklevel=2)
        with _ONE_AT_A_TIME, torch.random.fork_rng(), only_repeatable(self.deterministic):
            job = prepare(config, Given(sources, self._module), None)
            with suitable_threads(job.method.model):
                _train(job)
                judgement = judge(job) if labels.any_trusted else None
                table = _learnt_labels(job) if judgement is None else judgement.labels
        self.classes_, self.config_ = labels.classes, job.config
        self._stored = Preprocessing(job.encoder, inputs.take(np.arange(0)), job.pool.class_names)
        self._method = job.method
        self.labels_ = self._to_frame(table, _index(X, y, len(inputs)))
        self.trust_ = None if judgement is None else judgement.verdict.to_dict()
        return self

    @property
    def _module(self) -> nn.Module | None:
        return None if isinstance(self.model, str) else self.model

    def _make_config(self, sources: Mapping[str, Source], *, has_trusted: bool) -> RunConfig:
        entry = find_method(self.method)
        settings = _plain(self.settings or {})
        entry.parse_settings(settings)  # refused even where nothing will use them
        if entry.needs_truth:
            raise InputError(f"method {self.method!r} trains on the right labels of all rows: choose another method")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        options = {
            "data": {
                **{name: source.name for name, source in sources.items()},
                "checked": None if "trusted" in sources else "y_trusted",
                "normalise_labels": False,
                "heldout_fraction": None if has_trusted else 0.0,
            },
            "encoder": {"name": self.encoder},
            "model": {"name": self.model if self._module is None else "auto", "head": self.head},
            "method": {"name": self.method, "settings": settings} if has_trusted else {"name": "ce"},
            "training": {
                "epochs": self.epochs,
                "balance": self.balance,
                "device": self.device,
                "deterministic": self.deterministic,
            },
            "trust": {"precision": self.precision, "folds": self.folds},
            "seed": seed,
        }
        return build(RunConfig, _plain(options), "LabelCorrector")

    def predict(self, X: Any) -> Array:
        """Most probable class of each row [n]."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probability of each class [n, K], columns in the order of `classes_`."""
        check_is_fitted(self)
        stored = self._stored
        names, model = stored.class_names, self._method.model
        classifier = Classifier(Path(), self.config_, names, stored.encoder, stored.like, stored.spelling, model)
        probabilities = classifier.probabilities(self._read_inputs(X, like=stored.like)).astype(np.float64)
        order = [names.index(name) for name in _names(self.classes_)]
        return probabilities[:, order] / probabilities.sum(1, keepdims=True)

    def correct(self, X: Any, y: Any, *, y_trusted: Any = None) -> pd.DataFrame:
        """What the label of each row should be, seen the one it was given.

        Parameters
        ----------
        X : like that of `fit`, n rows
            Rows of `fit`, or others.
        y : sequence, shape [n]
            Given labels, each one of `classes_`.
        y_trusted : sequence, shape [n], optional
            Right labels, with gaps as in `fit`; a row that has one keeps it.

        Returns
        -------
        DataFrame
            A row for each of `X`, with its index or else that of `y`, and the columns of `ebomlc.records.LabelTable`,
            ``id`` being the index as str. Suggestions and confidences are the method's own; of the rows of `fit`,
            `labels_` may know better.

        Raises
        ------
        InputError
            For a label that is no class.
        """
        check_is_fitted(self)
        encoder, names = self._stored.encoder, self._stored.class_names
        inputs = self._read_inputs(X, like=self._stored.like)
        given = _names(_in_type_of(self.classes_, _read_given(y), "y"))
        checked = _read_partial(y_trusted, self.classes_, "y_trusted")
        right = np.full(len(given), None, dtype=object) if checked is None else checked.names()
        check_consistent_length(inputs, given, right)
        unknown = {*given, *right} - {None, *names}
        if unknown:
            raise unknown_name("label", min(unknown), names)
        rows = _index(X, y, len(inputs))
        with suitable_threads(self._method.model):
            lazy = LazyEncoded(encoder, inputs)
            table = correct(self._method, lazy, to_index(given, names), to_index(right, names), _names(rows), names)
        return self._to_frame(table, rows)

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, y_trusted: Any = None) -> float:
        """Share of rows whose class is predicted right, in [0, 1].

        Parameters
        ----------
        X : like that of `fit`, n rows
            Rows.
        y : sequence, shape [n]
            Their labels, which ought to be right.
        sample_weight : sequence of float, shape [n], optional
            What a row counts.
        y_trusted : sequence, shape [n], optional
            Right labels, with gaps as in `fit`. Only rows that have one count then, by it and not by `y`, so that a
            cross-validation that passes it on is scored on right labels.

        Raises
        ------
        InputError
            Where `y_trusted` has only gaps.
        """
        check_is_fitted(self)
        right = _read_partial(y_trusted, self.classes_, "y_trusted")
        if right is None:
            return float(super().score(X, y, sample_weight))
        check_consistent_length(y, right.there)
        if not right.there.any():
            raise InputError("y_trusted: nobody looked at any of these rows, so nothing can be scored; use fewer folds")
        weight = None if sample_weight is None else np.asarray(sample_weight)[right.there]
        return float(accuracy_score(right.values, self.predict(X)[right.there], sample_weight=weight))

    def _to_frame(self, table: LabelTable, rows: pd.Index) -> pd.DataFrame:
        """The first rows of a label table, with classes for their names."""
        frame = table.to_frame().iloc[: len(rows)].set_axis(rows, axis=0)
        by_name = dict(zip(_names(self.classes_), self.classes_.tolist(), strict=True))
        named = ("given_label", "suggested_label", "predicted_label")
        return frame.assign(id=_names(rows), **{column: frame[column].map(by_name) for column in named})

    def __sklearn_tags__(self) -> Tags:
        """What X may hold."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        return tags

    # --- inputs -------------------------------------------------------------------------------------------------------

    def _read_inputs(self, X: Any, like: Inputs | None = None) -> Inputs:
        """Rows as they were given; like those of `fit` where these are known."""
        if _holds_texts(X):
            inputs = Inputs("table", pd.DataFrame({"text": _array_of(X, "texts")}), {"text": "text"})
        elif getattr(X, "ndim", 2) > 2:
            inputs = Inputs("images", _array_of(X, "images"))
        elif _holds_words(X, like):
            validate_data(self, X, skip_check_array=True, reset=like is None)
            inputs = choose_inputs(table_from_frame(X, "X"), Columns(label=""), like, like_name="X of fit")
        else:
            inputs = self._read_array(X, like)
        if like is not None:
            _check_alike(inputs, like)
        return inputs

    def _read_array(self, X: Any, like: Inputs | None) -> Inputs:
        array: Any = validate_data(self, X, accept_sparse="csr", ensure_all_finite="allow-nan", reset=like is None)
        if like is None and sparse.issparse(array) and self.encoder != "columns":
            self._components = _fit_components(array)
        if self._components is not None:
            return Inputs("vectors", check_vectors(np.asarray(array @ self._components.T, np.float32), "X"))
        dense = array.toarray() if sparse.issparse(array) else array
        if self.encoder == "vectors":
            return Inputs("vectors", check_vectors(dense, "X"))
        names = tuple(getattr(self, "feature_names_in_", ()))
        if len(set(names)) < dense.shape[1]:
            names = tuple(f"x{k}" for k in range(dense.shape[1]))
        return table_of_numbers(dense, names)

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write everything to a new folder: safetensors, npz, Parquet and JSON, never pickle.

        Raises
        ------
        InputError
            Where something of that name is there already, or the folder cannot be made.
        """
        check_is_fitted(self)
        with _new_folder(Path(folder)) as beside:
            (beside / ENCODER).mkdir()
            save_preprocessing(self._stored, beside / ENCODER)
            save_state(beside / MAIN, self._method.model.state_dict())
            save_state(beside / METHOD, self._method.state_dict())
            self.labels_.to_parquet(beside / LABELS)
            if self._components is not None:
                np.savez(beside / COMPONENTS, components=self._components)
            (beside / ESTIMATOR).write_text(json.dumps(self._describe(), ensure_ascii=False), encoding="utf-8")

    def _describe(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        parameters = self.get_params(deep=False)
        if self._module is not None:
            parameters["model"] = object_name(self._module)
        if not isinstance(self.random_state, int | np.integer | None):
            parameters["random_state"] = self.config_.seed
        content = {
            "version": __version__,
            "parameters": parameters,
            "config": to_dict(self.config_),
            "classes": {"dtype": self.classes_.dtype.str, "values": self.classes_},
            "seen": {name: getattr(self, name) for name in SEEN if hasattr(self, name)},
            "trust": self.trust_,
        }
        return _plain(content)

    @classmethod
    def load(cls, folder: str | Path, *, model: nn.Module | None = None, device: str | None = None) -> LabelCorrector:
        """What `save` wrote.

        Parameters
        ----------
        folder : str or Path
            Its folder.
        model : nn.Module, optional
            The network that the estimator was given; in a copy, its weights are replaced by the trained ones.
        device : {"auto", "cpu", "cuda"}, optional
            In place of the estimator's own.

        Raises
        ------
        InputError
            Where the folder holds no estimator, or one of another version or network.
        """
        folder = Path(folder)
        if not (folder / ESTIMATOR).is_file():
            raise InputError(f"{folder}: has no {ESTIMATOR}; name the folder that LabelCorrector.save wrote")
        try:
            return cls._load(folder, model, device)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).partition("\n")[0]
            raise InputError(f"{folder}: cannot be read ({reason}); was it written by another version?") from error

    @classmethod
    def _load(cls, folder: Path, model: nn.Module | None, device: str | None) -> LabelCorrector:
        content = json.loads((folder / ESTIMATOR).read_text(encoding="utf-8"))
        parameters = content["parameters"]
        if parameters["model"].startswith("("):
            if model is None:
                raise InputError(f"{folder}: the network came from Python {parameters['model']}: give it as model=...")
            parameters["model"] = model
        loaded = cls(**parameters | ({} if device is None else {"device": device}))
        loaded.config_ = build(RunConfig, content["config"], str(folder / ESTIMATOR))
        loaded.classes_ = np.array(content["classes"]["values"], np.dtype(content["classes"]["dtype"]))
        for name, value in content["seen"].items():
            setattr(loaded, name, value if isinstance(value, int) else np.array(value, dtype=object))
        loaded.trust_ = content["trust"]
        loaded.labels_ = pd.read_parquet(folder / LABELS)
        loaded._components = _load_components(folder / COMPONENTS)
        loaded._stored = load_preprocessing(folder / ENCODER)
        loaded._method = loaded._restore_method(load_state(folder / MAIN), load_state(folder / METHOD))
        return loaded

    def _restore_method(self, main: State, method: State) -> Method:
        """The trained method from its states."""
        device = choose_device(self.device)
        with _ONE_AT_A_TIME, torch.random.fork_rng():  # fresh weights are drawn, only to be replaced
            return restore_method(self.config_, self._stored, main, method, device, self._module)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: the method as its tensors, for it holds functions."""
        state = dict(cast("dict[str, Any]", super().__getstate__()))
        method = state.pop("_method", None)
        if method is not None:
            state["_states"] = [_on_cpu(method.model.state_dict()), _on_cpu(method.state_dict())]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take back what `__getstate__` gave."""
        states = state.pop("_states", None)
        super().__setstate__(state)
        if states is not None:
            self._method = self._restore_method(*states)


# --- training ---------------------------------------------------------------------------------------------------------


def _untrusted(method: str) -> str:
    instead = "" if method == "ce" else f" by 'ce' instead of {method!r}"
    return (
        f"no trusted rows: the labels are learnt as they are{instead}, and nothing tells which are wrong; "
        f"check some rows and give their right labels as y_trusted"
    )


def _source(
    name: str, inputs: Inputs, labels: Names, *, checked: Names | None = None, before: Names | None = None
) -> Source:
    """Rows as a file of them would be read."""
    nothing = np.full(len(inputs), None, dtype=object)
    return Source(
        name=name,
        ids=np.array([str(row) for row in range(len(inputs))], dtype=object),
        has_ids=False,
        labels=labels,
        checked=nothing if checked is None else checked,
        given=nothing if before is None else before,
        provenance=nothing,
        weights=np.full(len(inputs), np.nan),
        inputs=inputs,
        places=lambda *rows: f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))} (the first is 0)",
    )


def _train(job: Job) -> None:
    training = engine.fit(job.method, job.loader, job.heldout, job.config.training, NullTracker(), quiet=True)
    engine.restore(job.method, training.chosen)
    if training.divergence is not None:
        warnings.warn(f"{training.divergence}; epoch {training.chosen.epoch} was kept", DataWarning, stacklevel=3)


def _learnt_labels(job: Job) -> LabelTable:
    """The labels of a job whose rows pass for trusted ones, though nobody checked them."""
    pool = job.pool
    given = np.where(pool.given == NO_LABEL, pool.right, pool.given)
    return correct(job.method, job.encoded, given, np.full_like(given, NO_LABEL), pool.ids, pool.class_names)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, so that a grid of them is understood, and written as JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


# --- labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Partial:
    """Labels that are not known of every row: those that are there, and where they are."""

    values: Array
    there: npt.NDArray[np.bool_]

    def names(self) -> Names:
        """Names of all rows, None where there is no label."""
        names = np.full(len(self.there), None, dtype=object)
        names[self.there] = _names(self.values)
        return names


@dataclass(frozen=True)
class _Labels:
    """Every label that was given, by name; None where there is none.

    Attributes
    ----------
    classes : array, shape [K]
        The labels as they are, each once and sorted.
    given, checked : object arrays, shape [N]
        Of the rows of X; without any checked one, None.
    right, before : object arrays, shape [M]
        Of the rows of X_trusted, after and before the check; None without them.
    """

    classes: Array
    given: Names
    checked: Names | None
    right: Names | None
    before: Names | None

    @property
    def any_trusted(self) -> bool:
        """Whether any row was checked."""
        return self.checked is not None or self.right is not None


def _read_given(y: Any) -> Array:
    if y is None:
        raise InputError("LabelCorrector requires y to be passed, but the target y is None: give the given labels")
    given = column_or_1d(y, warn=True)
    assert_all_finite(given, input_name="y")
    missing = pd.isna(given)
    if missing.any():
        raise InputError(f"y has no label in row {int(missing.argmax())} (the first is 0): fill it or leave it out")
    check_classification_targets(given)
    return given


def _read_labels(given: Array, X_trusted: Any, y_trusted: Any, given_trusted: Any) -> _Labels:
    _check_together(given, X_trusted, y_trusted, given_trusted)
    right = _read_partial(y_trusted, given, "y_trusted")
    before = _read_partial(given_trusted, given, "given_trusted")
    parts = [part for part in (right, before) if part is not None]
    classes = np.unique(np.concatenate([given, *(part.values for part in parts)]))
    if len(classes) < 2:
        raise InputError(f"y has only one class, {_first(classes)}: there is nothing to tell apart")
    names = None if right is None else right.names()
    if X_trusted is None:
        checked = names if right is not None and right.there.any() else None
        return _Labels(classes, _names(given), checked, None, None)
    return _Labels(classes, _names(given), None, names, None if before is None else before.names())


def _check_together(given: Array, X_trusted: Any, y_trusted: Any, given_trusted: Any) -> None:
    if y_trusted is None and (X_trusted is not None or given_trusted is not None):
        raise InputError("X_trusted and given_trusted say nothing without y_trusted, the right labels: give them too")
    if X_trusted is not None:
        check_consistent_length(X_trusted, y_trusted, given_trusted)
        return
    if given_trusted is not None:
        raise InputError("given_trusted belongs to X_trusted; without that, y holds the labels before the check")
    if y_trusted is not None and len(y_trusted) != len(given):
        raise InputError(
            f"y_trusted has {len(y_trusted)} rows and y {len(given)}: without X_trusted there must be one for each, "
            f"NaN, None or {NO_CHECK} where nobody looked"
        )


def _read_partial(labels: Any, like: Array, name: str) -> _Partial | None:
    """Labels with gaps, in the type of others; -1 is a gap unless it is among those."""
    if labels is None:
        return None
    cells = np.asarray(labels, dtype=object).reshape(-1)
    there = ~np.asarray(pd.isna(cells), dtype=bool)
    if NO_CHECK not in like:
        there[there] = [cell != NO_CHECK for cell in cells[there]]
    values = np.array(cells[there].tolist()) if there.any() else like[:0]
    return _Partial(_in_type_of(like, values, name), there)


def _in_type_of(like: Array, labels: Array, name: str) -> Array:
    """Labels in the type of others: gaps make floats of whole numbers, and numbers are no words."""
    is_number = labels.dtype.kind in "biuf"
    alike = not len(labels) or is_number == (like.dtype.kind in "biuf")
    plain = labels.astype(like.dtype) if alike and is_number else labels
    if not alike or (plain != labels).any():
        raise InputError(f"{name} holds {_first(labels)}, other labels are {_first(like)}: give labels of one type")
    return plain


def _first(labels: Array) -> str:
    """The first label as a message shows it."""
    return shorten(labels.tolist()[0])


def _names(values: Any) -> Names:
    return np.array([str(value) for value in values.tolist()], dtype=object)


def _index(X: Any, y: Any, n: int) -> pd.Index:
    """What the user calls the rows."""
    named = next((data for data in (X, y) if isinstance(data, pd.DataFrame | pd.Series)), None)
    return pd.RangeIndex(n) if named is None else named.index


# --- inputs -----------------------------------------------------------------------------------------------------------


def _holds_texts(X: Any) -> bool:
    is_flat = isinstance(X, list | tuple | np.ndarray | pd.Series) and getattr(X, "ndim", 1) == 1
    return is_flat and len(X) > 0 and isinstance(next(iter(X)), str)


def _holds_words(X: Any, like: Inputs | None) -> bool:
    """Whether it is a table of which some column is not of numbers."""
    if not isinstance(X, pd.DataFrame):
        return False
    was = like is not None and like.kind == "table" and set(like.roles.values()) != {"number"}
    return was or not all(pd.api.types.is_numeric_dtype(kind) for kind in X.dtypes)


def _array_of(X: Any, kind: ArrayKind) -> Array:
    return arrays_from_object(Arrays(X, kind=kind)).inputs


def _check_alike(inputs: Inputs, like: Inputs) -> None:
    """Raise InputError for rows that are not like those of fit; scikit-learn has looked at numbers of columns."""
    shapes = [() if each.kind == "table" else each.values.shape[1:] for each in (inputs, like)]
    if (inputs.kind, inputs.roles) != (like.kind, like.roles) or shapes[0] != shapes[1]:
        now, then = (describe_inputs(each.take(np.arange(0))) for each in (inputs, like))
        raise InputError(f"X holds {now}, but in fit it held {then}: they must be alike")


def _fit_components(matrix: Any) -> Array | None:
    """Singular vectors [C, D] that a wide sparse matrix [N, D] is reduced by; None for one that is not wide."""
    n_rows, n_columns = matrix.shape
    if n_columns <= TEXT_COMPONENTS:
        return None
    svd = TruncatedSVD(min(TEXT_COMPONENTS, n_rows - 1), random_state=0).fit(matrix)
    return np.asarray(svd.components_, np.float32)


# --- files ------------------------------------------------------------------------------------------------------------


def _on_cpu(state: State) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _load_components(file: Path) -> Array | None:
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as stored:
        return stored["components"]


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends without an error."""
    if folder.exists():
        raise InputError(f"{folder} is there already; name a new folder")
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; name another folder") from error
    try:
        yield beside
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
