"""Names of models: which is taken and why, and a user's own network."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import ebomlc.models
from ebomlc.config import ModelConfig
from ebomlc.errors import InputError
from ebomlc.models import MODELS, InputShape, choose_model, explain_choice, is_image_model, model_from_module

GREY = InputShape((1, 8, 8), (0.3,), (0.4,))
DIGITS = torch.tensor(load_digits().images[:6] * 15, dtype=torch.uint8)[:, None]


def test_public_names_are_there():
    assert all(hasattr(ebomlc.models, name) for name in ebomlc.models.__all__)
    assert sorted(ebomlc.models.__all__) == sorted(set(ebomlc.models.__all__))


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("auto", (65,), "a row is 65 numbers"),
        ("auto", (1, 28, 20), "the rows are grey images of 28 x 20"),
        ("auto", (3, 32, 32), "the rows are colour images of 32 x 32"),
        ("mlp", (65,), "asked for"),
    ],
)
def test_choice_is_explained(name, shape, reason):
    inputs = InputShape(shape, (0.5,) * shape[0], (0.2,) * shape[0])
    assert explain_choice(name, inputs) == reason


def test_image_models_are_told_from_others():
    assert [name for name in MODELS if not is_image_model(name)] == ["mlp"]
    assert is_image_model("timm:resnet18")
    assert not is_image_model("auto")


def test_named_network_on_features_is_refused_before_its_package_is_loaded():
    with pytest.raises(InputError, match="model 'timm:nosuch' needs images, but a row here is 12 numbers: use mlp"):
        choose_model("timm:nosuch", InputShape((12,)))


def test_unknown_name_shows_how_packages_are_named():
    with pytest.raises(InputError, match=r"did you mean 'timm:NAME'.*torchvision:NAME"):
        choose_model("tim:NAME", GREY)


def test_own_network_gets_standardised_pixels():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model = model_from_module(module, GREY, 10, DIGITS)
    expected = module((DIGITS / 255 - 0.3) / 0.4)
    torch.testing.assert_close(model(DIGITS).logits, expected)
    assert ModelConfig().head is None


def test_own_network_gets_features_as_they_are():
    rows = DIGITS.flatten(1).float()
    module = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))
    model = model_from_module(module, InputShape((64,)), 10, rows, head="2")
    torch.testing.assert_close(model(rows).logits, module(rows))


def test_each_call_gives_the_weights_of_the_network_anew():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    first, second = (model_from_module(module, GREY, 10, DIGITS) for _ in range(2))
    with torch.no_grad():
        first.head.weight.zero_()
    assert torch.equal(second.head.weight, module[1].weight)


def test_unusable_network_is_refused_with_every_problem():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 7).requires_grad_(False))
    with pytest.raises(InputError, match=r"2 problems(.|\n)*requires_grad(.|\n)*nn.Linear\(64, 10\)"):
        model_from_module(module, GREY, 10, DIGITS)
