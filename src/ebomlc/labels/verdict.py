"""What a run can say of its labels, and how sure it is: one record, as plain data for files and as sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ebomlc.labels.calibration import Reliability
from ebomlc.labels.cuts import Cuts
from ebomlc.labels.learning_curve import CurvePoint
from ebomlc.labels.noise_rate import Share
from ebomlc.labels.pairs import CheckedPairs
from ebomlc.labels.trust import Interval, NoiseEstimate

VERSION = 1

Target = Literal["given", "input"]


@dataclass(frozen=True)
class Calibration:
    """How far confidences on checked rows can be believed, before and after they were calibrated.

    Attributes
    ----------
    target : {"given", "input"}
        Probability of the right label given input and given label, or given the input alone.
    n : int
        Checked rows, none of which calibrates and is scored at once.
    before, after : Reliability
        Of the confidence in the suggested label, or for "input" in the predicted one.
    quality_before, quality_after : Reliability or None
        Of `label_quality`, which is the probability that the given label is right; None for "input".
    """

    target: Target
    n: int
    before: Reliability
    after: Reliability
    quality_before: Reliability | None = None
    quality_after: Reliability | None = None


@dataclass(frozen=True)
class Verdict:
    """Everything that is known of the labels of a run; what cannot be known is None.

    Attributes
    ----------
    class_names : tuple of str, length K
        Class k's name.
    n_checked, n_suspects, n_rest : int
        Checked rows, those of them that were checked as suspects and so say nothing of the others, and rows that nobody
        checked.
    pairs : CheckedPairs
        The checked rows that count.
    folds : int
        Trainings that each left some of them out.
    reason : str
        How the confidences were calibrated, or why not.
    calibration : Calibration or None
    noise : Share or None
        Share of wrong labels, with the models' help.
    noise_of_pairs : NoiseEstimate or None
        The same from the checked pairs alone.
    class_noise : sequence of Share, length K
        By given label.
    class_rows : sequence of int, length K
        Rows by given label.
    transition : sequence of K sequences of K Share
        T[given, right]; empty where there are too many classes for a matrix.
    precision : float in (0, 1)
        Wanted of the rows called wrong.
    cuts : Cuts or None
    n_issues, n_review : int
        Unchecked rows that are called wrong, and the other doubtful ones.
    curve : sequence of CurvePoint
        Measured, by rising number of checked rows.
    ahead : CurvePoint or None
        With twice as many.
    """

    class_names: tuple[str, ...]
    n_checked: int
    n_suspects: int
    n_rest: int
    pairs: CheckedPairs
    folds: int
    reason: str
    calibration: Calibration | None
    noise: Share | None
    noise_of_pairs: NoiseEstimate | None
    class_noise: Sequence[Share]
    class_rows: Sequence[int]
    transition: Sequence[Sequence[Share]]
    precision: float
    cuts: Cuts | None
    n_issues: int
    n_review: int
    curve: Sequence[CurvePoint] = ()
    ahead: CurvePoint | None = None

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON can hold them: plain numbers, None where a number is not known."""
        return {
            "version": VERSION,
            "class_names": list(self.class_names),
            "basis": self._basis(),
            "calibration": None if self.calibration is None else _calibration_parts(self.calibration),
            "noise": self._noise(),
            "transition": self._transition(),
            "cuts": self._cuts(),
            "learning_curve": self._learning_curve(),
            "sentences": self.sentences(),
        }

    def to_summary(self) -> dict[str, Any]:
        """What ``summary.json`` repeats."""
        noise, calibration, cuts = self._noise(), self.calibration, self.cuts
        return {
            "target": None if calibration is None else calibration.target,
            "folds": self.folds,
            "noise": None if noise is None else {key: noise[key] for key in ("estimate", "low", "high", "method")},
            "calibration_error": None if calibration is None else calibration.after.calibration_error,
            "cut": None if cuts is None or cuts.chosen is None else cuts.chosen.quality,
            "n_issues": self.n_issues,
            "n_review": self.n_review,
            "sentences": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """The findings in plain English, one sentence each."""
        found = [self._say_cut(), self._say_noise(), self._say_calibration(), self._say_curve()]
        return [sentence for sentence in found if sentence is not None]

    def _basis(self) -> dict[str, Any]:
        return {
            "n_checked": self.n_checked,
            "n_pairs": len(self.pairs),
            "n_suspects": self.n_suspects,
            "is_random": self.pairs.is_random,
            "is_stratified": self.pairs.is_stratified,
            "folds": self.folds,
            "target": None if self.calibration is None else self.calibration.target,
            "reason": self.reason,
        }

    def _noise(self) -> dict[str, Any] | None:
        alone = self.noise_of_pairs
        if alone is None:
            return None
        interval = alone.interval if self.noise is None else self.noise.interval
        of_pairs = "weighted pairs" if alone.is_stratified else "pairs"
        rows = zip(self.class_names, self.class_rows, self.class_noise, strict=True)
        return {
            "n": alone.n,
            **asdict(interval),
            "method": of_pairs if self.noise is None else "assisted",
            "pairs": asdict(alone.interval),
            "classes": [{"name": name, "rows": int(n), **_share_parts(share)} for name, n, share in rows],
        }

    def _transition(self) -> dict[str, Any] | None:
        if not len(self.pairs) or not self.transition:
            return None
        return {
            name: [[_number(getattr(share.interval, name)) for share in row] for row in self.transition]
            for name in ("estimate", "low", "high")
        } | {
            "n": [row[0].n for row in self.transition],
            "assisted": [[share.is_assisted for share in row] for row in self.transition],
        }

    def _cuts(self) -> dict[str, Any] | None:
        if self.cuts is None:
            return None
        chosen = self.cuts.chosen
        points = [
            {"quality": cut.quality, "rows": cut.rows, "n": cut.n, "precision": _number(cut.precision.estimate),
             "low": cut.precision.low, "high": cut.precision.high}
            for cut in self.cuts.points
        ]  # fmt: skip
        return {
            "precision": self.precision,
            "quality": None if chosen is None else chosen.quality,
            "n_issues": self.n_issues,
            "n_review": self.n_review,
            "points": points,
        }

    def _learning_curve(self) -> dict[str, Any] | None:
        if not self.curve:
            return None
        points = [_curve_parts(point) for point in self.curve]
        return {"points": points, "twice": None if self.ahead is None else _curve_parts(self.ahead)}

    def _say_noise(self) -> str | None:
        alone = self.noise_of_pairs
        if alone is None:
            return None
        sure = "" if alone.is_random else ", if they were picked at random"
        if self.noise is None:
            return f"of all given labels {_between(alone.interval)} are wrong (from {alone.n:,} checked rows{sure})"
        return (
            f"of all given labels {_between(self.noise.interval)} are wrong (from {alone.n:,} checked rows{sure}, and "
            f"from what models that were not shown their checks say of all rows; the checked rows alone say "
            f"{alone.interval.low:.1%} to {alone.interval.high:.1%})"
        )

    def _say_calibration(self) -> str:
        calibration = self.calibration
        if calibration is None:
            return f"confidences are not calibrated: {self.reason}"
        after, before = calibration.after, calibration.before
        what = "suggested" if calibration.target == "given" else "predicted"
        return (
            f"confidences in {what} labels are calibrated on {calibration.n:,} checked rows ({self.reason}): off by "
            f"{100 * after.calibration_error:.1f} points instead of {100 * before.calibration_error:.1f}, where chance "
            f"alone makes {100 * after.chance_error:.1f}"
        )

    def _say_cut(self) -> str:
        if self.cuts is None:
            return f"suggested another label for {self.n_issues:,} of {self.n_rest:,} noisy rows"
        rest = f"{self.n_review:,} of {self.n_rest:,} labels of noisy rows are doubtful and wait for review"
        chosen = self.cuts.chosen
        if chosen is None:
            return f"{rest}; no cut is sure to be right for {self.precision:.0%} of its rows: check more to get one"
        share = chosen.precision
        return (
            f"{self.n_issues:,} of {self.n_rest:,} labels of noisy rows are called wrong, at least {share.low:.0%} of "
            f"them rightly ({share.estimate:.0%} of {chosen.n:,} checked rows like them); {self.n_review:,} more are "
            f"doubtful and wait for review"
        )

    def _say_curve(self) -> str | None:
        if not self.curve:
            return None
        counts = ", ".join(f"{point.n_trusted:,}" for point in self.curve)
        shares = ", ".join(f"{point.right.estimate:.0%}" for point in self.curve)
        ahead = self.ahead
        twice = "" if ahead is None else f"; {ahead.n_trusted:,} might bring {_between(ahead.right)}"
        return f"of the suggestions with {counts} checked rows {shares} are right{twice}"


def _calibration_parts(calibration: Calibration) -> dict[str, Any]:
    quality = None
    if calibration.quality_before is not None and calibration.quality_after is not None:
        quality = {
            "before": _reliability_parts(calibration.quality_before),
            "after": _reliability_parts(calibration.quality_after),
        }
    return {
        "target": calibration.target,
        "n": calibration.n,
        "before": _reliability_parts(calibration.before),
        "after": _reliability_parts(calibration.after),
        "quality": quality,
    }


def _reliability_parts(reliability: Reliability) -> dict[str, Any]:
    parts = asdict(reliability)
    return {"reliability" if key == "bars" else key: list(v) if key == "bars" else v for key, v in parts.items()}


def _share_parts(share: Share) -> dict[str, Any]:
    interval = {key: _number(value) for key, value in asdict(share.interval).items()}
    return {"n": share.n, **interval, "method": "assisted" if share.is_assisted else "pairs"}


def _curve_parts(point: CurvePoint) -> dict[str, Any]:
    right = point.right
    return {"n_trusted": point.n_trusted, "n": point.n, "right": right.estimate, "low": right.low, "high": right.high}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _between(interval: Interval) -> str:
    return f"{interval.estimate:.1%} ({interval.low:.1%} to {interval.high:.1%} with 95 % confidence)"
