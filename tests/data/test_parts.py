"""Tables that are written part by part: whole or recognisably not, and continued without a row lost or doubled."""

from __future__ import annotations

import errno

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from ebomlc.data import parts as room
from ebomlc.data.parts import Parts, check_parts, is_whole, new_parts, unfinished_folder
from ebomlc.errors import InputError

BEGUN = {"run": "a", "data": [["rows.csv", 3]]}


def rows(start, n=3):
    ids = pa.array([f"row {k}" for k in range(start, start + n)], pa.string())
    return pa.table({"id": ids, "share": pa.array([k / 10 for k in range(start, start + n)], pa.float32())})


def write(out, starts, begun=BEGUN, **options):
    with new_parts(out, begun, **options) as parts:
        for start in starts:
            parts.append(rows(start), {"start": start})
        return parts.notes


def break_off(out, starts, **options):
    with pytest.raises(KeyboardInterrupt), new_parts(out, BEGUN, **options) as parts:
        for start in starts:
            parts.append(rows(start), {"start": start})
        raise KeyboardInterrupt


def refusal(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_table_is_there_when_it_is_whole_with_a_row_group_for_each_part(tmp_path):
    out = tmp_path / "deep" / "a.parquet"
    with new_parts(out, BEGUN) as parts:
        for start in (0, 3):
            parts.append(rows(start), {})
            assert not out.exists()
        assert parts.rows == 6
    assert pq.read_table(out).equals(pa.concat_tables([rows(0), rows(3)]))
    assert pq.read_metadata(out).num_row_groups == 2
    assert [path.name for path in out.parent.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_parts_of_text_are_joined_under_one_header(tmp_path, suffix):
    from ebomlc.data.output import write_table

    write(tmp_path / f"parts{suffix}", (0, 3))
    write_table(pa.concat_tables([rows(0), rows(3)]).to_pandas(), tmp_path / f"whole{suffix}")
    assert (tmp_path / f"parts{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


def test_what_broke_off_is_continued(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0, 3))
    assert not out.exists()
    assert not is_whole(out)
    with new_parts(out, BEGUN, resume=True) as parts:
        assert (parts.rows, parts.notes) == (6, [{"start": 0}, {"start": 3}])
        parts.append(rows(6), {"start": 6})
    assert is_whole(out)
    assert pq.read_table(out)["id"].to_pylist() == [f"row {k}" for k in range(9)]


def test_a_part_that_was_not_finished_counts_for_nothing(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0,))
    (unfinished_folder(out) / "partial").write_bytes(b"PAR1 and then the process was killed")
    write(out, (3,), resume=True)
    assert pq.read_table(out)["id"].to_pylist() == [f"row {k}" for k in range(6)]


def test_nothing_is_left_where_no_part_was_written(tmp_path):
    break_off(tmp_path / "a.csv", ())
    assert list(tmp_path.iterdir()) == []
    assert write(tmp_path / "a.csv", (0,), resume=True) == [{"start": 0}], "resume begins where there is nothing"


def test_what_is_there_stays_until_another_is_whole(tmp_path):
    out = tmp_path / "a.csv"
    out.write_text("mine")
    break_off(out, (0,), overwrite=True)
    assert out.read_text() == "mine"
    write(out, (3,), resume=True)
    assert pd.read_csv(out)["id"].tolist() == [f"row {k}" for k in range(6)]


def test_overwrite_begins_again(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0, 3))
    write(out, (6,), overwrite=True)
    assert pq.read_table(out)["id"].to_pylist() == ["row 6", "row 7", "row 8"]


# --- refused ----------------------------------------------------------------------------------------------------------


def test_an_unfinished_table_is_neither_taken_for_whole_nor_written_over(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0,))
    said = refusal(lambda: check_parts(out))
    assert "holds a part of a table that was not finished; continue it with --resume" in said
    assert "exclude each other" in refusal(lambda: check_parts(out, overwrite=True, resume=True))


def test_a_table_of_other_rows_is_not_continued(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0,))
    said = refusal(lambda: write(out, (3,), {**BEGUN, "run": "b"}, resume=True))
    assert "was begun with another run; begin again with --overwrite" in said
    assert write(out, (3,), resume=True) == [{"start": 0}, {"start": 3}]


def test_a_file_that_came_in_between_is_not_replaced(tmp_path):
    out = tmp_path / "a.csv"
    break_off(out, (0,))
    out.write_text("mine")
    assert "remove whichever is not wanted" in refusal(lambda: write(out, (3,), resume=True))
    assert out.read_text() == "mine"
    assert unfinished_folder(out).exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    folder = unfinished_folder(tmp_path / "a.csv")
    folder.mkdir()
    (folder / "novel.txt").write_text("chapter one")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        assert "is in the way" in refusal(lambda options=options: write(tmp_path / "a.csv", (0,), **options))
    assert (folder / "novel.txt").read_text() == "chapter one"


def test_two_processes_do_not_write_one_table(tmp_path):
    out = tmp_path / "a.csv"
    break_off(out, (0,))
    with FileLock(unfinished_folder(out) / room.LOCK):
        assert "another process is writing there" in refusal(lambda: write(out, (3,), resume=True))
    assert write(out, (3,), resume=True) == [{"start": 0}, {"start": 3}]


def test_a_full_disk_is_said_and_keeps_what_is_done(tmp_path, monkeypatch):
    out = tmp_path / "a.parquet"

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill_up():
        with new_parts(out, BEGUN) as parts:
            parts.append(rows(0), {})
            monkeypatch.setattr(room.pq, "write_table", full)
            parts.append(rows(3), {})

    said = refusal(fill_up)
    assert "No space left on device; choose another --out, or make room and continue with --resume" in said
    monkeypatch.undo()
    write(out, (3,), resume=True)
    assert pq.read_table(out).num_rows == 6


def test_a_damaged_part_is_named(tmp_path):
    out = tmp_path / "a.parquet"
    break_off(out, (0,))
    next(iter(Parts(out).folder.glob("part-*"))).write_bytes(b"PAR1")
    assert "part-00000000.parquet: damaged; begin again with --overwrite" in refusal(
        lambda: write(out, (3,), resume=True)
    )
