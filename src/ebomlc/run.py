"""The whole job: from a configuration to a run folder with a classifier and a table of suggested labels."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ebomlc.config import RunConfig, TrainingConfig, build, merge_options, read_toml, to_toml
from ebomlc.data.columns import describe_inputs
from ebomlc.data.documents import read_document
from ebomlc.data.pool import Pool
from ebomlc.data.preprocessing import Preprocessing, save_preprocessing
from ebomlc.data.readers import object_name
from ebomlc.data.splits import split_hash
from ebomlc.environment import commit, peak_memory_mb, versions
from ebomlc.errors import DataWarning, InputError, listed
from ebomlc.findings import REPORT, write_report
from ebomlc.fingerprint import agree, check_asked, essentials, flatten
from ebomlc.judgement import judge
from ebomlc.labels.health import Symptom, find_symptoms, unseen_error
from ebomlc.labels.scores import accuracy, balanced_accuracy, class_figures, label_accuracies
from ebomlc.labels.trust import estimate_noise
from ebomlc.preparation import Given, Job, Say, prepare
from ebomlc.records import IntArray, LabelTable
from ebomlc.run_folder import (
    BEGUN,
    CHECKPOINT,
    CONFIG,
    ENCODER,
    EVENTS,
    LABELS,
    MAIN,
    METHOD,
    METRICS,
    SPLIT,
    SUMMARY,
    TRUST,
    UNFINISHED,
    check_folder,
    is_finished,
    is_unfinished,
    new_run,
    write_checksums,
)
from ebomlc.seeding import only_repeatable
from ebomlc.training import engine
from ebomlc.training.checkpoint import FileCheckpoints
from ebomlc.training.device import suitable_threads
from ebomlc.training.distributed import Ranks, check_equal, join
from ebomlc.training.engine import Training
from ebomlc.training.estimate import estimate_training
from ebomlc.training.states import save_state
from ebomlc.training.trackers import CsvTracker, NullTracker, SeveralTrackers, TensorBoardTracker, Tracker

TRUSTED_TWICE = 0.1
"""From this share of the trusted rows on, their being among the noisy ones under another id is no accident."""


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
    failure : str or None
        Why the training counts as failed, in which case the command line ends with exit code 3; None where it does not.
    """

    folder: Path
    summary: dict[str, Any]
    labels: LabelTable
    failure: str | None = None


def fit(
    noisy: Any = "",  # noqa: ANN401 - a name or any Python object that holds rows
    *,
    trusted: Any = None,  # noqa: ANN401
    checked: str | None = None,
    add_reviewed: str | Path | Sequence[str | Path] = (),
    n_trusted: int | None = None,
    n_noisy: int | None = None,
    pairs: bool | None = None,
    test: Any = None,  # noqa: ANN401
    truth: Any = None,  # noqa: ANN401
    id: str | None = None,
    label: str | None = None,
    text: str | Sequence[str] = (),
    features: Sequence[str] = (),
    image: str | None = None,
    image_size: int | None = None,
    on_bad_input: str | None = None,
    normalise_labels: bool | None = None,
    allow_overlap: bool | None = None,
    noise: str | None = None,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    encoder: str | None = None,
    model: str | nn.Module | None = None,
    head: str | None = None,
    balance: bool | None = None,
    precision: float | None = None,
    folds: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
    deterministic: bool | None = None,
    on_failure: str | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    config: str | Path | None = None,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    say: Say | None = None,
) -> Run:
    """Train a classifier on noisy and trusted rows and suggest a label for every row.

    Every argument is the command line's option of the same name; what is None comes from `config`, else from the
    defaults of `ebomlc.config`.

    Parameters
    ----------
    noisy : str, Path or rows
        The large set: a table (CSV, TSV, JSON Lines, Parquet), a folder with a sub-folder of images for each class, an
        ``.npy`` file of embeddings beside a table of the same name, ``hf:NAME``, or ``digits``, ``fashion-mnist``,
        ``cifar10``, ``cifar100``. Or a DataFrame, ``(inputs, labels)``, `ebomlc.Arrays`, a torch or a Hugging Face
        dataset.
    trusted : str, Path or rows, optional
        Checked rows, whose label column holds the right label and ``given_label``, if there is such a column, the label
        before the check. Needs no inputs where every id is one of `noisy`.
    checked : str, optional
        Instead: the column of `noisy` that holds the right label where somebody looked.
    add_reviewed : str, Path or sequence of them, optional
        Run folders on the same set in which people decided on rows (``ebomlc review``), which are trusted rows then.
    n_trusted : int, optional
        Instead: draw this many rows of `noisy`, whose right labels are known.
    n_noisy : int, optional
        Keep only so many of the noisy rows, drawn at random.
    pairs : bool, optional
        The drawn rows keep the label they were given.
    test, truth : str, Path or rows, optional
        Test rows with right labels; right labels (id, label) of `noisy`. For scoring only.
    id, label, image : str, optional
        Columns; `image` holds paths.
    text, features : str or sequence of str
        Columns of texts; columns of numbers and categories. Empty means: see for yourself.
    image_size : int, optional
        Pixels a side that images are brought to.
    on_bad_input : {"error", "skip"}, optional
        What to do about an image that cannot be read.
    normalise_labels : bool, optional
        Labels that differ only by case or blanks are one class, or stay apart.
    allow_overlap : bool, optional
        Score test rows although they also occur in the training rows.
    noise : str, optional
        Noise model to lay over the labels, such as ``"flip:0.4"``.
    method : str, optional
        See ``ebomlc fit --help``.
    settings : mapping, optional
        Hyper-parameters of the method, by name.
    encoder : str, optional
        What turns inputs into what the model is fed; see `ebomlc.config.EncoderConfig`.
    model : str or nn.Module, optional
        A name, or a network of your own, which is copied and keeps the weights it has. Images reach it as floats,
        standardised per channel.
    head : str, optional
        Name of your network's last linear layer, where it is not the one that runs last.
    balance : bool, optional
        Count every class alike.
    precision : float, optional
        Share of the labels called wrong that shall be wrong indeed.
    folds : int, optional
        Short trainings that are each not shown a part of the checked rows, which calibrate the output; 0 for none.
    epochs, seed : int, optional
        Passes over the noisy set; seed of everything drawn.
    device : str, optional
        ``auto``, ``cpu`` or ``cuda``.
    deterministic : bool, optional
        On a GPU, take only operations that repeat their own bits.
    on_failure : {"stop", "keep"}, optional
        Whether a training that diverged, or shows signs of having gone wrong, counts as failed (`Run.failure`).
    data_dir, cache_dir : str or Path, optional
        Folder of official files; folder for decoded images and features.
    config : str or Path, optional
        A TOML file such as the ``config.toml`` of an earlier run.
    out : str or Path
        The run folder to write.
    overwrite : bool
        Replace a run that is there, finished or not.
    resume : bool
        Continue the run that is there from its last checkpoint, to the same result as if it had never stopped; start
        where there is none. A finished run is left as it is and given back.
    say : callable, optional
        Takes lines that say what is being done; also switches the progress bar on.

    Returns
    -------
    Run
        Folder, summary and label table.

    Raises
    ------
    InputError
        Where anything given cannot be used; nothing has been written then. Where the folder can no longer be written
        to; what was there before is there still.
    TrainingDivergedError
        Where the loss stopped being a number in the first epoch.
    """
    tables = read_toml(Path(config)) if config is not None else {}
    sets = {"noisy": noisy, "trusted": trusted, "test": test, "truth": truth}
    options = {
        "data": {
            **{name: _name(data) for name, data in sets.items()},
            "checked": checked,
            "add_reviewed": _folders(add_reviewed),
            "n_trusted": n_trusted,
            "n_noisy": n_noisy,
            "pairs": pairs,
            "id": id,
            "label": label,
            "text": _columns(text),
            "features": _columns(features),
            "image": image,
            "image_size": image_size,
            "on_bad_input": on_bad_input,
            "normalise_labels": normalise_labels,
            "allow_overlap": allow_overlap,
            "noise": noise,
            "data_dir": _name(data_dir),
            "cache_dir": _name(cache_dir),
        },
        "encoder": {"name": encoder},
        "method": {"name": method, "settings": settings},
        "model": {"name": model if isinstance(model, str) else None, "head": head},
        "training": {
            "epochs": epochs,
            "device": device,
            "deterministic": deterministic,
            "balance": balance,
            "on_failure": on_failure,
        },
        "trust": {"precision": precision, "folds": folds},
        "seed": seed,
    }
    given = Given(
        {name: data for name, data in sets.items() if data is not None and not isinstance(data, str | Path)},
        None if model is None or isinstance(model, str) else model,
    )
    chosen = build(RunConfig, merge_options(tables, options), "the configuration")
    return run(chosen, Path(out), given=given, overwrite=overwrite, resume=resume, say=say)


def _name(data: Any) -> str | None:  # noqa: ANN401
    if data is None or isinstance(data, str | Path):
        return str(data) if data else None
    return object_name(data)


def _folders(runs: str | Path | Sequence[str | Path]) -> tuple[str, ...] | None:
    return tuple(map(str, (runs,) if isinstance(runs, str | Path) else runs)) or None


def _columns(names: str | Sequence[str]) -> tuple[str, ...] | None:
    return ((names,) if isinstance(names, str) else tuple(names)) or None


def run(
    config: RunConfig,
    out: Path,
    *,
    given: Given | None = None,
    overwrite: bool = False,
    resume: bool = False,
    say: Say | None = None,
) -> Run:
    """Do the whole job of a configuration; see `fit`. Processes that ``torchrun`` started do it together."""
    started = time.monotonic()
    with (
        join() as ranks,
        torch.random.fork_rng(),
        _speaking_once(ranks),
        only_repeatable(config.training.deterministic),
    ):
        heard = say if ranks.rank == 0 or say is None else _say_nothing
        flags = {"--out": str(out), "--overwrite": overwrite, "--resume": resume, "a function say": say is not None}
        check_equal(ranks, {**flatten(config), **flags})
        is_done = ranks.agree(lambda: ranks.rank == 0 and _is_done(config, out, overwrite, resume))
        if ranks.any(is_done):
            if heard is not None:
                heard(f"{out} holds this run, finished; it is left as it is")
            finished = load_run(out)
        else:
            finished = _run(config, given or Given(), out, started, overwrite, resume, heard, ranks)
    return replace(finished, failure=_find_failure(finished.summary, config.training.on_failure))


def _find_failure(summary: Mapping[str, Any], on_failure: str | None) -> str | None:
    """Why a training counts as failed, if it does; runs of earlier versions have no symptoms."""
    signs = [symptom["kind"] for symptom in summary.get("symptoms", ())]
    if on_failure == "keep":
        return None
    if summary["diverged"] is not None:
        return "the training diverged"
    return f"the training has symptoms: {listed(signs)}" if on_failure == "stop" and signs else None


@contextmanager
def _speaking_once(ranks: Ranks) -> Iterator[None]:
    """Inside, what all ranks would warn of is said by the first one alone."""
    with warnings.catch_warnings():
        if ranks.rank:
            warnings.simplefilter("ignore", DataWarning)
        yield


def _say_nothing(_: str) -> None:
    pass


def _is_done(config: RunConfig, out: Path, overwrite: bool, resume: bool) -> bool:
    """Whether the folder holds this very run, finished; raises InputError where it cannot take it."""
    check_folder(out, overwrite=overwrite, resume=resume)
    if resume and is_unfinished(out):
        _check_asked(config, out / UNFINISHED / CONFIG, out)
    elif resume and is_finished(out):
        _check_asked(config, out / CONFIG, out)
        return True
    return False


def load_run(folder: Path) -> Run:
    """A finished run, read back.

    Raises
    ------
    InputError
        Where the folder holds none, or a damaged one.
    """
    try:
        summary = read_document(folder / SUMMARY)
        frame = pd.read_parquet(folder / LABELS)
        labels = LabelTable(**{column.name: frame[column.name].to_numpy() for column in fields(LabelTable)})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: no run can be read from it: {error}; make it anew with --overwrite") from error
    return Run(folder, summary, labels)


def _check_asked(config: RunConfig, stored: Path, out: Path) -> None:
    if stored.is_file():
        check_asked(config, read_toml(stored), out)


def _prepare(config: RunConfig, given: Given, say: Say | None, ranks: Ranks) -> Job:
    """Prepare the job on every rank; on each machine one does it first, and fills the caches for the others."""
    first = ranks.agree(lambda: prepare(config, given, say, ranks) if ranks.on_machine == 0 else None)
    job = ranks.agree(lambda: prepare(config, given, say, ranks) if first is None else first)
    if ranks.size > 1:
        check_equal(ranks, essentials(job))
    return job


def _run(
    config: RunConfig,
    given: Given,
    out: Path,
    started: float,
    overwrite: bool,
    resume: bool,
    say: Say | None,
    ranks: Ranks,
) -> Run:
    job = _prepare(config, given, say, ranks)
    settings = job.config.training
    if say is not None:
        say(_announcement(job))
        with suitable_threads(job.method.model):
            say(str(estimate_training(job.create, job.loader, settings, ranks)))
    with ExitStack() as stack:
        folder = ranks.agree(lambda: _begin(stack, job, out, overwrite, resume) if ranks.rank == 0 else None)
        with suitable_threads(job.method.model):
            training = engine.fit(
                job.method,
                job.loader,
                job.heldout,
                settings,
                NullTracker() if folder is None else _tracker(settings.tracker, folder),
                None if folder is None else _checkpoints(folder, settings),
                ranks=ranks,
                quiet=say is None or ranks.rank > 0,
            )
            chosen, last = _predictions(job, training)
            judged = judge(job, say)
            symptoms = _look_for_symptoms(job, training, judged.labels)
        pool, labels = job.pool, judged.labels
        truth = np.array(pool.class_names, dtype=object)[pool.truth[pool.scored]]
        summary = {
            **_describe(job, training),
            **_test_scores(job, chosen, last),
            **label_accuracies(labels, pool.scored, truth),
            "trust": judged.verdict.to_summary(),
            "symptoms": [asdict(symptom) for symptom in symptoms],
            "seconds": round(training.earlier_seconds + time.monotonic() - started, 2),
            "peak_memory_mb": peak_memory_mb(),
            "classes": _class_figures(job, labels, chosen),
        }
        if folder is None:
            return Run(out, summary, labels)
        labels.to_frame().to_parquet(folder / LABELS, index=False)
        trust = json.dumps(judged.verdict.to_dict(), indent=2, allow_nan=False)
        (folder / TRUST).write_text(trust + "\n", encoding="utf-8")
        save_state(folder / MAIN, job.method.model.state_dict())
        save_state(folder / METHOD, job.method.state_dict())
        (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        write_checksums(folder)
    if training.divergence is not None:
        warnings.warn(f"{training.divergence}; the last good epoch was kept", DataWarning, stacklevel=3)
    for symptom in symptoms:
        warnings.warn(symptom.message, DataWarning, stacklevel=3)
    _add_report(out, pool)
    return Run(out, summary, labels)


def _tracker(name: str, folder: Path) -> Tracker:
    """What takes the figures of each epoch: always the CSV file, and what was asked for beside it."""
    table = CsvTracker(folder / METRICS)
    return SeveralTrackers(table, TensorBoardTracker(folder / EVENTS)) if name == "tensorboard" else table


def _look_for_symptoms(job: Job, training: Training, labels: LabelTable) -> list[Symptom]:
    """What went wrong although the training ended."""
    pool, rows = job.pool, job.pool.split.trusted
    noise, encoded = _noise_estimate(job), np.asarray(job.encoded[rows])
    error = unseen_error(encoded, pool.right[rows], job.config.seed) if encoded.ndim == 2 else None
    contradicted = _predict(job, torch.as_tensor(encoded)) != pool.right[rows]
    by_id = dict(zip((str(name) for name in pool.ids[rows]), contradicted.tolist(), strict=True))
    return find_symptoms(labels, training.rows, None if noise is None else noise["low"], error, by_id)


def _begin(stack: ExitStack, job: Job, out: Path, overwrite: bool, resume: bool) -> Path:
    """The folder to write to until the stack is left, with all that is known before the training."""
    folder = stack.enter_context(new_run(out, overwrite=overwrite, resume=resume))
    agree(folder / BEGUN, job, out)
    _save_inputs(job, folder)
    return folder


def _checkpoints(folder: Path, settings: TrainingConfig) -> FileCheckpoints:
    return FileCheckpoints(folder / CHECKPOINT, settings.checkpoint_minutes, settings.checkpoint_steps)


def _add_report(out: Path, pool: Pool) -> None:
    """Write the page once the run is whole, so that whatever is wrong with it costs no training."""
    try:
        write_report(out, pool=pool)
    except InputError as error:
        warnings.warn(f"no {REPORT}: {error}", DataWarning, stacklevel=3)


def _count(n: int | None, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _announcement(job: Job) -> str:
    """What was found and what was decided, and why, before the training begins."""
    pool, config, split = job.pool, job.config, job.pool.split
    training = config.training
    lines = [
        f"{len(split.noisy):,} noisy rows, {len(split.trusted):,} trusted rows that train, "
        f"{len(split.heldout):,} that are only watched; {pool.n_classes:,} classes",
        _noise_line(job),
        f"inputs: {describe_inputs(pool.inputs)}",
        f"encoder {config.encoder.name}: {job.reasons['encoder']}",
        f"model {config.model.name}: {job.reasons['model']}",
        *_ranks_line(job),
        f"method {config.method.name}, {_count(training.epochs, 'epoch')} of {_count(len(job.loader), 'step')} on "
        f"{training.device}, {training.precision} ({job.reasons['precision']}), weight decay {training.weight_decay:g}",
    ]
    if training.balance:
        lines.append(f"every class counts alike ({job.reasons['balance']}); --no-balance counts every row alike")
    return "\n".join([*lines, *_overlap_lines(job)])


def _overlap_lines(job: Job) -> list[str]:
    """What is to be known of rows that have the same content."""
    overlap, test = job.pool.overlap, job.pool.test
    lines = []
    if overlap.within and overlap.identifying:
        lines.append(
            f"{overlap.within:,} rows have the same content as another, {overlap.disagreeing:,} of them under "
            f"different labels; {overlap.trusted:,} trusted rows have the content of a noisy one under another id"
        )
    if overlap.trusted > TRUSTED_TWICE * len(job.pool.checked) and overlap.identifying:
        lines.append("if those are the same things, give them the same ids, for they count twice now")
    if overlap.test and test is not None:
        lines.append(f"{overlap.test:,} of the {len(test.labels):,} test rows also train, by content")
    return lines


def _ranks_line(job: Job) -> list[str]:
    """Who shares the work, and what of a batch cannot be shared evenly."""
    size, loader = job.ranks.size, job.loader
    if size == 1:
        return []
    rows = f"{loader.batch_size} noisy and {loader.trusted_batch_size} trusted rows"
    return [f"{size} processes share each batch of {rows}"]


def _noise_line(job: Job) -> str:
    noise, estimate = job.pool.measured_noise, _noise_estimate(job)
    if noise is not None:
        doubt = ""
        if estimate is not None and not estimate["low"] <= noise <= estimate["high"]:
            doubt = (
                f"; the {estimate['n']} checked rows say {estimate['low']:.1%} to {estimate['high']:.1%}: "
                f"are the right labels right?"
            )
        return f"measured noise: {noise:.1%} of the given labels are wrong{doubt}"
    if estimate is None:
        return "noise: not known, for no trusted row carries the label it was given"
    sure = "" if estimate["random"] else ", if they were picked at random"
    return (
        f"noise: {estimate['estimate']:.1%} of the given labels are wrong, {estimate['low']:.1%} to "
        f"{estimate['high']:.1%} with 95 % confidence (from {estimate['n']} checked rows{sure})"
    )


def _noise_estimate(job: Job) -> dict[str, Any] | None:
    """What the checked rows say of the noise rate, for the summary."""
    pool = job.pool
    found = estimate_noise(pool.given, pool.right, pool.provenance, pool.weights, pool.stratum_sizes)
    if found is None:
        return None
    return {"n": found.n, **asdict(found.interval), "random": found.is_random, "stratified": found.is_stratified}


def _save_inputs(job: Job, folder: Path) -> None:
    """What is known before the training: configuration, split and encoder."""
    (folder / CONFIG).write_text(to_toml(job.config), encoding="utf-8")
    pool, split = job.pool, job.pool.split
    provenance = np.array([reason or "" for reason in pool.provenance], dtype=str)
    np.savez(
        folder / SPLIT,
        ids=pool.ids.astype(str),
        noisy=split.noisy,
        trusted=split.trusted,
        heldout=split.heldout,
        provenance=provenance,
        sampling_weight=pool.weights,
    )
    stored = Preprocessing(job.encoder, pool.inputs, pool.class_names, pool.spelling)
    save_preprocessing(stored, folder / ENCODER)


def _predictions(job: Job, training: Training) -> tuple[IntArray | None, IntArray | None]:
    """Predicted classes of the test rows after the chosen and after the last epoch; leaves the method at the chosen."""
    engine.restore(job.method, training.chosen)
    test = job.pool.test
    if test is None:
        return None, None
    encoded = torch.as_tensor(job.encoder.encode(test.inputs))
    chosen = last = _predict(job, encoded)
    if training.last is not training.chosen:
        engine.restore(job.method, training.last)
        last = _predict(job, encoded)
        engine.restore(job.method, training.chosen)
    return chosen, last


def _predict(job: Job, encoded: torch.Tensor) -> IntArray:
    """Predicted classes of encoded rows, a batch of which at a time is put on the device."""
    device = job.heldout.inputs.device
    batches = encoded.split(engine.EVALUATION_BATCH)
    return torch.cat([engine.predict(job.method, batch.to(device)).argmax(1).cpu() for batch in batches]).numpy()


def _test_scores(job: Job, chosen: IntArray | None, last: IntArray | None) -> dict[str, Any]:
    test = job.pool.test
    if test is None or chosen is None or last is None:
        return {
            "test_accuracy": None,
            "test_accuracy_last": None,
            "test_balanced_accuracy": None,
            "n_test": 0,
            "n_test_overlap": 0,
        }
    return {
        "test_accuracy": accuracy(chosen, test.labels),
        "test_accuracy_last": accuracy(last, test.labels),
        "test_balanced_accuracy": balanced_accuracy(chosen, test.labels),
        "n_test": len(test.labels),
        "n_test_overlap": job.pool.overlap.test,
    }


def _class_figures(job: Job, labels: LabelTable, predicted: IntArray | None) -> list[dict[str, Any]]:
    pool = job.pool
    test = None if pool.test is None else pool.test.labels
    return class_figures(labels, pool.class_names, pool.scored, pool.truth, test, predicted)


def _describe(job: Job, training: Training) -> dict[str, Any]:
    pool, config = job.pool, job.config
    split = pool.split
    return {
        "method": config.method.name,
        "encoder": config.encoder.name,
        "model": config.model.name,
        "seed": config.seed,
        "commit": commit(),
        "versions": versions(),
        "data": config.data.noisy,
        "noise": config.data.noise,
        "n_noisy": len(split.noisy),
        "n_trusted": len(split.trusted) + len(split.heldout),
        "n_heldout": len(split.heldout),
        "n_classes": pool.n_classes,
        "split_sha256": split_hash(split),
        "measured_noise": pool.measured_noise,
        "noise_estimate": _noise_estimate(job),
        "balance": config.training.balance,
        "overlap": asdict(pool.overlap),
        "skipped": [{"name": name, "reason": reason} for name, reason in pool.skipped],
        "epochs": training.epochs,
        "steps": training.steps,
        "training_seconds": round(training.seconds, 3),
        "resumed_at": training.resumed_at,
        "chosen_epoch": training.chosen.epoch,
        "diverged": None if training.divergence is None else str(training.divergence),
        "device": str(job.heldout.inputs.device),
        "precision": job.precision.name,
        "heldout_accuracy": training.chosen.heldout_accuracy,
        "heldout_accuracy_last": training.last.heldout_accuracy,
    }
