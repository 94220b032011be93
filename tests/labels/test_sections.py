"""Each part of the page shows the figures that are there, and says why where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from ebomlc.labels import sections
from ebomlc.labels.sections import count_changes
from tests.labels.findings import NAMES, findings_of, labels_of, trust_of


def texts(grid):
    return [[str(cell.content) for cell in row] for row in grid.rows]


def test_changes_count_noisy_rows_only():
    assert count_changes(findings_of().labels, NAMES).tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 1]]


def test_matrix_names_its_lines_and_shades_their_shares():
    [grid] = sections.show_changes(findings_of()).grids
    assert grid.header == ("given ↓", *NAMES)
    assert texts(grid)[1] == ["cat", "1", "·", "1"]
    assert [cell.shade for cell in grid.rows[1][1:]] == [0.5, 0, 0.5]
    assert [cell.is_same for cell in grid.rows[1][1:]] == [False, True, False]


def test_many_classes_are_a_map_and_a_list():
    names = [f"class {k}" for k in range(100)]
    rng = np.random.default_rng(0)
    given = [names[k] for k in rng.integers(0, 100, 3000)]
    labels = labels_of(given, [names[0]] * 3000, rng.random(3000))
    section = sections.show_changes(findings_of(labels, names))
    assert len(section.charts) == 1
    [most] = section.grids
    assert len(most.rows) == sections.SHOWN_CHANGES
    counts = [int(row[1]) for row in texts(most)]
    assert counts == sorted(counts, reverse=True)
    assert section.charts[0].caption.startswith(f"100 classes; {given.count('class 0')} of 3,000 rows keep")


def test_noise_of_each_class_that_was_checked():
    section = sections.show_noise(findings_of(trust=trust_of()))
    [grid] = section.grids
    assert [row[0] for row in texts(grid)] == ["All rows", *NAMES]
    assert texts(grid)[0][2:] == ["40.0%", "30.0 to 50.0%"]
    assert "calibrated suggestions on all rows" in section.words[0]
    assert "44.0% (30.0 to 59.0%)" in section.words[1]


def test_noise_of_a_run_without_trust_file():
    estimate = {"n": 9, "estimate": 0.0, "low": 0.0, "high": 0.3, "random": False}
    section = sections.show_noise(findings_of(noise_estimate=estimate))
    assert "as if they had been picked at random" in section.words[0]
    assert texts(section.grids[0])[0][2:] == ["0.0%", "0.0 to 30.0%"]


def test_noise_of_many_classes_is_cut():
    names = [f"class {k}" for k in range(100)]
    [grid] = sections.show_noise(findings_of(trust=trust_of(names))).grids
    assert len(grid.rows) == 1 + sections.SHOWN_CLASSES
    assert "70 more classes" in grid.note


def test_transition_has_its_intervals():
    [grid] = sections.show_transition(findings_of(trust=trust_of())).grids
    assert texts(grid)[0] == ["bird", "50%", "50%", "50%"]
    assert grid.rows[0][1].note == "40 to 60"
    assert texts(grid)[2] == ["dog", "–", "–", "–"]  # noqa: RUF001 - the dash of the page


def test_precision_is_drawn_with_the_cut():
    section = sections.show_cuts(findings_of(trust=trust_of()))
    picture = section.charts[0].picture
    assert "300 rows with a label quality up to 0.2, at least 90% have a wrong label" in section.words[0]
    assert "From 100% wrong labels among 100 rows to 95% among 300." in picture
    assert picture.count('class="mark"') == 1


def test_without_a_sure_cut_the_page_says_so():
    trust = trust_of()
    trust["cuts"] = {**trust["cuts"], "quality": None}
    section = sections.show_cuts(findings_of(trust=trust))
    assert "No cut is sure to reach a precision of 90%: look at the 40" in section.words[0]
    assert 'class="mark"' not in section.charts[0].picture


def test_reliability_has_the_bins_that_hold_rows():
    section = sections.show_calibration(findings_of(trust=trust_of()))
    assert section.charts[0].picture.count("<circle") == 2
    assert "Calibration error 0.120 before and 0.020 after" in section.charts[0].picture
    assert texts(section.grids[0])[2] == ["AUROC", "–", "–"]  # noqa: RUF001


def test_learning_curve_has_what_twice_as_many_bring():
    section = sections.show_learning_curve(findings_of(trust=trust_of()))
    assert "100, about 80% of the suggestions would be right (60.0 to 90.0%)" in section.words[0]
    assert section.charts[0].picture.count('class="mark"') == 1


@pytest.mark.parametrize(
    ("show", "name"),
    [
        (sections.show_noise, "noise"),
        (sections.show_transition, "transition"),
        (sections.show_cuts, "cuts"),
        (sections.show_calibration, "calibration"),
        (sections.show_learning_curve, "learning_curve"),
    ],
)
def test_missing_figures_say_why(show, name):
    for trust, reason in (
        (None, "trust.json"),
        (trust_of(**{name: None}), "five folds"),
        (trust_of(**{name: None}, basis=None), "given"),
    ):
        section = show(findings_of(trust=trust))
        assert section.is_empty
        assert reason in section.words[0]


def test_a_large_matrix_is_named_and_one_too_large_is_not():
    names = tuple(f"class {k}" for k in range(300))
    for trust, words in (
        (trust_of(names), "The matrix of 300 classes is in trust.json."),
        (trust_of(names, transition=None), "The share of wrong labels by class is in trust.json."),
    ):
        assert sections.show_transition(findings_of(names=names, trust=trust)).words == (words,)


def test_training_curves_of_what_was_recorded():
    metrics = [
        {"epoch": 1.0, "step": 9.0, "lr": 0.1, "my_figure": 5.0, "loss": 2.0, "heldout_accuracy": None, "seconds": 1.0},
        {
            "epoch": 2.0,
            "step": 18.0,
            "lr": 0.1,
            "my_figure": np.inf,
            "loss": 1.0,
            "heldout_accuracy": None,
            "seconds": 2.0,
        },
    ]
    section = sections.show_training(findings_of(metrics=metrics))
    assert [chart.title for chart in section.charts] == ["Lower loss", "My figure"]
    assert "2 in the first epoch, 1 in the last" in section.charts[0].picture
    assert sections.show_training(findings_of()).is_empty


def test_classes_have_the_figures_that_are_known():
    classes = [
        {"name": "bird", "given": 1200, "suggested": 1, "trusted": 2, "suggested_right": None, "test_recall": 0.5},
        {"name": "cat", "given": 0, "suggested": 1, "trusted": 2, "suggested_right": None, "test_recall": None},
    ]
    [grid] = sections.show_classes(findings_of(classes=classes)).grids
    assert grid.header == ("Class", "given", "suggested", "trusted", "recall")
    assert texts(grid)[0] == ["bird", "1,200", "1", "2", "50.0%"]
    assert sections.show_classes(findings_of()).is_empty


def test_provenance_leaves_out_what_is_not_known():
    overlap = {"within": 1500, "disagreeing": 3}
    facts = dict(texts(sections.show_provenance(findings_of(overlap=overlap, commit=None)).grids[0]))
    assert facts["Rows of equal content"] == "1,500, of which 3 under different labels"
    assert facts["Time"] == "61 s, of which 50 s training"
    assert "Commit" not in facts
