"""The teacher's gradient against double backward and a plain reimplementation of its losses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ebomlc.errors import InputError
from ebomlc.methods import StepContext, find_method
from ebomlc.methods.emlc import corrupt_labels
from ebomlc.methods.learner import halve
from tests.methods.conftest import CLASS_WEIGHTS, MODELS, Problem, class_weights_of, create, reference_hypergradient


class PlainTeacher(nn.Module):
    """q = r onehot(y') + (1 - r) p_teacher, written once more; also the logit of r."""

    def __init__(self, teacher) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(teacher)

    def keep(self, features, given):
        joined = torch.cat([features, self.teacher.embedding.weight[given]], 1)
        return self.teacher.gate(joined)[:, 0]

    def forward(self, inputs, given):
        features, logits = self.teacher.model(inputs)
        r = torch.sigmoid(self.keep(features, given))
        return torch.stack(
            [r[k] * F.one_hot(given[k], 3) + (1 - r[k]) * logits[k].softmax(0) for k in range(len(given))]
        )


def supervised_gradient(plain, rows, shown):
    features, logits = plain.teacher.model(rows.inputs)
    kept = plain.keep(features, shown).sigmoid()
    is_kept = shown == rows.right
    gate = -torch.where(is_kept, kept.log(), (1 - kept).log()).mean()
    loss = gate + F.cross_entropy(logits, rows.right)
    return torch.autograd.grad(loss, list(plain.teacher.parameters()))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_teacher_follows_hypergradient_and_its_own_losses(kind, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("emlc", problem, teacher_lr=0.05)
    flat = method.teacher.flat
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        training, heldout = halve(trusted)
        plain = PlainTeacher(method.network)

        def targets_of(meta, plain=plain, noisy=noisy):
            named = {f"teacher.{name}": value for name, value in flat.unflatten(meta).items()}
            return functional_call(plain, named, (noisy.inputs, noisy.given))

        expected = reference_hypergradient(method.main, flat.vector, targets_of, noisy, training, heldout, lr)
        assert expected.norm() > 0
        torch.manual_seed(4)
        shown = corrupt_labels(training.right, 3, 0.5)
        assert 0 < (shown == training.right).sum() < len(training), "both kinds of rows must be there"
        expected = expected + flat.flatten(supervised_gradient(plain, training, shown))
        torch.manual_seed(4)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        torch.testing.assert_close(flat.vector.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_student_takes_one_optimizer_step_on_the_teachers_targets(weights):
    problem = Problem("norm_cnn", class_weights=weights)
    method = create("emlc", problem)
    noisy, trusted = problem.batches(0)
    first, _ = halve(trusted)
    model, plain = copy.deepcopy(method.model), PlainTeacher(method.network)
    targets = plain(noisy.inputs, noisy.given).detach()
    total = -(class_weights_of(problem.setup) * targets * model(noisy.inputs).logits.log_softmax(1)).sum()
    total = total + F.cross_entropy(model(first.inputs).logits, first.right, reduction="sum")
    gradient = torch.autograd.grad(total / (len(noisy) + len(first)), list(model.parameters()))
    expected, _ = method.main.look_ahead(method.main.flat.flatten(gradient), 0.3)
    method.step(noisy, trusted, StepContext(0.3, 0.0))
    torch.testing.assert_close(method.main.flat.vector, expected, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(method.model.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_labels_are_corrupted_as_often_as_asked_and_never_into_themselves():
    torch.manual_seed(0)
    labels = torch.arange(4).repeat(2500)
    shown = corrupt_labels(labels, 4, 0.3)
    wrong = shown != labels
    assert float(wrong.float().mean()) == pytest.approx(0.3, abs=0.02)
    for k in range(4):
        counts = torch.bincount(shown[wrong & (labels == k)], minlength=4)
        assert counts[k] == 0
        assert counts.sum() / 3 * 0.8 < counts[counts > 0].min()
    assert torch.equal(corrupt_labels(labels, 4, 0.0), labels)


def test_suggestion_is_the_teachers_in_evaluation_mode():
    problem = Problem("norm_cnn")
    method = create("emlc", problem)
    noisy, trusted = problem.batches(0)
    method.step(noisy, trusted, StepContext(0.1, 0.0))
    method.model.eval()
    with torch.no_grad():
        whole = method.suggest(noisy.inputs, noisy.given)
        parts = [method.suggest(noisy.inputs[k : k + 1], noisy.given[k : k + 1]) for k in range(len(noisy))]
        expected = PlainTeacher(method.network.eval())(noisy.inputs, noisy.given)
    torch.testing.assert_close(whole, torch.cat(parts))
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("values", [{"teacher_lr": 0.0}, {"embedding": 0}, {"hidden": 0}, {"corrupted": 1.5}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method("emlc").parse_settings(values)
