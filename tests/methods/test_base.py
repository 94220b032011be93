"""The registry, and what every method promises."""

from __future__ import annotations

import pytest
import torch

from ebomlc.errors import InputError
from ebomlc.methods import METHODS, EpochContext, StepContext, find_method
from ebomlc.methods.learner import halve
from ebomlc.records import Batch
from tests.methods.conftest import Problem


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ebomlc'"):
        find_method("ebmolc")


@pytest.mark.parametrize("n", [2, 3, 7, 100])
def test_halves_are_disjoint_and_complete(n):
    rows = torch.arange(n)
    first, second = halve(Batch(rows[:, None], rows, rows, rows))
    assert sorted([*first.index.tolist(), *second.index.tolist()]) == list(range(n))
    assert len(second) == n // 2


def trained(name, problem, steps=4):
    torch.manual_seed(3)
    entry = METHODS[name]
    method = entry.create(entry.parse_settings({}), problem.setup)
    for index in range(steps):
        noisy, trusted = problem.batches(index)
        if entry.needs_truth:
            noisy = Batch(noisy.inputs, noisy.given, noisy.given, noisy.index)
        context = EpochContext(index, steps, lambda rows=noisy: iter([rows]), lambda rows=trusted: iter([rows]))
        method.begin_epoch(context)
        method.model.train()
        method.step(noisy, trusted, StepContext(0.1, index / steps))
    method.model.eval()
    return method


@pytest.mark.parametrize("name", METHODS)
def test_suggestions_are_distributions(name, problem):
    noisy, _ = problem.batches(9)
    method = trained(name, problem)
    with torch.no_grad():
        suggested = method.suggest(noisy.inputs, noisy.given)
    assert suggested.shape == (len(noisy), 3)
    assert bool((suggested >= 0).all())
    torch.testing.assert_close(suggested.sum(1), torch.ones(len(noisy), dtype=torch.float64))


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_weights(name, problem):
    first, second = trained(name, problem), trained(name, problem)
    for ours, theirs in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", METHODS)
def test_state_restores_the_suggestions(name, problem):
    noisy, _ = problem.batches(9)
    method = trained(name, problem)
    torch.manual_seed(77)
    entry = METHODS[name]
    fresh = entry.create(entry.parse_settings({}), problem.setup)
    fresh.model.eval()
    with torch.no_grad():
        fresh.model.load_state_dict(method.model.state_dict())
        fresh.load_state_dict(method.state_dict())
        assert torch.equal(method.suggest(noisy.inputs, noisy.given), fresh.suggest(noisy.inputs, noisy.given))


@pytest.mark.parametrize("name", METHODS)
def test_every_gradient_is_reduced_before_use(name):
    """Two ranks with the same rows average to what one rank computes; doubling in `reduce` must change the step."""
    problem = Problem("mlp")
    outcomes = []
    for factor in (1.0, 1.0, 2.0):
        torch.manual_seed(3)
        entry = METHODS[name]
        method = entry.create(entry.parse_settings({}), problem.setup)
        noisy, trusted = problem.batches(0)
        noisy = Batch(noisy.inputs, noisy.given, noisy.given, noisy.index)
        method.step(noisy, trusted, StepContext(0.1, 0.0, reduce=lambda g, factor=factor: factor * g))
        weights = [p.detach().clone() for p in method.model.parameters()]
        outcomes.append(torch.cat([w.flatten() for w in weights]))
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


def test_suggestions_do_not_depend_on_the_batch_or_on_chance(problem):
    """Dropout and batch norm of the corrector are in evaluation mode where the main model is."""
    entry = METHODS["ebomlc"]
    settings = entry.parse_settings({"corrector": {"dropout": 0.5, "batch_norm": True}})
    method = entry.create(settings, problem.setup)
    noisy, trusted = problem.batches(0)
    method.step(noisy, trusted, StepContext(0.1, 0.0))
    method.model.eval()
    with torch.no_grad():
        whole = method.suggest(noisy.inputs, noisy.given)
        parts = [method.suggest(noisy.inputs[k : k + 1], noisy.given[k : k + 1]) for k in range(len(noisy))]
    torch.testing.assert_close(whole, torch.cat(parts))
