"""``ebomlc fit``: train on a noisy and a trusted set, write the run folder, say what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebomlc.cli.screen import echo
from ebomlc.config import AUTO_EPOCHS, AUTO_STEPS, IMBALANCE

if TYPE_CHECKING:
    from ebomlc.run import Run

METHOD_HELP = (
    "ebomlc (default); mlc, mlc-head, mlc-barrier, mslc, emlc, ebomlc-literal: other label correction; glc, forward, "
    "bayes: transition matrix; l2rw, mw-net: weights of rows; gce: robust loss; ce: labels as they are; finetune; "
    "trusted-only; oracle: right labels (needs --truth)."
)
MODEL_HELP = (
    "auto (default): mlp for numbers, text and frozen features, cnn for grey, resnet20 for colour images; or mlp, "
    "cnn, cnn-tiny, resnet20, resnet32, resnet44, resnet56; timm:NAME or torchvision:NAME, trained as a whole."
)
ENCODER_HELP = (
    "What turns rows into what the model is fed. auto (default): columns for tables, efficientnet-lite0 for your own "
    "images where it is installed, else pixels. Or a pre-trained network that stays as it is: efficientnet-lite0, "
    "timm:NAME, torchvision:NAME for images; minilm, sentence:NAME for texts."
)
EPOCHS_HELP = (
    f"Passes over the noisy set. Default: about {AUTO_STEPS:,} steps, {AUTO_EPOCHS[0]} to {AUTO_EPOCHS[1]} epochs."
)
FAILURE_HELP = (
    "A training that diverged, or shows signs of having gone wrong, is written all the same, from its last good epoch; "
    "then stop (exit code 3) or keep (exit code 0). Default: stop where it diverged."
)
FOLDS_HELP = (
    "Short trainings, each not shown a part of the checked rows, which then say how sure the output is. Default: 5 for "
    "tables, texts and features of which 50 checked rows carry the label they were given; else 0."
)
NOISE_HELP = (
    "Lay noise over the labels, which then count as right, to try the tool: uniform:R, symmetric:R, flip:R, pair:R, "
    "asymmetric:R, hierarchical:R, instance:R with R in [0, 1], or human:NAME (cifar10: aggre, worse, random1..3)."
)
NOISY_HELP = (
    "The large set: a table (.csv, .tsv, .jsonl, .parquet), a folder with a sub-folder of images for each class, "
    "an .npy file of embeddings beside a table of the same name, hf:NAME, or digits, fashion-mnist, cifar10, cifar100."
)
TRUSTED_HELP = (
    "Checked rows: the label column is right, a column given_label, if there, is the old label. Ids and labels are "
    "enough where the ids are those of the large set."
)
CHECKED_HELP = (
    "Instead of --trusted: the column that holds the right label where somebody looked, and is empty elsewhere."
)

Text = Annotated[list[str] | None, typer.Option(help="Column that holds a text to learn from; repeat it.")]


def fit(
    noisy: Annotated[str, typer.Argument(help=NOISY_HELP)] = "",
    *,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    trusted: Annotated[str | None, typer.Option(help=TRUSTED_HELP)] = None,
    checked: Annotated[str | None, typer.Option(help=CHECKED_HELP)] = None,
    add_reviewed: Annotated[
        list[str] | None,
        typer.Option(
            help="Run folder on the same set: rows decided on with `ebomlc review` are trusted too; repeat it."
        ),
    ] = None,
    n_trusted: Annotated[
        int | None, typer.Option(help="Instead of --trusted: draw this many rows whose right label is known.")
    ] = None,
    n_noisy: Annotated[
        int | None, typer.Option(help="Keep only so many of the noisy rows, drawn at random, for a first try.")
    ] = None,
    pairs: Annotated[
        bool | None, typer.Option("--pairs", help="Rows drawn by --n-trusted keep the label they were given.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Test rows with right labels, for scoring only.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="File (id, label) with right labels of the noisy rows, for scoring only.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Id column. Default: 'id' if there is one, else the row number.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label column, in every file. Default: label.")] = None,
    text: Text = None,
    features: Annotated[
        list[str] | None,
        typer.Option(help="Column of numbers or categories to learn from; repeat it. Default: every other one."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="Column of image paths, from the folder of the table on.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side of the images. Default: seen from them.")
    ] = None,
    on_bad_input: Annotated[
        str | None, typer.Option(help="An image that cannot be read: error (default) or skip, counted and listed.")
    ] = None,
    normalise_labels: Annotated[
        bool | None,
        typer.Option(
            "--normalise-labels/--no-normalise-labels", help="Labels that differ only by case or blanks are one class."
        ),
    ] = None,
    allow_overlap: Annotated[
        bool | None, typer.Option("--allow-overlap", help="Score test rows that also occur in the training rows.")
    ] = None,
    noise: Annotated[str | None, typer.Option(help=NOISE_HELP)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP)] = None,
    encoder: Annotated[str | None, typer.Option(help=ENCODER_HELP)] = None,
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    balance: Annotated[
        bool | None,
        typer.Option(
            "--balance/--no-balance",
            help=f"Every class counts alike. Default: where the largest has more than {IMBALANCE:g} times the trusted "
            f"rows of the smallest.",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            help="Of the labels called wrong, so many shall be wrong indeed. Default: 0.9; the rest is doubtful."
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(help=FOLDS_HELP)] = None,
    epochs: Annotated[int | None, typer.Option(help=EPOCHS_HELP)] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.")] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="On a GPU, repeat a run bit for bit; a processor does so anyway."),
    ] = None,
    on_failure: Annotated[str | None, typer.Option(help=FAILURE_HELP)] = None,
    seed: Annotated[int | None, typer.Option(help="Of split, noise, weights and order. Default: 0.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the official files of cifar10 and cifar100.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder for decoded images and features. Default: ~/.cache/ebomlc.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file, such as config.toml of a run; options given here come first.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in the folder.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished run from its last checkpoint; else start it.")
    ] = False,
) -> None:
    """Train on noisy and trusted rows; write a classifier and a suggested label for every row.

    One table in which somebody checked some rows, or two:

        all.csv:      id,text,label,checked_label   (checked_label empty where nobody looked)

        ebomlc fit all.csv --checked checked_label --out run

        noisy.csv:    id,text,label                 (labels partly wrong)
        trusted.csv:  id,text,label                 (labels checked; may have given_label)

        ebomlc fit noisy.csv --trusted trusted.csv --out run

    A folder of images, photos/CLASS/..., and a table of checked ones (id: path below photos; label):

        ebomlc fit photos --trusted checked.csv --out run

    The run folder holds labels.parquet (one row for each id: given, suggested, how sure), summary.json,
    metrics.csv, config.toml, the split, the encoder and both models.
    """
    from ebomlc import run
    from ebomlc.training.distributed import is_first

    with _saying_what_is_kept(out):
        finished = run.fit(
            noisy,
            trusted=trusted,
            checked=checked,
            add_reviewed=add_reviewed or (),
            n_trusted=n_trusted,
            n_noisy=n_noisy,
            pairs=pairs,
            test=test,
            truth=truth,
            id=id_column,
            label=label,
            text=text or (),
            features=features or (),
            image=image,
            image_size=image_size,
            on_bad_input=on_bad_input,
            normalise_labels=normalise_labels,
            allow_overlap=allow_overlap,
            noise=noise,
            method=method,
            encoder=encoder,
            model=model,
            balance=balance,
            precision=precision,
            folds=folds,
            epochs=epochs,
            device=device,
            deterministic=deterministic,
            on_failure=on_failure,
            seed=seed,
            data_dir=data_dir,
            cache_dir=cache_dir,
            config=config,
            out=out,
            overwrite=overwrite,
            resume=resume,
            say=echo,
        )
    if is_first():
        echo(describe(finished))
    if finished.failure is not None:
        kept = "all is written, from the last good epoch, and report.html begins with what went wrong"
        echo(f"error: {finished.failure}; {kept}; with --on-failure keep this is exit code 0", err=True)
        raise typer.Exit(3)


@contextmanager
def _saying_what_is_kept(out: Path) -> Iterator[None]:
    """Where the run is stopped inside the block, say what can be done with what it leaves."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        from ebomlc.run_folder import can_continue

        if can_continue(out):
            echo("\nstopped; the same command with --resume goes on from here", err=True)
        raise


def describe(run: Run) -> str:
    """What a run found, in a few lines."""
    summary = run.summary
    lines = [
        *summary["trust"]["sentences"],
        *_accuracy_lines(summary),
        f"{summary['seconds']:.1f} s; written to {run.folder} (labels.parquet, report.html, summary.json, trust.json)",
    ]
    return "\n".join(lines)


def _accuracy_lines(summary: dict[str, Any]) -> list[str]:
    lines = []
    if summary["suggested_label_accuracy"] is not None:
        lines.append(
            f"right labels on the noisy rows: given {summary['given_label_accuracy']:.1%}, "
            f"suggested {summary['suggested_label_accuracy']:.1%}"
        )
    if summary["test_accuracy"] is not None:
        lines.append(
            f"test accuracy {summary['test_accuracy']:.1%}, "
            f"balanced over classes {summary['test_balanced_accuracy']:.1%}"
        )
    if summary["heldout_accuracy"] is not None:
        n = summary["n_heldout"]
        lines.append(f"{round(n * summary['heldout_accuracy'])} of {n} held-out trusted rows predicted right")
    return lines
