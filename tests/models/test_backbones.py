"""Main models: sizes, shortcuts, standardised pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ebomlc.config import ModelConfig
from ebomlc.errors import InputError
from ebomlc.models import MODELS, InputShape, build_model, choose_model
from ebomlc.models.backbones import ResidualBlock, StandardisePixels

COLOUR = InputShape((3, 32, 32), (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
GREY = InputShape((1, 28, 28), (0.3,), (0.3,))
FEATURES = InputShape((12,))


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]
)
def test_resnets_have_the_published_sizes(name, millions):
    model = build_model(ModelConfig(name), COLOUR, 10)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    assert model.feature_dim == 64


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inputs", [COLOUR, GREY])
def test_features_and_head_make_the_logits(name, inputs):
    model = build_model(ModelConfig(name), inputs, 7)
    images = torch.randint(0, 256, (4, *inputs.shape), dtype=torch.uint8)
    output = model(images)
    assert output.features.shape == (4, model.feature_dim)
    assert torch.equal(output.logits, model.head(output.features))


def test_mlp_without_hidden_layers_is_linear():
    model = build_model(ModelConfig("mlp", hidden=()), FEATURES, 3)
    x = torch.randn(4, 12)
    torch.testing.assert_close(model(x).logits, F.linear(x, model.head.weight, model.head.bias))


def test_pixels_get_mean_zero_and_deviation_one():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    scaled = images.float() / 255
    layer = StandardisePixels(scaled.mean((0, 2, 3)).tolist(), scaled.std((0, 2, 3)).tolist())
    out = layer(images)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_widening_shortcut_thins_and_pads_without_parameters():
    block = ResidualBlock(4, 8, 2).eval()
    for module in (block.norm2,):
        torch.nn.init.zeros_(module.weight)  # silences the convolutions: only the shortcut is left
    maps = torch.rand(2, 4, 6, 6)
    out = block(maps)
    assert torch.equal(out[:, 2:6], maps[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize(("inputs", "expected"), [(FEATURES, "mlp"), (GREY, "cnn"), (COLOUR, "resnet20")])
def test_auto_goes_by_the_inputs(inputs, expected):
    assert choose_model("auto", inputs) == expected


def test_image_model_on_features_is_refused():
    with pytest.raises(InputError, match="use mlp"):
        choose_model("resnet20", FEATURES)


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean 'resnet20'"):
        choose_model("resnet-20", COLOUR)
