"""The inputs of a set as they were read, before any encoding: numbers, texts or images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ebomlc.records import IntArray

Kind = Literal["numbers", "text", "images"]


@dataclass(frozen=True)
class Inputs:
    """One input a row.

    Attributes
    ----------
    kind : {"numbers", "text", "images"}
        What a row is.
    values : array, shape [N, ...]
        float64 [N, D] with NaN where a cell was empty; object array of str [N]; uint8 images [N, C, H, W].
    columns : tuple of str
        Names of the columns the values were read from; empty for images.
    """

    kind: Kind
    values: npt.NDArray[Any]
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: IntArray) -> Inputs:
        """Some rows, in the order asked for."""
        return replace(self, values=self.values[rows])

    def join(self, other: Inputs) -> Inputs:
        """The rows of both, which must be of one kind and from the same columns."""
        if (self.kind, self.columns) != (other.kind, other.columns):
            raise ValueError(f"cannot join {self.kind} of {self.columns} with {other.kind} of {other.columns}")
        return replace(self, values=np.concatenate([self.values, other.values]))
