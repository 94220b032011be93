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
from sklearn.preprocessing import QuantileTransformer

from ebomlc.data.inputs import Inputs
from ebomlc.errors import InputError

Array = npt.NDArray[Any]

TABLE_QUANTILES, CUT = 200, 3.0
TEXT_COMPONENTS = 200
WORDS: Mapping[str, Any] = {"analyzer": "word", "ngram_range": (1, 2), "sublinear_tf": True, "max_features": 50_000}
CHARACTERS: Mapping[str, Any] = {
    "analyzer": "char_wb",
    "ngram_range": (2, 5),
    "sublinear_tf": True,
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
    """Numeric columns: empty cells take the median, then each column is mapped to a standard normal by its quantiles.

    Ranks are robust to heavy tails and to units, which users' columns have; deviations are cut at `CUT`.

    Attributes
    ----------
    columns : tuple of str, length D
        Their names.
    median : float array, shape [D]
        Of each raw column.
    quantiles : QuantileTransformer
        Fitted.
    """

    columns: tuple[str, ...]
    median: Array
    quantiles: QuantileTransformer

    @classmethod
    def fit(cls, inputs: Inputs) -> TableEncoder:
        """Median and quantiles of each column.

        Raises
        ------
        InputError
            Where a column is empty in every row.
        """
        empty = np.isnan(inputs.values).all(0)
        if empty.any():
            raise InputError(f"column {inputs.columns[int(empty.argmax())]!r} is empty in every row; leave it out")
        median = np.nanmedian(inputs.values, axis=0)
        quantiles = _new_quantiles(min(TABLE_QUANTILES, len(inputs)))
        quantiles.fit(np.where(np.isnan(inputs.values), median, inputs.values))
        return cls(inputs.columns, median, quantiles)

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D] in [-CUT, CUT]."""
        filled = np.where(np.isnan(inputs.values), self.median, inputs.values)
        return np.asarray(self.quantiles.transform(filled)).clip(-CUT, CUT).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """Medians and quantiles."""
        return {
            "median": self.median,
            "quantiles": np.asarray(self.quantiles.quantiles_),
            "references": np.asarray(self.quantiles.references_),
        }

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}


def _new_quantiles(count: int) -> QuantileTransformer:
    # a fixed subsample: the same rows always give the same encoder
    return QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=100_000, random_state=0)


def _restore_quantiles(quantiles: Array, references: Array) -> QuantileTransformer:
    transformer = _new_quantiles(len(references))
    transformer.n_quantiles_ = len(references)
    transformer.quantiles_ = quantiles
    transformer.references_ = references
    return transformer


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
    """

    columns: tuple[str, ...]
    words: TfidfVectorizer
    characters: TfidfVectorizer
    components: Array

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
        return cls(inputs.columns, words, characters, np.asarray(svd.components_, np.float32))

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]; every row has length sqrt(D), so that its features are 1 in the root mean square."""
        tfidf = sparse.hstack([self.words.transform(inputs.values), self.characters.transform(inputs.values)])
        reduced = tfidf.tocsr() @ self.components.T
        norms = np.linalg.norm(reduced, axis=1, keepdims=True)
        length = np.sqrt(len(self.components))
        return (length * reduced / np.maximum(norms, 1e-12)).astype(np.float32)

    def arrays(self) -> dict[str, Array]:
        """Inverse document frequencies and singular vectors."""
        return {
            "words_idf": self.words.idf_,
            "characters_idf": self.characters.idf_,
            "components": self.components,
        }

    def details(self) -> dict[str, Any]:
        """Vocabularies."""
        return {name: _vocabulary(part) for name, part in (("words", self.words), ("characters", self.characters))}


def _vocabulary(vectorizer: TfidfVectorizer) -> list[str]:
    return [str(term) for term in vectorizer.get_feature_names_out()]


def _restore_vectorizer(settings: Mapping[str, Any], vocabulary: list[str], idf: Array) -> TfidfVectorizer:
    chosen = {key: value for key, value in settings.items() if key != "max_features"}
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
    np.savez(folder / "encoder.npz", **encoder.arrays())  # type: ignore[arg-type] - the stub of numpy


def load_encoder(folder: Path) -> tuple[Encoder, tuple[str, ...]]:
    """Encoder and class names from what `save_encoder` wrote."""
    details = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    with np.load(folder / "encoder.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    columns, class_names = tuple(details["columns"]), tuple(details["class_names"])
    if details["kind"] == "images":
        return ImageEncoder(**arrays), class_names
    if details["kind"] == "numbers":
        quantiles = _restore_quantiles(arrays["quantiles"], arrays["references"])
        return TableEncoder(columns, arrays["median"], quantiles), class_names
    words = _restore_vectorizer(WORDS, details["words"], arrays["words_idf"])
    characters = _restore_vectorizer(CHARACTERS, details["characters"], arrays["characters_idf"])
    return TextEncoder(columns, words, characters, arrays["components"]), class_names
