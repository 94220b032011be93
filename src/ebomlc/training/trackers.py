"""Where the figures of each epoch go."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

Row = Mapping[str, float | int | None]


class Tracker(Protocol):
    """Takes one row of figures an epoch."""

    def log(self, row: Row) -> None:
        """Record a row; every row has the same keys."""
        ...

    def restore(self, rows: Sequence[Row]) -> None:
        """Hold exactly these rows: a training goes on after them."""
        ...


class NullTracker:
    """Records nothing."""

    def log(self, row: Row) -> None:
        """Forget the row."""

    def restore(self, rows: Sequence[Row]) -> None:
        """Forget the rows."""


class CsvTracker:
    """Appends to a CSV file, so that a run that is broken off keeps the epochs it had.

    Parameters
    ----------
    path : Path
        The file; its header is written with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, row: Row) -> None:
        """Append a row."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def restore(self, rows: Sequence[Row]) -> None:
        """Begin the file anew with these rows."""
        self.path.unlink(missing_ok=True)
        for row in rows:
            self.log(row)
