"""Every way a model can be unusable is found, named and given a repair, all in one error."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ebomlc.bilevel import FlatParameters
from ebomlc.config import ModelConfig
from ebomlc.errors import InputError
from ebomlc.models import InputShape, build_model, check_forward_mode, check_model, wrap_model

DIGITS = torch.tensor(load_digits().data[:6] / 16, dtype=torch.float32)
IMAGES = torch.tensor(load_digits().images[:6], dtype=torch.uint8)[:, None]


class Network(nn.Module):
    """A sound network; `around` and `before` let a test spoil what comes out and what goes in."""

    def __init__(self, around=None, before=None, width=10) -> None:
        super().__init__()
        self.first = nn.Linear(64, 12)
        self.norm = nn.BatchNorm1d(12)
        self.fc = nn.Linear(12, width)
        self.around, self.before = around, before

    def forward(self, x):
        if self.before is not None:
            x = self.before(x)
        logits = self.fc(self.norm(self.first(x)).relu())
        return logits if self.around is None else self.around(logits)


class TwoInputs(Network):
    def forward(self, x, mask):
        return super().forward(x * mask)


class NoInput(Network):
    def forward(self, *, x=None):
        return super().forward(x)


class OptionalInputs(Network):
    def forward(self, x, mask=None, **options):
        return super().forward(x)


class TokenReader(nn.Module):
    def __init__(self, sparse=False) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8, sparse=sparse)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.words(x).mean(1))


class FixedBatch(Network):
    def forward(self, x):
        return super().forward(x.view(6, 64))


class AuxiliaryInTraining(Network):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class OneRowStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x):
        return torch.cat([self.fc(self.norm(row[None])) for row in x])


class StaleSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("not written yet")


def without_jvp():
    return Network(StaleSquare.apply)


def frozen(*names):
    model = Network()
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def same_memory():
    model = Network(width=12)
    model.twin = nn.Linear(12, 12)
    model.twin.weight = nn.Parameter(model.fc.weight.data)
    return model


def with_attribute(value):
    model = Network()
    model.attribute = value
    return model


def complex_weights():
    model = Network()
    model.turn = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    return model


def add_in_place(x):
    return x.add_(1)


BAD = {
    "class": (Network, "never: the model is the class itself, not an nn.Module: give an instance"),
    "function": (torch.relu, "never: the model is a builtin_function_or_method, not an nn.Module"),
    "no parameters": (nn.Flatten(), "never: the model has no parameters"),
    "all frozen": (Network().requires_grad_(False), "not yet: every parameter is frozen"),
    "head frozen": (frozen("fc"), r"not yet: the head 'fc' is frozen.*model.fc.requires_grad_\(True\)"),
    "lazy": (nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 10)), "not yet: 0.weight, 0.bias: lazy layers"),
    "two inputs": (TwoInputs(), r"not yet: forward needs 2 inputs \(x, mask\)"),
    "no input": (NoInput(), "not yet: forward takes no positional input"),
    "parallel": (nn.DataParallel(Network()), "never: DataParallel.*give the network inside, model.module"),
    "cannot be copied": (with_attribute(threading.Lock()), r"not yet: copy.deepcopy\(model\) fails \(TypeError"),
    "double": (Network().double(), r"not yet: parameter 'first.weight' and 5 more: float64.*model.float\(\)"),
    "complex": (complex_weights(), "never: parameter 'turn': complex64 instead of float32"),
    "sparse": (TokenReader(sparse=True), "replace: 'words' has sparse gradients: replace sparse=True"),
    "same memory": (same_memory(), "replace: 'fc.weight' and 'twin.weight' are two parameters in the same memory"),
    "wrong width": (
        Network(width=1000),
        r"replace: 'fc' makes 1000 logits for 10 classes.*'fc' by nn.Linear\(12, 10\)",
    ),
    "no linear": (nn.Sequential(nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 10, 64), nn.Flatten()), "no nn.Linear makes"),
    "wrong shape": (
        nn.Linear(63, 10),
        r"not yet: forward fails: RuntimeError: mat1 and mat2.*shape \[6, 64\] in float32",
    ),
    "tokens": (TokenReader(), "not yet: forward fails: RuntimeError: Expected.*an nn.Embedding reads whole numbers"),
    "tuple": (Network(lambda z: (z, z)), r"not yet: forward returns a tuple in evaluation.*output\[0\] of the 2"),
    "dictionary": (Network(lambda z: {"logits": z}), "forward returns a dict.*return one of 'logits' alone"),
    "classes": (Network(lambda z: z.argmax(1, keepdim=True)), "the output is int64 in evaluation: return the logits"),
    "flat output": (Network(lambda z: z[:, 0]), r"6 rows give an output of shape \[6\] in evaluation"),
    "not a number": (Network(lambda z: z / 0 * 0), r"not yet: the output holds NaN or infinity.*\[6, 64\]"),
    "random": (Network(lambda z: z + torch.rand(())), "not yet: two passes in evaluation mode give different outputs"),
    "in place": (Network(before=add_in_place), "not yet: forward overwrites the rows it is given"),
    "batch of six": (FixedBatch(), "not yet: forward fails on 7 rows after 6 went well: RuntimeError"),
    "auxiliary": (AuxiliaryInTraining(), "not yet: forward returns a tuple in training"),
    "one row": (OneRowStatistics(), "not yet: forward fails in training mode: ValueError.*shrunk to one pixel or none"),
    "small maps": (
        nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.MaxPool2d(9), nn.Flatten(), nn.Linear(1, 10)),
        "not yet: forward fails: RuntimeError.*too small.*shrunk to one pixel or none: use fewer strides",
    ),
    "detached": (Network(lambda z: z.detach()), "not yet: the output does not depend on any trainable parameter"),
    "backward": (without_jvp(), r"not yet: backward fails \(RuntimeError: not written yet\)"),
    "softmax": (Network(lambda z: z.softmax(1)), "not yet: the output of the model is not that of its head"),
}


@pytest.mark.parametrize("kind", BAD)
def test_problem_is_named_with_its_repair(kind):
    module, message = BAD[kind]
    with pytest.raises(InputError, match=message) as caught:
        check_model(module, DIGITS, 10)
    first, *lines = str(caught.value).splitlines()
    assert first == f"this model cannot be trained as it is ({len(lines)} problem{'s' * (len(lines) > 1)}):"
    assert all(line.startswith(("|-- ", "`-- ")) for line in lines)


SEVERAL = {"no parameters", "head frozen", "sparse", "same memory", "double", "tokens"}


@pytest.mark.parametrize("kind", sorted(BAD.keys() - SEVERAL))
def test_one_cause_is_one_problem(kind):
    with pytest.raises(InputError, match=r"\(1 problem\)"):
        check_model(BAD[kind][0], DIGITS, 10)


def test_all_problems_are_listed():
    module = TokenReader(sparse=True)
    module.more = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    module.fc.requires_grad_(False)
    with pytest.raises(InputError) as caught:
        check_model(module, torch.ones(6, 4, dtype=torch.int64), 7)
    verdicts = [line[4:].partition(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert verdicts == ["never", "replace", "replace", "not yet"]


@pytest.mark.parametrize("n_rows", [1, 6])
@pytest.mark.parametrize("make", [Network, OptionalInputs, lambda: frozen("first", "norm"), lambda: nn.Linear(64, 10)])
def test_sound_models_pass_and_are_left_alone(make, n_rows):
    module = make().eval()
    before, rows = copy.deepcopy(module.state_dict()), DIGITS.clone()
    random_state = torch.get_rng_state()
    check_model(module, DIGITS[:n_rows], 10)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(DIGITS, rows)
    assert torch.equal(random_state, torch.get_rng_state())
    assert not any(m.training or m._forward_hooks for m in module.modules())
    assert all(p.grad is None for p in module.parameters())


def test_shared_parameter_passes():
    module = Network(width=12)
    module.twin = nn.Linear(12, 12)
    module.twin.weight = module.fc.weight
    check_model(module, DIGITS, 12)
    FlatParameters(wrap_model(module, 12, DIGITS)).check()


def test_whole_pixels_are_pointed_to_standardising():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(InputError, match=r"put pixels=StandardisePixels\(mean, std\) before the model"):
        check_model(module, IMAGES, 10)
    check_model(module, IMAGES.float(), 10)


def test_named_head_is_looked_for():
    with pytest.raises(InputError, match="not yet: unknown layer 'fcc': did you mean 'fc'"):
        check_model(Network(), DIGITS, 10, head="fcc")


class ForwardModeSquare(StaleSquare):
    @staticmethod
    def forward(x):
        return x**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent


def body_with(function):
    class Layer(nn.Module):
        def forward(self, x):
            return function(x)

    body = nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), Layer(), nn.Dropout(0.1), nn.Linear(6, 10))
    return wrap_model(body, 10, DIGITS)


def test_forward_mode_of_a_missing_rule_is_explained():
    problem = check_forward_mode(body_with(StaleSquare.apply), DIGITS)
    assert problem is not None
    assert "cannot be differentiated in forward mode" in problem
    assert "ebomlc" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("function", [torch.relu, ForwardModeSquare.apply])
def test_forward_mode_of_known_rules_is_fine(function):
    assert check_forward_mode(body_with(function), DIGITS) is None


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn-tiny", "resnet20"])
def test_forward_mode_of_our_models_is_fine_and_leaves_them_alone(name):
    model = build_model(ModelConfig(name, dropout=0.2), InputShape((1, 8, 8), (0.3,), (0.4,)), 10)
    before = copy.deepcopy(model.state_dict())
    assert check_forward_mode(model, IMAGES[:1]) is None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
