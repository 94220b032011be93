"""A run read back from its folder says of the test rows exactly what the run itself said."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_wine
from torch import nn

from ebomlc import Arrays, DataWarning, InputError, fit, load_classifier, predict

DIGITS, RIGHT = load_digits(return_X_y=True)
RIGHT = RIGHT.astype(str)
PIXELS = (DIGITS.reshape(-1, 8, 8) * 15).astype(np.uint8)


def noisy(right, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(right)) < share, rng.permutation(right), right)


def write_table(folder):
    """Wine with a category and gaps: numbers and categories in one table."""
    wine = load_wine(as_frame=True)
    frame = wine.data.copy()
    frame["strength"] = pd.cut(frame["alcohol"], 3, labels=["weak", "middling", "strong"]).astype(str)
    frame.loc[::7, "hue"] = np.nan
    frame["label"] = wine.target.map({0: "barolo", 1: "grignolino", 2: "barbera"})
    frame = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    train, test = frame[:130].copy(), frame[130:]
    train["checked_label"] = train["label"].where(train.index < 60)
    train["label"] = noisy(train["label"].to_numpy(str))
    train.to_csv(folder / "train.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)
    return folder / "train.csv", folder / "test.csv"


def write_texts(folder):
    """Digits in words: each pixel row is a word, so that the texts are real rows and of real classes."""
    words = [" ".join(f"r{row}v{int(pixels.sum() // 8)}" for row, pixels in enumerate(image)) for image in PIXELS[:500]]
    frame = pd.DataFrame({"text": words, "label": noisy(RIGHT[:500]), "checked_label": RIGHT[:500]})
    frame.loc[150:, "checked_label"] = None
    frame[:400].to_csv(folder / "train.csv", index=False)
    frame[400:].assign(label=RIGHT[400:500]).drop(columns="checked_label").to_csv(folder / "test.csv", index=False)
    return folder / "train.csv", folder / "test.csv"


def write_images(folder):
    given = noisy(RIGHT[:400])
    for part, rows in (("train", range(300)), ("test", range(300, 400))):
        for row in rows:
            label = given[row] if part == "train" else RIGHT[row]
            path = folder / part / label / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[row]).save(path)
    ids = [f"{given[row]}/{row}.png" for row in range(120)]
    pd.DataFrame({"id": ids, "label": RIGHT[:120]}).to_csv(folder / "checked.csv", index=False)
    return folder / "train", folder / "test"


KINDS = {
    "table": (write_table, {}),
    "text": (write_texts, {"text": "text"}),
    "images": (write_images, {"trusted": "checked.csv", "encoder": "pixels"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_process_repeats_the_test_accuracy(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write, options = KINDS[kind]
    train, test = write(tmp_path)
    options = {**options, **({"trusted": tmp_path / "checked.csv"} if "trusted" in options else {})}
    run = fit(train, test=test, epochs=3, out=tmp_path / "run", **options)
    assert run.summary["encoder"] in ("columns", "pixels")

    out = tmp_path / "predicted.csv"
    command = [sys.executable, "-m", "ebomlc", "predict", tmp_path / "run", test, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"accuracy {run.summary['test_accuracy']:.1%}" in done.stdout
    assert f"of {run.summary['n_test']:,} rows with a label" in done.stdout

    again = predict(load_classifier(tmp_path / "run"), test)
    assert again.accuracy == run.summary["test_accuracy"]
    assert again.balanced_accuracy == run.summary["test_balanced_accuracy"]
    np.testing.assert_allclose(again.probabilities.sum(1), 1, atol=1e-5)
    table = pd.read_csv(out, dtype={"id": str, "predicted_label": str})
    assert table["predicted_label"].tolist() == again.to_frame()["predicted_label"].tolist()
    assert [name for name in table if name.startswith("p(")] == [f"p({name})" for name in again.class_names]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prediction") / "run"
    return fit("digits", noise="flip:0.3", n_trusted=100, epochs=3, out=folder)


def test_rows_need_no_labels_and_keep_their_ids(run, tmp_path):
    frame = pd.DataFrame(DIGITS[:7] / 16, columns=[f"x{k}" for k in range(64)])
    frame["id"] = [f"new/{k}" for k in range(7)]
    frame.to_csv(tmp_path / "new.csv", index=False)
    found = predict(load_classifier(run.folder), tmp_path / "new.csv")
    assert found.ids.tolist() == frame["id"].tolist()
    assert found.accuracy is None
    frame["label"] = [*RIGHT[:6], "eleven"]
    assert predict(load_classifier(run.folder), frame).accuracy is None, "a class that was never seen"
    assert predict(load_classifier(run.folder), frame[:6]).accuracy == (
        (found.to_frame()["predicted_label"][:6] == RIGHT[:6]).mean()
    )


def test_many_rows_come_in_their_order(run, monkeypatch):
    from ebomlc import prediction

    classifier = load_classifier(run.folder)
    rows = (np.tile(DIGITS / 16, (2, 1)), np.tile(RIGHT, 2))
    whole = predict(classifier, rows).probabilities
    monkeypatch.setattr(prediction, "ENCODING_BATCH", 700)
    monkeypatch.setattr(prediction, "PREDICTION_BATCH", 33)
    np.testing.assert_allclose(predict(classifier, rows).probabilities, whole, atol=1e-6)


def test_a_network_from_python_is_given_again(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    test = (PIXELS[700:], RIGHT[700:])
    run = fit(
        (PIXELS[100:700], noisy(RIGHT[100:700])),
        trusted=(PIXELS[:100], RIGHT[:100]),
        test=test,
        model=network,
        epochs=3,
        out=tmp_path / "run",
    )
    assert run.summary["model"] == "(Sequential from Python)"
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items()), "it was copied"
    with pytest.raises(InputError, match=r"the model of this run came from Python .*load_classifier\(run, model="):
        load_classifier(tmp_path / "run")
    classifier = load_classifier(tmp_path / "run", model=network)
    assert predict(classifier, test).accuracy == run.summary["test_accuracy"]
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    with pytest.raises(InputError, match="the trained weights do not fit the model"):
        load_classifier(tmp_path / "run", model=other)


def test_labels_that_were_respelt_are_respelt_again(tmp_path):
    wide = pd.DataFrame(DIGITS[:300], columns=[f"x{k}" for k in range(64)])
    train = wide[:200].assign(
        label=RIGHT[:200], checked_label=pd.Series(RIGHT[:200].astype(float)).where(wide.index[:200] < 80)
    )
    test = wide[200:].assign(label=[f"{label}.0" for label in RIGHT[200:300]])
    run = fit(train, test=test, epochs=3, out=tmp_path / "run")
    assert run.summary["n_classes"] == 10
    assert predict(load_classifier(tmp_path / "run"), test).accuracy == run.summary["test_accuracy"]


def test_new_rows_need_neither_ids_nor_labels_nor_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    frame = pd.DataFrame(DIGITS[:200], columns=[f"x{k}" for k in range(64)]).assign(key=range(200), label=RIGHT[:200])
    fit(frame, id="key", trusted=frame[:80], epochs=3, out=tmp_path / "table")
    classifier = load_classifier(tmp_path / "table")
    assert predict(classifier, frame.drop(columns=["key", "label"])).ids.tolist() == [str(k + 1) for k in range(200)]

    np.save(tmp_path / "rows.npy", DIGITS[:200].astype(np.float32))
    frame[["label"]].assign(checked_label=frame["label"].where(frame.index < 80)).to_csv(
        tmp_path / "rows.csv", index=False
    )
    fit(tmp_path / "rows.npy", epochs=3, out=tmp_path / "vectors")
    (tmp_path / "rows.csv").unlink()
    assert len(predict(load_classifier(tmp_path / "vectors"), tmp_path / "rows.npy").ids) == 200

    train, _ = write_images(tmp_path)
    fit(train, trusted=tmp_path / "checked.csv", encoder="pixels", epochs=3, out=tmp_path / "images")
    (tmp_path / "flat").mkdir()
    for row in range(5):
        Image.fromarray(PIXELS[row]).save(tmp_path / "flat" / f"{row}.png")
    found = predict(load_classifier(tmp_path / "images"), tmp_path / "flat")
    assert found.ids.tolist() == [f"{row}.png" for row in range(5)]
    assert found.accuracy is None


def test_labels_that_are_no_class_are_named(run):
    frame = pd.DataFrame(DIGITS[:3] / 16, columns=[f"x{k}" for k in range(64)]).assign(label=["1", "ten", "2"])
    assert predict(load_classifier(run.folder), frame).unknown_labels == ("ten",)


def test_other_spellings_of_a_class_are_it_where_the_run_took_them_so(tmp_path):
    wide = pd.DataFrame(DIGITS[:200], columns=[f"x{k}" for k in range(64)])
    names = np.where(RIGHT[:200].astype(int) < 5, "Low", "High")
    train = wide.assign(label=[*names[:198], "low", "HIGH "], checked_label=pd.Series(names).where(wide.index < 80))
    fit(train, normalise_labels=True, epochs=3, out=tmp_path / "run")
    classifier = load_classifier(tmp_path / "run")
    plain = predict(classifier, wide.assign(label=names))
    shouted = predict(classifier, wide.assign(label=[f" {name.upper()}  " for name in names]))
    assert shouted.accuracy == plain.accuracy
    assert plain.accuracy is not None


def test_categories_that_were_never_seen_are_counted(tmp_path):
    frame = pd.DataFrame({"x": DIGITS[:200, 20], "ward": ["A", "B", "C", None] * 50, "label": RIGHT[:200]})
    checked = frame["label"].where(frame.index < 80)
    fit(frame.assign(checked_label=checked), epochs=3, out=tmp_path / "run")
    classifier = load_classifier(tmp_path / "run")
    predict(classifier, frame)
    with pytest.warns(DataWarning, match="did not occur in training count for nothing: 50 in 'ward'"):
        predict(classifier, frame.assign(ward=frame["ward"].replace("C", "Z")))


def test_rows_without_a_label_do_not_count(run):
    frame = pd.DataFrame(DIGITS[:40] / 16, columns=[f"x{k}" for k in range(64)]).assign(label=RIGHT[:40])
    classifier = load_classifier(run.folder)
    half = predict(classifier, frame.assign(label=frame["label"].where(frame.index % 2 == 0)))
    assert half.n_labelled == 20
    assert half.accuracy == predict(classifier, frame[::2]).accuracy
    assert predict(classifier, DIGITS[:40] / 16).n_labelled == 0, "an array alone will do"


def test_an_exported_network_of_embeddings_takes_them_as_they_are(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    rows = DIGITS.astype(np.float32)
    checked = Arrays(rows[:100], RIGHT[:100], kind="embeddings")
    fit(
        Arrays(rows[100:400], noisy(RIGHT[100:400]), kind="embeddings"), trusted=checked, epochs=3, out=tmp_path / "run"
    )
    out = tmp_path / "somewhere" / "digits.onnx"
    command = [sys.executable, "-m", "ebomlc", "export", tmp_path / "run", "--to", "onnx", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "from embeddings as they are [rows, 64] to probabilities [rows, 10]" in done.stdout
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    said = session.run(None, {"inputs": rows[400:450]})[0]
    found = predict(load_classifier(tmp_path / "run"), Arrays(rows[400:450], kind="embeddings"))
    np.testing.assert_allclose(said, found.probabilities, atol=1e-5)


# --- refused ----------------------------------------------------------------------------------------------------------


def refusal(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert "not a run folder, for it has no summary.json" in refusal(lambda: load_classifier(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("main.safetensors", b"no weights"),
        ("config.toml", b"seed = = 1"),
        ("encoder/encoder.json", b"{}"),
        ("encoder/encoder.npz", b"PK"),
    ],
)
def test_a_damaged_run_is_refused(run, tmp_path, name, content):
    import shutil

    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    assert str(tmp_path / "run") in refusal(lambda: load_classifier(tmp_path / "run"))


def test_rows_without_the_inputs_are_refused(run):
    classifier = load_classifier(run.folder)
    said = refusal(lambda: predict(classifier, pd.DataFrame({"x0": [1.0], "label": ["3"]})))
    assert "column 'x1'" in said
    said = refusal(lambda: predict(classifier, pd.DataFrame({"id": ["a"], "label": ["3"]})))
    assert "has none of the inputs that the run was trained on" in said


@pytest.mark.parametrize(
    "rows",
    [(PIXELS[:5], None), (DIGITS[:5, :63], None), (["a", "b"], None)],
    ids=["images", "fewer columns", "texts"],
)
def test_rows_of_another_kind_are_refused(run, rows):
    said = refusal(lambda: predict(load_classifier(run.folder), rows))
    assert "must be alike" in said or "column" in said


def test_the_command_says_what_is_wrong(run, tmp_path):
    command = [sys.executable, "-m", "ebomlc", "predict", run.folder, "digits", "--out"]
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    for out, message in (
        (taken, "already exists"),
        (tmp_path / "a.xlsx", "--out must end with one of"),
        (tmp_path, "is a folder"),
    ):
        done = subprocess.run([*command, out], capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert taken.read_text() == "mine"
    assert json.loads((run.folder / "summary.json").read_text()) == run.summary
