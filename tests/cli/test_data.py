"""``ebomlc data`` as a user runs it, with a web server of this process in place of the publishers'."""

import shlex

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ebomlc.cli.data import data, next_command
from ebomlc.data import official
from ebomlc.data.readers import is_built_in
from ebomlc.errors import InputError
from tests.data.test_download import Site, go_direct
from tests.data.test_official import cifar100_part, expect, publish, python2_file, tar_of

app = typer.Typer()
app.command()(data)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def site(monkeypatch):
    """A server with a small CIFAR-100 and a small CIFAR-10 in the official formats."""
    go_direct(monkeypatch)
    rng = np.random.default_rng(0)
    cifar10 = {
        name: python2_file(labels=range(10), data=rng.integers(0, 256, (10, 3072), np.uint8))
        for name in official.CIFAR10_MD5
    }
    cifar100 = {name: python2_file(**cifar100_part(rng, 100)) for name in ("train", "test")}
    cifar100["meta"] = python2_file(fine_label_names=[f"class_{k}".encode() for k in range(100)])
    expect(monkeypatch, "CIFAR10_MD5", cifar10)
    expect(monkeypatch, "CIFAR100_MD5", cifar100)
    files = {
        "cifar-10-python.tar.gz": tar_of(official.CIFAR10_FOLDER, cifar10),
        "cifar-100-python.tar.gz": tar_of(official.CIFAR100_FOLDER, cifar100),
    }
    with Site(files=files) as site:
        for name, (file, content) in zip(("cifar10", "cifar100"), files.items(), strict=True):
            publish(monkeypatch, site.root, name, {file: content})
        yield site


def test_a_set_is_fetched_and_what_comes_next_is_said(site, tmp_path):
    folder = tmp_path / "my data"
    result = run("cifar100", "--data-dir", folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"cifar100 is in {folder / 'cifar-100-python'}, and its checksums are right",
        f"next: ebomlc fit cifar100 --data-dir '{folder}' --noise symmetric:0.2 --n-trusted 1000 --out cifar100-run",
    ]
    assert len(official.load_cifar100(folder).class_names) == 100


def test_a_second_time_nothing_is_fetched(site, tmp_path):
    first, second = run("cifar100", "--data-dir", tmp_path), run("cifar100", "--data-dir", tmp_path)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == second.stdout
    assert len(site.ranges) == 1


def test_without_an_option_the_folder_is_data(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("cifar100").exit_code == 0
    assert (tmp_path / "data" / official.CIFAR100_FOLDER / "meta").is_file()


def test_where_the_human_labels_come_from_is_said_until_they_are_there(site, tmp_path):
    result = run("cifar10", "--data-dir", tmp_path)
    assert result.exit_code == 0
    assert "https://github.com/UCSC-REAL/cifar-10-100n" in result.stdout
    clean = np.tile(np.arange(10), 5)
    arrays = dict.fromkeys(official.CIFAR10_HUMAN_KEYS.values(), (clean + 1) % 10)
    np.savez(tmp_path / official.CIFAR10_HUMAN_FILE, clean_label=clean, **arrays)
    assert "UCSC" not in run("cifar10", "--data-dir", tmp_path).stdout
    assert list(official.load_cifar10(tmp_path).human) == list(official.CIFAR10_HUMAN_KEYS)


def test_digits_need_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("digits")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "digits come with scikit-learn: nothing to get",
        "next: ebomlc fit digits --noise symmetric:0.2 --n-trusted 100 --out digits-run",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(official.REMOTE_FILES))
def test_the_next_command_is_one(name, tmp_path):
    """Its options are those of `ebomlc fit`, and its set is built in."""
    from ebomlc.cli.main import app as ebomlc

    words = shlex.split(next_command(name, tmp_path / "it's here"))
    assert words[:2] == ["ebomlc", "fit"]
    assert is_built_in(words[2])
    fit = typer.main.get_command(ebomlc).commands["fit"]
    with fit.make_context("fit", words[2:]) as context:
        assert context.params["noise"] == "symmetric:0.2"
        assert context.params["data_dir"] == (None if name == "digits" else tmp_path / "it's here")


def test_a_breakdown_is_one_error(tmp_path, monkeypatch, site):
    site.files = {"another.tar.gz": b""}
    result = run("cifar10", "--data-dir", tmp_path)
    assert isinstance(result.exception, InputError)
    assert "answers 404" in str(result.exception)
    assert f"put it at {tmp_path / 'cifar-10-python.tar.gz'}" in str(result.exception)


def test_an_unknown_set(tmp_path):
    result = run("cifar1O", "--data-dir", tmp_path / "new")
    assert isinstance(result.exception, InputError)
    assert "did you mean 'cifar10'? known: cifar10, cifar100, digits, fashion-mnist" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_help_names_the_sets():
    text = " ".join(run("--help").stdout.split())
    for name in official.REMOTE_FILES:
        assert name in text
