"""Networks of timm and torchvision by name, with pre-trained weights where they can be had."""

from __future__ import annotations

import copy
import re
import socket
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebomlc.errors import DataWarning, InputError, unknown_name

NETWORK_TIMEOUT = 10.0
"""Seconds to wait for a server that does not answer, before the weights count as not to be had."""

TIMM_WEIGHTS = "model.safetensors"

AUXILIARY_HEADS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Networks of torchvision that would return a second output in training, and what switches it off."""

FIXED_SIZE = ("vit_", "maxvit_")
"""Networks of torchvision that take images of one size only."""

OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class Description:
    """What is known of a named network before it is built.

    Attributes
    ----------
    package, name, version : str
        ``timm`` or ``torchvision``, the network in it, and the package's version.
    size : tuple of int
        Height and width [pixels]: of the only images it takes, or of the smallest.
    is_fixed : bool
        It takes images of `size` only.
    weights : str
        Where its pre-trained weights come from, by name; empty where there are none.
    """

    package: str
    name: str
    version: str
    size: tuple[int, int]
    is_fixed: bool
    weights: str

    def __str__(self) -> str:
        trained = f"pre-trained weights {self.weights}" if self.weights else "no pre-trained weights"
        return f"{self.name} of {self.package} {self.version}, {trained}"

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that images of these are to be brought to: their own, wherever the network allows it."""
        if self.is_fixed:
            return self.size
        return max(height, self.size[0]), max(width, self.size[1])


class Resize(nn.Module):
    """Images [n, C, H, W] of any size to one, bilinear and antialiased.

    Parameters
    ----------
    size : tuple of int
        Height and width [pixels].
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Resized images."""
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)


def is_named(name: str) -> bool:
    """True for ``timm:NAME`` and ``torchvision:NAME``, whether or not there is such a network."""
    return name.partition(":")[0] in SOURCES and ":" in name


def describe(name: str) -> Description:
    """What is known of ``timm:NAME`` or ``torchvision:NAME``.

    Raises
    ------
    InputError
        Where the package is missing or does not load, or there is no such network.
    """
    package, _, network = name.partition(":")
    if package not in SOURCES:
        raise unknown_name("package of networks", package, SOURCES)
    return SOURCES[package].describe(network)


def build_named(name: str, n_classes: int, in_channels: int, pretrained: bool = True) -> nn.Module:
    """A network by name, with a new last layer.

    Parameters
    ----------
    name : str
        ``timm:NAME`` or ``torchvision:NAME``.
    n_classes, in_channels : int
        Outputs, and channels of the images; the first layer of pre-trained weights is adapted to them.
    pretrained : bool
        Start from pre-trained weights that are in the cache of the package or can be downloaded. Otherwise there is a
        DataWarning, and the weights are random.

    Returns
    -------
    nn.Module
        Maps float images [n, C, H, W] to logits [n, K]; in float32 on the CPU.

    Raises
    ------
    InputError
        As `describe`; and where the network cannot be built for so many channels.
    """
    description = describe(name)
    try:
        return SOURCES[description.package].build(description, n_classes, in_channels, pretrained)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        # which of these a network raises for channels or classes it was not made for is up to its author
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"model {name!r} cannot be built for images of {in_channels} channels and {n_classes} classes ({reason}): "
            "choose another model"
        ) from error


# --- timm -------------------------------------------------------------------------------------------------------------


def _describe_timm(network: str) -> Description:
    timm = _load("timm", "timm")
    architecture, _, tag = network.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("model of timm", network, timm.list_models())
    if tag:
        tagged: list[str] = timm.list_models(f"{architecture}.*", pretrained=True)
        if network not in tagged:
            raise unknown_name("model of timm", network, tagged)
    known = timm.get_pretrained_cfg(network)
    smallest = known.min_input_size or (3, 1, 1)
    _, height, width = known.input_size if known.fixed_input_size else smallest
    return Description(
        "timm", network, timm.__version__, (height, width), bool(known.fixed_input_size), known.hf_hub_id or ""
    )


def _build_timm(description: Description, n_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    path = _find_timm_weights(description) if pretrained else None
    overlay = {} if path is None else {"pretrained_cfg_overlay": {"file": path}}
    return _load("timm", "timm").create_model(
        description.name, pretrained=path is not None, num_classes=n_classes, in_chans=in_channels, **overlay
    )


def _find_timm_weights(description: Description) -> str | None:
    """The safetensors file in the Hugging Face cache, downloaded where it is not there yet."""
    if not description.weights:
        return _warn_random(description, "timm has none that are stored without pickle")
    hub = _load("huggingface_hub", "timm")
    found = hub.try_to_load_from_cache(description.weights, TIMM_WEIGHTS)
    if isinstance(found, str):
        return found
    if hub.constants.HF_HUB_OFFLINE:
        return _warn_random(description, "not in the cache, and HF_HUB_OFFLINE is set")
    # asked first, because the hub's own client tries again and again for a minute where there is no network
    problem = _ask(hub.hf_hub_url(description.weights, TIMM_WEIGHTS))
    if problem:
        return _warn_random(description, problem)
    try:
        return hub.hf_hub_download(description.weights, TIMM_WEIGHTS)
    except Exception as error:  # of the hub, of its HTTP client, of the disk: random weights are the answer to all
        return _warn_random(description, _say(error))


# --- torchvision ------------------------------------------------------------------------------------------------------


def _describe_torchvision(network: str) -> Description:
    models = _load("torchvision.models", "torchvision")
    names: list[str] = models.list_models(module=models)
    if network not in names:
        raise unknown_name("model of torchvision", network, names)
    weights = models.get_model_weights(network).DEFAULT
    is_fixed = network.startswith(FIXED_SIZE)
    version = _load("torchvision", "torchvision").__version__
    return Description("torchvision", network, version, tuple(weights.meta["min_size"]), is_fixed, str(weights))


def _build_torchvision(description: Description, n_classes: int, in_channels: int, pretrained: bool) -> nn.Module:
    models = _load("torchvision.models", "torchvision")
    options = dict(AUXILIARY_HEADS.get(description.name, {}))
    if description.name.startswith("vit_"):
        options["image_size"] = description.size[0]
    network: nn.Module = models.get_model(description.name, weights=None, num_classes=n_classes, **options)
    state = _find_torchvision_state(description) if pretrained else None
    if state is not None and not _take_over(network, state):
        _warn_random(description, "they do not fit this version of the network")
        state = None
    _take_channels(network, in_channels, trained=state is not None)
    return network


def _find_torchvision_state(description: Description) -> dict[str, Tensor] | None:
    """The state dictionary in torch's hub cache, downloaded where it is not there yet."""
    url: str = _load("torchvision.models", "torchvision").get_model_weights(description.name).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    try:
        if not path.exists():
            problem = _ask(url)
            if problem:
                return _warn_random(description, problem)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _socket_timeout(NETWORK_TIMEOUT):
                torch.hub.download_url_to_file(url, str(path), _hash_prefix(path), progress=False)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the network, of the disk, of a damaged file: random weights are the answer to all
        return _warn_random(description, _say(error))


def _hash_prefix(path: Path) -> str:
    """Start of the SHA-256, which torch's file names end with."""
    return path.stem.rpartition("-")[2]


def _take_over(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Load what fits; False, and nothing loaded, where more than one layer's weight and bias would be left out."""
    own = network.state_dict()
    named = {OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in state.items()}
    fitting = {key: value for key, value in named.items() if key in own and value.shape == own[key].shape}
    left_out = {
        key.rpartition(".")[0] for key in own.keys() - fitting.keys() if not key.endswith("num_batches_tracked")
    }
    if len(left_out) > 1:
        return False
    network.load_state_dict(fitting, strict=False)
    return True


def _take_channels(network: nn.Module, in_channels: int, *, trained: bool) -> None:
    """Let the first convolution read another number of channels; trained filters are averaged over colours."""
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels == in_channels:
        return
    parent, _, last = name.rpartition(".")
    wider = nn.Conv2d(
        in_channels,
        first.out_channels,
        _pair(first.kernel_size),
        _pair(first.stride),
        copy.copy(first.padding) if isinstance(first.padding, str) else _pair(first.padding),
        bias=first.bias is not None,
    )
    if trained:
        with torch.no_grad():
            wider.weight.copy_(first.weight.sum(1, keepdim=True) / in_channels)
            if wider.bias is not None and first.bias is not None:
                wider.bias.copy_(first.bias)
    setattr(network.get_submodule(parent), last, wider)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return height, width


# --- both -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """How a package is asked for a network."""

    describe: Callable[[str], Description]
    build: Callable[[Description, int, int, bool], nn.Module]


SOURCES: Mapping[str, _Source] = {
    "timm": _Source(_describe_timm, _build_timm),
    "torchvision": _Source(_describe_torchvision, _build_torchvision),
}


def _load(module: str, package: str) -> Any:  # noqa: ANN401 - a module
    """Import a module of the extra ``vision`` on behalf of `package`.

    Raises
    ------
    InputError
        Where it is not installed, or torchvision was built for another torch.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"models of {package} need the package {error.name or module}: pip install 'ebomlc[vision]'"
        ) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # timm imports torchvision, whose operators do not register beside a torch it was not built for
        built = "cpu" if torch.version.cuda is None else f"cu{torch.version.cuda.replace('.', '')}"
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"models of {package}: the torchvision installed here does not match torch {torch.__version__} ({reason}): "
            f"pip install --force-reinstall --no-deps torchvision --index-url https://download.pytorch.org/whl/{built}"
        ) from error


@cache
def _ask(url: str) -> str:
    """Why a file cannot be downloaded; empty where it can. Asked once in a process."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "ebomlc"})
    try:
        with urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code} {error.reason}"
    except OSError as error:
        return f"not in the cache, and no network: {_say(error)}"


def _say(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _warn_random(description: Description, reason: str) -> None:
    warnings.warn(
        f"no pre-trained weights for {description.package}:{description.name} at hand ({reason}): it starts from "
        "random weights",
        DataWarning,
        stacklevel=5,
    )
