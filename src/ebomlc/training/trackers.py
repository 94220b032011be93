"""Where the figures of each epoch go."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Takes one row of figures an epoch."""

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Record a row; every row has the same keys."""
        ...


class NullTracker:
    """Records nothing."""

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Forget the row."""


class CsvTracker:
    """Appends to a CSV file, so that a run that is broken off keeps the epochs it had.

    Parameters
    ----------
    path : Path
        The file; its header is written with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, row: Mapping[str, float | int | None]) -> None:
        """Append a row."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)
