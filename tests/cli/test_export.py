"""``ebomlc export`` as it is typed."""

import sys

import pandas as pd
import pytest

from ebomlc import fit
from ebomlc.cli.main import main


@pytest.fixture
def ebomlc(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder with a run: exit code, what it printed, what it complained about."""
    monkeypatch.chdir(tmp_path)
    fit("digits", noise="flip:0.4", n_trusted=50, method="trusted-only", epochs=1, out="run")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebomlc", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err  # type: ignore[return-value]

    return run


def test_what_was_written_is_said_and_not_written_over(ebomlc):
    code, printed, complaints = ebomlc("export", "run", "--to", "csv", "--out", "labels.csv")
    assert (code, complaints) == (0, "")
    assert printed.splitlines()[0] == "1,347 rows written to labels.csv"
    assert "50 trusted" in printed
    assert len(pd.read_csv("labels.csv")) == 1347
    code, _, complaints = ebomlc("export", "run", "--to", "csv", "--out", "labels.csv")
    assert code == 2
    assert complaints.count("\n") == 1
    assert "--overwrite" in complaints
    assert ebomlc("export", "run", "--to", "csv", "--out", "labels.csv", "--overwrite")[0] == 0


def test_a_format_that_is_not_known_gets_the_nearest_one(ebomlc):
    code, _, complaints = ebomlc("export", "run", "--to", "labelstudio")
    assert code == 2
    assert "did you mean 'label-studio'?" in complaints
