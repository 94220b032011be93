"""``ebomlc review``: look at suspects, or at random rows, and say which label is right."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo


def review(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    *,
    reviewer: Annotated[
        str | None, typer.Option(help="Your name, kept with each decision. Default: of the system's account.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Further folder that the images may lie in; may be given several times.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Another than the default lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes one that is free.")] = 8377,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser too.")] = False,
) -> None:
    """Open a page on this machine to accept or reject suggested labels, by mouse or by keyboard.

    Every decision is kept in the run folder at once; `ebomlc export` applies them. Stop with Ctrl-C and go on later.
    """
    from ebomlc.review.server import serve

    name = (reviewer if reviewer is not None else _account()).strip()
    serve(run, name or "reviewer", echo, host=host, port=port, images=images or (), browser=browser)


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in a container
        return ""
