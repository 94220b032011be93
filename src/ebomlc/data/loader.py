"""Pairs of noisy and trusted batches from device-resident rows, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ebomlc.records import Batch
from ebomlc.seeding import torch_generator

Augment = Callable[[Tensor, torch.Generator], Tensor]


class PairedLoader:
    """Batches of noisy rows, each with a batch of trusted rows.

    Every epoch visits the noisy rows once in a new random order; a last batch that would be smaller is left out, and
    its rows come in other epochs. Trusted rows are drawn in random passes of their own, no row twice in one batch.
    The order depends on seed and epoch alone, so any epoch can be replayed.

    Parameters
    ----------
    noisy, trusted : Batch
        All rows of each set, on the device that trains.
    batch_size, trusted_batch_size : int
        Rows a batch; at most as many as there are.
    seed : int
        Of order and augmentation.
    augment : callable, optional
        Maps inputs [n, ...] and a generator to inputs of the same shape; called once a batch, so that every evaluation
        of a batch sees the same inputs.
    """

    def __init__(
        self,
        noisy: Batch,
        trusted: Batch,
        *,
        batch_size: int,
        trusted_batch_size: int,
        seed: int,
        augment: Augment | None = None,
    ) -> None:
        self.noisy = noisy
        self.trusted = trusted
        self.batch_size = min(batch_size, len(noisy))
        self.trusted_batch_size = min(trusted_batch_size, len(trusted))
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.noisy) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """Pairs of batches of one epoch, numbered from 0."""
        device = self.noisy.inputs.device
        order = torch_generator(self.seed, f"noisy order {epoch}")
        rows = torch.randperm(len(self.noisy), generator=order).to(device)
        trusted = self._trusted_rows(epoch)
        pixels = torch_generator(self.seed, f"augmentation {epoch}", device.type)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield (
                self._augmented(self.noisy[rows[start : start + self.batch_size]], pixels),
                self._augmented(self.trusted[next(trusted).to(device)], pixels),
            )

    def _trusted_rows(self, epoch: int) -> Iterator[Tensor]:
        order = torch_generator(self.seed, f"trusted order {epoch}")
        size = self.trusted_batch_size
        while True:
            rows = torch.randperm(len(self.trusted), generator=order)
            for start in range(0, len(rows) - size + 1, size):
                yield rows[start : start + size]

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self.augment is None:
            return batch
        return Batch(self.augment(batch.inputs, generator), batch.given, batch.right, batch.index)


def in_order(rows: Batch, size: int) -> Iterator[Batch]:
    """One pass over rows as they lie, without augmentation."""
    for start in range(0, len(rows), size):
        yield rows[slice(start, start + size)]
