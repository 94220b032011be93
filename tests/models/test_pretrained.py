"""Networks of timm and torchvision: names, weights that are or are not at hand, one training step."""

from __future__ import annotations

import copy
import importlib
import pathlib
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from ebomlc.bilevel import SGD
from ebomlc.config import ModelConfig
from ebomlc.errors import DataWarning, InputError
from ebomlc.methods import Setup, StepContext, find_method
from ebomlc.models import InputShape, build_model, check_forward_mode, pretrained
from ebomlc.models.pretrained import Resize, build_named, describe, is_named
from ebomlc.records import NO_LABEL, Batch

GREY = InputShape((1, 8, 8), (0.3,), (0.4,))
COLOUR = InputShape((3, 8, 8), (0.3,) * 3, (0.4,) * 3)
DIGITS = torch.tensor(load_digits().images[:14] * 15, dtype=torch.uint8)[:, None]
LABELS = torch.tensor(load_digits().target[:14])

SMALL = "torchvision:shufflenet_v2_x0_5"
TRAINED = [
    "timm:resnet18",
    "timm:mobilenetv3_small_100",
    "timm:test_vit",
    pytest.param("timm:vit_tiny_patch16_224", marks=pytest.mark.slow),
    "torchvision:resnet18",
    SMALL,
]
random_weights = pytest.mark.filterwarnings("ignore:no pre-trained weights:ebomlc.errors.DataWarning")


@pytest.fixture(scope="session", autouse=True)
def packages():
    """Both packages; where torchvision was built for another torch, with the operators that its import asks for.

    These belong to detection: no network here calls them.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(8):
        try:
            importlib.import_module("torchvision")
        except ModuleNotFoundError:
            pytest.skip("torchvision is not installed")
        except RuntimeError as error:
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            _, found, rest = str(error).partition("torchvision::")
            if not found:
                pytest.skip(f"torchvision does not load: {error}")
            library.define(f"{rest.split()[0]}(Tensor stand_in) -> Tensor")
        else:
            pytest.importorskip("timm", reason="timm is not installed")
            return library  # the operators live as long as this does
    pytest.skip("torchvision does not load")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, and empty caches of both packages; the server's answer can be set."""
    import huggingface_hub

    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    ask = pretrained._ask
    ask.cache_clear()
    yield tmp_path
    ask.cache_clear()


def put_timm_weights(folder: pathlib.Path, name: str, state: dict[str, torch.Tensor]) -> None:
    repository = folder / "hub" / f"models--{describe(name).weights.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    save_file(state, repository / "snapshots" / "abc" / "model.safetensors")


def torchvision_file(folder: pathlib.Path, name: str) -> pathlib.Path:
    import torchvision

    weights = torchvision.models.get_model_weights(name.partition(":")[2]).DEFAULT
    path = folder / "torch" / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    return path


@random_weights
def original(name: str) -> nn.Module:
    """The network as its authors train it."""
    return build_named(name, 1000, 3, pretrained=False)


def test_names_are_told_from_others():
    assert is_named("timm:resnet18")
    assert is_named("torchvision:nosuch")
    assert not is_named("resnet20")
    assert not is_named("timm")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm:resnet18", (8, 40)),
        ("timm:vit_tiny_patch16_224", (224, 224)),
        ("torchvision:resnet18", (8, 40)),
        ("torchvision:vgg11", (32, 40)),
        ("torchvision:vit_b_16", (224, 224)),
    ],
)
def test_images_keep_their_size_where_the_network_lets_them(name, size):
    description = describe(name)
    assert description.input_size(8, 40) == size
    assert str(description).startswith(f"{name.partition(':')[2]} of {name.partition(':')[0]} ")
    assert description.weights in str(description)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", "unknown model of timm 'resnet81': did you mean 'resnet18'"),
        ("timm:resnet18.a1_in2k", r"did you mean 'resnet18.a1_in1k'"),
        ("torchvision:resnet-18", "unknown model of torchvision 'resnet-18': did you mean 'resnet18'"),
        ("torchvision:", "unknown model of torchvision ''"),
        ("torchvison:resnet18", "did you mean 'torchvision'"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, message):
    with pytest.raises(InputError, match=message):
        describe(name)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'gone'", name="gone"),
            r"need the package gone: pip install 'ebomlc\[vis",
        ),
        (RuntimeError("operator torchvision::nms does not exist"), "does not match torch .*::nms.*--force-reinstall"),
        (OSError("libcudart.so.13: cannot open"), "does not match torch .*libcudart.*--index-url https://download"),
    ],
)
def test_packages_that_do_not_load_are_explained(package, error, message, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr(pretrained, "import_module", fail)
    with pytest.raises(InputError, match=message):
        build_model(ModelConfig(f"{package}:resnet18"), COLOUR, 4)


@pytest.mark.parametrize("name", ["timm:test_resnet", SMALL])
def test_without_network_it_starts_from_random_weights_at_once(name):
    started = time.monotonic()
    with pytest.warns(DataWarning, match=f"no pre-trained weights for {name} at hand .*no network.*random weights"):
        network = build_named(name, 5, 3)
    assert time.monotonic() - started < 5
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_no_weights_asked_for_none_missed():
    build_named("timm:test_resnet", 5, 3, pretrained=False)
    build_named(SMALL, 5, 3, pretrained=False)


def test_the_hub_is_not_asked_where_it_is_switched_off(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.warns(DataWarning, match="HF_HUB_OFFLINE is set"):
        build_named("timm:test_resnet", 5, 3)


def test_server_that_refuses_is_named(monkeypatch):
    def refuse(request, **_):
        raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", request.headers, None)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.warns(DataWarning, match=r"shufflenet.*\.pth answers 403 Forbidden"):
        build_named(SMALL, 5, 3)


@pytest.mark.parametrize("channels", [3, 1])
def test_cached_timm_weights_are_taken(channels, offline):
    source = original("timm:test_resnet")
    put_timm_weights(offline, "timm:test_resnet", source.state_dict())
    network = build_named("timm:test_resnet", 5, channels)
    assert torch.equal(network.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    first = source.conv1[0].weight
    torch.testing.assert_close(network.conv1[0].weight, first if channels == 3 else first.sum(1, keepdim=True))
    assert network.fc.out_features == 5


@pytest.mark.parametrize("channels", [3, 1, 4])
def test_cached_torchvision_weights_are_taken(channels, offline):
    source = original(SMALL)
    torch.save(source.state_dict(), torchvision_file(offline, SMALL))
    network = build_named(SMALL, 5, channels)
    assert torch.equal(network.conv5[0].weight, source.conv5[0].weight)
    assert torch.equal(network.conv5[1].running_var, source.conv5[1].running_var)
    # a grey image, told in any number of channels, is seen as it was in three
    grey = torch.rand(2, 1, 32, 32)
    seen, before = (net.conv1[0](grey.expand(-1, n, -1, -1)) for net, n in ((network, channels), (source, 3)))
    torch.testing.assert_close(seen, before, rtol=1e-4, atol=1e-5)
    assert network.fc.out_features == 5


def test_weights_are_downloaded_once_and_checked(offline, monkeypatch):
    source, asked = original(SMALL), []

    def download(url, path, hash_prefix, progress):
        asked.append((url, hash_prefix))
        torch.save(source.state_dict(), path)

    monkeypatch.setattr(pretrained, "_ask", lambda url: "")
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    networks = [build_named(SMALL, 5, 3) for _ in range(2)]
    assert all(torch.equal(network.conv5[0].weight, source.conv5[0].weight) for network in networks)
    ((url, prefix),) = asked
    assert url.endswith(f"-{prefix}.pth")
    assert int(prefix, 16) > 0


def test_download_that_breaks_off_leaves_random_weights(monkeypatch):
    def fail(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(pretrained, "_ask", lambda url: "")
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.warns(DataWarning, match=r"at hand \(timed out\)"):
        build_named(SMALL, 5, 3)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.warns(DataWarning, match=r"at hand \(timed out\)"):
        build_named("timm:test_resnet", 5, 3)


class Planted:
    """Would be run by an unpickler that is not restricted."""

    def __reduce__(self):
        return (pytest.fail, ("code from a weights file was run",))


@pytest.mark.parametrize("content", [b"no archive", {"fc.weight": Planted()}, {"fc.weight": torch.zeros(5, 7)}])
def test_weights_that_cannot_be_used_leave_random_ones(content, offline):
    path = torchvision_file(offline, SMALL)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.warns(DataWarning, match="no pre-trained weights for torchvision:shufflenet"):
        build_named(SMALL, 5, 3)


def test_old_names_of_densenet_are_understood():
    network, source = (build_named("torchvision:densenet121", 5, 3, pretrained=False) for _ in range(2))
    old = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        for key in source.state_dict()
        if "denselayer" in key
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    renamed = {
        key if "denselayer" not in key else key.replace("norm", "norm.").replace("conv", "conv."): value
        for key, value in source.state_dict().items()
    }
    assert old <= renamed.keys()
    assert pretrained._take_over(network, renamed)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in source.state_dict().items())


def test_resized_images_keep_their_mean():
    images = torch.rand(3, 2, 8, 8)
    resized = Resize((24, 16))(images)
    assert resized.shape == (3, 2, 24, 16)
    torch.testing.assert_close(resized.mean((2, 3)), images.mean((2, 3)), atol=0.03, rtol=0)


@random_weights
def test_network_without_linear_head_is_refused():
    message = r"model 'torchvision:squeezenet1_1': .*\n.*no nn.Linear makes the logits.*'classifier.3'"
    with pytest.raises(InputError, match=message):
        build_model(ModelConfig("torchvision:squeezenet1_1"), COLOUR, 4)


@random_weights
def test_network_that_cannot_be_built_is_refused(monkeypatch):
    import timm

    def refuse(*_, **__):
        raise AssertionError("in_chans must be 3")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(InputError, match=r"'timm:test_resnet' cannot be built for images of 1 channels.*must be 3"):
        build_model(ModelConfig("timm:test_resnet"), GREY, 4)


@random_weights
@pytest.mark.parametrize("name", TRAINED)
def test_two_steps_train_the_whole_network(name):
    torch.manual_seed(0)
    setup = Setup(lambda: build_model(ModelConfig(name), GREY, 10), 10, SGD(weight_decay=0.0))
    noisy, trusted = _batches()
    entry = find_method("ebomlc")
    method = entry.create(entry.parse_settings({}), setup)
    method.model.train()
    before = copy.deepcopy(method.model.state_dict())
    for _ in range(2):  # a residual branch that starts at zero moves in the second
        report = method.step(noisy, trusted, StepContext(0.05, 0.0))
    assert bool(torch.isfinite(report.loss))
    assert [key for key, p in method.model.named_parameters() if torch.equal(p, before[key])] == []


@random_weights
@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_100", "timm:test_vit", SMALL])
def test_forward_mode_is_foretold(name):
    entry = find_method("mlc")
    method = entry.create(entry.parse_settings({}), Setup(lambda: build_model(ModelConfig(name), GREY, 10), 10, SGD()))
    method.model.train()
    works = True
    try:
        method.step(*_batches(), StepContext(0.01, 0.0))
    except NotImplementedError:
        works = False
    assert (check_forward_mode(build_model(ModelConfig(name), GREY, 10), DIGITS) is None) == works


def _batches() -> tuple[Batch, Batch]:
    missing = torch.full((6,), NO_LABEL)
    noisy = Batch(DIGITS[:6], LABELS[:6].roll(1), missing, torch.arange(6))
    return noisy, Batch(DIGITS[6:12], missing, LABELS[6:12], torch.arange(6))
