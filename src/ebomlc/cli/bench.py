"""``ebomlc bench``: run a grid of methods, data and seeds, and show what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ebomlc.cli.screen import echo
from ebomlc.errors import InputError

FAILED = 1

bench_app = typer.Typer(
    no_args_is_help=True,
    help="Compare methods: run a suite, which may be broken off at any time, then print and draw what came of it.",
)

FOLDER_HELP = "Folder of `ebomlc bench run --out`, or a CSV file of its rows."


@bench_app.command("run", no_args_is_help=True)
def bench_run(
    suite: Annotated[
        str,
        typer.Argument(help="smoke, desk-fashion, desk-cifar, plus-ablation, ablation, trusted-size, pairs or paper."),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write; a suite that was broken off there is continued.")],
    methods: Annotated[
        str | None, typer.Option(help="Only these, with commas between them. Default: those of the suite.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Only these, with commas between them. Default: those of the suite.")
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help="Only these of the suite's, with commas between them, such as flip:0.3.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at a time; each gets its share of the processors.")] = 1,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes; the next call goes on.")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the official files of the suite's data.")] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="TOML file of settings by method, as benchmarks/tune.py writes it.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace runs of another version instead of refusing the folder.")
    ] = False,
) -> None:
    """Run a suite, cheapest runs first; one CSV row for each run is written to rows.csv.

        ebomlc bench run smoke --out smoke
        ebomlc bench table smoke

    Runs that are done are found again. A run that fails is named in failures.csv and does not stop the others; it is
    tried again next time.
    """
    from ebomlc.bench.grid import run_suite
    from ebomlc.bench.suite import choose, find_suite, read_tuning

    tuning = read_tuning(tuned)
    chosen = choose(
        find_suite(suite),
        _names(methods, "--methods"),
        _numbers(seeds, "--seeds"),
        data_dir,
        tuning,
        _names(noise, "--noise"),
    )
    outcome = run_suite(
        chosen,
        out,
        jobs=jobs,
        data_dir=data_dir,
        device=device,
        tuning=tuning,
        minutes=minutes,
        overwrite=overwrite,
        say=echo,
    )
    if outcome.n_left:
        echo(f"time is up: {outcome.n_left} of {outcome.n_cells} runs are left; the same command continues")
    echo(f"rows: {out / 'rows.csv'}; next: ebomlc bench table {out}")
    if outcome.n_failed:
        echo(f"error: {outcome.n_failed} of {outcome.n_cells} runs failed; see {out / 'failures.csv'}", err=True)
        raise typer.Exit(FAILED)


@bench_app.command("table", no_args_is_help=True)
def bench_table(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    *,
    metric: Annotated[
        str,
        typer.Option(
            help="test_accuracy_last, test_accuracy, suggested_label_accuracy, calibration_error, brier, ms_per_step, "
            "seconds or peak_memory_mb."
        ),
    ] = "test_accuracy_last",
    baseline: Annotated[
        str | None, typer.Option(help="Method that the others are compared with. Default: ce, else the first.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, markdown or csv.")] = "text",
    out: Annotated[Path | None, typer.Option(help="File to write instead of printing; it is replaced.")] = None,
) -> None:
    """Print means with intervals, mean ranks, paired differences, and the way from trusted-only to oracle."""
    from ebomlc.bench.store import read_rows
    from ebomlc.bench.tables import COST_BASELINE, report

    rows = read_rows(folder)
    known = list(rows["method"].unique())
    text = report(rows, metric, baseline or (COST_BASELINE if COST_BASELINE in known else known[0]), form)
    if out is None:
        echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error


@bench_app.command("plot", no_args_is_help=True)
def bench_plot(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures. Default: plots, in the folder.")] = None,
    methods: Annotated[str | None, typer.Option(help="Only these, with commas between them. Default: all.")] = None,
    metric: Annotated[str, typer.Option(help="As in `ebomlc bench table`.")] = "test_accuracy_last",
) -> None:
    """Draw accuracy against noise and cost, learning curves, and what given labels were corrected to."""
    from ebomlc.bench.plots import draw
    from ebomlc.bench.store import read_rows

    rows = read_rows(folder)
    target = out or (folder if folder.is_dir() else folder.parent) / "plots"
    for path in draw(folder, rows, target, metric=metric, methods=_names(methods, "--methods")):
        echo(f"drew {path}")


def _names(text: str | None, option: str) -> Sequence[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} is empty: give names with commas between them, or leave it out")
    return names


def _numbers(text: str | None, option: str) -> Sequence[int] | None:
    names = _names(text, option)
    if names is None:
        return None
    try:
        return [int(name) for name in names]
    except ValueError:
        raise InputError(f"{option} is {text!r}: give whole numbers with commas between them, such as 0,1,2") from None
