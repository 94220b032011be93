"""Labels and opinions whose truth is known: real digits, a noise model, and a linear model that saw others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from ebomlc.labels.pairs import CheckedPairs

RATE = 0.35


@dataclass(frozen=True)
class Opinionated:
    """Rows with given and right labels, and overconfident opinions [2, n, K] of them."""

    given: np.ndarray
    right: np.ndarray
    opinions: np.ndarray

    def pairs(self, rows):
        ones = np.ones(len(rows))
        return CheckedPairs(rows, self.given[rows], self.right[rows], ones, is_random=True, is_stratified=False)


@pytest.fixture(scope="session")
def digits():
    """What a model of few digits says of others: p(right | x), and too sure by Bayes' rule with the given label."""
    images, right = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    given = np.where(rng.random(len(right)) < RATE, rng.integers(10, size=len(right)), right)
    seen = 150
    model = LogisticRegression(C=1e-2, max_iter=300).fit(images[:seen], right[:seen])
    predicted = model.predict_proba(images[seen:])
    asked = predicted * np.where(np.eye(10)[given[seen:]] > 0, 30.0, 1.0)
    asked = (asked / asked.sum(1, keepdims=True)) ** 3
    opinions = np.stack([asked / asked.sum(1, keepdims=True), predicted])
    return Opinionated(given[seen:], right[seen:], opinions)
