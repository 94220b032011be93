"""Everything a run needs, made from its configuration before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebomlc.config import IMBALANCE, DataConfig, MethodConfig, RunConfig, TrainingConfig, automatic_epochs, to_dict
from ebomlc.data.augment import random_crop_flip
from ebomlc.data.disk import encode_to_disk
from ebomlc.data.encoders import Encoded, Encoder, ImageEncoder, LazyEncoded, VectorEncoder, fit_encoder
from ebomlc.data.frozen import choose_encoder, explain_encoder, fit_frozen, is_at_hand, is_frozen
from ebomlc.data.inputs import Inputs
from ebomlc.data.loader import PairedLoader, Rows, StoredRows
from ebomlc.data.pool import Pool, load_pool
from ebomlc.data.readers import is_built_in
from ebomlc.environment import available_memory_mb
from ebomlc.errors import InputError
from ebomlc.methods import Entry, Method, Setup, find_method
from ebomlc.methods.base import LEAST_ROWS
from ebomlc.models import (
    InputShape,
    MainModel,
    build_model,
    check_forward_mode,
    choose_model,
    explain_choice,
    is_image_model,
    model_from_module,
)
from ebomlc.records import NO_LABEL, Batch, IntArray, Share
from ebomlc.reviewed import load_reviewed
from ebomlc.seeding import seed_global
from ebomlc.training.decay import Labelled, choose_ridge, choose_weight_decay, image_weight_decay
from ebomlc.training.device import Precision, choose_device, choose_precision, make_optimizer, place
from ebomlc.training.distributed import ALONE, Ranks
from ebomlc.training.shared_norm import share_batch_norm

Say = Callable[[str], None]

TRAINED_SIZE, FROZEN_SIZE = 64, 224
"""Most pixels a side that images are read at: for a network trained on them, and for one that already knows some."""

FROZEN_DEFAULT, IMAGES_AS_THEY_ARE = "efficientnet-lite0", "pixels"

CROP_PADDING = 4
IMAGE_RIDGE = 1e-3
MEMORY_SHARE = 0.5
"""Encoded rows are kept in memory, or on the GPU, where they take no more than this share of what is free there."""

ENCODED_ANEW = ("columns", "vectors")
"""Encoders that are quick enough to encode each batch when it is needed; images lie in a file as they are fed."""
FEWEST_OF_A_CLASS = 2
HEAVIEST_CLASS = 10.0
"""A class counts at most so many times an average row."""


@dataclass(frozen=True)
class Given:
    """What was given from Python rather than by name.

    Attributes
    ----------
    objects : mapping
        Rows in place of the file of the same name; see `ebomlc.data.pool.load_pool`.
    module : nn.Module, optional
        The main model.
    """

    objects: Mapping[str, Any] = field(default_factory=dict)
    module: nn.Module | None = None


@dataclass(frozen=True)
class Job:
    """Everything a run needs.

    Attributes
    ----------
    config : RunConfig
        Effective: what was left to the tool is filled in.
    pool : Pool
        The rows.
    encoder : Encoder
        Fitted on them.
    encoded : array, shape [N, ...]
        Their inputs as the main model is fed them.
    precision : Precision
        Of the training steps.
    create : callable
        Makes the method anew.
    method : Method
        Fresh.
    loader : PairedLoader
        Of its batches.
    heldout : Batch
        Trusted rows that are only watched.
    reasons : mapping of str to str
        Why the tool chose what it was left to choose.
    ranks : Ranks
        Processes that do it together, each with its share of the loader's batches.
    """

    config: RunConfig
    pool: Pool
    encoder: Encoder
    encoded: Encoded
    precision: Precision
    create: Callable[[], Method]
    method: Method
    loader: PairedLoader
    heldout: Batch
    reasons: Mapping[str, str]
    ranks: Ranks = ALONE

    @cached_property
    def ridge(self) -> float:
        """Penalty of a linear model on the trusted rows."""
        if self.encoded.ndim == 4:
            return IMAGE_RIDGE
        trusted = _sample(self.pool, self.encoded, self.pool.split.trusted, self.config.seed)
        return choose_ridge(trusted, self.pool.n_classes, self.config.seed)


def prepare(config: RunConfig, given: Given, say: Say | None, ranks: Ranks = ALONE) -> Job:
    """Read, encode and choose.

    Parameters
    ----------
    config : RunConfig
        What is asked for.
    given : Given
        Rows and model from Python.
    say : callable, optional
        Takes lines about slow reading and encoding.
    ranks : Ranks
        Who does the job together; every one of them prepares it. Nothing here waits for another.

    Raises
    ------
    InputError
        For everything that cannot be used.
    """
    entry = find_method(config.method.name)
    settings = entry.parse_settings(config.method.settings)
    device = choose_device(config.training.device)
    wanted_encoder = _wanted_encoder(config, given)
    detail = FROZEN_SIZE if is_frozen(wanted_encoder) else TRAINED_SIZE
    objects = {**given.objects, **load_reviewed(config.data.add_reviewed)}
    pool = load_pool(config.data, config.seed, objects=objects, largest_image=detail, say=say)
    if entry.needs_truth and len(pool.scored) < len(pool.split.noisy):
        raise InputError(f"method {entry.name!r} trains on the right labels of all noisy rows: give --truth FILE")
    own_images = not is_built_in(config.data.noisy)
    encoder_name, encoder = _make_encoder(wanted_encoder, config, pool, own_images=own_images)
    encoded = _encode(encoder, pool.inputs)
    shape = input_shape(encoder, encoded)
    model_config, make_model = _model_maker(config, given, shape, encoded, pool.n_classes, device)
    if entry.uses_gap:
        torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa lose the gap as bfloat16 does
    seed_global(config.seed)
    balance = imbalance(pool) > IMBALANCE if config.training.balance is None else config.training.balance
    _check_shares(config.training, pool, ranks)
    loader = _make_loader(config, pool, encoded, device, ranks, needs_truth=entry.needs_truth, balance=balance)
    training = _decide_training(config, entry, pool, encoded, model_config.name, len(loader))
    probe = loader.noisy[slice(0, loader.batch_size)]
    adapt = partial(share_batch_norm, ranks=ranks) if ranks.size > 1 and training.sync_batch_norm else None
    precision = choose_precision(training, make_model, probe, uses_gap=entry.uses_gap)
    if entry.uses_forward_mode and _is_foreign(config, given):
        _check_forward_mode(entry, make_model(), probe)
    setup = Setup(
        make_model if adapt is None else lambda: _adapted(make_model(), adapt),
        pool.n_classes,
        make_optimizer(training),
        precision.autocast,
        training.joint_forward,
        class_weights(pool).to(device) if balance else None,
        adapt,
        LEAST_ROWS if adapt is None else 0,
    )
    effective = replace(
        config,
        data=_absolute(config.data),
        encoder=replace(config.encoder, name=encoder_name),
        model=model_config,
        method=MethodConfig(entry.name, to_dict(settings)),
        training=replace(
            training,
            device=device.type,
            precision=precision.name,
            augment=loader.augment is not None,
            balance=balance,
        ),
    )

    def create() -> Method:
        return entry.create(settings, setup)

    heldout = _row_set(pool, encoded, pool.split.heldout, device)[slice(None)]
    reasons = {
        "encoder": _explain_encoder(config, encoder_name, pool, own_images=own_images),
        "model": "given from Python" if given.module is not None else explain_choice(config.model.name, shape),
        "precision": precision.reason,
        "balance": "asked for" if config.training.balance is not None else _explain_balance(pool),
    }
    return Job(effective, pool, encoder, encoded, precision, create, create(), loader, heldout, reasons, ranks)


# --- inputs and model -------------------------------------------------------------------------------------------------


def _wanted_encoder(config: RunConfig, given: Given) -> str:
    """The name of the encoder as far as it can be told before the inputs are read."""
    name = config.encoder.name
    if name != "auto":
        return name
    if given.module is not None or is_image_model(config.model.name):
        return IMAGES_AS_THEY_ARE
    is_own = not is_built_in(config.data.noisy)
    return FROZEN_DEFAULT if is_own and is_at_hand(FROZEN_DEFAULT) else "auto"


def _make_encoder(wanted: str, config: RunConfig, pool: Pool, *, own_images: bool) -> tuple[str, Encoder]:
    if pool.inputs.kind != "images" and config.encoder.name == "auto":
        wanted = "auto"
    name = choose_encoder(wanted, pool.inputs, own_images=own_images)
    if not is_frozen(name):
        return name, fit_encoder(pool.inputs)
    return name, fit_frozen(name, pool.inputs, Path(config.data.cache_dir) if config.data.cache_dir else None)


def _explain_encoder(config: RunConfig, name: str, pool: Pool, *, own_images: bool) -> str:
    if config.encoder.name != "auto":
        return "asked for"
    if name == IMAGES_AS_THEY_ARE and is_image_model(config.model.name):
        return "for the model that was asked for"
    return explain_encoder(name, pool.inputs, own_images=own_images)


def _encode(encoder: Encoder, inputs: Inputs) -> Encoded:
    """All rows encoded: in memory where they fit into what is free; else on the disk, or each when it is asked for."""
    if encoder.name not in ENCODED_ANEW:
        return encoder.encode(inputs)
    lazy = LazyEncoded(encoder, inputs)
    room = available_memory_mb()
    if room is None or lazy.nbytes / 2**20 <= MEMORY_SHARE * room:
        return encoder.encode(inputs)
    return lazy if isinstance(encoder, VectorEncoder) else encode_to_disk(lazy)


def input_shape(encoder: Encoder, encoded: Encoded) -> InputShape:
    """What the main model is fed."""
    if isinstance(encoder, ImageEncoder):
        return InputShape(encoded.shape[1:], tuple(encoder.mean), tuple(encoder.std))
    return InputShape(encoded.shape[1:])


def _model_maker(
    config: RunConfig,
    given: Given,
    shape: InputShape,
    encoded: Encoded,
    n_classes: int,
    device: torch.device,
) -> tuple[Any, Callable[[], MainModel]]:
    """The model section with its name decided, and what makes the model."""
    if given.module is not None:
        module = given.module
        example = torch.as_tensor(np.array(encoded[:2]))
        chosen = replace(config.model, name=f"({type(module).__name__} from Python)")
        head = config.model.head
        model_from_module(module, shape, n_classes, example, head=head)  # refused before anything else takes time
        return chosen, lambda: place(
            model_from_module(module, shape, n_classes, example, head=head, is_checked=True), device
        )
    chosen = replace(config.model, name=choose_model(config.model.name, shape))
    return chosen, lambda: place(build_model(chosen, shape, n_classes), device)


def _adapted(model: MainModel, adapt: Callable[[nn.Module], object]) -> MainModel:
    adapt(model)
    return model


def _is_foreign(config: RunConfig, given: Given) -> bool:
    """Whether the main model is one that other people wrote."""
    return given.module is not None or ":" in config.model.name


def _check_forward_mode(entry: Entry, model: MainModel, rows: Batch) -> None:
    reason = check_forward_mode(model, rows.inputs[:2])
    if reason is not None:
        raise InputError(f"method {entry.name!r}: {reason}")


def _absolute(data: DataConfig) -> DataConfig:
    """The same files from whatever folder the configuration is used."""

    def resolve(name: str | None) -> str | None:
        return name if name is None or is_built_in(name) or name[0] == "(" or name[:3] == "hf:" else _full(name)

    def _full(name: str) -> str:
        return str(Path(name).resolve())

    return replace(
        data,
        noisy=resolve(data.noisy) or "",
        trusted=resolve(data.trusted),
        add_reviewed=tuple(map(_full, data.add_reviewed)),
        test=resolve(data.test),
        truth=resolve(data.truth),
        data_dir=resolve(data.data_dir),
        cache_dir=resolve(data.cache_dir),
    )


# --- training ---------------------------------------------------------------------------------------------------------


def _decide_training(
    config: RunConfig, entry: Entry, pool: Pool, encoded: Encoded, model: str, steps_per_epoch: int
) -> TrainingConfig:
    """The training section with what was left to the tool filled in."""
    training = config.training
    epochs = training.epochs or automatic_epochs(steps_per_epoch)
    if epochs < entry.min_epochs:
        raise InputError(f"method {entry.name!r} has phases and needs at least {entry.min_epochs} epochs, not {epochs}")
    decay = training.weight_decay
    if decay is None:
        if encoded.ndim == 4:
            decay = image_weight_decay(model, epochs * steps_per_epoch)
        else:
            trusted, noisy = (
                _sample(pool, encoded, rows, config.seed) for rows in (pool.split.trusted, pool.split.noisy)
            )
            decay = choose_weight_decay(trusted, noisy, pool.n_classes, config.seed)
    return replace(training, epochs=epochs, weight_decay=decay)


def _sample(pool: Pool, encoded: Encoded, rows: IntArray, seed: int) -> Labelled:
    return Labelled.sample(encoded, pool.right, telling_labels(pool), rows, seed)


def _class_counts(pool: Pool) -> IntArray:
    """Trusted rows of each class."""
    return np.bincount(pool.right[pool.checked], minlength=pool.n_classes)


def imbalance(pool: Pool) -> float:
    """How many times the trusted rows of the smallest class the largest has, of classes with `FEWEST_OF_A_CLASS`.

    A class with fewer is more often a slip of the pen than a rare class, and too little to balance on.
    """
    counts = _class_counts(pool)
    counts = counts[counts >= FEWEST_OF_A_CLASS]
    return float(counts.max() / counts.min()) if len(counts) else 1.0


def _explain_balance(pool: Pool) -> str:
    return f"the largest has {imbalance(pool):.1f} times the trusted rows of the smallest"


def class_weights(pool: Pool) -> Tensor:
    """Weights of the classes [K] that make each count alike; 1 for an average row, at most `HEAVIEST_CLASS`.

    The shares are those of the right labels: where rare classes are mislabelled as frequent ones, the given labels look
    far less balanced than they are. A class with too few trusted rows to know its share counts as it is.
    """
    counts = _class_counts(pool)
    known = counts >= FEWEST_OF_A_CLASS
    weights = np.ones(pool.n_classes)
    weights[known] = (counts[known].sum() / (known.sum() * counts[known])).clip(max=HEAVIEST_CLASS)
    return torch.tensor(weights, dtype=torch.float32)


def _make_loader(
    config: RunConfig,
    pool: Pool,
    encoded: Encoded,
    device: torch.device,
    share: Share,
    *,
    needs_truth: bool,
    balance: bool,
) -> PairedLoader:
    is_colour = encoded.ndim == 4 and encoded.shape[1] == 3
    wanted = config.training.augment if config.training.augment is not None else is_colour
    if wanted and encoded.ndim != 4:
        raise InputError("training.augment crops and flips images, but the rows are not images: leave it out")
    split = pool.split
    return PairedLoader(
        _row_set(pool, encoded, split.noisy, device, truth=needs_truth),
        _row_set(pool, encoded, split.trusted, device),
        batch_size=config.training.batch_size,
        trusted_batch_size=config.training.trusted_batch_size,
        seed=config.seed,
        device=device,
        augment=(lambda images, generator: random_crop_flip(images, CROP_PADDING, generator)) if wanted else None,
        trusted_classes=torch.as_tensor(pool.right[split.trusted]) if balance else None,
        share=share,
    )


def _check_shares(training: TrainingConfig, pool: Pool, ranks: Ranks) -> None:
    """Refuse more processes than can have a row of every batch, and a trusted row of both of its halves."""
    if ranks.size == 1:
        return
    for name, key, n, least in (
        ("noisy", "batch_size", len(pool.split.noisy), 1),
        ("trusted", "trusted_batch_size", len(pool.split.trusted), 2),
    ):
        batch_size = getattr(training, key)
        most = min(batch_size, n) // least
        if most < ranks.size:
            raise InputError(
                f"{ranks.size} processes, but {n} {name} rows that train and training.{key} {batch_size}: some "
                f"processes would be without a row; start at most {max(most, 1)}"
            )


def telling_labels(pool: Pool) -> IntArray:
    """Given labels [N] as methods are shown them; `NO_LABEL` also where one says nothing about the other rows.

    The label that was given to a row which was checked because it looked wrong shows how labels go wrong, but not how
    often: as a pair it teaches a method that nearly every label is wrong (`benchmarks/review_gain.py`).
    """
    is_suspect = (pool.provenance == "suspect") & (pool.right != NO_LABEL)
    return np.where(is_suspect, NO_LABEL, pool.given)


def _row_set(pool: Pool, encoded: Encoded, rows: IntArray, device: torch.device, *, truth: bool = False) -> Rows:
    """Some rows: on the device where they fit, else where they are until a batch of them is asked for."""
    stored = StoredRows(encoded, telling_labels(pool), pool.truth if truth else pool.right, rows, device)
    room = available_memory_mb(device.type)
    if device.type == "cpu" or (room is not None and encoded.nbytes / 2**20 > MEMORY_SHARE * room):
        return stored
    return stored[slice(None)]
