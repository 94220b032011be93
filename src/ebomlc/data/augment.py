"""Random crop, flip and cutout of whole batches, on the device where the images are."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ebomlc.errors import InputError


def random_crop_flip(images: Tensor, padding: int, generator: torch.Generator, *, flip: bool = True) -> Tensor:
    """Pad with zeros, cut out a random window of the old size, and mirror half of the images.

    Parameters
    ----------
    images : Tensor, shape [n, C, H, W]
        uint8 or float; the result has the same dtype, device and memory format.
    padding : int, >= 0
        Pixels added on each side; an offset is uniform over ``0 .. 2 * padding`` in each direction.
    generator : torch.Generator
        Draws two offsets and one coin per image. On the images' device, it forces no synchronisation.
    flip : bool
        Mirror each image left to right with probability 1/2.

    Returns
    -------
    Tensor, shape [n, C, H, W]
        A new tensor; the images are not changed.

    Raises
    ------
    InputError
        If the images are not four-dimensional or the padding is negative.
    """
    _check_images(images)
    if padding < 0:
        raise InputError(f"the crop padding is {padding}: give 0 or more pixels")
    top, left = _draw(2 * padding + 1, (2, len(images)), images, generator)
    mirrored = _draw(2, (len(images),), images, generator).bool() if flip else None
    return crop_flip(images, padding, top, left, mirrored)


def crop_flip(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Crop and flip as `random_crop_flip` does, with draws already made.

    Parameters
    ----------
    images : Tensor, shape [n, C, H, W]
        uint8 or float.
    padding : int
        Zero pixels added on each side.
    top, left : Tensor of int64, shape [n]
        Upper left corner of each window in the padded image, in ``0 .. 2 * padding``.
    mirrored : Tensor of bool, shape [n], optional
        Which windows are mirrored left to right; none where it is None.

    Returns
    -------
    Tensor, shape [n, C, H, W]
        dtype, device and memory format of the images.
    """
    n, channels, height, width = images.shape
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(n, width)
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    columns = left[:, None] + columns
    # one gather over flattened pixels: half the time of indexing rows and columns, or of strided windows
    pixels = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).view(n, 1, height * width)
    padded = F.pad(images, [padding] * 4).flatten(2)
    crops = padded.gather(2, pixels.expand(n, channels, height * width)).view(images.shape)
    return crops.contiguous(memory_format=_memory_format(images))


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Blacken one square per image, centred on a random pixel and clipped at the border (DeVries and Taylor 2017).

    Parameters
    ----------
    images : Tensor, shape [n, C, H, W]
        uint8 or float; the result has the same dtype, device and memory format.
    size : int, >= 0
        Side of the square in pixels.
    generator : torch.Generator
        Draws a row and a column per image.

    Returns
    -------
    Tensor, shape [n, C, H, W]
        A new tensor; the images are not changed.

    Raises
    ------
    InputError
        If the images are not four-dimensional or the size is negative.
    """
    _check_images(images)
    if size < 0:
        raise InputError(f"the cutout size is {size}: give 0 or more pixels")
    rows, columns = (_covered(extent, size, images, generator) for extent in images.shape[2:])
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    return images.masked_fill(square, 0).contiguous(memory_format=_memory_format(images))


def _covered(extent: int, size: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Which of the positions along one side lie under the square: bool, shape [n, extent]."""
    start = _draw(extent, (len(images), 1), images, generator) - size // 2
    positions = torch.arange(extent, device=images.device)
    return (positions >= start) & (positions < start + size)


def _draw(high: int, shape: tuple[int, ...], images: Tensor, generator: torch.Generator) -> Tensor:
    """Whole numbers below `high`, drawn where the generator lives and moved to the images."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(images.device)


def _memory_format(images: Tensor) -> torch.memory_format:
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _check_images(images: Tensor) -> None:
    if images.ndim != 4:
        raise InputError(
            f"augmentation takes images of shape [n, C, H, W], got {tuple(images.shape)}: "
            "switch augmentation off for inputs that are not images"
        )
