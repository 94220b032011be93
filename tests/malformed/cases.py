"""Malformed inputs: what each writes to a folder, and the command that must refuse it."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Command = list[str]
Write = Callable[[Path], Command]

GOOD_NOISY = "id,x,y,label\n" + "".join(f"n{k},{k},{k * k % 17},{'pq'[k % 2]}\n" for k in range(40))
GOOD_TRUSTED = "id,x,y,label\n" + "".join(f"t{k},{k},{k * k % 17},{'pq'[k % 2]}\n" for k in range(10))
TRUSTED = ["--trusted", "trusted.csv"]
FIT = ["--epochs", "1", "--method", "trusted-only", "--folds", "0", "--out", "run"]


def _put(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def _as_noisy(name: str, content: str | bytes, *options: str) -> Write:
    def write(folder: Path) -> Command:
        _put(folder, name, content)
        return ["fit", name, *TRUSTED, *FIT, *options]

    return write


def _as_trusted(name: str, content: str | bytes, *options: str) -> Write:
    def write(folder: Path) -> Command:
        _put(folder, name, content)
        return ["fit", "noisy.csv", "--trusted", name, *FIT, *options]

    return write


def _as_config(content: str | bytes) -> Write:
    def write(folder: Path) -> Command:
        _put(folder, "c.toml", content)
        return ["fit", "--config", "c.toml", "--out", "run"]

    return write


# --- bytes that are no table, under every suffix of one --------------------------------------------------------------

ROWS = [{"id": f"n{k}", "x": k, "y": k * k % 17, "label": "pq"[k % 2]} for k in range(40)]
WORDS = "id,x,label\na,1,café\nb,2,naïve\n"


def _png(size: tuple[int, int] = (4, 4), mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


NO_TABLES: dict[str, bytes] = {
    "nothing": b"",
    "a byte order mark": b"\xef\xbb\xbf",
    "a line end": b"\n",
    "line ends of DOS": b"\r\n\r\n\r\n",
    "blanks": b"   \t  \n  ",
    "NULs": b"\0" * 1000,
    "NULs in a table": b"id,x,label\na,1\x00,p\nb,2,q\n",
    "UTF-16": WORDS.encode("utf-16"),
    "UTF-16 without a mark": WORDS.encode("utf-16-le"),
    "UTF-32": WORDS.encode("utf-32"),
    "Latin-1": WORDS.encode("latin-1"),
    "code page 437": WORDS.encode("cp437"),
    "Shift JIS": "id,x,label\na,1,日本\n".encode("shift-jis"),
    "half a character": WORDS.encode()[: WORDS.encode().index(b"\xc3") + 1],
    "overlong UTF-8": b"id,x,label\na,1,\xc0\xaf\n",
    "half a surrogate pair": b"id,x,label\na,1,\xed\xa0\x80\n",
    "a PNG": _png(),
    "a ZIP": _zip({"a.csv": WORDS.encode()}),
    "a gzip": gzip.compress(WORDS.encode(), mtime=0),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "noise": np.random.default_rng(0).bytes(5000),
    "a pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n",
    "an open quote": b'"',
    "HTML": b"<!doctype html><title>404</title>",
    "a spreadsheet": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500,
}


def no_tables() -> Iterator[tuple[str, Write]]:
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        for name, content in NO_TABLES.items():
            yield f"{suffix}: {name}", _as_noisy(f"bad.{suffix}", content)


# --- tables that look like one ----------------------------------------------------------------------------------------

HEAD = "id,x,y,label\n"
CSV: dict[str, str] = {
    "header alone": HEAD,
    "header without an end": "id,x,y,label",
    "one column": "label\np\nq\n",
    "no label": "id,x,y\na,1,2\nb,2,3\n",
    "label under another name": "id,x,y,Label\na,1,2,p\nb,2,3,q\n",
    "a column twice": "id,x,x,label\na,1,2,p\nb,2,3,q\n",
    "a column twice but for blanks": "id,x, x,label\na,1,2,p\nb,2,3,q\n",
    "two columns without a name": "id,,,label\na,1,2,p\nb,2,3,q\n",
    "two labels": "id,label,label\na,p,q\nb,q,q\n",
    "too many cells": HEAD + "a,1,2,p\nb,1,2,q,7\n",
    "too few cells": HEAD + "a,1,2,p\nb,1\n",
    "a comma at each end": HEAD + "a,1,2,p,\nb,2,3,q,\n",
    "a quote that never ends": HEAD + 'a,1,2,"p\nb,2,3,q\n',
    "a quote inside a cell": HEAD + 'a,1,2,"p" q\nb,2,3,q\n',
    "semicolons in a TSV's place": "id\tx\tlabel\na\t1\tp\n",
    "bars": "id|x|label\na|1|p\nb|2|q\n",
    "an id twice": HEAD + "a,1,2,p\na,2,3,q\n",
    "an id twice with other labels": HEAD + "a,1,2,p\nb,1,2,p\na,1,2,q\n",
    "an empty id": HEAD + "a,1,2,p\n,2,3,q\n",
    "a blank id": HEAD + "a,1,2,p\n  ,2,3,q\n",
    "ids that are NaN": HEAD + "NaN,1,2,p\nNaN,2,3,q\n",
    "an empty label": HEAD + "a,1,2,p\nb,2,3,\n",
    "a blank label": HEAD + "a,1,2,p\nb,2,3,   \n",
    "labels all empty": HEAD + "a,1,2,\nb,2,3,\n",
    "no class of the trusted rows": HEAD + "a,1,2,r\nb,2,3,s\n",
    "no input": "id,label\na,p\nb,q\n",
    "inputs all empty": HEAD + "a,,,p\nb,,,q\n",
    "another input": "id,x,z,label\na,1,2,p\nb,2,3,q\n",
    "classes that differ by case": HEAD + "a,1,2,p\nb,2,3,P\nc,2,3,q\n",
    "classes that differ by a blank": HEAD + "a,1,2,p\nb,2,3,p \nc,2,3,q\n",
    "classes that look alike": HEAD + "a,1,2,\u0440\u0430y\u0440\u0430l\nb,2,3,paypal\n",
    "classes that are numbers": HEAD + "a,1,2,1e999\nb,2,3,-0\n",
    "a class of control characters": HEAD + "a,1,2,\x1b[31m\nb,2,3,\x07\n",
    "words for numbers": HEAD + "a,one,two,p\nb,two,three,q\n",
    "a line end in the header": 'id,x,"y\nz",label\na,1,2,p\nb,2,3,q\n',
    "a header of 20,000 columns": ",".join(f"c{k}" for k in range(20_000)) + "\na,b\n",
    "classes of 10,000 letters": HEAD + f"a,1,2,{'p' * 10_000}\nb,2,3,{'q' * 10_000}\n",
    "a cell of ten million letters": HEAD + f"a,1,2,{'p' * 10_000_000}\nb,2,3,q\n",
    "an id of ten million letters": HEAD + f"{'a' * 10_000_000},1,2,p\nb,2,3,\n",
    "ten million commas": HEAD + "," * 10_000_000,
    "a header of ten million letters": "x" * 10_000_000,
    "100,000 classes": HEAD + "".join(f"n{k},{k},{k},class {k}\n" for k in range(100_000)),
    "100,000 lines of nothing": "\n" * 100_000,
    "a line of blanks": HEAD + " \n" * 50,
    "markup for a header": "<html>,<body>\n1,2\n",
    "a formula for a label": HEAD + "a,1,2,=1+1\nb,2,3,@SUM(A1)\n",
}
NUMBERS: dict[str, str] = {
    "infinity": GOOD_NOISY + "b,-inf,3,q\n",
    "a number above all": GOOD_NOISY + "b,1e999,3,q\n",
    "a number of a thousand digits": GOOD_NOISY + f"b,{'9' * 1000},2,p\n",
    "a number with two points": GOOD_NOISY + "b,1.2.3,3,q\n",
    "a list": GOOD_NOISY + 'b,"[1, 2]",3,q\n',
}
AS_TRUSTED: dict[str, str] = {
    "one row": HEAD + "t0,0,0,p\n",
    "one row of each class": HEAD + "t0,0,0,p\nt1,1,1,q\n",
    "a class of its own": HEAD + "t0,0,0,r\nt1,1,1,r\nt2,1,2,s\nt3,1,2,s\n",
    "checked twice": HEAD + "t0,0,0,p\nt0,0,0,q\nt1,1,1,p\n",
    "a provenance nobody knows": "id,x,y,label,given_label,provenance\nt0,0,0,p,q,guess\nt1,1,1,p,p,guess\n",
    "a weight below zero": "id,x,y,label,sampling_weight\nt0,0,0,p,-1\nt1,1,1,p,1\n",
    "a weight that is NaN": "id,x,y,label,sampling_weight\nt0,0,0,p,nan\nt1,1,1,p,1\n",
    "a weight that is infinite": "id,x,y,label,sampling_weight\nt0,0,0,p,inf\nt1,1,1,p,1\n",
    "a weight that is a word": "id,x,y,label,sampling_weight\nt0,0,0,p,heavy\nt1,1,1,p,1\n",
    "words for numbers": HEAD + "t0,few,0,p\nt1,1,1,p\nt2,2,2,q\n",
    "infinity for a number": HEAD + "t0,inf,0,p\nt1,1,1,p\nt2,2,2,q\n",
    "ids nobody knows and no inputs": "id,label\nz1,p\nz2,p\nz3,q\n",
    "labels of another case": HEAD + "t0,0,0,P\nt1,1,1,P\nt2,2,2,Q\n",
}
AS_SCORED: dict[str, str] = {
    "header alone": HEAD,
    "a class nobody trained": HEAD + "s0,0,0,r\n",
    "an empty label": HEAD + "s0,0,0,\n",
    "no label": "id,x,y\ns0,0,0\n",
    "a column less": "id,x,label\ns0,0,p\n",
    "a word for a number": HEAD + "s0,zero,0,p\n",
    "rows that train": GOOD_NOISY,
    "rows that train under other ids": GOOD_NOISY.replace("\nn", "\nother"),
    "rows that are trusted": GOOD_TRUSTED,
}
AS_TRUTH: dict[str, str] = {
    "header alone": "id,label\n",
    "no id": "label\np\n",
    "no label": "id,x\nn0,1\n",
    "ids nobody knows": "id,label\nz0,p\nz1,q\n",
    "two labels for one id": "id,label\nn0,p\nn0,q\n",
    "a class nobody gave": "id,label\nn0,r\nn1,p\n",
}


SAME: dict[str, str] = {
    "a class for each of 10,001 rows": HEAD + "".join(f"n{k},{k},{k},class {k}\n" for k in range(10_001)),
    "classes of 501 letters": HEAD + "".join(f"n{k},{k},{k},{'pq'[k % 2] * 501}\n" for k in range(10)),
}
"""Tables that are the noisy and the trusted set at once."""


def csv_tables() -> Iterator[tuple[str, Write]]:
    for name, content in CSV.items():
        yield f"csv: {name}", _as_noisy("bad.csv", content)
    for name, content in SAME.items():
        yield f"classes: {name}", _as_noisy("bad.csv", content, "--trusted", "bad.csv")
    for name, content in NUMBERS.items():
        yield f"number: {name}", _as_noisy("bad.csv", content, "--features", "x", "--features", "y")
    for name, content in AS_TRUSTED.items():
        yield f"trusted: {name}", _as_trusted("bad.csv", content)
    for option, contents in (("--test", AS_SCORED), ("--truth", AS_TRUTH)):
        for name, content in contents.items():

            def write(folder: Path, option: str = option, content: str = content) -> Command:
                _put(folder, "scored.csv", content)
                return ["fit", "noisy.csv", *TRUSTED, option, "scored.csv", *FIT]

            yield f"{option[2:]}: {name}", write


LINES: dict[str, str] = {
    "an array": '[{"id": "a", "x": 1, "y": 2, "label": "p"}]\n',
    "a number": "1\n2\n",
    "a string": '"a"\n',
    "null": "null\nnull\n",
    "true": "true\n",
    "an empty object": "{}\n{}\n",
    "an open brace": '{"id": "a"\n',
    "two objects in a line": '{"id": "a"}{"id": "b"}\n',
    "a comma after each object": '{"id": "a", "label": "p"},\n{"id": "b", "label": "q"},\n',
    "single quotes": "{'id': 'a'}\n",
    "a comment": '// rows\n{"id": "a"}\n',
    "a bracket ten thousand deep": "[" * 10_000 + "\n",
    "an object ten thousand deep": '{"a":' * 10_000 + "1" + "}" * 10_000 + "\n",
    "a number of ten thousand digits": '{"id": "a", "x": ' + "9" * 10_000 + ', "label": "p"}\n',
    "half a surrogate pair": '{"id": "a", "x": 1, "label": "\\ud800"}\n',
    "a label that is a list": '{"id": "a", "x": 1, "label": ["p"]}\n{"id": "b", "x": 1, "label": "q"}\n',
    "a label that is an object": '{"id": "a", "x": 1, "label": {"p": 1}}\n{"id": "b", "x": 1, "label": "q"}\n',
    "an id that is null": '{"id": null, "x": 1, "y": 1, "label": "p"}\n{"id": "b", "x": 1, "y": 1, "label": "q"}\n',
    "an id that is NaN": '{"id": NaN, "x": 1, "y": 1, "label": "p"}\n{"id": "b", "x": 1, "y": 1, "label": "q"}\n',
    "an id that is a list": '{"id": [1], "x": 1, "y": 1, "label": "p"}\n{"id": "b", "x": 1, "y": 1, "label": "q"}\n',
    "ids 1, 1.0 and '1'": "".join(f'{{"id": {i}, "x": 1, "y": 1, "label": "p"}}\n' for i in ("1", "1.0", '"1"')),
    "a label that is missing": '{"id": "a", "x": 1, "y": 1}\n{"id": "b", "x": 1, "y": 1, "label": "q"}\n',
    "NULs": '{"id": "a\\u0000"\0}\n',
    "a key of ten million letters": '{"' + "k" * 10_000_000 + '": 1}\n',
    "a last line cut off": '{"id": "a", "x": 1, "y": 1, "label": "p"}\n{"id": "b", "x": 1, "y": 1, "lab',
}


def json_lines() -> Iterator[tuple[str, Write]]:
    for name, content in LINES.items():
        yield f"jsonl: {name}", _as_noisy("bad.jsonl", content)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet(table: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


GOOD_PARQUET = _parquet(pa.Table.from_pylist(ROWS))
LABELS = pa.array(["p", "q"])
ODD_PARQUET: dict[str, pa.Table] = {
    "no row": pa.table({"id": pa.array([], pa.string()), "x": pa.array([], pa.int64()), "label": LABELS[:0]}),
    "no column": pa.table({}),
    "lists": pa.table({"id": ["a", "b"], "x": [[1], [2]], "label": LABELS}),
    "objects": pa.table({"id": ["a", "b"], "x": [{"k": 1}, {"k": 2}], "label": LABELS}),
    "bytes": pa.table({"id": ["a", "b"], "x": [b"\0", b"\1"], "label": LABELS}),
    "dates": pa.table({"id": ["a", "b"], "x": pa.array([1, 2], pa.timestamp("ns")), "label": LABELS}),
    "ids that are null": pa.table({"id": pa.nulls(2, pa.string()), "x": [1, 2], "y": [1, 2], "label": LABELS}),
    "ids that are NaN": pa.table({"id": [float("nan"), 1.0], "x": [1, 2], "y": [1, 2], "label": LABELS}),
    "labels that are null": pa.table({"id": ["a", "b"], "x": [1, 2], "y": [1, 2], "label": pa.nulls(2)}),
    "labels that are lists": pa.table({"id": ["a", "b"], "x": [1, 2], "y": [1, 2], "label": [["p"], ["q"]]}),
    "a column twice": pa.Table.from_arrays([LABELS, LABELS], ["label", "label"]),
    "nested names twice": pa.Table.from_arrays([LABELS, LABELS, LABELS], ["id", "x", "x"]),
    "an interval": pa.table({"id": ["a", "b"], "x": pa.array([1, 2], pa.duration("s")), "label": LABELS}),
}


def _parquet_bomb(folder: Path) -> Command:
    """A few kilobytes that claim, and hold, a billion rows."""
    few = pa.table({"id": pa.array(["a"] * 4_000_000).dictionary_encode(), "label": ["p"] * 4_000_000})
    with pq.ParquetWriter(folder / "bad.parquet", few.schema, compression="zstd") as writer:
        for _ in range(25):
            writer.write_table(few)
    return ["fit", "bad.parquet", *TRUSTED, *FIT]


def parquet_files() -> Iterator[tuple[str, Write]]:
    for end in np.linspace(1, len(GOOD_PARQUET) - 1, 25).astype(int):
        yield f"parquet: cut after {end} bytes", _as_noisy("bad.parquet", GOOD_PARQUET[:end])
    for claim in (0, 1, 2**31 - 1, 2**32 - 1):
        footer = GOOD_PARQUET[:-8] + struct.pack("<I", claim) + b"PAR1"
        yield f"parquet: a footer of {claim} bytes", _as_noisy("bad.parquet", footer)
    yield "parquet: a footer of zeros", _as_noisy("bad.parquet", GOOD_PARQUET[:-200] + b"\0" * 192 + GOOD_PARQUET[-8:])
    yield "parquet: pages of zeros", _as_noisy("bad.parquet", b"PAR1" + b"\0" * 300 + GOOD_PARQUET[304:])
    yield "parquet: two ends", _as_noisy("bad.parquet", b"PAR1PAR1")
    yield "parquet: encrypted", _as_noisy("bad.parquet", b"PAR1" + GOOD_PARQUET[4:-4] + b"PARE")
    yield "parquet: a bomb", _parquet_bomb
    for name, table in ODD_PARQUET.items():
        yield f"parquet: {name}", _as_noisy("bad.parquet", _parquet(table))


# --- embeddings -------------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _header(text: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text.encode("latin-1") + body


GOOD_VECTORS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
_nan = GOOD_VECTORS.copy()
_nan[7, 1] = np.nan
ARRAYS: dict[str, bytes] = {
    "nothing": b"",
    "a magic number alone": b"\x93NUMPY",
    "a version nobody knows": _header("{}", version=b"\x09\x00"),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "a header that is code": _header("__import__('os').system('true')"),
    "a header that is a list": _header("[1, 2]"),
    "a header that lacks keys": _header("{'descr': '<f4'}"),
    "a shape below zero": _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}", b"\0" * 12),
    "a shape beyond the file": _header("{'descr': '<f4', 'fortran_order': False, 'shape': (40, 3)}", b"\0" * 12),
    "a shape beyond all memory": _header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**15, 10**3)}"),
    "a shape that is written out": _header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000)}"),
    "a header of nested brackets": _header("(" * 500 + ")" * 500),
    "a header of 100,000 letters": _header(" " * 100_000, version=b"\x02\x00"),
    "a type nobody knows": _header("{'descr': 'spam', 'fortran_order': False, 'shape': (40, 3)}"),
    "objects": _header("{'descr': '|O', 'fortran_order': False, 'shape': (40, 3)}", b"\x80\x04cos\nsystem\n"),
    "one dimension": npy(GOOD_VECTORS[:, 0]),
    "three dimensions": npy(GOOD_VECTORS[:, None]),
    "no dimension": npy(np.float32(1)),
    "no row": npy(GOOD_VECTORS[:0]),
    "no column": npy(GOOD_VECTORS[:, :0]),
    "strings": npy(GOOD_VECTORS.astype("U3")),
    "complex numbers": npy(GOOD_VECTORS.astype(np.complex64)),
    "dates": npy(np.zeros((40, 3), "datetime64[s]")),
    "truth values": npy(GOOD_VECTORS > 0),
    "a record": npy(np.zeros((40, 3), [("a", "f4")])),
    "NaN": npy(_nan),
    "infinity": npy(np.where(np.isnan(_nan), np.inf, _nan)),
    "numbers that float32 cannot hold": npy(GOOD_VECTORS.astype(np.float64) * 1e300),
    "a row less": npy(GOOD_VECTORS[:-1]),
    "cut off": npy(GOOD_VECTORS)[:-5],
    "a ZIP": _zip({"a.npy": npy(GOOD_VECTORS)}),
}


def embeddings() -> Iterator[tuple[str, Write]]:
    for name, content in ARRAYS.items():

        def write(folder: Path, content: bytes = content) -> Command:
            _put(folder, "bad.npy", content)
            _put(folder, "bad.csv", "id,label\n" + "".join(f"n{k},{'pq'[k % 2]}\n" for k in range(40)))
            _put(folder, "few.csv", "id,label\n" + "".join(f"n{k},{'pq'[k % 2]}\n" for k in range(10)))
            return ["fit", "bad.npy", "--trusted", "few.csv", *FIT]

        yield f"npy: {name}", write


# --- images -----------------------------------------------------------------------------------------------------------


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_bomb(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG whose header claims a size, with a few bytes of zeros in it."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(b"\0" * 100_000, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + _chunk(b"IEND", b"")


PICTURES: dict[str, bytes] = {
    "a PNG of 4 billion by 4 billion pixels": _png_bomb(2**32 - 1, 2**32 - 1),
    "a PNG of 50,000 by 50,000 pixels": _png_bomb(50_000, 50_000),
    "a PNG of no pixel": _png_bomb(0, 0),
    "a PNG with a text that unpacks to a gigabyte": _png_bomb(
        24, 24, _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**26, 9))
    ),
    "a PNG without pixels": b"\x89PNG\r\n\x1a\n" + _chunk(b"IEND", b""),
    "a PNG with a wrong checksum": _picture("PNG")[:40] + b"\xff\xff\xff\xff" + _picture("PNG")[44:],
    "a GIF of 65,535 by 65,535 pixels": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0;",
    "a BMP of 2 billion pixels a side": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "a PPM of a billion pixels": b"P6 100000 100000 255\n",
    "a TIFF that points at itself": b"II*\0"
    + struct.pack("<I", 8)
    + struct.pack("<HHHII", 1, 256, 4, 1, 8)
    + b"\x08\0\0\0",
    "a PostScript program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
    "an SVG that reads a file": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/hosts">]><svg/>',
    "an HTML page": b"<html><body>404</body></html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "zeros": b"\0" * 1000,
    "nothing": b"",
}


def _as_picture(content: bytes, suffix: str = "png") -> Write:
    def write(folder: Path) -> Command:
        for k in range(6):
            _put(folder, f"photos/{'pq'[k % 2]}/{k}.png", _picture("PNG"))
        _put(folder, f"photos/p/bad.{suffix}", content)
        _put(folder, "photos.csv", "id,label\n" + "".join(f"{'pq'[k % 2]}/{k}.png,{'pq'[k % 2]}\n" for k in range(6)))
        return ["fit", "photos", "--trusted", "photos.csv", "--encoder", "pixels", "--model", "mlp", *FIT]

    return write


def pictures() -> Iterator[tuple[str, Write]]:
    for name, content in PICTURES.items():
        yield f"image: {name}", _as_picture(content)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = _picture(kind)
        for share in (0.05, 0.3, 0.6):
            suffix = kind.lower()
            yield f"image: {kind} cut after {share:.0%}", _as_picture(whole[: int(share * len(whole))], suffix)


def _paths_of_images(cells: list[str]) -> Write:
    def write(folder: Path) -> Command:
        rows = "".join(f"{k},{cell},{'pq'[k % 2]}\n" for k, cell in enumerate(cells))
        _put(folder, "paths.csv", "id,path,label\n" + rows)
        return ["fit", "paths.csv", "--image", "path", "--trusted", "paths.csv", "--encoder", "pixels", *FIT]

    return write


PATHS: dict[str, list[str]] = {
    "no file": ["gone.png", "gone too.png"],
    "no cell": ["", ""],
    "a folder": [".", ".."],
    "a file that is no image": ["/etc/hostname", "/etc/hostname"],
    "a device": ["/dev/zero", "/dev/zero"],
    "a process's own environment": ["/proc/self/environ", "/proc/self/environ"],
    "an address": ["http://127.0.0.1:9/a.png", "file:///etc/passwd"],
    "a name that is too long": ["x" * 5000 + ".png"] * 2,
    "a way out": ["../../../../../../etc/passwd"] * 2,
    "a name of NULs in an escape": ["\x01.png"] * 2,
}


def image_paths() -> Iterator[tuple[str, Write]]:
    for name, cells in PATHS.items():
        yield f"image path: {name}", _paths_of_images(cells)


# --- configuration ----------------------------------------------------------------------------------------------------

DATA = '[data]\nnoisy = "noisy.csv"\ntrusted = "trusted.csv"\n'
CONFIGURATIONS: dict[str, str | bytes] = {
    "nothing": "",
    "a key without a value": "a =",
    "no TOML": "{ 'a': 1 }",
    "JSON": '{"data": {"noisy": "noisy.csv"}}',
    "YAML": "data:\n  noisy: noisy.csv\n",
    "INI": "[data]\nnoisy: noisy.csv\n",
    "bytes": b"\xff\xfe\x00",
    "UTF-16": DATA.encode("utf-16"),
    "NULs": DATA + "\0",
    "Latin-1": b'[data]\nnoisy = "caf\xe9.csv"\n',
    "a table twice": DATA + "[data]\n",
    "a key twice": DATA + 'noisy = "b"\n',
    "an unknown table": DATA + "[trianing]\nepochs = 1\n",
    "an unknown key": DATA + "[training]\nepohcs = 1\n",
    "a value for a table": "data = 1\n",
    "a list for a table": "data = [1]\n",
    "an array of tables": '[[data]]\nnoisy = "noisy.csv"\n',
    "a table for a value": DATA + "[seed]\nx = 1\n",
    "a word for a number": DATA + '[training]\nepochs = "many"\n',
    "a fraction for a number": DATA + "[training]\nepochs = 1.5\n",
    "truth for a number": DATA + "[training]\nepochs = true\n",
    "a date for a number": DATA + "[training]\nepochs = 1979-05-27\n",
    "a number for a word": "[data]\nnoisy = 1\n",
    "a word for a list": DATA + 'text = "x"\n',
    "a list of numbers for one of words": DATA + "text = [1, 2]\n",
    "a list in a list": DATA + 'text = [["x"]]\n',
    "no set": "[data]\n",
    "an empty set": '[data]\nnoisy = ""\n',
    "a set that is a NUL": '[data]\nnoisy = "a\\u0000b.csv"\n',
    "a set of control characters": '[data]\nnoisy = "\\u001b[31m.csv"\n',
    "a set with a long name": f'[data]\nnoisy = "{"x" * 5000}.csv"\n',
    "a set by address": '[data]\nnoisy = "http://127.0.0.1:9/x.csv"\n',
    "epochs below one": DATA + "[training]\nepochs = 0\n",
    "a rate of NaN": DATA + "[training]\nlr = nan\n",
    "a rate of infinity": DATA + "[training]\nlr = inf\n",
    "a rate of zero": DATA + "[training]\nlr = 0.0\n",
    "a decay of NaN": DATA + "[training]\nweight_decay = nan\n",
    "a momentum of one": DATA + "[training]\nmomentum = 1.0\n",
    "a batch of one": DATA + "[training]\nbatch_size = 1\n",
    "a batch below zero": DATA + "[training]\nbatch_size = -5\n",
    "an optimizer nobody knows": DATA + '[training]\noptimizer = "adma"\n',
    "a device nobody has": DATA + '[training]\ndevice = "tpu"\n',
    "a schedule nobody knows": DATA + '[training]\nschedule = "linaer"\n',
    "a precision of seven bits": DATA + '[training]\nprecision = "float7"\n',
    "a floor above one": DATA + "[training]\nlr_floor = 2.0\n",
    "a floor of NaN": DATA + "[training]\nlr_floor = nan\n",
    "checkpoints of no step": DATA + "[training]\ncheckpoint_steps = 0\n",
    "checkpoints of NaN minutes": DATA + "[training]\ncheckpoint_minutes = nan\n",
    "a seed below zero": "seed = -1\n" + DATA,
    "a seed of a thousand digits": f"seed = {'9' * 1000}\n" + DATA,
    "a seed of ten thousand digits": f"seed = {'9' * 10_000}\n" + DATA,
    "a method nobody knows": DATA + '[method]\nname = "ebmlc"\n',
    "a method that is code": DATA + '[method]\nname = "os.system"\n',
    "a setting nobody knows": DATA + '[method]\nname = "ce"\n[method.settings]\nx = 1\n',
    "a setting of the wrong type": DATA + '[method]\n[method.settings]\ndelta = "much"\n',
    "a setting of NaN": DATA + "[method]\n[method.settings]\ndelta = nan\n",
    "a model nobody knows": DATA + '[model]\nname = "resnet21"\n',
    "a model that is code": DATA + '[model]\nname = "torch.hub:x"\n',
    "a layer of no width": DATA + "[model]\nhidden = [0]\n",
    "a layer of a trillion": DATA + "[model]\nhidden = [1000000000000]\n",
    "a hundred thousand layers": DATA + f"[model]\nhidden = [{'1, ' * 100_000}]\n",
    "all units dropped": DATA + "[model]\ndropout = 1.0\n",
    "a dropout of NaN": DATA + "[model]\ndropout = nan\n",
    "an encoder nobody knows": DATA + '[encoder]\nname = "colums"\n',
    "an encoder that is code": DATA + '[encoder]\nname = "builtins:eval"\n',
    "a precision above one": DATA + "[trust]\nprecision = 1.5\n",
    "a precision of NaN": DATA + "[trust]\nprecision = nan\n",
    "one fold": DATA + "[trust]\nfolds = 1\n",
    "folds below zero": DATA + "[trust]\nfolds = -2\n",
    "more held out than there is": DATA + "heldout_fraction = 0.9\n",
    "a share of NaN": DATA + "heldout_fraction = nan\n",
    "no trusted row": '[data]\nnoisy = "noisy.csv"\nn_trusted = 0\n',
    "trusted rows drawn and given": DATA + "n_trusted = 5\n",
    "one noisy row": DATA + "n_noisy = 1\n",
    "a noise nobody knows": '[data]\nnoisy = "noisy.csv"\nn_trusted = 5\nnoise = "flp:0.4"\n',
    "a noise of NaN": '[data]\nnoisy = "noisy.csv"\nn_trusted = 5\nnoise = "flip:nan"\n',
    "an id that is the label": DATA + 'id = "label"\n',
    "an input that is the label": DATA + 'features = ["label"]\n',
    "an input twice": DATA + 'features = ["x", "x"]\n',
    "an image of four pixels": DATA + "image_size = 4\n",
    "an image of a million pixels": DATA + "image_size = 1000000\n",
    "a reviewed run that is none": DATA + 'add_reviewed = ["photos"]\n',
    "brackets ten thousand deep": "a = " + "[" * 10_000 + "]" * 10_000,
    "tables ten thousand deep": "[" + ".".join("a" * 10_000) + "]\n",
    "a key of a million letters": "k" * 1_000_000 + " = 1\n",
    "a million keys": "".join(f"k{k} = 1\n" for k in range(20_000)),
}


def configurations() -> Iterator[tuple[str, Write]]:
    for name, content in CONFIGURATIONS.items():
        yield f"config: {name}", _as_config(content)


# --- things that are no files -----------------------------------------------------------------------------------------


def _fifo(folder: Path, name: str) -> str:
    os.mkfifo(folder / name)
    return name


def _loop(folder: Path, name: str) -> str:
    (folder / name).symlink_to(folder / f"other {name}")
    (folder / f"other {name}").symlink_to(folder / name)
    return name


def _folder(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name


def _dangling(folder: Path, name: str) -> str:
    (folder / name).symlink_to("gone")
    return name


def _too_long(folder: Path, name: str) -> str:
    return "x" * 300 + name


def _no_file_in(folder: Path, name: str) -> str:
    return f"noisy.csv/{name}"


def _device(folder: Path, name: str) -> str:
    (folder / name).symlink_to("/dev/zero")
    return name


NO_FILES = {
    "FIFO": _fifo,
    "symlink loop": _loop,
    "folder": _folder,
    "link to nothing": _dangling,
    "name that is too long": _too_long,
    "file below a file": _no_file_in,
    "device": _device,
}
PLACES: dict[str, tuple[str, Callable[[str], Command]]] = {
    "noisy": ("bad.csv", lambda name: ["fit", name, *TRUSTED, *FIT]),
    "trusted": ("bad.parquet", lambda name: ["fit", "noisy.csv", "--trusted", name, *FIT]),
    "test": ("bad.jsonl", lambda name: ["fit", "noisy.csv", *TRUSTED, "--test", name, *FIT]),
    "truth": ("bad.tsv", lambda name: ["fit", "noisy.csv", *TRUSTED, "--truth", name, *FIT]),
    "vectors": ("bad.npy", lambda name: ["fit", name, *TRUSTED, *FIT]),
    "config": ("bad.toml", lambda name: ["fit", "noisy.csv", *TRUSTED, "--config", name, "--out", "run"]),
    "sample": ("bad.csv", lambda name: ["sample", name, "-n", "5", "--out", "drawn.csv"]),
    "run": ("bad", lambda name: ["report", name]),
}


def no_files() -> Iterator[tuple[str, Write]]:
    for place, (file, command) in PLACES.items():
        for kind, make in NO_FILES.items():

            def write(
                folder: Path,
                file: str = file,
                make: Callable[[Path, str], str] = make,
                command: Callable[[str], Command] = command,
            ) -> Command:
                return command(make(folder, file))

            yield f"{place}: a {kind}", write


CASES: dict[str, Write] = dict(
    [
        *no_tables(),
        *csv_tables(),
        *json_lines(),
        *parquet_files(),
        *embeddings(),
        *pictures(),
        *image_paths(),
        *configurations(),
        *no_files(),
    ]
)
