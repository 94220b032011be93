"""The weight decay follows the data: strong for many weak features, weak for clean ones and for many rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.records import NO_LABEL
from ebomlc.seeding import child_seed
from ebomlc.training.decay import (
    FALLBACK,
    FOLDS,
    MOST_ROWS,
    SHARE,
    STRENGTHS,
    Labelled,
    choose_ridge,
    choose_weight_decay,
    image_weight_decay,
)


def standardised(load):
    features, labels = load(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(labels))
    return ((features - features.mean(0)) / (features.std(0) + 1e-9)).astype(np.float32)[rows], labels[rows]


def trusted(features, labels, given=None):
    return Labelled(features, labels, np.full_like(labels, NO_LABEL) if given is None else given)


def noisy(features, given):
    return Labelled(features, np.full_like(given, NO_LABEL), given)


NOTHING = noisy(np.empty((0, 64), np.float32), np.empty(0, np.int64))


def test_clean_features_need_little_and_noise_needs_much():
    images, labels = standardised(load_digits)
    noise = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    assert choose_ridge(trusted(images[:300], labels[:300]), 10, 0) <= 0.03
    assert choose_ridge(trusted(noise, labels[:300]), 10, 0) == max(STRENGTHS)


def test_ridge_is_the_one_that_scikit_learn_finds():
    images, labels = standardised(load_digits)
    images, labels, seed = images[:100], labels[:100], 4
    state = child_seed(seed, "folds of the weight decay") % 2**32
    enough = np.bincount(labels)[labels] >= FOLDS
    scores = [
        cross_val_score(
            LogisticRegression(C=1 / (strength * enough.sum() * 0.8), max_iter=300),
            images[enough],
            labels[enough],
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=state),
            scoring="neg_log_loss",
        ).mean()
        for strength in STRENGTHS
    ]
    assert choose_ridge(trusted(images, labels), 10, seed) == STRENGTHS[int(np.argmax(scores))]


def test_without_noisy_rows_it_is_a_share_of_the_ridge():
    images, labels = standardised(load_digits)
    rows = trusted(images[:100], labels[:100])
    assert choose_weight_decay(rows, NOTHING, 10, 0) == SHARE * choose_ridge(rows, 10, 0)


@pytest.mark.parametrize("pairs", [True, False])
def test_noisy_rows_that_can_be_put_right_ask_for_less(pairs):
    features, labels = standardised(load_breast_cancer)
    given = apply_noise(labels, parse_noise("flip:0.2"), 2, 0).labels
    few = trusted(features[:100], labels[:100], given[:100] if pairs else None)
    others = noisy(features[100:], given[100:])
    assert choose_weight_decay(few, others, 2, 0) < SHARE * choose_ridge(few, 2, 0)


def test_noisy_rows_never_ask_for_more():
    images, labels = standardised(load_digits)
    few = trusted(images[:200], labels[:200])
    ridge = choose_ridge(few, 10, 0)
    nonsense = noisy(np.random.default_rng(1).permuted(images[200:700], axis=0), labels[700:1200])
    assert ridge < max(STRENGTHS)
    assert choose_weight_decay(few, nonsense, 10, 0) <= SHARE * ridge


def test_rare_classes_are_left_out_and_too_few_rows_fall_back():
    images, labels = standardised(load_digits)
    rare = np.where(np.arange(100) < FOLDS - 1, 11, labels[:100])
    others = noisy(images[100:300], labels[100:300])
    assert choose_weight_decay(trusted(images[:100], rare), others, 12, 0) in [SHARE * s for s in STRENGTHS]
    assert choose_weight_decay(trusted(images[:4], np.array([0, 0, 1, 1])), others, 12, 0) == SHARE * FALLBACK


def test_same_seed_same_rows_and_no_more_than_are_needed():
    features = np.arange(3 * MOST_ROWS, dtype=np.float32)[:, None]
    labels = np.arange(3 * MOST_ROWS)
    rows = labels[::2]
    drawn = Labelled.sample(features, labels, labels + 1, rows, seed=5)
    again = Labelled.sample(features, labels, labels + 1, rows, seed=5)
    assert len(drawn) == MOST_ROWS
    assert len(set(drawn.right)) == MOST_ROWS and set(drawn.right) <= set(rows)
    np.testing.assert_array_equal(drawn.features[:, 0], drawn.right)
    np.testing.assert_array_equal(drawn.given, drawn.right + 1)
    np.testing.assert_array_equal(drawn.right, again.right)


def test_residual_networks_are_held_harder_in_short_trainings_and_small_ones_never():
    assert image_weight_decay("resnet20", 100) == image_weight_decay("resnet32", 2_400) == 0.002
    assert image_weight_decay("resnet20", 10_000) == pytest.approx(0.001)
    assert image_weight_decay("resnet20", 64_000) == image_weight_decay("resnet20", 10**6) == 0.0005
    assert {image_weight_decay(name, 100) for name in ("cnn", "cnn-tiny", "timm:resnet18")} == {0.0005}
