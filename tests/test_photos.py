"""Two thousand photos in folders, 30 % of them in the wrong one: from the command to the table of labels."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from ebomlc.data.frozen import is_at_hand
from ebomlc.prediction import load_classifier, predict

ROOT = Path(__file__).parents[1]
SHARED_CIFAR = ROOT.parent / "shared" / "data" / "cifar.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not SHARED_CIFAR.is_file(), reason="needs ../shared/data/cifar.py beside the repository"),
    pytest.mark.skipif(not is_at_hand("efficientnet-lite0"), reason="needs the extra [vision]"),
]

MINUTES = 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    subprocess.run([sys.executable, SHARED_CIFAR, folder / "cifar"], check=True, capture_output=True)
    script = [sys.executable, ROOT / "benchmarks" / "image_folder.py", folder / "set", "--data-dir", folder / "cifar"]
    subprocess.run([*script, "--n-test", "500"], check=True, capture_output=True)
    return folder / "set"


def test_photos_in_wrong_folders_are_found(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [f"--{name}={photos / name}.csv" for name in ("truth",)]
    command = [sys.executable, "-m", "ebomlc", "fit", photos / "photos", "--trusted", photos / "checked.csv", *files]
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--test", photos / "test", "--out", tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60 * MINUTES
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    labels = pd.read_parquet(tmp_path / "run" / "labels.parquet")
    assert len(labels) == 2000
    assert summary["given_label_accuracy"] == pytest.approx(0.7, abs=0.02)

    classifier = load_classifier(tmp_path / "run")
    rows = classifier.read(photos / "photos")
    features = classifier.encoder.encode(rows.inputs)
    right = pd.read_csv(photos / "truth.csv", dtype=str).set_index("id")["label"][rows.ids].to_numpy(str)
    checked = np.isin(rows.ids, pd.read_csv(photos / "checked.csv", dtype=str)["id"])
    alone = max(
        LogisticRegression(C=c, max_iter=1000)
        .fit(features[checked], right[checked])
        .score(features[~checked], right[~checked])
        for c in (1e-3, 1e-2, 1e-1)
    )
    found = summary["suggested_label_accuracy"]
    print(
        f"right labels: given {summary['given_label_accuracy']:.3f}, logistic regression {alone:.3f}, found {found:.3f}"
    )
    assert found > alone + 0.02
    assert found > summary["given_label_accuracy"] + 0.05

    again = predict(classifier, photos / "test")
    assert again.accuracy == summary["test_accuracy"], "the same figures from the run folder alone"
