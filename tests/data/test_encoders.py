import io
import json
import zipfile
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import QuantileTransformer

from ebomlc.data import encoders, preprocessing
from ebomlc.data.columns import Columns, choose_inputs
from ebomlc.data.encoders import ENCODERS, ImageEncoder, fit_encoder, register_encoder
from ebomlc.data.inputs import Inputs, table_of_numbers
from ebomlc.data.preprocessing import Preprocessing, load_preprocessing, save_preprocessing
from ebomlc.data.tables import read_table, table_from_frame
from ebomlc.errors import InputError

CLASS_NAMES = ("007", "NA", "None", "1e3", 'ß, "quoted"\n')
FEW = 40
"""Texts; fitting an encoder of text takes seconds on all of them."""

HEADLINES = ("labarai na yau", "labarai na jiya", "wasanni na yau", "kasuwa ta yau")


def column(role, *cells, name="column") -> Inputs:
    return Inputs("table", pd.DataFrame({name: pd.Series(cells, dtype=object)}), {name: role})


def texts(*rows: str) -> Inputs:
    return column("text", *rows, name="text")


def numbers(values) -> Inputs:
    values = np.asarray(values, dtype=np.float64)
    return table_of_numbers(values, tuple(f"x{k}" for k in range(values.shape[1])))


def cells() -> Inputs:
    """Thirty measures of real cells, every eleventh of them missing."""
    values = load_breast_cancer(return_X_y=True)[0].copy()
    values.ravel()[::11] = np.nan
    return numbers(values)


def images() -> Inputs:
    pixels = load_digits().images[:200, None] * 15
    return Inputs("images", np.repeat(pixels, 3, axis=1).astype(np.uint8))


def vectors() -> Inputs:
    return Inputs("vectors", load_digits().data[:300].astype(np.float32))


def wines() -> Inputs:
    """Real measures of wines, some as categories of few and of many values, and what a label might say of them."""
    frame = load_wine(as_frame=True).data.iloc[::2]
    strength = pd.cut(frame.pop("alcohol"), 4, labels=["weak", "light", "medium", "strong"]).astype(object)
    frame["strength"] = strength.where(np.arange(89) % 9 > 0, None)
    frame["vat"] = "vat " + (frame.pop("proline") // 40).astype(str)
    frame["dark"] = frame["color_intensity"] > 5
    frame["remark"] = [f"{HEADLINES[row % 4]} {HEADLINES[row % 3]}" + " !" * row for row in range(89)]
    frame["hue"] = frame["hue"].where(frame["hue"] < 1.2)
    return choose_inputs(
        table_from_frame(frame, "(wines)"), Columns(text=("remark",), features=tuple(frame.columns.drop("remark")))
    )


@pytest.fixture(params=["numbers", "text", "mixed", "vectors", "images"])
def inputs(request) -> Inputs:
    if request.param == "text":
        headlines = choose_inputs(read_table(request.getfixturevalue("hausa") / "test.csv"), Columns(text=("text",)))
        return headlines.take(np.arange(FEW))
    return {"numbers": cells, "mixed": wines, "vectors": vectors, "images": images}[request.param]()


def saved(encoder, inputs, folder):
    save_preprocessing(Preprocessing(encoder, inputs, CLASS_NAMES), folder)
    stored = load_preprocessing(folder)
    assert len(stored.like) == 0
    assert len(stored.like.join(inputs)) == len(inputs)
    return stored.encoder, stored.class_names


def content(inputs) -> list:
    return inputs.values.astype(str).to_numpy().tolist() if inputs.kind == "table" else inputs.values.tolist()


# --- storing ----------------------------------------------------------------------------------------------------------


def test_a_stored_encoder_gives_the_same_bits(inputs, tmp_path):
    half = inputs.take(np.arange(0, len(inputs), 2))
    encoder = fit_encoder(half)
    restored, class_names = saved(encoder, inputs, tmp_path)
    before, after = encoder.encode(inputs), restored.encode(inputs)
    assert before.dtype == after.dtype
    assert before.tobytes() == after.tobytes()
    assert class_names == CLASS_NAMES
    assert restored.columns == encoder.columns == inputs.columns
    assert dict(restored.roles) == dict(inputs.roles)


def test_an_encoder_stored_twice_is_the_same(inputs, tmp_path):
    (tmp_path / "again").mkdir()
    restored, _ = saved(fit_encoder(inputs), inputs, tmp_path)
    again, _ = saved(restored, inputs, tmp_path / "again")
    np.testing.assert_array_equal(again.encode(inputs), restored.encode(inputs))


def test_no_pickle_is_written(inputs, tmp_path):
    saved(fit_encoder(inputs), inputs, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.json", "encoder.npz"]
    json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
    with zipfile.ZipFile(tmp_path / "encoder.npz") as archive:
        for name in archive.namelist():
            array = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            assert array.dtype.kind in "fiu"


def test_fitting_twice_gives_the_same_bits(inputs):
    first, second = (fit_encoder(inputs).encode(inputs) for _ in range(2))
    assert first.tobytes() == second.tobytes()


# --- encoding ---------------------------------------------------------------------------------------------------------


def test_a_row_is_encoded_the_same_alone_and_among_others(inputs):
    encoder = fit_encoder(inputs)
    together = encoder.encode(inputs)[:5]
    alone = np.concatenate([encoder.encode(inputs.take(np.array([row]))) for row in range(5)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_encoding_leaves_the_inputs_alone(inputs):
    before = content(inputs)
    fit_encoder(inputs).encode(inputs)
    assert content(inputs) == before


def test_features_are_finite_single_precision_and_of_order_one():
    for some in (cells(), wines(), vectors(), texts("ina kwana", "lafiya lau", "sai an jima", "ina gajiya")):
        features = fit_encoder(some).encode(some)
        assert features.dtype == np.float32
        assert len(features) == len(some)
        assert np.isfinite(features).all()
        assert 0.1 < features.std() < 10


def test_an_empty_cell_takes_the_median_of_the_training_rows():
    train = numbers([[1, 5], [2, np.nan], [10, 7], [np.nan, 30]])
    encoder = fit_encoder(train)
    np.testing.assert_array_equal(encoder.encode(numbers([[np.nan, np.nan]])), encoder.encode(numbers([[2, 7]])))


def test_only_training_rows_are_learnt_from(tmp_path):
    train, later = cells().take(np.arange(200)), cells().take(np.arange(200, 300))
    encoder = fit_encoder(train)
    before = {name: array.copy() for name, array in encoder.arrays().items()}
    encoder.encode(numbers(later.numbers() * 1e6))
    for name, array in encoder.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert encoder.encode(later).tobytes() != fit_encoder(later).encode(later).tobytes()


def test_larger_numbers_never_get_smaller_features():
    train = cells()
    ladder = np.linspace(-1e4, 1e4, 500)[:, None] * np.ones(30)
    features = fit_encoder(train).encode(numbers(ladder))
    assert (np.diff(features, axis=0) >= 0).all()
    assert np.isfinite(features).all()


def test_a_column_that_never_changes_does_no_harm():
    train = numbers([[1, 3], [2, 3], [3, 3]])
    encoder = fit_encoder(train)
    assert np.isfinite(encoder.encode(numbers([[1, 3], [1, 4], [1, np.nan], [1, -1e300]]))).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_of_numbers_are_enough(rows):
    train = numbers(np.arange(rows * 2).reshape(rows, 2))
    assert np.isfinite(fit_encoder(train).encode(train)).all()


def test_unseen_and_empty_texts_have_features(tmp_path):
    train = texts(*HEADLINES)
    restored, _ = saved(fit_encoder(train), train, tmp_path)
    features = restored.encode(texts("qqq www", "", "labarai na yau", "日本"))
    assert features.shape == (4, restored.encode(train).shape[1])
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[2], restored.encode(train)[0])


def test_like_texts_have_like_features(hausa):
    encoder = fit_encoder(choose_inputs(read_table(hausa / "noisy.csv"), Columns(text=("text",))).take(np.arange(FEW)))
    first, same, shouted, other = encoder.encode(
        texts("Hukumar Zaben Nigeria", "Hukumar Zaben Nigeria", "HUKUMAR ZABEN NIGERIA", "kungiyar kwallon kafa")
    )
    np.testing.assert_array_equal(first, same)
    assert np.linalg.norm(first - shouted) < 0.5 * np.linalg.norm(first - other)


def test_images_stay_as_they_are_and_their_statistics_are_taken():
    some = images()
    encoder = fit_encoder(some)
    assert encoder.encode(some).dtype == np.uint8
    np.testing.assert_array_equal(encoder.encode(some), some.values)
    scaled = some.values / 255
    np.testing.assert_allclose(encoder.arrays()["mean"], scaled.mean((0, 2, 3)))
    np.testing.assert_allclose(encoder.arrays()["std"], scaled.std((0, 2, 3)))


# --- what has to stay as it was ---------------------------------------------------------------------------------------


def test_numbers_alone_are_quantiles_of_the_filled_columns():
    values = cells().numbers()
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    expected = QuantileTransformer(n_quantiles=200, output_distribution="normal").fit_transform(filled).clip(-3, 3)
    assert fit_encoder(cells()).encode(cells()).tobytes() == expected.astype(np.float32).tobytes()


def test_numbers_of_many_rows_are_fitted_on_the_rows_the_library_draws(monkeypatch):
    monkeypatch.setattr(encoders, "QUANTILE_ROWS", 250)
    values = np.nan_to_num(cells().numbers())
    library = QuantileTransformer(n_quantiles=200, output_distribution="normal", subsample=250, random_state=0)
    expected = library.fit_transform(values).clip(-3, 3).astype(np.float32)
    assert fit_encoder(numbers(values)).encode(numbers(values)).tobytes() == expected.tobytes()


def test_texts_alone_are_reduced_tfidf_of_one_length(hausa):
    headlines = choose_inputs(read_table(hausa / "test.csv"), Columns(text=("text",))).take(np.arange(FEW))
    some = headlines.values["text"]
    common = {"sublinear_tf": True, "max_features": 50_000}
    parts = [
        TfidfVectorizer(ngram_range=(1, 2), **common).fit_transform(some),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common).fit_transform(some),
    ]
    tfidf = sparse.hstack(parts).tocsr()
    components = TruncatedSVD(FEW - 1, random_state=0).fit(tfidf).components_.astype(np.float32)
    reduced = tfidf @ components.T
    expected = np.sqrt(FEW - 1) * reduced / np.linalg.norm(reduced, axis=1, keepdims=True)
    assert fit_encoder(headlines).encode(headlines).tobytes() == expected.astype(np.float32).tobytes()


# --- mixed columns and categories -------------------------------------------------------------------------------------


def test_parts_stand_side_by_side_as_they_are_alone():
    mixed = wines()
    assert mixed.values["vat"].nunique() > 20
    together = fit_encoder(mixed).encode(mixed)
    alone = [Inputs("table", mixed.values[[name]], {name: mixed.roles[name]}) for name in mixed.columns]
    parts = {part.columns[0]: fit_encoder(part).encode(part) for part in alone}
    order = [*mixed.select("number"), "vat", "strength", "dark", "remark"]
    assert parts["vat"].shape == (89, 1)
    assert parts["strength"].shape == (89, 4)
    assert parts["dark"].shape == (89, 2)
    np.testing.assert_array_equal(together, np.concatenate([parts[name] for name in order], axis=1))


def test_a_category_of_few_values_is_standardised_and_an_unknown_one_is_the_mean():
    train = column("category", *["a"] * 5, *["b"] * 3, *["c"] * 2, None)
    encoder = fit_encoder(train)
    features = encoder.encode(train)
    assert features.shape == (11, 3)
    np.testing.assert_allclose(features[:10].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features[:10].std(0), 1, atol=1e-6)
    assert (features[[0, 5, 8]].argmax(1) == [0, 1, 2]).all()
    np.testing.assert_array_equal(features[10], 0)
    np.testing.assert_array_equal(encoder.encode(column("category", "new", None, np.nan)), 0)


def test_a_rare_category_is_not_blown_up_and_a_constant_one_is_nothing():
    rare = column("category", *["a"] * 9999, "b")
    features = fit_encoder(rare).encode(rare)
    assert np.abs(features).max() <= 3
    assert features[-1, 1] > 2.9
    assert np.abs(features[0]).max() < 0.01
    constant = column("category", "a", "a")
    np.testing.assert_array_equal(fit_encoder(constant).encode(constant), 0)


def test_a_category_of_many_values_is_ranked_by_frequency():
    values = [f"town {k:02}" for k in range(30) for _ in range(30 - k)]
    train = column("category", *values, None)
    encoder = fit_encoder(train)
    features = encoder.encode(column("category", *dict.fromkeys(values), "new", None))
    assert features.shape == (32, 1)
    assert (np.diff(features[:30, 0]) > 0).all()
    median = np.median([int(value[-2:]) for value in values])
    expected = encoder.encode(column("category", f"town {int(median):02}"))
    np.testing.assert_array_equal(features[30:], np.repeat(expected, 2, axis=0))


def test_equally_frequent_values_are_in_the_order_of_the_alphabet():
    shuffled = [f"town {k:02}" for k in np.random.default_rng(0).permutation(30)]
    in_order = column("category", *sorted(shuffled))
    features = fit_encoder(column("category", *shuffled)).encode(in_order)
    np.testing.assert_array_equal(features, fit_encoder(in_order).encode(in_order))


def test_later_tables_may_order_their_columns_otherwise_and_have_more():
    mixed = wines()
    encoder = fit_encoder(mixed)
    shuffled = mixed.values[list(reversed(mixed.columns))].assign(more=1.0)
    np.testing.assert_array_equal(encoder.encode(replace(mixed, values=shuffled)), encoder.encode(mixed))


def test_rows_are_encoded_in_chunks(inputs, monkeypatch):
    encoder = fit_encoder(inputs)
    whole = encoder.encode(inputs)
    monkeypatch.setattr(encoders, "CHUNK_ROWS", 17)
    np.testing.assert_array_equal(encoder.encode(inputs), whole)
    np.testing.assert_allclose(fit_encoder(inputs).encode(inputs), whole, atol=1e-5)


def test_no_rows_are_encoded_as_no_rows(inputs):
    encoder = fit_encoder(inputs)
    empty = encoder.encode(inputs.take(np.arange(0)))
    assert empty.shape == (0, *encoder.encode(inputs).shape[1:])


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_lose_their_mean_and_get_one_length():
    some = vectors()
    features = fit_encoder(some).encode(some)
    assert features.dtype == np.float32
    np.testing.assert_allclose((features**2).mean(1), 1, rtol=1e-5)
    centred = some.values - some.values.mean(0)
    cosines = (features * centred).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)


def test_the_mean_vector_is_zero():
    some = vectors()
    mean = some.values.mean(0, dtype=np.float64).astype(np.float32)
    assert np.abs(fit_encoder(some).encode(Inputs("vectors", mean[None]))).max() == 0


# --- the registry -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doubled:
    """An encoder of another module."""

    name: ClassVar[str] = "doubled"
    factor: np.ndarray
    word: str
    columns: tuple[str, ...] = ()
    roles: ClassVar[dict] = {}

    def encode(self, inputs):
        return inputs.values * self.factor

    def arrays(self):
        return {"factor": self.factor}

    def details(self):
        return {"word": self.word, "kind": "mine"}

    @classmethod
    def restore(cls, details, arrays):
        assert details["kind"] == "mine"
        return cls(arrays["factor"], details["word"])


def test_another_encoder_is_stored_and_found_by_its_name(tmp_path, monkeypatch):
    for room in (encoders, preprocessing):
        monkeypatch.setattr(room, "ENCODERS", dict(ENCODERS))
    monkeypatch.setattr(preprocessing, "ENCODERS", encoders.ENCODERS)
    assert register_encoder(Doubled) is register_encoder(Doubled) is Doubled
    restored, class_names = saved(Doubled(np.array(2.0), "x"), vectors(), tmp_path)
    assert isinstance(restored, Doubled)
    assert (restored.word, class_names) == ("x", CLASS_NAMES)
    np.testing.assert_array_equal(restored.encode(vectors()), vectors().values * 2)


def test_a_name_is_given_to_one_encoder_only():
    with pytest.raises(ValueError, match="two encoders are called 'pixels'"):
        register_encoder(type("Other", (ImageEncoder,), {}))


def test_an_encoder_of_another_version_is_refused(tmp_path):
    save_preprocessing(Preprocessing(Doubled(np.array(2.0), "x"), vectors(), CLASS_NAMES), tmp_path)
    with pytest.raises(InputError, match=r"encoder.json: unknown encoder 'doubled'.*use the version"):
        load_preprocessing(tmp_path)


def test_what_is_stored_says_how_to_read_another_table(tmp_path):
    mixed = wines()
    save_preprocessing(Preprocessing(fit_encoder(mixed), mixed, CLASS_NAMES, {"A ": "A"}), tmp_path)
    stored = load_preprocessing(tmp_path)
    assert stored.spelling == {"A ": "A"}
    encoder, like = stored.encoder, stored.like
    table = table_from_frame(mixed.values.assign(id=range(len(mixed))), "(again)")
    again = choose_inputs(table, Columns(), like)
    np.testing.assert_array_equal(encoder.encode(again), fit_encoder(mixed).encode(mixed))


def test_what_is_stored_has_the_shape_and_type_of_a_row(inputs, tmp_path):
    encoder = fit_encoder(inputs)
    save_preprocessing(Preprocessing(encoder, inputs, CLASS_NAMES), tmp_path)
    stored = load_preprocessing(tmp_path)
    restored, like = stored.encoder, stored.like
    assert like.kind == inputs.kind
    if inputs.kind == "table":
        assert like.values.dtypes.to_dict() == inputs.values.dtypes.to_dict()
    else:
        assert (like.values.shape[1:], like.values.dtype) == (inputs.values.shape[1:], inputs.values.dtype)
    assert restored.encode(like).shape == (0, *encoder.encode(inputs).shape[1:])


# --- refused ----------------------------------------------------------------------------------------------------------


def test_texts_without_words_are_refused():
    with pytest.raises(InputError, match="column 'text' holds no words"):
        fit_encoder(texts(".", "!", "?", ""))


def test_a_mixed_table_names_the_column_of_texts_without_words():
    mixed = wines()
    with pytest.raises(InputError, match="column 'remark' holds no words"):
        fit_encoder(replace(mixed, values=mixed.values.assign(remark="!")))


def test_a_column_without_a_number_is_refused():
    with pytest.raises(InputError, match="column 'x1' is empty in every row; leave it out"):
        fit_encoder(numbers([[1, np.nan], [2, np.nan]]))
