"""What a run found, as one HTML page that needs nothing else: no script, no other file, no network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ebomlc.labels import sections
from ebomlc.labels.charts import clean
from ebomlc.labels.page import Findings, Section, Tile, counted, cut, part, percent, span, sure
from ebomlc.records import LabelTable, Sample

SUSPECTS = 24
"""So many rows are shown."""

PICTURE_SIDE = 224
SHOWN_FIELDS, SHOWN_TEXT, SHOWN_CELL = 8, 420, 60
SMALL_PICTURE = 64
"""Images of so few pixels are enlarged without being blurred."""


FIGURES = (sections.show_transition, sections.show_cuts, sections.show_calibration, sections.show_learning_curve)


@dataclass(frozen=True)
class Suspect:
    """A row whose given label is doubted."""

    id: str
    given: str
    suggested: str
    confidence: float
    quality: float
    is_sure: bool
    sample: Sample
    picture: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    n_more_fields: int = 0


def render_report(findings: Findings, show: Callable[[str], Sample]) -> str:
    """The page.

    Parameters
    ----------
    findings : Findings
        What a run left behind.
    show : callable
        From the id of a row to what it looks like.

    Returns
    -------
    str
        HTML in which everything that came from the user's data is escaped. It may be encoded as UTF-8.
    """
    suspects, n_suspects = _suspects(findings.labels, show)
    transition, *figures = (draw(findings) for draw in FIGURES)
    page = _template().render(
        name=findings.name,
        summary=findings.summary,
        sentences=_sentences(findings, n_suspects),
        warnings=_warnings(findings),
        tiles=_tiles(findings, n_suspects),
        noise=sections.show_noise(findings),
        changes=sections.show_changes(findings),
        suspects=suspects,
        n_suspects=n_suspects,
        is_cut=(part(findings, "cuts") or {}).get("quality") is not None,
        is_calibrated=part(findings, "calibration") is not None,
        small=SMALL_PICTURE,
        transition=transition,
        drawn=[section for section in figures if not section.is_empty],
        absent=_absent([section for section in (transition, *figures) if section.is_empty]),
        training=sections.show_training(findings),
        classes=sections.show_classes(findings),
        provenance=sections.show_provenance(findings),
        config=findings.config,
    )
    return page.lstrip()  # what the macros leave before the first tag


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ebomlc.labels", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "sure": sure}
    return environment.get_template("report.html.jinja")


def _absent(sections: Sequence[Section]) -> dict[str, str]:
    """Titles of the parts that are left out, by the reason why."""
    titles: dict[str, list[str]] = {}
    for section in sections:
        titles.setdefault(" ".join(section.words), []).append(section.title)
    return {reason: "; ".join(some) for reason, some in titles.items()}


# --- what was found ---------------------------------------------------------------------------------------------------


def _sentences(findings: Findings, n_suspects: int) -> list[str]:
    summary = findings.summary
    n_noisy = int(summary["n_noisy"])
    share = f" ({n_suspects / n_noisy:.0%})" if n_noisy else ""
    found = f"Of {counted(n_noisy, 'noisy row')}, {n_suspects:,}{share} would get another label than they were given"
    return [f"{found}{_cut_words(findings)}.", _noise_sentence(findings), _classifier_sentence(summary)]


def _cut_words(findings: Findings) -> str:
    cuts = part(findings, "cuts")
    if cuts is None:
        return ""
    if cuts["quality"] is None:
        return f", none of them with a proven precision of {percent(cuts['precision'], 0)}"
    sure_rows, rest = counted(cuts["n_issues"], "row"), cuts["n_review"]
    return f": {sure_rows} with a precision of at least {percent(cuts['precision'], 0)}, {rest:,} to be looked at"


def _noise_sentence(findings: Findings) -> str:
    noise, measured = sections.noise_figures(findings), findings.summary.get("measured_noise")
    if noise is None and measured is None:
        return "How many labels are wrong is not known, for no checked row carries the label it was given."
    guess = "" if noise is None else f"{percent(noise['estimate'])} ({span(noise)} with 95% confidence)"
    if measured is None:
        return f"An estimated {guess} of the given labels are wrong."
    known = f"Measured against the truth, {percent(measured)} of the given labels are wrong"
    return f"{known}; the checked rows alone lead to {guess}." if guess else f"{known}."


def _classifier_sentence(summary: Mapping[str, Any]) -> str:
    if summary.get("test_accuracy") is not None:
        n = counted(int(summary["n_test"]), "test row")
        return f"The classifier is right on {percent(summary['test_accuracy'])} of {n}."
    if summary.get("heldout_accuracy") is not None:
        n = counted(int(summary["n_heldout"]), "checked row")
        return f"The classifier is right on {percent(summary['heldout_accuracy'])} of {n} that it never trained on."
    return "How good the classifier is has not been measured: no test rows were given."


def _warnings(findings: Findings) -> list[str]:
    """What a reader must know before any figure."""
    summary = findings.summary
    lines = []
    if summary.get("diverged"):
        lines.append(f"The training diverged: {summary['diverged']}. The last good epoch was kept.")
    lines += [f"Something went wrong: {symptom['message']}." for symptom in summary.get("symptoms") or ()]
    if summary.get("n_test_overlap"):
        lines.append(f"{summary['n_test_overlap']:,} test rows also train, by content: the test accuracy flatters.")
    if summary.get("skipped"):
        lines.append(f"{counted(len(summary['skipped']), 'input')} could not be read and were left out.")
    return lines


def _tiles(findings: Findings, n_suspects: int) -> list[Tile]:
    summary = findings.summary
    tiles = [
        Tile(f"{summary['n_noisy']:,}", "noisy rows"),
        Tile(f"{summary['n_trusted']:,}", "trusted rows"),
        Tile(f"{n_suspects:,}", "labels in doubt"),
    ]
    noise, measured = sections.noise_figures(findings), summary.get("measured_noise")
    if measured is not None:
        tiles.append(Tile(percent(measured), "labels wrong, as measured"))
    elif noise is not None:
        tiles.append(Tile(percent(noise["estimate"]), f"labels wrong ({span(noise)})"))
    if summary.get("test_accuracy") is not None:
        tiles.append(Tile(percent(summary["test_accuracy"]), "test accuracy"))
    return tiles


# --- suspects ---------------------------------------------------------------------------------------------------------


def _suspects(labels: LabelTable, show: Callable[[str], Sample]) -> tuple[list[Suspect], int]:
    """The rows whose given label is least likely to be right, and how many are doubted at all."""
    differs = np.array(labels.suggested_label != labels.given_label, dtype=bool)
    rows = np.flatnonzero(differs & ~labels.is_trusted & ~np.isnan(labels.label_quality))
    worst = rows[np.argsort(labels.label_quality[rows], kind="stable")][:SUSPECTS]
    return [_suspect(labels, int(row), show(str(labels.id[row]))) for row in worst], len(rows)


def _suspect(labels: LabelTable, row: int, sample: Sample) -> Suspect:
    return Suspect(
        id=labels.id[row],
        given=labels.given_label[row],
        suggested=labels.suggested_label[row],
        confidence=float(labels.suggestion_confidence[row]),
        quality=float(labels.label_quality[row]),
        is_sure=bool(labels.is_label_issue[row]),
        sample=replace(sample, text=cut(sample.text, SHOWN_TEXT)),
        picture=base64.b64encode(sample.png).decode("ascii"),
        fields=tuple((name, cut(cell, SHOWN_CELL)) for name, cell in sample.fields[:SHOWN_FIELDS]),
        n_more_fields=max(len(sample.fields) - SHOWN_FIELDS, 0),
    )
