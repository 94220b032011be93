"""Suites are those of the plan, cells become configurations, and what is missing is said before anything runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ebomlc.bench import suite as room
from ebomlc.bench.suite import SUITES, Cell, Condition, Contender, choose, find_suite, read_tuning
from ebomlc.config import TrainingConfig
from ebomlc.errors import InputError
from ebomlc.methods import METHODS

TUNED = Path(__file__).parents[2] / "results" / "tuned.toml"

SIZES = {
    "smoke": (1, {"mlp"}, 100, None, 30, 3),
    "desk-fashion": (4, {"cnn-tiny"}, 1000, 12_000, 40, 5),
    "desk-cifar": (3, {"resnet20"}, 1000, 12_000, 40, 3),
    "ablation": (2, {"cnn-tiny"}, 1000, 12_000, 40, 3),
    "pairs": (2, {"cnn-tiny"}, 1000, 12_000, 40, 5),
    "paper": (16, {"resnet32"}, 1000, None, 120, 3),
}


@pytest.mark.parametrize("name", SIZES)
def test_suites_have_the_sizes_of_the_plan(name):
    suite = find_suite(name)
    n, models, n_trusted, n_noisy, epochs, n_seeds = SIZES[name]
    assert len(suite.conditions) == n
    assert {condition.model for condition in suite.conditions} == models
    assert {condition.n_trusted for condition in suite.conditions} == {n_trusted}
    assert {condition.n_noisy for condition in suite.conditions} == {n_noisy}
    assert (suite.training.epochs, len(suite.seeds)) == (epochs, n_seeds)
    assert len(suite.cells) == n * len(suite.contenders) * n_seeds


def test_only_pairs_shows_the_given_labels_of_trusted_rows():
    for suite in SUITES.values():
        assert {condition.pairs for condition in suite.conditions} == {suite.name == "pairs"}


def test_desk_fashion_compares_every_method_on_the_four_noises():
    suite = find_suite("desk-fashion")
    assert {contender.method for contender in suite.contenders} == set(METHODS)
    assert {c.noise for c in suite.conditions} == {"uniform:0.6", "uniform:0.85", "flip:0.3", "instance:0.4"}


def test_the_ablation_takes_one_thing_away_at_a_time():
    own, tuned = METHODS["ebomlc"].settings(), tomllib.loads(TUNED.read_text())["ebomlc"]["settings"]
    contenders = find_suite("ablation").contenders
    settings = [dict(contender.settings) for contender in contenders if contender.method == "ebomlc"]
    assert settings[0] == {}
    wanted = ({"inner_steps": 5}, {"rho": 1.0}, {"barrier": "joint"}, {"barrier": "none"}, {"gap_gradient": "constant"})
    assert all(one in settings for one in wanted)
    for one in settings[1:]:
        assert len(one) == 1
        for name, value in one.items():
            assert value not in (getattr(own, name), tuned.get(name)), "the same run would go under two names"
    for name in ("rho", "xi", "delta"):
        assert sum(name in one for one in settings) >= 3
    names = [contender.name for contender in contenders]
    assert len(set(names)) == len(names)


def test_cells_come_cheapest_first_and_seed_by_seed():
    cells = find_suite("smoke").cells
    assert [(cell.contender.name, cell.seed) for cell in cells[:4]] == [
        ("trusted-only", 0), ("trusted-only", 1), ("trusted-only", 2), ("ce", 0),
    ]  # fmt: skip
    assert cells[-1].contender.name == "ebomlc"
    assert str(cells[0]) == "trusted-only, digits flip:0.4, 100 trusted, seed 0"


def test_a_cell_asks_for_what_it_says(tmp_path):
    cell = Cell(Condition("digits", "flip:0.3", "mlp", 50, n_noisy=200), Contender("ours", "ebomlc", {"rho": 0.7}), 4)
    tuning = {"ebomlc": {"settings": {"rho": 0.9, "xi": 2.0}, "training": {"lr": 0.05}}, "ce": {"training": {"lr": 1}}}
    config = cell.config(TrainingConfig(epochs=7), tuning, tmp_path)
    assert (config.data.noisy, config.data.noise, config.data.n_trusted, config.data.n_noisy) == (
        "digits", "flip:0.3", 50, 200,
    )  # fmt: skip
    assert config.data.data_dir == str(tmp_path)
    assert (config.seed, config.training.epochs, config.training.lr) == (4, 7, 0.05)
    assert (config.method.settings["rho"], config.method.settings["xi"]) == (0.7, 2.0), "its own come before the tuned"
    assert config.method.settings["delta"] == METHODS["ebomlc"].settings().delta, "defaults are written out"


def test_other_methods_and_seeds_may_be_chosen():
    chosen = choose(find_suite("smoke"), ["oracle", "ce", "ce"], [5], None, {})
    assert [contender.name for contender in chosen.contenders] == ["oracle", "ce"]
    assert chosen.seeds == (5,)
    variant = choose(find_suite("ablation"), ["ebomlc rho=1.0"], None, None, {}).contenders[0]
    assert (variant.method, dict(variant.settings)) == ("ebomlc", {"rho": 1.0})


def test_some_of_the_noise_may_be_chosen():
    suite = find_suite("desk-fashion")
    chosen = choose(suite, ["ce"], [0], None, {}, ["flip:0.3", "uniform:0.6"])
    assert {cell.condition.noise for cell in chosen.cells} == {"flip:0.3", "uniform:0.6"}
    assert choose(suite, ["ce"], [0], None, {}).conditions == suite.conditions
    said = refusal(suite, ["ce"], [0], None, {}, ["flip:0.4"])
    assert "unknown noise 'flip:0.4': did you mean 'flip:0.3'?" in said


def refusal(*arguments) -> str:
    with pytest.raises(InputError) as caught:
        choose(*arguments)
    return str(caught.value)


def test_everything_that_is_missing_is_said_at_once(tmp_path):
    said = refusal(find_suite("desk-cifar"), ["ebmlc", "ce", "glk"], [0], tmp_path, {"mcl": {}})
    assert said.startswith("suite desk-cifar cannot run, and nothing was started: ")
    for part in ("'ebmlc': did you mean 'ebomlc'?", "'glk': did you mean 'glc'?", "'mcl': did you mean 'mlc'?"):
        assert part in said
    assert f"cifar10 is not in {tmp_path}" in said
    assert "\n" not in said


def test_human_labels_that_are_not_there_are_missing(monkeypatch):
    digits = room.BUILT_IN["digits"]
    monkeypatch.setitem(room.BUILT_IN, "cifar10", digits)
    assert "human labels, CIFAR-10N, are not fetched" in refusal(find_suite("desk-cifar"), ["ce"], None, None, {})


def test_settings_that_a_method_does_not_have_are_missing():
    tuning = {"glc": {"settings": {"first_phse": 0.5}}, "ce": {"training": {"lr": -1.0}}, "mlc": {"setings": {}}}
    said = refusal(find_suite("smoke"), None, None, None, tuning)
    for part in ("did you mean 'first_phase'?", "training.lr is -1.0", "did you mean 'settings'?"):
        assert part in said
    assert "--seed is -1" in refusal(find_suite("smoke"), None, [-1], None, {})


def test_an_unknown_suite_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown suite 'smok': did you mean 'smoke'"):
        find_suite("smok")


@pytest.mark.parametrize(
    ("content", "message"),
    [("a = = b", "not a TOML file"), ("ce = 3", "ce must hold tables"), ("[ce]\nlr = 1", "ce must hold tables")],
)
def test_a_broken_file_of_tuned_settings_is_refused(tmp_path, content, message):
    path = tmp_path / "tuned.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_tuning(path)


def test_tuned_settings_are_read(tmp_path):
    path = tmp_path / "tuned.toml"
    path.write_text("[glc.training]\nlr = 0.05\n")
    assert read_tuning(path) == {"glc": {"training": {"lr": 0.05}}}
    assert read_tuning(None) == {}
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_tuning(Path(tmp_path / "gone.toml"))
