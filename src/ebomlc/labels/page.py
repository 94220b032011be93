"""What the page of a run is made of: what is known of the run, and the parts it is shown in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ebomlc.records import LabelTable

NOTHING = "\N{EN DASH}"
"""Stands where there is no figure."""


@dataclass(frozen=True)
class Findings:
    """Everything that a run folder says of its run.

    Attributes
    ----------
    name : str
        The folder.
    summary : mapping
        ``summary.json``.
    config : str
        ``config.toml``.
    labels : LabelTable
        ``labels.parquet``.
    class_names : tuple of str, length K
        In the order of the model's outputs.
    metrics : sequence of mapping of str to float or None
        ``metrics.csv``, a row an epoch.
    trust : mapping or None
        ``trust.json``; None in a run without one.
    """

    name: str
    summary: Mapping[str, Any]
    config: str
    labels: LabelTable
    class_names: tuple[str, ...]
    metrics: Sequence[Mapping[str, float | None]]
    trust: Mapping[str, Any] | None


@dataclass(frozen=True)
class Tile:
    """A figure that stands for itself."""

    figure: str
    words: str


@dataclass(frozen=True)
class Chart:
    """A picture and what to see in it; the legend pairs a style of `ebomlc.labels.charts.Line` with its meaning."""

    picture: Markup
    caption: str = ""
    title: str = ""
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cell:
    """One of a table; `shade` in [0, 1] colours it, as what moved or as what stayed the `same`; `note` stands below."""

    content: str | Markup
    shade: float = 0.0
    is_same: bool = False
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: the first cell of a row names it, the others are figures."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_matrix: bool = False
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    words: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    grids: tuple[Grid, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing is drawn: the words say why."""
        return not self.charts and not self.grids


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as people read it; a dash for None."""
    return NOTHING if share is None else f"{share:.{digits}%}"


def sure(probability: float) -> str:
    """A probability in whole percent that never says that something is certain."""
    if probability >= 0.995:
        return ">\N{NO-BREAK SPACE}99%"
    return "<\N{NO-BREAK SPACE}1%" if probability <= 0.005 else f"{probability:.0%}"


def part(findings: Findings, name: str) -> Any:  # noqa: ANN401 - a part of trust.json
    """A part of ``trust.json``; None where it cannot be known, and in a run without that file."""
    return None if findings.trust is None else findings.trust.get(name)


def span(figures: Mapping[str, Any]) -> str:
    """An interval of shares."""
    return f"{100 * figures['low']:.1f} to {percent(figures['high'])}"


def counted(n: int, thing: str) -> str:
    """So many of a thing."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def cut(text: str, longest: int) -> str:
    """A text, with an ellipsis where the rest is left out."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()} …"
