"""The command ``ebomlc``: its sub-commands, and what an error looks like."""

from __future__ import annotations

import signal
import sys
import warnings
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
from ebomlc.errors import InputError, TrainingDivergedError
from ebomlc.version import __version__

INPUT_ERROR, DIVERGED = 2, 3
TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    name="ebomlc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train a classifier that wrong labels do not hurt, and learn which labels are wrong, from a large noisy set "
    "and a small trusted one.",
)
for command in (sample, fit, predict, report, export, data, review):
    app.command(no_args_is_help=True)(command)
app.command()(demo)
app.add_typer(bench_app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ebomlc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    pass


def _show_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def _terminate(*_: object) -> NoReturn:
    """End as after any other error, so that what is half-written is removed."""
    sys.exit(TERMINATED)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 2 something given cannot be used, 3 the training diverged, 130 Ctrl-C, 143 SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment] - one line instead of a source line
        try:
            app()
        except InputError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(INPUT_ERROR)
        except TrainingDivergedError as error:
            typer.echo(f"error: {error}", err=True)
            sys.exit(DIVERGED)
