"""Batch norm by the statistics of all ranks' rows together, on CPU and GPU, in reverse and in forward mode.

torch has one for GPUs and reverse mode alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ebomlc.errors import InputError
from ebomlc.training.distributed import Ranks

PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Sum = Callable[[Tensor], Tensor]


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over ranks; linear, and its own transpose."""

    @staticmethod
    def forward(tensor: Tensor, total: Sum) -> Tensor:
        return total(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Sum], output: Tensor) -> None:  # noqa: ANN401
        ctx.total = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return ctx.total(gradients[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:  # noqa: ANN401
        return ctx.total(tangents[0])


class SharedBatchNorm(_BatchNorm):
    """Takes the place of a batch norm of torch, whose parameters and statistics it takes over.

    In evaluation it is the same; in training, mean and variance are those of the rows of all ranks, of which one may
    have none. Every rank must do the same forwards and backwards in the same order.

    Parameters
    ----------
    norm : BatchNorm1d, BatchNorm2d or BatchNorm3d
        To be replaced.
    ranks : Ranks
        Who trains.
    """

    def __init__(self, norm: _BatchNorm, ranks: Ranks) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats, self.training = norm.affine, norm.track_running_stats, norm.training
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.ranks = ranks

    def forward(self, input: Tensor) -> Tensor:
        """Normalised rows, of the shape and dtype of the input."""
        if not self.training:
            tracked = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
            is_batch_wise = tracked[0] is None
            return F.batch_norm(input, *tracked, self.weight, self.bias, is_batch_wise, 0.0, self.eps)
        rows = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        n, mean, variance = self._moments(rows)
        if self.track_running_stats:
            self._track(n, mean.detach(), variance.detach())
        scale = (variance + self.eps).rsqrt()
        shape = (1, -1, *(1,) * (rows.dim() - 2))
        normalised = (rows - mean.view(shape)) * scale.view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _moments(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Number of values [], mean [C] and biased variance [C] of each channel, over all ranks."""
        dims = [dim for dim in range(rows.dim()) if dim != 1]
        n = rows.numel() // rows.shape[1]
        mean = rows.sum(dims) / max(n, 1)
        centred = rows - mean.view(1, -1, *(1,) * (rows.dim() - 2))
        variance = (centred * centred).sum(dims) / max(n, 1)
        own = torch.cat([mean.new_full((1,), n), mean, variance])
        # each rank's figures in a row of their own: sums of squares over ranks would lose digits
        mark = F.one_hot(torch.tensor(self.ranks.rank, device=own.device), self.ranks.size).to(own)
        table: Any = _SumOverRanks.apply(mark[:, None] * own, self.ranks.add)
        counts, means, variances = table.split_with_sizes([1, len(mean), len(mean)], dim=1)
        shares = counts / counts.sum()
        joined = (shares * means).sum(0)
        return counts.detach().sum(), joined, (shares * (variances + (means - joined) ** 2)).sum(0)

    @torch.no_grad()
    def _track(self, n: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Take in the moments as torch's own does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((variance * n / (n - 1).clamp_min(1)).to(self.running_var), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions was checked by whatever it replaces."""


def share_batch_norm(module: nn.Module, ranks: Ranks) -> None:
    """Replace the batch norms inside a module by ones that share their statistics between ranks.

    Raises
    ------
    InputError
        For a batch norm of another make, which may do more than to normalise.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, _BatchNorm) or isinstance(child, SharedBatchNorm):
                continue
            if type(child) not in PLAIN:
                raise InputError(
                    f"the model's {type(child).__name__} {name!r} cannot share its statistics between processes: set "
                    f"training.sync_batch_norm to false, so that each one normalises by its own rows"
                )
            setattr(parent, name, SharedBatchNorm(child, ranks))
