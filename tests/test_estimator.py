"""LabelCorrector is a classifier as scikit-learn knows them, and does what a run does."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from ebomlc import Arrays, DataWarning, InputError, LabelCorrector, fit, load_classifier, predict
from ebomlc.errors import TrainingDivergedError
from ebomlc.methods.base import METHODS
from ebomlc.training import engine

SHARED = Path(__file__).parents[2] / "shared" / "data"
PIXELS, DIGITS = load_digits(return_X_y=True)
WINE, GRAPES = load_wine(return_X_y=True)
NAMES = np.array(["Barolo", "Grignolino", "Barbera"])
FAST = {"epochs": 3, "folds": 0}


def corrupt(right, share=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(right)) < share, rng.permutation(right), right)


def wine(n_checked=60, seed=0):
    """Rows, given labels, right labels, and the right labels of the first few with NaN after them."""
    order = np.random.default_rng(seed).permutation(len(WINE))
    rows, right = WINE[order], GRAPES[order]
    return rows, corrupt(right, 0.3), right, np.where(np.arange(len(rows)) < n_checked, right, np.nan)


def digits(n=600, n_checked=100):
    order = np.random.default_rng(0).permutation(len(PIXELS))[:n]
    rows, right = PIXELS[order], DIGITS[order]
    return rows, corrupt(right), right, np.where(np.arange(n) < n_checked, right, np.nan)


def small(**options):
    return LabelCorrector(**{**FAST, **options})


# --- scikit-learn's own checks: none is expected to fail --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:no trusted rows:ebomlc.DataWarning")
@parametrize_with_checks([LabelCorrector(epochs=10)])
def test_scikit_learn_is_content(estimator, check):
    check(estimator)


# --- what it is for ---------------------------------------------------------------------------------------------------


def test_forty_percent_wrong_labels_of_digits_hurt_little():
    X, y, right, checked = digits(800, 95)
    test = np.random.default_rng(0).permutation(len(PIXELS))[800:]
    corrector = LabelCorrector(epochs=20, folds=2).fit(X, y, y_trusted=checked)
    assert corrector.score(PIXELS[test], DIGITS[test]) > 0.88
    assert (corrector.labels_.suggested_label == right).mean() > (y == right).mean() + 0.2
    worst = corrector.labels_.query("not is_trusted").label_quality.nsmallest(100).index
    assert (y[worst] != right[worst]).mean() > 0.95
    assert corrector.trust_["noise"]["low"] < (y != right).mean() < corrector.trust_["noise"]["high"]


@pytest.mark.parametrize("separate", [False, True])
def test_it_is_the_run_in_memory(separate, tmp_path):
    X, y, right, checked = wine()
    mine = small(random_state=7, folds=2, precision=0.8)
    if separate:
        noisy, trusted = (X[60:], y[60:]), Arrays(X[:60], right[:60], given=y[:60])
        mine.fit(X[60:], y[60:], X_trusted=X[:60], y_trusted=right[:60], given_trusted=y[:60])
    else:
        frame = pd.DataFrame(X, columns=[f"x{k}" for k in range(X.shape[1])])
        noisy, trusted = frame.assign(label=y, checked_label=pd.array(checked, dtype="Int64")), None
        mine.fit(X, y, y_trusted=checked)
    run = fit(noisy, trusted=trusted, seed=7, epochs=3, folds=2, precision=0.8, out=tmp_path / "run")
    theirs = predict(load_classifier(run.folder), pd.DataFrame(X, columns=[f"x{k}" for k in range(X.shape[1])]))
    np.testing.assert_allclose(mine.predict_proba(X), theirs.probabilities, rtol=1e-5)
    assert mine.trust_ == json.loads((run.folder / "trust.json").read_text())
    assert mine.trust_["basis"]["folds"] == 2
    same = ["suggestion_confidence", "label_quality", "is_label_issue", "predicted_confidence", "is_trusted"]
    pd.testing.assert_frame_equal(mine.labels_[same], run.labels.to_frame()[same][: len(mine.labels_)])


def test_the_label_table_keeps_index_types_and_checked_labels():
    X, y, right, checked = wine()
    rows = pd.Index([f"bottle {k}" for k in range(len(X))], name="bottle")
    corrector = small().fit(
        pd.DataFrame(X, index=rows), NAMES[y], y_trusted=np.where(np.isnan(checked), None, NAMES[right])
    )
    table = corrector.labels_
    assert table.index.equals(rows)
    assert table.id.tolist() == rows.tolist()
    assert table.given_label.tolist() == NAMES[y].tolist()
    assert table.is_trusted.to_numpy().tolist() == [True] * 60 + [False] * (len(X) - 60)
    assert table.suggested_label[:60].tolist() == NAMES[right[:60]].tolist()
    assert (table.is_label_issue == (table.suggested_label != table.given_label)).all()
    again = corrector.correct(pd.DataFrame(X, index=rows), NAMES[y])
    pd.testing.assert_frame_equal(again[60:], table[60:])
    assert not again.is_trusted.any()
    checked_again = corrector.correct(
        pd.DataFrame(X, index=rows), NAMES[y], y_trusted=[*NAMES[right[:60]], *[None] * (len(X) - 60)]
    )
    pd.testing.assert_frame_equal(checked_again, table)


@pytest.mark.parametrize("gap", [np.nan, None, -1, pd.NA])
def test_every_gap_is_one(gap):
    X, y, right, checked = wine()
    expected = small().fit(X, y, y_trusted=checked).predict_proba(X)
    gappy = [label if row < 60 else gap for row, label in enumerate(right.tolist())]
    for column in (gappy, pd.Series(gappy)):
        np.testing.assert_array_equal(small().fit(X, y, y_trusted=column).predict_proba(X), expected)


@pytest.mark.parametrize(
    "classes",
    [
        np.array([-1, 1]),
        np.array([False, True]),
        np.array([2.0, 1.0]),
        np.array(["10", "9"]),
        np.array(["b", "a"], object),
    ],
    ids=str,
)
def test_classes_of_any_type(classes):
    X, right = load_breast_cancer(return_X_y=True)
    X, right = X[:200], right[:200]
    y = classes[corrupt(right, 0.2)]
    checked = [label if row < 50 else None for row, label in enumerate(classes[right].tolist())]
    corrector = small(epochs=60).fit(X, y, y_trusted=checked)
    assert corrector.classes_.tolist() == np.unique(classes).tolist()
    assert corrector.classes_.dtype == classes.dtype
    assert corrector.predict(X).dtype == classes.dtype
    assert (corrector.predict(X) == classes[right]).mean() > 0.8
    best = corrector.classes_[corrector.predict_proba(X).argmax(1)]
    assert (best == corrector.predict(X)).all()
    assert corrector.labels_.given_label.tolist() == y.tolist()
    assert corrector.score(X, y, y_trusted=checked) == (corrector.predict(X)[:50] == classes[right][:50]).mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_checked_rows_may_have_other_shares_of_the_classes(seed):
    """43 of one class and 7 of the other, where the classes are as frequent as each other among all rows."""
    X, right = load_breast_cancer(return_X_y=True)
    X, right = X[:200], right[:200]
    assert (right[:50] == 0).sum() == 43
    assert (right == 0).mean() == pytest.approx(0.5, abs=0.05)
    y = corrupt(right, 0.2, seed)
    checked = [int(label) if row < 50 else None for row, label in enumerate(right)]
    corrector = small(epochs=100, random_state=seed).fit(X, y, y_trusted=checked)
    assert (corrector.predict(X) == right).mean() > 0.93
    assert (corrector.labels_["suggested_label"] == right).mean() > 0.92


def test_minus_one_is_a_label_where_it_is_a_class():
    X, y, right, _ = wine()
    y, right = np.where(y == 0, -1, 1), np.where(right == 0, -1, 1)
    checked = np.where(np.arange(len(X)) < 60, right, np.nan)
    corrector = small().fit(X, y, y_trusted=checked)
    table = corrector.labels_
    assert table.is_trusted.sum() == 60
    assert set(table[table.is_trusted].suggested_label) == {-1, 1}
    one = corrector.correct(X[:1], [1.0], y_trusted=[-1])
    assert one.is_trusted.tolist() == [True]
    assert one.suggested_label.tolist() == [-1]


def test_a_class_that_only_trusted_rows_have():
    X, y, right, checked = wine()
    y = np.where(y == 2, 1, y)
    with pytest.warns(DataWarning, match="no noisy row of class '2'"):
        corrector = small(epochs=20).fit(X, y, y_trusted=checked)
    assert corrector.classes_.tolist() == [0, 1, 2]
    assert (corrector.predict(X) == right).mean() > 0.85


# --- without trusted rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checked", [None, "gaps"])
def test_without_trusted_rows_it_is_plain_training_and_says_so(checked):
    X, y, _, _ = wine()
    checked = None if checked is None else np.full(len(y), np.nan)
    with pytest.warns(DataWarning, match="no trusted rows: the labels are learnt as they are by 'ce' instead of 'plus"):
        corrector = LabelCorrector(epochs=20).fit(X, y, y_trusted=checked)
    assert corrector.config_.method.name == "ce"
    assert corrector.trust_ is None
    assert not corrector.labels_.is_trusted.any()
    assert len(corrector.labels_) == len(X)
    assert (corrector.predict(X) == y).mean() > 0.7
    pd.testing.assert_frame_equal(corrector.correct(X, y), corrector.labels_)


# --- pipelines and searches -------------------------------------------------------------------------------------------


def every_third(right):
    return np.where(np.arange(len(right)) % 3 == 0, right, np.nan)


def test_cross_validation_passes_the_trusted_rows_on():
    X, y, right, _ = wine()
    scores = cross_val_score(small(epochs=20), X, y, params={"y_trusted": every_third(right)}, cv=3)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = small(epochs=20).set_fit_request(y_trusted=True).set_score_request(y_trusted=True)
        on_checked = cross_val_score(routed, X, y, params={"y_trusted": every_third(right)}, cv=3)
    # given labels, of which many are wrong, cannot be met; right ones can
    assert on_checked.mean() > 0.9 > scores.mean()


def test_a_grid_is_searched_by_two_processes():
    X, y, right, _ = wine()
    grid = {
        "labelcorrector__settings": [{"mixup": np.float64(0.1)}, {"mixup": 0.3}],
        "labelcorrector__epochs": np.array([3]),
    }
    pipeline = make_pipeline(StandardScaler(), small(random_state=None))
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=2, error_score="raise")
    search.fit(X, y, labelcorrector__y_trusted=every_third(right))
    assert search.best_params_["labelcorrector__settings"]["mixup"] in (0.1, 0.3)
    assert search.best_estimator_["labelcorrector"].labels_.is_trusted.sum() == 60


def test_a_pipeline_transforms_rows_that_are_not_among_the_others():
    X, y, right, _ = wine()
    with sklearn.config_context(enable_metadata_routing=True):
        corrector = small(epochs=20, encoder="vectors").set_fit_request(X_trusted=True, y_trusted=True)
        pipeline = make_pipeline(StandardScaler(), corrector, transform_input=["X_trusted"])
        pipeline.fit(X[60:], y[60:], X_trusted=X[:60], y_trusted=right[:60])
    # unscaled, one column outweighs the others by far
    assert pipeline.score(X, right) > 0.9


def test_words_in_a_pipeline_are_never_made_dense(monkeypatch):
    digits_as_words = [" ".join(f"r{k}v{int(v)}" for k, v in enumerate(row)) for row in PIXELS[:400]]
    y = corrupt(DIGITS[:400], 0.3)
    checked = [*DIGITS[:100], *[-1] * 300]
    monkeypatch.setattr(sparse.csr_matrix, "toarray", lambda self: pytest.fail("made dense"))
    pipeline = make_pipeline(TfidfVectorizer(), LabelCorrector(epochs=20))
    pipeline.fit(digits_as_words, y, labelcorrector__y_trusted=checked)
    assert pipeline["labelcorrector"].n_features_in_ > 200
    assert pipeline.score(digits_as_words[100:], DIGITS[100:400]) > 0.8


def test_sparse_rows_count_as_the_dense_ones_do():
    X, y, _, checked = digits(300)
    dense = small().fit(X, y, y_trusted=checked)
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        thin = small().fit(kind(X), y, y_trusted=checked)
        np.testing.assert_array_equal(thin.predict_proba(kind(X)), dense.predict_proba(X))
        np.testing.assert_array_equal(dense.predict_proba(kind(X)), dense.predict_proba(X))


def test_dense_rows_after_wide_sparse_ones():
    X, y, _, checked = digits(300)
    wide = sparse.csr_array(np.hstack([X] * 4))
    corrector = small().fit(wide, y, y_trusted=checked)
    np.testing.assert_allclose(corrector.predict_proba(wide), corrector.predict_proba(wide.toarray()), rtol=1e-4)
    assert small(encoder="columns").fit(wide, y, y_trusted=checked).config_.encoder.name == "columns"


# --- what a row may be ------------------------------------------------------------------------------------------------


def test_a_table_of_words_numbers_and_gaps():
    wines = load_wine(as_frame=True)
    frame = wines.data.assign(strength=pd.cut(wines.data.alcohol, 3, labels=["weak", "middling", "strong"]))
    frame.loc[::7, "hue"] = np.nan
    y, checked = corrupt(GRAPES, 0.3), every_third(GRAPES)
    corrector = small(epochs=20).fit(frame, y, y_trusted=checked)
    assert corrector.feature_names_in_.tolist() == frame.columns.tolist()
    assert corrector.score(frame, GRAPES) > 0.9
    assert corrector.predict_proba(frame[:5].astype({"strength": str})).shape == (5, 3)
    with (
        pytest.warns(UserWarning, match="valid feature names"),
        pytest.raises(
            InputError, match="X holds 14 columns of numbers, but in fit it held 13 columns of numbers, 1 of categories"
        ),
    ):
        corrector.predict(np.zeros((2, frame.shape[1])))


def test_numbers_of_a_frame_are_those_of_an_array():
    X, y, _, checked = wine()
    frame = pd.DataFrame(X, columns=["id", "label", *[f"c{k}" for k in range(11)]])
    np.testing.assert_array_equal(
        small().fit(frame, y, y_trusted=checked).predict_proba(frame),
        small().fit(X, y, y_trusted=checked).predict_proba(X),
    )


def test_texts():
    texts = [" ".join(f"row{k} has{int(v)}" for k, v in enumerate(row)) for row in PIXELS[:300]]
    y, checked = corrupt(DIGITS[:300], 0.2), every_third(DIGITS[:300])
    corrector = small(epochs=60).fit(texts, y, y_trusted=checked)
    assert corrector.score(pd.Series(texts), DIGITS[:300]) > 0.8
    assert corrector.labels_.index.equals(pd.RangeIndex(300))


def test_images():
    images = (PIXELS[:300].reshape(-1, 8, 8) * 15).astype(np.uint8)
    y, checked = corrupt(DIGITS[:300], 0.2), every_third(DIGITS[:300])
    corrector = small(encoder="pixels", model="cnn").fit(images, y, y_trusted=checked)
    assert corrector.config_.model.name == "cnn"
    np.testing.assert_array_equal(corrector.predict(images[:, None]), corrector.predict(images))
    with pytest.raises(InputError, match="X holds images of 1 x 8 x 6, but in fit it held images of 1 x 8 x 8"):
        corrector.predict(images[:, :, :6])


# --- copies, processes, disk ------------------------------------------------------------------------------------------


def assert_alike(one, other, X, y):
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    pd.testing.assert_frame_equal(one.correct(X, y), other.correct(X, y))
    pd.testing.assert_frame_equal(one.labels_, other.labels_)
    assert (one.config_, one.trust_) == (other.config_, other.trust_)
    assert one.classes_.dtype == other.classes_.dtype
    assert one.get_params() == other.get_params()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"oracle"}))
def test_every_method_comes_back_from_disk_and_from_another_process(method, tmp_path):
    X, y, _, checked = wine()
    corrector = small(method=method).fit(
        X, NAMES[y], y_trusted=[None if np.isnan(k) else NAMES[int(k)] for k in checked]
    )
    corrector.save(tmp_path / "saved")
    for other in (
        LabelCorrector.load(tmp_path / "saved"),
        pickle.loads(pickle.dumps(corrector)),
        copy.deepcopy(corrector),
    ):
        assert_alike(corrector, other, X, NAMES[y])


@pytest.mark.parametrize("kind", ["frame", "sparse", "texts", "bool"])
def test_every_kind_of_rows_comes_back_from_disk(kind, tmp_path):
    X, y, right, _ = digits(300)
    checked = every_third(right).astype(object)
    if kind == "frame":
        X = pd.DataFrame(X, columns=[f"pixel {k}" for k in range(64)], index=[f"digit {k}" for k in range(300)])
    elif kind == "sparse":
        X = sparse.csr_array(np.hstack([X] * 4))
    elif kind == "texts":
        X = [" ".join(f"row{k} has{int(v)}" for k, v in enumerate(row)) for row in X]
    else:
        y, checked = y > 4, [None if pd.isna(label) else label > 4 for label in checked]
    corrector = small(random_state=np.random.RandomState(3)).fit(X, y, y_trusted=checked)
    corrector.save(tmp_path / "saved")
    again = LabelCorrector.load(tmp_path / "saved")
    assert again.random_state == corrector.config_.seed
    assert vars(again).keys() == vars(corrector).keys()
    assert_alike(corrector.set_params(random_state=again.random_state), again, X, y)
    assert not list(tmp_path.glob(".saved*"))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(13, 16), nn.Linear(16, 3)

    def forward(self, rows):
        return self.last(self.first(rows).relu())


def test_a_network_of_ones_own(tmp_path):
    X, y, _, checked = wine()
    torch.manual_seed(0)
    network = Network()
    before = copy.deepcopy(network.state_dict())
    corrector = clone(small(model=network)).fit(X, y, y_trusted=checked)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    corrector.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        LabelCorrector.load(tmp_path / "saved", model=network).predict_proba(X), corrector.predict_proba(X)
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(corrector)).predict_proba(X), corrector.predict_proba(X))
    with pytest.raises(InputError, match=r"the network came from Python \(Network from Python\): give it as model"):
        LabelCorrector.load(tmp_path / "saved")
    with pytest.raises(InputError, match=r"cannot be read .*; was it written by another version"):
        LabelCorrector.load(tmp_path / "saved", model=nn.Linear(13, 3))


def test_what_is_on_disk_is_never_replaced_or_half_written(tmp_path, monkeypatch):
    X, y, _, checked = wine()
    corrector = small().fit(X, y, y_trusted=checked)
    corrector.save(tmp_path / "new" / "saved")
    with pytest.raises(InputError, match="saved is there already; name a new folder"):
        corrector.save(tmp_path / "new" / "saved")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="saved: cannot be made: Not a directory"):
        corrector.save(tmp_path / "file" / "saved")
    with pytest.raises(InputError, match=r"has no estimator.json; name the folder that LabelCorrector.save wrote"):
        LabelCorrector.load(tmp_path)
    content = json.loads((tmp_path / "new" / "saved" / "estimator.json").read_text())
    del content["config"]
    (tmp_path / "new" / "saved" / "estimator.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"saved: cannot be read .'config'.; was it written by another version"):
        LabelCorrector.load(tmp_path / "new" / "saved")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        corrector.save(tmp_path / "later" / "saved")
    assert not list((tmp_path / "later").iterdir())


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else_is_touched():
    X, y, _, checked = wine()

    def probabilities(seed):
        return small(random_state=seed).fit(X, y, y_trusted=checked).predict_proba(X)

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what it is about
    first = probabilities(0)
    drawn = (torch.rand(1), np.random.rand())  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global generator is what it is about
    assert drawn == (torch.rand(1), np.random.rand())  # noqa: NPY002
    np.testing.assert_array_equal(probabilities(0), first)
    assert (probabilities(1) != first).any()
    assert (probabilities(np.random.RandomState(0)) == probabilities(np.random.RandomState(0))).all()
    assert (probabilities(None) != probabilities(None)).any()


def test_deterministic_holds_while_it_trains_and_no_longer(monkeypatch):
    whole, modes = engine.learning_rate, []
    monkeypatch.setattr(
        engine, "learning_rate", lambda *args: modes.append(torch.get_deterministic_debug_mode()) or whole(*args)
    )
    X, y, _, checked = wine()
    plain, repeatable = (small(deterministic=wanted).fit(X, y, y_trusted=checked) for wanted in (False, True))
    assert set(modes[: len(modes) // 2]) == {0}
    assert set(modes[len(modes) // 2 :]) == {2}
    assert torch.get_deterministic_debug_mode() == 0
    assert repeatable.config_.training.deterministic
    np.testing.assert_array_equal(plain.predict_proba(X), repeatable.predict_proba(X))


def test_threads_do_not_disturb_one_another():
    X, y, _, checked = wine()
    expected = small().fit(X, y, y_trusted=checked).predict_proba(X)
    fitted = [small() for _ in range(4)]
    threads = [threading.Thread(target=each.fit, args=(X, y), kwargs={"y_trusted": checked}) for each in fitted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in fitted:
        np.testing.assert_array_equal(each.predict_proba(X), expected)


# --- what cannot be used ----------------------------------------------------------------------------------------------

ROWS, GIVEN, RIGHT, CHECKED = wine()


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"method": "ebolmc"}, {"y_trusted": CHECKED}, "unknown method 'ebolmc': did you mean 'ebomlc'"),
        ({"method": "oracle"}, {"y_trusted": CHECKED}, "method 'oracle' trains on the right labels of all rows"),
        ({"settings": {"mixpu": 0.5}}, {}, "unknown key 'mixpu'.* did you mean 'mixup'"),
        ({"epochs": "3"}, {"y_trusted": CHECKED}, "LabelCorrector: epochs is '3': must be of type int"),
        ({"epochs": 0}, {"y_trusted": CHECKED}, "epochs is 0: at least one"),
        ({"random_state": -1}, {"y_trusted": CHECKED}, "seed is -1"),
        ({"encoder": "minilm"}, {"y_trusted": CHECKED}, "minilm"),
        (
            {},
            {"y_trusted": CHECKED[:5]},
            "y_trusted has 5 rows and y 178: without X_trusted there must be one for each",
        ),
        ({}, {"X_trusted": ROWS}, "say nothing without y_trusted"),
        ({}, {"given_trusted": GIVEN}, "say nothing without y_trusted"),
        ({}, {"y_trusted": CHECKED, "given_trusted": GIVEN}, "given_trusted belongs to X_trusted"),
        ({}, {"X_trusted": ROWS[:4], "y_trusted": [0, None, 1, 1]}, "the label in row 1 .the first is 0. is empty"),
        ({}, {"X_trusted": ROWS[:4], "y_trusted": [0, 1]}, "inconsistent numbers of samples"),
        ({}, {"X_trusted": ROWS[:4, :5], "y_trusted": [0, 1, 0, 1]}, "X has 5 features"),
        (
            {},
            {"y_trusted": ["a"] + [None] * 177},
            "y_trusted holds 'a', other labels are [012]: give labels of one type",
        ),
        (
            {},
            {"y_trusted": [0.5] + [None] * 177},
            "y_trusted holds 0.5, other labels are [012]: give labels of one type",
        ),
        ({}, {"y_trusted": RIGHT}, "every row of .X, y. is a trusted one"),
        ({}, {"y_trusted": [0, 1, 2] + [None] * 175}, "no class has two trusted rows .3 in all.: check more"),
    ],
)
def test_what_cannot_be_used_is_said(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**options).fit(ROWS, GIVEN, **arguments)


def test_labels_that_cannot_be_used():
    with pytest.raises(InputError, match=r"y has no label in row 1 .the first is 0.: fill it or leave it out"):
        small().fit(ROWS[:4], np.array(["a", None, "b", "a"], dtype=object))
    with pytest.raises(InputError, match="only one class, 'a'"):
        small().fit(ROWS[:4], ["a"] * 4)
    corrector = small().fit(ROWS, GIVEN, y_trusted=CHECKED)
    with pytest.raises(InputError, match="unknown label '7'"):
        corrector.correct(ROWS[:2], [0, 7])
    with pytest.raises(InputError, match="y holds 'a', other labels are 0: give labels of one type"):
        corrector.correct(ROWS[:1], ["a"])
    with pytest.raises(InputError, match="nobody looked at any of these rows"):
        corrector.score(ROWS[70:], GIVEN[70:], y_trusted=CHECKED[70:])


def test_a_training_that_diverges(monkeypatch):
    monkeypatch.setattr(engine, "learning_rate", lambda config, share: 1e30)
    with pytest.raises(TrainingDivergedError, match="no epoch was finished"):
        small().fit(ROWS, GIVEN, y_trusted=CHECKED)
    monkeypatch.setattr(engine, "learning_rate", lambda config, share: 0.1 if share < 0.5 else 1e30)
    with pytest.warns(DataWarning, match=r"became NaN or infinite at step \d.*; epoch 2 was kept"):
        corrector = small(method="ce").fit(ROWS, GIVEN, y_trusted=CHECKED)
    assert np.isfinite(corrector.predict_proba(ROWS)).all()
