"""What is final about a label, and cells that no spreadsheet takes for formulas."""

import io

import numpy as np
import pandas as pd
import pytest

from ebomlc.labels.decisions import Decision, Event
from ebomlc.labels.export import decided_table, harmless, write_cleanlab, write_labels
from ebomlc.records import LabelTable

NAMES = ("cat", "dog", "=cmd|' /C calc'!A0")
ATTACKS = ("=1+2", "+1-cmd", "-2+3", "@SUM(A1)", "\tx", "\rx", "\nx", "'x", "''x", "'=1", "==", "-", "+")
HARMLESS = ("a=b", "1.5", "-1", "+2", "-1.5e-3", "a'b", "", "1-2")


def table() -> LabelTable:
    """Six rows: trusted, an issue, no issue, and three that people look at."""
    return LabelTable(
        id=np.array(["t", "issue", "doubt", "keep", "other", "skip"], dtype=object),
        given_label=np.array([None, "cat", "cat", "cat", "dog", "cat"], dtype=object),
        suggested_label=np.array(["dog", "dog", "dog", "dog", "dog", "dog"], dtype=object),
        suggestion_confidence=np.array([1, 0.9, 0.5, 0.8, 0.7, 0.95]),
        label_quality=np.array([np.nan, 0.1, 0.5, 0.2, 0.7, 0.05]),
        is_label_issue=np.array([False, True, False, True, False, True]),
        predicted_label=np.array(["dog"] * 6, dtype=object),
        predicted_confidence=np.full(6, 0.5),
        is_trusted=np.array([True] + [False] * 5),
    )


def decision(row: str, action: str, label: str | None, provenance: str = "suspect") -> Decision:
    event = Event(1, row, action, label, "suspect", "cat", "dog", 0.5, "ana", "2026-11-23T08:00:00+00:00", "0.1", None)
    return Decision(event, provenance)


DECISIONS = {
    "keep": decision("keep", "keep", "cat", "random"),
    "other": decision("other", "other", NAMES[2]),
    "skip": decision("skip", "skip", None),
}


def test_the_final_label_is_a_persons_then_the_trusted_then_the_suggested_then_the_given_one():
    frame = decided_table(table(), DECISIONS).set_index("id")
    assert frame["final_label"].to_dict() == {
        "t": "dog",
        "issue": "dog",
        "doubt": "cat",
        "keep": "cat",
        "other": NAMES[2],
        "skip": "dog",
    }
    assert frame.index[frame["needs_review"]].tolist() == ["doubt"]
    assert frame["label_source"].tolist() == ["trusted", "suggested", "given", "decision", "decision", "suggested"]


def test_a_best_guess_is_taken_where_nobody_looked_and_nothing_is_sure():
    labels = table()
    frame = decided_table(labels, DECISIONS, best_guess=True)
    sure = decided_table(labels, DECISIONS)
    open_rows = ~sure["label_source"].isin(["decision", "trusted"])
    differs = frame["suggested_label"] != frame["given_label"]
    assert (open_rows & differs & ~frame["is_label_issue"]).any(), "else there is nothing to guess"
    assert (frame["final_label"][open_rows] == frame["suggested_label"][open_rows]).all()
    assert (frame["label_source"][open_rows & differs] == "suggested").all()
    assert frame[~open_rows].equals(sure[~open_rows])


def test_what_was_there_stays_as_it_is():
    labels = table()
    frame = decided_table(labels, DECISIONS)
    before = labels.to_frame()
    pd.testing.assert_frame_equal(frame[list(before)], before)
    row = frame.set_index("id").loc["keep"]
    assert (row.decision, row.provenance, row.reviewer) == ("keep", "random", "ana")
    assert frame.set_index("id").loc["issue", ["decision", "reviewer", "decided_at"]].isna().all()


def unprotect(cell: str) -> str:
    """The documented way back."""
    return cell.removeprefix("'")


@pytest.mark.parametrize("cell", ATTACKS)
def test_a_formula_becomes_text_and_comes_back(cell):
    frame = pd.DataFrame({cell: [cell, "plain"]}, dtype=object)
    done = harmless(frame)
    assert done.iloc[0, 0] == f"'{cell}" == done.columns[0]
    assert done.iloc[1, 0] == "plain"
    assert unprotect(done.iloc[0, 0]) == cell
    assert frame.iloc[0, 0] == cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_other_cells_stay(cell):
    assert harmless(pd.DataFrame({"x": [cell]}, dtype=object)).iloc[0, 0] == cell


def test_columns_of_numbers_and_empty_cells_stay():
    frame = pd.DataFrame({"x": [-1.5, np.nan], "y": ["=a", None], "z": [True, False]})
    done = harmless(frame)
    assert done["x"].dtype == float
    assert done["z"].dtype == bool
    assert done["y"].tolist()[0] == "'=a"
    assert done["y"].isna().tolist() == [False, True]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_files_hold_no_formula_and_read_back_exactly(tmp_path, suffix):
    frame = pd.DataFrame({"id": [*ATTACKS, *HARMLESS[:-2]]}, dtype=object)
    out = tmp_path / f"labels{suffix}"
    write_labels(frame, out)
    text = io.StringIO(out.read_bytes().decode("utf-8"), newline="")
    read = pd.read_csv(text, sep="\t" if suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
    cells = read["id"].tolist()
    starts = ("=", "@", "\t", "\r", "\n")
    assert not [cell for cell in cells if cell.startswith(starts) and cell not in HARMLESS]
    assert [unprotect(cell) for cell in cells] == frame["id"].tolist()


def test_parquet_needs_no_apostrophes(tmp_path):
    frame = decided_table(table(), DECISIONS)
    write_labels(frame, tmp_path / "labels.parquet")
    back = pd.read_parquet(tmp_path / "labels.parquet")
    assert back["final_label"].tolist() == frame["final_label"].tolist()


def test_cleanlab_gets_a_row_of_probabilities_for_each_given_label(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float32)
    n = write_cleanlab(decided_table(table(), DECISIONS), probabilities, NAMES, tmp_path)
    stored = np.load(tmp_path / "pred_probs.npy", allow_pickle=False)
    rows = pd.read_csv(tmp_path / "labels.csv")
    assert n == len(rows) == len(stored) == 5
    assert rows["id"].tolist() == ["issue", "doubt", "keep", "other", "skip"]
    assert rows["label"].tolist() == [0, 0, 0, 1, 0]
    np.testing.assert_array_equal(stored, probabilities[1:])
    assert pd.read_csv(tmp_path / "classes.csv")["name"].map(unprotect).tolist() == list(NAMES)
