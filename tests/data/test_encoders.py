import io
import json
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from ebomlc.data.encoders import fit_encoder, load_encoder, save_encoder
from ebomlc.data.inputs import Inputs
from ebomlc.data.readers import Columns, read_file
from ebomlc.errors import InputError

CLASS_NAMES = ("007", "NA", "None", "1e3", 'ß, "quoted"\n')
FEW = 40
"""Texts; fitting an encoder of text takes seconds on all of them."""

UNSEEN = Inputs("text", np.array(["qqq www", "", "labarai na yau", "日本"], dtype=object), ("text",))


def texts(*rows: str) -> Inputs:
    return Inputs("text", np.array(rows, dtype=object), ("text",))


def numbers(values, columns=None) -> Inputs:
    values = np.asarray(values, dtype=np.float64)
    return Inputs("numbers", values, columns or tuple(f"x{k}" for k in range(values.shape[1])))


def cells() -> Inputs:
    """Thirty measures of real cells, every eleventh of them missing."""
    values = load_breast_cancer(return_X_y=True)[0].copy()
    values.ravel()[::11] = np.nan
    return numbers(values)


def images() -> Inputs:
    pixels = load_digits().images[:200, None] * 15
    return Inputs("images", np.repeat(pixels, 3, axis=1).astype(np.uint8))


@pytest.fixture(params=["numbers", "text", "images"])
def inputs(request) -> Inputs:
    if request.param == "text":
        headlines = read_file(request.getfixturevalue("hausa") / "test.csv", Columns(text="text")).inputs
        return headlines.take(np.arange(FEW))
    return cells() if request.param == "numbers" else images()


def saved(encoder, inputs, folder):
    save_encoder(encoder, inputs.kind, CLASS_NAMES, folder)
    return load_encoder(folder)


# --- storing ----------------------------------------------------------------------------------------------------------


def test_a_stored_encoder_gives_the_same_bits(inputs, tmp_path):
    half = inputs.take(np.arange(0, len(inputs), 2))
    encoder = fit_encoder(half)
    restored, class_names = saved(encoder, inputs, tmp_path)
    before, after = encoder.encode(inputs), restored.encode(inputs)
    assert before.dtype == after.dtype
    assert before.tobytes() == after.tobytes()
    assert class_names == CLASS_NAMES
    assert restored.columns == encoder.columns


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
    before = inputs.values.copy()
    fit_encoder(inputs).encode(inputs)
    np.testing.assert_array_equal(inputs.values, before)


def test_features_are_finite_single_precision_and_of_order_one():
    for some in (cells(), texts("ina kwana", "lafiya lau", "sai an jima", "ina gajiya")):
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
    encoder.encode(numbers(later.values * 1e6))
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
    train = texts("labarai na yau", "labarai na jiya", "wasanni na yau", "kasuwa ta yau")
    restored, _ = saved(fit_encoder(train), train, tmp_path)
    features = restored.encode(UNSEEN)
    assert features.shape == (4, restored.encode(train).shape[1])
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[2], restored.encode(train)[0])


def test_like_texts_have_like_features(hausa):
    encoder = fit_encoder(read_file(hausa / "noisy.csv", Columns(text="text")).inputs.take(np.arange(FEW)))
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


# --- refused ----------------------------------------------------------------------------------------------------------


def test_texts_without_words_are_refused():
    with pytest.raises(InputError, match="column 'text' holds no words"):
        fit_encoder(texts(".", "!", "?", ""))


def test_a_column_without_a_number_is_refused():
    with pytest.raises(InputError, match="column 'x1' is empty in every row; leave it out"):
        fit_encoder(numbers([[1, np.nan], [2, np.nan]]))
