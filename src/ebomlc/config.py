"""What a run is asked to do: one frozen dataclass per concern, read from and written to TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ebomlc.errors import InputError, listed, unknown_name

T = TypeVar("T")

MOST_LAYERS, WIDEST = 100, 65_536
"""Of a perceptron; beyond that it is a slip of the pen, and may be more than the memory holds."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class DataConfig:
    """Which rows, and which of their columns.

    Attributes
    ----------
    noisy : str
        The large set: a table, a folder of images, an ``.npy`` file of embeddings, or a built-in name (``digits``,
        ``fashion-mnist``, ``cifar10``, ``cifar100``).
    trusted : str, optional
        Checked rows; their label column holds the right label, ``given_label`` the one before. Needs no inputs where
        every id is one of `noisy`.
    checked : str, optional
        Instead of `trusted`, or beside it: the column of `noisy` that holds the right label where somebody looked.
    add_reviewed : tuple of str
        Run folders on the same set, in which people decided on rows (``ebomlc review``): these are trusted rows too.
    n_trusted : int, optional
        Instead of `trusted`: draw this many rows of `noisy`, whose right labels are known, as the trusted set.
    n_noisy : int, optional
        Keep only so many of the noisy rows, drawn at random once the trusted ones are known; a smaller number keeps
        some of the rows that a larger one keeps.
    pairs : bool
        The rows drawn by `n_trusted` keep the label they were given; the papers hide it.
    test, truth : str, optional
        A file of test rows with right labels; a file (id, label) with the right labels of `noisy`. Scoring only.
    id, label, image : str, optional
        Column names; `image` holds paths, relative to the folder of their table. Without `id`, a column called ``id``
        is used, else the row number.
    text : tuple of str
        Columns that hold texts; empty means those that look like it.
    features : tuple of str
        Columns of numbers and categories; empty means every other one.
    noise : str, optional
        A noise model laid over the labels of `noisy`, which are then taken as right; such as ``"flip:0.4"``.
    data_dir : str, optional
        Folder of the official files of built-in sets.
    image_size : int, optional
        Pixels a side that images are brought to; by default chosen from the files.
    on_bad_input : {"error", "skip"}
        What to do about an image that cannot be read.
    normalise_labels : bool, optional
        Labels that differ only by case or blanks are one class, or stay apart; by default the question is put.
    allow_overlap : bool
        Score test rows although they also occur in the training rows.
    cache_dir : str, optional
        Where decoded images and features are kept; by default ``~/.cache/ebomlc``.
    heldout_fraction : float in [0, 0.5], optional
        Share of the trusted rows that are only watched, never trained on; by default `automatic_heldout_fraction`.
    """

    noisy: str = ""
    trusted: str | None = None
    checked: str | None = None
    add_reviewed: tuple[str, ...] = ()
    n_trusted: int | None = None
    n_noisy: int | None = None
    pairs: bool = False
    test: str | None = None
    truth: str | None = None
    id: str | None = None
    label: str = "label"
    text: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    image: str | None = None
    noise: str | None = None
    data_dir: str | None = None
    image_size: int | None = None
    on_bad_input: str = "error"
    normalise_labels: bool | None = None
    allow_overlap: bool = False
    cache_dir: str | None = None
    heldout_fraction: float | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file."""
        _require(self.noisy != "", "no noisy set: give a file, or a built-in name such as digits")
        given = [name for name in ("--trusted", "--checked") if getattr(self, name[2:]) is not None]
        _require(
            not given or self.n_trusted is None,
            f"{' and '.join(given)} and --n-trusted exclude each other: give the checked rows, or how many to draw",
        )
        _require(
            self.n_trusted is None or self.n_trusted >= 1,
            f"--n-trusted is {self.n_trusted}: without trusted rows nothing can be corrected; give at least 2",
        )
        _require(
            self.n_noisy is None or self.n_noisy >= 2, f"--n-noisy is {self.n_noisy}: keep at least 2 of the noisy rows"
        )
        self._check_columns()
        if self.on_bad_input not in ("error", "skip"):
            raise unknown_name("--on-bad-input", self.on_bad_input, ("error", "skip"))
        _require(
            self.image_size is None or 8 <= self.image_size <= 1024,
            f"--image-size is {self.image_size}: must be from 8 to 1024 pixels",
        )
        _require(
            self.heldout_fraction is None or 0 <= self.heldout_fraction <= 0.5,
            f"data.heldout_fraction is {self.heldout_fraction}: must be in [0, 0.5]",
        )

    def _check_columns(self) -> None:
        _require(self.image is None or not self.text + self.features, "--image excludes --text and --features")
        inputs = self.text + self.features + ((self.image,) if self.image else ())
        for name in inputs:
            _require(inputs.count(name) == 1, f"column {name!r} is named twice as an input: once is enough")
            _require(name != self.label, f"column {name!r} is the label: it cannot be what the label is learnt from")
            _require(name != self.checked, f"column {name!r} is the checked label: it cannot be an input")
        _require(self.id != self.label, f"--id and --label both name column {self.id!r}: give two columns")
        _require(
            self.checked != self.label,
            f"--checked and --label both name column {self.label!r}: one holds the label as given, the other the "
            f"right one where somebody looked",
        )


@dataclass(frozen=True)
class EncoderConfig:
    """What turns inputs into what the main model is fed.

    Attributes
    ----------
    name : str
        ``auto``, ``columns`` (tables), ``vectors`` (embeddings), ``pixels`` (images as they are), or a pre-trained
        network that stays as it is: ``efficientnet-lite0``, ``timm:NAME``, ``torchvision:NAME`` for images, ``minilm``,
        ``sentence:NAME`` for texts.
    """

    name: str = "auto"


@dataclass(frozen=True)
class ModelConfig:
    """The main model: a name of `ebomlc.models.MODELS`, ``timm:NAME``, ``torchvision:NAME`` or ``auto``; MLP's shape.

    `head` names the last linear layer of a network that was given from Python, where it is not the last one to run.
    """

    name: str = "auto"
    head: str | None = None
    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(
            len(self.hidden) <= MOST_LAYERS and all(1 <= width <= WIDEST for width in self.hidden),
            f"model.hidden is [{listed([*map(str, self.hidden)])}]: at most {MOST_LAYERS} widths from 1 to {WIDEST:,}",
        )
        _require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}: must be in [0, 1)")


@dataclass(frozen=True)
class MethodConfig:
    """The method by name, and its settings as the registry understands them."""

    name: str = "plus"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast, and on what.

    Attributes
    ----------
    epochs : int, optional
        Passes over the noisy set; by default as many as give `AUTO_STEPS` steps, within `AUTO_EPOCHS`.
    batch_size, trusted_batch_size : int
        Noisy and trusted rows per step; the trusted batch is halved where a method needs held-out rows.
    optimizer : {"sgd", "adamw"}
        Of the main model.
    lr : float
        Peak learning rate.
    momentum, nesterov
        Of SGD.
    weight_decay : float, optional
        Coupled into SGD's step, decoupled under AdamW. By default for images 5e-4, for ResNets in
        short trainings more (`ebomlc.training.decay.image_weight_decay`); for numbers and text chosen by
        `ebomlc.training.decay.choose_weight_decay`.
    lr_floor : float in [0, 1]
        The schedule ends at ``lr_floor * lr``; the gap of EBOMLC vanishes with the rate, so it must not reach zero.
    schedule : {"cosine", "step", "constant"}
        ``step`` divides the rate by ten at 2/3 and 5/6 of the run (the papers' 80 and 100 of 120 epochs).
    sync_batch_norm : bool
        Several processes (``torchrun``) normalise by the rows of all of them, as one process does; else each by its
        own, which saves messages in every forward.
    joint_forward : bool
        One forward for noisy and trusted training rows (shared batch statistics) instead of two.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU where there is one.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 for convolutional models where the processor has it and the gap's direction survives.
    deterministic : bool, optional
        On a GPU, take only operations that repeat their own bits; a processor does so anyway.
    augment : bool, optional
        Random crop and flip; by default on for colour images.
    balance : bool, optional
        Trusted batches hold every class alike, and noisy rows count by how rare their class is; by default where the
        largest class has more than `IMBALANCE` times the trusted rows of the smallest.
    checkpoint_minutes : float, optional
        Most work that a kill costs; by default five minutes.
    checkpoint_steps : int, optional
        A checkpoint is also written after so many steps.
    on_failure : {"stop", "keep"}, optional
        Whether a training that diverged, or has symptoms (`ebomlc.labels.health`), counts as failed; by default where
        it diverged. What is written is the same.
    tracker : {"csv", "tensorboard"}
        ``tensorboard`` writes event files to the run folder, beside ``metrics.csv``, which is always written.
    """

    epochs: int | None = None
    batch_size: int = 100
    trusted_batch_size: int = 100
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float | None = None
    lr_floor: float = 0.01
    schedule: str = "cosine"
    sync_batch_norm: bool = True
    joint_forward: bool = False
    device: str = "auto"
    precision: str = "auto"
    deterministic: bool | None = None
    augment: bool | None = None
    balance: bool | None = None
    checkpoint_minutes: float | None = None
    checkpoint_steps: int | None = None
    on_failure: str | None = None
    tracker: str = "csv"

    def __post_init__(self) -> None:
        """Check ranges and names."""
        _require(self.epochs is None or self.epochs >= 1, f"--epochs is {self.epochs}: at least one epoch is needed")
        _require(self.batch_size >= 2, f"training.batch_size is {self.batch_size}: must be at least 2")
        _require(
            self.trusted_batch_size >= 2,
            f"training.trusted_batch_size is {self.trusted_batch_size}: must be at least 2, one row for each half",
        )
        _require(0 < self.lr < math.inf, f"training.lr is {self.lr}: must be positive")
        _require(0 <= self.momentum < 1, f"training.momentum is {self.momentum}: must be in [0, 1)")
        _require(self.momentum > 0 or not self.nesterov, "training.nesterov needs a training.momentum above 0")
        _require(
            self.weight_decay is None or 0 <= self.weight_decay < math.inf,
            f"training.weight_decay is {self.weight_decay}: must not be negative",
        )
        _require(0 <= self.lr_floor <= 1, f"training.lr_floor is {self.lr_floor}: must be in [0, 1]")
        self._check_checkpoints()
        for name, value, known in (
            ("optimizer", self.optimizer, ("sgd", "adamw")),
            ("schedule", self.schedule, ("cosine", "step", "constant")),
            ("device", self.device, ("auto", "cpu", "cuda")),
            ("precision", self.precision, ("auto", "float32", "bfloat16")),
            ("--on-failure", self.on_failure, ("stop", "keep")),
            ("tracker", self.tracker, ("csv", "tensorboard")),
        ):
            if value is not None and value not in known:
                raise unknown_name(name, value, known)

    def _check_checkpoints(self) -> None:
        minutes, steps = self.checkpoint_minutes, self.checkpoint_steps
        _require(
            minutes is None or 0 < minutes < math.inf, f"training.checkpoint_minutes is {minutes}: must be positive"
        )
        _require(steps is None or steps >= 1, f"training.checkpoint_steps is {steps}: must be at least 1")


ENOUGH_HELDOUT = 300
"""With fewer held-out rows the best epoch on them is mostly luck, and the last one is taken."""


def automatic_heldout_fraction(n_trusted: int) -> float:
    """A tenth where that is enough to choose the epoch; else a twentieth, for rows that decide nothing should train."""
    return 0.1 if 0.1 * n_trusted >= ENOUGH_HELDOUT else 0.05


IMBALANCE = 5.0

AUTO_STEPS = 3000
AUTO_EPOCHS = (20, 500)


def automatic_epochs(steps_per_epoch: int) -> int:
    """Epochs that give about `AUTO_STEPS` optimizer steps, within `AUTO_EPOCHS`."""
    low, high = AUTO_EPOCHS
    return min(max(round(AUTO_STEPS / steps_per_epoch), low), high)


@dataclass(frozen=True)
class TrustConfig:
    """How the output is made worth acting on.

    Attributes
    ----------
    precision : float in [0.5, 1)
        Share of the labels called wrong that shall be wrong indeed.
    folds : int, optional
        Short trainings that are each not shown a part of the checked rows, to calibrate on these; 0 for none. By
        default as `ebomlc.judgement` decides.
    """

    precision: float = 0.9
    folds: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(
            0.5 <= self.precision < 1,
            f"--precision is {self.precision:g}: must be at least 0.5 and below 1, such as 0.9 for nine of ten",
        )
        _require(
            self.folds is None or self.folds == 0 or 2 <= self.folds <= 20,
            f"--folds is {self.folds}: must be 0 for none, or from 2 to 20",
        )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    trust: TrustConfig = field(default_factory=TrustConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the seed."""
        _require(self.seed >= 0, f"--seed is {self.seed}: must be 0 or more")


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table of a TOML file.

    Parameters
    ----------
    kind : type
        A dataclass whose fields are of simple types, tuples of them, or such dataclasses.
    values : mapping
        Values by field name; what is missing takes its default.
    where : str
        Name of the table for error messages, such as ``"[training]"``.

    Raises
    ------
    InputError
        For an unknown key (with the nearest known one), a value of the wrong type, or one out of range.
    """
    given = _converted(kind, values, where, build)
    for part in fields(cast(Any, kind)):
        if part.name not in given and part.default is MISSING and part.default_factory is MISSING:
            raise InputError(f"{where}: lacks {part.name!r}, which a configuration must have")
    return kind(**given)


def _converted(kind: type, values: Mapping[str, Any], where: str, make: Callable[..., Any]) -> dict[str, Any]:
    """Values as the fields of a dataclass want them; nested tables go through `make`."""
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise InputError(f"{where}: {unknown_name('key', key, known)}")
    return {key: _convert(value, hints[key], key, where, make) for key, value in values.items()}


def _convert(value: Any, hint: Any, key: str, where: str, make: Callable[..., Any]) -> Any:  # noqa: ANN401 - any TOML value
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    plain = get_origin(hint) or hint
    if is_dataclass(plain):
        _check_type(value, Mapping, "a table", key, where)
        return make(plain, value, f"[{key}] of {where}")
    if plain is Mapping:
        _check_type(value, Mapping, "a table", key, where)
        return value
    if plain is tuple:
        _check_type(value, (list, tuple), "a list", key, where)
        return tuple(_convert(item, get_args(hint)[0], key, where, make) for item in value)
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise InputError(f"{where}: {key} is {value!r}: must be of type {plain.__name__}")
    if plain is int and not -(2**63) <= value < 2**63:
        raise InputError(f"{where}: {key} is a number of more than 64 bits: give a smaller one")
    return value


def _check_type(value: object, kind: Any, name: str, key: str, where: str) -> None:  # noqa: ANN401 - as isinstance
    if not isinstance(value, kind):
        raise InputError(f"{where}: {key} is {value!r}: must be {name}")


EXCLUSIVE: Mapping[str, tuple[str, ...]] = {
    "text": ("image",),
    "features": ("image",),
    "image": ("text", "features"),
    "trusted": ("n_trusted",),
    "checked": ("n_trusted",),
    "n_trusted": ("trusted", "checked"),
    "noise": ("truth",),
    "truth": ("noise",),
}


def merge_options(tables: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of a configuration file under options that were given beside it, which come first.

    Parameters
    ----------
    tables : mapping
        As `read_toml` gives them.
    options : mapping
        The same structure; None means not given. An option takes the place of one in the file that it excludes, and
        another method leaves the file's settings of its method behind.
    """
    merged: dict[str, Any] = {"data": {}, **tables}
    method = dict(merged.get("method", {}))
    chosen = options.get("method", {}).get("name")
    if chosen is not None and chosen != method.get("name", MethodConfig.name):
        merged["method"] = {"name": chosen}
    for table, values in options.items():
        if not isinstance(values, Mapping):
            merged[table] = merged.get(table) if values is None else values
            continue
        given = {key: value for key, value in values.items() if value is not None}
        excluded = {other for key in given if table == "data" for other in EXCLUSIVE.get(key, ())}
        kept = {key: value for key, value in merged.get(table, {}).items() if key not in excluded}
        merged[table] = {**kept, **given}
    return {key: value for key, value in merged.items() if value is not None}


def to_dict(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """A dataclass as nested plain dictionaries without the fields that are None, as TOML needs."""

    def clean(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items() if item is not None}
        return list(value) if isinstance(value, tuple) else value

    return clean(asdict(record))


def to_toml(config: RunConfig) -> str:
    """The configuration as TOML text that `read_toml` reads back to an equal one."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a configuration file, with the keys and types of `RunConfig`; ranges are not yet checked.

    Raises
    ------
    InputError
        Where the file is missing, is not TOML, or holds an unknown key or a value of the wrong type.
    """
    try:
        if path.exists() and not path.is_file():  # whoever reads from a pipe may wait for ever
            raise InputError(f"{path}: no file; --config names a TOML file such as config.toml of a run")
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; is the path after --config right?") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a TOML file: {error}; start from config.toml of a run") from error
    return _converted(RunConfig, tables, str(path), _converted_table)


def _converted_table(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    return _converted(kind, values, where, _converted_table)
