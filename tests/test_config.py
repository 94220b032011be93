import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebomlc.config import (
    AUTO_EPOCHS,
    AUTO_STEPS,
    ENOUGH_HELDOUT,
    DataConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    automatic_epochs,
    automatic_heldout_fraction,
    build,
    read_toml,
    to_dict,
    to_toml,
)
from ebomlc.errors import InputError
from ebomlc.methods import METHODS

WHERE = "the configuration"
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)

CONFIGS = st.builds(
    RunConfig,
    data=st.builds(
        DataConfig,
        noisy=NAMES,
        n_trusted=st.none() | st.integers(1, 10**6),
        pairs=st.booleans(),
        test=st.none() | NAMES,
        features=st.lists(NAMES.filter(lambda name: name != "label"), unique=True, max_size=3).map(tuple),
        heldout_fraction=st.none() | st.floats(0, 0.5),
    ),
    model=st.builds(ModelConfig, hidden=st.lists(st.integers(1, 999), max_size=3).map(tuple)),
    method=st.builds(MethodConfig, name=NAMES, settings=st.dictionaries(NAMES, st.integers(0, 9) | st.floats(0, 1))),
    training=st.builds(
        TrainingConfig,
        epochs=st.none() | st.integers(1, 99),
        lr=st.floats(1e-9, 10),
        schedule=st.sampled_from(["cosine", "step", "constant"]),
        augment=st.none() | st.booleans(),
    ),
    seed=st.integers(0, 2**62),
)


@settings(deadline=None)
@given(CONFIGS)
def test_a_configuration_survives_toml(config):
    assert build(RunConfig, tomllib.loads(to_toml(config)), WHERE) == config


def test_a_written_configuration_is_read_back(tmp_path):
    config = RunConfig(DataConfig(noisy="wörter.csv", features=("a b", "ü")), training=TrainingConfig(epochs=3), seed=7)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert build(RunConfig, read_toml(path), WHERE) == config


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_of_every_method_survive_toml(name):
    entry = METHODS[name]
    settings = entry.parse_settings({})
    config = RunConfig(DataConfig(noisy="digits"), method=MethodConfig(name, to_dict(settings)))
    stored = build(RunConfig, tomllib.loads(to_toml(config)), WHERE)
    assert entry.parse_settings(stored.method.settings) == settings


def test_what_is_left_out_takes_its_default():
    config = build(RunConfig, {"data": {"noisy": "digits"}}, WHERE)
    assert config == RunConfig(DataConfig(noisy="digits"))
    assert "n_trusted" not in to_dict(config)["data"]


def test_whole_numbers_are_taken_for_fractions_but_not_the_other_way_round():
    assert build(TrainingConfig, {"lr": 1}, WHERE).lr == 1.0
    with pytest.raises(InputError, match=r"epochs is 2\.0: must be of type int"):
        build(TrainingConfig, {"epochs": 2.0}, WHERE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trianing": {}}, "the configuration: unknown key 'trianing': did you mean 'training'?"),
        ({"training": {"epohcs": 3}}, "[training] of the configuration: unknown key 'epohcs': did you mean 'epochs'?"),
        ({"training": 3}, "the configuration: training is 3: must be a table"),
        ({"method": {"settings": 3}}, "[method] of the configuration: settings is 3: must be a table"),
        ({"training": {"lr": "fast"}}, "[training] of the configuration: lr is 'fast': must be of type float"),
        ({"training": {"epochs": True}}, "epochs is True: must be of type int"),
        ({"training": {"lr": False}}, "lr is False: must be of type float"),
        ({"training": {"nesterov": 1}}, "nesterov is 1: must be of type bool"),
        ({"data": {"features": "x"}}, "[data] of the configuration: features is 'x': must be a list"),
        ({"data": {"features": ["x", 3]}}, "features is 3: must be of type str"),
        ({"model": {"hidden": [1.5]}}, "hidden is 1.5: must be of type int"),
        ({"seed": "0"}, "the configuration: seed is '0': must be of type int"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_table(values, message, tmp_path):
    with pytest.raises(InputError) as caught:
        build(RunConfig, values, WHERE)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataConfig, {"noisy": ""}, "no noisy set"),
        (DataConfig, {"trusted": "t.csv", "n_trusted": 5}, "--trusted and --n-trusted exclude each other"),
        (DataConfig, {"n_trusted": 0}, "--n-trusted is 0"),
        (DataConfig, {"text": ("a",), "image": "b"}, "--image excludes --text and --features"),
        (DataConfig, {"features": ("a", "b", "a")}, "column 'a' is named twice"),
        (DataConfig, {"features": ("label",)}, "column 'label' is the label"),
        (DataConfig, {"text": ("label",)}, "column 'label' is the label"),
        (DataConfig, {"id": "label"}, "both name column 'label'"),
        (DataConfig, {"heldout_fraction": 0.51}, "data.heldout_fraction is 0.51"),
        (ModelConfig, {"hidden": (0,)}, "model.hidden is [0]"),
        (ModelConfig, {"dropout": 1.0}, "model.dropout is 1.0"),
        (TrainingConfig, {"epochs": 0}, "--epochs is 0"),
        (TrainingConfig, {"batch_size": 1}, "training.batch_size is 1"),
        (TrainingConfig, {"trusted_batch_size": 1}, "training.trusted_batch_size is 1"),
        (TrainingConfig, {"lr": 0.0}, "training.lr is 0.0"),
        (TrainingConfig, {"lr": float("nan")}, "training.lr is nan"),
        (TrainingConfig, {"lr": float("inf")}, "training.lr is inf"),
        (TrainingConfig, {"lr_floor": 1.1}, "training.lr_floor is 1.1"),
        (TrainingConfig, {"momentum": 1.0}, "training.momentum is 1.0"),
        (TrainingConfig, {"momentum": 0.0, "nesterov": True}, "training.nesterov needs"),
        (TrainingConfig, {"weight_decay": -1e-9}, "training.weight_decay is -1e-09"),
        (TrainingConfig, {"optimizer": "sdg"}, "unknown optimizer 'sdg': did you mean 'sgd'?"),
        (TrainingConfig, {"schedule": "cosin"}, "did you mean 'cosine'?"),
        (TrainingConfig, {"device": "tpu"}, "unknown device 'tpu'"),
        (TrainingConfig, {"precision": "float23"}, "did you mean 'float32'?"),
        (RunConfig, {"data": DataConfig(noisy="digits"), "seed": -1}, "--seed is -1"),
    ],
)
def test_what_is_out_of_range_is_refused(kind, values, message):
    required = {"noisy": "digits"} if kind is DataConfig else {}
    with pytest.raises(InputError) as caught:
        kind(**{**required, **values})
    assert message in str(caught.value)


def test_limits_are_allowed():
    DataConfig(noisy="digits", n_trusted=1, heldout_fraction=0.5)
    ModelConfig(hidden=(), dropout=0.0)
    TrainingConfig(epochs=1, batch_size=2, trusted_batch_size=2, lr_floor=0.0, momentum=0.0, weight_decay=0.0)


def test_a_configuration_cannot_be_changed():
    config = DataConfig(noisy="digits")
    with pytest.raises(AttributeError):
        config.noisy = "cifar10"  # type: ignore[misc]
    assert replace(config, noisy="cifar10").noisy == "cifar10"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = = b", "not a TOML file"),
        (b"\x89PNG", "not a TOML file"),
        (b"[training]\nepohcs = 3", "unknown key 'epohcs': did you mean 'epochs'?"),
        (b"training = 3", "training is 3: must be a table"),
        (b"[training]\nlr = 'a'", "lr is 'a': must be of type float"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")


def test_a_file_may_say_only_part(tmp_path):
    path = tmp_path / "part.toml"
    path.write_text("[training]\nlr = 1\n")
    assert read_toml(path) == {"training": {"lr": 1.0}}


def test_epochs_follow_from_the_size_of_the_set():
    low, high = AUTO_EPOCHS
    assert automatic_epochs(1) == high
    assert automatic_epochs(10**6) == low
    assert automatic_epochs(AUTO_STEPS // (low + 5)) == low + 5


def test_a_tenth_is_held_out_only_where_it_can_choose_the_epoch():
    assert automatic_heldout_fraction(10 * ENOUGH_HELDOUT) == 0.1
    assert automatic_heldout_fraction(10 * ENOUGH_HELDOUT - 1) == 0.05
