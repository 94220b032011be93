"""Noise models: wrong labels made on purpose, and the transition matrix each of them follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.data.official import CIFAR10_CLASSES
from ebomlc.errors import InputError, unknown_name
from ebomlc.records import FloatArray, IntArray, NoisyLabels

CIFAR10_FLIPS: Mapping[str, str] = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}
"""Look-alikes of CIFAR-10 that asymmetric noise confuses (Patrini et al. 2017); the other five classes stay right."""

_INSTANCE_SPREAD = 0.1
_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class _Classes:
    """What a noise model may know of the classes."""

    count: int
    names: Sequence[str] | None
    superclass: IntArray | None


def _uniform(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    return np.full((classes.count, classes.count), 1 / classes.count)


def _symmetric(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    return (1 - np.eye(classes.count)) / (classes.count - 1)


def _flip(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    steps = 1 + rng.integers(classes.count - 1, size=classes.count)  # never 0: the target is another class
    return _to_targets((np.arange(classes.count) + steps) % classes.count)


def _pair(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    return _to_targets((np.arange(classes.count) + 1) % classes.count)


def _asymmetric(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    if classes.superclass is not None:
        return _to_targets(_next_in_superclass(_checked_superclass(classes, "asymmetric")))
    if classes.names is None or set(classes.names) != set(CIFAR10_CLASSES):
        raise InputError(
            "asymmetric noise is defined for the ten class names of CIFAR-10 and for sets with superclasses; this set "
            f"has {_describe(classes)}: use pair:RATE or flip:RATE, or pass superclass ids, one per class"
        )
    names = list(classes.names)
    return _to_targets(np.array([names.index(CIFAR10_FLIPS.get(name, name)) for name in names]))


def _hierarchical(classes: _Classes, rng: np.random.Generator) -> FloatArray:
    superclass = _checked_superclass(classes, "hierarchical")
    siblings = (superclass[:, None] == superclass) & ~np.eye(classes.count, dtype=bool)
    siblings |= np.diag(~siblings.any(axis=1))  # a class alone in its superclass has nowhere to go
    return siblings / siblings.sum(axis=1, keepdims=True)


_DESTINATIONS: Mapping[str, Callable[[_Classes, np.random.Generator], FloatArray]] = {
    "uniform": _uniform,
    "symmetric": _symmetric,
    "flip": _flip,
    "pair": _pair,
    "asymmetric": _asymmetric,
    "hierarchical": _hierarchical,
}

NOISE_KINDS = (*_DESTINATIONS, "instance", "human")
"""Known noise models: all take a rate in [0, 1], but ``human``, which takes the name of a set of human labels."""


@dataclass(frozen=True)
class NoiseSpec:
    """One noise model with its setting; its string is what `parse_noise` reads.

    Attributes
    ----------
    kind : str
        One of `NOISE_KINDS`.
    rate : float in [0, 1], or None
        Noise rate; None for human labels only.
    column : str or None
        Which human labels, such as ``"worse"``; None for every other kind.

    Raises
    ------
    InputError
        If the kind is unknown, or the rate or the column is missing, superfluous or out of range.
    """

    kind: str
    rate: float | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in NOISE_KINDS:
            raise unknown_name("noise model", self.kind, NOISE_KINDS)
        if self.kind == "human":
            if not self.column or self.rate is not None:
                raise InputError("noise 'human' takes the name of human labels, not a rate: write human:worse")
        elif self.rate is None or not 0 <= self.rate <= 1 or self.column is not None:
            raise InputError(
                f"noise {self.kind!r} takes a rate from 0 to 1, got {self.rate}: write for instance {self.kind}:0.4"
            )

    def __str__(self) -> str:
        setting = self.column if self.rate is None else repr(float(self.rate)).removesuffix(".0")
        return f"{self.kind}:{setting}"


def parse_noise(text: str) -> NoiseSpec:
    """Read a noise specification such as ``"flip:0.4"`` or ``"human:worse"``.

    Parameters
    ----------
    text : str
        ``KIND:RATE`` with a rate in [0, 1], or ``human:NAME``.

    Returns
    -------
    NoiseSpec
        ``parse_noise(str(spec)) == spec``.

    Raises
    ------
    InputError
        If the kind is unknown, or the rate is missing, not a number or outside [0, 1].
    """
    kind, _, setting = (part.strip() for part in text.partition(":"))
    if kind == "human":
        return NoiseSpec(kind, None, setting)
    if kind not in NOISE_KINDS:
        raise unknown_name("noise model", kind, NOISE_KINDS)
    try:
        rate = float(setting)
    except ValueError:
        found = f"{setting!r} is not a number" if setting else "the rate is missing"
        raise InputError(f"noise {text!r}: {found}; write a rate from 0 to 1, for instance {kind}:0.4") from None
    return NoiseSpec(kind, rate, None)


def apply_noise(
    labels: IntArray,
    spec: NoiseSpec,
    n_classes: int,
    seed: int,
    *,
    inputs: npt.NDArray[Any] | None = None,
    human: Mapping[str, IntArray] | None = None,
    class_names: Sequence[str] | None = None,
    superclass: IntArray | None = None,
) -> NoisyLabels:
    """Replace right labels by noisy ones.

    Flip targets and projections come from one child generator of the seed and the draws of the rows from another, so
    that noise on part of the rows has the structure of noise on all of them.

    Parameters
    ----------
    labels : int array, shape [N]
        Right labels in ``0 .. n_classes - 1``.
    spec : NoiseSpec
        The noise model; `NOISE_KINDS` lists the kinds.
    n_classes : int, >= 2
        Number of classes K.
    seed : int, >= 0
        Same seed, same noisy labels.
    inputs : numeric array, shape [N, ...], optional
        Needed by ``instance``; standardised feature by feature over the rows given.
    human : mapping of str to int array, shape [N], optional
        Needed by ``human``: labels of the same rows by name.
    class_names : sequence of str, length K, optional
        Needed by ``asymmetric`` on CIFAR-10.
    superclass : int array, shape [K], optional
        Superclass of each class; needed by ``hierarchical``, and by ``asymmetric`` where it isn't CIFAR-10.

    Returns
    -------
    NoisyLabels
        The labels with noise, the transition matrix where one exists, and the measured share of wrong labels.

    Raises
    ------
    InputError
        If a label is out of range, or what the noise model needs is missing or does not fit.
    """
    labels = _checked_labels(labels, n_classes, "labels")
    matrix = transition_matrix(spec, n_classes, seed, class_names=class_names, superclass=superclass)
    if matrix is not None:
        noisy = _draw_by_class(labels, matrix, _generators(seed)[1])
    elif spec.kind == "human":
        noisy = _human_labels(labels, spec, n_classes, human)
    else:
        noisy = _instance_labels(labels, spec, n_classes, seed, inputs)
    measured = float(np.mean(noisy != labels)) if len(labels) else 0.0
    return NoisyLabels(noisy, matrix, measured, str(spec))


def transition_matrix(
    spec: NoiseSpec,
    n_classes: int,
    seed: int,
    *,
    class_names: Sequence[str] | None = None,
    superclass: IntArray | None = None,
) -> FloatArray | None:
    """T[true, given] of a noise model: the very matrix that `apply_noise` draws from under the same seed.

    Parameters
    ----------
    spec, n_classes, seed, class_names, superclass
        As in `apply_noise`.

    Returns
    -------
    float array, shape [K, K], or None
        Rows sum to 1; None for ``instance`` and ``human``, which follow no fixed matrix.

    Raises
    ------
    InputError
        If there are fewer than two classes, or the noise model does not fit the classes.
    """
    if n_classes < 2:
        raise InputError(f"noise {spec} needs two classes or more, got {n_classes}: check the label column")
    if spec.rate is None or spec.kind not in _DESTINATIONS:
        return None
    classes = _Classes(n_classes, class_names, superclass)
    destination = _DESTINATIONS[spec.kind](classes, _generators(seed)[0])
    return (1 - spec.rate) * np.eye(n_classes) + spec.rate * destination


def instance_flips(
    labels: IntArray, inputs: npt.NDArray[Any], n_classes: int, seed: int, *, chunk_rows: int = _CHUNK_ROWS
) -> FloatArray:
    """Where each row goes if its label flips: part-dependent noise, Xia et al. 2020, algorithm 2, without the rate.

    Each true class has its own projection matrix with standard normal entries; the scores of a row are its flattened,
    standardised input times the matrix of its class, and their softmax leaves the true class out.

    Parameters
    ----------
    labels : int array, shape [N]
        Right labels.
    inputs : numeric array, shape [N, ...]
        A feature that never changes counts as zero.
    n_classes : int
        Number of classes K.
    seed : int
        The projections depend on it, on the number of features and on K only.
    chunk_rows : int
        Rows that are held as floats at a time.

    Returns
    -------
    float array, shape [N, K]
        Rows sum to 1; exactly zero at the true class.

    Raises
    ------
    InputError
        If the inputs are not numbers, not finite, or not one row per label.
    """
    flat = _checked_inputs(inputs, len(labels))
    mean, scale = _feature_moments(flat, chunk_rows)
    flips = np.zeros((len(labels), n_classes))
    for true, rng in enumerate(_generators(seed)[0].spawn(n_classes)):
        projection = rng.standard_normal((flat.shape[1], n_classes), dtype=np.float32)
        for rows in _chunks(np.flatnonzero(labels == true), chunk_rows):
            scores = ((flat[rows] - mean) * scale) @ projection
            scores[:, true] = -np.inf
            flips[rows] = _softmax(scores.astype(np.float64))
    return flips


def _instance_labels(
    labels: IntArray, spec: NoiseSpec, n_classes: int, seed: int, inputs: npt.NDArray[Any] | None
) -> IntArray:
    """Labels of `instance_flips`, flipped at a rate per row from a normal around the rate, truncated to [0, 1]."""
    if inputs is None:
        raise InputError(f"noise {spec} depends on the inputs, and none were given: pass inputs, one row per label")
    if not spec.rate:
        return labels.copy()  # the truncated normal around 0 has mean 0.08; rate 0 means no noise here as elsewhere
    rng = _generators(seed)[1]
    rates = _truncated_normal(spec.rate, _INSTANCE_SPREAD, len(labels), rng)
    wrong = rng.random(len(labels)) < rates
    drawn = rng.random(len(labels))
    cumulative = _cumulative(instance_flips(labels, inputs, n_classes, seed))
    return np.where(wrong, (drawn[:, None] >= cumulative).sum(axis=1), labels)


def _human_labels(labels: IntArray, spec: NoiseSpec, n_classes: int, human: Mapping[str, IntArray] | None) -> IntArray:
    if not human:
        raise InputError(
            f"noise {spec} needs human labels, and this data set came without: they exist for CIFAR-10 (CIFAR-10N); "
            "put CIFAR-10_human.npz into the folder given by --data-dir"
        )
    name = str(spec.column)
    if name not in human:
        raise unknown_name("set of human labels", name, human)
    chosen = _checked_labels(human[name], n_classes, f"human labels {name!r}")
    if len(chosen) != len(labels):
        raise InputError(
            f"human labels {name!r} have {len(chosen)} rows and the labels {len(labels)}: "
            "pass the human labels of the same rows, in the same order"
        )
    return chosen


def _generators(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """One generator for the structure of the noise, one for the draws of the rows."""
    if seed < 0:
        raise InputError(f"the noise seed is {seed}: give a whole number from 0 up")
    structure, rows = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(structure), np.random.default_rng(rows)


def _draw_by_class(labels: IntArray, matrix: FloatArray, rng: np.random.Generator) -> IntArray:
    drawn = rng.random(len(labels))
    noisy = labels.copy()
    for true, cumulative in enumerate(_cumulative(matrix)):
        rows = labels == true
        noisy[rows] = np.searchsorted(cumulative, drawn[rows], side="right")
    return noisy


def _cumulative(probabilities: FloatArray) -> FloatArray:
    """Cumulative sums that end at exactly 1, so that rounding never draws a class of probability zero."""
    sums = probabilities.cumsum(axis=1)
    return sums / sums[:, -1:]


def _truncated_normal(mean: float, spread: float, size: int, rng: np.random.Generator) -> FloatArray:
    draws = rng.normal(mean, spread, size)
    while (outside := (draws < 0) | (draws > 1)).any():
        draws[outside] = rng.normal(mean, spread, outside.sum())
    return draws


def _softmax(scores: FloatArray) -> FloatArray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _feature_moments(
    flat: npt.NDArray[Any], chunk_rows: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and inverse standard deviation per feature, in two passes that never hold all rows as floats."""
    mean = flat.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for rows in _chunks(np.arange(len(flat)), chunk_rows):
        squares += np.square(flat[rows] - mean).sum(axis=0)
    spread = np.sqrt(squares / len(flat))
    # rounding of the mean leaves a constant feature a spread of some ulps, which must not be blown up to 1
    varies = spread > 1e-12 * np.maximum(1, np.abs(mean))
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=varies)
    return mean.astype(np.float32), scale.astype(np.float32)


def _chunks(rows: IntArray, size: int) -> Iterator[IntArray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _to_targets(targets: IntArray) -> FloatArray:
    return np.eye(len(targets))[targets]


def _next_in_superclass(superclass: IntArray) -> IntArray:
    """Go from each class to the next one by index in its superclass, and from the last to the first."""
    targets = np.arange(len(superclass))
    for group in np.unique(superclass):
        members = np.flatnonzero(superclass == group)
        targets[members] = np.roll(members, -1)
    return targets


def _checked_labels(labels: IntArray, n_classes: int, name: str) -> IntArray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or (len(labels) and not np.issubdtype(labels.dtype, np.integer)):
        raise InputError(
            f"{name} must be one class index per row, got shape {labels.shape} of {labels.dtype}: "
            "turn class names into indices first"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(outside):
        raise InputError(
            f"{name}: row {outside[0]} has class {labels[outside[0]]}, which is not in 0..{n_classes - 1} "
            f"({len(outside)} such rows): correct or drop them, or check the number of classes"
        )
    return labels.astype(np.int64)  # a copy, so that what comes out never shares memory with what came in


def _checked_superclass(classes: _Classes, kind: str) -> IntArray:
    if classes.superclass is None:
        raise InputError(
            f"{kind} noise needs superclasses, and this set has none: use flip:RATE, or pass superclass ids, "
            "one per class"
        )
    superclass = np.asarray(classes.superclass)
    if superclass.shape != (classes.count,):
        raise InputError(
            f"superclass has shape {superclass.shape}, but there are {classes.count} classes: pass one id per class"
        )
    return superclass


def _checked_inputs(inputs: npt.NDArray[Any], n_rows: int) -> npt.NDArray[Any]:
    """Return the inputs as [N, features], known to be finite numbers."""
    inputs = np.asarray(inputs)
    if not (np.issubdtype(inputs.dtype, np.number) or inputs.dtype == bool):
        raise InputError(f"instance noise needs numeric inputs, got {inputs.dtype}: encode text and categories first")
    if len(inputs) != n_rows:
        raise InputError(f"instance noise got {len(inputs)} inputs for {n_rows} labels: pass one input per label")
    flat = inputs.reshape(n_rows, int(np.prod(inputs.shape[1:])))
    if np.issubdtype(flat.dtype, np.inexact):
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if len(bad):
            raise InputError(
                f"instance noise: the input of row {bad[0]} has a missing or infinite value ({len(bad)} such rows): "
                "fill or drop them"
            )
    return flat


def _describe(classes: _Classes) -> str:
    if classes.names is None:
        return f"{classes.count} classes without names"
    return f"the classes {', '.join(classes.names[:4])}{', ...' if len(classes.names) > 4 else ''}"
