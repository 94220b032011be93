"""Rows that are the same although their ids differ: found by a digest of what they hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.data.inputs import Inputs

Digests = npt.NDArray[np.uint64]

IDENTIFYING = 0.5
"""Where a larger share of the noisy rows of a table have a twin among them, equal rows are no sign of a copy."""


def row_digests(inputs: Inputs) -> Digests:
    """A digest of each row's content: equal for equal rows, whatever their id and label.

    Returns
    -------
    uint64 array, shape [N]
        64 bits: among two million rows, two different ones share a digest once in ten million sets.
    """
    if inputs.kind == "table":
        # the same words may come as objects or as Arrow strings, and be missing as None or as NaN
        names = (*inputs.select("category"), *inputs.select("text"))
        words = {name: inputs.values[name].astype(object) for name in names}
        plain = inputs.values.assign(**{name: cells.where(cells.notna(), None) for name, cells in words.items()})
        return pd.util.hash_pandas_object(plain, index=False, categorize=True).to_numpy().astype(np.uint64)
    digests = [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest() for row in inputs.values]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


@dataclass(frozen=True)
class Overlap:
    """How often the same content occurs more than once.

    Attributes
    ----------
    within : int
        Training rows whose content occurs in another training row as well.
    disagreeing : int
        Those of them whose twins do not all carry the same label.
    trusted : int
        Trusted rows whose content occurs among the noisy rows: the same thing under another id?
    test : int
        Test rows whose content occurs among the training rows.
    identifying : bool
        Whether equal content means the same thing twice: not so in a table of few columns, where it is common.
    """

    within: int
    disagreeing: int
    trusted: int
    test: int
    identifying: bool


def count_overlap(
    training: Digests,
    labels: npt.NDArray[np.int64],
    is_trusted: npt.NDArray[np.bool_],
    test: Digests | None,
    kind: str,
) -> Overlap:
    """Count rows of equal content.

    Parameters
    ----------
    training, test : uint64 arrays, shape [N] and [M]
        Digests; None where there is no test set.
    labels : int64 array, shape [N]
        Label of each training row: the right one where known, else the given one.
    is_trusted : bool array, shape [N]
        Which training rows are trusted.
    kind : str
        See `Inputs`.
    """
    frame = pd.DataFrame({"digest": training, "label": labels})
    groups = frame.groupby("digest")["label"]
    twins = groups.transform("size") > 1
    disagreeing = twins & (groups.transform("nunique") > 1)
    noisy = training[~is_trusted]
    repeated = pd.Series(noisy).duplicated(keep=False).sum()
    return Overlap(
        within=int(twins.sum()),
        disagreeing=int(disagreeing.sum()),
        trusted=int(np.isin(training[is_trusted], noisy).sum()),
        test=0 if test is None else int(np.isin(test, training).sum()),
        identifying=kind != "table" or bool(repeated <= IDENTIFYING * len(noisy)),
    )
