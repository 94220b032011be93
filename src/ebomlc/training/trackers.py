"""Where the figures of each epoch go."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ebomlc.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

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


class TensorBoardTracker:
    """Writes event files for TensorBoard: one curve a figure, by epoch.

    Parameters
    ----------
    folder : Path
        Where the event files go; a training that goes on adds one to those that are there.

    Raises
    ------
    InputError
        The extra is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise InputError("TensorBoard is not installed: pip install 'ebomlc[tensorboard]'") from error
        self.folder = folder
        self._make = SummaryWriter
        self._writer: SummaryWriter | None = None

    def log(self, row: Row) -> None:
        """Add a point to every curve that has a figure in this row, and have it on disk."""
        writer = self._writer = self._writer or self._make(str(self.folder))
        epoch = int(row["epoch"] or 0)
        for name, value in row.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, epoch)
        writer.flush()

    def restore(self, rows: Sequence[Row]) -> None:
        """Have TensorBoard forget the epochs after these, which event files of a broken-off training may hold."""
        self.close()
        after = int(rows[-1]["epoch"] or 0) + 1 if rows else 0
        self._writer = self._make(str(self.folder), purge_step=after)

    def close(self) -> None:
        """Write what is left and let go of the file; another row opens a further one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class SeveralTrackers:
    """Hands every row to each of several trackers."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def log(self, row: Row) -> None:
        """Record a row in each."""
        for tracker in self.trackers:
            tracker.log(row)

    def restore(self, rows: Sequence[Row]) -> None:
        """Have each hold exactly these rows."""
        for tracker in self.trackers:
            tracker.restore(rows)
