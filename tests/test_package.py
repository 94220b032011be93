import importlib
import pkgutil
import subprocess
import sys

import pytest

import ebomlc

HEAVY = ("torch", "pandas", "sklearn", "scipy", "pyarrow")
PACKAGES = ["ebomlc", *(m.name for m in pkgutil.walk_packages(ebomlc.__path__, "ebomlc.") if m.ispkg)]


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import ebomlc", "import ebomlc.cli.main", "import ebomlc.errors, ebomlc.config, ebomlc.records"]
)
def test_importing_the_package_costs_nothing(statement):
    assert not loaded_after(statement).intersection(HEAVY)


def test_reading_data_needs_no_torch():
    assert "torch" not in loaded_after("import ebomlc.data.splits, ebomlc.data.readers, ebomlc.data.pool")


def test_looking_at_a_run_needs_no_torch():
    assert "torch" not in loaded_after("import ebomlc.findings, ebomlc.exports, ebomlc.review.server")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_exists(name):
    package = importlib.import_module(name)
    assert package.__doc__
    for public in getattr(package, "__all__", ()):
        assert getattr(package, public) is not None


def test_fit_is_there_on_first_use():
    from ebomlc.run import fit

    assert ebomlc.fit is fit


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = ebomlc.fitt
