"""What one setting does to accuracy, on the development rows and noise of tune.py.

    python benchmarks/variants.py ebomlc settings rho 0.5,0.7
    python benchmarks/variants.py ce,plus,mlc training precision float32,bfloat16 --seeds 1000,1001

Methods start from their tuned configurations. Rows that are in results/variants.csv are not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import tomllib
import warnings
from itertools import product

from tune import CHOSEN, EPOCHS, N_NOISY, NOISES, ROWS, SEED, append, kept, run_trial

OUT = ROWS.with_name("variants.csv")
TABLES = ("settings", "training")


def known(text: str) -> object:
    """A value as JSON has it, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", help="with commas between them")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("name")
    parser.add_argument("values", help="with commas between them")
    parser.add_argument("--seeds", default=str(SEED), help="with commas between them")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    tuned = tomllib.loads(CHOSEN.read_text(encoding="utf-8"))
    done = {tuple(row[:5]) for row in csv.reader(OUT.open(encoding="utf-8"))} if OUT.exists() else set()
    seeds, values = (text.split(",") for text in (arguments.seeds, arguments.values))
    for method, seed, value, noise in product(arguments.methods.split(","), seeds, values, NOISES):
        row = {"method": method, "setting": arguments.name, "value": value, "noise": noise, "seed": seed}
        if tuple(row.values()) in done:
            continue
        chosen = {table: dict(tuned[method].get(table, {})) for table in TABLES}
        chosen[arguments.table][arguments.name] = known(value)
        summary = run_trial(method, chosen, noise, EPOCHS, N_NOISY, int(seed))
        append(OUT, {**row, **{name: figure for name, figure in kept(summary).items() if name != "seed"}})
        accuracies = (summary["test_accuracy_last"], summary["suggested_label_accuracy"])
        print(*row.values(), *(f"{accuracy:.4f}" for accuracy in accuracies), flush=True)


if __name__ == "__main__":
    main()
