"""The registry, and what every method promises."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from ebomlc.bilevel import RandomReplay
from ebomlc.errors import InputError
from ebomlc.methods import METHODS, EpochContext, StepContext, find_method
from ebomlc.methods.base import identity
from ebomlc.methods.learner import halve
from ebomlc.records import Batch
from tests.methods.conftest import CLASS_WEIGHTS, Problem, create


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
        noisy = with_truth(name, noisy)
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


def fresh(name, problem):
    torch.manual_seed(3)
    return create(name, problem, **({"mixup": 0.0} if name == "plus" else {}))  # which rows are mixed is drawn


def with_truth(name, noisy):
    return Batch(noisy.inputs, noisy.given, noisy.given, noisy.index) if METHODS[name].needs_truth else noisy


EPOCHS, BEGUN = 10, (0, 1, 4)
"""A step in each phase of the methods that have phases: of so many epochs, those that a step is taken in."""


def step_in_phases(method, batches, reduce=identity):
    """A step in each phase, every phase begun by passes over the same rows; `batches` holds noisy and trusted rows."""
    every_noisy, every_trusted = Problem("mlp").batches(77, n_noisy=40)
    passes = (lambda: iter([every_noisy])), (lambda: iter([every_trusted]))
    for epoch, rows in zip(BEGUN, batches, strict=True):
        method.begin_epoch(EpochContext(epoch, EPOCHS, *passes))
        method.model.train()
        method.step(*rows, StepContext(0.1, epoch / EPOCHS, reduce))


def step_on_ranks(methods, batches):
    """Steps of one method a rank, in lockstep; `batches` holds, for each step, each rank's noisy and trusted rows."""
    meeting, sums, failures = threading.Barrier(len(methods)), {}, []
    # ranks are processes in earnest: torch's forward mode keeps its state by process, so only one may compute at a time
    computing = threading.Lock()

    def work(rank):
        turn = 0

        def reduce(gradient):
            nonlocal turn
            turn += 1
            sums[rank, turn] = gradient
            computing.release()
            try:
                meeting.wait(timeout=20)
            finally:
                computing.acquire()
            return sum(sums[other, turn] for other in range(len(methods))) / len(methods)

        with computing:
            try:
                step_in_phases(methods[rank], [rows[rank] for rows in batches], reduce)
            except BaseException as error:
                failures.append(error)
                meeting.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(methods))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures, failures[0]


def outcome(method):
    return [value.detach() for value in (*method.model.parameters(), *method.state_dict().values())]


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_take_the_step_of_their_averaged_gradients(name):
    """Two ranks with other rows each, in lockstep, end with equal weights: only if every gradient was averaged."""
    problem = Problem("mlp")
    methods = [fresh(name, problem) for _ in range(2)]
    drawn = [[problem.batches(10 * index + rank) for rank in range(2)] for index in range(3)]
    step_on_ranks(methods, [[(with_truth(name, noisy), trusted) for noisy, trusted in rows] for rows in drawn])
    for ours, theirs in zip(outcome(methods[0]), outcome(methods[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# emlc draws the wrong labels of its gate anew on each rank
@pytest.mark.parametrize("name", [name for name in METHODS if name != "emlc"])
def test_two_ranks_do_what_one_process_does_with_the_rows_of_both(name):
    problem = Problem("mlp", class_weights=CLASS_WEIGHTS)
    alone, methods, whole, batches = fresh(name, problem), [fresh(name, problem) for _ in range(2)], [], []
    for index in range(3):
        noisy, trusted = problem.batches(index, n_trusted=8, pairs=True)
        noisy = with_truth(name, noisy)
        # the halves of each rank's trusted rows are halves of the whole's
        batches.append([(noisy[rank * 6 : rank * 6 + 6], trusted[torch.arange(8) // 2 % 2 == rank]) for rank in (0, 1)])
        whole.append((noisy, trusted))
    step_in_phases(alone, whole)
    step_on_ranks(methods, batches)
    for ours, theirs in zip(outcome(alone), outcome(methods[1]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


UNWEIGHTED = ("trusted-only", "bayes")
"""Methods that train on no noisy row."""


@pytest.mark.parametrize("name", METHODS)
def test_class_weights_of_one_change_nothing_and_others_do(name, problem):
    plain = outcome(trained(name, problem))
    weighted = {}
    for key, weights in (("ones", torch.ones(3)), ("others", CLASS_WEIGHTS)):
        problem.setup = replace(problem.setup, class_weights=weights)
        weighted[key] = outcome(trained(name, problem))
    for ours, theirs in zip(plain, weighted["ones"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    gap = max(float((a.double() - b.double()).abs().max()) for a, b in zip(plain, weighted["others"], strict=True))
    assert (gap == 0) == (name in UNWEIGHTED)


@pytest.mark.parametrize("name", METHODS)
def test_suggestions_are_never_weighted(name, problem):
    noisy, _ = problem.batches(9)
    method = trained(name, problem)
    problem.setup = replace(problem.setup, class_weights=CLASS_WEIGHTS)
    weighted = create(name, problem)
    weighted.model.eval()
    with torch.no_grad():
        weighted.model.load_state_dict(method.model.state_dict())
        weighted.load_state_dict(method.state_dict())
        assert torch.equal(method.suggest(noisy.inputs, noisy.given), weighted.suggest(noisy.inputs, noisy.given))


def test_class_weights_multiply_targets_and_losses_of_labels():
    setup = Problem("mlp", class_weights=torch.tensor([0.5, 1.0, 1.5])).setup
    targets = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(setup.weigh(targets), torch.tensor([[0.1, 0.3, 0.75], [0.5, 0.0, 0.0]]))
    rows = setup.weigh_rows(torch.tensor([2.0, 4.0]), torch.tensor([2, 0]))
    torch.testing.assert_close(rows, torch.tensor([3.0, 2.0]))
    plain = replace(setup, class_weights=None)
    assert plain.weigh(targets) is targets


def test_as_many_class_weights_as_classes():
    with pytest.raises(ValueError, match=r"\[2\] class weights for 3"):
        Problem("mlp", class_weights=torch.ones(2))


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
