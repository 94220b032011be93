"""Text, table and image preprocessing: fitted on training rows, saved as JSON and npz, never as pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from ebomlc.data.inputs import Inputs
from ebomlc.errors import InputError

Array = npt.NDArray[Any]

TEXT_COMPONENTS = 200
WORDS: Mapping[str, Any] = {"analyzer": "word", "ngram_range": (1, 2), "sublinear_tf": True, "max_features": 50_000}
CHARACTERS: Mapping[str, Any] = {
    "analyzer": "char_wb",
    "ngram_range": (2, 5),
    "sublinear_tf": True,
    "min_df": 2,
    "max_features": 50_000,
}


class Encoder(Protocol):
    """Turns the inputs of rows into what the main model is fed."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads; empty for images."""
        ...

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D], or uint8 images [N, C, H, W]."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Everything fitted, for the npz file."""
        ...

    def details(self) -> dict[str, Any]:
        """Everything that is not an array, for the JSON file."""
        ...


@dataclass(frozen=True)
class ImageEncoder:
    """Images stay uint8; only their statistics are taken, which the model standardises with.

    Attributes
    ----------
    mean, std : float array, shape [C]
        Of the training pixels scaled to [0, 1].
    """

    mean: Array
    std: Array
    columns: tuple[str, ...] = ()

    @classmethod
    def fit(cls, inputs: Inputs) -> ImageEncoder:
        """Statistics of the pixels by channel."""
        counts = np.stack(
            [np.bincount(inputs.values[:, c].ravel(), minlength=256) for c in range(inputs.values.shape[1])]
        )
        levels = np.arange(256) / 255
        mean = counts @ levels / counts.sum(1)
        variance = counts @ levels**2 / counts.sum(1) - mean**2
        return cls(mean, np.sqrt(variance.clip(1e-6)))

    def encode(self, inputs: Inputs) -> Array:
        """The images as they are."""
        return inputs.values

    def arrays(self) -> dict[str, Array]:
        """Mean and deviation."""
        return {"mean": self.mean, "std": self.std}

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}


@dataclass(frozen=True)
class TableEncoder:
    """Numeric columns: empty cells take the median, heavy tails are drawn in, each column gets mean 0, deviation 1.

    Attributes
    ----------
    columns : tuple of str, length D
        Their names.
    median, mean, std : float arrays, shape [D]
        The median of each raw column; mean and deviation after `squash`.
    """

    columns: tuple[str, ...]
    median: Array
    mean: Array
    std: Array

    @classmethod
    def fit(cls, inputs: Inputs) -> TableEncoder:
        """Median, mean and deviation of each column.

        Raises
        ------
        InputError
            Where a column is empty in every row.
        """
        empty = np.isnan(inputs.values).all(0)
        if empty.any():
            raise InputError(f"column {inputs.columns[int(empty.argmax())]!r} is empty in every row; leave it out")
        median = np.nanmedian(inputs.values, axis=0)
        squashed = squash(np.where(np.isnan(inputs.values), median, inputs.values), median)
        std = squashed.std(0)
        return cls(inputs.columns, median, squashed.mean(0), np.where(std > 0, std, 1.0))

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]."""
        filled = np.where(np.isnan(inputs.values), self.median, inputs.values)
        return ((squash(filled, self.median) - self.mean) / self.std).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """Medians, means and deviations."""
        return {"median": self.median, "mean": self.mean, "std": self.std}

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}


def squash(values: Array, median: Array) -> Array:
    """Signed logarithm, sign(v) log(1 + |v|): counts and sizes with heavy tails become comparable."""
    return np.sign(values) * np.log1p(np.abs(values))


@dataclass(frozen=True)
class TextEncoder:
    """TF-IDF of words and of character n-grams, reduced by a truncated singular value decomposition.

    Attributes
    ----------
    columns : tuple of str, length 1
        The text column.
    words, characters : TfidfVectorizer
        Fitted.
    components : float32 array, shape [D, vocabulary]
        Right singular vectors.
    scale : float
        Brings the average feature to deviation 1.
    """

    columns: tuple[str, ...]
    words: TfidfVectorizer
    characters: TfidfVectorizer
    components: Array
    scale: float

    @classmethod
    def fit(cls, inputs: Inputs) -> TextEncoder:
        """Vocabulary, weights and singular vectors.

        Raises
        ------
        InputError
            Where the texts hold no words.
        """
        words, characters = TfidfVectorizer(**WORDS), TfidfVectorizer(**CHARACTERS)
        try:
            parts = [words.fit_transform(inputs.values), characters.fit_transform(inputs.values)]
        except ValueError as error:
            raise InputError(f"column {inputs.columns[0]!r} holds no words to learn from: {error}") from error
        tfidf = sparse.csr_matrix(sparse.hstack(parts))
        n_components = min(TEXT_COMPONENTS, len(inputs) - 1, tfidf.shape[1] - 1)  # type: ignore[index]
        svd = TruncatedSVD(n_components, random_state=0).fit(tfidf)
        encoder = cls(inputs.columns, words, characters, np.asarray(svd.components_, np.float32), 1.0)
        scale = 1 / encoder.encode(inputs).std()
        return cls(inputs.columns, words, characters, encoder.components, float(scale))

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]; rows of equal length."""
        tfidf = sparse.hstack([self.words.transform(inputs.values), self.characters.transform(inputs.values)])
        reduced = tfidf.tocsr() @ self.components.T
        norms = np.linalg.norm(reduced, axis=1, keepdims=True)
        return (self.scale * reduced / np.maximum(norms, 1e-12)).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """Inverse document frequencies and singular vectors."""
        return {
            "words_idf": self.words.idf_,
            "characters_idf": self.characters.idf_,
            "components": self.components,
            "scale": np.array(self.scale),
        }

    def details(self) -> dict[str, Any]:
        """Vocabularies."""
        return {name: _vocabulary(part) for name, part in (("words", self.words), ("characters", self.characters))}


def _vocabulary(vectorizer: TfidfVectorizer) -> list[str]:
    return [str(term) for term in vectorizer.get_feature_names_out()]


def _restore_vectorizer(settings: Mapping[str, Any], vocabulary: list[str], idf: Array) -> TfidfVectorizer:
    chosen = {key: value for key, value in settings.items() if key not in ("min_df", "max_features")}
    vectorizer = TfidfVectorizer(**chosen, vocabulary={term: index for index, term in enumerate(vocabulary)})
    vectorizer.idf_ = idf
    return vectorizer


def fit_encoder(inputs: Inputs) -> Encoder:
    """The encoder of this kind of input, fitted on it."""
    fitters = {"numbers": TableEncoder.fit, "text": TextEncoder.fit, "images": ImageEncoder.fit}
    return fitters[inputs.kind](inputs)


def save_encoder(encoder: Encoder, kind: str, class_names: tuple[str, ...], folder: Path) -> None:
    """Write ``encoder.json`` and ``encoder.npz`` into an existing folder."""
    details = {"kind": kind, "columns": encoder.columns, "class_names": class_names, **encoder.details()}
    (folder / "encoder.json").write_text(json.dumps(details, ensure_ascii=False), encoding="utf-8")
    np.savez(folder / "encoder.npz", allow_pickle=False, **encoder.arrays())


def load_encoder(folder: Path) -> tuple[Encoder, tuple[str, ...]]:
    """Encoder and class names from what `save_encoder` wrote."""
    details = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    with np.load(folder / "encoder.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    columns, class_names = tuple(details["columns"]), tuple(details["class_names"])
    if details["kind"] == "images":
        return ImageEncoder(**arrays), class_names
    if details["kind"] == "numbers":
        return TableEncoder(columns, **arrays), class_names
    words = _restore_vectorizer(WORDS, details["words"], arrays["words_idf"])
    characters = _restore_vectorizer(CHARACTERS, details["characters"], arrays["characters_idf"])
    return TextEncoder(columns, words, characters, arrays["components"], float(arrays["scale"])), class_names
