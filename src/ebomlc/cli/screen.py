"""What reaches the terminal: text alone, whatever names of files, columns, classes and rows hold."""

from __future__ import annotations

import re

import typer

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line end: colours, titles, cursor, clipboard
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of text, or ends a line
    "\ud800-\udfff]"  # bytes of file names that are no text in UTF-8
)


def printable(text: str) -> str:
    r"""The text with every control character as what it is written as in Python, such as ``\x1b``."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print text to standard output, or standard error, so that it cannot steer the terminal.

    Parameters
    ----------
    text : object
        Is made a string.
    err : bool
        To standard error.
    nl : bool
        With a line end.
    """
    typer.echo(printable(str(text)), err=err, nl=nl)
