"""Decisions are kept at once, kept for ever, and belong to the run."""

import multiprocessing
import sqlite3
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from ebomlc.errors import InputError
from ebomlc.labels.decisions import MODES, Decisions, read_decisions
from ebomlc.records import LabelTable
from ebomlc.version import __version__

NAMES = ("cat", "<b>dog</b>", "=cmd")
N = 60


def table() -> LabelTable:
    """60 rows; the first four are trusted; the ids hold slashes, quotes and control characters."""
    index = np.arange(N)
    names = np.array(NAMES, dtype=object)
    return LabelTable(
        id=np.array([f"a/{k}'\t\"é" for k in index], dtype=object),
        given_label=np.where(index < 2, None, names[index % 3]),
        suggested_label=names[(index + index // 30) % 3],
        suggestion_confidence=index / N,
        label_quality=1 - index / N,
        is_label_issue=index >= 30,
        predicted_label=names[index % 3],
        predicted_confidence=index / N,
        is_trusted=index < 4,
    )


LABELS = table()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "decisions.sqlite"


@pytest.fixture
def store(path):
    with Decisions(path, LABELS, NAMES) as decisions:
        yield decisions


def accept(store: Decisions, row: int, *, mode: str = "suspect", reviewer: str = "ana"):
    return store.record(LABELS.id[row], "accept", label=LABELS.suggested_label[row], mode=mode, reviewer=reviewer)


def keep(store: Decisions, row: int, *, mode: str = "suspect", reviewer: str = "ana"):
    return store.record(LABELS.id[row], "keep", label=LABELS.given_label[row], mode=mode, reviewer=reviewer)


def test_a_decision_is_what_the_reviewer_saw(store, path):
    made = accept(store, 40)
    assert (made.number, made.id, made.action, made.label) == (1, LABELS.id[40], "accept", LABELS.suggested_label[40])
    assert (made.given_label, made.suggested_label) == (LABELS.given_label[40], LABELS.suggested_label[40])
    assert made.confidence == pytest.approx(40 / N)
    assert (made.reviewer, made.version, made.undoes) == ("ana", __version__, None)
    assert made.at.endswith("+00:00")
    with Decisions(path, LABELS, NAMES) as again:
        assert again.of(LABELS.id[40]).event == made
        assert again.history() == [made]


def test_the_latest_decision_stands_and_the_history_stays(store):
    first, second = accept(store, 40), keep(store, 40, reviewer="ben")
    assert store.of(LABELS.id[40]).label == LABELS.given_label[40]
    assert store.history(LABELS.id[40]) == [second, first]
    assert store.history(limit=1) == [second]
    assert store.of(LABELS.id[41]) is None


def test_undo_is_a_new_event_and_an_earlier_decision_stands_again(store):
    first, second = accept(store, 40), keep(store, 40)
    undone = store.undo(reviewer="ana")
    assert (undone.action, undone.undoes, undone.label, undone.id) == ("undo", second.number, None, second.id)
    assert store.of(LABELS.id[40]).event == first
    store.undo(first.number, reviewer="ben")
    assert store.latest() == {}
    assert len(store.history()) == 4


def test_undo_takes_back_the_reviewers_own_decision(store):
    own = accept(store, 40, reviewer="ana")
    accept(store, 41, reviewer="ben")
    assert store.undo(reviewer="ana").undoes == own.number
    with pytest.raises(InputError, match="'ana' has no decision there to undo"):
        store.undo(reviewer="ana")
    for number in (own.number, 99):
        with pytest.raises(InputError, match=f"decision {number} does not stand"):
            store.undo(number, reviewer="ana")


def test_an_undo_cannot_be_undone(store):
    accept(store, 40)
    undone = store.undo(reviewer="ana")
    with pytest.raises(InputError, match="does not stand"):
        store.undo(undone.number, reviewer="ana")


def test_a_row_of_the_random_sample_stays_one(store):
    accept(store, 40, mode="random")
    keep(store, 40, mode="suspect")
    accept(store, 41, mode="suspect")
    keep(store, 42, mode="suspect")
    accept(store, 42, mode="random")
    found = {decision.id: decision.provenance for decision in store.latest().values()}
    assert found == {LABELS.id[40]: "random", LABELS.id[41]: "suspect", LABELS.id[42]: "random"}
    store.undo(reviewer="ana")
    assert store.of(LABELS.id[42]).provenance == "suspect"


def test_progress_counts_rows_not_events(store):
    accept(store, 40), keep(store, 40), accept(store, 41, mode="random")
    store.record(LABELS.id[42], "skip", mode="random", reviewer="ana")
    store.record(LABELS.id[43], "other", label=NAMES[0], mode="suspect", reviewer="ana")
    found = store.progress()
    assert (found.decided, found.skipped) == (3, 1)
    assert found.actions == {"accept": 1, "keep": 1, "other": 1, "skip": 1}
    assert found.modes == {"random": 1, "suspect": 2}


def test_another_class_that_is_the_given_or_the_suggested_one_is_kept_as_that(store):
    row = 40
    given, suggested = LABELS.given_label[row], LABELS.suggested_label[row]
    for label, action in ((given, "keep"), (suggested, "accept"), ((set(NAMES) - {given, suggested}).pop(), "other")):
        assert store.record(LABELS.id[row], "other", label=label, mode="suspect", reviewer="ana").action == action


@pytest.mark.parametrize(
    ("row", "action", "label", "mode", "complaint"),
    [
        (40, "agree", NAMES[0], "random", "unknown action 'agree'"),
        (40, "keep", NAMES[1], "worst", "unknown mode 'worst'"),
        (40, "other", "cot", "random", "unknown class 'cot': did you mean 'cat'"),
        (40, "accept", None, "random", "unknown class"),
        (40, "accept", NAMES[0], "random", "load the page anew"),
        (40, "skip", NAMES[0], "random", "gets no label"),
        (3, "keep", NAMES[0], "random", "is a trusted row"),
    ],
)
def test_what_does_not_belong_to_the_run_is_refused(store, row, action, label, mode, complaint):
    with pytest.raises(InputError, match=complaint):
        store.record(LABELS.id[row], action, label=label, mode=mode, reviewer="ana")
    assert store.history() == []


def test_an_unknown_row_is_refused_with_the_nearest_id(store):
    with pytest.raises(InputError, match="no row of the run has the id 'a/40'"):
        store.record("a/40", "skip", mode="random", reviewer="ana")


def test_the_random_order_is_stored_and_holds_each_row_once(path):
    with Decisions(path, LABELS, NAMES, seed=3) as first:
        order = first.random_order()
    with Decisions(path, LABELS, NAMES, seed=4) as again:
        assert again.random_order() == order
    assert sorted(order) == sorted(LABELS.id[4:])
    assert order != LABELS.id[4:].tolist()


def _decide(path: Path, start: int) -> None:
    with Decisions(path, LABELS, NAMES) as store:
        for row in range(start, N, 4):
            accept(store, row, reviewer=f"r{start}")
            store.record(LABELS.id[50], "skip", mode="random", reviewer=f"r{start}")


def test_processes_that_make_the_file_at_once_lose_nothing(path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_decide, args=(path, start)) for start in range(4, 8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with Decisions(path, LABELS, NAMES) as store:
        history = store.history()
    assert len(history) == 2 * (N - 4)
    assert sorted(event.number for event in history) == list(range(1, len(history) + 1))
    assert {event.id for event in history} == set(LABELS.id[4:])


def test_threads_share_a_store(store):
    threads = [Thread(target=lambda rows=range(k, N, 4): [accept(store, row) for row in rows]) for k in range(4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.latest()) == N - 4


def test_an_error_inside_a_transaction_leaves_nothing_and_frees_the_file(store, path):
    store._connection.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError):
        accept(store, 40)
    store._connection.execute("DROP TRIGGER full")
    with Decisions(path, LABELS, NAMES) as other:
        accept(other, 41)
    assert [event.id for event in store.history()] == [LABELS.id[41]]


def test_a_full_disk_is_said(store):
    store._connection.execute("PRAGMA max_page_count = 6")
    with pytest.raises(InputError, match="is full"):
        for _ in range(2000):
            store.record(LABELS.id[40], "skip", mode="random", reviewer="ana" * 100)
    kept = len(store.history())
    store._connection.execute("PRAGMA max_page_count = 1000")
    accept(store, 41)
    assert len(store.history()) == kept + 1


def test_reading_makes_no_file(path):
    assert read_decisions(path, LABELS, NAMES) == {}
    assert not path.exists()
    with Decisions(path, LABELS, NAMES) as store:
        accept(store, 40)
        assert list(read_decisions(path, LABELS, NAMES)) == [LABELS.id[40]]


def test_decisions_of_another_run_are_refused(path):
    with Decisions(path, LABELS, NAMES) as store:
        accept(store, 40)
    others = tuple(name for name in NAMES if name != LABELS.suggested_label[40])
    with pytest.raises(InputError, match="label that the run does not have"):
        Decisions(path, LABELS, others)
    kept = {f: getattr(LABELS, f)[:40] for f in LabelTable.__dataclass_fields__}
    with pytest.raises(InputError, match="id that the run does not have"):
        Decisions(path, LabelTable(**kept), NAMES)


def test_other_files_are_refused(path):
    path.write_text("no database at all, " * 100)
    with pytest.raises(InputError, match="something else than decisions"):
        Decisions(path, LABELS, NAMES)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE events (x)")
    other.close()
    with pytest.raises(InputError, match="something else than decisions"):
        Decisions(path, LABELS, NAMES)


def test_a_later_version_of_the_file_is_refused(path):
    Decisions(path, LABELS, NAMES).close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 7")
    later.close()
    with pytest.raises(InputError, match="version 7 of the file format"):
        Decisions(path, LABELS, NAMES)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be used"):
        Decisions(tmp_path / "gone" / "decisions.sqlite", LABELS, NAMES)


def test_modes_are_provenances_of_the_readers():
    from ebomlc.data.readers import PROVENANCES

    assert set(MODES) < set(PROVENANCES)
