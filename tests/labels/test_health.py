"""Each sign is seen on a real run that has it, and on none that is well."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from ebomlc import fit
from ebomlc.errors import DataWarning
from ebomlc.labels.health import COPIED, ENOUGH_ROWS, ENOUGH_STEPS, find_symptoms, unseen_error
from ebomlc.records import LabelTable

NAMES = np.array(["a", "b", "c"], dtype=object)
DONE = [{"epoch": 1, "step": ENOUGH_STEPS}]


def table(given, suggested, predicted=None, n_trusted=0):
    given, suggested = NAMES[given], NAMES[suggested]
    n = len(given)
    return LabelTable(
        id=np.arange(n).astype(str).astype(object),
        given_label=given,
        suggested_label=suggested,
        suggestion_confidence=np.ones(n),
        label_quality=np.ones(n),
        is_label_issue=given != suggested,
        predicted_label=suggested if predicted is None else NAMES[predicted],
        predicted_confidence=np.ones(n),
        is_trusted=np.arange(n) < n_trusted,
    )


def kinds(*arguments):
    return [symptom.kind for symptom in find_symptoms(*arguments)]


@pytest.fixture
def given():
    return np.random.default_rng(0).integers(3, size=300)


def change(labels, share):
    return np.where(np.arange(len(labels)) < share * len(labels), (labels + 1) % 3, labels)


def test_copies_are_judged_by_what_the_checked_rows_say(given):
    kept, hardly, enough = given, change(given, 0.8 * COPIED * 0.3), change(given, 1.2 * COPIED * 0.3)
    assert kinds(table(given, kept), DONE, 0.3, None, {}) == ["copies"]
    assert kinds(table(given, hardly), DONE, 0.3, None, {}) == ["copies"]
    assert kinds(table(given, enough), DONE, 0.3, None, {}) == []
    assert kinds(table(given, kept), DONE, 0.04, None, {}) == [], "a set with hardly a wrong label"
    assert kinds(table(given, kept), DONE, None, None, {}) == [], "nothing is known"
    few = ENOUGH_ROWS - 1
    assert kinds(table(given[:few], given[:few]), DONE, 0.3, None, {}) == []
    begun = [{"epoch": 1, "step": ENOUGH_STEPS - 1}]
    assert kinds(table(given, kept), begun, 0.3, None, {}) == [], "nothing can be learnt yet"
    assert kinds(table(given, kept), [], 0.3, None, {}) == []


def test_without_pairs_copies_are_judged_by_what_the_classifier_can_do(given):
    predicted = change(given, 0.4)
    assert kinds(table(given, given, predicted), DONE, None, 0.1, {}) == ["copies"]
    assert kinds(table(given, given, predicted), DONE, None, 0.4, {}) == [], "a hard set without wrong labels"


def test_one_class_is_judged_by_what_is_usual(given):
    one = np.where(np.arange(300) < 210, 0, given)
    assert kinds(table(given, one), DONE, None, None, {}) == ["one class", "one class"], "suggested and predicted"
    assert kinds(table(given, given, one), DONE, None, None, {}) == ["one class"]
    frequent = np.where(np.arange(300) < 250, 0, given)
    assert kinds(table(frequent, np.zeros(300, dtype=int)), DONE, None, None, {}) == ["one class"] * 2
    assert kinds(table(frequent, frequent), DONE, None, None, {}) == [], "a set with a frequent class"
    checked = table(given, one, n_trusted=100)
    assert kinds(checked, DONE, None, None, {}) == [], "so frequent among the checked rows"


def test_a_wild_barrier_is_named_by_its_epoch(given):
    rows = [{"epoch": 1, "beta": 2.0}, {"epoch": 2, "beta": 3e5}, {"epoch": 3, "beta": 4.0}]
    (found,) = find_symptoms(table(given, given), rows, None, None, {})
    assert found.kind == "barrier"
    assert "3e+05 on average in epoch 2" in found.message
    assert kinds(table(given, given), [{"epoch": 1, "beta": 900.0}, {"epoch": 2, "loss": 1.0}], None, None, {}) == []


def test_trusted_rows_that_are_contradicted_are_named(given):
    trusted = {f"row {k}": k < 11 for k in range(100)}
    (found,) = find_symptoms(table(given, given), DONE, None, None, trusted)
    assert found.kind == "trusted set"
    assert "11 of the 100 trusted rows" in found.message
    assert "row 0, row 1, " in found.message
    assert kinds(table(given, given), DONE, None, None, {name: k < 10 for k, name in enumerate(trusted)}) == []
    assert kinds(table(given, given), DONE, None, None, {f"row {k}": True for k in range(39)}) == [], "too few to say"


def test_error_on_unseen_rows():
    images, digits = load_digits(return_X_y=True)
    assert unseen_error(images[:300] / 16, digits[:300], 0) == pytest.approx(0.07, abs=0.05)
    assert unseen_error(images[:300] / 16, digits[:300], 0) == unseen_error(images[:300] / 16, digits[:300], 0)
    shuffled = np.random.default_rng(0).permutation(digits[:300])
    assert unseen_error(images[:300] / 16, shuffled, 0) == pytest.approx(0.9, abs=0.1)
    assert unseen_error(images[:300], np.zeros(300, dtype=int), 0) is None
    assert unseen_error(images[:20], digits[:20], 0) is None


# --- real runs --------------------------------------------------------------------------------------------------------

DIGITS = {"noise": "flip:0.4", "n_trusted": 100, "folds": 0}


def symptoms(summary):
    return [symptom["kind"] for symptom in summary["symptoms"]]


@contextmanager
def told(said):
    """One of the warnings inside says so; there may be others."""
    with pytest.warns(DataWarning) as found:
        yield
    assert any(said in str(warning.message) for warning in found)


@pytest.mark.parametrize("method", ["ebomlc", "glc"])
def test_a_run_that_is_well_has_none(method, tmp_path):
    assert symptoms(fit("digits", **DIGITS, method=method, epochs=20, out=tmp_path / "run").summary) == []


@pytest.mark.parametrize("pairs", [True, False])
def test_a_corrector_that_copies(pairs, tmp_path):
    """What the published code computes does so on digits."""
    with told("learnt to copy"):
        run = fit("digits", **DIGITS, pairs=pairs, method="ebomlc-literal", epochs=20, out=tmp_path / "run")
    assert "copies" in symptoms(run.summary)


def test_a_training_that_collapses(tmp_path):
    config = tmp_path / "asked.toml"
    config.write_text("[training]\nlr = 3.0\n")
    with told("collapsed to one class"):
        run = fit("digits", **DIGITS, method="ce", epochs=20, config=config, out=tmp_path / "run")
    assert "one class" in symptoms(run.summary)
    assert "trusted set" not in symptoms(run.summary), "it would contradict right ones as well"


def test_a_barrier_that_explodes(tmp_path):
    with told("barrier's coefficient"):
        run = fit("digits", **DIGITS, method="ebomlc", settings={"xi": 1e4}, epochs=2, out=tmp_path / "run")
    assert "barrier" in symptoms(run.summary)


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
@pytest.mark.parametrize("flipped", [0.0, 0.2])
def test_a_trusted_set_that_is_wrong_itself(load, flipped, tmp_path):
    inputs, right = load(return_X_y=True)
    rng = np.random.default_rng(0)
    order, n_classes = rng.permutation(len(right))[:600], right.max() + 1
    inputs, right = inputs[order], right[order]

    def spoil(labels, share):
        wrong = rng.random(len(labels)) < share
        return np.where(wrong, (labels + rng.integers(1, n_classes, len(labels))) % n_classes, labels).astype(str)

    trusted = inputs[:100], spoil(right[:100], flipped)
    noisy = inputs[100:], spoil(right[100:], 0.25)
    if not flipped:
        assert symptoms(fit(noisy, trusted=trusted, epochs=60, out=tmp_path / "run").summary) == []
        return
    with told("are their checked labels wrong"):
        run = fit(noisy, trusted=trusted, epochs=60, out=tmp_path / "run")
    assert "trusted set" in symptoms(run.summary)
