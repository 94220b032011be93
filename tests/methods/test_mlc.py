"""MLC against reverse-over-reverse differentiation; its naive barrier extension against a plain reimplementation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from ebomlc.bilevel import SGD, frozen_statistics
from ebomlc.methods import StepContext
from ebomlc.methods.learner import halve
from ebomlc.methods.mlc import Mlc, MlcBarrier, MlcBarrierSettings, MlcSettings
from tests.methods.conftest import (
    CLASS_WEIGHTS,
    MODELS,
    Problem,
    class_weights_of,
    features_and_logits,
    reference_hypergradient,
)

OPTIMIZERS = {
    "momentum": SGD(momentum=0.9, weight_decay=1e-2),
    "nesterov": SGD(momentum=0.8, nesterov=True, weight_decay=0.0),
    "dampening": SGD(momentum=0.9, dampening=0.3, weight_decay=0.0),
}


def expected_hypergradient(method, noisy, trusted, lr):
    """The reference with the corrector's targets, features frozen as METHOD.md section 1 says."""
    network, flat = method.corrector.network, method.corrector.flat
    features = features_and_logits(method.model, noisy.inputs).features

    def targets_of(meta):
        return functional_call(network, flat.unflatten(meta), (features, noisy.given))

    return reference_hypergradient(method.main, flat.vector, targets_of, noisy, *halve(trusted), lr)


# the reference batches noisy and trusted rows apart, which differs from a joint batch only under batch norm
@pytest.mark.parametrize(("kind", "joint"), [("mlp", False), ("mlp", True), ("norm_cnn", False), ("dropout", False)])
@pytest.mark.parametrize(
    ("optimizer", "weights"), [*((name, None) for name in OPTIMIZERS), ("momentum", CLASS_WEIGHTS)]
)
def test_corrector_follows_the_exact_hypergradient(kind, joint, optimizer, weights):
    problem = Problem(kind, OPTIMIZERS[optimizer], weights)
    method = Mlc(MlcSettings(corrector_lr=0.05), replace(problem.setup, joint_forward=joint))
    method.model.train()
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        expected = expected_hypergradient(method, noisy, trusted, lr)
        torch.manual_seed(0)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        torch.testing.assert_close(method.corrector.flat.vector.grad, expected, rtol=1e-9, atol=1e-12)
        assert expected.norm() > 0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_main_model_takes_one_optimizer_step_on_the_lower_loss(kind, weights):
    problem = Problem(kind, class_weights=weights)
    method = Mlc(MlcSettings(), problem.setup)
    method.model.train()
    twin = copy.deepcopy(method.model)
    sgd = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    for index, lr in enumerate((0.3, 0.1, 0.2)):
        noisy, trusted = problem.batches(index)
        first, _ = halve(trusted)
        output = twin(noisy.inputs)
        targets = method.corrector(output.features, noisy.given).detach()
        total = -(class_weights_of(problem.setup) * targets * output.logits.log_softmax(1)).sum()
        total = total + F.cross_entropy(twin(first.inputs).logits, first.right, reduction="sum")
        sgd.zero_grad()
        (total / (len(noisy) + len(first))).backward()
        sgd.param_groups[0]["lr"] = lr
        sgd.step()
        method.step(noisy, trusted, StepContext(lr, 0.0))
    for ours, theirs in zip(method.model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def barrier_reference(method, settings, noisy, trusted, lr):
    """Gradients of main model and corrector for one naive barrier step, by plain loops over module copies."""
    model, corrector = copy.deepcopy(method.model), method.corrector.network
    first, second = halve(trusted)
    n_rows, weigh = len(noisy) + len(first), class_weights_of(method.main.setup)

    def lower(m, targets):
        log = m(noisy.inputs).logits.log_softmax(1)
        return (
            -(weigh * targets * log).sum() + F.cross_entropy(m(first.inputs).logits, first.right, reduction="sum")
        ) / n_rows

    with frozen_statistics(model):
        parameters = list(model.parameters())
        targets = corrector(model(noisy.inputs).features, noisy.given)
        gradient = torch.autograd.grad(lower(model, targets.detach()), parameters)
        upper = torch.autograd.grad(F.cross_entropy(model(second.inputs).logits, second.right), parameters)
        moved = copy.deepcopy(model)
        for _ in range(settings.inner_steps):
            step = torch.autograd.grad(lower(moved, targets.detach()), list(moved.parameters()))
            with torch.no_grad():
                for parameter, g in zip(moved.parameters(), step, strict=True):
                    parameter -= lr * g
        after = torch.autograd.grad(lower(moved, targets.detach()), list(moved.parameters()))
        gap = lower(model, targets) - lower(moved, targets)
        gap_meta = torch.autograd.grad(gap, list(corrector.parameters()))
    gap_main = list(gradient)
    if settings.gap_gradient == "difference":
        gap_main = [a - b for a, b in zip(gradient, after, strict=True)]
    norm = sum((g**2).sum() for g in [*gap_main, *gap_meta])
    inner = sum((f * q).sum() for f, q in zip(upper, gap_main, strict=True))
    beta = torch.clamp(settings.delta * norm - inner, min=0) / (norm + 1e-8)
    return [f + beta * q for f, q in zip(upper, gap_main, strict=True)], [beta * q for q in gap_meta]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("gap_gradient", "weights"), [("constant", None), ("difference", None), ("difference", CLASS_WEIGHTS)]
)
def test_naive_barrier_equals_the_plain_form(kind, gap_gradient, weights):
    problem = Problem(kind, class_weights=weights)
    settings = MlcBarrierSettings(inner_steps=3, delta=2.0, gap_gradient=gap_gradient)
    method = MlcBarrier(settings, problem.setup)
    method.model.train()
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        main, meta = barrier_reference(method, settings, noisy, trusted, lr)
        weights, _ = method.main.look_ahead(method.main.flat.flatten(main), lr)
        expected = copy.deepcopy(method.model)
        expected(noisy.inputs)
        expected(halve(trusted)[0].inputs)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        for ours, theirs in zip(method.model.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        torch.testing.assert_close(method.main.flat.vector, weights, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(
            method.corrector.flat.vector.grad, method.corrector.flat.flatten(meta), rtol=1e-6, atol=1e-10
        )
