"""``ebomlc verify``: whether a run is what it claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo

NOT_SOUND = 1


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    *,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources",
            help="Also read the sets again that the run was made of, and recompute what rests on them: right labels, "
            "measured noise, rows of equal content, predictions and test accuracy.",
        ),
    ] = False,
) -> None:
    """Recompute what a run folder says of itself: checksums, split, label table and figures.

    Ends with 0 where everything holds, with 1 where something does not, which may be a copy that went wrong or a hand
    that changed it. Without --sources nothing is read but the folder.
    """
    from ebomlc.verify import verify as verify_run

    found = verify_run(run, sources=sources)
    for line in found.held:
        echo(f"holds: {line}")
    for line in found.open:
        echo(f"not checked: {line}")
    for line in found.broken:
        echo(f"WRONG: {line}")
    if found.broken:
        echo(f"{run} is not what it claims: {len(found.broken)} of {len(found.held) + len(found.broken)} claims fail")
        raise typer.Exit(NOT_SOUND)
    echo(f"{run} is what it claims, as far as its folder{' and its sources' if sources else ''} can tell")
