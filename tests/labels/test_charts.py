"""Charts say in numbers what they draw, and nothing in them can break out of the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ebomlc.labels.charts import BOTTOM, LEFT, RIGHT, TOP, Line, Plot, clean, draw_interval, draw_map, draw_plot

ATTACK = '</svg><script>alert("x")</script>\x00\x1b[31m\ud800\u202e'


def parse(svg):
    """The elements of a drawing; raises where it is not well-formed."""
    return ElementTree.fromstring(str(svg))


def of_class(root, name):
    return [each for each in root.iter() if name in each.get("class", "").split()]


def plot(*lines, **options):
    return parse(draw_plot(Plot("Title", "What it shows.", "rows", lines, **options)))


def test_points_stand_where_the_axes_say():
    root = plot(Line("a", [(0, 0.0), (10, 1.0)]), is_share=True)
    [line] = of_class(root, "line")
    assert line.get("d") == f"M{LEFT:.1f} {BOTTOM:.1f}L{RIGHT:.1f} {TOP:.1f}"
    assert [each.text for each in of_class(root, "tick")][:5] == ["0%", "25%", "50%", "75%", "100%"]
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Title. What it shows."


def test_everything_drawn_is_within_the_axes():
    line = Line("a", [(5, 3.0), (6, -2.0)], spans=[(2.0, 4.5), (-3.0, 0.0)])
    root = plot(line, mark=(12, 2.0), as_dots=True)
    for dot in root.iter("circle"):
        assert LEFT <= float(dot.get("cx")) <= RIGHT
        assert TOP <= float(dot.get("cy")) <= BOTTOM
    ends = [float(y) for each in of_class(root, "whisker") for y in re.findall(r"[ V]([-\d.]+)", each.get("d"))]
    assert len(ends) == 4
    assert all(TOP <= y <= BOTTOM for y in ends)


def test_a_band_holds_its_line():
    root = plot(Line("a", [(0, 0.5), (1, 0.5)], spans=[(0.4, 0.6), (0.4, 0.6)]), is_share=True, rule=0.9)
    assert len(of_class(root, "band")) == 1
    assert "asked for: 90%" in [each.text for each in root.iter("text")]


@pytest.mark.parametrize("points", [[(1, 2.0)], [(1, 2.0), (2, 2.0)], [(1, 0.0), (2, 0.0)], [(1, 1e-9), (2, 2e9)]])
def test_flat_and_extreme_lines_are_drawn(points):
    root = plot(Line("a", points))
    assert of_class(root, "line")
    assert "nan" not in ElementTree.tostring(root, "unicode")
    assert (len(points) == 1) == bool(of_class(root, "dot"))


def test_texts_are_escaped_and_cleaned():
    svg = draw_plot(Plot(ATTACK, ATTACK, ATTACK, [Line(ATTACK, [(0, 1.0)])], as_dots=True))
    parse(svg)
    assert "<script" not in svg
    svg.encode("utf-8")


def test_clean_shows_what_steers():
    assert clean("a\x1b[0m\n\t") == "a\u241b[0m\n\t"
    assert clean("x\u202ey\x7f\x85\ud800") == "x\ufffdy\ufffd\ufffd\ufffd"
    assert clean("Überraschung 日本語 العربية 👩\u200d🔬") == "Überraschung 日本語 العربية 👩\u200d🔬"


def test_interval_is_drawn_on_its_scale():
    root = parse(draw_interval(0.2, 0.1, 0.3, top=0.4))
    assert [each.get("d") for each in root] == ["M0 5H100", "M25.00 5H75.00", "M50.00 0V10"]


def test_epochs_are_whole():
    ticks = [each.text for each in of_class(plot(Line("a", [(1, 0.0), (10, 1.0)]), is_share=True), "tick")]
    assert ticks[5:] == ["3", "6", "9"]


def test_map_has_a_square_for_each_pair_that_occurs():
    counts = np.zeros((100, 100), np.int64)
    counts[np.arange(100), np.arange(100)] = 50
    counts[3, 7], counts[99, 0] = 16, 1
    root = parse(draw_map(counts, "Map", "Of 100 classes."))
    squares = {each.get("class"): each.get("d").count("M") for each in root if "shade" in each.get("class")}
    assert squares == {"same shade5": 100, "moved shade5": 1, "moved shade2": 1}
    assert [each.get("d") for each in of_class(root, "moved")] == ["M0 99h1v1h-1z", "M7 3h1v1h-1z"]


def test_map_of_nothing_is_empty():
    assert len(parse(draw_map(np.zeros((20, 20), np.int64), "Map", "Nothing."))) == 1
