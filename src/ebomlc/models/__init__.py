"""Main models by name or from anybody's network, and the corrector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ebomlc.config import ModelConfig
from ebomlc.errors import InputError, unknown_name
from ebomlc.models.backbones import (
    CentreAndScale,
    MainModel,
    MainOutput,
    StandardisePixels,
    mlp_body,
    resnet_body,
    small_cnn_body,
    tiny_cnn_body,
)
from ebomlc.models.check import check_forward_mode, check_model
from ebomlc.models.corrector import Corrector, CorrectorSettings
from ebomlc.models.pretrained import Resize, build_named, describe, is_named
from ebomlc.models.wrap import wrap_model

__all__ = [
    "MODELS",
    "CentreAndScale",
    "Corrector",
    "CorrectorSettings",
    "InputShape",
    "MainModel",
    "MainOutput",
    "build_model",
    "check_forward_mode",
    "check_model",
    "choose_model",
    "explain_choice",
    "is_image_model",
    "model_from_module",
    "wrap_model",
]

CNN_FEATURES = 64

IMAGE_BODIES: dict[str, Callable[[int], nn.Sequential]] = {
    "cnn": small_cnn_body,
    "cnn-tiny": tiny_cnn_body,
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


def is_image_model(name: str) -> bool:
    """True for a model that only images can be fed to."""
    return name in IMAGE_BODIES or is_named(name)


def choose_model(name: str, inputs: InputShape) -> str:
    """The model behind ``auto``: an MLP for features, the small CNN for grey images, ResNet-20 for colour.

    Raises
    ------
    InputError
        For an unknown name, an image model on rows that are not images, or a package that is missing.
    """
    if name == "auto":
        if not inputs.is_image:
            return "mlp"
        return "cnn" if inputs.shape[0] == 1 else "resnet20"
    if name not in MODELS and not is_named(name):
        raise unknown_name("model", name, ("auto", *MODELS, "timm:NAME", "torchvision:NAME"))
    if is_image_model(name) and not inputs.is_image:
        raise InputError(f"model {name!r} needs images, but a row here is {inputs.shape[0]} numbers: use mlp")
    if is_named(name):
        describe(name)
    return name


def explain_choice(name: str, inputs: InputShape) -> str:
    """Why it is the model that `choose_model` gives for a name, in words for the user."""
    if name != "auto":
        return "asked for"
    if not inputs.is_image:
        return f"a row is {inputs.shape[0]} numbers"
    channels, height, width = inputs.shape
    kind = "grey" if channels == 1 else "colour"
    return f"the rows are {kind} images of {height} x {width}"


def build_model(config: ModelConfig, inputs: InputShape, n_classes: int, *, pretrained: bool = True) -> MainModel:
    """A main model in float32 on the CPU: freshly initialised, or pre-trained where its name says so.

    Parameters
    ----------
    config : ModelConfig
        Name and shape; ``auto`` as in `choose_model`, ``timm:NAME`` and ``torchvision:NAME`` as in `build_named`.
    inputs : InputShape
        Shape of a row and pixel statistics.
    n_classes : int
        K.
    pretrained : bool
        False leaves the weights of a network by name random, to be loaded from elsewhere.

    Raises
    ------
    InputError
        As `choose_model`; and for a network by name that has no linear last layer.
    """
    name = choose_model(config.name, inputs)
    if is_named(name):
        return _model_from_name(name, config.head, inputs, n_classes, pretrained)
    first: Sequence[nn.Module] = [StandardisePixels(inputs.mean, inputs.std)] if inputs.is_image else []
    if name == "mlp":
        n_inputs = int(torch.tensor(inputs.shape).prod())
        body = nn.Sequential(*first, nn.Flatten(), *mlp_body(n_inputs, config.hidden, config.dropout))
        width = config.hidden[-1] if config.hidden else n_inputs
    else:
        body = nn.Sequential(*first, *IMAGE_BODIES[name](inputs.shape[0]))
        width = CNN_FEATURES
    return MainModel(body, width, n_classes)


def model_from_module(
    module: nn.Module,
    inputs: InputShape,
    n_classes: int,
    example: Tensor,
    *,
    head: str | None = None,
    is_checked: bool = False,
) -> MainModel:
    """A main model from anybody's network, with the network's weights; the network itself is not changed.

    Parameters
    ----------
    module : nn.Module
        Maps float rows [n, ...] to logits [n, K]. Images reach it standardised by `inputs`, in [n, C, H, W].
    inputs : InputShape
        Shape of a row and pixel statistics.
    n_classes : int
        K.
    example : Tensor, shape [n, ...]
        A few rows as the main model is fed them: float features, or uint8 images.
    head : str, optional
        Name of the linear layer that makes the logits; see `wrap_model`.
    is_checked : bool
        The same module went through here before: what costs time is not checked again.

    Raises
    ------
    InputError
        All problems that `check_model` finds, a line each.
    """
    pixels = StandardisePixels(inputs.mean, inputs.std) if inputs.is_image else None
    if not is_checked:
        check_model(module, example if pixels is None else pixels(example), n_classes, head)
    return wrap_model(module, n_classes, example, head, pixels)


def _model_from_name(name: str, head: str | None, inputs: InputShape, n_classes: int, pretrained: bool) -> MainModel:
    channels, height, width = inputs.shape
    size = describe(name).input_size(height, width)
    standardise = StandardisePixels(inputs.mean, inputs.std)
    pixels = standardise if size == (height, width) else nn.Sequential(standardise, Resize(size))
    network = build_named(name, n_classes, channels, pretrained)
    example = torch.arange(2 * channels * height * width).remainder(251).to(torch.uint8).view(2, *inputs.shape)
    try:
        return wrap_model(network, n_classes, example, head, pixels)
    except Exception:
        # a network of theirs seldom fails, and costs much to check: that is done once there is something to explain
        _explain_failure(name, network, pixels(example), n_classes, head)
        raise


def _explain_failure(name: str, network: nn.Module, rows: Tensor, n_classes: int, head: str | None) -> None:
    try:
        check_model(network, rows, n_classes, head)
    except InputError as error:
        raise InputError(f"model {name!r}: {error}") from error
