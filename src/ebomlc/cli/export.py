"""``ebomlc export``: what a run found, in a form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebomlc.errors import unknown_name

FORMATS = ("onnx",)


def export(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    *,
    to: Annotated[str, typer.Option(help="onnx: the classifier, from encoded inputs to probabilities.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Export the classifier of a run."""
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS)
    from ebomlc.data.output import check_output
    from ebomlc.models.onnx import export_onnx
    from ebomlc.prediction import load_classifier

    check_output(out, overwrite, suffixes=(".onnx",))
    classifier = load_classifier(run, device="cpu")
    model, example, inputs = classifier.exportable()
    out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, example, out, classifier.class_names)
    size = " x ".join(map(str, example.shape[1:]))
    typer.echo(
        f"written to {out}: from {inputs} [rows, {size}] to probabilities [rows, {len(classifier.class_names):,}]"
    )
