"""What a run folder says of its run, read back as one, and the page that shows it."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebomlc.data.documents import read_document
from ebomlc.data.pool import Pool
from ebomlc.errors import InputError
from ebomlc.labels.report import PICTURE_SIDE, Findings, render_report
from ebomlc.reviewed import read_labels
from ebomlc.run_folder import CONFIG, METRICS, SUMMARY
from ebomlc.samples import open_samples
from ebomlc.version import __version__

REPORT, TRUST = "report.html", "trust.json"
NEEDED = (
    "data",
    "method",
    "n_noisy",
    "n_trusted",
    "n_heldout",
    "epochs",
    "chosen_epoch",
    "seconds",
    "training_seconds",
)
"""What a summary must say."""


def read_findings(run: Path) -> Findings:
    """Everything that a run folder says of its run.

    Parameters
    ----------
    run : Path
        The run folder.

    Raises
    ------
    InputError
        Where the folder holds no run, one of a later version, or one that lacks something.
    """
    if not (run / SUMMARY).is_file():
        raise InputError(f"{run}: not a run folder, for it has no {SUMMARY}; name the folder that --out named")
    try:
        summary = read_document(run / SUMMARY)
        check_version(run, summary)
        config = (run / CONFIG).read_text(encoding="utf-8")
        trust = read_document(run / TRUST) if (run / TRUST).exists() else None
        metrics = _read_metrics(run / METRICS)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{run}: the run cannot be read ({error}); was it written by another version?") from error
    labels, names = read_labels(run)
    return Findings(run.resolve().name, summary, config, labels, names, metrics, trust)


def check_version(run: Path, summary: dict[str, Any]) -> None:
    """Raise InputError for a run of a later version than this, or one that lacks what this version needs."""
    wrote = str((summary.get("versions") or {}).get("ebomlc", "an unknown version"))
    if _release(wrote) > _release(__version__):
        raise InputError(f"{run}: written by ebomlc {wrote}, and this is {__version__}: install {wrote} or later")
    lacking = [key for key in NEEDED if key not in summary]
    if lacking:
        raise InputError(
            f"{run}: {SUMMARY}, written by ebomlc {wrote}, lacks {', '.join(map(repr, lacking))}, which ebomlc "
            f"{__version__} needs: read it with the version that wrote it, or fit again"
        )


def _release(version: str) -> tuple[int, ...]:
    """Numbers of a version; none where it has none."""
    parts = version.split("+")[0].split(".")[:3]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _read_metrics(path: Path) -> list[dict[str, float | None]]:
    """The figures of each epoch; None where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: float(cell) if cell else None for name, cell in row.items()} for row in csv.DictReader(file)]


def write_report(run: Path, out: Path | None = None, *, images: Sequence[Path] = (), pool: Pool | None = None) -> None:
    """Write the page of a run, beside its place and moved there when whole.

    Parameters
    ----------
    run : Path
        The run folder.
    out : Path, optional
        The file; by default ``report.html`` of the run folder.
    images, pool
        See `ebomlc.samples.open_samples`.

    Raises
    ------
    InputError
        Where the run cannot be read, or the file not be written.
    """
    findings, samples = read_findings(run), open_samples(run, images=images, pool=pool)
    page = render_report(findings, lambda row: samples.show(row, side=PICTURE_SIDE))
    out = out or run / REPORT
    beside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_text(page, encoding="utf-8")
            beside.replace(out)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another file with --out") from error
