"""``ebomlc predict``: apply the classifier of a run to new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    data: Annotated[str, typer.Argument(help="Rows with the same inputs: a table, a folder of images, an .npy file.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .tsv, .jsonl or .parquet.")],
    on_bad_input: Annotated[
        str, typer.Option(help="An image that cannot be read: error, or skip, which leaves it out and says so.")
    ] = "error",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write the predicted class of every row, how sure it is, and the probability of each class.

    Everything needed is read from the run folder. Where the rows have right labels, the accuracy is printed.
    """
    from ebomlc.data.output import check_output, write_table
    from ebomlc.errors import listed
    from ebomlc.prediction import load_classifier
    from ebomlc.prediction import predict as predict_rows

    check_output(out, overwrite)
    found = predict_rows(load_classifier(run, device=device), data, on_bad_input=on_bad_input)
    write_table(found.to_frame(), out)
    rows = "row" if len(found.ids) == 1 else "rows"
    typer.echo(f"{len(found.ids):,} {rows} classified into {len(found.class_names):,} classes; written to {out}")
    if found.unknown_labels:
        typer.echo(f"no accuracy, for these labels are no class of the run: {listed(found.unknown_labels)}")
    if found.accuracy is not None:
        typer.echo(
            f"if the labels of {data} are right: accuracy {found.accuracy:.1%}, "
            f"balanced over classes {found.balanced_accuracy:.1%}, of {found.n_labelled:,} rows with a label"
        )
