"""Transition matrices and training through them, against explicit sums."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ebomlc.errors import InputError
from ebomlc.methods import EpochContext, StepContext, find_method
from ebomlc.methods.transition import (
    bayes_posterior,
    count_pairs,
    forward_corrected_loss,
    transition_from_anchors,
    transition_from_pairs,
    transition_from_predictions,
    transition_from_trusted,
    weight_of_given,
)
from ebomlc.records import NO_LABEL, Batch
from tests.methods.conftest import CLASS_WEIGHTS, MODELS, Problem, create


def epoch(noisy, trusted, number, epochs):
    return EpochContext(number, epochs, lambda: iter([noisy]), lambda: iter([trusted]))


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


def pool_by_hand(p, T, given, weight):
    rows = []
    for i in range(len(p)):
        joint = [float(p[i, k]) * float(T[k, given[i]]) ** weight for k in range(p.shape[1])]
        rows.append([value / sum(joint) for value in joint])
    return torch.tensor(rows, dtype=torch.float64)


def mistakes(n, *, follow_input, seed=0):
    """p(right | x), right and given labels: given by the right label alone, or by a rule that sees x alone."""
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, 3, generator=generator, dtype=torch.float64)).softmax(1)
    T = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.1, 0.7]], dtype=torch.float64)
    right = torch.multinomial(p, 1, generator=generator)[:, 0]
    source = p.argmax(1) if follow_input else right
    given = torch.multinomial(T[source], 1, generator=generator)[:, 0]
    counts = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    counts.index_put_((right, given), torch.ones(n, dtype=torch.float64), accumulate=True)
    return p, right, given, counts / counts.sum(1, keepdim=True)


def test_a_weighted_given_label_counts_by_its_power():
    p, _, given, T = mistakes(20, follow_input=False)
    for weight in (0.0, 0.3, 1.0):
        torch.testing.assert_close(bayes_posterior(p, given, T, weight), pool_by_hand(p, T, given, weight))


def test_weight_of_given_is_the_likeliest_under_its_prior():
    p, right, given, T = mistakes(60, follow_input=True)
    steps = [i / 1000 for i in range(1001)]
    rows = torch.arange(60)
    costs = [-float(pool_by_hand(p, T, given, b)[rows, right].log().sum()) + 2 * (b - 1) ** 2 for b in steps[::10]]
    best = steps[::10][costs.index(min(costs))]
    assert weight_of_given(p, right, given, T) == pytest.approx(best, abs=0.011)


def test_given_labels_that_repeat_the_input_count_little():
    assert weight_of_given(*mistakes(2000, follow_input=False)) > 0.9
    assert weight_of_given(*mistakes(2000, follow_input=True)) < 0.1


def test_a_few_pairs_hardly_move_the_weight_of_given():
    weights = [weight_of_given(*mistakes(2, follow_input=True, seed=seed)) for seed in range(20)]
    assert min(weights) > 0.5


def test_an_impossible_prediction_does_not_break_the_weight():
    p = torch.eye(3, dtype=torch.float64)
    _, _, _, T = mistakes(100, follow_input=False)
    assert 0 <= weight_of_given(p, torch.tensor([1, 2, 0]), torch.tensor([0, 1, 2]), T) <= 1


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


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ["glc", "forward"])
def test_class_weights_are_those_of_the_given_label_in_both_phases(name, kind):
    problem = Problem(kind, class_weights=CLASS_WEIGHTS)
    method = create(name, problem)
    noisy, trusted = problem.batches(0)
    for number in (0, 4):
        method.begin_epoch(epoch(noisy, trusted, number, 6))
        method.model.train()
        model = copy.deepcopy(method.model)
        p = model(noisy.inputs).logits.softmax(1)
        if number == 0:
            seen, n_rows, trusted_sum = p[torch.arange(len(noisy)), noisy.given], len(noisy), 0
        else:
            seen, n_rows = (p * method.transition.T[noisy.given]).sum(1), len(noisy) + len(trusted)
            trusted_sum = F.cross_entropy(model(trusted.inputs).logits, trusted.right, reduction="sum")
        loss = (-(CLASS_WEIGHTS[noisy.given] * seen.log()).sum() + trusted_sum) / n_rows
        gradient = method.learner.flat.flatten(torch.autograd.grad(loss, list(model.parameters())))
        expected, _ = method.learner.look_ahead(gradient, 0.3)
        method.step(noisy, trusted, StepContext(0.3, 0.0))
        torch.testing.assert_close(method.learner.flat.vector, expected, rtol=1e-10, atol=1e-12)


def test_anchor_is_the_row_at_the_percentile_of_its_class():
    predicted = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    predicted[7, 2] = 0.0
    predicted = predicted / predicted.sum(1, keepdim=True)
    T = transition_from_anchors(predicted, 0.97)
    for k in range(3):
        by_surety = sorted(range(200), key=lambda i: float(predicted[i, k]))
        torch.testing.assert_close(T[k], predicted[by_surety[194]], rtol=1e-12, atol=1e-12)
    top = transition_from_anchors(predicted, 1.0)
    torch.testing.assert_close(top.diagonal(), predicted.max(0).values, rtol=0, atol=1e-5)
    lowest = transition_from_anchors(predicted, 0.0)
    assert lowest.min() > 0, "its logarithm must be finite"


def log_likelihood(T, predicted, given):
    return float((predicted * T.T[given]).sum(1).log().sum())


def draw_given(right, T, generator):
    return torch.multinomial(T[right], 1, generator=generator)[:, 0]


def test_expected_counts_find_the_matrix_behind_the_labels():
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]], dtype=torch.float64)
    predicted = (3 * torch.randn(6000, 3, generator=generator, dtype=torch.float64)).softmax(1)
    right = torch.multinomial(predicted, 1, generator=generator)[:, 0]
    given = draw_given(right, true, generator)
    T = transition_from_predictions(predicted, given)
    torch.testing.assert_close(T.sum(1), torch.ones(3, dtype=torch.float64))
    assert (T - true).abs().max() < 0.05
    best = log_likelihood(T, predicted, given)
    for k in range(20):
        nudged = (T * torch.exp(0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(k)))).double()
        assert log_likelihood(nudged / nudged.sum(1, keepdim=True), predicted, given) < best


def test_the_other_estimate_counts_as_one_pair_for_each_cell_of_a_row():
    pairs = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    expected = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    T = transition_from_pairs(pairs, expected)
    torch.testing.assert_close(T, torch.tensor([[4 / 6, 2 / 6], [0.2, 0.8]]))


@pytest.mark.parametrize("pairs", [False, True])
def test_bayes_trains_on_trusted_rows_alone_and_suggests_by_its_matrix(problem, pairs):
    method, plain = create("bayes", problem), create("trusted-only", problem)
    for index in range(3):
        noisy, trusted = problem.batches(index, pairs=pairs)
        method.begin_epoch(epoch(noisy, trusted, index, 3))
        assert (method.transition is None) == (index == 0), "an untrained model has nothing to say"
        method.model.eval()
        with torch.no_grad():
            p = method.learner.probabilities(noisy.inputs)
        for one in (method, plain):
            one.model.train()
            one.step(noisy, trusted, StepContext(0.3, 0.0))
    assert torch.equal(method.learner.flat.vector, plain.learner.flat.vector)
    expected = transition_from_predictions(p, noisy.given)
    if pairs:
        expected = transition_from_pairs(count_pairs(trusted.right, trusted.given, 3), expected)
    torch.testing.assert_close(method.transition, expected)
    method.model.eval()
    with torch.no_grad():
        suggested = method.suggest(noisy.inputs, noisy.given)
        joint = method.learner.probabilities(noisy.inputs) * expected.T[noisy.given]
    torch.testing.assert_close(suggested, joint / joint.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("name", "values"), [("forward", {"percentile": 1.1}), ("forward", {"first_phase": 0.0}), ("bayes", {"rounds": 0})]
)
def test_settings_out_of_range_are_refused(name, values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method(name).parse_settings(values)
