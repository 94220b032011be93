"""``ebomlc demo``: six methods on real digits with wrong labels, side by side."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from ebomlc.cli.screen import echo

METHODS = ("ce", "trusted-only", "glc", "mlc", "ebomlc", "plus")
SEEDS = (0, 1, 2)
NOISE, N_TRUSTED = "flip:0.4", 100


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs of an earlier demo.")] = False,
) -> None:
    """Train six methods on scikit-learn's digits: 40 % of the labels flipped, 100 trusted rows, three seeds."""
    from ebomlc import run

    echo(f"digits, noise {NOISE}, {N_TRUSTED} trusted rows, mean of {len(SEEDS)} seeds (lowest - highest)\n")
    echo(f"{'method':<14}{'test accuracy':<24}{'given labels right':<20}{'suggested right':<24}{'seconds':>8}")
    for method in METHODS:
        summaries = [
            run.fit(
                "digits",
                noise=NOISE,
                n_trusted=N_TRUSTED,
                method=method,
                seed=seed,
                out=out / f"{method}-{seed}",
                overwrite=overwrite,
            ).summary
            for seed in SEEDS
        ]
        echo(
            f"{method:<14}{_spread(summaries, 'test_accuracy'):<24}"
            f"{statistics.mean(s['given_label_accuracy'] for s in summaries):<20.1%}"
            f"{_spread(summaries, 'suggested_label_accuracy'):<24}"
            f"{statistics.mean(s['seconds'] for s in summaries):>8.1f}"
        )
    echo(f"\nrun folders: {out.resolve()}/METHOD-SEED; labels.parquet in each holds the suggested labels")


def _spread(summaries: list[dict[str, Any]], key: str) -> str:
    values = [summary[key] for summary in summaries]
    return f"{statistics.mean(values):.1%} ({min(values):.1%} - {max(values):.1%})"
