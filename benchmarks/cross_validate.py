"""Compare settings by cross-validation on the trusted rows, without a look at test rows or at the truth file.

Each fold's trusted rows go back into the noisy set with the label they were given, as rows to be corrected, and are
the test set with their right label. So `suggested` is the share of their suggestions, `test` the share of the main
model's predictions that are right.

    python benchmarks/cross_validate.py DATA/hausa --text text --vary '{}' --vary '{"settings": {"rho": 0.3}}'
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from ebomlc import fit

KEYS = {"test": "test_accuracy", "balanced": "test_balanced_accuracy", "suggested": "suggested_label_accuracy"}


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_fold(data: Path, rows: np.ndarray, folder: Path) -> dict[str, str]:
    """Files of one fold, as arguments of `fit`."""
    noisy, trusted = read(data / "noisy.csv"), read(data / "trusted.csv")
    held = trusted.iloc[rows]
    returned = held.assign(label=held["given_label"]).drop(columns="given_label")
    files = {
        "noisy": pd.concat([noisy, returned]),
        "trusted": trusted.drop(index=trusted.index[rows]),
        "test": held.drop(columns="given_label"),
        "truth": held[["id", "label"]],
    }
    for name, frame in files.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    return {name: str(folder / f"{name}.csv") for name in files}


def score(data: Path, arguments: dict, folds: int, seeds: int) -> dict[str, np.ndarray]:
    """Each figure by fold and seed."""
    trusted = read(data / "trusted.csv")
    found: dict[str, list[float]] = {name: [] for name in KEYS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(seeds):
            splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
            for _, rows in splitter.split(trusted, trusted["label"]):
                files = write_fold(data, rows, Path(scratch))
                run = fit(**files, **arguments, seed=seed, out=Path(scratch) / "run", overwrite=True)
                for name, key in KEYS.items():
                    found[name].append(run.summary[key])
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--text")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--vary", action="append", help="arguments of ebomlc.fit as JSON; may be repeated")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for text in options.vary or ["{}"]:
        figures = score(options.data, {"text": options.text, **json.loads(text)}, options.folds, options.seeds)
        shown = "  ".join(f"{k} {v.mean():.3f}±{v.std(ddof=1) / len(v) ** 0.5:.3f}" for k, v in figures.items())
        print(f"{options.data.name:<8} {shown}  {text}", flush=True)


if __name__ == "__main__":
    main()
