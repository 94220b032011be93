"""The verdict as JSON and as sentences, with everything known and with nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ebomlc.labels.calibration import fit_pools, join_by_fold, make_folds, measure_reliability
from ebomlc.labels.cuts import find_cuts, suspects_of
from ebomlc.labels.learning_curve import CurveTrial, curve_points, extrapolate
from ebomlc.labels.noise_rate import Assessment, class_shares, noise_share, transition_shares
from ebomlc.labels.pairs import find_pairs
from ebomlc.labels.trust import estimate_noise
from ebomlc.labels.verdict import Calibration, Verdict

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "<b>nine</b>")
N = 250


@pytest.fixture(scope="module")
def verdict(digits):
    rows, rest = np.arange(N), np.arange(N, len(digits.right))
    pairs, opinions = digits.pairs(rows), digits.opinions[:, rows]
    fold = make_folds(pairs.right, 5, seed=0)
    pools = fit_pools(opinions, pairs, fold)
    joined = join_by_fold(pools, fold, opinions, pairs.given)
    of_rest = np.mean([pool.join(digits.opinions[:, rest], digits.given[rest]) for pool in pools], axis=0)
    assessment = Assessment(joined, of_rest, digits.given[rest])
    cuts = find_cuts(pairs, suspects_of(joined, pairs.given), suspects_of(of_rest, digits.given[rest]), 0.8)
    hits = joined.argmax(1) == pairs.right
    reliability = [measure_reliability(p.max(1), p.argmax(1) == pairs.right) for p in (opinions[0], joined)]
    trials = [CurveTrial(60, rows, hits & (rows % 3 > 0)), CurveTrial(200, rows, hits)]
    provenance = np.full(N, "random", dtype=object)
    estimate = estimate_noise(pairs.given, pairs.right, provenance, np.full(N, np.nan), np.full(10, 100))
    return Verdict(
        class_names=NAMES,
        n_checked=N,
        n_suspects=0,
        n_rest=len(rest),
        pairs=pairs,
        folds=5,
        reason="5 short trainings, each without a part of them",
        calibration=Calibration("given", N, *reliability),
        noise=noise_share(pairs, assessment),
        noise_of_pairs=estimate,
        class_noise=class_shares(pairs, assessment, 10),
        class_rows=np.bincount(digits.given, minlength=10).tolist(),
        transition=transition_shares(pairs, assessment, 10),
        precision=0.8,
        cuts=cuts,
        n_issues=120,
        n_review=33,
        curve=curve_points(trials),
        ahead=extrapolate(trials, N, 2 * N, seed=0),
    )


@pytest.fixture
def ignorant(verdict):
    nothing = find_pairs(*(np.empty(0, dtype=np.int64),) * 2, np.empty(0, dtype=object), np.empty(0))
    return replace(
        verdict,
        pairs=nothing,
        folds=0,
        reason="no trusted row carries the label it was given",
        calibration=None,
        noise=None,
        noise_of_pairs=None,
        class_noise=class_shares(nothing, None, 10),
        transition=transition_shares(nothing, None, 10),
        cuts=None,
        curve=(),
        ahead=None,
    )


def test_everything_is_strict_json(verdict, ignorant):
    for one in (verdict, ignorant):
        again = json.loads(json.dumps(one.to_dict(), allow_nan=False))
        assert again == one.to_dict()
        assert list(again) == [
            "version", "class_names", "basis", "calibration", "noise", "transition", "cuts", "learning_curve",
            "sentences",
        ]  # fmt: skip


def test_figures_are_those_of_the_records(verdict):
    found = verdict.to_dict()
    assert found["basis"]["n_pairs"] == N
    assert found["noise"]["method"] == "assisted"
    assert found["noise"]["low"] == verdict.noise.interval.low
    assert found["noise"]["pairs"]["low"] == verdict.noise_of_pairs.interval.low
    assert found["noise"]["low"] > found["noise"]["pairs"]["low"]
    assert [row["name"] for row in found["noise"]["classes"]] == list(NAMES)
    assert found["calibration"]["after"]["calibration_error"] < found["calibration"]["before"]["calibration_error"]
    assert np.sum(found["transition"]["n"]) == N
    assert found["transition"]["estimate"][4][4] == pytest.approx(1 - found["noise"]["classes"][4]["estimate"])
    assert found["cuts"]["quality"] == verdict.cuts.chosen.quality
    assert [point["n_trusted"] for point in found["learning_curve"]["points"]] == [60, 200]
    assert found["learning_curve"]["twice"]["n_trusted"] == 2 * N


def test_what_is_not_known_is_none(ignorant):
    found = ignorant.to_dict()
    assert [key for key, part in found.items() if part is None] == [
        "calibration", "noise", "transition", "cuts", "learning_curve",
    ]  # fmt: skip
    assert found["sentences"] == [
        "suggested another label for 120 of 1,397 noisy rows",
        "confidences are not calibrated: no trusted row carries the label it was given",
    ]
    assert ignorant.to_summary()["target"] is None


def test_a_class_without_pairs_has_no_estimate(verdict):
    without = verdict.pairs[verdict.pairs.given != 3]
    found = replace(
        verdict, class_noise=class_shares(without, None, 10), transition=transition_shares(without, None, 10)
    )
    three = found.to_dict()["noise"]["classes"][3]
    assert (three["estimate"], three["low"], three["high"], three["n"]) == (None, 0, 1, 0)
    assert found.to_dict()["transition"]["estimate"][3] == [None] * 10


def test_too_many_classes_have_shares_by_class_and_no_matrix(verdict):
    found = replace(verdict, transition=()).to_dict()
    assert found["transition"] is None
    assert len(found["noise"]["classes"]) == 10


def test_sentences_say_the_figures(verdict):
    cut, noise, calibration, curve = verdict.sentences()
    assert f"{verdict.noise.interval.estimate:.1%}" in noise
    assert "250 checked rows" in noise
    assert "picked at random" not in noise
    assert f"off by {100 * verdict.calibration.after.calibration_error:.1f} points" in calibration
    assert cut.startswith("120 of 1,397 labels of noisy rows are called wrong")
    assert "500 might bring" in curve
    beyond_reach = replace(verdict, cuts=replace(verdict.cuts, chosen=None)).sentences()[0]
    assert "no cut is sure" in beyond_reach
