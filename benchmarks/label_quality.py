"""How good the output about labels is, beside what a user would do today: a row a draw in results/label_quality.csv.

    python benchmarks/label_quality.py --cifar DIR [--draws 20] [--data hausa derby ...]   # run what is missing
    python benchmarks/label_quality.py --table                                             # only print means

Every draw takes other trusted rows at random from all rows, which keep the label they were given, and seeds everything
else as well. Sets: hausa (250 trusted of 2,045 headlines) and derby (200 of 1,963 files), from ../shared/data; frozen
EfficientNet-Lite0 features of 4,500 images each of Fashion-MNIST (instance noise 0.4) and CIFAR-10 (the worst label of
three people), 500 of them trusted. Rows of the present commit that are stored are not repeated.

Peers see the same encoded inputs; each is a logistic regression whose penalty is cross-validated by log loss:

- cleanlab: `get_label_quality_scores` on out-of-fold probabilities of a model of the given labels
- cleanlab+trusted: the same with a model that also trains on the trusted rows, under their right label
- trusted-only: 1 - p(given) of a model of the trusted rows alone
- oracle, a ceiling and no peer: 1 - p(given) out of fold, by a model that is taught the right label of every row

Corrected labels of the peers are the model's prediction, for cleanlab where `find_label_issues` sees an issue; `method`
is the run's own corrector, as it is without any calibration.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from ebomlc.bench.tables import markdown_table
from ebomlc.config import DataConfig, RunConfig
from ebomlc.data.frozen import BackboneEncoder
from ebomlc.data.inputs import Inputs
from ebomlc.data.memory import Arrays
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.official import load_cifar10, load_fashion_mnist
from ebomlc.environment import commit
from ebomlc.judgement import Judgement, judge
from ebomlc.labels.calibration import auroc
from ebomlc.labels.correct import correct
from ebomlc.labels.scores import calibration_error
from ebomlc.labels.trust import rate_interval
from ebomlc.preparation import Given, Job, prepare
from ebomlc.records import LabelTable
from ebomlc.training import engine
from ebomlc.training.trackers import NullTracker

ROOT = Path(__file__).resolve().parent.parent
SHARED, ROWS = ROOT.parent / "shared" / "data", ROOT / "results" / "label_quality.csv"
N_IMAGES, N_TRUSTED_IMAGES, NOISE_SEED = 4500, 500, 7
PENALTIES = (0.001, 0.01, 0.1, 1.0)
FOLDS, MOST_ROWS = 5, 1500
FIGURES = ("average_precision", "precision_at_errors", "corrected", "seconds")
HONESTY = (
    "noise", "assisted_estimate", "assisted_low", "assisted_high", "pairs_low", "pairs_high", "finite_low",
    "finite_high", "error_before", "error_after", "quality_error_after", "auroc_before", "auroc_after", "cut",
    "cut_low", "cut_precision", "n_issues", "n_review", "twice_right",
)  # fmt: skip


@dataclass(frozen=True)
class Set:
    """All rows of a set with both labels, and how many are to be checked."""

    inputs: Any
    given: np.ndarray
    right: np.ndarray
    n_trusted: int
    options: dict[str, Any]


def real_table(name: str) -> Set:
    folder = SHARED / name
    noisy, trusted, truth = (
        pd.read_csv(folder / f"{part}.csv", dtype=str, keep_default_na=False) for part in ("noisy", "trusted", "truth")
    )
    noisy = noisy.merge(truth.rename(columns={"label": "right"}), on="id").rename(columns={"label": "given"})
    trusted = trusted.rename(columns={"label": "right", "given_label": "given"})
    rows = pd.concat([noisy, trusted], ignore_index=True)
    inputs = rows.drop(columns=["id", "given", "right"])
    if name != "hausa":
        inputs = inputs.astype(float)
    options = {"text": ("text",)} if name == "hausa" else {}
    return Set(inputs, rows["given"].to_numpy(), rows["right"].to_numpy(), len(trusted), options)


def image_set(name: str, cifar: Path | None) -> Set:
    official = load_cifar10(cifar) if name == "cifar10n" and cifar is not None else load_fashion_mnist()
    images, right = official.train_inputs[:N_IMAGES], official.train_labels[:N_IMAGES]
    if name == "cifar10n":
        given = official.human["worse"][:N_IMAGES]
    else:
        flat = images.reshape(len(images), -1)
        given = apply_noise(right, parse_noise("instance:0.4"), 10, NOISE_SEED, inputs=flat).labels
    inputs = Inputs("images", images)
    features = BackboneEncoder.fit(inputs, "efficientnet-lite0", None).encode(inputs)
    names = np.array(official.class_names, dtype=object)
    return Set(features, names[given], names[right], N_TRUSTED_IMAGES, {})


SETS: dict[str, Callable[[Path | None], Set]] = {
    "hausa": lambda _: real_table("hausa"),
    "derby": lambda _: real_table("derby"),
    "fashion": lambda _: image_set("fashion", None),
    "cifar10n": lambda cifar: image_set("cifar10n", cifar),
}


def make_job(rows: Set, draw: int) -> Job:
    """A run of the defaults whose trusted rows are drawn at random."""
    order = np.random.default_rng(draw).permutation(len(rows.given))
    trusted, noisy = np.sort(order[: rows.n_trusted]), np.sort(order[rows.n_trusted :])
    if isinstance(rows.inputs, pd.DataFrame):
        frame = rows.inputs.assign(label=rows.given, checked_label=None, provenance=None)
        frame.loc[trusted, "checked_label"] = rows.right[trusted]
        frame.loc[trusted, "provenance"] = "random"
        objects, truth = {"noisy": frame}, rows.right
        config = RunConfig(DataConfig("(table)", checked="checked_label", **rows.options), seed=draw)
    else:
        objects = {
            "noisy": Arrays(rows.inputs[noisy], rows.given[noisy], kind="embeddings"),
            "trusted": Arrays(rows.inputs[trusted], rows.right[trusted], given=rows.given[trusted], kind="embeddings"),
        }
        truth = np.concatenate([rows.right[noisy], rows.right[trusted]])
        config = RunConfig(DataConfig("(arrays)", trusted="(arrays)"), seed=draw)
    job = prepare(config, Given(objects), None)
    index = {name: k for k, name in enumerate(job.pool.class_names)}
    known = np.array([index[name] for name in truth])
    checked = job.pool.checked
    if not (known[checked] == job.pool.right[checked]).all():
        raise RuntimeError("rows came out in another order than they went in")
    return replace(job, pool=replace(job.pool, truth=known))


def score(suspicion: np.ndarray, corrected: np.ndarray, job: Job, seconds: float) -> dict[str, float]:
    """Figures on the rows that nobody checked, from how suspect each label is and what it is corrected to."""
    noisy = job.pool.split.noisy
    right = job.pool.truth[noisy]
    wrong = job.pool.given[noisy] != right
    first = np.argsort(-suspicion, kind="stable")[: wrong.sum()]
    found = (average_precision_score(wrong, suspicion), wrong[first].mean(), (corrected == right).mean(), seconds)
    return dict(zip(FIGURES, map(float, found), strict=True))


def linear(inputs: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """A model whose penalty is chosen, on so many rows at most, but which is not fitted yet."""
    some = np.random.default_rng(0).permutation(len(labels))[:MOST_ROWS]
    kept = some[np.bincount(labels[some])[labels[some]] >= 3]
    losses = [
        -cross_val_score(make_linear(c), inputs[kept], labels[kept], cv=3, scoring="neg_log_loss").mean()
        for c in PENALTIES
    ]
    return make_linear(PENALTIES[int(np.argmin(losses))])


def make_linear(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=200)


def probabilities(model: LogisticRegression, inputs: np.ndarray, n_classes: int) -> np.ndarray:
    whole = np.zeros((len(inputs), n_classes))
    whole[:, model.classes_] = model.predict_proba(inputs)
    return whole


def out_of_fold(c: float, job: Job, inputs: np.ndarray, labels: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Probabilities of noisy rows by models of the others' `labels`, and of `extra` rows under their right label."""
    pool, noisy = job.pool, job.pool.split.noisy
    found = np.zeros((len(noisy), pool.n_classes))
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=job.config.seed).split(noisy, labels):
        rows = np.concatenate([noisy[seen], extra])
        model = make_linear(c).fit(inputs[rows], np.concatenate([labels[seen], pool.right[extra]]))
        found[unseen] = probabilities(model, inputs[noisy[unseen]], pool.n_classes)
    return found


def cleanlab_peer(job: Job, inputs: np.ndarray, *, with_trusted: bool) -> dict[str, float]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    started = time.monotonic()
    pool = job.pool
    noisy, checked = pool.split.noisy, pool.checked
    given = pool.given[noisy]
    extra = checked if with_trusted else checked[:0]
    template = linear(np.concatenate([inputs[noisy], inputs[extra]]), np.concatenate([given, pool.right[extra]]))
    predicted = out_of_fold(template.C, job, inputs, given, extra)
    quality = get_label_quality_scores(given, predicted)
    is_issue = find_label_issues(given, predicted)
    corrected = np.where(is_issue, predicted.argmax(1), given)
    return score(1 - quality, corrected, job, time.monotonic() - started)


def trusted_only_peer(job: Job, inputs: np.ndarray) -> dict[str, float]:
    started = time.monotonic()
    pool = job.pool
    noisy, checked = pool.split.noisy, pool.checked
    model = linear(inputs[checked], pool.right[checked]).fit(inputs[checked], pool.right[checked])
    predicted = probabilities(model, inputs[noisy], pool.n_classes)
    quality = predicted[np.arange(len(noisy)), pool.given[noisy]]
    return score(1 - quality, predicted.argmax(1), job, time.monotonic() - started)


def oracle(job: Job, inputs: np.ndarray) -> dict[str, float]:
    started = time.monotonic()
    pool = job.pool
    noisy = pool.split.noisy
    right = pool.truth[noisy]
    predicted = out_of_fold(linear(inputs[noisy], right).C, job, inputs, right, noisy[:0])
    quality = predicted[np.arange(len(noisy)), pool.given[noisy]]
    return score(1 - quality, predicted.argmax(1), job, time.monotonic() - started)


def our_figures(job: Job, columns: LabelTable, seconds: float) -> dict[str, float]:
    noisy = job.pool.split.noisy
    index = {name: k for k, name in enumerate(job.pool.class_names)}
    corrected = np.array([index[name] for name in columns.suggested_label[noisy]])
    return score(1 - columns.label_quality[noisy], corrected, job, seconds)


def honesty(job: Job, judged: Judgement, own: LabelTable) -> dict[str, float | None]:
    """Whether what the run says of itself is true."""
    pool, verdict, labels = job.pool, judged.verdict, judged.labels
    noisy = pool.split.noisy
    wrong_of_all = pool.given != pool.truth
    wrong = wrong_of_all[noisy]
    names = np.array(pool.class_names, dtype=object)
    right = names[pool.truth[noisy]]
    checked_wrong = int(verdict.pairs.wrong.sum())
    finite = rate_interval(checked_wrong, len(verdict.pairs), finite=len(wrong_of_all))
    alone = rate_interval(checked_wrong, len(verdict.pairs))
    assisted = finite if verdict.noise is None else verdict.noise.interval
    chosen = None if verdict.cuts is None else verdict.cuts.chosen
    issues = labels.is_label_issue[noisy]
    errors = [
        calibration_error(t.suggestion_confidence[noisy], t.suggested_label[noisy] == right) for t in (own, labels)
    ]
    rank = [auroc(t.label_quality[noisy], ~wrong) for t in (own, labels)]
    values = (
        float(wrong_of_all.mean()), assisted.estimate, assisted.low, assisted.high, alone.low, alone.high, finite.low,
        finite.high, *errors, calibration_error(labels.label_quality[noisy], ~wrong), *rank,
        None if chosen is None else chosen.quality, None if chosen is None else chosen.precision.low,
        float(wrong[issues].mean()) if issues.any() else None, verdict.n_issues, verdict.n_review,
        None if verdict.ahead is None else verdict.ahead.right.estimate,
    )  # fmt: skip
    return dict(zip(HONESTY, values, strict=True))


def run_draw(rows: Set, draw: int) -> dict[str, dict[str, Any]]:
    """Figures of one draw by who found them."""
    started = time.monotonic()
    job = make_job(rows, draw)
    nothing = NullTracker()
    training = engine.fit(job.method, job.loader, job.heldout, job.config.training, nothing, quiet=True)
    engine.restore(job.method, training.chosen)
    pool = job.pool
    own = correct(job.method, job.encoded, pool.given, pool.right, pool.ids, pool.class_names)
    trained = time.monotonic() - started
    judged = judge(job)
    seconds = time.monotonic() - started
    inputs = np.asarray(job.encoded[np.arange(len(pool.ids))]).reshape(len(pool.ids), -1)
    return {
        "ebomlc": our_figures(job, judged.labels, seconds) | honesty(job, judged, own),
        "method": our_figures(job, own, trained),
        "cleanlab": cleanlab_peer(job, inputs, with_trusted=False),
        "cleanlab+trusted": cleanlab_peer(job, inputs, with_trusted=True),
        "trusted-only": trusted_only_peer(job, inputs),
        "oracle": oracle(job, inputs),
    }


def append(rows: list[dict[str, Any]]) -> None:
    is_new = not ROWS.exists()
    with ROWS.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def run_missing(names: list[str], draws: int, cifar: Path | None) -> None:
    here = commit()
    if here is None or here.endswith("+changes"):
        print(f"the tree is changed: rows say {here}, and are repeated once it is committed")
    stored = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["data", "draw", "commit"])
    done = set(stored.loc[stored["commit"] == here, ["data", "draw"]].itertuples(index=False, name=None))
    machine = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    for name in names:
        missing = [draw for draw in range(draws) if (name, draw) not in done]
        if not missing or _is_absent(name, cifar):
            continue
        rows = SETS[name](cifar)
        for draw in missing:
            found = run_draw(rows, draw)
            where = {"data": name, "draw": draw, "commit": here, "torch": torch.__version__, "machine": machine}
            empty = dict.fromkeys((*FIGURES, *HONESTY))
            append([{**where, "who": who, **empty, **figures} for who, figures in found.items()])
            print(
                name, draw, {who: round(figures["average_precision"], 3) for who, figures in found.items()}, flush=True
            )


def _is_absent(name: str, cifar: Path | None) -> bool:
    if name in ("hausa", "derby") and not (SHARED / name).is_dir():
        print(f"skipped {name}: {SHARED / name} is not there")
        return True
    if name == "cifar10n" and cifar is None:
        print("skipped cifar10n: name its folder with --cifar")
        return True
    return False


def tables() -> Iterator[str]:
    """Means over the draws of the newest commit of each set, and whether what runs say of themselves is true."""
    rows = pd.read_csv(ROWS)
    for data, mine in rows.groupby("data", sort=False):
        mine = mine[mine["commit"] == mine["commit"].iloc[-1]]
        ours = mine[mine["who"] == "ebomlc"]
        yield f"### {data}"
        means = mine.groupby("who", sort=False)[list(FIGURES)].mean().map("{:.3f}".format)
        yield markdown_table(means.reset_index())
        yield from _honesty_of(ours)
        yield f"{len(ours)} draws, commit {ours['commit'].iloc[-1][:10]}, torch {ours['torch'].iloc[-1]}."


def _honesty_of(ours: pd.DataFrame) -> Iterator[str]:
    def covers(name: str) -> str:
        inside = (ours[f"{name}_low"] <= ours["noise"]) & (ours["noise"] <= ours[f"{name}_high"])
        return f"{inside.sum()} of {len(ours)}, width {(ours[f'{name}_high'] - ours[f'{name}_low']).mean():.3f}"

    with_cut = ours.dropna(subset="cut_low")
    kept = (with_cut["cut_precision"] >= 0.9).sum()
    mean = {name: f"{ours[name].mean():.3f}" for name in HONESTY if "error_" in name or "auroc_" in name}
    yield (
        f"The 95 % interval of the noise rate covers the truth in {covers('assisted')}; that of the checked pairs "
        f"alone in {covers('pairs')}, or, told that the set is finite, {covers('finite')}."
    )
    yield (
        f"Calibration error {mean['error_before']} before and {mean['error_after']} after calibration, of "
        f"`label_quality` {mean['quality_error_after']}; AUROC {mean['auroc_before']} and {mean['auroc_after']}. "
        f"A cut at 90 % precision in {len(with_cut)} draws, {kept} of them at 90 % or more indeed."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder of cifar-10-batches-py and CIFAR-10_human.npz")
    parser.add_argument("--data", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if not options.table:
        run_missing(options.data, options.draws, options.cifar)
    print(*tables(), sep="\n\n")


if __name__ == "__main__":
    main()
