"""Weights of rows against explicit gradients of each row, and against double backward."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from ebomlc.bilevel import frozen_statistics
from ebomlc.errors import InputError
from ebomlc.methods import StepContext, find_method
from ebomlc.methods.learner import halve
from ebomlc.records import Batch
from tests.methods.conftest import (
    ALL_MODELS,
    CLASS_WEIGHTS,
    MODELS,
    Problem,
    class_weights_of,
    create,
    features_and_logits,
    reference_hypergradient,
)

FORMS = [(True, None), (True, CLASS_WEIGHTS), (False, None), (False, CLASS_WEIGHTS)]


def split(trusted, train_trusted):
    return halve(trusted) if train_trusted else (None, trusted)


def gradient_of(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)])


def row_by_row(method, noisy, training, heldout):
    """Weights of the noisy rows and the gradient of the weighted loss, one row's gradient after the other."""
    torch.manual_seed(0)
    model = copy.deepcopy(method.model)
    losses = F.cross_entropy(model(noisy.inputs).logits, noisy.given, reduction="none")
    losses = losses * class_weights_of(method.main.setup)[noisy.given]
    trusted_sum = 0 * losses.sum()
    if training is not None:
        trusted_sum = F.cross_entropy(model(training.inputs).logits, training.right, reduction="sum")
    with frozen_statistics(model):
        upper = gradient_of(F.cross_entropy(model(heldout.inputs).logits, heldout.right), model)
    rows = [gradient_of(loss, model) for loss in losses]
    raw = [max(0.0, float(row @ upper)) for row in rows]
    weights = [value / sum(raw) for value in raw]
    n, n_c = len(noisy), 0 if training is None else len(training)
    total = sum(w * row for w, row in zip(weights, rows, strict=True)) * n + gradient_of(trusted_sum, model)
    return weights, total / (n + n_c)


@pytest.mark.parametrize("kind", ALL_MODELS)
@pytest.mark.parametrize(("train_trusted", "weights"), FORMS)
def test_l2rw_weighs_rows_by_their_own_gradients(kind, train_trusted, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("l2rw", problem, train_trusted=train_trusted)
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        row_weights, gradient = row_by_row(method, noisy, *split(trusted, train_trusted))
        assert 0 < sum(value == 0 for value in row_weights) < len(noisy), "some rows must help and some not"
        expected, _ = method.main.look_ahead(gradient, lr)
        torch.manual_seed(0)
        report = method.step(noisy, trusted, StepContext(lr, 0.0))
        torch.testing.assert_close(method.main.flat.vector, expected, rtol=1e-9, atol=1e-11)
        used = sum(value > 0 for value in row_weights) / len(noisy)
        assert float(report.measures["rows_used"]) == pytest.approx(used)


@pytest.mark.parametrize("train_trusted", [False, True])
def test_l2rw_leaves_noisy_rows_out_where_none_of_them_helps(train_trusted):
    """Rows that say of the trusted inputs what is wrong of them: following one raises the upper loss."""
    problem = Problem("mlp")
    method = create("l2rw", problem, train_trusted=train_trusted)
    _, trusted = problem.batches(0, n_trusted=2)
    trusted = Batch(trusted.inputs[:1].expand(2, 5), trusted.given, torch.zeros(2, dtype=torch.int64), trusted.index)
    noisy = Batch(trusted.inputs, torch.ones(2, dtype=torch.int64), trusted.given, trusted.index)
    gradient = torch.zeros_like(method.main.flat.vector)
    if train_trusted:
        loss = F.cross_entropy(method.model(trusted.inputs[:1]).logits, trusted.right[:1], reduction="sum")
        gradient = method.main.flat.gradient(loss / 3)
    expected, _ = method.main.look_ahead(gradient, 0.3)
    report = method.step(noisy, trusted, StepContext(0.3, 0.0))
    assert float(report.measures["rows_used"]) == 0
    torch.testing.assert_close(method.main.flat.vector, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ALL_MODELS)
@pytest.mark.parametrize(("train_trusted", "weights"), FORMS)
def test_weight_network_follows_the_exact_hypergradient(kind, train_trusted, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("mw-net", problem, train_trusted=train_trusted, weight_lr=0.05)
    network, flat = method.weigher.network, method.weigher.flat
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        training, heldout = split(trusted, train_trusted)
        logits = features_and_logits(method.model, noisy.inputs).logits
        losses = F.cross_entropy(logits, noisy.given, reduction="none")[:, None]

        def targets_of(meta, losses=losses, noisy=noisy):
            return functional_call(network, flat.unflatten(meta), (losses,)) * F.one_hot(noisy.given, 3)

        expected = reference_hypergradient(method.main, flat.vector, targets_of, noisy, training, heldout, lr)
        torch.manual_seed(0)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        torch.testing.assert_close(flat.vector.grad, expected, rtol=1e-9, atol=1e-12)
        assert expected.norm() > 0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("train_trusted", "weights"), FORMS)
def test_mw_net_takes_one_optimizer_step_on_the_weighted_loss(kind, train_trusted, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("mw-net", problem, train_trusted=train_trusted)
    noisy, trusted = problem.batches(0)
    training, _ = split(trusted, train_trusted)
    model = copy.deepcopy(method.model)
    losses = F.cross_entropy(model(noisy.inputs).logits, noisy.given, reduction="none")
    row_weights = method.weigher.network(losses.detach()[:, None])[:, 0].detach()
    total = (row_weights * class_weights_of(problem.setup)[noisy.given] * losses).sum()
    n_rows = len(noisy)
    if train_trusted:
        total = total + F.cross_entropy(model(training.inputs).logits, training.right, reduction="sum")
        n_rows += len(training)
    expected, _ = method.main.look_ahead(gradient_of(total / n_rows, model), 0.3)
    method.step(noisy, trusted, StepContext(0.3, 0.0))
    torch.testing.assert_close(method.main.flat.vector, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(method.model.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("values", [{"hidden": 0}, {"weight_lr": 0.0}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method("mw-net").parse_settings(values)
