"""Which runs a benchmark consists of: suites of conditions, contenders and seeds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ebomlc.config import DataConfig, MethodConfig, ModelConfig, RunConfig, TrainingConfig, build, to_dict
from ebomlc.data.official import HUMAN_HELP
from ebomlc.data.readers import BUILT_IN
from ebomlc.errors import InputError, unknown_name
from ebomlc.methods import METHODS, find_method

Tuning = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By method: the tables ``settings`` (of the method) and ``training`` that were chosen for it."""

HUMAN = "human:"


@dataclass(frozen=True)
class Condition:
    """What the contenders are compared on.

    Attributes
    ----------
    data, noise, model : str
        As ``ebomlc fit`` takes them; `data` is built in, so that its right labels are known.
    n_trusted : int
        Right labels that a method may use, those that are only watched included.
    n_noisy : int, optional
        Noisy rows; by default all that are not trusted.
    pairs : bool
        The trusted rows carry the label they were given, as real users have them; in the papers they do not.
    """

    data: str
    noise: str
    model: str
    n_trusted: int
    n_noisy: int | None = None
    pairs: bool = False


@dataclass(frozen=True)
class Contender:
    """A method under the name that its rows carry, with the settings that differ from its own defaults."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of a suite."""

    condition: Condition
    contender: Contender
    seed: int

    def __str__(self) -> str:
        condition = self.condition
        size = f"{condition.n_trusted:,} trusted"
        return f"{self.contender.name}, {condition.data} {condition.noise}, {size}, seed {self.seed}"

    def config(self, training: TrainingConfig, tuning: Tuning, data_dir: Path | None) -> RunConfig:
        """What is asked of the run, defaults of the method and the training written out.

        Parameters
        ----------
        training : TrainingConfig
            Of the suite; what was tuned comes first.
        tuning : Tuning
            Settings by method; a contender's own come first.
        data_dir : Path, optional
            Folder of official files.

        Raises
        ------
        InputError
            For a setting that the method or the training does not have.
        """
        condition, contender = self.condition, self.contender
        tuned = tuning.get(contender.method, {})
        settings = {**tuned.get("settings", {}), **contender.settings}
        effective = to_dict(find_method(contender.method).parse_settings(settings))
        return RunConfig(
            data=DataConfig(
                noisy=condition.data,
                noise=condition.noise,
                n_trusted=condition.n_trusted,
                n_noisy=condition.n_noisy,
                pairs=condition.pairs,
                data_dir=None if data_dir is None else str(data_dir.resolve()),
            ),
            model=ModelConfig(name=condition.model),
            method=MethodConfig(contender.method, effective),
            training=build(
                TrainingConfig,
                {**to_dict(training), **tuned.get("training", {})},
                f"[{contender.method}.training] of the tuned configurations",
            ),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Suite:
    """A benchmark: every contender under every condition with every seed.

    Attributes
    ----------
    name, summary : str
        What users write, and one line that says what it is for.
    conditions, contenders, seeds : tuples
        Whose product the cells are.
    training : TrainingConfig
        The same for all but what is tuned. In float32, so that every method computes alike and times compare; only
        desk-cifar, which takes hours, is left to the tool, which runs what takes no gap in bfloat16.
    """

    name: str
    summary: str
    conditions: tuple[Condition, ...]
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    training: TrainingConfig

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All runs, cheapest first; among equals, the first seed of everything first."""
        cells = [
            Cell(condition, contender, seed)
            for seed in self.seeds
            for condition in self.conditions
            for contender in self.contenders
        ]
        return tuple(sorted(cells, key=lambda cell: IMAGE_PASSES.get(cell.contender.method, UNKNOWN_PASSES)))


IMAGE_PASSES: Mapping[str, int] = {
    "trusted-only": 100, "bayes": 100, "finetune": 120, "mlc-head": 170, "ce": 200, "oracle": 200, "gce": 200,
    "glc": 200, "forward": 200, "plus": 200, "mslc": 250, "mlc": 300, "l2rw": 300, "mw-net": 300, "ebomlc": 350,
    "ebomlc-literal": 450, "emlc": 600, "mlc-barrier": 950,
}  # fmt: skip
"""Images that a step of 100 noisy and 100 trusted rows takes through the main model, forward and backward, roughly."""

UNKNOWN_PASSES = 400


# --- the suites -------------------------------------------------------------------------------------------------------


def _by_name(*names: str) -> tuple[Contender, ...]:
    """Contenders with their defaults, and always ``plus``, which the others are compared with."""
    return tuple(Contender(name, name) for name in dict.fromkeys((*names, "plus")))


def _variant(method: str, **settings: Any) -> Contender:  # noqa: ANN401 - values of a settings dataclass
    return Contender(" ".join([method, *(f"{key}={value}" for key, value in settings.items())]), method, settings)


def _fashion(noise: str, n_trusted: int = 1000, *, pairs: bool = False) -> Condition:
    return Condition("fashion-mnist", noise, "cnn-tiny", n_trusted, n_noisy=12_000, pairs=pairs)


HARD, STRUCTURED = "uniform:0.85", "flip:0.3"
"""The two noise models of desk-fashion that the shorter suites keep."""

CORE = ("trusted-only", "ce", "glc", "mlc", "ebomlc", "oracle")
PUBLISHED = (*CORE, "l2rw", "mw-net", "mslc", "mlc-barrier", "ebomlc-literal")

ABLATIONS = (
    _variant("ebomlc"),
    _variant("ebomlc", inner_steps=5),
    _variant("ebomlc", rho=1.0),
    _variant("ebomlc", barrier="joint"),
    _variant("ebomlc", barrier="none"),
    _variant("ebomlc", gap_gradient="constant"),
    *(_variant("ebomlc", rho=rho) for rho in (0.2, 0.35, 0.9)),
    *(_variant("ebomlc", xi=xi) for xi in (0.25, 2.0, 4.0)),
    *(_variant("ebomlc", delta=delta) for delta in (0.1, 1.0, 2.0)),
    _variant("mlc-barrier"),
    _variant("mlc-barrier", gap_gradient="difference"),
)
"""EBOMLC less each ingredient, sweeps about its defaults and what was tuned, and the two forms of the naive barrier."""

PLUS_ABLATIONS = (
    _variant("plus"),
    _variant("plus", cross_fitted=False),
    _variant("plus", mixup=0.0),
    _variant("plus", averaging=0.0),
)
"""Our own method, then less each ingredient."""

FORTY = TrainingConfig(epochs=40, precision="float32")
"""Long enough to memorise 12,000 rows."""

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke",
            "digits with 40 % flipped labels, six methods, under two minutes: does everything work?",
            (Condition("digits", "flip:0.4", "mlp", 100),),
            _by_name("ce", "trusted-only", "glc", "mlc", "ebomlc"),
            (0, 1, 2),
            TrainingConfig(epochs=30, precision="float32"),
        ),
        Suite(
            "desk-fashion",
            "12,000 noisy and 1,000 trusted Fashion-MNIST images, a CNN of three layers, 40 epochs, every method",
            tuple(_fashion(noise) for noise in ("uniform:0.6", HARD, STRUCTURED, "instance:0.4")),
            _by_name(*METHODS),
            (0, 1, 2, 3, 4),
            FORTY,
        ),
        Suite(
            "desk-cifar",
            "12,000 noisy and 1,000 trusted CIFAR-10 images, ResNet-20 with augmentation, 40 epochs",
            tuple(
                Condition("cifar10", noise, "resnet20", 1000, n_noisy=12_000)
                for noise in ("uniform:0.6", "flip:0.3", f"{HUMAN}worse")
            ),
            _by_name(*CORE, "l2rw"),
            (0, 1, 2),
            replace(FORTY, augment=True, precision="auto"),
        ),
        Suite(
            "ablation",
            "EBOMLC less each of its ingredients, and sweeps of rho, xi and delta, on two cells of desk-fashion",
            (_fashion(HARD), _fashion(STRUCTURED)),
            ABLATIONS,
            (0, 1, 2),
            FORTY,
        ),
        Suite(
            "plus-ablation",
            "our own method less each of its ingredients, on three cells of desk-fashion",
            (_fashion(HARD), _fashion(STRUCTURED), _fashion("instance:0.4")),
            PLUS_ABLATIONS,
            (0, 1, 2, 3, 4),
            FORTY,
        ),
        Suite(
            "trusted-size",
            "50 to 2,000 trusted rows on two cells of desk-fashion: how many right labels are enough?",
            tuple(_fashion(noise, n) for n in (50, 100, 200, 500, 1000, 2000) for noise in (HARD, STRUCTURED)),
            _by_name("trusted-only", "ce", "glc", "mlc", "ebomlc"),
            (0, 1, 2),
            FORTY,
        ),
        Suite(
            "pairs",
            "two cells of desk-fashion whose trusted rows carry the label they were given, as real users have them",
            (_fashion(HARD, pairs=True), _fashion(STRUCTURED, pairs=True)),
            _by_name(*CORE, "bayes", "mlc-head"),
            (0, 1, 2, 3, 4),
            FORTY,
        ),
        Suite(
            "paper",
            "CIFAR-10 and CIFAR-100, 1,000 trusted images, ResNet-32, 120 epochs in the papers' steps; for a GPU",
            tuple(
                Condition(data, f"{kind}:{rate}", "resnet32", 1000)
                for data in ("cifar10", "cifar100")
                for kind in ("uniform", "flip")
                for rate in (0.2, 0.4, 0.6, 0.8)
            ),
            _by_name(*PUBLISHED),
            (0, 1, 2),
            TrainingConfig(epochs=120, schedule="step", precision="float32", augment=True),
        ),
    )
}


# --- what is asked for ------------------------------------------------------------------------------------------------


def find_suite(name: str) -> Suite:
    """The suite, or InputError with the nearest name."""
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name]


def choose(
    suite: Suite,
    methods: Sequence[str] | None,
    seeds: Sequence[int] | None,
    data_dir: Path | None,
    tuning: Tuning,
    noises: Sequence[str] | None = None,
) -> Suite:
    """A suite with other contenders or seeds, or less noise, once everything it needs is known to be there.

    Parameters
    ----------
    suite : Suite
        To start from.
    methods : sequence of str, optional
        Names of its contenders, or of any method, which then joins with its defaults.
    seeds : sequence of int, optional
        In place of its own.
    data_dir : Path, optional
        Folder of official files.
    tuning : Tuning
        Settings by method.
    noises : sequence of str, optional
        Only its conditions with this noise.

    Raises
    ------
    InputError
        For everything that is missing, in one message: unknown methods, noise and settings, data that are not there.
    """
    own = {contender.name: contender for contender in suite.contenders}
    names = list(own) if methods is None else list(dict.fromkeys(methods))
    missing = [str(unknown_name("method", name, {*own, *METHODS})) for name in names if name not in {*own, *METHODS}]
    missing += [str(unknown_name("method", name, METHODS)) for name in tuning if name not in METHODS]
    known = list(dict.fromkeys(condition.noise for condition in suite.conditions))
    missing += [str(unknown_name("noise", noise, known)) for noise in noises or () if noise not in known]
    chosen = replace(
        suite,
        conditions=tuple(one for one in suite.conditions if one.noise in (noises or known)) or suite.conditions,
        contenders=tuple(own.get(name) or Contender(name, name) for name in names if name in {*own, *METHODS}),
        seeds=suite.seeds if seeds is None else tuple(dict.fromkeys(seeds)),
    )
    missing += [reason for reason in _refused_settings(chosen, tuning) if reason not in missing]
    missing += _absent_data(chosen, data_dir)
    if missing:
        raise InputError(f"suite {suite.name} cannot run, and nothing was started: {'; '.join(missing)}")
    return chosen


def _refused_settings(suite: Suite, tuning: Tuning) -> list[str]:
    found = []
    for contender in suite.contenders:
        for table in tuning.get(contender.method, {}):
            if table not in ("settings", "training"):
                found.append(f"[{contender.method}]: {unknown_name('table', table, ('settings', 'training'))}")
        try:
            for seed in suite.seeds:
                Cell(suite.conditions[0], contender, seed).config(suite.training, tuning, None)
        except InputError as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def _absent_data(suite: Suite, data_dir: Path | None) -> list[str]:
    missing = []
    for name in dict.fromkeys(condition.data for condition in suite.conditions):
        try:
            human = BUILT_IN[name](data_dir).human
        except InputError as error:
            missing.append(str(error))
            continue
        noises = [condition.noise for condition in suite.conditions if condition.data == name]
        if any(noise.startswith(HUMAN) and noise.removeprefix(HUMAN) not in human for noise in noises):
            missing.append(f"{name} is there, but {HUMAN_HELP}")
    return missing


def read_tuning(path: Path | None) -> Tuning:
    """Tuned configurations from a TOML file with tables such as ``[glc.training]``; nothing without a file.

    Raises
    ------
    InputError
        Where the file cannot be read or is not of that form.
    """
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; is the path after --tuned right?") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}; benchmarks/tune.py writes one") from error
    for method, kinds in tables.items():
        if not isinstance(kinds, dict) or not all(isinstance(values, dict) for values in kinds.values()):
            raise InputError(f"{path}: {method} must hold tables, such as [{method}.settings] and [{method}.training]")
    return tables
