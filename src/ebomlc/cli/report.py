"""``ebomlc report``: the page of a run, made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo


def report(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    *,
    out: Annotated[Path | None, typer.Option(help="File to write; by default report.html of the run folder.")] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that images may lie in, beside that of the set or of its table; once for each."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it is there.")] = False,
) -> None:
    """Write what a run found as one HTML page: noise, suspects, figures, curves and where they come from."""
    from ebomlc.data.output import check_output
    from ebomlc.findings import REPORT, write_report

    if out is not None:
        check_output(out, overwrite, suffixes=(".html", ".htm"))
    write_report(run, out, images=images or ())
    echo(f"written to {out or run / REPORT}")
