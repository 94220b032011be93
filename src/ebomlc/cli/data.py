"""``ebomlc data``: get a built-in data set from its publisher, and check it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo


def data(
    name: Annotated[str, typer.Argument(help="fashion-mnist (30 MB), cifar10 (170 MB), cifar100 (170 MB) or digits.")],
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder to put it in, for --data-dir of the other commands.")] = Path(
        "data"
    ),
) -> None:
    """Get a built-in data set from its publisher and check its checksums.

    A download that broke off goes on where it stopped; what is there already is only checked.
    """
    from ebomlc.data import official

    folder = official.fetch(name, data_dir, say=echo)
    if folder is None:
        echo(f"{name} come with scikit-learn: nothing to get")
    else:
        echo(f"{name} is in {folder.resolve()}, and its checksums are right")
    if name == "cifar10" and not official.has_human_labels(data_dir):
        echo(official.HUMAN_HELP)
    echo(f"next: {next_command(name, data_dir)}")


def next_command(name: str, data_dir: Path) -> str:
    """A first training run on a built-in set: a fifth of its labels made wrong, and some right ones."""
    place = "" if name == "digits" else f" --data-dir {shlex.quote(str(data_dir))}"
    n_trusted = 100 if name == "digits" else 1000
    return f"ebomlc fit {name}{place} --noise symmetric:0.2 --n-trusted {n_trusted} --out {name}-run"
