"""What frozen features are worth, and what they cost: the numbers behind the defaults of `ebomlc.data.frozen`.

Images: 2,000 training images of CIFAR-10, of which 200 are labelled right, or all with the worst label of three people;
logistic regression on features of efficientnet-lite0, scored on 2,000 test images. Texts: hausa headlines, the 250
trusted rows for training; MiniLM's features against the TF-IDF of encoder `columns`.

    python benchmarks/frozen_features.py --cifar DIR [--sizes 96 128 160 224]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from ebomlc.data.encoders import Encoder, TableEncoder
from ebomlc.data.frozen import BackboneEncoder, SentenceEncoder
from ebomlc.data.inputs import Inputs
from ebomlc.data.official import load_cifar10

HAUSA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "hausa"
N, N_RIGHT = 2000, 200
STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Inverse ridge penalties; all are shown, so that none is chosen on test rows."""


def accuracies(train: np.ndarray, labels: np.ndarray, test: np.ndarray, right: np.ndarray) -> str:
    scores = [LogisticRegression(C=c, max_iter=500).fit(train, labels).score(test, right) for c in STRENGTHS]
    return " ".join(f"{score:.3f}" for score in scores)


def measure_images(data_dir: Path, sizes: list[int]) -> None:
    data = load_cifar10(data_dir)
    train, test = (Inputs("images", images[:N]) for images in (data.train_inputs, data.test_inputs))
    right, human, truth = data.train_labels[:N_RIGHT], data.human["worse"][:N], data.test_labels[:N]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            encoder = BackboneEncoder.fit(train, "efficientnet-lite0", Path(folder), size=size)
            seconds = (time.process_time() - started) / len(train) * 1000
            x, x_test = encoder.encode(train), encoder.encode(test)
        print(
            f"size {size}: {seconds:.1f} CPU s per 1,000 images; C {STRENGTHS}: {N_RIGHT} right labels "
            f"{accuracies(x[:N_RIGHT], right, x_test, truth)}, {N} human labels {accuracies(x, human, x_test, truth)}",
            flush=True,
        )


def texts(name: str) -> tuple[Inputs, np.ndarray]:
    frame = pd.read_csv(HAUSA / f"{name}.csv", dtype=str, keep_default_na=False)
    return Inputs("table", frame[["text"]], {"text": "text"}), frame["label"].to_numpy()


def measure_texts() -> None:
    (trusted, labels), (noisy, _), (test, truth) = (texts(name) for name in ("trusted", "noisy", "test"))
    everything = trusted.join(noisy)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        minilm = SentenceEncoder.fit(everything, "minilm", Path(folder))
        print(f"minilm: {(time.process_time() - started) / len(everything) * 1000:.1f} CPU s per 1,000 texts")
        encoders: dict[str, Encoder] = {"minilm": minilm, "columns": TableEncoder.fit(everything)}
        for name, encoder in encoders.items():
            scores = accuracies(encoder.encode(trusted), labels, encoder.encode(test), truth)
            print(f"{name}: {len(trusted)} right labels, C {STRENGTHS}: {scores}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder of cifar-10-batches-py and CIFAR-10_human.npz")
    parser.add_argument("--sizes", type=int, nargs="*", default=[96, 128, 160, 192, 224])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.cifar is not None:
        measure_images(options.cifar, options.sizes)
    if HAUSA.is_dir():
        measure_texts()


if __name__ == "__main__":
    main()
