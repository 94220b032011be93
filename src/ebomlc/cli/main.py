"""The command ``ebomlc``: its sub-commands, and what an error looks like."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from ebomlc.cli.bench import bench_app
from ebomlc.cli.data import data
from ebomlc.cli.demo import demo
from ebomlc.cli.export import export
from ebomlc.cli.fit import fit
from ebomlc.cli.predict import predict
from ebomlc.cli.report import report
from ebomlc.cli.review import review
from ebomlc.cli.sample import sample
from ebomlc.cli.screen import echo
from ebomlc.cli.verify import verify
from ebomlc.errors import InputError, RankLostError, TrainingDivergedError
from ebomlc.version import __version__

INPUT_ERROR, DIVERGED, RANK_LOST = 2, 3, 4
LONGEST = 2000
"""Characters of a message."""

TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    name="ebomlc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a classifier that wrong labels do not hurt, and learn which labels are wrong, from a large noisy set "
    "and a small trusted one.",
)
for command in (sample, fit, predict, report, verify, export, data, review):
    app.command(no_args_is_help=True)(command)
app.command()(demo)
app.add_typer(bench_app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"ebomlc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    pass


def _show_warning(message: Warning | str, *_: object) -> None:
    echo(f"warning: {message}", err=True)


def _terminate(*_: object) -> NoReturn:
    """End as after any other error, so that what is half-written is removed."""
    sys.exit(TERMINATED)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what cannot be written into a configuration, a table or a page."""
    for argument in arguments:
        if not argument.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise InputError(f"{argument}: the name is not text in UTF-8; rename the file or folder")


def _explain(error: InputError | OSError | MemoryError) -> str:
    """What is wrong, in a sentence; the system's own words where no reader or writer found better ones."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); give fewer rows or columns, or use a larger machine"
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{name}{error.strerror or error}; is the path right, and may it be read or written?"


def _cut(message: str) -> str:
    """A message without the middle of what a file or column was called in millions of letters."""
    return message if len(message) <= LONGEST else f"{message[: LONGEST // 2]} [...] {message[-LONGEST // 2 :]}"


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 2 something given cannot be used, 3 the training failed, 4 another process of this run is gone,
    130 Ctrl-C, 143 SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment] - one line instead of a source line
        try:
            _check_arguments(sys.argv)
            app()
        except (InputError, OSError, MemoryError) as error:
            echo(f"error: {_cut(_explain(error))}", err=True)
            sys.exit(INPUT_ERROR)
        except TrainingDivergedError as error:
            echo(f"error: {error}", err=True)
            sys.exit(DIVERGED)
        except RankLostError as error:
            echo(f"error: {error}", err=True)
            sys.stdout.flush()
            os._exit(RANK_LOST)  # Python's own way out may wait for the process that is gone
