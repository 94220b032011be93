"""Charts as inline SVG: they take their colours from the page, so that they follow it into the dark."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from ebomlc.records import IntArray

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 38, 312, 10, 160
LEVELS = 5
"""Shades of a map of counts."""

Style = Literal["main", "quiet"]


@dataclass(frozen=True)
class Line:
    """Points that belong together.

    Attributes
    ----------
    name : str
        For the legend; empty where there is none.
    points : sequence of (x, y)
        Rising in x.
    style : {"main", "quiet"}
        What it is drawn like.
    spans : sequence of (low, high), as long as `points`, or empty
        Interval of each y.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: Style = "main"
    spans: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Plot:
    """What a chart shows.

    Attributes
    ----------
    title, description : str
        Read aloud in place of the picture.
    x_label : str
        Of the axis below; what is above it, the title of the chart says.
    lines : sequence of Line
        With at least one point in all.
    is_share : bool
        y is a share in [0, 1], written in percent, and the axis has all of it.
    x_is_share : bool
        The same of x.
    as_dots : bool
        Points with whiskers in place of a line with a band.
    diagonal : bool
        The line on which both are equal.
    rule : float, optional
        A level of y that was asked for.
    mark : (x, y), optional
        The point that was chosen.
    """

    title: str
    description: str
    x_label: str
    lines: Sequence[Line]
    is_share: bool = False
    x_is_share: bool = False
    as_dots: bool = False
    diagonal: bool = False
    rule: float | None = None
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    is_share: bool
    is_whole: bool = False

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.is_share:
            return [0, 0.25, 0.5, 0.75, 1]
        step = _round_step((self.high - self.low) / 4)
        if self.is_whole:
            step = max(math.ceil(step), 1)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def written(self, value: float) -> str:
        return f"{value:.0%}" if self.is_share else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.2g}"


def _round_step(rough: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power)


def _scale(values: Sequence[float], start: float, end: float, *, is_share: bool, from_zero: bool) -> _Scale:
    if is_share:
        return _Scale(0, 1, start, end, is_share=True)
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    is_whole = all(float(value).is_integer() for value in values)
    return _Scale(low, high, start, end, is_share=False, is_whole=is_whole)


def clean(text: str) -> str:
    """A text without characters that steer what is around it: controls, marks of direction, halves of pairs."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\t\n" or (unicodedata.category(character) not in ("Cc", "Cs") and character not in DIRECTIONS):
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 32 else "\N{REPLACEMENT CHARACTER}"


DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _safe(text: str) -> Markup:
    return escape(clean(text))


# --- lines and dots ---------------------------------------------------------------------------------------------------


def draw_plot(plot: Plot) -> Markup:
    """A chart with axes, of lines with bands or of dots with whiskers."""
    points = [point for line in plot.lines for point in line.points] + ([plot.mark] if plot.mark else [])
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + [y for line in plot.lines for span in line.spans for y in span]
    across = _scale(xs, LEFT, RIGHT, is_share=plot.x_is_share, from_zero=False)
    up = _scale(ys, BOTTOM, TOP, is_share=plot.is_share, from_zero=True)
    parts = [*_axes(plot, across, up), *_guides(plot, across, up)]
    for line in plot.lines:
        parts += _dots(line, across, up) if plot.as_dots else _line(line, across, up)
    if plot.mark is not None:
        x, y = plot.mark
        parts.append(_circle(across(x), up(y), 5, "mark", f"{across.written(x)}: {up.written(y)}"))
    return _picture("plot", WIDTH, HEIGHT, f"{plot.title}. {plot.description}", parts)


def _picture(kind: str, width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_safe(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def _axes(plot: Plot, across: _Scale, up: _Scale) -> list[str]:
    parts = []
    for value in up.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {up(value):.1f}H{RIGHT}"/>')
        parts.append(_label(LEFT - 7, up(value) + 3.5, up.written(value), "end"))
    for value in across.ticks():
        parts.append(_label(across(value), BOTTOM + 16, across.written(value), "middle"))
    parts.append(_label((LEFT + RIGHT) / 2, HEIGHT - 6, plot.x_label, "middle", "axis"))
    return parts


def _label(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_safe(text)}</text>'


def _guides(plot: Plot, across: _Scale, up: _Scale) -> list[str]:
    """Lines to compare with."""
    parts = []
    if plot.diagonal:
        parts.append(f'<path class="guide" d="M{LEFT} {up(0):.1f}L{RIGHT} {up(1):.1f}"/>')
    if plot.rule is not None:
        parts.append(f'<path class="guide" d="M{LEFT} {up(plot.rule):.1f}H{RIGHT}"/>')
        parts.append(_label(RIGHT, up(plot.rule) - 4, f"asked for: {up.written(plot.rule)}", "end"))
    return parts


def _line(line: Line, across: _Scale, up: _Scale) -> list[str]:
    places = [(across(x), up(y)) for x, y in line.points]
    parts = []
    if line.spans:
        xs = [x for x, _ in places]
        edge = [(x, up(low)) for x, (low, _) in zip(xs, line.spans, strict=True)]
        edge += [(x, up(high)) for x, (_, high) in zip(xs, line.spans, strict=True)][::-1]
        parts.append(f'<path class="band" d="{_path(edge)}Z"/>')
    parts.append(f'<path class="line {line.style}" d="{_path(places)}"/>')
    if len(places) == 1:
        parts.append(_circle(*places[0], 3.5, f"dot {line.style}", line.name))
    return parts


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _dots(line: Line, across: _Scale, up: _Scale) -> list[str]:
    parts = [
        f'<path class="whisker {line.style}" d="M{across(x):.1f} {up(low):.1f}V{up(high):.1f}"/>'
        for (x, _), (low, high) in zip(line.points, line.spans, strict=False)
    ]
    for x, y in line.points:
        told = f"{line.name}: {across.written(x)}, {up.written(y)}"
        parts.append(_circle(across(x), up(y), 3.5, f"dot {line.style}", told))
    return parts


def _circle(x: float, y: float, radius: float, kind: str, told: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{_safe(told)}</title></circle>'


# --- intervals and counts ---------------------------------------------------------------------------------------------


def draw_interval(estimate: float, low: float, high: float, top: float = 1.0) -> Markup:
    """A share with its interval on a scale from 0 to `top`, as wide as the cell that it stands in."""
    at, start, end = (100 * min(value / top, 1) for value in (estimate, low, high))
    return Markup(
        '<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="rail" d="M0 5H100"/>'
        f'<path class="span" d="M{start:.2f} 5H{max(end, start + 0.2):.2f}"/>'
        f'<path class="at" d="M{at:.2f} 0V10"/></svg>'
    )


def draw_map(counts: IntArray, title: str, description: str) -> Markup:
    """A square for each pair of classes, the darker the more rows; for more classes than a table can hold.

    Parameters
    ----------
    counts : int64 array, shape [K, K]
        Rows by given (down) and suggested class (across).
    title, description : str
        Read aloud in place of the picture.
    """
    size = len(counts)
    parts = [f'<path class="frame" d="M0 0H{size}V{size}H0Z"/>']
    off = counts.copy()
    np.fill_diagonal(off, 0)
    for kind, cells in (("same", counts - off), ("moved", off)):
        level = _levels(cells)
        for shade in range(1, LEVELS + 1):
            squares = "".join(f"M{g[1]} {g[0]}h1v1h-1z" for g in np.argwhere(level == shade).tolist())
            if squares:
                parts.append(f'<path class="{kind} shade{shade}" d="{squares}"/>')
    return _picture("map", size, size, f"{title}. {description}", parts)


def _levels(cells: IntArray) -> npt.NDArray[np.int64]:
    """0 where there is nothing, else 1 to `LEVELS`, by the root of the share of the largest."""
    return np.ceil(LEVELS * np.sqrt(cells / max(int(cells.max()), 1))).astype(np.int64)
