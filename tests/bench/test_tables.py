"""Statistics against scipy on known numbers, and tables read back from what is printed."""

from __future__ import annotations

import io
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ebomlc.bench.store import COLUMNS
from ebomlc.bench.tables import (
    cell_means,
    condition_names,
    mean_ranks,
    mean_shares,
    method_order,
    overall_differences,
    paired_differences,
    recovered_shares,
    relative_costs,
    report,
    t_interval,
    tidy,
)  # fmt: skip
from ebomlc.errors import InputError

LEVEL = {"trusted-only": 0.60, "ce": 0.50, "glc": 0.75, "mlc": 0.70, "oracle": 0.90}
NOISES = {"flip:0.4": 0.0, "uniform:0.6": -0.05}
METRIC = "test_accuracy_last"


def make_rows(levels=LEVEL, noises=NOISES, seeds=range(4)) -> pd.DataFrame:
    """Rows with known means: the level of the method, plus that of the noise, plus something of each seed."""
    rng = np.random.default_rng(0)
    rows = []
    for (method, level), (noise, shift), seed in product(levels.items(), noises.items(), seeds):
        accuracy = level + shift + 0.02 * seed + rng.normal(0, 0.005)
        rows.append(
            {
                "method": method, "data": "digits", "noise": noise, "measured_noise": 0.4, "model": "mlp",
                "seed": seed, "commit": "0123456789abcdef", "torch": "2.13.0", "device": "cpu", "epochs": 2,
                "steps": 24, "n_trusted": 100, "seconds": 1.0, "ms_per_step": 5 * (1 + 2 * (method == "mlc")),
                "peak_memory_mb": 300.0, "test_accuracy": accuracy, METRIC: accuracy,
                "suggested_label_accuracy": accuracy, "calibration_error": 1 - accuracy, "brier": np.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


ROWS = make_rows()


def values(method, noise="flip:0.4", rows=ROWS):
    return rows.loc[(rows["method"] == method) & (rows["noise"] == noise), METRIC].to_numpy()


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_that_of_scipy(n):
    sample = np.random.default_rng(n).normal(size=n)
    mean, half = t_interval(sample)
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high))


def test_too_few_values_have_no_interval():
    assert np.isnan(t_interval([])).all()
    assert t_interval([3.0])[0] == 3.0
    assert np.isnan(t_interval([3.0])[1])
    assert t_interval([1.0, np.nan, 3.0]) == t_interval([1.0, 3.0])


def test_means_are_of_each_cell():
    means = cell_means(ROWS, METRIC).set_index(["method", "noise"])
    assert len(means) == len(LEVEL) * len(NOISES)
    own = values("glc", "uniform:0.6")
    line = means.loc[("glc", "uniform:0.6")]
    assert line["mean"] == pytest.approx(own.mean())
    assert line["n"] == 4
    assert line["half"] == pytest.approx(stats.sem(own) * stats.t.ppf(0.975, 3))


def test_ranks_leave_the_upper_bound_out():
    ranks = mean_ranks(ROWS, METRIC)
    assert dict(zip(ranks["method"], ranks["rank"], strict=True)) == {"glc": 1, "mlc": 2, "trusted-only": 3, "ce": 4}
    assert set(ranks["cells"]) == {2}
    assert mean_ranks(ROWS, METRIC, more_is_better=False)["method"].iloc[0] == "ce"
    assert method_order(ROWS, METRIC) == ["glc", "mlc", "trusted-only", "ce", "oracle"]


def test_ranks_are_those_of_scipy_with_equals():
    rows = make_rows()
    rows.loc[rows["method"] == "mlc", METRIC] = rows.loc[rows["method"] == "glc", METRIC].to_numpy()
    ranks = mean_ranks(rows, METRIC).set_index("method")["rank"]
    names = ["trusted-only", "ce", "glc", "mlc"]
    expected = np.mean(
        [stats.rankdata([-values(name, noise, rows).mean() for name in names]) for noise in NOISES], axis=0
    )
    assert ranks[names].tolist() == expected.tolist() == [3, 4, 1.5, 1.5]


def test_a_method_that_lacks_a_cell_has_no_rank():
    rows = ROWS[~((ROWS["method"] == "glc") & (ROWS["noise"] == "flip:0.4"))]
    ranks = mean_ranks(rows, METRIC).set_index("method")["rank"]
    assert ranks.to_dict() == {"mlc": 1, "trusted-only": 2, "ce": 3}


def test_differences_are_paired_as_in_scipy():
    line = paired_differences(ROWS, METRIC, "ce").set_index(["method", "noise"]).loc[("mlc", "flip:0.4")]
    expected = stats.ttest_rel(values("mlc"), values("ce")).confidence_interval(0.95)
    assert (line["mean"] - line["half"], line["mean"] + line["half"]) == pytest.approx((expected.low, expected.high))
    assert line["n"] == 4
    unpaired = cell_means(ROWS, METRIC).set_index(["method", "noise"]).loc[("mlc", "flip:0.4"), "half"]
    assert line["half"] < unpaired / 2, "what a seed adds to both falls out"


def test_pairs_need_the_same_seed_and_the_same_number_of_trusted_rows():
    others = ROWS.assign(n_trusted=200, **{METRIC: 0.0})
    rows = pd.concat([ROWS[~((ROWS["method"] == "ce") & (ROWS["seed"] > 1))], others[others["method"] == "mlc"]])
    lines = paired_differences(rows, METRIC, "ce").set_index(["method", "noise"])
    assert set(lines["n_trusted"]) == {100}
    line = lines.loc[("mlc", "flip:0.4")]
    assert line["n"] == 2
    assert line["mean"] == pytest.approx((values("mlc") - values("ce"))[:2].mean())


def test_the_overall_difference_takes_seeds_with_every_cell():
    rows = ROWS[~((ROWS["method"] == "mlc") & (ROWS["noise"] == "flip:0.4") & (ROWS["seed"] == 3))]
    line = overall_differences(rows, METRIC, "ce").set_index("method").loc["mlc"]
    by_seed = np.mean([values("mlc", noise) - values("ce", noise) for noise in NOISES], axis=0)[:3]
    assert line["n"] == 3
    assert (line["mean"], line["half"]) == pytest.approx(t_interval(by_seed))


def test_the_share_recovered_goes_from_trusted_only_to_oracle():
    shares = recovered_shares(ROWS, METRIC).set_index(["method", "noise"])["share"]
    low, high, own = (values(name).mean() for name in ("trusted-only", "oracle", "glc"))
    assert shares[("glc", "flip:0.4")] == pytest.approx((own - low) / (high - low))
    assert shares[("trusted-only", "flip:0.4")] == 0
    assert shares[("oracle", "flip:0.4")] == 1
    assert shares[("ce", "flip:0.4")] < 0
    mean = np.mean([shares[("glc", noise)] for noise in NOISES])
    assert mean_shares(ROWS, METRIC)["glc"] == pytest.approx(mean)
    assert 0.4 < mean < 0.6
    assert recovered_shares(ROWS[ROWS["method"] != "oracle"], METRIC).empty


def test_a_cell_where_the_oracle_is_no_better_says_nothing():
    rows = make_rows()
    rows.loc[(rows["method"] == "oracle") & (rows["noise"] == "flip:0.4"), METRIC] = 0.1
    assert set(recovered_shares(rows, METRIC)["noise"]) == {"uniform:0.6"}


def test_costs_are_ratios_of_pairs():
    costs = relative_costs(ROWS)
    assert costs["mlc"] == pytest.approx(3)
    assert costs["glc"] == costs["ce"] == pytest.approx(1)
    assert relative_costs(ROWS[ROWS["method"] != "ce"]).empty


def test_conditions_are_named_by_what_tells_them_apart():
    frame = ROWS[["data", "noise", "model", "n_trusted"]].drop_duplicates()
    assert condition_names(frame) == ["flip:0.4", "uniform:0.6"]
    two = pd.concat([frame, frame.assign(n_trusted=50, data="cifar10")])
    assert condition_names(two)[0] == "digits flip:0.4 n=100"
    assert condition_names(two)[-1] == "cifar10 uniform:0.6 n=50"


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_text_holds_means_intervals_ranks_shares_and_n():
    text = report(ROWS, METRIC, "ce")
    mean, half = t_interval(values("glc"))
    line = next(line for line in text.splitlines() if line.startswith("glc"))
    assert f"{100 * mean:.1f} ± {100 * half:.1f}" in line
    share = mean_shares(ROWS, METRIC)["glc"]
    assert line.split()[-5:] == ["1.00", f"{100 * share:.0f}", "%", "1.00", "4"], "rank, recovered, cost, n"
    assert text.splitlines()[-1].startswith("40 runs; data digits, model mlp, trusted rows 100; epochs 2, seeds 0, 1, ")
    assert "commit 0123456789" in text


def test_markdown_is_a_table_that_reads_back():
    blocks = [block for block in report(ROWS, METRIC, "ce", "markdown").split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in blocks[0].splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    table = pd.DataFrame(lines[2:], columns=lines[0]).set_index("method")
    assert list(table.index) == ["glc", "mlc", "trusted-only", "ce", "oracle"]
    assert table.loc["oracle", ["mean rank", "recovered"]].tolist() == ["-", "100 %"]
    assert table.loc["mlc", "ms/step ÷ ce"] == "3.00"
    assert set(table["n"]) == {"4"}


def test_csv_holds_every_digit():
    frame = pd.read_csv(io.StringIO(report(ROWS, METRIC, "ce", "csv"))).set_index(["method", "noise"])
    expected = tidy(ROWS, METRIC, "ce").set_index(["method", "noise"])
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    assert frame.loc[("mlc", "flip:0.4"), "difference"] == pytest.approx((values("mlc") - values("ce")).mean())
    assert set(frame["metric"]) == {METRIC}


def test_many_cells_go_on_in_another_block():
    rows = make_rows(noises={f"flip:0.{k}": 0.0 for k in range(1, 9)})
    text = report(rows, METRIC, "ce")
    headers = [line for line in text.splitlines() if line.startswith("method ")]
    assert len(headers) == 4
    assert [line.count("flip:") for line in headers] == [6, 2, 6, 2]
    assert "mean rank" in headers[1]


def test_one_seed_has_means_without_intervals():
    text = report(make_rows(seeds=[0]), METRIC, "glc")
    table = text.split("\n\n")[1]
    assert "±" not in table
    assert "nan" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("test_acuracy", "ce"), "unknown metric 'test_acuracy': did you mean 'test_accuracy'"),
        ((METRIC, "cee"), "unknown method of the baseline 'cee': did you mean 'ce'"),
        ((METRIC, "ce", "html"), "unknown format 'html'"),
        (("brier", "ce"), "no row has a value of brier"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        report(ROWS, *arguments)
