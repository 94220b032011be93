"""What a run is made of, in a form that can be compared: so that a run only goes on as what it began as."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ebomlc.config import RunConfig, to_dict
from ebomlc.data.content import row_digests
from ebomlc.data.splits import split_hash
from ebomlc.environment import versions
from ebomlc.errors import DataWarning, InputError, listed
from ebomlc.preparation import Job
from ebomlc.training.checkpoint import write_durably

WITHOUT_EFFECT = (
    "training.checkpoint_minutes",
    "training.checkpoint_steps",
    "training.on_failure",
    "training.tracker",
    "data.data_dir",
    "data.cache_dir",
)
"""Keys of a configuration on which no result depends."""

LEFT_TO_THE_TOOL = "auto"
PROBED_ROWS = 1000
"""Encoded rows that are compared, spread over all: an encoder that differs differs in most rows."""

Fingerprint = Mapping[str, Any]


def fingerprint(job: Job) -> dict[str, Any]:
    """Everything that a run's result depends on, in hashes where it is large; JSON knows all of it."""
    pool, test = job.pool, job.pool.test
    rows = np.linspace(0, len(pool.ids) - 1, min(PROBED_ROWS, len(pool.ids))).astype(np.int64)
    weights = {**job.method.model.state_dict(), **job.method.state_dict()}
    hashes = {
        "ids": _digest(str(name).encode() for name in pool.ids),
        "class names": _digest(name.encode() for name in pool.class_names),
        "labels": _digest(labels.tobytes() for labels in (pool.given, pool.right, pool.truth)),
        "inputs": _digest([row_digests(pool.inputs).tobytes()]),
        "encoded inputs": _digest([np.ascontiguousarray(job.encoded[rows]).tobytes()]),
        "split": split_hash(pool.split),
        "test rows": None if test is None else _digest([test.labels.tobytes(), row_digests(test.inputs).tobytes()]),
        "first weights": _digest(
            part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            for part in weights.values()
        ),
    }
    batch = {"rows of a step": [job.loader.batch_size, job.loader.trusted_batch_size]}
    return {
        "configuration": {**flatten(job.config), **batch},
        "versions": versions(),
        "hashes": hashes,
        "machine": _machine(job),
    }


def flatten(config: RunConfig) -> dict[str, Any]:
    """Everything in a configuration that a result depends on, by keys with dots between them."""
    return dict(_flat(to_dict(config)))


def essentials(job: Job) -> dict[str, Any]:
    """What processes that do a job together must have in common, by names that users know."""
    found = fingerprint(job)
    hashes = {f"the hash of {name}": value for name, value in found["hashes"].items()}
    return {**found["configuration"], **found["versions"], **hashes}


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _machine(job: Job) -> str:
    """What the last bits of a sum depend on, beside the versions."""
    device = job.heldout.inputs.device
    processes = f", {job.ranks.size} processes" if job.ranks.size > 1 else ""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}{processes}"
    threads = torch.get_num_threads()
    kind = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, {threads} threads{processes}"
    return f"{kind}, rows encoded as {type(job.encoded).__name__}"


def agree(path: Path, job: Job, out: Path) -> None:
    """Note what a run begins with, or make sure that it goes on with what was noted.

    Parameters
    ----------
    path : Path
        The note.
    job : Job
        Before its training.
    out : Path
        The run folder, for messages.

    Raises
    ------
    InputError
        As `check_same` does; and where the note cannot be read.
    """
    now = fingerprint(job)
    if not path.is_file():
        write_durably(path, (json.dumps(now, indent=2) + "\n").encode())
        return
    try:
        began = json.loads(path.read_text(encoding="utf-8"))
        check_same(began, now, out)
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}): begin the run anew with --overwrite") from error


def check_same(began: Fingerprint, now: Fingerprint, folder: Path) -> None:
    """Refuse to go on with a run that would become another one.

    Parameters
    ----------
    began, now : mapping
        Fingerprints of the run as it began and as it would go on.
    folder : Path
        Of the run, for messages.

    Raises
    ------
    InputError
        With what differs, old value first.

    Warns
    -----
    DataWarning
        Where the machine differs: what comes out is as good, but not the same to the last bit.
    """
    differences = [
        *_differences(began["configuration"], now["configuration"]),
        *_differences(began["versions"], now["versions"]),
        *(f"other {name}" for name, value in now["hashes"].items() if began["hashes"].get(name) != value),
    ]
    if differences:
        raise _refusal(folder, differences)
    if began["machine"] != now["machine"]:
        warnings.warn(
            f"{folder}: began on {began['machine']} and goes on on {now['machine']}: the last bits may differ",
            DataWarning,
            stacklevel=2,
        )


def check_asked(config: RunConfig, began: Mapping[str, Any], folder: Path) -> None:
    """Refuse what can be told to be another run before anything is read.

    Parameters
    ----------
    config : RunConfig
        As it was asked for; what it leaves to the tool may have become anything.
    began : mapping
        Tables of the effective configuration of the run that is there.
    folder : Path
        Of the run, for the message.

    Raises
    ------
    InputError
        With what differs.
    """
    there = dict(_flat(began))
    asked = {name: value for name, value in flatten(config).items() if value != LEFT_TO_THE_TOOL}
    known = {name: there[name] for name in asked if name in there}
    # paths are stored in full, and names of Python objects are compared with the rows themselves, later
    same = {name for name, value in known.items() if _is_same_path(asked[name], value)}
    differences = _differences(
        {name: there.get(name) for name in asked if name not in same},
        {name: value for name, value in asked.items() if name not in same},
    )
    if differences:
        raise _refusal(folder, differences)


def _is_same_path(asked: Any, there: Any) -> bool:  # noqa: ANN401 - any value of a configuration
    return isinstance(asked, str) and isinstance(there, str) and str(Path(asked).resolve()) == there


def _refusal(folder: Path, differences: list[str]) -> InputError:
    return InputError(
        f"{folder} holds another run, which cannot be continued as this one: {listed(differences)}; give what it was "
        f"begun with, choose another --out, or replace it with --overwrite"
    )


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested tables, by their keys with dots between them, without those on which nothing depends."""
    for key, value in tables.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif name not in WITHOUT_EFFECT:
            yield name, json.loads(json.dumps(value))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [f"{name} {_shown(after.get(name))} instead of {_shown(before.get(name))}" for name in names]


def _shown(value: Any) -> str:  # noqa: ANN401 - any value of a configuration
    return "left out" if value is None else str(value)
