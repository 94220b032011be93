"""The page says what was found, loads nothing, and runs nothing that came from the data."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ebomlc.labels.page import percent, sure
from ebomlc.labels.report import SUSPECTS, render_report
from ebomlc.records import Sample
from tests.labels.findings import findings_of, labels_of, trust_of

ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- -->",
    "javascript:alert(1)",
    "&lt;b&gt;&amp;",
    "\x00\x1b[31m\x9b\u202e\ud800\r\n",
    "a" * 3000,
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "h1", "h2", "h3", "p"),
    *("dl", "dt", "dd", "div", "span", "small", "b", "s", "bdi", "i", "table", "thead", "tbody", "tr", "th", "td"),
    *("figure", "figcaption", "ol", "li", "img", "details", "summary", "pre", "svg", "path", "text", "circle"),
}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tags, attributes and texts; the nesting must be right."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def nothing(_):
    return Sample("missing", reason="the file is gone")


def render(findings, show=nothing):
    html = render_report(findings, show)
    html.encode("utf-8")
    return Page(html)


def check_harmless(page):
    """Only the page's own tags, no handlers, no address of anything, no script."""
    assert set(page.tags) <= TAGS
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("href", "srcset", "action", "data", "background"), (tag, name)
        if name == "src":
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]*", value)
        if name == "style":
            assert re.fullmatch(r"--shade: [\d.]+", value)
    [style] = [text for text in page.texts if "prefers-color-scheme" in text]
    assert not re.search(r"url\(|@import|expression", style)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("kind", ["text", "row", "image", "missing"])
def test_nothing_of_the_data_becomes_markup(attack, kind):
    names = (attack, f"{attack}!", "fine")
    labels = labels_of(names, names[::-1], [0.1, 0.2, 0.3], ids=[attack, f"2{attack}", f"3{attack}"])
    summary = {
        "data": attack,
        "noise": attack,
        "diverged": attack,
        "symptoms": [{"kind": attack, "message": attack}],
        "commit": attack,
        "versions": {attack: attack, "ebomlc": "0.1.0"},
        "classes": [{"name": name, "given": 1, "suggested": 1, "trusted": 1} for name in names],
    }
    metrics = [{"epoch": 1.0, attack: 2.0}]
    trust = trust_of(names, basis={"reason": attack}, learning_curve=None)
    sample = Sample(kind, png=b"\x89PNG", size=(8, 8), text=attack, fields=((attack, attack),), reason=attack)
    page = render(findings_of(labels, names, trust, metrics, name=attack, config=attack, **summary), lambda _: sample)
    check_harmless(page)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", page.text)


def test_page_forbids_what_it_does_not_use():
    page = render(findings_of(trust=trust_of()))
    check_harmless(page)
    [policy] = [value for tag, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("html", "lang", "en") in page.attributes


def test_three_sentences_say_what_was_found():
    page = render(findings_of(trust=trust_of(), test_accuracy=0.875, n_test=8))
    assert (
        "Of 4 noisy rows, 2 (50%) would get another label than they were given: 300 rows with a precision of at least "
        "90%, 40 to be looked at. An estimated 40.0% (30.0 to 50.0% with 95% confidence) of the given labels are "
        "wrong. The classifier is right on 87.5% of 8 test rows."
    ) in page.text


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        ({}, "How many labels are wrong is not known"),
        ({"measured_noise": 0.25}, "Measured against the truth, 25.0% of the given labels are wrong."),
        ({"heldout_accuracy": 0.5, "n_heldout": 1}, "right on 50.0% of 1 checked row that it never trained on"),
        ({}, "How good the classifier is has not been measured"),
        ({"diverged": "loss is NaN in step 7"}, "The training diverged: loss is NaN in step 7."),
        ({"skipped": [{"name": "a.png", "reason": "is empty"}]}, "1 input could not be read"),
        ({"n_test_overlap": 3}, "3 test rows also train"),
    ],
)
def test_page_says_what_is_and_is_not_known(summary, sentence):
    assert sentence in render(findings_of(**summary)).text


def test_signs_that_something_is_wrong_come_before_every_figure():
    signs = [
        {"kind": "copies", "message": "it learnt to copy"},
        {"kind": "one class", "message": "it's all <b>cats</b>"},
    ]
    text = render(findings_of(symptoms=signs)).text
    places = [text.index(f"Something went wrong: {sign['message']}.") for sign in signs]
    assert places == sorted(places)
    assert places[-1] < text.index("Of 4 noisy rows"), "who reads a page reads its beginning"


@pytest.mark.parametrize("summary", [{}, {"symptoms": []}])
def test_a_run_that_is_well_or_older_than_signs_has_no_warning(summary):
    page = render(findings_of(**summary))
    assert ("p", "class", "warning") not in page.attributes


def test_run_without_figures_says_so_once():
    text = render(findings_of()).text
    assert text.count("It would be in trust.json, which this run has not.") == 2  # of the noise, and of all the rest
    assert "not calibrated: trust the order, not the value" in text
    assert "not calibrated" not in render(findings_of(trust=trust_of())).text


def test_suspects_are_the_worst_noisy_rows():
    asked = []
    page = render(findings_of(trust=trust_of()), lambda row: asked.append(row) or nothing(row))
    assert asked == ["row/1", "row/2"]
    assert "given label right: 10%" in page.text
    assert "row/4" not in page.text  # a trusted row was checked


def test_gallery_is_cut_and_counts_them_all():
    n = 60
    labels = labels_of(["cat"] * n, ["dog"] * n, np.linspace(1, 0, n))
    asked = []
    page = render(findings_of(labels, n_noisy=n), lambda row: asked.append(row) or nothing(row))
    assert asked == [f"row/{k}" for k in range(n - 1, n - 1 - SUSPECTS, -1)]
    assert f"The {SUSPECTS} of 60 rows" in page.text


def test_run_without_suspects_says_so():
    labels = labels_of(["cat", "dog"], ["cat", "dog"], [0.9, 0.9])
    assert "No label is doubted" in render(findings_of(labels)).text


@pytest.mark.parametrize(
    ("sample", "shown"),
    [
        (Sample("text", text="word " * 300), "word word …"),
        (Sample("row", fields=tuple((f"x{k}", str(k)) for k in range(30))), "and 22 more columns"),
        (Sample("row", fields=(("note", "y" * 99),)), f"{'y' * 60} …"),
        (Sample("missing", reason="cat/1.png is gone"), "cat/1.png is gone"),
    ],
)
def test_samples_are_shown_as_what_they_are(sample, shown):
    assert shown in render(findings_of(), lambda _: sample).text


def test_small_pictures_stay_sharp():
    def classes_of(size):
        page = render(findings_of(), lambda _: Sample("image", png=b"x", size=size))
        return [value for tag, name, value in page.attributes if (tag, name) == ("img", "class")]

    assert classes_of((28, 28)) == ["small", "small"]
    assert classes_of((224, 100)) == []


def test_hundred_classes_make_a_page_of_reasonable_size():
    names = tuple(f"class {k}" for k in range(100))
    rng = np.random.default_rng(0)
    given, suggested = ([names[k] for k in rng.integers(0, 100, 5000)] for _ in range(2))
    labels = labels_of(given, suggested, rng.random(5000))
    html = render_report(findings_of(labels, names, trust_of(names)), nothing)
    check_harmless(Page(html))
    assert len(html) < 300_000


def test_shares_are_written_as_people_read_them():
    assert [percent(0.1234), percent(None), percent(1, 0)] == ["12.3%", "–", "100%"]  # noqa: RUF001
    shown = [sure(probability).replace("\xa0", " ") for probability in (1.0, 0.995, 0.994, 0.006, 0.005, 0.0)]
    assert shown == ["> 99%", "> 99%", "99%", "1%", "< 1%", "< 1%"]
