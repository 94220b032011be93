"""Anybody's network as a main model: same logits, own weights, and refusals that name the repair."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ebomlc.bilevel import SGD, FlatParameters
from ebomlc.errors import InputError
from ebomlc.methods import Setup, StepContext, find_method
from ebomlc.models import MainModel, wrap_model
from ebomlc.models.backbones import StandardisePixels
from ebomlc.records import NO_LABEL, Batch

DIGITS = torch.tensor(load_digits().data[:24] / 16, dtype=torch.float32)
LABELS = torch.tensor(load_digits().target[:24])


class Named(nn.Module):
    """Two layers under names, and what a subclass does with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 12)
        self.norm = nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, 10)

    def features(self, x):
        return F.relu(self.norm(self.first(x)), inplace=True)

    def forward(self, x):
        return self.fc(self.features(x))


class HeadFirst(Named):
    """The head is registered before what runs before it, and another linear layer is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 10)
        self.late = nn.Linear(64, 12)
        self.unused = nn.Linear(12, 10)

    def features(self, x):
        return self.late(x).tanh()


class Auxiliary(Named):
    """A linear layer that runs after the head, whose output is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(12, 3)

    def forward(self, x):
        features = self.features(x)
        logits = self.fc(features)
        self.other(features)
        return logits


class Tied(nn.Module):
    """The head's weights are those of a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 10)
        self.hidden = nn.Linear(10, 10)
        self.fc = nn.Linear(10, 10)
        self.fc.weight = self.hidden.weight

    def forward(self, x):
        return self.fc(self.hidden(self.first(x).tanh()).tanh())


class LogProbabilities(Named):
    def __init__(self) -> None:
        super().__init__()
        self.squash = nn.LogSoftmax(1)

    def forward(self, x):
        return self.squash(super().forward(x))


class Residual(Named):
    def forward(self, x):
        return super().forward(x) + x[:, :10]


class Reshaped(Named):
    def forward(self, x):
        return super().forward(x).view(-1, 2, 5).flatten(1)


class DroppedLogits(Named):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(super().forward(x))


class Pieces(Named):
    """The head reads eight pieces of a row, whose logits are returned or put together."""

    def __init__(self, join) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 10)
        self.join = join

    def forward(self, x):
        return self.join(self.fc(x.view(-1, 8, 8)))


def sequential():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Sequential(nn.Linear(16, 10)))


SOUND = {
    "named": Named,
    "sequential": sequential,
    "one layer": lambda: nn.Linear(64, 10),
    "head first": HeadFirst,
    "tied": Tied,
    "averaged logits": lambda: Pieces(lambda pieces: pieces.mean(1)),
}


def take_step(model, rows, method: str = "ebomlc"):
    """One step of a method on real digits; gives the method."""
    entry = find_method(method)
    made = entry.create(entry.parse_settings({}), Setup(lambda: copy.deepcopy(model), 10, SGD(momentum=0.9)))
    made.model.train()
    missing = torch.full((12,), NO_LABEL)
    noisy = Batch(rows[:12], LABELS[:12].roll(1), missing, torch.arange(12))
    trusted = Batch(rows[12:], missing, LABELS[12:], torch.arange(12))
    made.step(noisy, trusted, StepContext(0.05, 0.0))
    return made


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("n_rows", [1, 7])
def test_logits_are_those_of_the_module(kind, n_rows):
    module = SOUND[kind]()
    wrapped = wrap_model(module, 10, DIGITS[:n_rows]).eval()
    output = wrapped(DIGITS)
    torch.testing.assert_close(output.logits, module.eval()(DIGITS))
    assert torch.equal(output.logits, wrapped.head(output.features))
    assert output.features.shape == (len(DIGITS), wrapped.feature_dim)


@pytest.mark.parametrize("kind", SOUND)
def test_module_is_left_alone_and_shares_nothing(kind):
    module = SOUND[kind]().train()
    before = copy.deepcopy(module.state_dict())
    random_state = torch.get_rng_state()
    wrapped = wrap_model(module, 10, DIGITS)
    assert torch.equal(random_state, torch.get_rng_state())
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.add_(1)
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert all(m.training and not m._forward_hooks for m in module.modules())


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("method", ["ebomlc", "mlc"])
def test_methods_train_all_of_it(kind, method):
    model = wrap_model(SOUND[kind](), 10, DIGITS)
    trained = take_step(model, DIGITS, method).model
    FlatParameters(trained).check()
    moved = {
        name.partition(".")[0]
        for name, p in trained.named_parameters()
        if not torch.equal(p, model.get_parameter(name))
    }
    assert moved == {name.partition(".")[0] for name, _ in model.named_parameters()}


def test_frozen_layers_stay_frozen():
    module = Named()
    module.first.requires_grad_(False)
    trained = take_step(wrap_model(module, 10, DIGITS), DIGITS).model
    assert torch.equal(trained.body.first.weight, module.first.weight)
    assert not torch.equal(trained.head.weight, module.fc.weight)


def test_tied_weights_stay_tied():
    model = wrap_model(Tied(), 10, DIGITS)
    assert model.head.weight is model.body.hidden.weight
    trained = take_step(model, DIGITS).model
    assert trained.head.weight is trained.body.hidden.weight


def test_keys_are_those_of_a_main_model():
    keys = wrap_model(Named(), 10, DIGITS).state_dict().keys()
    assert {"body.first.weight", "body.norm.running_mean", "head.weight", "head.bias"} <= keys
    assert not any("fc" in key for key in keys)


def test_pixels_come_first():
    images = (DIGITS * 255).to(torch.uint8).view(-1, 1, 8, 8)
    pixels = StandardisePixels((0.3,), (0.4,))
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    wrapped = wrap_model(module, 10, images, pixels=pixels)
    torch.testing.assert_close(wrapped(images).logits, module(pixels(images)))
    assert wrapped.body[0] is not pixels


def test_head_can_be_named():
    with pytest.raises(InputError, match=r"'other' makes 3 logits for 10 classes: replace it by nn.Linear\(12, 10\)"):
        wrap_model(Auxiliary(), 10, DIGITS)
    module = Auxiliary().eval()
    assert torch.equal(wrap_model(module, 10, DIGITS, head="fc").eval()(DIGITS).logits, module(DIGITS))


@pytest.mark.parametrize(
    ("make", "head", "message"),
    [
        (Named, "fcc", "did you mean 'fc'"),
        (Named, "norm", r"'norm' \(BatchNorm1d\) is no nn.Linear: name one of first, fc"),
        (HeadFirst, "unused", "'unused' is not called by forward; called are late, fc"),
        (Named, "first", r"'norm' \(BatchNorm1d\), 'fc' \(Linear\) comes after it|makes 12 logits"),
        (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), None, r"no nn.Linear.*'1' \(BatchNorm1d\)"),
        (LogProbabilities, None, r"'squash' \(LogSoftmax\) comes after it: return the output of 'fc' itself"),
        (Residual, None, "something in forward follows it"),
        (Reshaped, None, "without its head the model does not run"),
        (DroppedLogits, None, r"\(in training\); 'drop' \(Dropout\) comes after it"),
        (lambda: Pieces(lambda pieces: pieces), None, r"features that reach the head are \[24, 8, 8\] instead of"),
        (lambda: Pieces(lambda pieces: pieces.amax(1)), None, "something in forward follows it"),
    ],
)
def test_refusals_name_layer_and_repair(make, head, message):
    with pytest.raises(InputError, match=message) as caught:
        wrap_model(make(), 10, DIGITS, head=head)
    assert "\n" not in str(caught.value)


def test_main_model_takes_a_head():
    head = nn.Linear(5, 3)
    assert MainModel(nn.Identity(), 5, 3, head).head is head
