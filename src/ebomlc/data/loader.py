"""Pairs of noisy and trusted batches, from rows on the device or on disk, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ebomlc.records import WHOLE, Batch, IntArray, Share
from ebomlc.seeding import torch_generator

HANDED_OVER = 50
"""Draws that go to the device at a time."""

Augment = Callable[[Tensor, torch.Generator], Tensor]


class Rows(Protocol):
    """A set of rows that gives batches of itself on the device that trains: a `Batch`, or `StoredRows`."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        """Some of them, by their positions in this set, as int64 on any device, or a slice."""
        ...


class Stored(Protocol):
    """Encoded inputs of every row [N, ...]: in memory, in a file that is mapped into it, or made when asked for."""

    def __getitem__(self, rows: IntArray, /) -> npt.NDArray[Any]:
        """Some rows, by their positions."""
        ...


@dataclass(frozen=True)
class StoredRows:
    """Rows whose inputs stay where they are until they are needed.

    Attributes
    ----------
    inputs : Stored
        Encoded inputs of the pool [N, ...].
    given, right : int64 arrays, shape [N]
        Labels of the pool.
    positions : int64 array, shape [n]
        Which of its rows are in this set.
    device : torch.device
        Where batches are put.
    """

    inputs: Stored
    given: IntArray
    right: IntArray
    positions: IntArray
    device: torch.device

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        places = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.cpu().numpy()
        chosen = self.positions[places]
        parts = (self.inputs[chosen], self.given[chosen], self.right[chosen], places)
        return Batch(*(torch.as_tensor(part).to(self.device) for part in parts))


class PairedLoader:
    """Batches of noisy rows, each with a batch of trusted rows.

    Every epoch visits the noisy rows once in a new random order; a last batch that would be smaller is left out, and
    its rows come in other epochs. Trusted rows are drawn in random passes of their own, no row twice in one batch; or
    balanced, see `trusted_classes`. The order depends on seed and epoch alone, so any epoch can be replayed.

    Several processes draw the same batches, and each takes its part of every batch: of the noisy rows and of both
    halves of the trusted ones (`ebomlc.methods.learner.halve`). So the parts are halved as the whole is, and what is
    trained on does not depend on the number of processes, augmentation aside.

    Parameters
    ----------
    noisy, trusted : Rows
        All rows of each set.
    batch_size, trusted_batch_size : int
        Rows a batch, of all processes together; at most as many as there are, and cut so that every process has alike.
    seed : int
        Of order and augmentation.
    device : torch.device
        Where the batches are.
    augment : callable, optional
        Maps inputs [n, ...] and a generator to inputs of the same shape; called once a batch, so that every evaluation
        of a batch sees the same inputs.
    trusted_classes : Tensor of int64, shape [len(trusted)], optional
        Right labels of the trusted rows. Where given, both halves of a trusted batch (`ebomlc.methods.learner.halve`)
        hold every class alike: a rare row may come twice in one half, but never in both.
    share : Share
        Of this process.

    Raises
    ------
    ValueError
        Where a process would have no noisy row of a batch, or no trusted row of one of its halves.
    """

    def __init__(
        self,
        noisy: Rows,
        trusted: Rows,
        *,
        batch_size: int,
        trusted_batch_size: int,
        seed: int,
        device: torch.device | None = None,
        augment: Augment | None = None,
        trusted_classes: Tensor | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.noisy = noisy
        self.trusted = trusted
        n_halves = 1 if share.size == 1 else 2 * share.size
        self.batch_size = min(batch_size, len(noisy)) // share.size * share.size
        self.trusted_batch_size = min(trusted_batch_size, len(trusted)) // n_halves * n_halves
        if share.size > 1 and 0 in (self.batch_size, self.trusted_batch_size):
            raise ValueError(f"{share.size} processes cannot share {len(noisy)} noisy and {len(trusted)} trusted rows")
        self.share = share
        self.seed = seed
        self.device = device or torch.device("cpu")
        self.augment = augment
        self.trusted_classes = trusted_classes

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.noisy) // self.batch_size

    def epoch(self, epoch: int, done: int = 0) -> Iterator[tuple[Batch, Batch]]:
        """Pairs of batches of one epoch, numbered from 0, without the first `done` ones."""
        order = torch_generator(self.seed, f"noisy order {epoch}")
        rows = torch.randperm(len(self.noisy), generator=order).to(self.device)
        trusted = self._together(self._trusted_rows(torch_generator(self.seed, f"trusted order {epoch}")))
        pixels = torch_generator(self.seed, f"augmentation {epoch}{self._name}", self.device.type)
        for step in range(len(self)):
            start = step * self.batch_size
            chosen = self._own(rows[start : start + self.batch_size]), self._own_halves(next(trusted))
            # of the batches that were had before, only the draws are needed that later ones come after
            if step < done and self.augment is None:
                continue
            pair = self._augmented(self.noisy[chosen[0]], pixels), self._augmented(self.trusted[chosen[1]], pixels)
            if step >= done:
                yield pair

    @property
    def _name(self) -> str:
        """What tells this process's random numbers from those of the others."""
        return "" if self.share.size == 1 else f" of rank {self.share.rank}"

    def _own(self, rows: Tensor) -> Tensor:
        return rows[self.share.part(len(rows))]

    def _own_halves(self, rows: Tensor) -> Tensor:
        middle = (len(rows) + 1) // 2
        return torch.cat([self._own(rows[:middle]), self._own(rows[middle:])])

    def _trusted_rows(self, order: torch.Generator) -> Iterator[Tensor]:
        size = self.trusted_batch_size
        while True:
            rows = torch.randperm(len(self.trusted), generator=order)
            if self.trusted_classes is not None:
                yield balanced_halves(self.trusted_classes[rows], rows, size, order)
                continue
            for start in range(0, len(rows) - size + 1, size):
                yield rows[start : start + size]

    def _together(self, draws: Iterator[Tensor]) -> Iterator[Tensor]:
        """As many draws as an epoch has steps, on the device, which is handed many at a time: it waits for each."""
        for start in range(0, len(self), HANDED_OVER):
            yield from torch.stack(list(islice(draws, min(HANDED_OVER, len(self) - start)))).to(self.device)

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.augment is None:
            return batch
        return Batch(self.augment(batch.inputs, generator), batch.given, batch.right, batch.index)


def balanced_halves(classes: Tensor, rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A batch of rows, both halves of which hold every class alike as far as a class has a row to give to each.

    Parameters
    ----------
    classes, rows : Tensor of int64, shape [n]
        Classes of the rows, and the rows, in random order.
    size : int
        Rows of the batch; the first half is the larger by at most one.
    generator : torch.Generator
        Of the draw, which is with replacement inside a half.

    Returns
    -------
    Tensor of int64, shape [size]
        No row of the first half is in the second.
    """
    by_class = classes.argsort(stable=True)
    half_of = torch.empty_like(by_class)
    # in the order of their classes, rows go to the halves in turn: each class is split as evenly as can be
    begin = torch.randint(2, (1,), generator=generator)
    half_of[by_class] = (torch.arange(len(by_class)) + begin) % 2
    parts = []
    for half, n in ((0, (size + 1) // 2), (1, size // 2)):
        members = (half_of == half).nonzero()[:, 0]
        counts = classes[members].bincount()
        drawn = torch.multinomial(1 / counts[classes[members]].double(), n, replacement=True, generator=generator)
        parts.append(rows[members[drawn]])
    return torch.cat(parts)


def in_order(rows: Rows, size: int, share: Share = WHOLE) -> Iterator[Batch]:
    """One pass over a process's share of the rows as they lie, without augmentation."""
    own = share.part(len(rows))
    for start in range(own.start, own.stop, size):
        yield rows[slice(start, min(start + size, own.stop))]
