"""One configuration for each method, chosen on rows, noise and seeds that no reported figure uses.

    python benchmarks/tune.py                          # run the trials that are missing, then choose
    python benchmarks/tune.py --minutes 60             # start no further trial after an hour
    python benchmarks/tune.py --choose                 # only choose
    ebomlc bench run desk-fashion --tuned results/tuned.toml --out desk-fashion

Development split: 10,000 of the 60,000 Fashion-MNIST *training* images are scored, the others train; the official test
images play no part. Noise is uniform:0.9 and flip:0.4 with seed 1000; the suites report other rates and seeds 0 to 4.
Every method gets the same number of trials, each of the same steps under both noises: trial 0 is its defaults, the
others draw from learning rate and weight decay, which all share, and from its own settings (`OWN`). The trial with the
highest mean accuracy after the last epoch is taken. Rows that are in results/tuning.csv are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
import tomllib
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from sklearn.model_selection import train_test_split

from ebomlc import Arrays, fit
from ebomlc.data.readers import BUILT_IN
from ebomlc.environment import commit
from ebomlc.methods import METHODS, find_method
from ebomlc.seeding import numpy_generator

ROOT = Path(__file__).resolve().parent.parent
ROWS, CHOSEN = ROOT / "results" / "tuning.csv", ROOT / "results" / "tuned.toml"

NOISES, SEED, SPLIT_SEED = ("uniform:0.9", "flip:0.4"), 1000, 2000
N_DEVELOPMENT, N_TRUSTED, N_NOISY, EPOCHS, TRIALS = 10_000, 1000, 6000, 20, 4

SHARED = {"lr": (0.02, 0.05, 0.1, 0.2), "weight_decay": (1e-4, 5e-4, 2e-3)}
RATES, PHASES = (3e-4, 1e-3, 3e-3), (0.2, 1 / 3, 0.5)
OWN: dict[str, dict[str, tuple[float, ...]]] = {
    "finetune": {"noisy_share": (0.5, 0.65, 0.8), "rate_factor": (0.03, 0.1, 0.3)},
    "gce": {"q": (0.5, 0.7, 0.9)},
    "glc": {"first_phase": PHASES},
    "forward": {"first_phase": PHASES, "percentile": (0.9, 0.97, 0.99)},
    "bayes": {"rounds": (50, 200)},
    "mw-net": {"weight_lr": RATES},
    "mslc": {"start": (1 / 3, 0.5, 2 / 3), "decay": (0.8, 0.9, 0.97), "weight_lr": (3e-3, 1e-2, 3e-2)},
    "mlc": {"corrector_lr": RATES},
    "mlc-head": {"head_step": (3.0, 10.0, 30.0), "rho": (0.3, 0.5, 0.7), "corrector_lr": RATES},
    "mlc-barrier": {"delta": (0.25, 0.5, 1.0), "corrector_lr": RATES},
    "emlc": {"teacher_lr": RATES, "corrupted": (0.25, 0.5, 0.75)},
    "ebomlc": {"rho": (0.3, 0.5, 0.7), "xi": (0.5, 1.0, 2.0), "delta": (0.25, 0.5, 1.0), "corrector_lr": RATES},
    "plus": {"cross_fitting": (0.2, 0.3, 0.5), "mixup": (0.1, 0.3, 1.0), "averaging": (0.03, 0.1, 0.3)},
    "ebomlc-literal": {"rho": (0.2, 0.5), "xi": (0.5, 1.0), "delta": (0.25, 0.5), "corrector_lr": RATES},
}

Trial = dict[str, dict[str, Any]]


@cache
def trials(method: str, n: int) -> list[Trial]:
    """Defaults, then n - 1 different draws; the same on every machine, and the first of more are those of fewer."""
    rng = numpy_generator(0, f"tuning {method}")
    found: list[Trial] = [{"settings": {}, "training": {}}]
    while len(found) < n:
        drawn = {
            table: {name: values[int(rng.integers(len(values)))] for name, values in space.items()}
            for table, space in (("settings", OWN.get(method, {})), ("training", SHARED))
        }
        if drawn not in found:
            found.append(drawn)
    return found


@cache
def development_split() -> tuple[Arrays, Arrays]:
    """Rows to train on and rows to score, both cut from the training images."""
    official = BUILT_IN["fashion-mnist"](None)
    rows = np.arange(len(official.train_labels))
    kept, scored = train_test_split(
        rows, test_size=N_DEVELOPMENT, stratify=official.train_labels, random_state=SPLIT_SEED
    )
    names = np.array(official.class_names)[official.train_labels]
    return tuple(
        Arrays(official.train_inputs[part], names[part], ids=[f"train-{row}" for row in part], kind="images")
        for part in (np.sort(kept), np.sort(scored))
    )  # type: ignore[return-value]


def run_trial(method: str, chosen: Trial, noise: str, epochs: int, n_noisy: int, seed: int = SEED) -> dict[str, Any]:
    train, scored = development_split()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.toml"
        config.write_text(tomli_w.dumps({"training": {"precision": "float32", **chosen["training"]}}))
        return fit(
            train,
            test=scored,
            noise=noise,
            n_trusted=N_TRUSTED,
            n_noisy=n_noisy,
            allow_overlap=True,  # a handful of the official images are there twice
            encoder="pixels",
            model="cnn-tiny",
            method=method,
            settings=chosen["settings"],
            epochs=epochs,
            seed=seed,
            config=config,
            out=Path(scratch) / "run",
        ).summary


def stored(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["method"])


def run_missing(arguments: argparse.Namespace) -> None:
    names = arguments.methods.split(",") if arguments.methods else [name for name in METHODS if name != "oracle"]
    for name in names:
        find_method(name)
    deadline = time.monotonic() + 60 * arguments.minutes
    keys = ["method", "settings", "training", "noise", "epochs", "n_noisy"]
    rows = stored(arguments.out)
    done = set(rows[keys].itertuples(index=False, name=None)) if len(rows) else set()
    for number in range(arguments.trials):  # every method's first trial before anybody's second
        for method in names:
            chosen = trials(method, arguments.trials)[number]
            for noise in NOISES:
                texts = [json.dumps(chosen[table], sort_keys=True) for table in ("settings", "training")]
                key = (method, *texts, noise, arguments.epochs, arguments.n_noisy)
                if key in done:
                    continue
                if time.monotonic() > deadline:
                    print("time is up; the same command continues")
                    return
                summary = run_trial(method, chosen, noise, arguments.epochs, arguments.n_noisy)
                append(arguments.out, {**dict(zip(keys, key, strict=True)), "trial": number, **kept(summary)})
                done.add(key)
                print(method, number, *texts, noise, f"{summary['test_accuracy_last']:.4f}", flush=True)


def kept(summary: dict[str, Any]) -> dict[str, Any]:
    names = (
        "seed",
        "measured_noise",
        "n_trusted",
        "steps",
        "test_accuracy_last",
        "suggested_label_accuracy",
        "seconds",
    )
    return {**{name: summary[name] for name in names}, "commit": commit(), "torch": summary["versions"]["torch"]}


def append(path: Path, row: dict[str, Any]) -> None:
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def choose(arguments: argparse.Namespace) -> None:
    """Write each method's best trial, of those that every method has had."""
    rows = stored(arguments.out)
    if rows.empty:
        raise SystemExit(f"{arguments.out}: no trial is there yet")
    rows = rows[(rows["epochs"] == arguments.epochs) & (rows["n_noisy"] == arguments.n_noisy)]
    means = rows.groupby(["method", "trial"]).agg(accuracy=("test_accuracy_last", "mean"), n=("noise", "nunique"))
    means = means[means["n"] == len(NOISES)].reset_index()
    complete = means.groupby("method")["trial"].nunique().min() if len(means) else 0
    means = means[means["trial"] < complete]
    best = means.loc[means.groupby("method")["accuracy"].idxmax()]
    numbers = dict(zip(best["method"], best["trial"], strict=True))
    tables = {name: trials(name, number + 1)[number] for name, number in numbers.items()}
    text = tomli_w.dumps({name: {k: v for k, v in tables[name].items() if v} for name in sorted(tables)})
    head = (
        f"# {complete} trials a method, {arguments.epochs} epochs; from {arguments.out.name}, by benchmarks/tune.py\n"
    )
    target = arguments.out.with_name(CHOSEN.name)
    target.write_text(head + text, encoding="utf-8")
    assert tomllib.loads(target.read_text(encoding="utf-8")).keys() == tables.keys()
    print(best.to_string(index=False), f"written to {target}", sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="with commas between them; default: all but oracle")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--n-noisy", type=int, default=N_NOISY)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--choose", action="store_true", help="only choose from what is there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if not arguments.choose:
        run_missing(arguments)
    choose(arguments)


if __name__ == "__main__":
    main()
