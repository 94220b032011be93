"""The whole job: from a configuration to a run folder with a classifier and a table of suggested labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ebomlc.config import (
    DataConfig,
    MethodConfig,
    RunConfig,
    TrainingConfig,
    automatic_epochs,
    build,
    merge_options,
    read_toml,
    to_dict,
    to_toml,
)
from ebomlc.data.augment import random_crop_flip
from ebomlc.data.encoders import Encoder, ImageEncoder, fit_encoder, save_encoder
from ebomlc.data.loader import PairedLoader
from ebomlc.data.pool import Pool, load_pool
from ebomlc.data.readers import BUILT_IN
from ebomlc.data.splits import split_hash
from ebomlc.environment import commit, peak_memory_mb, versions
from ebomlc.errors import InputError
from ebomlc.labels.correct import correct
from ebomlc.labels.scores import accuracy, balanced_accuracy, label_accuracies
from ebomlc.methods import Entry, Method, Setup, find_method
from ebomlc.models import InputShape, MainModel, build_model, choose_model
from ebomlc.records import Batch, IntArray, LabelTable
from ebomlc.run_folder import CONFIG, ENCODER, LABELS, MAIN, METHOD, METRICS, SPLIT, SUMMARY, check_folder, new_run
from ebomlc.seeding import seed_global
from ebomlc.training import engine
from ebomlc.training.decay import choose_weight_decay
from ebomlc.training.device import Precision, choose_device, choose_precision, make_optimizer, place, suitable_threads
from ebomlc.training.engine import Training
from ebomlc.training.states import save_state
from ebomlc.training.trackers import CsvTracker

Say = Callable[[str], None]

CROP_PADDING = 4
IMAGE_WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder : Path
        Everything that was written; see the README.
    summary : dict
        What ``summary.json`` holds.
    labels : LabelTable
        What ``labels.parquet`` holds.
    """

    folder: Path
    summary: dict[str, Any]
    labels: LabelTable


def fit(
    noisy: str | Path = "",
    *,
    trusted: str | Path | None = None,
    n_trusted: int | None = None,
    pairs: bool | None = None,
    test: str | Path | None = None,
    truth: str | Path | None = None,
    id: str | None = None,
    label: str | None = None,
    text: str | None = None,
    features: Sequence[str] = (),
    noise: str | None = None,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    model: str | None = None,
    epochs: int | None = None,
    device: str | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    config: str | Path | None = None,
    out: str | Path,
    overwrite: bool = False,
    say: Say | None = None,
) -> Run:
    """Train a classifier on noisy and trusted rows and suggest a label for every row.

    Every argument is the command line's option of the same name; what is None comes from `config`, else from the
    defaults of `ebomlc.config`.

    Parameters
    ----------
    noisy : str or Path
        The large set: a CSV or TSV file, or ``digits``, ``fashion-mnist``, ``cifar10``.
    trusted : str or Path, optional
        A file of checked rows, whose label column holds the right label and ``given_label``, if there is such a
        column, the label before the check.
    n_trusted : int, optional
        Instead: draw this many rows of `noisy`, whose right labels are known.
    pairs : bool, optional
        The drawn rows keep the label they were given.
    test, truth : str or Path, optional
        Test rows with right labels; right labels (id, label) of `noisy`. For scoring only.
    id, label, text : str, optional
        Columns.
    features : sequence of str
        Numeric columns; empty means all.
    noise : str, optional
        Noise model to lay over the labels, such as ``"flip:0.4"``.
    method, model : str, optional
        Names; see ``ebomlc fit --help``.
    settings : mapping, optional
        Hyper-parameters of the method, by name.
    epochs, seed : int, optional
        Passes over the noisy set; seed of everything drawn.
    device : str, optional
        ``auto``, ``cpu`` or ``cuda``.
    data_dir : str or Path, optional
        Folder of official files.
    config : str or Path, optional
        A TOML file such as the ``config.toml`` of an earlier run.
    out : str or Path
        The run folder to write.
    overwrite : bool
        Replace a run that is there.
    say : callable, optional
        Takes lines that say what is being done; also switches the progress bar on.

    Returns
    -------
    Run
        Folder, summary and label table.

    Raises
    ------
    InputError
        Where anything given cannot be used; nothing has been written then.
    TrainingDivergedError
        Where the loss stopped being a number in the first epoch.
    """
    if not isinstance(noisy, str | Path):
        raise InputError(f"noisy is a {type(noisy).__name__}: give the name of a file or of a built-in set")
    tables = read_toml(Path(config)) if config is not None else {}
    options = {
        "data": {
            "noisy": str(noisy) or None,
            "trusted": _text(trusted),
            "n_trusted": n_trusted,
            "pairs": pairs,
            "test": _text(test),
            "truth": _text(truth),
            "id": id,
            "label": label,
            "text": text,
            "features": tuple(features) or None,
            "noise": noise,
            "data_dir": _text(data_dir),
        },
        "method": {"name": method, "settings": settings},
        "model": {"name": model},
        "training": {"epochs": epochs, "device": device},
        "seed": seed,
    }
    merged = merge_options(tables, options)
    return run(build(RunConfig, merged, "the configuration"), Path(out), overwrite=overwrite, say=say)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def run(config: RunConfig, out: Path, *, overwrite: bool = False, say: Say | None = None) -> Run:
    """Do the whole job of a configuration; see `fit`."""
    started = time.monotonic()
    check_folder(out, overwrite)
    with torch.random.fork_rng():
        return _run(config, out, started, say)


def _run(config: RunConfig, out: Path, started: float, say: Say | None) -> Run:
    job = _prepare(config, say or _silent)
    with new_run(out) as folder:
        _save_inputs(job, folder)
        with suitable_threads(job.method.model):
            training = engine.fit(
                job.method,
                job.loader,
                job.heldout,
                job.config.training,
                CsvTracker(folder / METRICS),
                quiet=say is None,
            )
            scores = _test_scores(job, training)
            pool = job.pool
            labels = correct(job.method, job.encoded, pool.given, pool.right, pool.ids, pool.class_names)
        truth = np.array(pool.class_names, dtype=object)[pool.truth[pool.scored]]
        summary = {
            **_describe(job, training),
            **scores,
            **label_accuracies(labels, pool.scored, truth),
            "seconds": round(time.monotonic() - started, 2),
            "peak_memory_mb": peak_memory_mb(),
        }
        labels.to_frame().to_parquet(folder / LABELS, index=False)
        save_state(folder / MAIN, job.method.model.state_dict())
        save_state(folder / METHOD, job.method.state_dict())
        (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return Run(out, summary, labels)


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class _Job:
    """Everything a run needs, made before anything is written."""

    config: RunConfig
    pool: Pool
    encoder: Encoder
    encoded: npt.NDArray[Any]
    precision: Precision
    method: Method
    loader: PairedLoader
    heldout: Batch


def _prepare(config: RunConfig, say: Say) -> _Job:
    entry = find_method(config.method.name)
    settings = entry.parse_settings(config.method.settings)
    device = choose_device(config.training.device)
    pool = load_pool(config.data, config.seed)
    if entry.needs_truth and len(pool.scored) < len(pool.split.noisy):
        raise InputError(f"method {entry.name!r} trains on the right labels of all noisy rows: give --truth FILE")
    encoder = fit_encoder(pool.inputs)
    encoded = encoder.encode(pool.inputs)
    shape = _input_shape(encoder, encoded)
    model_name = choose_model(config.model.name, shape)

    def make_model() -> MainModel:
        return place(build_model(replace(config.model, name=model_name), shape, pool.n_classes), device)

    if entry.uses_gap:
        torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa lose the gap as bfloat16 does
    seed_global(config.seed)
    loader = _make_loader(config, pool, encoded, device, needs_truth=entry.needs_truth)
    training = _decide_training(config, entry, pool, encoded, len(loader))
    probe = loader.noisy[slice(0, loader.batch_size)]
    precision = choose_precision(training, make_model, probe, uses_gap=entry.uses_gap)
    setup = Setup(make_model, pool.n_classes, make_optimizer(training), precision.autocast, training.joint_forward)
    effective = replace(
        config,
        data=_absolute(config.data),
        model=replace(config.model, name=model_name),
        method=MethodConfig(entry.name, to_dict(settings)),
        training=replace(training, device=device.type, precision=precision.name, augment=loader.augment is not None),
    )
    say(_announcement(effective, pool, precision, device, len(loader)))
    heldout = _rows(pool, encoded, pool.split.heldout, device)
    return _Job(effective, pool, encoder, encoded, precision, entry.create(settings, setup), loader, heldout)


def _absolute(data: DataConfig) -> DataConfig:
    """The same files from whatever folder the configuration is used."""

    def resolve(name: str | None) -> str | None:
        return name if name is None or name in BUILT_IN else str(Path(name).resolve())

    return replace(
        data,
        noisy=resolve(data.noisy) or "",
        trusted=resolve(data.trusted),
        test=resolve(data.test),
        truth=resolve(data.truth),
        data_dir=resolve(data.data_dir),
    )


def _decide_training(
    config: RunConfig, entry: Entry, pool: Pool, encoded: npt.NDArray[Any], steps_per_epoch: int
) -> TrainingConfig:
    """The training section with what was left to the tool filled in."""
    training = config.training
    epochs = training.epochs or automatic_epochs(steps_per_epoch)
    if epochs < entry.min_epochs:
        raise InputError(f"method {entry.name!r} has phases and needs at least {entry.min_epochs} epochs, not {epochs}")
    decay = training.weight_decay
    if decay is None:
        rows = pool.split.trusted
        is_image = pool.inputs.kind == "images"
        decay = IMAGE_WEIGHT_DECAY if is_image else choose_weight_decay(encoded[rows], pool.right[rows], config.seed)
    return replace(training, epochs=epochs, weight_decay=decay)


def _input_shape(encoder: Encoder, encoded: npt.NDArray[Any]) -> InputShape:
    if isinstance(encoder, ImageEncoder):
        return InputShape(encoded.shape[1:], tuple(encoder.mean), tuple(encoder.std))
    return InputShape(encoded.shape[1:])


def _rows(pool: Pool, encoded: npt.NDArray[Any], rows: IntArray, device: torch.device, *, truth: bool = False) -> Batch:
    right = pool.truth if truth else pool.right
    return Batch(
        torch.as_tensor(encoded[rows]).to(device),
        torch.as_tensor(pool.given[rows]).to(device),
        torch.as_tensor(right[rows]).to(device),
        torch.as_tensor(rows).to(device),
    )


def _make_loader(
    config: RunConfig, pool: Pool, encoded: npt.NDArray[Any], device: torch.device, *, needs_truth: bool
) -> PairedLoader:
    is_colour = encoded.ndim == 4 and encoded.shape[1] == 3
    wanted = config.training.augment if config.training.augment is not None else is_colour
    if wanted and encoded.ndim != 4:
        raise InputError("training.augment crops and flips images, but the rows are not images: leave it out")
    return PairedLoader(
        _rows(pool, encoded, pool.split.noisy, device, truth=needs_truth),
        _rows(pool, encoded, pool.split.trusted, device),
        batch_size=config.training.batch_size,
        trusted_batch_size=config.training.trusted_batch_size,
        seed=config.seed,
        augment=(lambda images, generator: random_crop_flip(images, CROP_PADDING, generator)) if wanted else None,
    )


def _count(n: int | None, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _announcement(
    config: RunConfig, pool: Pool, precision: Precision, device: torch.device, steps_per_epoch: int
) -> str:
    split = pool.split
    noise = pool.measured_noise
    return "\n".join(
        [
            f"{len(split.noisy):,} noisy rows, {len(split.trusted):,} trusted rows that train, "
            f"{len(split.heldout):,} that are only watched; {pool.n_classes} classes",
            f"measured noise: {'not known' if noise is None else f'{noise:.1%} of the given labels are wrong'}",
            f"method {config.method.name}, model {config.model.name}, {_count(config.training.epochs, 'epoch')} of "
            f"{_count(steps_per_epoch, 'step')} on {device}, {precision.name} ({precision.reason}), "
            f"weight decay {config.training.weight_decay:g}",
        ]
    )


def _save_inputs(job: _Job, folder: Path) -> None:
    """What is known before the training: configuration, split and encoder."""
    (folder / CONFIG).write_text(to_toml(job.config), encoding="utf-8")
    split = job.pool.split
    ids = job.pool.ids.astype(str)
    np.savez(folder / SPLIT, ids=ids, noisy=split.noisy, trusted=split.trusted, heldout=split.heldout)
    save_encoder(job.encoder, job.pool.inputs.kind, job.pool.class_names, folder / ENCODER)


def _test_scores(job: _Job, training: Training) -> dict[str, float | None]:
    """Scores on the test rows after the last and the chosen epoch; leaves the method at the chosen one."""
    engine.restore(job.method, training.chosen)
    test = job.pool.test
    if test is None:
        return {"test_accuracy": None, "test_accuracy_last": None, "test_balanced_accuracy": None}
    inputs = torch.as_tensor(job.encoder.encode(test.inputs)).to(job.heldout.inputs.device)
    chosen = last = engine.predict(job.method, inputs).argmax(1).cpu().numpy()
    if training.last is not training.chosen:
        engine.restore(job.method, training.last)
        last = engine.predict(job.method, inputs).argmax(1).cpu().numpy()
        engine.restore(job.method, training.chosen)
    return {
        "test_accuracy": accuracy(chosen, test.labels),
        "test_accuracy_last": accuracy(last, test.labels),
        "test_balanced_accuracy": balanced_accuracy(chosen, test.labels),
    }


def _describe(job: _Job, training: Training) -> dict[str, Any]:
    split, config = job.pool.split, job.config
    return {
        "method": config.method.name,
        "model": config.model.name,
        "seed": config.seed,
        "commit": commit(),
        "versions": versions(),
        "data": config.data.noisy,
        "noise": config.data.noise,
        "n_noisy": len(split.noisy),
        "n_trusted": len(split.trusted) + len(split.heldout),
        "n_heldout": len(split.heldout),
        "n_classes": job.pool.n_classes,
        "split_sha256": split_hash(split),
        "measured_noise": job.pool.measured_noise,
        "epochs": training.epochs,
        "steps": training.steps,
        "chosen_epoch": training.chosen.epoch,
        "diverged": None if training.divergence is None else str(training.divergence),
        "device": str(job.heldout.inputs.device),
        "precision": job.precision.name,
        "heldout_accuracy": training.chosen.heldout_accuracy,
        "heldout_accuracy_last": training.last.heldout_accuracy,
    }
