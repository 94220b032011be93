"""``ebomlc predict``: apply the classifier of a run to new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder that `ebomlc fit` wrote.")],
    data: Annotated[str, typer.Argument(help="Rows with the same inputs: a table, a folder of images, an .npy file.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .tsv, .jsonl or .parquet.")],
    suggest: Annotated[
        bool, typer.Option("--suggest", help="The rows carry labels: write the label table, with suggested ones.")
    ] = False,
    on_bad_input: Annotated[
        str, typer.Option(help="An image that cannot be read: error, or skip, which leaves it out and says so.")
    ] = "error",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a file that was not finished; leave one that is as it is.")
    ] = False,
) -> None:
    """Write the predicted class of every row, how sure it is, and the probability of each class.

    Everything needed is read from the run folder. Where the rows have right labels, the accuracy is printed. Parquet
    and CSV files, and folders of Parquet files, may be larger than memory.
    """
    from ebomlc.data.parts import check_parts
    from ebomlc.errors import listed
    from ebomlc.prediction import load_classifier
    from ebomlc.streaming import load_method, predict_to

    check_parts(out, overwrite=overwrite, resume=resume)
    classifier = load_classifier(run, device=device)
    method = load_method(classifier) if suggest else None
    found = predict_to(
        classifier, data, out, suggest=method, on_bad_input=on_bad_input, overwrite=overwrite, resume=resume
    )
    if found is None:
        echo(f"{out} is whole: nothing to continue")
        return
    rows = "row" if found.rows == 1 else "rows"
    echo(f"{found.rows:,} {rows} classified into {len(classifier.class_names):,} classes; written to {out}")
    if found.unknown:
        echo(f"no accuracy, for these labels are no class of the run: {listed(found.unknown)}")
    if not suggest and found.accuracy is not None and found.balanced_accuracy is not None:
        echo(
            f"if the labels of {data} are right: accuracy {found.accuracy:.1%}, "
            f"balanced over classes {found.balanced_accuracy:.1%}, of {found.n_labelled:,} rows with a label"
        )
