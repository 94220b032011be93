"""Soft labels, their running averages and their hypergradient against plain reimplementations."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from ebomlc.errors import InputError
from ebomlc.methods import EpochContext, StepContext, find_method
from ebomlc.methods.learner import halve
from ebomlc.methods.mslc import RowAverages
from ebomlc.records import Batch
from tests.methods.conftest import (
    ALL_MODELS,
    CLASS_WEIGHTS,
    Problem,
    class_weights_of,
    create,
    features_and_logits,
    reference_hypergradient,
)


class PlainSoftLabels(nn.Module):
    """The target of METHOD.md section 2, row by row."""

    def __init__(self, mixer) -> None:
        super().__init__()
        self.mixer = copy.deepcopy(mixer)

    def forward(self, p, given, average):
        rows = []
        for k in range(len(p)):
            losses = torch.stack([-p[k, given[k]].log(), -(average[k] * p[k].log()).sum()])
            a, b = self.mixer.keep(losses), self.mixer.trust(losses)
            rows.append(b * (a * F.one_hot(given[k], 3) + (1 - a) * average[k]) + (1 - b) * p[k])
        return torch.stack(rows)


@pytest.mark.parametrize("kind", ALL_MODELS)
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_networks_follow_the_exact_hypergradient(kind, weights):
    problem = Problem(kind, class_weights=weights)
    method = create("mslc", problem, decay=0.6, weight_lr=0.05)
    average, flat = None, method.mixer.flat
    for index, lr in enumerate((0.3, 0.2)):
        noisy, trusted = problem.batches(index)
        p = features_and_logits(method.model, noisy.inputs).logits.softmax(1)
        average = p if average is None else 0.6 * average + 0.4 * p
        plain = PlainSoftLabels(method.mixer.network)

        def targets_of(meta, plain=plain, rows=(p, noisy.given, average)):
            named = {f"mixer.{name}": value for name, value in flat.unflatten(meta).items()}
            return functional_call(plain, named, rows)

        expected = reference_hypergradient(method.main, flat.vector, targets_of, noisy, *halve(trusted), lr)
        torch.manual_seed(0)
        method.step(noisy, trusted, StepContext(lr, 0.9))
        torch.testing.assert_close(flat.vector.grad, expected, rtol=1e-9, atol=1e-12)
        assert expected.norm() > 0


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_before_the_start_it_trains_on_given_labels_and_leaves_the_networks_alone(weights):
    problem = Problem("norm_cnn", class_weights=weights)
    method = create("mslc", problem)
    twin = copy.deepcopy(method.model)
    sgd = torch.optim.SGD(twin.parameters(), 0.3, momentum=0.9, weight_decay=1e-2)
    networks = method.mixer.flat.vector.clone()
    for index in range(2):
        noisy, trusted = problem.batches(index)
        first, _ = halve(trusted)
        total = F.cross_entropy(
            twin(noisy.inputs).logits, noisy.given, weight=class_weights_of(problem.setup).double(), reduction="sum"
        )
        total = total + F.cross_entropy(twin(first.inputs).logits, first.right, reduction="sum")
        sgd.zero_grad()
        (total / (len(noisy) + len(first))).backward()
        sgd.step()
        method.step(noisy, trusted, StepContext(0.3, 0.66))
    for ours, theirs in zip(method.model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert torch.equal(method.mixer.flat.vector, networks)
    method.step(noisy, trusted, StepContext(0.3, 0.67))
    assert not torch.equal(method.mixer.flat.vector, networks)


def test_averages_follow_each_row_by_its_position():
    averages = RowAverages(torch.zeros(0, dtype=torch.float64), 2, 0.75)
    averages.cover(torch.tensor([4, 1]))
    assert averages.values.shape == (5, 2)
    first = torch.tensor([[0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)
    averages.update(torch.tensor([4, 1]), first)
    assert torch.equal(averages.values[[4, 1]], first)
    second = torch.tensor([[0.0, 1.0], [0.6, 0.4]], dtype=torch.float64)
    averages.update(torch.tensor([1, 2]), second)
    updated = averages.values[[1, 2]]
    torch.testing.assert_close(updated, torch.tensor([[0.75, 0.25], [0.6, 0.4]], dtype=torch.float64))
    torch.testing.assert_close(averages.values[4], first[0])
    assert averages.values[[0, 3]].abs().max() == 0
    averages.cover(torch.tensor([7]))
    assert averages.values.shape == (8, 2)
    torch.testing.assert_close(averages.values[1], updated[0])


def test_room_is_made_for_every_noisy_row_of_the_pool():
    problem = Problem("mlp")
    method = create("mslc", problem)
    noisy, trusted = problem.batches(0)
    rows = Batch(noisy.inputs, noisy.given, noisy.right, torch.arange(100, 112))
    parts = [rows[:6], rows[6:]]
    method.begin_epoch(EpochContext(0, 3, lambda: iter(parts), lambda: iter([trusted])))
    assert method.averages.values.shape == (112, 3)
    method.step(parts[1], trusted, StepContext(0.3, 0.0))
    assert method.averages.values[106:].sum() == pytest.approx(6)
    assert method.averages.values[:106].sum() == 0


def test_suggestion_is_the_target_with_the_present_prediction_for_its_average(problem):
    method = create("mslc", problem)
    noisy, _ = problem.batches(0)
    method.model.eval()
    with torch.no_grad():
        p = method.main.probabilities(noisy.inputs)
        expected = PlainSoftLabels(method.mixer.network)(p, noisy.given, p)
        torch.testing.assert_close(method.suggest(noisy.inputs, noisy.given), expected)


@pytest.mark.parametrize("values", [{"start": 1.5}, {"decay": -0.1}, {"hidden": 0}, {"weight_lr": 0.0}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method("mslc").parse_settings(values)
