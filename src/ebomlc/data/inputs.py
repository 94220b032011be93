"""The inputs of a set as they were read, before any encoding: table columns, vectors or images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.records import IntArray

Kind = Literal["table", "vectors", "images"]
Role = Literal["number", "category", "text"]


@dataclass(frozen=True)
class Inputs:
    """One input a row.

    Attributes
    ----------
    kind : {"table", "vectors", "images"}
        What a row is.
    values : DataFrame or array, N rows
        A table: one column for each of `roles`, in that order, with the index 0 to N - 1: numbers as float64 with NaN
        where a cell was empty, categories as str with None where a cell was empty, texts as str. Vectors
        (embeddings): float32 [N, D]. Images: uint8 [N, C, H, W].
    roles : mapping of str to {"number", "category", "text"}
        What each column of a table holds; empty for vectors and images.
    """

    kind: Kind
    values: Any
    roles: Mapping[str, Role] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a table's columns; empty for vectors and images."""
        return tuple(self.roles)

    def select(self, role: Role) -> tuple[str, ...]:
        """Names of a table's columns that have a role."""
        return tuple(name for name, own in self.roles.items() if own == role)

    def numbers(self) -> npt.NDArray[Any]:
        """What of a row is numbers, as an array [N, ...]: images, vectors, or the columns of numbers."""
        if self.kind == "table":
            return self.values[list(self.select("number"))].to_numpy(np.float64)
        return self.values

    def take(self, rows: IntArray) -> Inputs:
        """Some rows, in the order asked for."""
        if self.kind == "table":
            return replace(self, values=self.values.iloc[rows].reset_index(drop=True))
        return replace(self, values=self.values[rows])

    def replace(self, rows: IntArray, other: Inputs) -> Inputs:
        """These rows, some of them replaced by others; of a mapped file only the pages they are on are copied."""
        self._check_alike(other)
        if self.kind == "table":
            order = np.arange(len(self))
            order[rows] = len(self) + np.arange(len(other))
            return self.join(other).take(order)
        values = self.values if isinstance(self.values, np.memmap) and self.values.mode == "c" else self.values.copy()
        values[rows] = other.values
        return replace(self, values=values)

    def join(self, other: Inputs) -> Inputs:
        """The rows of both, which must be of one kind and from the same columns."""
        self._check_alike(other)
        if self.kind == "table":
            return replace(self, values=pd.concat([self.values, other.values], ignore_index=True))
        return replace(self, values=np.concatenate([self.values, other.values]))

    def _check_alike(self, other: Inputs) -> None:
        if (self.kind, self.roles) != (other.kind, other.roles):
            raise ValueError(f"cannot join {self.kind} of {self.roles} with {other.kind} of {other.roles}")


def table_of_numbers(values: npt.NDArray[Any], columns: tuple[str, ...]) -> Inputs:
    """A table whose columns are all numbers, from an array [N, D]."""
    frame = pd.DataFrame(np.asarray(values, np.float64), columns=list(columns))
    return Inputs("table", frame, dict.fromkeys(columns, "number"))


def no_rows(kind: Kind, roles: Mapping[str, Role], shape: tuple[int, ...]) -> Inputs:
    """Inputs without any row, of which further ones are read alike.

    Parameters
    ----------
    kind, roles
        See `Inputs`.
    shape : tuple of int
        Of one vector or image; not looked at for a table.
    """
    if kind == "table":
        types = {name: np.float64 if role == "number" else object for name, role in roles.items()}
        return Inputs(kind, pd.DataFrame({name: np.empty(0, dtype) for name, dtype in types.items()}), dict(roles))
    return Inputs(kind, np.empty((0, *shape), np.uint8 if kind == "images" else np.float32))
