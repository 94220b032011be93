"""The registry, and what every method promises."""

from __future__ import annotations

import threading

import pytest
import torch

from ebomlc.bilevel import RandomReplay
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
def test_two_ranks_take_the_step_of_their_averaged_gradients(name):
    """Two ranks with other rows each, in lockstep, end with equal weights: only if every gradient was averaged."""
    problem = Problem("mlp")
    meeting, sums = threading.Barrier(2), {}

    def work(rank, outcome):
        turn = 0

        def reduce(gradient):
            nonlocal turn
            turn += 1
            sums[rank, turn] = gradient
            meeting.wait(timeout=20)
            mean = (sums[0, turn] + sums[1, turn]) / 2
            meeting.wait(timeout=20)
            return mean

        entry = METHODS[name]
        method = methods[rank]
        for index in range(3):
            noisy, trusted = problem.batches(10 * index + rank)
            if entry.needs_truth:
                noisy = Batch(noisy.inputs, noisy.given, noisy.given, noisy.index)
            method.step(noisy, trusted, StepContext(0.1, 0.0, reduce))
        outcome[rank] = [p.detach().clone() for p in method.model.parameters()]
        outcome[rank] += [value.clone() for value in method.state_dict().values()]

    methods, outcome = [], {}
    for _ in range(2):
        torch.manual_seed(3)
        methods.append(METHODS[name].create(METHODS[name].parse_settings({}), problem.setup))
    threads = [threading.Thread(target=work, args=(rank, outcome)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for ours, theirs in zip(outcome[0], outcome[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["ebomlc", "mlc", "mlc-barrier"])
def test_dropout_masks_are_the_same_wherever_a_batch_is_evaluated_twice(name, monkeypatch):
    """With one learning rate of zero nothing moves, so that a gap or a second forward can only differ by its masks."""
    problem = Problem("dropout")
    entry = METHODS[name]
    method = entry.create(entry.parse_settings({}), problem.setup)
    seen = []
    method.model.body[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach() != 0))
    noisy, trusted = problem.batches(0)
    report = method.step(noisy, trusted, StepContext(0.0, 0.0))
    masks = [mask for mask in seen if len(mask) == len(noisy)]
    if name == "mlc":
        method.model.train()
        replay = RandomReplay(method.model)
        first = method.main.forward(noisy.inputs).logits.log_softmax(1)
        with replay.again():
            at = method.main.noisy_log_probabilities(noisy, trusted)
            second = at(method.main.flat.unflatten(method.main.flat.vector))
        torch.testing.assert_close(first, second)
    else:
        assert len(masks) >= 2
        assert float(report.measures["gap"]) == pytest.approx(0.0, abs=1e-12)
    assert all(torch.equal(masks[0], mask) for mask in masks[1:])


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
