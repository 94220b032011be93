"""Keep a tiny run of this version, so that every later one can be tested on it: ``python -m tests.releases.make``.

A run folder and the rows it was made of, in base64 in one JSON file of text, less than 100 KB.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

from ebomlc import fit
from ebomlc.run_folder import REPORT
from ebomlc.version import __version__

HERE = Path(__file__).parent
MOST_BYTES = 100_000
SOURCES = ("noisy.csv", "trusted.csv", "truth.csv", "test.csv")


def write_sources() -> None:
    """Wines of three cultivars (Aeberhard and Forina 1991), a quarter under a wrong name, to the working folder."""
    wines = load_wine(as_frame=True)
    names = np.array(["barolo", "grignolino", "barbera"])
    frame = wines.data[["alcohol", "flavanoids", "color_intensity"]].round(2)
    frame = frame.assign(id=[f"w{row}" for row in frame.index], label=names[wines.target])
    test, rest = frame[::4], frame.drop(frame.index[::4])
    wrong = rest.sample(frac=0.25, random_state=0).index
    noisy = rest.assign(label=rest.label.where(~rest.index.isin(wrong), names[(wines.target[rest.index] + 1) % 3]))
    trusted = rest.sample(60, random_state=1)[["id", "label"]]
    for name, rows in zip(SOURCES, (noisy, trusted, rest[["id", "label"]], test), strict=True):
        rows.to_csv(name, index=False)


def main() -> None:
    """Fit, and write ``run-VERSION.json`` beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_sources()
        small = {"corrector": {"embedding": 8, "hidden": 16}}
        asked = {"trusted": "trusted.csv", "truth": "truth.csv", "test": "test.csv", "epochs": 30, "settings": small}
        fit("noisy.csv", out="run", precision=0.6, **asked)
        paths = [path for path in Path().rglob("*") if path.is_file() and path.name != REPORT]
        files = {path.as_posix(): base64.b64encode(path.read_bytes()).decode() for path in sorted(paths)}
        text = json.dumps({"version": __version__, "files": files}, indent=1) + "\n"
        os.chdir(HERE)
    if len(text) > MOST_BYTES:
        raise SystemExit(f"{len(text):,} bytes are too many for git: make the run smaller")
    (HERE / f"run-{__version__}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
