"""Two million rows of 64 features through a finished run: memory, throughput, and the share of the bare forward.

The bare forward is what a row costs however it is read and written: encoding and the main model (for the label pass
the method as well), on rows that lie in memory, over as many of them as there are at once in the stream. The model
without the encoder is shown beside it.

"training" is all that a training does before its first step, with the table and the encoded rows on the disk, as they
are where they do not fit into memory. What lies on the disk does not count as memory: the system gives it away.

    python benchmarks/stream.py [--rows 2000000] [--training-rows 100000 200000] [--keep FOLDER] [--store]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ebomlc import fit, preparation
from ebomlc.config import DataConfig, RunConfig
from ebomlc.data import stream
from ebomlc.data.inputs import table_of_numbers
from ebomlc.environment import commit
from ebomlc.labels.correct import correct
from ebomlc.prediction import Classifier, load_classifier
from ebomlc.records import NO_LABEL
from ebomlc.streaming import BYTES_MADE, load_method, predict_to

RESULTS = Path(__file__).resolve().parent.parent / "results" / "stream.csv"
N_FEATURES, N_CLASSES, N_TRAINING, N_CHECKED = 64, 10, 2000, 300
AT_ONCE = stream.rows_at_once(8 * (N_FEATURES + 3) + BYTES_MADE * N_CLASSES)
REPEATS = 5
COLUMNS = tuple(f"x{k}" for k in range(N_FEATURES))


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows around a centre for each class, and which class that is."""
    centres = np.random.default_rng(0).normal(size=(N_CLASSES, N_FEATURES))
    rng = np.random.default_rng(seed)
    labels = rng.integers(N_CLASSES, size=n)
    return centres[labels] + 2 * rng.normal(size=(n, N_FEATURES)), labels


def frame_of(rows: np.ndarray, labels: np.ndarray, first: int) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    names = pd.array([f"class {k}" for k in labels], "str")
    checked = pd.Series(names).where(first + frame.index < N_CHECKED)
    return frame.assign(id=[f"row/{first + k}" for k in range(len(rows))], label=names, checked_label=checked)


def write_rows(path: Path, n: int) -> None:
    """Row groups of a million rows, as pandas writes them; what is there stays."""
    if path.exists():
        return
    writer = None
    for first in range(0, n, 1_000_000):
        frame = frame_of(*draw(min(1_000_000, n - first), 1 + first), first)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=len(frame))
    if writer is not None:
        writer.close()


def train(folder: Path) -> Path:
    rows, labels = draw(N_TRAINING, 99)
    frame = frame_of(rows, labels, 0)
    wrong = np.random.default_rng(1).random(N_TRAINING) < 0.3
    given = np.where(wrong, np.random.default_rng(2).permutation(labels), labels)
    fit(frame.assign(label=[f"class {k}" for k in given]), epochs=2, folds=0, out=folder)
    return folder


def memory_mb(name: str) -> float:
    """Of this process: VmRSS, VmHWM, which is its peak, or RssAnon, which is it without what lies in files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def bare_seconds(classifier: Classifier, method: Any) -> tuple[float, float]:  # noqa: ANN401
    """Processor seconds a row of encoding and forward, and of the forward of the main model alone."""
    rows, labels = draw(AT_ONCE, 5)
    inputs = table_of_numbers(rows, COLUMNS)
    ids, right = np.full(AT_ONCE, "a", dtype=object), np.full(AT_ONCE, NO_LABEL)

    def both() -> None:
        if method is None:
            classifier.probabilities(inputs)
        else:
            correct(method, classifier.encoder.encode(inputs), labels, right, ids, classifier.class_names)

    encoded = torch.as_tensor(classifier.encoder.encode(inputs))

    @torch.no_grad()
    def model() -> None:
        for chunk in encoded.split(1000):
            classifier.model(chunk).logits.softmax(1)

    return seconds_a_row(both), seconds_a_row(model)


def seconds_a_row(action: Callable[[], None]) -> float:
    """Median processor seconds of one row, of `AT_ONCE` at a time."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        action()
        seconds.append(time.process_time() - started)
    return float(np.median(seconds)) / AT_ONCE


def measure(run: Path, data: Path, out: Path, suggest: bool) -> dict[str, Any]:
    """One pass. Times are processor seconds, so that other programs on the machine count for nothing."""
    classifier = load_classifier(run, device="cpu")
    method = load_method(classifier) if suggest else None
    resident = memory_mb("VmRSS")
    before = bare_seconds(classifier, method)
    forget_peak()
    started, clock = time.process_time(), time.monotonic()
    tally = predict_to(classifier, data, out, suggest=method)
    seconds, wall = time.process_time() - started, time.monotonic() - clock
    peak = memory_mb("VmHWM")
    after = bare_seconds(classifier, method)
    if tally is None:
        raise RuntimeError("nothing was predicted")
    bare, model = (sum(pair) / 2 for pair in zip(before, after, strict=True))
    return {
        "pass": "label pass" if suggest else "predict",
        "rows": tally.rows,
        "resident_before_mb": round(resident),
        "peak_mb": round(peak),
        "over_mb": round(peak - resident),
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "rows_per_cpu_second": round(tally.rows / seconds),
        "bare_rows_per_cpu_second": round(1 / bare),
        "share_of_bare": round(bare * tally.rows / seconds, 3),
        "model_rows_per_cpu_second": round(1 / model),
        "row_groups": pq.read_metadata(out).num_row_groups,
    }


def measure_training(data: Path, n: int) -> dict[str, Any]:
    """Everything before the first step."""
    before, peaks, done = memory_mb("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(memory_mb("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, clock = time.process_time(), time.monotonic()
    with mock.patch.object(stream, "MEMORY_SHARE", 0), mock.patch.object(preparation, "MEMORY_SHARE", 0):
        preparation.prepare(RunConfig(DataConfig(str(data))), preparation.Given(), None)
    seconds, wall = time.process_time() - started, time.monotonic() - clock
    done.set()
    watcher.join()
    return {
        "pass": "training",
        "rows": n,
        "resident_before_mb": round(before),
        "peak_mb": round(max(peaks)),
        "over_mb": round(max(peaks) - before),
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "rows_per_cpu_second": round(n / seconds),
    }


def run_alone() -> None:
    """One thread, and no words about made-up data."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pa.set_cpu_count(1)


def in_new_process(action: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """What an action gives in a process that has done nothing else before, so that memory is its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), run_alone) as pool:
        return pool.submit(action, *arguments).result()


def store(rows: list[dict[str, Any]]) -> None:
    about = {
        "commit": commit(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[-1], *about])
        if is_new:
            writer.writeheader()
        writer.writerows({**row, **about} for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000_000])
    parser.add_argument("--training-rows", type=int, nargs="*", default=[100_000, 200_000])
    parser.add_argument("--keep", type=Path, help="folder for files, which are left there; else a temporary one")
    parser.add_argument("--store", action="store_true", help="add the rows to results/stream.csv")
    options = parser.parse_args()
    run_alone()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        run, found = folder / "run", []
        if not run.exists():
            train(run)
        for n in options.training_rows:
            write_rows(folder / f"{n}.parquet", n)
            found.append(in_new_process(measure_training, folder / f"{n}.parquet", n))
            print(found[-1], flush=True)
        for n in options.rows:
            write_rows(folder / f"{n}.parquet", n)
            for suggest in (False, True):
                out = folder / f"out-{n}-{suggest}.parquet"
                found.append(in_new_process(measure, run, folder / f"{n}.parquet", out, suggest))
                print(found[-1], flush=True)
    if options.store:
        store(found)


if __name__ == "__main__":
    main()
