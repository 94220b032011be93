"""The parts of a run's page: noise, changes, cuts, calibration, learning curve, training, classes, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ebomlc.labels.charts import Line, Plot, Style, draw_interval, draw_map, draw_plot
from ebomlc.labels.page import NOTHING, Cell, Chart, Findings, Grid, Section, counted, part, percent, span
from ebomlc.records import IntArray, LabelTable

LARGEST_MATRIX = 12
"""With more classes the matrix is a map, and the most frequent changes a list."""

SHOWN_CHANGES, SHOWN_CLASSES = 15, 30

MEASURES: Mapping[str, str] = {
    "loss": "Lower loss",
    "upper_loss": "Upper loss",
    "heldout_accuracy": "Accuracy on held-out trusted rows",
    "gap": "Gap",
    "beta": "Barrier coefficient",
    "gap_negative": "Share of steps with a negative gap",
}
"""Columns of ``metrics.csv`` by what they are called in a title; these are drawn first."""

NO_MEASURES = ("epoch", "step", "lr", "seconds")
SHOWN_MEASURES = 6

NOISE_METHODS: Mapping[str, str] = {
    "assisted": "the calibrated suggestions on all rows, corrected by the checked ones",
    "pairs": "the checked rows alone",
    "weighted pairs": "the checked rows alone, each weighted by how many it stands for",
}

CLASS_FIGURES: Mapping[str, str] = {
    "given": "given",
    "suggested": "suggested",
    "trusted": "trusted",
    "suggested_right": "suggestions right",
    "test": "test rows",
    "test_recall": "recall",
    "test_precision": "precision",
}
FACTS: Mapping[str, str] = {
    "Data": "data",
    "Noise laid over it": "noise",
    "Method": "method",
    "Model": "model",
    "Encoder": "encoder",
    "Seed": "seed",
    "Device": "device",
    "Precision": "precision",
    "Split (SHA-256)": "split_sha256",
    "Commit": "commit",
}
"""Keys of the summary, by what they are called."""

Figures = Mapping[str, Any]
"""A part of ``trust.json`` or ``summary.json``."""


# --- noise and changes ------------------------------------------------------------------------------------------------


def noise_figures(findings: Findings) -> Figures | None:
    """Rate of wrong labels with its interval; from the summary in a run without ``trust.json``."""
    return part(findings, "noise") or findings.summary.get("noise_estimate")


def show_noise(findings: Findings) -> Section:
    """The rate of wrong labels, of all rows and by given label."""
    title, noise = "How many labels are wrong", noise_figures(findings)
    if noise is None:
        return Section(title, _why_not(findings, "No checked row carries the label it was given."))
    classes = [each for each in noise.get("classes", ()) if each["estimate"] is not None]
    shown = [{"name": "All rows", **noise}, *classes[:SHOWN_CLASSES]]
    top = _round_up(max(each["high"] for each in shown))
    note = f"Bars run from 0 to {top:.0%}; the thick part is the 95% interval."
    if classes:
        note += " Classes are those of the given labels."
    if len(classes) > SHOWN_CLASSES:
        note += f" {len(classes) - SHOWN_CLASSES} more classes are in trust.json."
    words = (f"Estimated from {counted(noise['n'], 'checked row')}: {_noise_method(noise)}.", *_pairs_alone(noise))
    rows = tuple(_noise_cells(each, top) for each in shown)
    return Section(title, words, grids=(Grid(("Given label", "", "Wrong", "95% interval"), rows, note=note),))


def _why_not(findings: Findings, reason: str) -> tuple[str, ...]:
    """Why a figure is not known, where the run does not say it itself."""
    if findings.trust is None:
        return ("It would be in trust.json, which this run has not.",)
    return ((part(findings, "basis") or {}).get("reason") or reason,)


def _noise_method(noise: Figures) -> str:
    if "method" in noise:
        return NOISE_METHODS.get(noise["method"], noise["method"])
    return NOISE_METHODS["pairs"] + ("" if noise.get("random") else ", as if they had been picked at random")


def _pairs_alone(noise: Figures) -> tuple[str, ...]:
    pairs = noise.get("pairs")
    if pairs is None or noise.get("method") == "pairs":
        return ()
    return (f"The checked rows alone say {percent(pairs['estimate'])} ({span(pairs)}).",)


def _round_up(share: float) -> float:
    """The end of a scale, in tenths."""
    return min(max(math.ceil(share * 10), 1), 10) / 10


def _noise_cells(figures: Figures, top: float) -> tuple[Cell, ...]:
    bar = draw_interval(figures["estimate"], figures["low"], figures["high"], top)
    return Cell(figures["name"]), Cell(bar), Cell(percent(figures["estimate"])), Cell(span(figures))


def count_changes(labels: LabelTable, class_names: Sequence[str]) -> IntArray:
    """Noisy rows [K, K] by given and suggested class."""
    index = {name: k for k, name in enumerate(class_names)}
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    for given, suggested, is_trusted in zip(labels.given_label, labels.suggested_label, labels.is_trusted, strict=True):
        if not is_trusted and given in index and suggested in index:
            counts[index[given], index[suggested]] += 1
    return counts


def show_changes(findings: Findings) -> Section:
    """The matrix from given to suggested; of many classes a map of it, and what changes most."""
    title, names = "From given to suggested", findings.class_names
    counts = count_changes(findings.labels, names)
    words = ("Noisy rows by the label they were given (down) and the label that is suggested (across).",)
    if len(names) <= LARGEST_MATRIX:
        return Section(title, words, grids=(_matrix(counts, names),))
    description = f"{len(names)} classes; {int(counts.trace()):,} of {int(counts.sum()):,} rows keep their label."
    chart = Chart(
        draw_map(counts, "Rows by given and suggested label", description),
        f"{description} They are in the order of the table of classes, the first one at the top and on the left.",
        legend=(("same", "keeps its label"), ("moved", "gets another")),
    )
    return Section(title, words, (chart,), (_most_changed(counts, names),))


def _matrix(counts: IntArray, names: Sequence[str]) -> Grid:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = tuple(
        (Cell(name), *(Cell(f"{n:,}" if n else "·", float(share[g, s]), g == s) for s, n in enumerate(counts[g])))
        for g, name in enumerate(names)
    )
    return Grid(("given ↓", *names), rows, is_matrix=True, note="The darker, the larger its share of the line.")


def _most_changed(counts: IntArray, names: Sequence[str]) -> Grid:
    pairs = [(int(counts[g, s]), g, s) for g, s in np.argwhere(counts).tolist() if g != s]
    pairs.sort(key=lambda pair: -pair[0])
    rows = tuple((Cell(f"{names[g]} → {names[s]}"), Cell(f"{n:,}")) for n, g, s in pairs[:SHOWN_CHANGES])
    return Grid(("Most frequent changes", "Rows"), rows)


def show_transition(findings: Findings) -> Section:
    """What the checked rows say the labels should have been."""
    title, transition, names = "What the labels should have been", part(findings, "transition"), findings.class_names
    is_large = len(names) > LARGEST_MATRIX
    if is_large and (transition is not None or part(findings, "noise") is not None):
        what = "The share of wrong labels by class" if transition is None else f"The matrix of {len(names)} classes"
        return Section(title, (f"{what} is in trust.json.",))
    if transition is None:
        return Section(title, _why_not(findings, "It needs checked rows that carry the label they were given."))
    rows = tuple((Cell(name), *_transition_cells(transition, g)) for g, name in enumerate(names))
    words = (
        "Of the rows with a given label (down), the share whose right label is another (across), with its 95% interval."
    )
    return Section(title, (words,), grids=(Grid(("given ↓", *names), rows, is_matrix=True),))


def _transition_cells(transition: Figures, given: int) -> list[Cell]:
    """A line of T[given, right]."""
    line = zip(*(transition[key][given] for key in ("estimate", "low", "high")), strict=True)
    return [
        Cell(NOTHING)
        if estimate is None
        else Cell(percent(estimate, 0), estimate, right == given, f"{100 * low:.0f} to {100 * high:.0f}")
        for right, (estimate, low, high) in enumerate(line)
    ]


# --- where to cut, how sure, how many ---------------------------------------------------------------------------------


def _known(points: Sequence[Figures], *keys: str) -> list[Figures]:
    """The points of which all of this is known."""
    return [point for point in points if all(point.get(key) is not None for key in keys)]


def _pairs(points: Sequence[Figures], first: str, second: str) -> list[tuple[float, float]]:
    return [(point[first], point[second]) for point in points]


def show_cuts(findings: Findings) -> Section:
    """Precision of the most suspect rows against how many they are."""
    title, cuts = "Where to cut", part(findings, "cuts")
    points = _known(cuts["points"], "rows", "precision", "low", "high") if cuts else []
    if not points:
        return Section(title, _why_not(findings, "It needs checked rows that carry the label they were given."))
    first, last = points[0], points[-1]
    plot = Plot(
        title="Precision against number of rows",
        description=f"From {percent(first['precision'], 0)} wrong labels among {first['rows']:,} rows "
        f"to {percent(last['precision'], 0)} among {last['rows']:,}.",
        x_label="rows, the most suspect first",
        lines=(Line("Precision", _pairs(points, "rows", "precision"), spans=_pairs(points, "low", "high")),),
        is_share=True,
        rule=cuts["precision"],
        mark=next((_pairs([p], "rows", "precision")[0] for p in points if p["quality"] == cuts["quality"]), None),
    )
    ring = "; the ring is the cut" if plot.mark else ""
    caption = f"Share of wrong labels among the most suspect rows, with its 95% interval{ring}."
    return Section(title, (_cut_sentence(cuts),), (Chart(draw_plot(plot), caption),))


def _cut_sentence(cuts: Figures) -> str:
    wanted, doubted = percent(cuts["precision"], 0), f"{cuts['n_review']:,}"
    if cuts["quality"] is None:
        return f"No cut is sure to reach a precision of {wanted}: look at the {doubted} doubted rows yourself."
    return (
        f"Of the {counted(cuts['n_issues'], 'row')} with a label quality up to {cuts['quality']:.3g}, at least "
        f"{wanted} have a wrong label, with 95% confidence. Another {doubted} are doubted and should be looked at."
    )


def show_calibration(findings: Findings) -> Section:
    """The reliability diagram, before and after calibration."""
    title, figures = "How sure the confidences are", part(findings, "calibration")
    if figures is None:
        return Section(title, _why_not(findings, "It needs checked rows that carry the label they were given."))
    before, after = figures["before"], figures["after"]
    errors = [_three_digits(each.get("calibration_error")) for each in (before, after)]
    plot = Plot(
        title="Reliability diagram",
        description=f"Calibration error {errors[0]} before and {errors[1]} after calibration.",
        x_label="confidence of the suggestion",
        lines=(_reliability(before, "before", "quiet"), _reliability(after, "after", "main")),
        is_share=True,
        x_is_share=True,
        as_dots=True,
        diagonal=True,
    )
    caption = "Share of right suggestions. On the line, a confidence is what it says. Whiskers are 95% intervals."
    chart = Chart(draw_plot(plot), caption, legend=(("quiet", "before calibration"), ("main", "after")))
    words = (f"Measured on {counted(figures['n'], 'checked row')}, none of which calibrated itself.",)
    return Section(title, words, (chart,), (_calibration_grid(before, after),))


def _calibration_grid(before: Figures, after: Figures) -> Grid:
    names = {"calibration_error": "Calibration error", "brier": "Brier score", "auroc": "AUROC"}
    rows = tuple(
        (Cell(name), *(Cell(_three_digits(each.get(key))) for each in (before, after))) for key, name in names.items()
    )
    return Grid(("Figure", "before", "after"), rows)


def _reliability(figures: Figures, name: str, style: Style) -> Line:
    bins = _known(figures["reliability"], "confidence", "right", "right_low", "right_high")
    return Line(name, _pairs(bins, "confidence", "right"), style, _pairs(bins, "right_low", "right_high"))


def _three_digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def show_learning_curve(findings: Findings) -> Section:
    """How many suggestions are right with fewer checked rows, and with twice as many."""
    title, curve = "How many checked rows are enough", part(findings, "learning_curve")
    points = _known(curve["points"], "n_trusted", "right", "low", "high") if curve else []
    if not points:
        return Section(title, _why_not(findings, "It needs more checked rows that carry the label they were given."))
    first, last, twice = points[0], points[-1], curve.get("twice")
    plot = Plot(
        title="Learning curve",
        description=f"From {percent(first['right'], 0)} with {first['n_trusted']:,} checked rows "
        f"to {percent(last['right'], 0)} with {last['n_trusted']:,}.",
        x_label="checked rows",
        lines=(Line("Suggestions right", _pairs(points, "n_trusted", "right"), spans=_pairs(points, "low", "high")),),
        is_share=True,
        mark=(twice["n_trusted"], twice["right"]) if twice else None,
    )
    caption = "Share of right suggestions on checked rows that were left out, with its 95% interval."
    return Section(title, _twice_words(twice), (Chart(draw_plot(plot), caption),))


def _twice_words(twice: Figures | None) -> tuple[str, ...]:
    if twice is None:
        return ()
    right = f"about {percent(twice['right'], 0)} of the suggestions would be right ({span(twice)})"
    return (f"With twice as many checked rows, {twice['n_trusted']:,}, {right}: the ring.",)


# --- training, classes, provenance ------------------------------------------------------------------------------------


def show_training(findings: Findings) -> Section:
    """A curve for each figure of the epochs."""
    rows, summary = findings.metrics, findings.summary
    names = [name for name in (rows[0] if rows else ()) if name not in NO_MEASURES]
    names.sort(key=[*MEASURES, *names].index)
    charts = [chart for name in names if (chart := _measure_chart(name, rows)) is not None]
    if not charts:
        return Section("Training", ("The run recorded no figures of its epochs.",))
    words = f"{counted(int(summary['epochs']), 'epoch')}; the model is that of epoch {summary['chosen_epoch']}."
    return Section("Training", (words,), tuple(charts[:SHOWN_MEASURES]))


def _measure_chart(name: str, rows: Sequence[Mapping[str, float | None]]) -> Chart | None:
    points = [(row["epoch"], row[name]) for row in _known(rows, "epoch", name) if math.isfinite(row[name])]
    if not points:
        return None
    title = MEASURES.get(name, name.replace("_", " ").capitalize())
    description = f"{points[0][1]:.3g} in the first epoch, {points[-1][1]:.3g} in the last."
    is_share = name.endswith("accuracy")
    return Chart(draw_plot(Plot(title, description, "epoch", (Line(title, points),), is_share=is_share)), title=title)


def show_classes(findings: Findings) -> Section:
    """What was found of each class."""
    classes = findings.summary.get("classes")
    if not classes:
        return Section("Classes", ("The run recorded no figures of its classes.",))
    keys = [key for key in CLASS_FIGURES if _known(classes, key)]
    rows = tuple((Cell(each["name"]), *(Cell(_class_figure(each[key])) for key in keys)) for each in classes)
    return Section("Classes", grids=(Grid(("Class", *(CLASS_FIGURES[key] for key in keys)), rows),))


def _class_figure(value: float | None) -> str:
    """A count or a share."""
    return f"{value:,}" if isinstance(value, int) else percent(value)


def show_provenance(findings: Findings) -> Section:
    """From what, how and with what the run was made."""
    summary = findings.summary
    memory, overlap = summary.get("peak_memory_mb"), summary.get("overlap")
    versions = summary.get("versions") or {}
    facts = {
        **{name: summary.get(key) for name, key in FACTS.items()},
        "Time": f"{summary['seconds']:,.0f} s, of which {summary['training_seconds']:,.0f} s training",
        "Most memory": f"{memory:,.0f} MiB" if memory else None,
        "Rows of equal content": _overlap_words(overlap) if overlap and overlap.get("within") else None,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    rows = tuple((Cell(name), Cell(str(fact))) for name, fact in facts.items() if fact is not None)
    return Section("Configuration and provenance", grids=(Grid((), rows),))


def _overlap_words(overlap: Figures) -> str:
    return f"{overlap['within']:,}, of which {overlap['disagreeing']:,} under different labels"
