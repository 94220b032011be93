"""Whether a run is what it claims: its files, split, label table and figures, recomputed and compared.

The checksums tell of an accident, or of a change by somebody who did not know of them. Whoever knows can write new
ones; then the figures still have to agree with the table, and the table with the sources.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ebomlc.config import RunConfig, build, read_toml
from ebomlc.data.arrays import load_arrays
from ebomlc.data.documents import read_document
from ebomlc.data.pool import Pool, load_pool
from ebomlc.data.splits import split_hash
from ebomlc.errors import DataWarning, InputError, listed
from ebomlc.labels.scores import accuracy, balanced_accuracy, label_accuracies
from ebomlc.prediction import Classifier, load_classifier
from ebomlc.records import LabelTable, Split
from ebomlc.reviewed import load_reviewed, read_labels
from ebomlc.run_folder import CHECKSUMS, CONFIG, CONTENTS, MAIN, METHOD, METRICS, SPLIT, SUMMARY, TRUST
from ebomlc.training.states import load_state

CLOSE = 1e-9
"""Figures that come from the same numbers in the same way differ by rounding at most."""

FLIPPED = 0.002
"""Share of predictions that another machine, or a batch of another size, may change where two classes are equal."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)")


@dataclass(frozen=True)
class Verification:
    """What became of the claims of a run, a sentence each.

    Attributes
    ----------
    held, broken : tuple of str
        Claims that hold, and that do not.
    open : tuple of str
        What was not looked at, and why.
    """

    held: tuple[str, ...]
    broken: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.broken


@dataclass
class _Ledger:
    """Takes claims down as they are checked."""

    held: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def check(self, claim: str, wrong: Iterable[str]) -> None:
        """A claim holds where nothing is wrong with it."""
        found = list(wrong)
        if found:
            self.broken.append(f"{claim}: {listed(found)}")
        else:
            self.held.append(claim)

    def compare(self, claim: str, stated: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """A claim holds where every figure is stated as it is found."""
        differing = [key for key, value in found.items() if not _same(stated.get(key), value)]
        self.check(claim, (f"{key} is {_shown(stated.get(key))}, found {_shown(found[key])}" for key in differing))


def _same(stated: Any, found: Any) -> bool:  # noqa: ANN401 - any value of JSON
    if isinstance(stated, int | float) and isinstance(found, float) and not isinstance(stated, bool):
        return math.isclose(stated, found, rel_tol=CLOSE, abs_tol=CLOSE)
    return type(stated) is type(found) and stated == found


def _shown(value: Any) -> str:  # noqa: ANN401 - any value of JSON
    return "not stated" if value is None else repr(value)


@dataclass(frozen=True)
class _Stored:
    """A run folder, read.

    Attributes
    ----------
    summary : dict
        What ``summary.json`` states.
    trust : dict or None
        What ``trust.json`` states.
    labels : LabelTable
    class_names : tuple of str
        Of the encoder.
    ids : str array, shape [N]
        Of the split.
    split : Split
    config : RunConfig
    epochs : list of dict
        Rows of ``metrics.csv``.
    """

    summary: dict[str, Any]
    trust: dict[str, Any] | None
    labels: LabelTable
    class_names: tuple[str, ...]
    ids: npt.NDArray[np.str_]
    split: Split
    config: RunConfig
    epochs: list[dict[str, str]]


def verify(run: str | Path, *, sources: bool = False) -> Verification:
    """Check everything that a run folder claims and that can be recomputed.

    Parameters
    ----------
    run : str or Path
        What ``ebomlc fit --out`` wrote.
    sources : bool
        Also read the sets that it was made of, and recompute what rests on them.

    Raises
    ------
    InputError
        Where the folder holds no run; with `sources`, where a set or the network cannot be had again.
    """
    folder, ledger = Path(run), _Ledger()
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder}: not a run folder, for it has no {SUMMARY}; name the folder that --out named")
    _check_files(folder, ledger)
    ledger.check("its weights can be read, and are numbers", _weight_problems(folder))
    try:
        stored = _read(folder)
    except InputError as error:
        ledger.broken.append(f"everything in it can be read: {error}")
        return _close(ledger)
    _check_stored(stored, ledger)
    if sources and not ledger.broken:
        classifier = load_classifier(folder, device="cpu")
        _check_sources(stored, _read_sources(stored, classifier), classifier, ledger)
    else:
        why = "the folder already contradicts itself" if sources else "--sources reads the sets again for them"
        ledger.open.append(f"right labels, equal rows and test accuracy: {why}")
    ledger.open.append("commit, versions, seconds and memory, which nothing in the folder can confirm")
    return _close(ledger)


def _close(ledger: _Ledger) -> Verification:
    return Verification(tuple(ledger.held), tuple(ledger.broken), tuple(ledger.open))


def _read(folder: Path) -> _Stored:
    """The folder's content.

    Raises
    ------
    InputError
        Where a part is missing or damaged.
    """
    labels, class_names = read_labels(folder)
    try:
        summary = read_document(folder / SUMMARY)
        trust = read_document(folder / TRUST) if (folder / TRUST).is_file() else None
        arrays = load_arrays(folder / SPLIT)
        split = Split(*(arrays[part].astype(np.int64) for part in ("noisy", "trusted", "heldout")))
        config = build(RunConfig, read_toml(folder / CONFIG), str(folder / CONFIG))
        with (folder / METRICS).open(newline="", encoding="utf-8") as file:
            epochs = list(csv.DictReader(file))
        return _Stored(summary, trust, labels, class_names, arrays["ids"], split, config, epochs)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: {error}") from error


# --- files ------------------------------------------------------------------------------------------------------------


def _check_files(folder: Path, ledger: _Ledger) -> None:
    """Every file that was written with the run is as it was written."""
    if not (folder / CHECKSUMS).is_file():
        ledger.open.append(f"whether its files are as they were written: it has no {CHECKSUMS}")
        return
    text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    lines = [_LINE.fullmatch(line) for line in text.splitlines()]
    stated = {match[2]: match[1] for match in lines if match is not None}
    listed_roots = {name.partition("/")[0] for name in stated}
    wrong = [
        *("a line is not a checksum and a name" for match in lines if match is None),
        *(f"{name} is not listed" for name in CONTENTS if name not in listed_roots),
        *(f"{name} {problem}" for name, digest in stated.items() if (problem := _file_problem(folder, name, digest))),
    ]
    digest = hashlib.sha256(text.encode()).hexdigest()
    ledger.check(f"its {len(stated)} files are as they were written ({CHECKSUMS} itself: {digest[:16]})", wrong)


def _file_problem(folder: Path, name: str, digest: str) -> str | None:
    """What is wrong with a file that a run lists; None where nothing is."""
    path = folder / name
    # a folder from somebody else may list anything
    if ".." in Path(name).parts or Path(name).is_absolute() or path.is_symlink():
        return "is no file of the run"
    if not path.is_file():
        return "is missing"
    with path.open("rb") as file:
        return None if hashlib.file_digest(file, "sha256").hexdigest() == digest else "was changed"


def _weight_problems(folder: Path) -> list[str]:
    wrong = []
    for name in (MAIN, METHOD):
        try:
            state = load_state(folder / name)
        except (OSError, ValueError) as error:
            wrong.append(f"{name}: {error}")
        else:
            floats = (tensor for tensor in state.values() if tensor.is_floating_point())
            wrong += (
                [] if all(bool(tensor.isfinite().all()) for tensor in floats) else [f"{name} holds NaN or infinity"]
            )
    return wrong


# --- the folder alone -------------------------------------------------------------------------------------------------


def _check_stored(stored: _Stored, ledger: _Ledger) -> None:
    for claim, find in (
        ("every row has one role: noisy, trusted or held out", _split_problems),
        ("the label table and the split are about the same rows", _table_problems),
    ):
        problems = find(stored)
        ledger.check(claim, problems)
        if problems:
            ledger.open.append("figures of the label table, for it is not known which rows they are about")
            return
    ledger.check("the columns of the label table go together", _column_problems(stored))
    ledger.compare("the summary counts rows and classes right", stored.summary, _counts(stored))
    ledger.check("the figures of each class are those of the table", _class_problems(stored))
    ledger.check("trust.json and the summary call those labels wrong that the table does", _trust_problems(stored))
    ledger.check("the accuracy on held-out rows is the table's", _heldout_problems(stored))
    ledger.check("the epochs are those of metrics.csv", _epoch_problems(stored))
    ledger.compare("the summary names the configuration that is there", stored.summary, _named(stored.config))


def _split_problems(stored: _Stored) -> list[str]:
    rows = np.concatenate(list(stored.split.arrays().values()))
    times = Counter(rows.tolist())
    twice = [str(stored.ids[row]) for row, n in times.items() if n > 1 and 0 <= row < len(stored.ids)]
    found = [f"id {name!r} has several" for name in twice]
    if any(not 0 <= row < len(stored.ids) for row in times):
        found.append("a row is none of the table's")
    missing = len(stored.ids) - len(times)
    return [*found, *([f"{missing} rows have none"] if missing > 0 else [])]


def _table_problems(stored: _Stored) -> list[str]:
    labels, split = stored.labels, stored.split
    if [str(name) for name in labels.id] != stored.ids.tolist():
        return ["their ids differ"]
    if len(set(stored.ids.tolist())) < len(stored.ids):
        return ["an id is there twice"]
    checked = np.isin(np.arange(len(labels)), np.concatenate([split.trusted, split.heldout]))
    wrong = [str(name) for name in labels.id[checked != labels.is_trusted]]
    return [f"id {name!r} is trusted in one of them" for name in wrong]


def _column_problems(stored: _Stored) -> list[str]:
    labels, known = stored.labels, {*stored.class_names}
    given = np.array([label is not None for label in labels.given_label], dtype=np.bool_)
    differs = given & (labels.given_label != labels.suggested_label)
    quality = labels.label_quality
    rules = {
        "a label is no class of the run": _outside(labels.suggested_label, known)
        | _outside(labels.predicted_label, known)
        | (given & _outside(labels.given_label, known)),
        "a noisy row has no given label": ~given & ~labels.is_trusted,
        "a confidence is no probability": ~_within(labels.suggestion_confidence)
        | ~_within(labels.predicted_confidence)
        | (given & ~_within(quality)),
        "a quality is stated for no given label": ~given & ~np.isnan(quality),
        "a trusted row is not sure": labels.is_trusted & (labels.suggestion_confidence != 1),
        "a label is called wrong although it is the suggested one": labels.is_label_issue & ~differs,
    }
    return [f"{rule} ({int(rows.sum())} rows)" for rule, rows in rules.items() if rows.any()]


def _outside(names: npt.NDArray[np.object_], known: set[str]) -> npt.NDArray[np.bool_]:
    return np.array([name not in known for name in names], dtype=np.bool_)


def _within(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return (values >= 0) & (values <= 1 + CLOSE)


def _counts(stored: _Stored) -> dict[str, Any]:
    split = stored.split
    return {
        "n_noisy": len(split.noisy),
        "n_trusted": len(split.trusted) + len(split.heldout),
        "n_heldout": len(split.heldout),
        "n_classes": len(stored.class_names),
        "split_sha256": split_hash(split),
    }


def _class_problems(stored: _Stored) -> list[str]:
    labels, noisy = stored.labels, ~stored.labels.is_trusted
    found = {
        "given": Counter(labels.given_label[noisy]),
        "suggested": Counter(labels.suggested_label[noisy]),
        "trusted": Counter(labels.suggested_label[~noisy]),
    }
    stated = {row.get("name"): row for row in stored.summary.get("classes") or ()}
    if tuple(stated) != stored.class_names:
        return ["they are other classes"]
    return [
        f"{key} of {name!r} is {_shown(stated[name].get(key))}, found {counts[name]}"
        for name in stored.class_names
        for key, counts in found.items()
        if stated[name].get(key) != counts[name]
    ]


def _trust_problems(stored: _Stored) -> list[str]:
    labels, said = stored.labels, stored.summary.get("trust") or {}
    suspects = labels.is_label_issue & ~labels.is_trusted
    found = {"n_issues": int(suspects.sum()), "n_review": int(labels.needs_review.sum())}
    wrong = [f"{key} is {_shown(said.get(key))}, found {n}" for key, n in found.items() if said.get(key) != n]
    cut = said.get("cut")
    if cut is not None and (labels.label_quality[suspects] > cut).any():
        wrong.append(f"a label is called wrong above the cut {cut}")
    of_trust = (stored.trust or {}).get("cuts") or {}
    if of_trust and (of_trust.get("quality"), of_trust.get("n_issues")) != (cut, said.get("n_issues")):
        wrong.append("trust.json has another cut")
    if stored.trust is not None and stored.trust.get("sentences") != said.get("sentences"):
        wrong.append("trust.json says something else")
    return wrong


def _heldout_problems(stored: _Stored) -> list[str]:
    rows, stated = stored.split.heldout, stored.summary.get("heldout_accuracy")
    if not len(rows):
        return [] if stated is None else ["no row is held out"]
    labels = stored.labels
    found = float((labels.predicted_label[rows] == labels.suggested_label[rows]).mean())
    return _accuracy_problems("it", stated, found, len(rows))


def _accuracy_problems(name: str, stated: object, found: float, n: int) -> list[str]:
    """A share of n predictions, of which some may differ on another machine."""
    allowed = max(1, FLIPPED * n) / n + CLOSE
    if isinstance(stated, float | int) and abs(stated - found) <= allowed:
        return []
    return [f"{name} is {_shown(stated)}, found {found:.4f}"]


def _epoch_problems(stored: _Stored) -> list[str]:
    summary, rows = stored.summary, stored.epochs
    numbers = [row.get("epoch") for row in rows]
    if numbers != [str(k + 1) for k in range(len(rows))] or len(rows) != summary.get("epochs"):
        return [f"{_shown(summary.get('epochs'))} epochs are stated, and metrics.csv has {len(rows)}"]
    chosen = summary.get("chosen_epoch")
    if not isinstance(chosen, int) or not 1 <= chosen <= len(rows):
        return [f"the chosen epoch is {_shown(chosen)}"]
    of_row = {"heldout_accuracy": rows[chosen - 1], "heldout_accuracy_last": rows[-1]}
    stated = {key: "" if summary.get(key) is None else repr(summary[key]) for key in of_row}
    differing = [key for key, row in of_row.items() if row.get("heldout_accuracy", "") != stated[key]]
    last = [] if rows[-1].get("step") == str(summary.get("steps")) else ["steps"]
    return [f"{key} is another" for key in [*differing, *last]]


def _named(config: RunConfig) -> dict[str, Any]:
    return {
        "method": config.method.name,
        "encoder": config.encoder.name,
        "model": config.model.name,
        "seed": config.seed,
        "data": config.data.noisy,
        "noise": config.data.noise,
    }


# --- the sources ------------------------------------------------------------------------------------------------------


def _read_sources(stored: _Stored, classifier: Classifier) -> Pool:
    data = stored.config.data
    if classifier.like.kind == "images":
        data = replace(data, image_size=classifier.like.values.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # they were given when the run was made
        return load_pool(data, stored.config.seed, objects=load_reviewed(data.add_reviewed))


def _check_sources(stored: _Stored, pool: Pool, classifier: Classifier, ledger: _Ledger) -> None:
    problems = _source_problems(stored, pool)
    ledger.check("the rows, their labels and their roles are those of the sources", problems)
    if problems:
        ledger.open.append("figures that rest on the sources, for the rows already differ")
        return
    truth = np.array(pool.class_names, dtype=object)[pool.truth[pool.scored]]
    figures = {"measured_noise": pool.measured_noise, **label_accuracies(stored.labels, pool.scored, truth)}
    ledger.compare("noise and accuracy of the labels are as recomputed", stored.summary, figures)
    equal = {"overlap": asdict(pool.overlap), "n_test_overlap": pool.overlap.test if pool.test is not None else 0}
    ledger.compare("rows of equal content are counted right", stored.summary, equal)
    ledger.check("the classifier predicts what the table says", _prediction_problems(stored, pool, classifier))
    ledger.check("the test accuracy is the classifier's", _test_problems(stored, pool, classifier))


def _source_problems(stored: _Stored, pool: Pool) -> list[str]:
    names, labels = np.array([*pool.class_names, None], dtype=object), stored.labels
    if pool.class_names != stored.class_names or pool.ids.tolist() != labels.id.tolist():
        return ["other rows or classes are there now"]
    checked = pool.checked
    parts = pool.split.arrays().items()
    rules = {
        "given labels differ": (names[pool.given] == labels.given_label).all(),
        "checked labels differ": (names[pool.right[checked]] == labels.suggested_label[checked]).all(),
        "the split differs": all(np.array_equal(rows, stored.split.arrays()[part]) for part, rows in parts),
    }
    return [rule for rule, holds in rules.items() if not holds]


def _prediction_problems(stored: _Stored, pool: Pool, classifier: Classifier) -> list[str]:
    names = np.array(pool.class_names, dtype=object)
    same = names[classifier.probabilities(pool.inputs).argmax(1)] == stored.labels.predicted_label
    return _accuracy_problems("the share that agrees", 1.0, float(same.mean()), len(same))


def _test_problems(stored: _Stored, pool: Pool, classifier: Classifier) -> list[str]:
    summary, test = stored.summary, pool.test
    if test is None:
        return [] if summary.get("n_test") == 0 and summary.get("test_accuracy") is None else ["there is no test row"]
    predicted, n = classifier.probabilities(test.inputs).argmax(1).astype(np.int64), len(test.labels)
    rarest = int(np.unique(test.labels, return_counts=True)[1].min())
    return [
        *([] if summary.get("n_test") == n else [f"n_test is {_shown(summary.get('n_test'))}, found {n}"]),
        *_accuracy_problems("accuracy", summary.get("test_accuracy"), accuracy(predicted, test.labels), n),
        *_accuracy_problems(
            "balanced accuracy",
            summary.get("test_balanced_accuracy"),
            balanced_accuracy(predicted, test.labels),
            rarest,
        ),
    ]
