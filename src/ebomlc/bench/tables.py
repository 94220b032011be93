"""Statistics of a benchmark's rows, and the tables that show them; pure functions on DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from ebomlc.bench.store import CONDITION, find_method_rows
from ebomlc.errors import InputError, unknown_name

CONFIDENCE = 0.95
KEY = list(CONDITION)

LOWEST, HIGHEST = "trusted-only", "oracle"
"""Between them lies what noisy rows can add."""

COST_BASELINE = "ce"
CELLS_BESIDE = 6
"""Columns of cells that stand beside each other before a new block begins."""


@dataclass(frozen=True)
class Metric:
    """A figure of the rows: its unit as a factor, its digits, and whether more is better."""

    title: str
    factor: float = 100
    digits: int = 1
    more_is_better: bool = True


METRICS: Mapping[str, Metric] = {
    "test_accuracy_last": Metric("test accuracy after the last epoch, %"),
    "test_accuracy": Metric("test accuracy after the chosen epoch, %"),
    "suggested_label_accuracy": Metric("right suggestions for the noisy rows, %"),
    "calibration_error": Metric("calibration error of the suggestions, %", more_is_better=False),
    "brier": Metric("Brier score of the suggestions, %", more_is_better=False),
    "ms_per_step": Metric("milliseconds a step", 1, 1, more_is_better=False),
    "seconds": Metric("seconds a run", 1, 0, more_is_better=False),
    "peak_memory_mb": Metric("peak memory, MiB", 1, 0, more_is_better=False),
}

FORMATS = ("text", "markdown", "csv")


# --- statistics -------------------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float] | pd.Series) -> tuple[float, float]:
    """Mean, and half the width of its two-sided 95 % interval by Student's t.

    Parameters
    ----------
    values : sequence of float
        Independent; those that are NaN are left out.

    Returns
    -------
    (float, float)
        The half width is NaN below two values, and the mean without any.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return np.nan, np.nan
    if len(known) == 1:
        return float(known[0]), np.nan
    half = t.ppf((1 + CONFIDENCE) / 2, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean()), float(half)


def cell_means(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over seeds of every method under every condition.

    Returns
    -------
    DataFrame
        Columns of the condition, ``method``, ``n`` seeds with a value, ``mean`` and ``half`` of `t_interval`.
    """
    return _grouped(rows, metric, [*KEY, "method"])


def _grouped(rows: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    found = []
    for key, group in rows.groupby(by, sort=True, dropna=False):
        mean, half = t_interval(group[column])
        found.append((*key, int(group[column].notna().sum()), mean, half))
    return pd.DataFrame(found, columns=[*by, "n", "mean", "half"])


def mean_ranks(rows: pd.DataFrame, metric: str, *, more_is_better: bool = True) -> pd.DataFrame:
    """Rank of each method by its mean over seeds, averaged over conditions; 1 is best.

    Ranked are the methods that have a value under every condition, without the upper bound `HIGHEST`; equals share
    the mean of their ranks.

    Returns
    -------
    DataFrame
        ``method``, ``rank`` and ``cells``, the number of conditions; best first.
    """
    means = cell_means(rows[rows["method"] != HIGHEST], metric).pivot(index=KEY, columns="method", values="mean")
    means = means.dropna(axis="columns")
    ranks = means.rank(axis="columns", ascending=not more_is_better, method="average").mean()
    table = pd.DataFrame({"method": ranks.index, "rank": ranks.to_numpy(), "cells": len(means)})
    return table.sort_values(["rank", "method"], ignore_index=True)


def paired_differences(rows: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """How much more each method has than a baseline under the same condition with the same seed.

    Returns
    -------
    DataFrame
        Columns of the condition, ``method``, ``n`` pairs, ``mean`` and ``half`` of `t_interval`.
    """
    return _grouped(_pairs(rows, metric, baseline), "difference", [*KEY, "method"])


def _pairs(rows: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    own = rows.loc[rows["method"] == baseline, [*KEY, "seed", metric]].rename(columns={metric: "baseline"})
    others = rows.loc[rows["method"] != baseline, [*KEY, "seed", "method", metric]]
    pairs = others.merge(own, on=[*KEY, "seed"], validate="many_to_one")
    return pairs.assign(difference=pairs[metric] - pairs["baseline"]).dropna(subset="difference")


def overall_differences(rows: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """Paired differences averaged over all conditions of the baseline, one value a seed.

    The interval is over seeds, so it says how the mean over *these* conditions would vary, not over others. Seeds for
    which a method lacks one of the conditions are left out.

    Returns
    -------
    DataFrame
        ``method``, ``n`` seeds, ``mean`` and ``half`` of `t_interval`.
    """
    pairs = _pairs(rows, metric, baseline)
    n_cells = len(rows.loc[rows["method"] == baseline, KEY].drop_duplicates())
    by_seed = pairs.groupby(["method", "seed"])["difference"].agg(["mean", "size"]).reset_index()
    complete = by_seed[by_seed["size"] == n_cells].rename(columns={"mean": "difference"})
    return _grouped(complete, "difference", ["method"])


def recovered_shares(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Share of the way from `LOWEST` to `HIGHEST` that each method's mean over seeds has gone.

    Returns
    -------
    DataFrame
        Columns of the condition, ``method`` and ``share``: 0 where it is as good as the former, 1 as the latter; below
        0 and above 1 beyond them. Conditions without both, or in which the latter is not the better one, are left out.
    """
    means = cell_means(rows, metric).pivot(index=KEY, columns="method", values="mean")
    if not {LOWEST, HIGHEST} <= set(means.columns):
        return pd.DataFrame(columns=[*KEY, "method", "share"])
    means = means[means[HIGHEST] > means[LOWEST]]
    way = means[HIGHEST] - means[LOWEST]
    shares = means.sub(means[LOWEST], axis="index").div(way, axis="index")
    return shares.reset_index().melt(KEY, var_name="method", value_name="share").dropna(subset="share")


def mean_shares(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over conditions of `recovered_shares`, by method; methods that lack one of its conditions are left out."""
    shares = recovered_shares(rows, metric).pivot(index=KEY, columns="method", values="share")
    return shares.dropna(axis="columns").mean().rename("share").astype(float)


def relative_costs(rows: pd.DataFrame, baseline: str = COST_BASELINE) -> pd.Series:
    """Milliseconds a step over those of a baseline under the same condition with the same seed, by method.

    The geometric mean over pairs; empty without the baseline. Only runs of one machine that was otherwise idle compare.
    """
    pairs = _pairs(rows, "ms_per_step", baseline)
    pairs["ratio"] = np.log(pairs["ms_per_step"].astype(float)) - np.log(pairs["baseline"].astype(float))
    costs = pairs.groupby("method")["ratio"].mean().map(np.exp)
    if (rows["method"] == baseline).any():
        costs[baseline] = 1.0
    return costs.rename("cost")


# --- tables -----------------------------------------------------------------------------------------------------------


def report(rows: pd.DataFrame, metric: str, baseline: str, form: str = "text") -> str:
    """All statistics of one metric as text, Markdown or CSV.

    Parameters
    ----------
    rows : DataFrame
        As `ebomlc.bench.store.read_rows` gives them.
    metric : str
        One of `METRICS`.
    baseline : str
        Method that the others are compared with in pairs.
    form : {"text", "markdown", "csv"}
        CSV holds one line for each method and condition, with all digits.

    Raises
    ------
    InputError
        For an unknown metric, method or form, and where no row has a value.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    find_method_rows(rows, baseline, "of the baseline")
    if rows[metric].isna().all():
        raise InputError(f"no row has a value of {metric}: choose another --metric")
    if form == "csv":
        return tidy(rows, metric, baseline).to_csv(index=False)
    put = markdown_table if form == "markdown" else text_table
    title = METRICS[metric].title
    parts = [
        f"{title}: mean ± half of the 95 % t-interval over seeds; n seeds in each cell",
        *(put(block) for block in means_tables(rows, metric)),
        f"{title}: difference from {baseline} with the same seed, mean ± half of the 95 % t-interval; n pairs",
        *(put(block) for block in difference_tables(rows, metric, baseline)),
        footer(rows),
    ]
    return "\n\n".join(parts) + "\n"


def tidy(rows: pd.DataFrame, metric: str, baseline: str) -> pd.DataFrame:
    """One line for each method and condition: mean, half width, n, paired difference, share recovered, cost."""
    pairs = paired_differences(rows, metric, baseline)
    pairs = pairs.rename(columns={"n": "n_pairs", "mean": "difference", "half": "difference_half"})
    means = cell_means(rows, metric).merge(pairs, on=[*KEY, "method"], how="left")
    means = means.merge(recovered_shares(rows, metric), on=[*KEY, "method"], how="left")
    ranks = mean_ranks(rows, metric, more_is_better=METRICS[metric].more_is_better)
    means = means.merge(ranks[["method", "rank"]].rename(columns={"rank": "mean_rank"}), on="method", how="left")
    means["cost"] = means["method"].map(relative_costs(rows))
    means.insert(len(KEY) + 1, "metric", metric)
    means.insert(means.columns.get_loc("n_pairs"), "baseline", baseline)  # type: ignore[arg-type] - columns are unique
    return means


def means_tables(rows: pd.DataFrame, metric: str) -> list[pd.DataFrame]:
    """Tables of strings, a line a method and a column a condition; the last also holds what sums them up."""
    scale = METRICS[metric]
    ranks = mean_ranks(rows, metric, more_is_better=scale.more_is_better).set_index("method")["rank"]
    means = cell_means(rows, metric)
    order = method_order(rows, metric)
    summed = pd.DataFrame(index=order)
    summed["mean rank"] = [_number(ranks.get(method), 2) for method in order]
    shares = mean_shares(rows, metric) if scale.more_is_better else pd.Series(dtype=float)
    if len(shares):
        summed["recovered"] = [_number(shares.get(method), 0, 100, " %") for method in order]
    costs = relative_costs(rows)
    if len(costs):
        summed[f"ms/step ÷ {COST_BASELINE}"] = [_number(costs.get(method), 2) for method in order]
    summed["n"] = [_counts(means.loc[means["method"] == method, "n"]) for method in order]
    return _blocks(means, order, scale, summed, sign=False)


def difference_tables(rows: pd.DataFrame, metric: str, baseline: str) -> list[pd.DataFrame]:
    """As `means_tables`, of `paired_differences` and, last, `overall_differences`."""
    scale = METRICS[metric]
    pairs = paired_differences(rows, metric, baseline)
    overall = overall_differences(rows, metric, baseline).set_index("method")
    order = [method for method in method_order(rows, metric) if method != baseline]
    summed = pd.DataFrame(index=order)
    summed["all cells"] = [
        _plus_minus(overall["mean"].get(method, np.nan), overall["half"].get(method, np.nan), scale, sign=True)
        for method in order
    ]
    summed["n"] = [_counts(pairs.loc[pairs["method"] == method, "n"]) for method in order]
    return _blocks(pairs, order, scale, summed, sign=True)


def method_order(rows: pd.DataFrame, metric: str) -> list[str]:
    """Methods best first by mean rank, those without one in the order of the alphabet, the upper bound last."""
    ranked = list(mean_ranks(rows, metric, more_is_better=METRICS[metric].more_is_better)["method"])
    unranked = sorted({*rows["method"]} - {*ranked, HIGHEST})
    return [*ranked, *unranked, *([HIGHEST] if HIGHEST in {*rows["method"]} else [])]


def _blocks(
    means: pd.DataFrame, order: list[str], scale: Metric, summed: pd.DataFrame, *, sign: bool
) -> list[pd.DataFrame]:
    shown = means.assign(
        text=[
            _plus_minus(mean, half, scale, sign=sign) for mean, half in zip(means["mean"], means["half"], strict=True)
        ]
    )
    table = shown.pivot(index="method", columns=KEY, values="text").reindex(order).fillna("-")
    table.columns = condition_names(table.columns.to_frame(index=False))
    starts = range(0, max(table.shape[1], 1), CELLS_BESIDE)
    blocks = [table.iloc[:, start : start + CELLS_BESIDE] for start in starts]
    blocks[-1] = blocks[-1].join(summed)
    return [block.rename_axis("method").reset_index() for block in blocks]


def condition_names(conditions: pd.DataFrame) -> list[str]:
    """What tells conditions apart, such as ``flip:0.3``: the noise, and every other column that is not the same in all.

    Parameters
    ----------
    conditions : DataFrame
        One line a condition, with the columns of `KEY`.
    """
    varies = [name for name in KEY if name != "noise" and conditions[name].nunique() > 1]
    return [
        " ".join([*(str(line[name]) for name in varies if name != "n_trusted"), str(line["noise"])])
        + (f" n={line['n_trusted']}" if "n_trusted" in varies else "")
        for _, line in conditions.iterrows()
    ]


def _plus_minus(mean: float, half: float, scale: Metric, *, sign: bool) -> str:
    if np.isnan(mean):
        return "-"
    text = f"{scale.factor * mean:{'+' if sign else ''}.{scale.digits}f}"
    return text if np.isnan(half) else f"{text} ± {scale.factor * half:.{scale.digits}f}"


def _number(value: float | None, digits: int, factor: float = 1, unit: str = "") -> str:
    return "-" if value is None or np.isnan(value) else f"{factor * value:.{digits}f}{unit}"


def _counts(counts: pd.Series) -> str:
    if counts.empty:
        return "0"
    low, high = counts.min(), counts.max()
    return str(low) if low == high else f"{low}-{high}"


def footer(rows: pd.DataFrame) -> str:
    """What the rows come from: sets, models, seeds, epochs, commits, torch, devices."""
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    commits = sorted({_short(name) for name in rows["commit"].fillna("no commit")})
    sources = [
        f"{len(rows)} runs",
        f"data {_listed(rows, 'data')}, model {_listed(rows, 'model')}, trusted rows {_listed(rows, 'n_trusted')}",
        f"epochs {_listed(rows, 'epochs')}, seeds {seeds}",
        f"commit {', '.join(commits)}",
        f"torch {_listed(rows, 'torch')} on {_listed(rows, 'device')}",
    ]
    return "; ".join(sources) + "."


def _short(commit: str) -> str:
    """The first ten digits, and whether the tree differed."""
    digits, plus, changes = commit.partition("+")
    return digits[:10] + plus + changes


def _listed(rows: pd.DataFrame, name: str) -> str:
    return ", ".join(str(value) for value in sorted(rows[name].dropna().unique()))


def markdown_table(table: pd.DataFrame) -> str:
    """A table of strings in Markdown, padded so that it reads as text too; the first column to the left."""

    def rule(widths: list[int]) -> str:
        return "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"

    return _aligned(table, lambda cells: f"| {' | '.join(cells)} |", rule)


def text_table(table: pd.DataFrame) -> str:
    """A table of strings in columns, the first to the left, the others to the right."""
    return _aligned(
        table, lambda cells: "  ".join(cells).rstrip(), lambda widths: "-" * (sum(widths) + 2 * len(widths) - 2)
    )


def _aligned(table: pd.DataFrame, join: Callable[[list[str]], str], rule: Callable[[list[int]], str]) -> str:
    lines = [[str(name) for name in table.columns], *([str(cell) for cell in line] for line in table.to_numpy())]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join([join(padded[0]), rule(widths), *(join(line) for line in padded[1:])])
