"""The head's closed-form hypergradient against double backward through a step of a linear layer."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import frozen_statistics
from ebomlc.errors import InputError
from ebomlc.methods import StepContext, find_method
from ebomlc.methods.learner import halve
from ebomlc.models import MainModel
from ebomlc.records import NO_LABEL
from tests.methods.conftest import ALL_MODELS, CLASS_WEIGHTS, Problem, class_weights_of, create


def head_by_double_backward(method, noisy, trusted, step, rho):
    """d/da of the upper loss on a head that took one gradient step on the lower loss; features are constants."""
    model, network, flat = method.model, method.corrector.network, method.corrector.flat
    first, second = halve(trusted)
    weigh = class_weights_of(method.main.setup)
    torch.manual_seed(0)
    with frozen_statistics(model), torch.no_grad():
        seen, checked, heldout = (model(rows.inputs).features for rows in (noisy, first, second))
    meta = flat.vector.clone().requires_grad_()
    head = [p.detach().clone().requires_grad_() for p in model.head.parameters()]
    targets = functional_call(network, flat.unflatten(meta), (seen, noisy.given))
    total = -(weigh * targets * F.linear(seen, *head).log_softmax(1)).sum()
    total = total + F.cross_entropy(F.linear(checked, *head), first.right, reduction="sum")
    slopes = torch.autograd.grad(total / (len(noisy) + len(first)), head, create_graph=True)
    ahead = [p - step * slope for p, slope in zip(head, slopes, strict=True)]
    shown = torch.where(second.given == NO_LABEL, second.right, second.given)
    mixed = rho * F.linear(heldout, *ahead)
    mixed = mixed + (1 - rho) * functional_call(network, flat.unflatten(meta), (heldout, shown))
    return torch.autograd.grad(F.cross_entropy(mixed, second.right), meta)[0]


@pytest.mark.parametrize("kind", ALL_MODELS)
@pytest.mark.parametrize("rho", [1.0, 0.4])
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_corrector_follows_the_heads_hypergradient(kind, rho, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("mlc-head", problem, rho=rho, head_step=7.0, corrector_lr=0.05)
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index, pairs=True)
        expected = head_by_double_backward(method, noisy, trusted, 7.0 * lr, rho)
        torch.manual_seed(0)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        torch.testing.assert_close(method.corrector.flat.vector.grad, expected, rtol=1e-9, atol=1e-12)
        assert expected.norm() > 0


def test_main_model_takes_the_step_and_the_statistics_of_mlc(problem):
    methods = [create(name, problem) for name in ("mlc", "mlc-head")]
    corrector = methods[0].corrector.network.state_dict()
    methods[1].corrector.network.load_state_dict(corrector)
    noisy, trusted = problem.batches(0)
    for method in methods:
        method.step(noisy, trusted, StepContext(0.3, 0.0))
    for ours, theirs in zip(
        methods[0].model.state_dict().values(), methods[1].model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_head_without_bias_will_do():
    problem = Problem("mlp")
    bare = MainModel(copy.deepcopy(problem.start.body), 7, 3)
    bare.head = nn.Linear(7, 3, bias=False)
    problem.setup = replace(problem.setup, make_model=lambda: copy.deepcopy(bare).double())
    method = create("mlc-head", problem, rho=1.0)
    noisy, trusted = problem.batches(0)
    expected = head_by_double_backward(method, noisy, trusted, 3.0, 1.0)
    method.step(noisy, trusted, StepContext(0.3, 0.0))
    torch.testing.assert_close(method.corrector.flat.vector.grad, expected, rtol=1e-9, atol=1e-12)


def test_a_frozen_head_is_refused():
    problem = Problem("mlp")
    problem.start.head.requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        create("mlc-head", problem)


@pytest.mark.parametrize("values", [{"head_step": 0.0}, {"rho": 1.5}, {"corrector_lr": -1.0}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method("mlc-head").parse_settings(values)
