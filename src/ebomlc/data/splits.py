"""Which rows train, which are trusted and which are only watched: disjoint, stored, hashed."""

from __future__ import annotations

import hashlib

import numpy as np
from sklearn.model_selection import train_test_split

from ebomlc.errors import InputError
from ebomlc.records import IntArray, Split
from ebomlc.seeding import child_seed, numpy_generator

KEPT_PER_CLASS = 2
"""Trusted rows of every class that are never held out."""


def draw_trusted(truth: IntArray, candidates: IntArray, n: int, seed: int) -> IntArray:
    """Positions of n rows to be trusted, drawn at random in proportion to their right labels.

    Parameters
    ----------
    truth : int64 array, shape [N]
        Right labels of all rows.
    candidates : int64 array
        Positions that may be drawn.
    n : int
        How many.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        Where fewer than n + 1 rows could be drawn from.
    """
    if n >= len(candidates):
        raise InputError(f"--n-trusted is {n}, but only {len(candidates)} rows have a known right label; ask for fewer")
    labels = truth[candidates]
    counts = np.bincount(labels)
    n_classes = (counts > 0).sum()
    stratify = labels if counts[counts > 0].min() >= 2 and n_classes <= n <= len(candidates) - n_classes else None
    state = child_seed(seed, "trusted rows") % 2**32
    drawn, _ = train_test_split(candidates, train_size=n, stratify=stratify, random_state=state)
    return np.sort(drawn)


def make_split(right: IntArray, trusted: IntArray, heldout_fraction: float, seed: int) -> Split:
    """Split a pool of rows by role.

    Parameters
    ----------
    right : int64 array, shape [N]
        Right labels; only those of trusted rows are read.
    trusted : int64 array
        Positions of all trusted rows.
    heldout_fraction : float in [0, 0.5]
        Share of them that is only watched. Two of each class always train, so fewer may be held out.
    seed : int
        Of the draw.

    Returns
    -------
    Split
        Noisy are all rows that are not trusted. Every part is sorted; together they are all rows, once.
    """
    order = numpy_generator(seed, "held-out rows").permutation(trusted)
    rank_in_class = np.zeros(len(order), dtype=np.int64)
    for label in np.unique(right[order]):
        members = right[order] == label
        rank_in_class[members] = np.arange(members.sum())
    may_be_held_out = order[rank_in_class >= KEPT_PER_CLASS]
    heldout = np.sort(may_be_held_out[: round(heldout_fraction * len(trusted))])
    noisy = np.setdiff1d(np.arange(len(right)), trusted)
    return Split(noisy=noisy, trusted=np.setdiff1d(trusted, heldout), heldout=heldout)


def split_hash(split: Split) -> str:
    """SHA-256 of the split, in hex: equal for equal splits on every machine."""
    digest = hashlib.sha256()
    for name, rows in split.arrays().items():
        digest.update(f"{name}:{len(rows)}:".encode())
        digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()
