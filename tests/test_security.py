"""What docs/security.md promises: no code from data, limits to what is unpacked, nothing that steers the terminal."""

from __future__ import annotations

import ast
import gzip
import io
import json
import pickle
import resource
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import ebomlc
from ebomlc import fit
from ebomlc.cli.main import LONGEST, main
from ebomlc.cli.screen import printable
from ebomlc.data import download, official
from ebomlc.data.arrays import load_arrays
from ebomlc.errors import InputError

SOURCE = Path(ebomlc.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

UNPICKLES = {"data/official.py"}
"""The official files of CIFAR are pickles: read after their checksum, by an unpickler that knows arrays only."""

STARTS_PROCESSES = {"environment.py", "bench/grid.py"}
"""`git`, to name the commit; and the workers of a benchmark, which are this interpreter."""

IMPORTS_BY_NAME = {
    "__init__.py",
    "data/frozen.py",
    "data/preprocessing.py",
    "models/onnx.py",
    "models/pretrained.py",
}
"""Modules named in tables of the source; none of these names comes from a file."""

RUNS_CODE = {"eval", "exec", "compile", "__import__", "execfile"}
READS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "code", "runpy", "yaml"}
SHELL = {"system", "popen", "spawnl", "spawnv", "execv", "execvp", "getoutput", "mktemp"}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def nodes(kind: type) -> Iterator[tuple[str, ast.AST]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield name(path), node


def imported() -> Iterator[tuple[str, str]]:
    for file, node in nodes(ast.Import):
        yield from ((file, alias.name) for alias in node.names)
    for file, node in nodes(ast.ImportFrom):
        yield file, node.module or ""


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


# --- code -------------------------------------------------------------------------------------------------------------


def test_nothing_runs_text_as_code():
    found = [(file, called(node)) for file, node in nodes(ast.Call) if called(node) in RUNS_CODE]
    assert found == []


def test_nothing_reads_what_may_hold_code():
    found = {file for file, module in imported() if module.partition(".")[0] in READS_CODE}
    assert found == UNPICKLES


def test_processes_are_started_in_two_places_and_never_through_a_shell():
    assert {file for file, module in imported() if module == "subprocess"} == STARTS_PROCESSES
    for file, node in nodes(ast.Call):
        assert called(node).rpartition(".")[2] not in SHELL, (file, called(node))
        assert all(keyword.arg != "shell" for keyword in node.keywords), (file, called(node))


def test_modules_are_imported_by_name_from_tables_of_the_source_only():
    assert {file for file, node in nodes(ast.Call) if called(node) == "import_module"} <= IMPORTS_BY_NAME


def test_arrays_and_weights_are_loaded_without_pickle():
    for file, node in nodes(ast.Call):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called(node) == "np.load":
            assert given.get("allow_pickle") == "False", file
        if called(node) == "torch.load":
            assert given.get("weights_only") == "True", file


def test_the_lists_above_name_files_that_are_there():
    assert {*UNPICKLES, *STARTS_PROCESSES, *IMPORTS_BY_NAME} <= {name(path) for path in MODULES}


@pytest.mark.parametrize(
    "tables",
    [
        {"model": {"name": "evil:run"}},
        {"model": {"name": "torchvision:__builtins__"}},
        {"encoder": {"name": "evil.run"}},
        {"method": {"name": "__import__('evil')"}},
        {"method": {"settings": {"__class__": "evil.Settings"}}},
        {"data": {"noisy": "digits", "n_trusted": 50, "code": "import evil"}},
        {"import": {"module": "evil"}},
    ],
)
def test_a_configuration_imports_nothing(tables, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    (tmp_path / "c.toml").write_text(tomli_w.dumps({"data": {"noisy": "digits", "n_trusted": 50}, **tables}))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError):
        fit(config=tmp_path / "c.toml", out=tmp_path / "run")
    assert "evil" not in sys.modules


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("it ran",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_under_the_right_checksum_still_runs_nothing(tmp_path, protocol):
    path = tmp_path / "train"
    path.write_bytes(pickle.dumps({b"data": Harm()}, protocol))
    digest = official.hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="it is refused, and nothing in it was run"):
        official._read_pickle("cifar100", path, digest)


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Harm()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_arrays(tmp_path / "a.npz")


# --- what unpacks to more than it is ----------------------------------------------------------------------------------


def held_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_arrays_that_were_compressed_are_refused_before_they_are_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**24))
    with pytest.raises(ValueError, match="unpacks to more, than it may"):
        load_arrays(tmp_path / "a.npz")


def test_an_array_beyond_all_memory_is_damaged(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz"):
        load_arrays(tmp_path / "a.npz")


def test_a_gzip_bomb_is_unpacked_no_further_than_any_official_file(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "LARGEST_MEMBER", 2**16)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 2**26))
    before = held_megabytes()
    with pytest.raises(InputError, match="is not the official file"):
        official._read_gzipped(path, "0" * 32)
    assert held_megabytes() - before < 32


def tar_of(members: dict[str, tuple[bytes, int]]) -> bytes:
    """A .tar.gz of names, each with its kind and how many zeros it holds."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for member, (kind, size) in members.items():
            info = tarfile.TarInfo(member)
            info.type, info.size, info.linkname = kind, size, "/etc/passwd"
            tar.addfile(info, io.BytesIO(b"\0" * size))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({f"set/{k}": (tarfile.REGTYPE, 0) for k in range(5)}, "has more than 3 files or 1,000 bytes"),
        ({"set/other": (tarfile.REGTYPE, 2000), "set/a": (tarfile.REGTYPE, 1)}, "has more than 3 files or 1,000 bytes"),
        ({"set/a": (tarfile.SYMTYPE, 0)}, "is not a plain file"),
        ({"set/a": (tarfile.LNKTYPE, 0)}, "is not a plain file"),
        ({"set/a": (tarfile.FIFOTYPE, 0)}, "is not a plain file"),
        ({"set/a": (tarfile.CHRTYPE, 0)}, "is not a plain file"),
        ({"../a": (tarfile.REGTYPE, 1), "/a": (tarfile.REGTYPE, 1)}, "lacks set/a"),
    ],
)
def test_archives_have_limits_and_lead_nowhere(tmp_path, monkeypatch, members, message):
    monkeypatch.setattr(download, "MOST_MEMBERS", 3)
    monkeypatch.setattr(download, "MOST_BYTES", 1000)
    archive = tmp_path / "in" / "set.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(tar_of(members))
    with pytest.raises(InputError, match=message):
        download.extract(archive, {"set/a": tmp_path / "in" / "a"})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["set.tar.gz"]


# --- the terminal -----------------------------------------------------------------------------------------------------

STEERS = "\x1b[31m\x1b]0;title\x07\x9b2J\x08\x7f\r\u202egnp\u2028\ud800"


def test_what_steers_a_terminal_is_written_out():
    assert printable(STEERS) == r"\x1b[31m\x1b]0;title\x07\x9b2J\x08\x7f\r\u202egnp\u2028\ud800"
    assert printable("Größe\t日本 🙂\n") == "Größe\t日本 🙂\n"


def test_commands_print_through_the_screen_alone():
    prints = ("typer.echo", "click.echo", "print", "typer.secho", "sys.stdout.write", "sys.stderr.write")
    found = {file for file, node in nodes(ast.Call) if called(node) in prints}
    assert found == {"cli/screen.py", "bench/worker.py"}, "a worker's output goes to a file"
    named = {file for file, node in nodes(ast.Attribute) if ast.unparse(node) in prints}
    assert named == {"cli/screen.py"}


@pytest.fixture
def say(tmp_path, monkeypatch, capfd):
    """Run the command line in a folder of its own; what it printed, and how it ended."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ebomlc", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capfd.readouterr()
        return left.value.code, printed.out + printed.err

    return run


HOSTILE = STEERS.replace("\r", "").replace("\ud800", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (f"fit {HOSTILE}.csv", "--out", "run"),
        ("fit", f"{HOSTILE}.csv", "--out", "run"),
        ("fit", "rows.csv", "--out", "run", "--\x1b[31m\x07"),
        ("fit", "rows.csv", "--out", "run", "--trusted", f"{HOSTILE}.csv"),
        ("fit", "rows.csv", "--out", "run", "--label", HOSTILE),
        ("fit", "rows.csv", "--out", "run", "--method", HOSTILE),
        ("fit", "rows.csv", "--out", "run", "--trusted", "rows.csv"),
        ("fit", "--config", "hostile.toml", "--out", "run"),
        ("report", HOSTILE),
        ("verify", HOSTILE),
        (HOSTILE,),
    ],
)
def test_no_control_sequence_of_a_name_reaches_the_terminal(say, arguments):
    rows = f"id,x,label\n{HOSTILE},1,{HOSTILE}\n{HOSTILE},2,{HOSTILE}\n"
    Path("rows.csv").write_text(rows, encoding="utf-8")
    Path("hostile.toml").write_text(json.dumps({"data": HOSTILE})[1:-1].replace(":", "=", 1), encoding="utf-8")
    code, printed = say(*arguments)
    assert code == 2
    assert printed
    assert [letter for letter in printed if printable(letter) != letter] == []


def test_a_name_that_is_no_text_is_refused_by_name(say):
    code, printed = say("fit", "\udcff.csv", "--out", "run")
    assert (code, printed) == (2, "error: \\udcff.csv: the name is not text in UTF-8; rename the file or folder\n")


def test_a_message_is_cut_in_its_middle(say):
    code, printed = say("fit", "rows.csv", "--method", "m" * 100_000, "--out", "run")
    assert code == 2
    code, printed = say("fit", "x" * 4000 + ".csv", "--out", "run")
    assert code == 2
    assert len(printed) < LONGEST + 100
    assert " [...] " in printed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/secret"), "/secret: Permission denied; is the path right"),
        (OSError("odd"), "odd; is the path right"),
        (MemoryError("12 GiB"), "not enough memory (12 GiB)"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(say, monkeypatch, error, message):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("ebomlc.findings.write_report", refuse)
    code, printed = say("report", "run")
    assert code == 2
    assert printed.startswith(f"error: {message}")
    assert printed.count("\n") == 1
