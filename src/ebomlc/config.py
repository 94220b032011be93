"""What a run is asked to do: one frozen dataclass per concern, read from and written to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ebomlc.errors import InputError, unknown_name

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True)
class DataConfig:
    """Which rows, and which of their columns.

    Attributes
    ----------
    noisy : str
        The large set: a file or a built-in name (``digits``, ``fashion-mnist``, ``cifar10``).
    trusted : str, optional
        A file of checked rows; its label column holds the right label, ``given_label`` the one before.
    n_trusted : int, optional
        Instead of `trusted`: draw this many rows of `noisy`, whose right labels are known, as the trusted set.
    pairs : bool
        The rows drawn by `n_trusted` keep the label they were given; the papers hide it.
    test, truth : str, optional
        A file of test rows with right labels; a file (id, label) with the right labels of `noisy`. Scoring only.
    id, label, text : str, optional
        Column names. Without `id`, a column called ``id`` is used, else the row number.
    features : tuple of str
        Numeric columns; empty means every other numeric column.
    noise : str, optional
        A noise model laid over the labels of `noisy`, which are then taken as right; such as ``"flip:0.4"``.
    data_dir : str, optional
        Folder of the official files of built-in sets.
    heldout_fraction : float in [0, 0.5]
        Share of the trusted rows that are only watched, never trained on.
    """

    noisy: str = ""
    trusted: str | None = None
    n_trusted: int | None = None
    pairs: bool = False
    test: str | None = None
    truth: str | None = None
    id: str | None = None
    label: str = "label"
    text: str | None = None
    features: tuple[str, ...] = ()
    noise: str | None = None
    data_dir: str | None = None
    heldout_fraction: float = 0.1

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file."""
        _require(self.noisy != "", "no noisy set: give a file or a built-in name")
        _require(
            self.trusted is None or self.n_trusted is None,
            "--trusted and --n-trusted exclude each other: give the file of checked rows, or how many to draw",
        )
        _require(
            self.n_trusted is None or self.n_trusted >= 1,
            f"--n-trusted is {self.n_trusted}: without trusted rows nothing can be corrected; give at least 2",
        )
        _require(self.text is None or not self.features, "--text and --features exclude each other: give one")
        _require(0 <= self.heldout_fraction <= 0.5, f"heldout_fraction is {self.heldout_fraction}: must be in [0, 0.5]")


@dataclass(frozen=True)
class ModelConfig:
    """The main model: a name of `ebomlc.models.MODELS` or ``auto``, and the shape of an MLP."""

    name: str = "auto"
    hidden: tuple[int, ...] = (128,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(all(width >= 1 for width in self.hidden), f"model.hidden is {self.hidden}: widths must be >= 1")
        _require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}: must be in [0, 1)")


@dataclass(frozen=True)
class MethodConfig:
    """The method by name, and its settings as the registry understands them."""

    name: str = "ebomlc"
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
    lr_floor : float in [0, 1]
        The schedule ends at ``lr_floor * lr``; the gap of EBOMLC vanishes with the rate, so it must not reach zero.
    schedule : {"cosine", "step", "constant"}
        ``step`` divides the rate by ten at 2/3 and 5/6 of the run (the papers' 80 and 100 of 120 epochs).
    joint_forward : bool
        One forward for noisy and trusted training rows (shared batch statistics) instead of two.
    device : {"auto", "cpu", "cuda"}
        ``auto`` takes a GPU where there is one.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 for convolutional models where the processor has it and the gap's direction survives.
    augment : bool, optional
        Random crop and flip; by default on for CIFAR images only.
    """

    epochs: int | None = None
    batch_size: int = 100
    trusted_batch_size: int = 100
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    lr_floor: float = 0.01
    schedule: str = "cosine"
    joint_forward: bool = False
    device: str = "auto"
    precision: str = "auto"
    augment: bool | None = None

    def __post_init__(self) -> None:
        """Check ranges and names."""
        _require(self.epochs is None or self.epochs >= 1, f"--epochs is {self.epochs}: at least one epoch is needed")
        _require(self.batch_size >= 2, f"training.batch_size is {self.batch_size}: must be at least 2")
        _require(self.trusted_batch_size >= 2, "training.trusted_batch_size must be at least 2, one row for each half")
        _require(self.lr > 0, f"training.lr is {self.lr}: must be positive")
        _require(0 <= self.lr_floor <= 1, f"training.lr_floor is {self.lr_floor}: must be in [0, 1]")
        for name, value, known in (
            ("optimizer", self.optimizer, ("sgd", "adamw")),
            ("schedule", self.schedule, ("cosine", "step", "constant")),
            ("device", self.device, ("auto", "cpu", "cuda")),
            ("precision", self.precision, ("auto", "float32", "bfloat16")),
        ):
            if value not in known:
                raise unknown_name(name, value, known)


AUTO_STEPS = 4000
AUTO_EPOCHS = (15, 120)


def automatic_epochs(steps_per_epoch: int) -> int:
    """Epochs that give about `AUTO_STEPS` optimizer steps, within `AUTO_EPOCHS`."""
    low, high = AUTO_EPOCHS
    return min(max(round(AUTO_STEPS / steps_per_epoch), low), high)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
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
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise unknown_name(f"key in {where}", key, known)
    return kind(**{key: _convert(value, hints[key], f"{where} {key}") for key, value in values.items()})


def _convert(value: Any, hint: Any, where: str) -> Any:  # noqa: ANN401 - any TOML value
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, get_args(hint)[0], where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = get_origin(hint) or hint
    if plain in (int, float, str, bool) and type(value) is not plain:
        raise InputError(f"{where} is {value!r}: must be of type {plain.__name__}")
    return value


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
    """The tables of a configuration file, not yet checked against the dataclasses.

    Raises
    ------
    InputError
        Where the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
