"""Methods on real data with the tool's defaults: a row a run in results/real_data.csv, the table in docs/choosing.md.

    python benchmarks/real_data.py             # run what is missing, then write the table
    python benchmarks/real_data.py --table     # only write the table

Cells: scikit-learn's digits with 40 % flipped labels and 100 trusted rows; hausa and derby from ../shared/data, where
the trusted rows carry the label they were given. Nothing is calibrated, which would take longer than the training.
Runs of the present commit that are stored are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import warnings
from pathlib import Path

import pandas as pd
from scipy.stats import t

from ebomlc import fit
from ebomlc.environment import commit

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
ROWS, PAGE = ROOT / "results" / "real_data.csv", ROOT / "docs" / "choosing.md"
BEGIN, END = "<!-- table: benchmarks/real_data.py -->", "<!-- end -->"
METHODS = (
    "ce", "finetune", "trusted-only", "gce", "glc", "forward", "bayes", "l2rw", "mw-net", "mlc", "mlc-head",
    "mlc-barrier", "mslc", "emlc", "ebomlc", "ebomlc-literal", "plus", "oracle",
)  # fmt: skip
SEEDS = (0, 1, 2)
KEPT = (
    "method", "model", "seed", "commit", "measured_noise", "n_noisy", "n_trusted", "epochs", "steps", "precision",
    "test_accuracy", "test_accuracy_last", "test_balanced_accuracy", "given_label_accuracy",
    "suggested_label_accuracy", "seconds",
)  # fmt: skip


def files(name: str, **columns: str) -> dict[str, str]:
    parts = {part: str(SHARED / name / f"{part}.csv") for part in ("noisy", "trusted", "test", "truth")}
    return {**parts, **columns}


CELLS = {
    "digits": {"noisy": "digits", "noise": "flip:0.4", "n_trusted": 100},
    "hausa": files("hausa", text="text"),
    "derby": files("derby"),
}


def run_cell(data: str, method: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        # folds=0: confidences are not calibrated, which changes neither the classifier nor a suggestion
        summary = fit(**CELLS[data], method=method, seed=seed, folds=0, out=Path(scratch) / "run").summary
    return {
        "data": data,
        **{key: summary[key] for key in KEPT},
        "torch": summary["versions"]["torch"],
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "command": f"python benchmarks/real_data.py ({data}, {method}, seed {seed})",
    }


def append(row: dict) -> None:
    is_new = not ROWS.exists()
    with ROWS.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def run_missing() -> None:
    here = commit()  # once: the code that runs was imported now, whatever happens to the tree meanwhile
    if here is None or here.endswith("+changes"):
        raise SystemExit("rows name the commit they come from: commit your changes to src/ first")
    stored = pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=["data", "method", "seed", "commit"])
    present = stored[stored["commit"] == here]
    done = set(zip(present["data"], present["method"], present["seed"], strict=True))
    for data in CELLS:
        if data != "digits" and not SHARED.exists():
            print(f"skipped {data}: {SHARED} is not there")
            continue
        for method in METHODS:
            for seed in SEEDS:
                if (data, method, seed) not in done:
                    row = {**run_cell(data, method, seed), "commit": here}
                    append(row)
                    print(data, method, seed, row["test_accuracy"], row["suggested_label_accuracy"], flush=True)


def table() -> str:
    """Mean over seeds and 95 % interval of the newest commit's rows, as Markdown."""
    rows = pd.read_csv(ROWS)
    rows = rows[rows["commit"] == rows["commit"].iloc[-1]]
    lines = [
        "| method | "
        + " | ".join(f"{data}: test / balanced / labels" for data in CELLS)
        + f" | seconds: {' / '.join(CELLS)} |",
        "|---|" + "---|" * (len(CELLS) + 1),
    ]
    for method in METHODS:
        mine = rows[rows["method"] == method]
        cells = [_cell(mine[mine["data"] == data]) for data in CELLS]
        seconds = " / ".join(f"{mine.loc[mine['data'] == data, 'seconds'].mean():.1f}" for data in CELLS)
        lines.append(f"| `{method}` | {' | '.join(cells)} | {seconds} |")
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    source = f"Rows: `results/real_data.csv`, commit {rows['commit'].iloc[-1][:10]}, torch {rows['torch'].iloc[-1]}"
    return "\n".join([*lines, "", f"{source}, {rows['machine'].iloc[-1]}, seeds {seeds}; mean ± 95 % interval (t)."])


def _cell(rows: pd.DataFrame) -> str:
    keys = ("test_accuracy", "test_balanced_accuracy", "suggested_label_accuracy")
    if rows.empty:
        return "-"
    factor = 100 * t.ppf(0.975, len(rows) - 1) / len(rows) ** 0.5
    return " / ".join(f"{100 * rows[key].mean():.1f} ± {factor * rows[key].std():.1f}" for key in keys)


def write_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    only_table = parser.parse_args().table
    warnings.simplefilter("ignore")
    if not only_table:
        run_missing()
    write_table()


if __name__ == "__main__":
    main()
