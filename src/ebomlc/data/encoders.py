"""Table, vector and image preprocessing: fitted on training rows, saved as JSON and npz, never as pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import QuantileTransformer
from sklearn.utils import resample

from ebomlc.data.columns import ONE_HOT_VALUES
from ebomlc.data.inputs import Inputs, Role
from ebomlc.errors import InputError
from ebomlc.records import IntArray

Array = npt.NDArray[Any]

TABLE_QUANTILES, QUANTILE_ROWS, CUT = 200, 100_000, 3.0
TEXT_COMPONENTS = 200
WORDS: Mapping[str, Any] = {"analyzer": "word", "ngram_range": (1, 2), "sublinear_tf": True, "max_features": 50_000}
CHARACTERS: Mapping[str, Any] = {
    "analyzer": "char_wb",
    "ngram_range": (2, 5),
    "sublinear_tf": True,
    "max_features": 50_000,
}
CHUNK_ROWS = 65_536
IMAGES_AT_ONCE = 1000
"""What is computed in float64 is computed for so many rows at a time: of millions it would not fit into memory."""


class Encoder(Protocol):
    """Turns the inputs of rows into what the main model is fed.

    Attributes
    ----------
    name : str
        What it is stored and found again under; see `register_encoder`.
    """

    name: ClassVar[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads; empty for vectors and images."""
        ...

    @property
    def roles(self) -> Mapping[str, Role]:
        """What those columns hold, which a new file is read by."""
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

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> Encoder:
        """The encoder that gave these `details` and `arrays`."""
        ...


EncoderClass = TypeVar("EncoderClass", bound=type[Encoder])

ENCODERS: dict[str, type[Encoder]] = {}
"""Every kind of encoder that a folder may hold, by its name."""

ELSEWHERE = {"backbone": "ebomlc.data.frozen", "sentences": "ebomlc.data.frozen"}
"""Modules to import, by the name of an encoder that they register."""


def register_encoder(encoder: EncoderClass) -> EncoderClass:
    """Class decorator: `load_preprocessing` finds this kind of encoder by its name."""
    if ENCODERS.setdefault(encoder.name, encoder) is not encoder:
        raise ValueError(f"two encoders are called {encoder.name!r}")
    return encoder


def _chunks(n: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


# --- images and vectors -----------------------------------------------------------------------------------------------


@register_encoder
@dataclass(frozen=True)
class ImageEncoder:
    """Images stay uint8; only their statistics are taken, which the model standardises with.

    Attributes
    ----------
    mean, std : float array, shape [C]
        Of the training pixels scaled to [0, 1].
    """

    name: ClassVar[str] = "pixels"

    mean: Array
    std: Array
    columns: tuple[str, ...] = ()
    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def fit(cls, inputs: Inputs) -> ImageEncoder:
        """Statistics of the pixels by channel."""
        counts = np.zeros((inputs.values.shape[1], 256), np.int64)
        for rows in _chunks(len(inputs), IMAGES_AT_ONCE):
            some = inputs.values[rows]
            counts += [np.bincount(some[:, channel].ravel(), minlength=256) for channel in range(len(counts))]
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

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> ImageEncoder:
        """From what was stored."""
        del details
        return cls(arrays["mean"], arrays["std"])


@register_encoder
@dataclass(frozen=True)
class VectorEncoder:
    """Embeddings: the mean of the training rows is taken away, and every row is brought to one length.

    Attributes
    ----------
    mean : float32 array, shape [D]
        Of the training rows.
    """

    name: ClassVar[str] = "vectors"

    mean: Array
    columns: tuple[str, ...] = ()
    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def fit(cls, inputs: Inputs) -> VectorEncoder:
        """Mean of each dimension."""
        total = sum(inputs.values[rows].sum(0, dtype=np.float64) for rows in _chunks(len(inputs)))
        return cls(np.asarray(total / len(inputs), np.float32))

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]; every row has length sqrt(D), so that its features are 1 in the root mean square."""
        encoded = np.empty((len(inputs), len(self.mean)), np.float32)
        for rows in _chunks(len(inputs)):
            encoded[rows] = _to_length(inputs.values[rows] - self.mean)
        return encoded

    def arrays(self) -> dict[str, Array]:
        """The mean."""
        return {"mean": self.mean}

    def details(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> VectorEncoder:
        """From what was stored."""
        del details
        return cls(arrays["mean"])


def _to_length(rows: Array) -> Array:
    """Rows [N, D] scaled to length sqrt(D); a row of zeros stays one."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (np.sqrt(rows.shape[1]) * rows / np.maximum(norms, 1e-12)).astype(np.float32)


# --- parts of a table -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberPart:
    """Numbers: empty cells take the median, then each column is mapped to a standard normal by its quantiles.

    Ranks are robust to heavy tails and to units, which users' columns have; deviations are cut at `CUT`.

    Attributes
    ----------
    median : float array, shape [D]
        Of each raw column.
    quantiles : QuantileTransformer
        Fitted.
    """

    median: Array
    quantiles: QuantileTransformer

    @classmethod
    def fit(cls, columns: Sequence[Array]) -> NumberPart:
        """Median and quantiles of D columns of N numbers, of which none is empty throughout."""
        n = len(columns[0])
        median = np.array([np.nanmedian(column) for column in columns])
        rows = np.arange(n)
        if n > QUANTILE_ROWS:  # the rows that the transformer would draw, without a copy of all of them first
            rows = resample(rows, replace=False, n_samples=QUANTILE_ROWS, random_state=0)
        quantiles = _new_quantiles(min(TABLE_QUANTILES, n))
        quantiles.fit(_filled([column[rows] for column in columns], median))
        return cls(median, quantiles)

    def encode(self, columns: Sequence[Array]) -> Array:
        """float32 [N, D] in [-CUT, CUT], from D columns of N numbers."""
        encoded = np.empty((len(columns[0]), len(columns)), np.float32)
        for rows in _chunks(len(encoded)):
            filled = _filled([column[rows] for column in columns], self.median)
            encoded[rows] = np.asarray(self.quantiles.transform(filled)).clip(-CUT, CUT)
        return encoded

    def arrays(self) -> dict[str, Array]:
        """Medians and quantiles."""
        return {
            "median": self.median,
            "quantiles": np.asarray(self.quantiles.quantiles_),
            "references": np.asarray(self.quantiles.references_),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, Array]) -> NumberPart:
        """From what was stored."""
        transformer = _new_quantiles(len(arrays["references"]))
        transformer.n_quantiles_ = len(arrays["references"])
        transformer.quantiles_ = arrays["quantiles"]
        transformer.references_ = arrays["references"]
        return cls(arrays["median"], transformer)


def _filled(columns: Sequence[Array], median: Array) -> Array:
    values = np.stack(columns, axis=1)
    return np.where(np.isnan(values), median, values)


def _new_quantiles(count: int) -> QuantileTransformer:
    # a fixed subsample: the same rows always give the same encoder
    return QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=QUANTILE_ROWS, random_state=0)


@dataclass(frozen=True)
class CategoryPart:
    """One column of categories: one-hot where it has few values, else the rank of a value by its frequency.

    A column of the one-hot code is standardised as a column of numbers would be: less its mean, which is the share p of
    the value, and over its deviation sqrt(p (1 - p)). Rare values would get very large by that; the factor is cut at
    `CUT`. A value that was not seen, or none, is all zeros, which is the mean row.

    Attributes
    ----------
    values : tuple of str, length V
        By falling frequency; equal ones by the alphabet.
    shares : float array, shape [V]
        Of the filled training rows.
    """

    values: tuple[str, ...]
    shares: Array

    @classmethod
    def fit(cls, cells: pd.Series) -> CategoryPart:
        """Values and how frequent they are."""
        counts = cells.value_counts()
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        shares = np.array([count for _, count in ordered], np.float64)
        return cls(tuple(str(value) for value, _ in ordered), shares / max(shares.sum(), 1))

    @property
    def is_one_hot(self) -> bool:
        """Whether it has few values."""
        return len(self.values) <= ONE_HOT_VALUES

    def one_hot(self, cells: pd.Series) -> Array:
        """float32 [N, V] in [-CUT, CUT]."""
        deviation = np.sqrt(self.shares * (1 - self.shares))
        scale = np.minimum(1 / np.maximum(deviation, 1e-12), CUT)
        # the last row is for what was not seen: code -1
        table = np.vstack([(np.eye(len(self.values)) - self.shares) * scale, np.zeros(len(self.values))])
        return table.astype(np.float32)[self._codes(cells)]

    def ranks(self, cells: pd.Series) -> Array:
        """float64 [N]: 0 for the most frequent value; NaN for one that was not seen, or none."""
        codes = self._codes(cells).astype(np.float64)
        return np.where(codes < 0, np.nan, codes)

    def unseen(self, cells: pd.Series) -> npt.NDArray[np.bool_]:
        """Where a cell is filled with a value that did not occur in training [N]."""
        return cells.notna().to_numpy(bool) & (self._codes(cells) < 0)

    def _codes(self, cells: pd.Series) -> npt.NDArray[np.intp]:
        return pd.Index(self.values, dtype=object).get_indexer(pd.Index(cells, dtype=object))


@dataclass(frozen=True)
class TextPart:
    """One column of texts: TF-IDF of words and of character n-grams, reduced by a singular value decomposition.

    Attributes
    ----------
    words, characters : TfidfVectorizer
        Fitted.
    components : float32 array, shape [D, vocabulary]
        Right singular vectors.
    """

    words: TfidfVectorizer
    characters: TfidfVectorizer
    components: Array

    @classmethod
    def fit(cls, texts: pd.Series) -> TextPart:
        """Vocabulary, weights and singular vectors.

        Raises
        ------
        InputError
            Where the texts hold no words.
        """
        words, characters = TfidfVectorizer(**WORDS), TfidfVectorizer(**CHARACTERS)
        texts = texts.sort_values()  # so that the order of the rows in the file makes no difference
        try:
            parts = [words.fit_transform(texts), characters.fit_transform(texts)]
        except ValueError as error:
            raise InputError(f"column {texts.name!r} holds no words to learn from: {error}") from error
        tfidf = sparse.csr_matrix(sparse.hstack(parts))
        n_components = max(1, min(TEXT_COMPONENTS, len(texts) - 1, tfidf.shape[1] - 1))  # type: ignore[index]
        svd = TruncatedSVD(n_components, random_state=0).fit(tfidf)
        return cls(words, characters, np.asarray(svd.components_, np.float32))

    def encode(self, texts: pd.Series) -> Array:
        """float32 [N, D]; every row has length sqrt(D), so that its features are 1 in the root mean square."""
        encoded = np.empty((len(texts), len(self.components)), np.float32)
        for rows in _chunks(len(texts)):
            some = texts.iloc[rows]
            tfidf = sparse.hstack([self.words.transform(some), self.characters.transform(some)])
            encoded[rows] = _to_length(tfidf.tocsr() @ self.components.T)
        return encoded

    def arrays(self) -> dict[str, Array]:
        """Inverse document frequencies and singular vectors."""
        return {
            "words_idf": self.words.idf_,
            "characters_idf": self.characters.idf_,
            "components": self.components,
        }

    def details(self) -> dict[str, list[str]]:
        """Vocabularies."""
        return {name: _vocabulary(part) for name, part in (("words", self.words), ("characters", self.characters))}

    @classmethod
    def restore(cls, details: Mapping[str, list[str]], arrays: Mapping[str, Array]) -> TextPart:
        """From what was stored."""
        words = _restore_vectorizer(WORDS, details["words"], arrays["words_idf"])
        characters = _restore_vectorizer(CHARACTERS, details["characters"], arrays["characters_idf"])
        return cls(words, characters, arrays["components"])


def _vocabulary(vectorizer: TfidfVectorizer) -> list[str]:
    return [str(term) for term in vectorizer.get_feature_names_out()]


def _restore_vectorizer(settings: Mapping[str, Any], vocabulary: list[str], idf: Array) -> TfidfVectorizer:
    chosen = {key: value for key, value in settings.items() if key != "max_features"}
    vectorizer = TfidfVectorizer(**chosen, vocabulary={term: index for index, term in enumerate(vocabulary)})
    vectorizer.idf_ = idf
    return vectorizer


# --- tables -----------------------------------------------------------------------------------------------------------


@register_encoder
@dataclass(frozen=True)
class TableEncoder:
    """Columns of numbers, categories and texts, encoded apart and put side by side.

    Attributes
    ----------
    roles : mapping of str to {"number", "category", "text"}
        Of the columns it reads.
    numbers : NumberPart or None
        Of the columns of numbers, and after them of the categories that are coded by rank.
    categories : mapping of str to CategoryPart
        By column.
    texts : mapping of str to TextPart
        By column.
    """

    name: ClassVar[str] = "columns"

    roles: Mapping[str, Role]
    numbers: NumberPart | None
    categories: Mapping[str, CategoryPart]
    texts: Mapping[str, TextPart]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads."""
        return tuple(self.roles)

    def count_unseen(self, inputs: Inputs) -> dict[str, int]:
        """Cells, by column, of categories that did not occur in training; they are encoded as the mean row is."""
        counts = {name: int(part.unseen(inputs.values[name]).sum()) for name, part in self.categories.items()}
        return {name: n for name, n in counts.items() if n}

    @classmethod
    def fit(cls, inputs: Inputs) -> TableEncoder:
        """Every part on its columns.

        Raises
        ------
        InputError
            Where a column of numbers is empty in every row, or one of texts holds no words.
        """
        for name in inputs.select("number"):
            if inputs.values[name].isna().all():
                raise InputError(f"column {name!r} is empty in every row; leave it out")
        categories = {name: CategoryPart.fit(inputs.values[name]) for name in inputs.select("category")}
        columns = _as_numbers(inputs, inputs.roles, categories)
        numbers = NumberPart.fit(columns) if columns else None
        texts = {name: TextPart.fit(inputs.values[name]) for name in inputs.select("text")}
        return cls(dict(inputs.roles), numbers, categories, texts)

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]: numbers, categories by rank, one-hot categories, texts."""
        parts = [] if self.numbers is None else [self.numbers.encode(_as_numbers(inputs, self.roles, self.categories))]
        parts += [part.one_hot(inputs.values[name]) for name, part in self.categories.items() if part.is_one_hot]
        parts += [part.encode(inputs.values[name]) for name, part in self.texts.items()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def arrays(self) -> dict[str, Array]:
        """Medians, quantiles, shares and singular vectors."""
        stored = {} if self.numbers is None else self.numbers.arrays()
        shares = {f"shares_{k}": part.shares for k, part in enumerate(self.categories.values())}
        texts = {f"{key}_{k}": a for k, part in enumerate(self.texts.values()) for key, a in part.arrays().items()}
        return {**stored, **shares, **texts}

    def details(self) -> dict[str, Any]:
        """Roles, values of the categories, and vocabularies."""
        return {
            "roles": dict(self.roles),
            "categories": {name: part.values for name, part in self.categories.items()},
            "texts": {name: part.details() for name, part in self.texts.items()},
        }

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> TableEncoder:
        """From what was stored."""
        categories = {
            name: CategoryPart(tuple(values), arrays[f"shares_{k}"])
            for k, (name, values) in enumerate(details["categories"].items())
        }
        texts = {
            name: TextPart.restore(own, {key: arrays[f"{key}_{k}"] for key in TEXT_ARRAYS})
            for k, (name, own) in enumerate(details["texts"].items())
        }
        numbers = NumberPart.restore(arrays) if "median" in arrays else None
        return cls(details["roles"], numbers, categories, texts)


TEXT_ARRAYS = ("words_idf", "characters_idf", "components")


def _as_numbers(
    inputs: Inputs, roles: Mapping[str, Role], categories: Mapping[str, CategoryPart]
) -> list[npt.NDArray[np.float64]]:
    """Columns of numbers, then those of categories that are coded by rank."""
    numbers = [inputs.values[name].to_numpy(np.float64) for name, role in roles.items() if role == "number"]
    return numbers + [part.ranks(inputs.values[name]) for name, part in categories.items() if not part.is_one_hot]


@dataclass(frozen=True)
class LazyEncoded:
    """Encoded rows that are made when they are asked for, for sets that would not fit into memory once encoded.

    Attributes
    ----------
    encoder : Encoder
        Fitted.
    inputs : Inputs
        Of every row.
    """

    encoder: Encoder
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice | IntArray) -> Array:
        """Some rows encoded, by a slice or by their positions."""
        chosen = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        return self.encoder.encode(self.inputs.take(chosen))

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array of all of them."""
        return (len(self), *self[:1].shape[1:])

    @property
    def ndim(self) -> int:
        """As of that array."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """As of that array."""
        return int(np.prod(self.shape)) * self[:1].itemsize


Encoded = npt.NDArray[Any] | LazyEncoded
"""Encoded inputs of all rows [N, ...]: an array, or what can be asked for its rows."""


def fit_encoder(inputs: Inputs) -> Encoder:
    """The encoder of this kind of input that learns from nothing else, fitted on it."""
    fitters: dict[str, Callable[[Inputs], Encoder]] = {
        "table": TableEncoder.fit,
        "vectors": VectorEncoder.fit,
        "images": ImageEncoder.fit,
    }
    return fitters[inputs.kind](inputs)
