"""The weight decay follows the data: strong for many weak features, weak for clean ones."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from ebomlc.training.decay import FALLBACK, FOLDS, SHARE, STRENGTHS, choose_weight_decay


def digits(n):
    images, labels = load_digits(return_X_y=True)
    return ((images[:n] - images.mean(0)) / (images.std(0) + 1)).astype(np.float32), labels[:n]


def test_clean_features_need_little_and_noise_needs_much():
    images, labels = digits(300)
    noise = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    assert choose_weight_decay(images, labels, 0) <= SHARE * 0.03
    assert choose_weight_decay(noise, labels, 0) == SHARE * max(STRENGTHS)


def test_same_seed_same_choice_whatever_the_class_numbers():
    images, labels = digits(100)
    assert choose_weight_decay(images, labels, 3) == choose_weight_decay(images, labels + 5, 3)


def test_rare_classes_are_left_out_and_too_few_rows_fall_back():
    images, labels = digits(100)
    rare = np.where(np.arange(100) < FOLDS - 1, 99, labels)
    assert choose_weight_decay(images, rare, 0) in [SHARE * strength for strength in STRENGTHS]
    assert choose_weight_decay(images[:4], np.array([0, 0, 1, 1]), 0) == SHARE * FALLBACK
