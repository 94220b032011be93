"""``ebomlc export``: what a run found, in a form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo

TO_HELP = (
    "csv, parquet: every label of every row; label-studio: open rows as tasks with predictions; cleanlab: "
    "pred_probs.npy and labels.csv; huggingface: a dataset; imagefolder: images in a folder for each class; onnx: the "
    "classifier, from encoded inputs to probabilities."
)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    *,
    to: Annotated[str, typer.Option(help=TO_HELP)],
    out: Annotated[
        Path | None, typer.Option(help="File or folder to write. Default: below export/ in the run folder.")
    ] = None,
    best_guess: Annotated[
        bool, typer.Option("--best-guess", help="Take the suggested label of rows that nobody looked at, sure or not.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="imagefolder: links to the images instead of copies.")] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that images may lie in, beside that of the set or of its table; once for each."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file, or the folder if it holds an export.")
    ] = False,
) -> None:
    """Export the labels of a run, with what people decided in `ebomlc review`, or its classifier.

    final_label is the label that a person decided on; else the checked one of a trusted row; else the suggested one
    where is_label_issue says that the given one is surely wrong, or with --best-guess wherever it differs; else the
    given one. label_source says which of them.
    given_label stays as it was.
    """
    from ebomlc.exports import export as export_run

    echo(export_run(run, to, out, best_guess=best_guess, link=link, images=images or (), overwrite=overwrite))
