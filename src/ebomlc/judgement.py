"""What a trained method and the checked rows together say of every label, and how far that is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ebomlc.crossfit import CrossFit, cross_fit
from ebomlc.errors import TrainingDivergedError
from ebomlc.labels.calibration import Pool, fit_temperature, join_by_fold, make_folds, measure_reliability
from ebomlc.labels.correct import ask, correct, with_distributions
from ebomlc.labels.cuts import Cuts, find_cuts, suspects_of
from ebomlc.labels.learning_curve import curve_points, extrapolate
from ebomlc.labels.noise_rate import Assessment, class_shares, noise_share, transition_shares
from ebomlc.labels.pairs import CheckedPairs, find_pairs
from ebomlc.labels.trust import estimate_noise
from ebomlc.labels.verdict import Calibration, Verdict
from ebomlc.methods import find_method
from ebomlc.preparation import Job, Say
from ebomlc.records import NO_LABEL, FloatArray, IntArray, LabelTable
from ebomlc.training import engine

FOLDS = 5
ENOUGH_PAIRS = 50
"""Fewer rows can calibrate nothing."""

ASKED_AT_ONCE = 1000
LARGEST_TRANSITION = 200
"""Classes of which a matrix of shares, with an interval each, is still read by anybody: it has the square of them."""


@dataclass(frozen=True)
class Judgement:
    """The label table, and what is known of it."""

    labels: LabelTable
    verdict: Verdict


@dataclass(frozen=True)
class _Basis:
    """What the figures of a verdict come from.

    Attributes
    ----------
    reason : str
        How confidences are calibrated, or why they are not.
    pairs, assessment : optional
        Checked pairs that no model was shown which speaks of them, and what the models say of them and of the rest.
    folds : int
        Trainings without some of the pairs.
    calibration : Calibration, optional
    temperature : Pool, optional
        The main model's, where only that can be known.
    cross : CrossFit, optional
        Where the assessment comes from, unless from watched rows.
    """

    reason: str
    pairs: CheckedPairs | None = None
    assessment: Assessment | None = None
    folds: int = 0
    calibration: Calibration | None = None
    temperature: Pool | None = None
    cross: CrossFit | None = None


def judge(job: Job, say: Say | None = None) -> Judgement:
    """Suggest a label for every row of a job whose method is trained, and say how far to trust that.

    Parameters
    ----------
    job : Job
        Trained; its method is left as it is, torch's global generator is not.
    say : callable, optional
        Takes a line about what takes long.

    Returns
    -------
    Judgement
        With enough checked pairs the suggestions are those of `ebomlc.crossfit`, calibrated; else the method's own,
        calibrated where enough rows were only watched. A trusted row keeps its checked label.
    """
    pool = job.pool
    pairs = find_pairs(pool.given, pool.right, pool.provenance, pool.weights)
    basis = _find_basis(job, pairs, say)
    cuts = _cut(job, basis)
    labels = _label_table(job, basis, cuts)
    return Judgement(labels, _verdict(job, labels, pairs, basis, cuts))


# --- what the checked rows can be used for ----------------------------------------------------------------------------


def _find_basis(job: Job, pairs: CheckedPairs, say: Say | None) -> _Basis:
    folds, why_not = _choose_folds(job, pairs)
    if folds:
        if say is not None:
            say(f"calibrating on {len(pairs):,} checked rows: short trainings that are not shown a part of them")
        try:
            return _cross_fitted(job, pairs, folds)
        except TrainingDivergedError:
            why_not = "a training without some of the checked rows diverged"
    return _watched(job, pairs, why_not)


def _choose_folds(job: Job, pairs: CheckedPairs) -> tuple[int, str]:
    """How many trainings are to leave some checked rows out; 0 with the reason why none."""
    wanted = job.config.trust.folds
    if wanted == 0:
        return 0, "--folds is 0"
    if len(pairs) < ENOUGH_PAIRS:
        return 0, f"{len(pairs):,} trusted rows say what a label was before the check, and {ENOUGH_PAIRS} are needed"
    if find_method(job.config.method.name).needs_truth:
        return 0, f"method {job.config.method.name!r} is shown every right label"
    if wanted is None and job.encoded.ndim != 2:
        return 0, "trainings on images take long, and --folds asks for none"
    return wanted or FOLDS, ""


def _cross_fitted(job: Job, pairs: CheckedPairs, folds: int) -> _Basis:
    cross = cross_fit(job, pairs, folds)
    reason = f"{folds} short trainings, each without a part of them"
    calibration = _calibration_of(pairs, cross.own, cross.assessment.of_pairs)
    return _Basis(reason, pairs, cross.assessment, folds, calibration, cross=cross)


def _watched(job: Job, pairs: CheckedPairs, why_not: str) -> _Basis:
    """Calibration on trusted rows that never trained, where there are enough."""
    heldout = job.pool.split.heldout
    kept = pairs[np.isin(pairs.rows, heldout)]
    if len(kept) >= ENOUGH_PAIRS:
        return _watched_pairs(job, kept, why_not)
    if len(heldout) >= ENOUGH_PAIRS:
        return _watched_inputs(job, heldout, why_not)
    return _Basis(why_not)


def _watched_pairs(job: Job, kept: CheckedPairs, why_not: str) -> _Basis:
    """A temperature for the method's suggestions, which changes none of them."""
    noisy = job.pool.split.noisy
    own, rest = _suggested(job, kept.rows), _suggested(job, noisy)
    joined, pools = _temper(own, kept.right, job.config.seed)
    of_rest = np.mean([pool.join(rest[None], None) for pool in pools], axis=0)
    reason = f"those that were only watched; {why_not}"
    calibration = _calibration_of(kept, own, joined)
    return _Basis(reason, kept, Assessment(joined, of_rest, job.pool.given[noisy]), calibration=calibration)


def _watched_inputs(job: Job, heldout: IntArray, why_not: str) -> _Basis:
    """The main model's temperature, where no given label is known."""
    predicted, right = _predicted(job, heldout), job.pool.right[heldout]
    joined, _ = _temper(predicted, right, job.config.seed)
    hits = predicted.argmax(1) == right
    before, after = (measure_reliability(p.max(1), hits) for p in (predicted, joined))
    reason = f"those that were only watched, and of the label given the input alone; {why_not}"
    calibration = Calibration("input", len(heldout), before, after)
    return _Basis(reason, calibration=calibration, temperature=fit_temperature(predicted, right))


def _temper(own: FloatArray, right: IntArray, seed: int) -> tuple[FloatArray, list[Pool]]:
    """Distributions [n, K] tempered by what rows in other folds say, and the temperature that each fold got."""
    fold = make_folds(right, FOLDS, seed)
    pools = [fit_temperature(own[fold != k], right[fold != k]) for k in range(FOLDS)]
    return join_by_fold(pools, fold, own[None], None), pools


def _suggested(job: Job, rows: IntArray) -> FloatArray:
    """What the trained method suggests [n, K] for rows that carry a given label."""
    return np.concatenate(
        [ask(job.method, job.encoded[some], job.pool.given[some]).suggested for some in _chunks(rows)]
    )


def _predicted(job: Job, rows: IntArray) -> FloatArray:
    """What the main model says [n, K] from the inputs alone."""
    device = job.heldout.inputs.device
    parts = [engine.predict(job.method, torch.as_tensor(job.encoded[some]).to(device)) for some in _chunks(rows)]
    return torch.cat(parts).double().cpu().numpy()


def _chunks(rows: IntArray) -> list[IntArray]:
    return [rows[start : start + ASKED_AT_ONCE] for start in range(0, len(rows), ASKED_AT_ONCE)]


def _calibration_of(pairs: CheckedPairs, own: FloatArray, joined: FloatArray) -> Calibration:
    of_suggestion = [measure_reliability(p.max(1), p.argmax(1) == pairs.right) for p in (own, joined)]
    each = np.arange(len(pairs))
    of_quality = [measure_reliability(p[each, pairs.given], ~pairs.wrong) for p in (own, joined)]
    return Calibration("given", len(pairs), *of_suggestion, *of_quality)


# --- what they say ----------------------------------------------------------------------------------------------------


def _cut(job: Job, basis: _Basis) -> Cuts | None:
    if basis.assessment is None or basis.pairs is None:
        return None
    assessment = basis.assessment
    checked = suspects_of(assessment.of_pairs, basis.pairs.given)
    rest = suspects_of(assessment.of_rest, assessment.given_of_rest)
    return find_cuts(basis.pairs, checked, rest, job.config.trust.precision)


def _label_table(job: Job, basis: _Basis, cuts: Cuts | None) -> LabelTable:
    pool = job.pool
    labels = correct(job.method, job.encoded, pool.given, pool.right, pool.ids, pool.class_names, job.ranks)
    if basis.temperature is not None:
        everything = _predicted(job, np.arange(len(pool.ids)))
        return replace(labels, predicted_confidence=basis.temperature.join(everything[None], None).max(1))
    if basis.assessment is None or cuts is None:
        return labels
    noisy, assessment = pool.split.noisy, basis.assessment
    labels = with_distributions(labels, noisy, assessment.of_rest, assessment.given_of_rest, pool.class_names)
    highest = -1.0 if cuts.chosen is None else cuts.chosen.quality
    surely_wrong = labels.is_label_issue & (labels.is_trusted | (labels.label_quality <= highest))
    return replace(labels, is_label_issue=surely_wrong)


def _verdict(job: Job, labels: LabelTable, pairs: CheckedPairs, basis: _Basis, cuts: Cuts | None) -> Verdict:
    pool = job.pool
    assessment = None if basis.cross is None else basis.cross.assessment
    checked, suspects = pool.checked, pool.provenance[pool.checked] == "suspect"
    return Verdict(
        class_names=pool.class_names,
        n_checked=len(checked),
        n_suspects=int(suspects.sum()),
        n_rest=len(pool.split.noisy),
        pairs=pairs,
        folds=basis.folds,
        reason=basis.reason,
        calibration=basis.calibration,
        noise=None if assessment is None else noise_share(pairs, assessment),
        noise_of_pairs=estimate_noise(pool.given, pool.right, pool.provenance, pool.weights, pool.stratum_sizes),
        class_noise=class_shares(pairs, assessment, pool.n_classes),
        class_rows=np.bincount(pool.given[pool.given != NO_LABEL], minlength=pool.n_classes).tolist(),
        transition=transition_shares(pairs, assessment, pool.n_classes) if pool.n_classes <= LARGEST_TRANSITION else (),
        precision=job.config.trust.precision,
        cuts=cuts,
        n_issues=int((labels.is_label_issue & ~labels.is_trusted).sum()),
        n_review=int(labels.needs_review.sum()),
        **_curve(job, pairs, basis.cross),
    )


def _curve(job: Job, pairs: CheckedPairs, cross: CrossFit | None) -> dict[str, Any]:
    if cross is None or not cross.trials:
        return {}
    ahead = extrapolate(cross.trials, len(pairs), 2 * len(job.pool.checked), job.config.seed)
    return {"curve": curve_points(cross.trials), "ahead": ahead}
