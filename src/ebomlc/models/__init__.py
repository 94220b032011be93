"""Main models by name, and the corrector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ebomlc.config import ModelConfig
from ebomlc.errors import InputError, unknown_name
from ebomlc.models.backbones import (
    MainModel,
    MainOutput,
    StandardisePixels,
    mlp_body,
    resnet_body,
    small_cnn_body,
)
from ebomlc.models.corrector import Corrector, CorrectorSettings

__all__ = [
    "MODELS",
    "Corrector",
    "CorrectorSettings",
    "InputShape",
    "MainModel",
    "MainOutput",
    "build_model",
    "choose_model",
]

CNN_FEATURES = 64

IMAGE_BODIES: dict[str, Callable[[int], nn.Sequential]] = {
    "cnn": small_cnn_body,
    "resnet20": lambda channels: resnet_body(20, channels),
    "resnet32": lambda channels: resnet_body(32, channels),
    "resnet44": lambda channels: resnet_body(44, channels),
    "resnet56": lambda channels: resnet_body(56, channels),
}
MODELS = ("mlp", *IMAGE_BODIES)


@dataclass(frozen=True)
class InputShape:
    """What a main model will be fed.

    Attributes
    ----------
    shape : tuple of int
        Of one row: (D,) for features, (C, H, W) for uint8 images.
    mean, std : tuple of float
        Per channel of the training images scaled to [0, 1]; empty for features, which the encoder standardises.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def is_image(self) -> bool:
        """True for uint8 images."""
        return len(self.shape) == 3


def choose_model(name: str, inputs: InputShape) -> str:
    """The model behind ``auto``: an MLP for features, the small CNN for grey images, ResNet-20 for colour.

    Raises
    ------
    InputError
        For an unknown name, or an image model on rows that are not images.
    """
    if name == "auto":
        if not inputs.is_image:
            return "mlp"
        return "cnn" if inputs.shape[0] == 1 else "resnet20"
    if name not in MODELS:
        raise unknown_name("model", name, ("auto", *MODELS))
    if name != "mlp" and not inputs.is_image:
        raise InputError(f"model {name!r} needs images, but a row here is {inputs.shape[0]} numbers: use mlp")
    return name


def build_model(config: ModelConfig, inputs: InputShape, n_classes: int) -> MainModel:
    """A freshly initialised main model in float32 on the CPU.

    Parameters
    ----------
    config : ModelConfig
        Name and shape; ``auto`` as in `choose_model`.
    inputs : InputShape
        Shape of a row and pixel statistics.
    n_classes : int
        K.
    """
    name = choose_model(config.name, inputs)
    first: Sequence[nn.Module] = [StandardisePixels(inputs.mean, inputs.std)] if inputs.is_image else []
    if name == "mlp":
        n_inputs = int(torch.tensor(inputs.shape).prod())
        body = nn.Sequential(*first, nn.Flatten(), *mlp_body(n_inputs, config.hidden, config.dropout))
        width = config.hidden[-1] if config.hidden else n_inputs
    else:
        body = nn.Sequential(*first, *IMAGE_BODIES[name](inputs.shape[0]))
        width = CNN_FEATURES
    return MainModel(body, width, n_classes)
