"""The folder of a run: what is in it, and how it comes into being whole or not at all.

While a run is under way its files lie in ``unfinished/`` of its folder. When all of them are written and synced, that
folder is renamed to ``.whole``, and from then on the run is there, even where the process dies in the same moment:
whoever uses the folder next moves what is left in there to its place. ``summary.json`` comes last, so that a
folder with a summary holds a finished run, and one without holds none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ebomlc.data.output import sync
from ebomlc.errors import InputError, TrainingDivergedError

CONFIG, SPLIT, ENCODER, METRICS = "config.toml", "split.npz", "encoder", "metrics.csv"
MAIN, METHOD, LABELS, SUMMARY = "main.safetensors", "method.safetensors", "labels.parquet", "summary.json"
CONTENTS = (CONFIG, SPLIT, ENCODER, METRICS, MAIN, METHOD, LABELS, SUMMARY)

REPORT, TRUST, CHECKSUMS, EVENTS = "report.html", "trust.json", "SHA256SUMS", "tensorboard"
OPTIONAL = (REPORT, TRUST, CHECKSUMS, EVENTS)
"""What not every run has, and another run must not leave behind."""

UNFINISHED, WHOLE, LOCK = "unfinished", ".whole", ".lock"
CHECKPOINT, BEGUN, MOVED = "checkpoint", "begun.json", "moved.json"
"""In ``unfinished/`` beside what will be the run's: states to go on from, what it was begun with, names to move."""

FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ESTALE, errno.EIO}
"""What writing to a folder of the user's fails with; everything else is our own mistake."""


def is_finished(out: Path) -> bool:
    """Whether a folder holds a whole run."""
    return (out / SUMMARY).is_file() and (out / SPLIT).is_file()


def is_unfinished(out: Path) -> bool:
    """Whether a folder holds a run that was begun and can be continued."""
    return (out / UNFINISHED).is_dir()


def check_folder(out: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a folder that must not be written to.

    Parameters
    ----------
    out : Path
        The run folder; one that is still to be put in place is.
    overwrite, resume : bool
        A run that is there, finished or not, may be replaced; or continued.

    Raises
    ------
    InputError
        For a file, a folder with anything but a run in it, one that another process writes to, and a run that is
        neither to be replaced nor continued.
    """
    if overwrite and resume:
        raise InputError("--overwrite and --resume exclude each other: replace the run that is there, or continue it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder to make")
    if not out.exists():
        return
    if is_unfinished(out) or (out / WHOLE).is_dir():
        with _lock(out):
            _settle(out)
    _check_content(out, overwrite=overwrite, resume=resume)


def _check_content(out: Path, *, overwrite: bool, resume: bool) -> None:
    if overwrite or resume:
        replaceable = is_unfinished(out) or is_finished(out)
    elif is_finished(out):
        raise InputError(f"{out} already holds a run; choose another folder, or replace it with --overwrite")
    elif is_unfinished(out):
        raise InputError(
            f"{out} holds a run that was not finished; continue it with --resume, replace it with --overwrite, or "
            f"choose another folder"
        )
    else:
        replaceable = False
    if not replaceable and any(path.name != LOCK for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no run; choose another folder, nothing in it was touched")


@contextmanager
def new_run(out: Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[Path]:
    """A folder inside `out` to write a run to; its files take their places in `out` when the block ends without error.

    A run that was there stays until then, and of it only the files named in `CONTENTS` are replaced. A block
    that ends with an error leaves its folder only where a checkpoint is in it, to continue from.

    Parameters
    ----------
    out : Path
        The run folder.
    overwrite : bool
        A run that is there, finished or not, is replaced.
    resume : bool
        What an unfinished run has written so far is in the folder.

    Raises
    ------
    InputError
        Where the folder cannot be written to, or could no longer be while the block ran; where another process writes
        to it; and as `check_folder` does.
    """
    out = out.resolve()
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _lock(out):
            _settle(out)
            _check_content(out, overwrite=overwrite, resume=resume)
            yield from _written(out, resume=resume)
    except OSError as error:
        message = _explain(out, error)
        if message is None:
            raise
        raise InputError(message) from error
    finally:
        if not existed:
            _remove_empty(out)


def _written(out: Path, *, resume: bool) -> Iterator[Path]:
    """The folder to write to, and the end of it, whichever that is."""
    work = out / UNFINISHED
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    is_new = not work.exists()
    try:
        (work / ENCODER).mkdir(parents=True, exist_ok=True)
        yield work
        _commit(out)
    except TrainingDivergedError:
        shutil.rmtree(work, ignore_errors=True)  # it would do so again
        raise
    finally:
        if is_new and not can_continue(out):
            shutil.rmtree(work, ignore_errors=True)


def can_continue(out: Path) -> bool:
    """Whether an unfinished run has kept a state to go on from."""
    return any((out / UNFINISHED / CHECKPOINT).glob("*"))


# --- one at a time ----------------------------------------------------------------------------------------------------


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep other processes out; the lock of a dead process is no obstacle, for the system drops it."""
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{out}: another process is writing a run there; wait for it, or choose another --out"
        ) from error
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    try:
        yield
    finally:
        # before it is released: afterwards, it could be another's
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


# --- all or nothing ---------------------------------------------------------------------------------------------------


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file of a run that is written to `folder`, as ``sha256sum --check`` reads them."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.parts[0] not in (CHECKPOINT, BEGUN, CHECKSUMS):
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name.as_posix()}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _commit(out: Path) -> None:
    """Make a run that is written the one that is there."""
    work = out / UNFINISHED
    names = [path.name for path in work.iterdir() if path.name not in (CHECKPOINT, BEGUN, MOVED)]
    missing = [name for name in CONTENTS if name not in names]
    if missing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(work / missing[0]))
    (work / MOVED).write_text(json.dumps(names), encoding="utf-8")
    for path in work.rglob("*"):
        sync(path)
    sync(work)
    work.rename(out / WHOLE)
    sync(out)
    sync(out.parent)
    _settle(out)


def _settle(out: Path) -> None:
    """Move what is left of a run that is whole to its place; whatever was done of it before, it is done now."""
    whole = out / WHOLE
    if (whole / MOVED).is_file():
        _move(whole, out, json.loads((whole / MOVED).read_text(encoding="utf-8")))
        sync(out)
    if whole.is_dir():
        shutil.rmtree(whole)


def _move(whole: Path, out: Path, names: Sequence[str]) -> None:
    """Bring files to their places, of which some may be there already."""
    # the summary goes first and comes last: with one, a folder is a run
    if (whole / SUMMARY).exists():
        (out / SUMMARY).unlink(missing_ok=True)
    for name in {*CONTENTS, *OPTIONAL} - {*names}:
        _remove(out / name)
    for name in sorted(names, key=lambda name: name == SUMMARY):
        if (whole / name).exists():
            _remove(out / name)
            (whole / name).replace(out / name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _explain(out: Path, error: OSError) -> str | None:
    """What went wrong with the folder, in words; None where the error is about something else."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{out}: cannot be written: a part of its path is a file; choose another --out"
    is_ours = error.filename is None or Path(os.fsdecode(error.filename)).absolute().is_relative_to(out)
    if error.errno not in FAILURES or not is_ours:
        return None
    if error.errno == errno.ENOENT:
        return f"{out}: was removed or changed while the run was under way; start it again, and leave the folder alone"
    kept = "what was done until the last checkpoint is kept, and continued with --resume" if can_continue(out) else ""
    repair = f"make room, or choose another --out{kept and f'; {kept}'}"
    return f"{out}: cannot be written: {error.strerror}; {repair}"
