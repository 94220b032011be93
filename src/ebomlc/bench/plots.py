"""Pictures of a benchmark: accuracy against noise and cost, learning curves, what given labels were corrected to."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebomlc.bench.store import CONDITION, RUNS, find_method_rows, finished, is_benchmark, make_row
from ebomlc.bench.tables import HIGHEST, LOWEST, METRICS, Metric, cell_means, condition_names, method_order
from ebomlc.config import RunConfig, build, read_toml
from ebomlc.data.pool import load_pool
from ebomlc.errors import DataWarning, InputError, unknown_name
from ebomlc.records import FloatArray
from ebomlc.run_folder import CONFIG, LABELS
from ebomlc.run_folder import METRICS as EPOCHS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY = list(CONDITION)
DOTS = 130
"""Dots an inch."""

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#e7298a", "#66a61e",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "<")
BOUNDS = {LOWEST: ("#888888", "X"), HIGHEST: ("#000000", "*")}
UNCORRECTED = (LOWEST, HIGHEST, "ce")

SHOWN_MATRICES = 4
NAMED_CLASSES = 12
"""With more classes than that a matrix shows colours only."""

SMOOTHED_SHARE = 0.1
"""Learning curves are moving means over this share of the epochs."""


@dataclass(frozen=True)
class Style:
    """How a method looks in every picture."""

    colour: str
    marker: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A look for each method; no two are alike as long as colours times markers suffice."""
    others = [method for method in methods if method not in BOUNDS]
    looks = {
        method: Style(COLOURS[k % len(COLOURS)], MARKERS[(k + k // len(COLOURS)) % len(MARKERS)])
        for k, method in enumerate(others)
    }
    return {method: looks.get(method) or Style(*BOUNDS[method]) for method in methods}


def draw(
    folder: Path,
    rows: pd.DataFrame,
    out: Path,
    *,
    metric: str = "test_accuracy_last",
    methods: Sequence[str] | None = None,
) -> list[Path]:
    """Draw everything that the rows and the run folders give.

    Parameters
    ----------
    folder : Path
        Of the benchmark; from a CSV file of rows learning curves and matrices cannot be drawn.
    rows : DataFrame
        As `ebomlc.bench.store.read_rows` gives them.
    out : Path
        Folder for the PNG files.
    metric : str
        One of `METRICS`.
    methods : sequence of str, optional
        Only these; by default all, and of the matrices those of the best.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        Where matplotlib is not there, nothing is left to draw, or the folder cannot be written to.

    Warns
    -----
    DataWarning
        Where learning curves or matrices are left out, with the reason.
    """
    _require_matplotlib()
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if methods is not None:
        names = [find_method_rows(rows, name, "to draw") for name in methods]
        rows = rows[rows["method"].isin(names)]
    if rows.empty or rows[metric].isna().all():
        raise InputError(f"nothing to draw: no finished run has a value of {metric}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from error
    paths = []
    for name, figure in _figures(folder, rows, metric):
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=DOTS)
    return paths


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("plots need an extra: pip install 'ebomlc[plot]'") from error


def _figures(folder: Path, rows: pd.DataFrame, metric: str) -> Iterator[tuple[str, Figure]]:
    looks = styles(method_order(rows, metric))
    if rows["n_trusted"].nunique() > 1:
        yield f"{metric}-trusted", trusted_figure(rows, metric, looks)
    else:
        yield f"{metric}-noise", noise_figure(rows, metric, looks)
    yield f"{metric}-cost", cost_figure(rows, metric, looks)
    if not is_benchmark(folder):
        warnings.warn(
            f"{folder} holds rows but no runs, so learning curves and matrices are left out: name the folder that "
            f"`ebomlc bench run --out` named",
            DataWarning,
            stacklevel=3,
        )
        return
    runs = _run_folders(folder)
    runs = runs[runs["method"].isin(rows["method"])]
    conditions = _conditions(rows)
    for name, key in conditions.items():
        mine = runs[(runs[KEY] == list(key)).all(axis=1)]
        yield f"curves-{_slug(name)}", curves_figure(mine, name, looks)
        figure = _matrices(mine, name, looks)
        if figure is not None:
            yield f"matrix-{_slug(name)}", figure


def _run_folders(folder: Path) -> pd.DataFrame:
    """A line for each finished run: condition, method, seed and its folder."""
    lines = []
    for key, record, summary in finished(folder):
        row = make_row(record, summary)
        lines.append({**{name: row[name] for name in (*KEY, "method", "seed")}, "folder": folder / RUNS / key})
    return pd.DataFrame(lines)


def _conditions(rows: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    """Columns of each condition by its name, the least noisy first."""
    found = rows.groupby(KEY, as_index=False).agg({"measured_noise": "mean"})
    found = found.sort_values(by=["n_trusted", "measured_noise"])
    return dict(zip(condition_names(found), found[KEY].itertuples(index=False, name=None), strict=True))


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=]+", "-", name.replace(":", "-")).strip("-")


# --- accuracy ---------------------------------------------------------------------------------------------------------


def noise_figure(rows: pd.DataFrame, metric: str, looks: Mapping[str, Style]) -> Figure:
    """A metric against the noise, a panel for each set and model; bars are 95 % intervals over seeds."""
    scale = METRICS[metric]
    means = cell_means(rows, metric)
    groups = list(rows.groupby(["data", "model"]))
    figure, panels = _panels(len(groups), columns=1, size=(max(7.0, 2.2 * rows["noise"].nunique() + 3), 4.2))
    for panel, ((data, model), mine) in zip(panels, groups, strict=True):
        noise = mine.groupby("noise")["measured_noise"].mean().sort_values()
        places = {name: place for place, name in enumerate(noise.index)}
        for method, shift in zip(looks, _shifts(len(looks)), strict=True):
            line = means[(means["data"] == data) & (means["model"] == model) & (means["method"] == method)]
            x = line["noise"].map(places).astype(float) + shift
            _points(panel, x, line, scale, method, looks[method])
        ticks = [f"{name}\n{100 * value:.0f} % wrong" for name, value in noise.items()]
        panel.set_xticks(range(len(noise)), ticks)
        panel.set_xlim(-0.5, len(noise) - 0.5)
        for border in range(1, len(noise)):
            panel.axvline(border - 0.5, color="#dddddd", linewidth=0.8)
        panel.set_ylabel(scale.title)
        panel.set_title(f"{data}, {model}: mean and 95 % interval over seeds", loc="left")
    _legend(figure, panels)
    return figure


def trusted_figure(rows: pd.DataFrame, metric: str, looks: Mapping[str, Style]) -> Figure:
    """A metric against the number of trusted rows, a panel for each set and noise."""
    scale = METRICS[metric]
    means = cell_means(rows, metric)
    groups = list(rows.groupby(["data", "noise"]))
    figure, panels = _panels(len(groups), columns=2, size=(5.6, 4.2))
    for panel, ((data, noise), mine) in zip(panels, groups, strict=True):
        sizes = sorted(mine["n_trusted"].unique())
        for method, shift in zip(looks, _shifts(len(looks)), strict=True):
            line = means[(means["data"] == data) & (means["noise"] == noise) & (means["method"] == method)]
            x = line["n_trusted"].astype(float) * 1.15**shift
            _points(panel, x, line, scale, method, looks[method], joined=True)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("trusted rows")
        panel.set_ylabel(scale.title)
        panel.set_title(f"{data}, {noise}", loc="left")
    _legend(figure, panels)
    return figure


def cost_figure(rows: pd.DataFrame, metric: str, looks: Mapping[str, Style]) -> Figure:
    """A metric against the seconds of a run, a panel for each condition."""
    scale = METRICS[metric]
    means, seconds = cell_means(rows, metric), cell_means(rows, "seconds")
    conditions = _conditions(rows)
    figure, panels = _panels(len(conditions), columns=min(2, len(conditions)), size=(5.6, 4.2))
    for panel, (name, key) in zip(panels, conditions.items(), strict=True):
        for method, look in looks.items():
            line = means[(means[KEY] == list(key)).all(axis=1) & (means["method"] == method)]
            cost = seconds[(seconds[KEY] == list(key)).all(axis=1) & (seconds["method"] == method)]
            _points(panel, cost["mean"], line, scale, method, look)
        panel.set_xscale("log")
        _few_ticks(panel)
        panel.set_xlabel("seconds a run, mean over seeds")
        panel.set_ylabel(scale.title)
        panel.set_title(name, loc="left")
    _legend(figure, panels)
    return figure


def _few_ticks(panel: Axes) -> None:
    """Plain numbers along a logarithmic axis that may not even span one power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    low, high = panel.get_xlim()
    panel.set_xlim(low / 1.2, high * 1.2)


def _points(
    panel: Axes,
    x: pd.Series,
    line: pd.DataFrame,
    scale: Metric,
    method: str,
    look: Style,
    *,
    joined: bool = False,
) -> None:
    bars = (scale.factor * line["half"]).fillna(0).to_numpy()
    panel.errorbar(
        x.to_numpy(),
        (scale.factor * line["mean"]).to_numpy(),
        yerr=bars,
        linestyle="-" if joined else "none",
        color=look.colour,
        marker=look.marker,
        markersize=6,
        linewidth=1,
        capsize=2,
        label=method,
    )


def _shifts(n: int) -> FloatArray:
    """Where n methods stand about the middle of their place."""
    return np.linspace(-0.36, 0.36, n) if n > 1 else np.zeros(1)


# --- learning curves --------------------------------------------------------------------------------------------------


def curves_figure(runs: pd.DataFrame, name: str, looks: Mapping[str, Style]) -> Figure:
    """Accuracy on the held-out trusted rows and lower loss against the epoch, means over seeds.

    Memorisation shows as a loss that goes on falling while the accuracy falls too.
    """
    figure, (accuracy, loss) = _panels(2, columns=2, size=(5.8, 4.4))
    width = 1
    for method, look in looks.items():
        folders = runs.loc[runs["method"] == method, "folder"]
        if folders.empty:
            continue
        epochs = pd.concat([pd.read_csv(folder / EPOCHS) for folder in folders]).groupby("epoch").mean()
        width = max(1, round(SMOOTHED_SHARE * len(epochs)))
        smooth = epochs.rolling(width, min_periods=1).mean()
        dashes = "--" if method in BOUNDS else "-"
        options: dict[str, Any] = {"color": look.colour, "linestyle": dashes, "linewidth": 1.4, "label": method}
        options |= {"marker": look.marker, "markersize": 5, "markevery": max(1, len(epochs) // 6)}
        accuracy.plot(smooth.index, 100 * smooth["heldout_accuracy"], **options)
        loss.plot(smooth.index, smooth["loss"], **options)
    accuracy.set_ylabel("held-out trusted rows predicted right, %")
    loss.set_ylabel("lower loss on the training rows")
    for panel in (accuracy, loss):
        panel.set_xlabel("epoch")
    spread = f", moving mean of {width} epochs" if width > 1 else ""
    accuracy.set_title(f"{name}: mean over seeds{spread}", loc="left")
    _legend(figure, [accuracy, loss])
    return figure


# --- matrices ---------------------------------------------------------------------------------------------------------


def _matrices(runs: pd.DataFrame, name: str, looks: Mapping[str, Style]) -> Figure | None:
    """The matrices of the best methods that correct, from the first seed that has the best of them."""
    methods = [method for method in looks if method not in UNCORRECTED and (runs["method"] == method).any()]
    if not methods:
        return None
    seed = runs.loc[runs["method"] == methods[0], "seed"].min()
    chosen = runs[runs["method"].isin(methods) & (runs["seed"] == seed)].set_index("method")["folder"]
    folders = {method: chosen[method] for method in methods if method in chosen.index}
    folders = dict(list(folders.items())[:SHOWN_MATRICES])
    config = build(RunConfig, read_toml(next(iter(folders.values())) / CONFIG), "config.toml of the run")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # the run has said it
            pool = load_pool(config.data, config.seed)
    except InputError as error:
        warnings.warn(f"the matrix of {name} is left out: {error}", DataWarning, stacklevel=2)
        return None
    rows, names = pool.scored, list(pool.class_names)
    given = pool.given[rows]
    matrices = {"right label": shares_by_given(given, pool.truth[rows], len(names))}
    for method, folder in folders.items():
        table = pd.read_parquet(folder / LABELS).set_index("id").loc[list(pool.ids[rows]), "suggested_label"]
        suggested = pd.Categorical(table, categories=names).codes
        matrices[f"suggested by {method}"] = shares_by_given(given, suggested, len(names))
    return matrix_figure(matrices, names, f"{name}, seed {seed}")


def shares_by_given(given: npt.NDArray[Any], other: npt.NDArray[Any], n_classes: int) -> FloatArray:
    """Share [K, K] of the rows with each given label that have each other label; rows sum to 1, or are NaN if empty."""
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (given, other), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def matrix_figure(matrices: Mapping[str, FloatArray], names: Sequence[str], title: str) -> Figure:
    """What rows with each given label really are, and what they were corrected to.

    Above each matrix stands how far it is from the truth: the share of the rows of a given label that would have to get
    another label for the two to agree, averaged over given labels.

    Parameters
    ----------
    matrices : mapping of str to float array, shape [K, K]
        By what stands along the columns; the first is the truth, which the others are compared with.
    names : sequence of str, length K
        Class k's name.
    title : str
        Above everything.
    """
    few = len(names) <= NAMED_CLASSES
    columns = 2 if len(matrices) == 4 else min(3, len(matrices))
    figure, panels = _panels(len(matrices), columns=columns, size=(4.9, 4.7))
    truth = next(iter(matrices.values()))
    image = None
    for place, (panel, (label, matrix)) in enumerate(zip(panels, matrices.items(), strict=True)):
        image = panel.imshow(100 * matrix, vmin=0, vmax=100, cmap="Blues")
        panel.grid(visible=False)
        if few:
            panel.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
            panel.set_yticks(range(len(names)), names, fontsize=8)
            _write_shares(panel, matrix)
        panel.set_xlabel(label)
        if place % columns == 0:
            panel.set_ylabel("given label")
        away = np.nanmean(np.abs(matrix - truth).sum(axis=1)) / 2
        panel.set_title(f"{100 * away:.1f} % away from the truth" if place else "the truth", loc="left", fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=panels, label="% of the rows with the given label", shrink=0.8)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _write_shares(panel: Axes, matrix: FloatArray) -> None:
    """Whole per cents into the fields, without those that round to nothing."""
    for (row, column), share in np.ndenumerate(matrix):
        if share >= 0.005:
            colour = "white" if share > 0.5 else "black"
            panel.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)


# --- frames -----------------------------------------------------------------------------------------------------------


def _panels(n: int, *, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with n panels of a size in inches."""
    from matplotlib.figure import Figure

    lines = math.ceil(n / columns)
    figure = Figure(figsize=(columns * size[0] + 1.6, lines * size[1]), layout="constrained")
    panels = [figure.add_subplot(lines, columns, place + 1) for place in range(n)]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
    return figure, panels


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, beside them."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
