"""Tables larger than memory: the same rows as of the whole file, whatever the chunks and wherever reading begins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_wine

from ebomlc.data import stream as room
from ebomlc.data.columns import Columns, choose_inputs
from ebomlc.data.stream import open_stream, rows_at_once
from ebomlc.data.tables import as_strings, read_table
from ebomlc.errors import InputError
from tests.data.conftest import lies_on_disk


def wine(n=178) -> pd.DataFrame:
    """Real measures beside names with commas and empty cells, and integers that may be missing."""
    wines = load_wine(as_frame=True).frame.head(n).rename(columns={"target": "label", "hue": "tint"})
    vintage = pd.array([1990 + row % 9 for row in range(n)], "Int64")
    vintage[::5] = pd.NA
    return wines.assign(id=[f"wine, {row}" for row in range(n)], vintage=vintage)


def cells(tables, columns):
    return {name: [cell for table in tables for cell in as_strings(table.frame[name])] for name in columns}


@pytest.fixture
def of_ten(monkeypatch):
    monkeypatch.setattr(room, "ROWS_AT_ONCE", 10)


@pytest.mark.parametrize("group", [1, 7, 10, 25, 1000])
def test_parquet_comes_in_tables_of_one_size_whatever_its_row_groups(tmp_path, of_ten, group):
    path, frame = tmp_path / "wine.parquet", wine(47)
    frame.to_parquet(path, row_group_size=group)
    stream, whole = open_stream(path), read_table(path)
    assert stream.rows == 47
    for start in (0, 10, 30):
        tables = list(stream.tables(frame.columns, start=start))
        assert [len(table.frame) for table in tables] == [10] * (4 - start // 10) + [7]
        assert cells(tables, frame.columns) == {n: own[start:] for n, own in cells([whole], frame.columns).items()}
        assert [row for table in tables for row in table.frame.index] == list(range(start + 1, 48))
        assert [table.first for table in tables] == list(range(start + 1, 48, 10))


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    path, numbers = tmp_path / "a.parquet", np.random.default_rng(0).normal(size=(8, 400_000))
    pq.write_table(pa.table({f"x{k}": column for k, column in enumerate(numbers)}), path, row_group_size=400_000)
    monkeypatch.setattr(room, "ROWS_AT_ONCE", 10_000)
    before = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counting)
    try:
        rows = sum(len(table.frame) for table in open_stream(path).tables([f"x{k}" for k in range(8)]))
    finally:
        pa.set_memory_pool(before)
    assert rows == 400_000
    assert 0 < counting.max_memory() < numbers.nbytes / 2


def test_a_start_within_a_table_is_made_up_for_at_its_end(tmp_path, of_ten):
    path = tmp_path / "wine.parquet"
    wine(31).to_parquet(path, row_group_size=8)
    tables = list(open_stream(path).tables(["id"], start=13))
    assert [len(table.frame) for table in tables] == [7, 10, 1]
    assert list(tables[0].frame.columns) == ["id"]
    assert tables[0].frame["id"].iloc[0] == "wine, 13"


def test_csv_comes_as_the_whole_file_does(tmp_path, of_ten):
    path, frame = tmp_path / "wine.csv", wine(47)
    frame.to_csv(path, index=False)
    stream, whole = open_stream(path), read_table(path)
    assert stream.rows is None
    assert stream.columns == tuple(frame.columns)
    for start in (0, 20, 50):
        tables = list(stream.tables(frame.columns, start=start))
        assert cells(tables, frame.columns) == {n: own[start:] for n, own in cells([whole], frame.columns).items()}
        assert [row for table in tables for row in table.frame.index] == list(range(start + 2, 49))
        assert [table.first for table in tables] == list(range(start + 1, 48, 10))


def test_a_header_without_rows_is_a_table_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n")
    assert [len(table.frame) for table in open_stream(tmp_path / "a.csv").tables(["x"])] == [0]


def test_a_row_that_is_broken_is_named_where_it_stands(tmp_path, of_ten):
    path = tmp_path / "a.csv"
    path.write_text("id,x\n" + "".join(f"{row},1\n" for row in range(25)) + "25,1,1\n")
    tables = open_stream(path).tables(["x"])
    assert [len(next(tables).frame) for _ in range(2)] == [10, 10]
    with pytest.raises(InputError, match=r"row 27 \(the header is row 1\) has 3 cells, but the header has 2"):
        next(tables)


def write_shards(folder, frame, n=3, name="part-{k:05}-of-{n:05}.parquet"):
    folder.mkdir()
    for k, rows in enumerate(np.array_split(np.arange(len(frame)), n)):
        frame.iloc[rows].to_parquet(folder / name.format(k=k, n=n), index=False)
    (folder / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize("name", ["part-{k:05}-of-{n:05}.parquet", "{k}.parquet"])
def test_shards_are_one_table_in_the_order_of_their_names(tmp_path, of_ten, name):
    frame = wine(47)
    stream = open_stream(write_shards(tmp_path / "wine", frame, name=name))
    assert stream.rows == 47
    for start in (0, 10, 16, 26):
        tables = list(stream.tables(["id", "label"], start=start))
        assert cells(tables, ["id"])["id"] == frame["id"].tolist()[start:]
        assert tables[0].first == start + 1
    last = list(stream.tables(["id"]))[-1]
    assert last.name.endswith(name.format(k=2, n=3))
    assert last.frame.index[-1] == 15, "rows are counted in their own file, where a message sends people to"


def test_what_is_no_table_of_columns_or_cannot_be_read_in_parts_is_no_stream(tmp_path):
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "comma.csv").write_text("id;x\n1;2,5\n")
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    wine(0).to_parquet(tmp_path / "empty.parquet")
    for name in ("images", "comma.csv", "a.jsonl", "empty.parquet", "digits", "nowhere.csv"):
        assert open_stream(tmp_path / name) is None, name


def test_wide_rows_come_fewer_at_a_time(tmp_path):
    assert rows_at_once(8) == room.ROWS_AT_ONCE
    assert rows_at_once(8192) == room.BYTES_AT_ONCE // 8192 == 2048
    assert rows_at_once(2**40) == room.FEWEST_AT_ONCE
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({f"x{k}": np.arange(2500.0) for k in range(40)}), path)
    sizes = [len(table.frame) for table in open_stream(path).tables(["x1"], row_bytes=room.BYTES_AT_ONCE // 1200)]
    assert sizes[0] < 1200
    assert sum(sizes) == 2500


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("of_shards", [False, True])
def test_a_table_that_is_read_as_a_whole_is_the_same_on_the_disk(tmp_path, of_ten, monkeypatch, on_disk, of_shards):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    frame = wine(47)
    frame.loc[3, "ash"] = np.nan
    if of_shards:
        path = write_shards(tmp_path / "wine", frame)
    else:
        frame.to_parquet(path := tmp_path / "wine.parquet", row_group_size=20)
    stream = open_stream(path)
    frame.to_parquet(tmp_path / "one.parquet")
    table, whole = stream.read(on_disk=on_disk), read_table(tmp_path / "one.parquet")
    assert table.name == str(path)
    pd.testing.assert_frame_equal(table.frame, whole.frame)
    assert set(stream.numbers) == {*load_wine().feature_names} - {"hue"} | {"tint"}
    assert lies_on_disk(table.frame["ash"].to_numpy()) == on_disk
    assert lies_on_disk(choose_inputs(table, Columns()).values["ash"].to_numpy()) == on_disk, "it is not copied"


def test_a_table_without_any_other_column_keeps_its_rows_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wine(20)[["ash", "tint"]].to_parquet(tmp_path / "a.parquet")
    table = open_stream(tmp_path / "a.parquet").read(on_disk=True)
    pd.testing.assert_frame_equal(table.frame, read_table(tmp_path / "a.parquet").frame)


def test_a_table_outgrows_memory_by_what_is_free(tmp_path, monkeypatch):
    wine(20).to_parquet(tmp_path / "a.parquet")
    stream = open_stream(tmp_path / "a.parquet")
    for free, outgrows in ((None, False), (1e6, False), (0.001, True)):
        monkeypatch.setattr(room, "available_memory_mb", lambda free=free: free)
        assert stream.outgrows_memory == outgrows


# --- refused ----------------------------------------------------------------------------------------------------------


def refusal(action, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_shard_is_named(tmp_path):
    folder = write_shards(tmp_path / "wine", wine(47))
    (folder / "part-00001-of-00003.parquet").unlink()
    assert "part-00001-of-00003.parquet missing beside part-00000-of-00003.parquet" in refusal(open_stream, folder)


def test_shards_that_are_counted_from_one_are_all_there(tmp_path):
    folder = write_shards(tmp_path / "wine", wine(47))
    for k in (2, 1, 0):
        (folder / f"part-0000{k}-of-00003.parquet").rename(folder / f"part-0000{k + 1}-of-00003.parquet")
    assert open_stream(folder).rows == 47


def test_a_shard_with_other_columns_is_named(tmp_path):
    folder = write_shards(tmp_path / "wine", wine(47))
    wine(5).rename(columns={"ash": "cinder"}).to_parquet(folder / "part-00001-of-00003.parquet")
    said = refusal(open_stream, folder)
    assert "part-00001-of-00003.parquet: lacks 'ash' and has 'cinder' besides" in said
    assert "other than part-00000-of-00003.parquet" in said


def test_shards_of_other_types_make_no_table(tmp_path):
    folder = write_shards(tmp_path / "wine", wine(47))
    wine(5).assign(vintage="old").to_parquet(folder / "part-00001-of-00003.parquet")
    said = refusal(lambda: open_stream(folder).read(on_disk=False))
    assert said.startswith(f"{folder}: its files hold other types (")
    assert "vintage" in said


def test_a_damaged_shard_is_named_before_any_row_is_read(tmp_path):
    folder = write_shards(tmp_path / "wine", wine(47))
    last = folder / "part-00002-of-00003.parquet"
    last.write_bytes(last.read_bytes()[:-7])
    assert f"{last}: the Parquet file is cut off at its end" in refusal(open_stream, folder)


def test_a_shard_that_goes_away_is_named(tmp_path, of_ten):
    folder = write_shards(tmp_path / "wine", wine(47))
    tables = open_stream(folder).tables(["id"])
    next(tables)
    (folder / "part-00001-of-00003.parquet").unlink()
    assert "part-00001-of-00003.parquet: no longer there" in refusal(list, tables)
