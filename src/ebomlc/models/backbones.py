"""Main models: each a body that makes features and a linear head that makes logits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MainOutput(NamedTuple):
    """What a main model says of a batch: features [n, d] and logits [n, K]."""

    features: Tensor
    logits: Tensor


class MainModel(nn.Module):
    """A body that makes features and a linear head on top of them.

    Parameters
    ----------
    body : nn.Module
        Maps inputs [n, ...] to features [n, feature_dim].
    feature_dim, n_classes : int
        Width of the features, and K.
    head : nn.Linear, optional
        The layer that makes the logits, such as one that is trained already; a new one by default.
    """

    def __init__(self, body: nn.Module, feature_dim: int, n_classes: int, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(feature_dim, n_classes) if head is None else head
        self.feature_dim = feature_dim
        self.n_classes = n_classes

    def forward(self, inputs: Tensor) -> MainOutput:
        """Features and logits of a batch."""
        features = self.body(inputs)
        return MainOutput(features, self.head(features))


class StandardisePixels(nn.Module):
    """uint8 images [n, C, H, W] to floats with mean 0 and deviation 1 per channel over the training set.

    Parameters
    ----------
    mean, std : sequence of float in [0, 1], length C
        Of the training images scaled to [0, 1]. Kept as buffers, so that the saved model needs no other preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Standardised images, in the dtype of the buffers."""
        return (images.to(self.mean.dtype) / 255 - self.mean) / self.std


class CentreAndScale(nn.Module):
    """Embeddings [n, D] less their mean over the training rows, each then brought to length sqrt(D).

    Parameters
    ----------
    mean : Tensor, shape [D]
        Of the training rows.
    """

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of length sqrt(D); of a row that is the mean, zeros."""
        centred = rows - self.mean
        length = centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return centred * (self.mean.numel() ** 0.5 / length)


def mlp_body(n_inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear, ReLU and dropout per hidden layer; features are the last hidden layer."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([n_inputs, *hidden]):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def small_cnn_body(channels: int) -> nn.Sequential:
    """Four 3x3 convolutions with batch norm, strided twice, averaged to 64 features."""
    return nn.Sequential(
        *_norm_block(channels, 32, 1),
        *_norm_block(32, 32, 2),
        *_norm_block(32, 64, 1),
        *_norm_block(64, 64, 2),
        GlobalAverage(),
    )


def tiny_cnn_body(channels: int) -> nn.Sequential:
    """Three strided 3x3 convolutions with batch norm, averaged to 64 features: a tenth of the work of the small one."""
    return nn.Sequential(
        *_norm_block(channels, 16, 2), *_norm_block(16, 32, 2), *_norm_block(32, 64, 2), GlobalAverage()
    )


def _norm_block(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class GlobalAverage(nn.Module):
    """Mean over height and width: [n, C, H, W] to [n, C]."""

    def forward(self, maps: Tensor) -> Tensor:
        """Channel means; written so that the gradient, too, has the channels last where the maps have."""
        return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters.

    Where the block widens, the shortcut drops every other pixel and pads the new channels with zeros
    (option A of He et al. 2016, section 4.2).
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.new_channels = after - before

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps after the block."""
        shortcut = maps
        if self.new_channels:
            thinned = F.avg_pool2d(maps, 1, self.stride)  # a slice, but its gradient keeps the channels last
            shortcut = F.pad(thinned, (0, 0, 0, 0, self.new_channels // 2, self.new_channels - self.new_channels // 2))
        inner = F.relu(self.norm1(self.conv1(maps)), inplace=True)
        return F.relu(self.norm2(self.conv2(inner)).add_(shortcut), inplace=True)


def resnet_body(depth: int, channels: int) -> nn.Sequential:
    """CIFAR ResNet of He et al. (2016), section 4.2: three stages of 16, 32 and 64 channels, 64 features.

    Parameters
    ----------
    depth : int
        6 n + 2 layers: 20, 32, 44 or 56.
    channels : int
        Of the input images.
    """
    blocks_per_stage = (depth - 2) // 6
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    before = 16
    for after in (16, 32, 64):
        for index in range(blocks_per_stage):
            layers.append(ResidualBlock(before, after, 2 if index == 0 and after > 16 else 1))
            before = after
    body = nn.Sequential(*layers, GlobalAverage())
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return body
