"""The folder of a run: whole or not at all, whenever the process dies; one writer at a time; errors that say why."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from ebomlc import run_folder as room
from ebomlc.errors import InputError, TrainingDivergedError
from ebomlc.run_folder import CHECKPOINT, CONTENTS, ENCODER, LOCK, SUMMARY, UNFINISHED, check_folder, new_run


class KilledError(BaseException):
    """Stands for a kill."""


def fill(folder, content, *, optional=False):
    for name in CONTENTS:
        (folder / name / "encoder.json" if name == ENCODER else folder / name).write_text(content)
    if optional:
        (folder / "report.html").write_text(content)


def keep_checkpoint(folder):
    (folder / CHECKPOINT).mkdir(exist_ok=True)
    (folder / CHECKPOINT / "step").write_text("state")


def write(out, content, *, optional=False, **how):
    with new_run(out, **how) as folder:
        fill(folder, content, optional=optional)


def contents(out):
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}


def whole(content, *, optional=False):
    names = [f"{ENCODER}/encoder.json" if name == ENCODER else name for name in CONTENTS]
    return dict.fromkeys([*names, *(["report.html"] if optional else [])], content)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "run"


def test_a_run_takes_its_place_and_leaves_nothing_else(out):
    with new_run(out) as folder:
        assert folder == out / UNFINISHED, "visible while it is written"
        fill(folder, "one", optional=True)
        keep_checkpoint(folder)
        assert not room.is_finished(out)
    assert contents(out) == whole("one", optional=True)
    assert list(out.parent.iterdir()) == [out]


def test_another_run_takes_the_place_of_its_files_alone(out):
    write(out, "one", optional=True)
    (out / "notes.txt").write_text("mine")
    write(out, "two", overwrite=True)
    assert contents(out) == {**whole("two"), "notes.txt": "mine"}, "a report of the old run would tell of another one"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_an_error_leaves_nothing_where_there_is_nothing_to_continue(out, error):
    with pytest.raises(error), new_run(out) as folder:
        fill(folder, "one")
        raise error
    assert not out.exists()


def test_an_error_leaves_what_can_be_continued(out):
    with pytest.raises(KeyboardInterrupt), new_run(out) as folder:
        fill(folder, "one")
        keep_checkpoint(folder)
        raise KeyboardInterrupt
    assert room.can_continue(out)
    assert not room.is_finished(out)
    with pytest.raises(InputError, match="--resume"):
        check_folder(out)
    check_folder(out, overwrite=True)
    check_folder(out, resume=True)
    with new_run(out, resume=True) as folder:
        assert (folder / CHECKPOINT / "step").read_text() == "state"
        assert (folder / SUMMARY).read_text() == "one"
    assert contents(out) == whole("one")


def test_a_run_that_cannot_be_continued_is_replaced_when_asked(out):
    with pytest.raises(KeyboardInterrupt), new_run(out) as folder:
        keep_checkpoint(folder)
        raise KeyboardInterrupt
    with new_run(out, overwrite=True) as folder:
        assert not (folder / CHECKPOINT).exists()
        fill(folder, "two")
    assert contents(out) == whole("two")


def test_a_run_that_diverged_is_not_kept_for_it_would_do_so_again(out):
    with pytest.raises(TrainingDivergedError), new_run(out) as folder:
        keep_checkpoint(folder)
        raise TrainingDivergedError
    assert not out.exists()


def test_an_old_run_is_there_until_the_new_one_is_whole(out):
    write(out, "one")
    with pytest.raises(RuntimeError), new_run(out, overwrite=True) as folder:
        fill(folder, "two")
        assert contents(out).items() >= whole("one").items()
        raise RuntimeError
    assert contents(out) == whole("one")


class Kills:
    """From a number of changes to the file system on, nothing has an effect any more: as if the process were killed."""

    CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")

    def __init__(self):
        self.left = None

    def __call__(self, event, arguments):
        if self.left is None or not (event in self.CHANGES or (event == "open" and arguments[2] & os.O_ACCMODE)):
            return
        self.left -= 1
        if self.left < 0:
            raise KilledError


KILLS = Kills()
sys.addaudithook(KILLS)


def replace_until_killed(out, count):
    """Put a second run in the place of the first; False where the process lived through it."""
    try:
        with new_run(out, overwrite=True) as folder:
            fill(folder, "two")
            keep_checkpoint(folder)
            KILLS.left = count
    except KilledError:
        return True
    finally:
        KILLS.left = None
    return False


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}], ids=str)
def test_whenever_it_is_killed_there_is_one_whole_run_or_a_way_to_it(out, how, monkeypatch):
    """At every single change of the file system between the last byte of the new run and the end."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a hundred runs are waited for
    found = []
    for count in range(100):
        shutil.rmtree(out.parent, ignore_errors=True)
        write(out, "one", optional=True)
        was_killed = replace_until_killed(out, count)
        if room.is_finished(out):
            files = {path.read_text() for path in out.iterdir() if path.is_file() and path.name != LOCK}
            assert files in ({"one"}, {"two"}), "no mixture of two runs may pass as one"
        check_folder(out, **how)
        found.append("unfinished" if room.is_unfinished(out) else (out / SUMMARY).read_text())
        if found[-1] == "unfinished":
            assert room.can_continue(out)
            assert contents(out).items() >= whole("one", optional=True).items()
        else:
            assert {name: text for name, text in contents(out).items() if name != LOCK} == whole("two")
        if not was_killed:
            break
    assert not was_killed
    assert found == sorted(found, reverse=True), "first the old run and what can be continued, then the new one"
    assert len(found) > len(CONTENTS), "as many kills as there are moves, and more"


def test_one_writer_at_a_time(out):
    with new_run(out) as folder:
        fill(folder, "one")
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="another process is writing"):
                check_folder(out, **how)
            with pytest.raises(InputError, match="another process is writing"), new_run(out, **how):
                pytest.fail("two writers")
    assert contents(out) == whole("one")


HOLDER = """
import os, signal, sys
from pathlib import Path
from ebomlc.run_folder import new_run
with new_run(Path(sys.argv[1])) as folder:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "step").write_text("state")
    print("ready", flush=True)
    signal.pause()
"""


def test_the_lock_of_a_dead_process_is_no_obstacle(out):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match="another process"):
            check_folder(out, resume=True)
        process.kill()
    assert (out / LOCK).exists()
    check_folder(out, resume=True)
    with new_run(out, resume=True) as folder:
        fill(folder, "one")
    assert contents(out) == whole("one")


def test_a_lock_that_is_held_elsewhere_stays(out):
    out.mkdir(parents=True)
    with FileLock(out / LOCK), pytest.raises(InputError, match="another process"), new_run(out):
        pytest.fail("two writers")
    assert (out / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_disk_that_takes_no_more_is_said_so_and_nothing_is_lost(out, number, is_kept):
    write(out, "one")
    with pytest.raises(InputError, match=os.strerror(number)) as error, new_run(out, overwrite=True) as folder:
        if is_kept:
            keep_checkpoint(folder)
        raise OSError(number, os.strerror(number))
    assert ("--resume" in str(error.value)) == is_kept
    assert "\n" not in str(error.value)
    assert contents(out).items() >= whole("one").items()
    assert room.is_unfinished(out) == is_kept


def test_a_folder_that_cannot_be_made_is_said_so(out, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=rf"{re.escape(str(out))}: cannot be written: Permission denied"), new_run(out):
        pytest.fail("it was made")


def test_a_folder_that_is_removed_meanwhile_is_said_so(out):
    with pytest.raises(InputError, match="was removed"), new_run(out) as folder:
        shutil.rmtree(out)
        (folder / SUMMARY).write_text("one")
    assert not out.exists()
    with pytest.raises(InputError, match="was removed"), new_run(out) as folder:
        fill(folder, "one")
        (folder / SUMMARY).unlink()
    assert not out.exists()


def test_errors_about_something_else_stay_what_they_are(out, tmp_path):
    with pytest.raises(FileNotFoundError), new_run(out):
        (tmp_path / "photo.png").read_bytes()
    with pytest.raises(BrokenPipeError), new_run(out):
        raise BrokenPipeError(errno.EPIPE, "no reader")


def test_what_is_no_run_is_not_touched(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for how in ({}, {"resume": True}, {"overwrite": True}):
        for path, said in ((file, "is a file"), (folder, "holds no run"), (file / "run", "is a file")):
            with pytest.raises(InputError, match=said), warnings.catch_warnings():
                check_folder(path, **how)
                write(path, "one", **how)
    assert contents(tmp_path) == {"file": "mine", "folder/mine": "mine"}
    with pytest.raises(InputError, match="exclude each other"):
        check_folder(folder, overwrite=True, resume=True)
