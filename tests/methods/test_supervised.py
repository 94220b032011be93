"""Plain and loss-corrected training against torch.optim and explicit sums."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ebomlc.errors import InputError
from ebomlc.methods import EpochContext, StepContext, find_method
from ebomlc.methods.supervised import (
    bayes_posterior,
    count_pairs,
    forward_corrected_loss,
    transition_from_trusted,
)
from ebomlc.records import NO_LABEL, Batch


def create(name, problem):
    entry = find_method(name)
    return entry.create(entry.parse_settings({}), problem.setup)


def epoch(noisy, trusted, number, epochs):
    return EpochContext(number, epochs, lambda: iter([noisy]), lambda: iter([trusted]))


@pytest.mark.parametrize("name", ["ce", "oracle", "trusted-only"])
def test_step_is_one_of_torch_optim(problem, name):
    method = create(name, problem)
    method.model.train()
    twin = copy.deepcopy(method.model)
    sgd = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    for index, lr in enumerate((0.3, 0.1, 0.2)):
        noisy, trusted = problem.batches(index)
        right = (noisy.given + 1) % 3
        noisy = Batch(noisy.inputs, noisy.given, right, noisy.index)
        losses = [] if name == "trusted-only" else [(noisy, right if name == "oracle" else noisy.given)]
        losses.append((trusted, trusted.right))
        total = sum(F.cross_entropy(twin(b.inputs).logits, labels, reduction="sum") for b, labels in losses)
        sgd.zero_grad()
        (total / sum(len(b) for b, _ in losses)).backward()
        sgd.param_groups[0]["lr"] = lr
        sgd.step()
        method.step(noisy, trusted, StepContext(lr, 0.0))
    for ours, theirs in zip(method.model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_ce_never_reads_the_right_labels_of_noisy_rows(problem):
    outcomes = []
    for hidden in (NO_LABEL, 2):
        method = create("ce", problem)
        noisy, trusted = problem.batches(0)
        noisy = Batch(noisy.inputs, noisy.given, torch.full_like(noisy.given, hidden), noisy.index)
        method.step(noisy, trusted, StepContext(0.1, 0.0))
        outcomes.append(method.learner.flat.vector.clone())
    assert torch.equal(*outcomes)


def test_transition_counts_pairs_and_averages_predictions():
    predicted = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    inputs = torch.arange(5.0)[:, None]
    right = torch.tensor([0, 0, 1, 1, 1])
    given = torch.tensor([NO_LABEL, 2, 1, 0, NO_LABEL])
    batch = Batch(inputs, given, right, torch.arange(5))
    asked = []

    def probabilities(rows):
        asked.extend(rows[:, 0].tolist())
        return predicted

    T = transition_from_trusted(iter([batch]), probabilities, 3)
    assert asked == [0.0, 4.0], "only rows without a given label are predicted"
    first = torch.tensor([0.6, 0.3, 0.1]) + torch.tensor([0.0, 0.0, 1.0]) + 1 / 3
    second = torch.tensor([0.2, 0.5, 0.3]) + torch.tensor([1.0, 1.0, 0.0]) + 1 / 3
    torch.testing.assert_close(T[0].float(), first / first.sum())
    torch.testing.assert_close(T[1].float(), second / second.sum())
    assert T[2, 2] > 0.999, "a class without trusted rows counts as never mislabelled"
    assert T[2].min() > 0, "its logarithm must be finite"
    torch.testing.assert_close(T.sum(1), torch.ones(3, dtype=torch.float64))


def test_pairs_are_counted_right_by_given():
    counts = count_pairs(torch.tensor([0, 0, 2]), torch.tensor([1, 1, NO_LABEL]), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]


def test_corrected_loss_and_posterior_follow_the_definitions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    T = torch.rand(3, 3, generator=generator, dtype=torch.float64)
    T = T / T.sum(1, keepdim=True)
    given = torch.tensor([0, 1, 2, 0, 1, 2])
    p = logits.softmax(1)
    rows = forward_corrected_loss(logits, given, T)
    posterior = bayes_posterior(p, given, T)
    for i in range(6):
        joint = [float(p[i, k] * T[k, given[i]]) for k in range(3)]
        assert float(rows[i]) == pytest.approx(-torch.tensor(sum(joint)).log().item(), rel=1e-6)
        assert posterior[i].tolist() == pytest.approx([value / sum(joint) for value in joint])


def test_glc_starts_afresh_after_its_first_phase(problem):
    method = create("glc", problem)
    noisy, trusted = problem.batches(0)
    first = method.model
    for number in range(3):
        method.begin_epoch(epoch(noisy, trusted, number, 6))
        if number < 2:
            assert method.model is first
            method.step(noisy, trusted, StepContext(0.3, 0.0))
    assert method.model is not first
    assert method.transition.shape == (3, 3)
    torch.testing.assert_close(method.learner.flat.vector, create("ce", problem).learner.flat.vector)
    before = method.suggest(noisy.inputs, noisy.given)
    expected = bayes_posterior(method.learner.probabilities(noisy.inputs), noisy.given, method.transition)
    torch.testing.assert_close(before, expected)


def test_glc_first_phase_leaves_the_trusted_rows_out(problem):
    noisy, trusted = problem.batches(0)
    _, others = problem.batches(9)
    outcomes = []
    for rows in (trusted, others):
        method = create("glc", problem)
        method.begin_epoch(epoch(noisy, rows, 0, 6))
        method.step(noisy, rows, StepContext(0.3, 0.0))
        outcomes.append(method.learner.flat.vector.clone())
    assert torch.equal(*outcomes)


def test_glc_phase_must_be_a_share():
    with pytest.raises(InputError, match="between 0 and 1"):
        find_method("glc").parse_settings({"first_phase": 1.0})
