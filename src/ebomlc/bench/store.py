"""The folder of a benchmark: what was asked for each cell, its run, and the rows that are derived from both.

DIR/suite.json        the suite's name
DIR/cells/KEY.json    what is asked of a cell; KEY is a hash of it
DIR/runs/KEY/         its run folder, once it is done
DIR/logs/KEY.txt      what a cell said that failed
DIR/rows.csv          one row for each finished run
DIR/failures.csv      one row for each cell whose last try failed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ebomlc.bench.suite import Cell
from ebomlc.config import RunConfig, to_dict
from ebomlc.environment import versions
from ebomlc.errors import InputError, listed, unknown_name
from ebomlc.run_folder import SUMMARY

SUITE, CELLS, RUNS, LOGS, ROWS, FAILURES = "suite.json", "cells", "runs", "logs", "rows.csv", "failures.csv"

COLUMNS = (
    "method", "data", "noise", "measured_noise", "model", "seed", "commit", "torch", "device", "epochs", "steps",
    "n_trusted", "seconds", "ms_per_step", "peak_memory_mb", "test_accuracy", "test_accuracy_last",
    "suggested_label_accuracy", "calibration_error", "brier",
)  # fmt: skip
TEXTS = ("method", "data", "noise", "model", "commit", "torch", "device")
CONDITION = ("data", "noise", "model", "n_trusted")
"""Columns that say what the methods are compared on."""

REVISION = 2
"""To be raised with every change of the code that changes the figures of all methods."""

METHOD_REVISIONS: Mapping[str, int] = {"plus": 3}
"""To be raised with every change of the code that changes the figures of one method; 1 where it is not named."""

MODEL_REVISIONS: Mapping[str, int] = {"resnet20": 2, "resnet32": 2, "resnet44": 2, "resnet56": 2}
"""To be raised with every change of the code that changes the figures of all methods with one model."""

LOCATIONS = ("data_dir", "cache_dir")
RECORD_KEYS = {"suite", "name", "versions", "config"}


# --- what is asked of a cell ------------------------------------------------------------------------------------------


def current_versions(method: str, model: str) -> dict[str, str]:
    """Of everything that decides a method's figures with a model here and now."""
    found = versions()
    revisions = (REVISION, METHOD_REVISIONS.get(method, 1), MODEL_REVISIONS.get(model, 1))
    return {
        **{name: found[name] for name in ("ebomlc", "torch", "numpy", "scikit-learn")},
        "revision": ".".join(map(str, revisions)),
    }


def make_record(suite: str, cell: Cell, config: RunConfig) -> dict[str, Any]:
    """What is asked of a cell, as ``cells/KEY.json`` holds it."""
    return {
        "suite": suite,
        "name": cell.contender.name,
        "versions": current_versions(cell.contender.method, config.model.name),
        "config": to_dict(config),
    }


def record_key(record: Mapping[str, Any]) -> str:
    """Hash of what decides a cell's result: configuration and versions, wherever the data lie; 16 hex digits."""
    config = record["config"]
    data = {name: value for name, value in config["data"].items() if name not in LOCATIONS}
    asked = {"config": {**config, "data": data}, "versions": record["versions"]}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def write_record(out: Path, record: Mapping[str, Any]) -> Path:
    """Store what is asked of a cell; returns the file."""
    path = out / CELLS / f"{record_key(record)}.json"
    _write_whole(path, json.dumps(record, indent=2) + "\n")
    return path


def read_records(out: Path) -> dict[str, dict[str, Any]]:
    """What is asked of every cell of a folder, by key.

    Raises
    ------
    InputError
        For a file that is no such record.
    """
    return {path.stem: read_record(path) for path in sorted((out / CELLS).glob("*.json"))}


def read_record(path: Path) -> dict[str, Any]:
    """What one file says is asked of a cell; see `read_records`."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a stored cell: {error}; remove it, and the cell is run again") from error
    if not isinstance(record, dict) or set(record) != RECORD_KEYS or not isinstance(record["config"], dict):
        raise InputError(
            f"{path}: a cell of another version of the benchmark, for it does not hold {listed(sorted(RECORD_KEYS))} "
            f"alone: choose another folder, or replace what is outdated with `ebomlc bench run --overwrite`"
        )
    return record


def outdated(record: Mapping[str, Any]) -> str | None:
    """How the versions a cell was asked for differ from those of here and now; None where they do not."""
    stored, here = record["versions"], _versions_now(record)
    names = [name for name in {**stored, **here} if stored.get(name) != here.get(name)]
    return ", ".join(f"{name} {stored.get(name)} instead of {here.get(name)}" for name in names) or None


def _versions_now(record: Mapping[str, Any]) -> dict[str, str]:
    config = record["config"]
    return current_versions(config["method"]["name"], config["model"]["name"])


def check_versions(out: Path, records: Mapping[str, Mapping[str, Any]], only: tuple[str, ...] | None = None) -> None:
    """Refuse a folder with cells of other versions.

    Parameters
    ----------
    out : Path
        The folder, for the message.
    records : mapping
        Its cells by key.
    only : tuple of str, optional
        Names of the versions that matter.

    Raises
    ------
    InputError
        With the difference.
    """
    for key, record in records.items():
        looked_at = record
        if only is not None:
            here = _versions_now(record)
            looked_at = {**record, "versions": {**here, **{name: record["versions"].get(name) for name in only}}}
        difference = outdated(looked_at)
        if difference is not None:
            raise InputError(
                f"{out / CELLS / key}.json ({record['name']}) comes from another version: {difference}; use that one, "
                f"choose another folder, or replace what is outdated with `ebomlc bench run --overwrite`"
            )


# --- what came of it --------------------------------------------------------------------------------------------------


def read_summary(out: Path, key: str, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the run of a cell found; None where it is not done, or the folder is another's."""
    if record_key(record) != key:
        return None
    try:
        summary = json.loads((out / RUNS / key / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    config = record["config"]
    asked = (config["method"]["name"], config["seed"], config["data"]["noisy"], config["data"]["noise"])
    return summary if tuple(summary.get(name) for name in ("method", "seed", "data", "noise")) == asked else None


def make_row(record: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """A run's row, with the `COLUMNS` in their order.

    ``seconds`` is of the whole run, ``ms_per_step`` of the training with its looks at the held-out rows; calibration
    error and Brier score are those of the suggestions for the noisy rows (`ebomlc.labels.scores`).
    """
    derived = {
        "method": record["name"],
        "torch": summary["versions"]["torch"],
        "ms_per_step": 1000 * summary["training_seconds"] / summary["steps"],
        "calibration_error": summary["suggestion_calibration_error"],
        "brier": summary["suggestion_brier"],
    }
    return {name: derived.get(name, summary.get(name)) for name in COLUMNS}


def finished(out: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Key, record and summary of every run that is done."""
    for key, record in read_records(out).items():
        summary = read_summary(out, key, record)
        if summary is not None:
            yield key, record, summary


def derive_rows(out: Path) -> pd.DataFrame:
    """One row for each finished run, sorted; also written to ``rows.csv``, and the failed cells to ``failures.csv``."""
    rows = pd.DataFrame([make_row(record, summary) for _, record, summary in finished(out)], columns=list(COLUMNS))
    rows = rows.sort_values([*CONDITION, "method", "seed"], ignore_index=True)
    _write_whole(out / ROWS, rows.to_csv(index=False))
    failures = pd.DataFrame(_failures(out), columns=["method", "data", "noise", "n_trusted", "seed", "error", "log"])
    if len(failures):
        _write_whole(out / FAILURES, failures.to_csv(index=False))
    else:
        (out / FAILURES).unlink(missing_ok=True)
    return rows


def _failures(out: Path) -> list[dict[str, Any]]:
    found = []
    for key, record in read_records(out).items():
        log = out / LOGS / f"{key}.txt"
        if read_summary(out, key, record) is None and log.exists():
            config = record["config"]
            where = {"data": config["data"]["noisy"], "noise": config["data"]["noise"], "seed": config["seed"]}
            size = config["data"]["n_trusted"]
            found.append(
                {"method": record["name"], **where, "n_trusted": size, "error": last_line(log), "log": str(log)}
            )
    return found


def last_line(log: Path) -> str:
    """What a process said last, which is where Python puts the error."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


# --- reading rows -----------------------------------------------------------------------------------------------------


def is_benchmark(path: Path) -> bool:
    """Whether a folder holds the cells of a benchmark."""
    return (path / SUITE).is_file()


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a benchmark.

    Parameters
    ----------
    path : Path
        The folder of ``ebomlc bench run --out``, whose runs are looked through, or a CSV file of rows.

    Returns
    -------
    DataFrame
        At least one row, with `COLUMNS`.

    Raises
    ------
    InputError
        Where there is nothing, rows of another version, of several versions of torch, or a cell twice.
    """
    if is_benchmark(path):
        check_versions(path, read_records(path), ("ebomlc", "revision"))
        rows, name = derive_rows(path), str(path)
    else:
        file = path / ROWS if path.is_dir() else path
        rows, name = _read_csv(file), str(file)
    if rows.empty:
        raise InputError(f"{name}: no run is finished yet; `ebomlc bench run SUITE --out DIR` makes them")
    _check_rows(rows, name)
    return rows


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=True)
    except OSError as error:
        raise InputError(
            f"{path}: no rows of a benchmark: {error.strerror}; name the folder that --out named"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table of rows: {str(error).splitlines()[0]}") from error
    absent = [name for name in COLUMNS if name not in rows.columns]
    unknown = [str(name) for name in rows.columns if name not in COLUMNS]
    if absent or unknown:
        parts = [f"{what}: {listed(names)}" for what, names in (("missing", absent), ("unknown", unknown)) if names]
        raise InputError(f"{path}: its columns are those of another version ({'; '.join(parts)}); run the suite again")
    for name in COLUMNS:
        if name not in TEXTS and not pd.api.types.is_numeric_dtype(rows[name]) and rows[name].notna().any():
            wrong = pd.to_numeric(rows[name], errors="coerce").isna() & rows[name].notna()
            row = int(wrong.to_numpy().argmax())
            raise InputError(f"{path}: column {name!r} holds {rows[name].iloc[row]!r} in line {row + 2}: not a number")
    return rows[list(COLUMNS)]


def _check_rows(rows: pd.DataFrame, name: str) -> None:
    torch = rows["torch"].astype(str).str.split("+").str[0].value_counts()
    if len(torch) > 1:
        counted = ", ".join(f"{n} rows of {version}" for version, n in torch.items())
        raise InputError(f"{name}: several versions of torch, which are not compared: {counted}; keep those of one")
    twice = rows.duplicated([*CONDITION, "method", "seed"])
    if twice.any():
        row = rows[twice].iloc[0]
        raise InputError(
            f"{name}: {row['method']}, {row['data']} {row['noise']}, {row['n_trusted']} trusted, seed {row['seed']} "
            f"stands there twice; keep one of the rows"
        )


def find_method_rows(rows: pd.DataFrame, name: str, option: str) -> str:
    """The name of a method among the rows, or InputError with the nearest one."""
    known = list(rows["method"].unique())
    if name not in known:
        raise unknown_name(f"method {option}", name, known)
    return name
