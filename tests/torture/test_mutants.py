"""Small faults put into the mathematics one by one, by mutmut: nearly each of them must make a test fail.

All in a copy; seven minutes on one busy core. Where EBOMLC_MUTANTS names a folder, the copy is kept there, and a run
that was broken off goes on. Remove the folder when a test has changed: mutmut looks at the source alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="mutmut needs os.fork"),
]

ROOT = Path(__file__).parents[2]
ROOMS = {"bilevel": "ebomlc.bilevel.", "labels/trust.py": "ebomlc.labels.trust."}
NOTICED = {"killed", "timeout", "segfault"}  # a test failed, or never ended, or torch crashed on what it was given
ENOUGH = 0.85


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Source, tests and settings, decorators applied below the functions that mutmut would pass over for them."""
    asked = os.environ.get("EBOMLC_MUTANTS")
    folder = Path(asked).resolve() if asked else tmp_path_factory.mktemp("mutants")
    for name in ("src", "tests"):
        shutil.copytree(
            ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "releases")
        )
    shutil.copy2(ROOT / "pyproject.toml", folder)
    for path in folder.glob("src/ebomlc/bilevel/*.py"):
        path.write_text(with_decorators_below(path.read_text()))
    return folder


@pytest.fixture(scope="module")
def verdicts(copy):
    """What became of each mutant, by its name."""
    done = mutmut(copy, "run")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = mutmut(copy, "results", "--all", "true").stdout.splitlines()
    return dict(line.strip().split(": ") for line in lines)


def mutmut(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=3600,
    )


def with_decorators_below(source):
    """``f = decorator(f)`` after a function instead of ``@decorator`` before it.

    Not static methods, which mutmut knows, and not what is cached: it forks after a run of the tests, when nobody calls
    that again.
    """
    import libcst as cst

    class Mover(cst.CSTTransformer):
        def leave_FunctionDef(self, original_node, updated_node):  # noqa: N802 - libcst's name
            name = updated_node.name.value
            decorators = [cst.Module([]).code_for_node(one.decorator) for one in updated_node.decorators]
            if not decorators or {"cache", "staticmethod"} & {*decorators}:
                return updated_node
            call = "(".join([*decorators, name]) + ")" * len(decorators)
            bare = updated_node.with_changes(decorators=[])
            return cst.FlattenSentinel([bare, cst.parse_statement(f"{name} = {call}")])

    return cst.parse_module(source).visit(Mover()).code


def test_a_decorator_moves_below_its_function():
    source = "class A:\n    @no_grad()\n    @lock\n    def f(self):\n        pass\n\n@cache\ndef g(): pass\n"
    expected = "class A:\n    def f(self):\n        pass\n    f = no_grad()(lock(f))\n\n@cache\ndef g(): pass\n"
    assert with_decorators_below(source) == expected


@pytest.mark.parametrize("room", ROOMS)
def test_nearly_every_mutant_is_noticed(room, verdicts, copy):
    found = {name: verdict for name, verdict in verdicts.items() if name.startswith(ROOMS[room])}
    left = [name for name, verdict in found.items() if verdict not in NOTICED]
    print(f"{room}: {len(found)} mutants, {len(left)} survivors; {dict(Counter(found.values()))}")
    for name in left:
        print(mutmut(copy, "show", name).stdout)
    assert len(found) > 300
    assert 1 - len(left) / len(found) >= ENOUGH
