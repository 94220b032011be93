"""One streaming pass over the training rows in evaluation mode: what each label should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ebomlc.data.encoders import Encoded
from ebomlc.methods import Method
from ebomlc.records import NO_LABEL, FloatArray, IntArray, LabelTable
from ebomlc.training.distributed import ALONE, Ranks

CORRECTION_BATCH = 1000


@dataclass(frozen=True)
class Answers:
    """What a trained method says of rows.

    Attributes
    ----------
    suggested, predicted : float arrays, shape [n, K]
        Distribution over the right label given input and given label, and given the input alone.
    """

    suggested: FloatArray
    predicted: FloatArray


@torch.no_grad()
def ask(method: Method, inputs: npt.NDArray[Any], given: IntArray) -> Answers:
    """What a method in evaluation mode says of encoded rows [n, ...] with given labels [n], none missing."""
    method.model.eval()
    device = next(method.model.parameters()).device
    batch = torch.as_tensor(inputs).to(device)
    suggested = method.suggest(batch, torch.as_tensor(given).to(device))
    return Answers(_numpy(suggested), _numpy(method.model(batch).logits.softmax(1)))


@dataclass(frozen=True)
class _Columns:
    """What one chunk says, before names are put to classes."""

    suggested: IntArray
    confidence: FloatArray
    quality: FloatArray
    predicted: IntArray
    predicted_confidence: FloatArray


def correct(
    method: Method,
    inputs: Encoded,
    given: IntArray,
    right: IntArray,
    ids: npt.NDArray[np.object_],
    class_names: Sequence[str],
    ranks: Ranks = ALONE,
) -> LabelTable:
    """Suggest a label for every row.

    Parameters
    ----------
    method : Method
        Trained.
    inputs : Encoded, shape [N, ...]
        Encoded inputs.
    given, right : int64 arrays, shape [N]
        Given labels, and the right labels of trusted rows; `NO_LABEL` where there is none. A trusted row keeps its
        right label: it was checked, and nothing is suggested against it.
    ids : object array of str, shape [N]
        The user's ids.
    class_names : sequence of str, length K
        Class k's name.
    ranks : Ranks
        Who shares the rows; all of them must call this, and all get the whole table.

    Returns
    -------
    LabelTable
        Rows in the order of `ids`.
    """
    own = ranks.part(len(ids))
    chunks = [
        _correct_chunk(method, inputs[rows], given[rows], right[rows])
        for start in range(own.start, own.stop, CORRECTION_BATCH)
        for rows in [slice(start, min(start + CORRECTION_BATCH, own.stop))]
    ]
    columns = {name: np.concatenate([getattr(c, name) for c in chunks]) for name in _Columns.__dataclass_fields__}
    joined = {name: ranks.gather(torch.from_numpy(column)).numpy() for name, column in columns.items()}
    names = np.array([*class_names, None], dtype=object)  # NO_LABEL is the last entry
    return LabelTable(
        id=ids,
        given_label=names[given],
        suggested_label=names[joined["suggested"]],
        suggestion_confidence=joined["confidence"],
        label_quality=joined["quality"],
        is_label_issue=(given != NO_LABEL) & (joined["suggested"] != given),
        predicted_label=names[joined["predicted"]],
        predicted_confidence=joined["predicted_confidence"],
        is_trusted=right != NO_LABEL,
    )


def _correct_chunk(method: Method, inputs: npt.NDArray[Any], given: IntArray, right: IntArray) -> _Columns:
    # a trusted row without a given label needs some label to be asked about; its answer is replaced below
    answers = ask(method, inputs, np.where(given == NO_LABEL, right, given))
    suggested, predicted = answers.suggested, answers.predicted
    is_trusted = right != NO_LABEL
    suggested[is_trusted] = 0
    suggested[is_trusted, right[is_trusted]] = 1
    quality = suggested[np.arange(len(given)), given]
    quality[given == NO_LABEL] = np.nan
    return _Columns(suggested.argmax(1), suggested.max(1), quality, predicted.argmax(1), predicted.max(1))


def _numpy(probabilities: Tensor) -> FloatArray:
    return probabilities.double().cpu().numpy()


def with_distributions(
    labels: LabelTable, rows: IntArray, distributions: FloatArray, given: IntArray, class_names: Sequence[str]
) -> LabelTable:
    """The table with other suggestions for some rows.

    Parameters
    ----------
    labels : LabelTable
        Of all N rows.
    rows : int64 array, shape [n]
        Positions of rows that are not trusted.
    distributions : float array, shape [n, K]
        Over their right label.
    given : int64 array, shape [n]
        Their given labels.
    class_names : sequence of str, length K
        Class k's name.
    """
    suggested = distributions.argmax(1)

    def put(column: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        changed = column.copy()
        changed[rows] = values
        return changed

    return replace(
        labels,
        suggested_label=put(labels.suggested_label, np.array(class_names, dtype=object)[suggested]),
        suggestion_confidence=put(labels.suggestion_confidence, distributions.max(1)),
        label_quality=put(labels.label_quality, distributions[np.arange(len(rows)), given]),
        is_label_issue=put(labels.is_label_issue, suggested != given),
    )
