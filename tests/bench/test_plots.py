"""Pictures are drawn of a real grid, show what the rows say, and say so where there is nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ebomlc.bench import plots as room
from ebomlc.bench.plots import (
    cost_figure,
    curves_figure,
    draw,
    matrix_figure,
    noise_figure,
    shares_by_given,
    styles,
    trusted_figure,
)  # fmt: skip
from ebomlc.bench.store import finished, read_rows
from ebomlc.errors import DataWarning, InputError
from ebomlc.methods import METHODS

from .test_tables import METRIC, ROWS, make_rows

pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'ebomlc[plot]'")


def test_a_grid_gives_all_four_pictures(grid, tmp_path):
    paths = draw(grid, read_rows(grid), tmp_path / "plots")
    assert [path.name for path in paths] == [
        f"{METRIC}-noise.png", f"{METRIC}-cost.png", "curves-flip-0.4.png", "matrix-flip-0.4.png",
    ]  # fmt: skip
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 300
            pixels = np.asarray(image.convert("L"))
        assert 0.005 < (pixels < 200).mean() < 0.9, f"{path.name} is empty or full"


def drawn(panel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Places of the points of each method in a panel of error bars."""
    found = {}
    for container in panel.containers:
        x, y = container.lines[0].get_data()
        found[container.get_label()] = (np.asarray(x), np.asarray(y))
    return found


def test_accuracy_against_noise_shows_the_means():
    figure = noise_figure(ROWS, METRIC, styles(list(ROWS["method"].unique())))
    points = drawn(figure.axes[0])
    assert set(points) == set(ROWS["method"])
    expected = 100 * ROWS[ROWS["method"] == "glc"].groupby("noise")[METRIC].mean()
    np.testing.assert_allclose(sorted(points["glc"][1]), sorted(expected))
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["flip:0.4\n40 % wrong", "uniform:0.6\n40 % wrong"]


def test_accuracy_against_cost_shows_seconds():
    rows = make_rows()
    rows["seconds"] = np.where(rows["method"] == "mlc", 30.0, 10.0)
    figure = cost_figure(rows, METRIC, styles(list(rows["method"].unique())))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["flip:0.4", "uniform:0.6"]
    points = drawn(figure.axes[0])
    assert points["mlc"][0].tolist() == [30.0]
    assert points["ce"][0].tolist() == [10.0]


def test_several_numbers_of_trusted_rows_are_an_axis():
    rows = pd.concat([ROWS, ROWS.assign(n_trusted=200)])
    figure = trusted_figure(rows, METRIC, styles(list(rows["method"].unique())))
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "200"]
    assert len(drawn(figure.axes[0])["ce"][1]) == 2
    first, _ = next(room._figures(Path("rows.csv"), rows, METRIC))
    assert first == f"{METRIC}-trusted"


def test_learning_curves_are_means_over_seeds(grid):
    lines = [
        {"method": record["name"], "seed": summary["seed"], "folder": grid / "runs" / key}
        for key, record, summary in finished(grid)
    ]
    figure = curves_figure(pd.DataFrame(lines), "flip:0.4", styles(["glc", "trusted-only"]))
    accuracy, loss = figure.axes
    own = [pd.read_csv(line["folder"] / "metrics.csv") for line in lines if line["method"] == "glc"]
    curves = {line.get_label(): line.get_ydata() for line in accuracy.get_lines()}
    np.testing.assert_allclose(curves["glc"], 100 * np.mean([one["heldout_accuracy"] for one in own], axis=0))
    curves = {line.get_label(): line.get_ydata() for line in loss.get_lines()}
    np.testing.assert_allclose(curves["glc"], np.mean([one["loss"] for one in own], axis=0))


def test_the_matrices_are_of_the_noisy_rows_and_their_truth(grid, monkeypatch):
    seen = {}
    monkeypatch.setattr(room, "matrix_figure", lambda matrices, names, title: seen.update(matrices) or title)
    rows = read_rows(grid)
    runs = room._run_folders(grid)
    assert room._matrices(runs, "flip:0.4", styles(["glc", "trusted-only"])) == "flip:0.4, seed 0"
    assert list(seen) == ["right label", "suggested by glc"], "trusted-only corrects nothing"
    truth, suggested = seen.values()
    kept = rows.loc[(rows["method"] == "glc") & (rows["seed"] == 0), "measured_noise"].iloc[0]
    labels = pd.read_parquet(runs[(runs["method"] == "glc") & (runs["seed"] == 0)]["folder"].iloc[0] / "labels.parquet")
    noisy = labels[~labels["is_trusted"]]
    weights = noisy["given_label"].astype(int).value_counts().sort_index().to_numpy()
    assert (np.diag(truth) * weights).sum() / weights.sum() == pytest.approx(1 - kept)
    agreeing = (noisy["given_label"] == noisy["suggested_label"]).mean()
    assert (np.diag(suggested) * weights).sum() / weights.sum() == pytest.approx(agreeing)


def test_shares_sum_to_one_and_a_label_nobody_gave_has_none():
    shares = shares_by_given(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 2]), 3)
    np.testing.assert_allclose(shares, [[1 / 3, 2 / 3, 0], [np.nan] * 3, [0, 0, 1]])


def test_the_distance_of_a_matrix_from_the_truth_is_written_above_it():
    truth, other = np.eye(2), np.array([[0.9, 0.1], [0.3, 0.7]])
    figure = matrix_figure({"right label": truth, "suggested by x": other}, ["a", "b"], "title")
    assert figure.axes[1].get_title(loc="left") == "20.0 % away from the truth"


def test_every_method_has_a_look_of_its_own():
    looks = styles([*METHODS, "plus"])
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(looks)


# --- nothing to draw --------------------------------------------------------------------------------------------------


def test_rows_without_runs_give_two_pictures_and_say_so(tmp_path):
    with pytest.warns(DataWarning, match="learning curves and matrices are left out"):
        paths = draw(tmp_path / "rows.csv", ROWS, tmp_path / "plots")
    assert [path.name for path in paths] == [f"{METRIC}-noise.png", f"{METRIC}-cost.png"]


def test_an_empty_grid_says_so(tmp_path):
    with pytest.raises(InputError, match="nothing to draw: no finished run"):
        draw(tmp_path, ROWS.head(0), tmp_path / "plots")
    with pytest.raises(InputError, match="nothing to draw: no finished run has a value of brier"):
        draw(tmp_path, ROWS, tmp_path / "plots", metric="brier")
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["glk"]}, "unknown method to draw 'glk': did you mean 'glc'"),
        ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
    ],
)
def test_unknown_names_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        draw(tmp_path, ROWS, tmp_path / "plots", **options)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'ebomlc\[plot\]'"):
        draw(tmp_path, ROWS, tmp_path / "plots")
