import copy

import pytest
import torch
from torch.nn import functional as F

from ebomlc.bilevel import (
    SGD,
    AdamW,
    FlatParameters,
    directional_derivative,
    forward_hypergradient,
    initial_state,
    inner_step,
    reverse_hypergradient,
    step_sensitivity,
)

LR = 0.4
SETTINGS = {
    "first step": (SGD(), 0),
    "plain": (SGD(momentum=0, weight_decay=0), 0),
    "momentum": (SGD(weight_decay=0.01), 2),
    "dampening": (SGD(momentum=0.7, dampening=0.4), 2),
    "nesterov first": (SGD(nesterov=True), 0),
    "nesterov": (SGD(nesterov=True), 2),
}
sgd_settings = pytest.mark.parametrize(("optimizer", "steps"), SETTINGS.values(), ids=SETTINGS.keys())


def warm_state(optimizer, steps, size):
    """Optimizer state as if some steps had been taken before."""
    state = initial_state()
    for _ in range(steps):
        _, state = inner_step(torch.zeros(size).double(), torch.randn(size).double() * 0.1, state, optimizer, LR)
    return state


def by_reverse(problem, step):
    return reverse_hypergradient(problem.lower, problem.upper, problem.w.vector, problem.a.vector, step)


def by_forward(problem, optimizer, state, differentiate):
    w = problem.w.vector
    targets = problem.targets(w, problem.a.vector)
    gradient = differentiate(lambda v: problem.loss(v, targets.detach()), w)
    lookahead, _ = inner_step(w, gradient, state, optimizer, LR)
    tangent = step_sensitivity(gradient, state, optimizer, LR) * differentiate(problem.upper, lookahead)

    def log_probabilities(weights):
        return problem.log_probabilities(problem.w.flatten(list(weights.values())))

    attached = problem.corrector(problem.outputs(w, problem.noisy[0])[0].detach(), problem.noisy[1])
    return forward_hypergradient(
        log_probabilities, problem.w.unflatten(w), problem.w.unflatten(tangent), attached, problem.a, problem.n_rows
    )


def by_torch_optim(problem, optimizer, state, a):
    """F after one true step of torch.optim.SGD on a copy of the module, by a corrector with parameters a."""
    targets = problem.targets(problem.w.vector, a).detach()
    net = copy.deepcopy(problem.main)
    reference = torch.optim.SGD(net.parameters(), lr=LR, **vars(optimizer))
    if state.first is not None:
        for p, buffer in zip(net.parameters(), problem.w.unflatten(state.first).values(), strict=True):
            reference.state[p]["momentum_buffer"] = buffer.clone()
    noisy = -(targets * net(problem.noisy[0])[1].log_softmax(1)).sum()
    trusted = F.cross_entropy(net(problem.trusted[0])[1], problem.trusted[1], reduction="sum")
    ((noisy + trusted) / problem.n_rows).backward()
    reference.step()
    return F.cross_entropy(net(problem.heldout[0])[1], problem.heldout[1]).detach()


def by_finite_differences(function, a, h=1e-4):
    slopes = []
    for direction in torch.eye(len(a), dtype=a.dtype):
        slopes.append((function(a + h * direction) - function(a - h * direction)) / (2 * h))
    return torch.stack(slopes)


def relative_error(found, expected):
    assert expected.norm() > 1e-6
    return float((found - expected).norm() / expected.norm())


@sgd_settings
def test_forward_equals_reverse(problem, optimizer, steps, differentiate):
    state = warm_state(optimizer, steps, len(problem.w))
    reverse = by_reverse(problem, lambda g: inner_step(problem.w.vector, g, state, optimizer, LR)[0])
    forward = by_forward(problem, optimizer, state, differentiate)
    assert forward.shape == reverse.shape == (len(problem.a),)
    assert relative_error(forward, reverse) < 1e-10


@sgd_settings
def test_both_equal_finite_differences_of_true_steps(problem, optimizer, steps, differentiate):
    state = warm_state(optimizer, steps, len(problem.w))
    expected = by_finite_differences(lambda a: by_torch_optim(problem, optimizer, state, a), problem.a.vector)
    reverse = by_reverse(problem, lambda g: inner_step(problem.w.vector, g, state, optimizer, LR)[0])
    assert relative_error(reverse, expected) < 1e-6
    assert relative_error(by_forward(problem, optimizer, state, differentiate), expected) < 1e-6


def test_forward_equals_a_loop_over_rows_and_classes(problem, differentiate):
    """DF/da = sum over i, k of dq_ik/da <dF/dw(w*), grad -log p_ik> (-lr) / (n + n_c), one backward for each."""
    w, a, optimizer = problem.w.vector, problem.a.vector, SGD(momentum=0, weight_decay=0)
    plain = w - LR * differentiate(lambda v: problem.loss(v, problem.targets(w, a).detach()), w)
    upper = differentiate(problem.upper, plain)
    expected = torch.zeros_like(a)
    for i in range(len(problem.noisy[0])):
        for k in range(3):
            of_target = differentiate(lambda b, i=i, k=k: problem.targets(w, b)[i, k], a)
            of_log = differentiate(lambda v, i=i, k=k: problem.log_probabilities(v)[i, k], w)
            expected += of_target * (upper @ of_log) * LR / problem.n_rows
    assert relative_error(by_forward(problem, optimizer, initial_state(), differentiate), expected) < 1e-10


def test_tangent_is_taken_at_w_and_not_at_the_lookahead(problem, differentiate):
    """Guards the comparison itself: with the JVP at w* the forward form is measurably wrong."""
    optimizer, state = SGD(momentum=0, weight_decay=0), initial_state()
    right = by_forward(problem, optimizer, state, differentiate)
    log_at_w = problem.log_probabilities
    shift = 0.4 * torch.randn_like(problem.w.vector)
    problem.log_probabilities = lambda v: log_at_w(v + shift)
    assert relative_error(by_forward(problem, optimizer, state, differentiate), right) > 1e-2


@pytest.mark.parametrize("steps", [0, 2])
def test_adamw_forward_equals_reverse_with_a_constant_preconditioner(problem, steps, differentiate):
    optimizer = AdamW()
    state = warm_state(optimizer, steps, len(problem.w))
    w = problem.w.vector
    gradient = differentiate(lambda v: problem.lower(v, problem.a.vector), w)
    start, slope = inner_step(w, gradient, state, optimizer, LR)[0], step_sensitivity(gradient, state, optimizer, LR)
    reverse = by_reverse(problem, lambda g: start + slope * (g - gradient))
    forward = by_forward(problem, optimizer, state, differentiate)
    assert relative_error(forward, reverse) < 1e-10
    full = by_reverse(problem, lambda g: inner_step(w, g, state, optimizer, LR)[0])
    assert relative_error(forward, full) > 1e-3  # the approximation is one


def test_nothing_is_left_behind(problem, differentiate):
    state = {name: t.clone() for name, t in problem.main.state_dict().items()}
    by_reverse(problem, lambda g: problem.w.vector - LR * g)
    by_forward(problem, SGD(), initial_state(), differentiate)
    assert all(torch.equal(t, state[name]) for name, t in problem.main.state_dict().items())
    assert all(p.grad is None for p in [*problem.main.parameters(), *problem.corrector.parameters()])
    assert not problem.w.vector.requires_grad and not problem.a.vector.requires_grad


def test_reverse_is_zero_without_dependence_and_ignores_no_grad():
    w, a = torch.ones(2), torch.ones(3)
    with torch.no_grad():
        unused = reverse_hypergradient(lambda w, a: (w**2).sum(), torch.sum, w, a, lambda g: w - g)
        by_hand = reverse_hypergradient(lambda w, a: (w.sum() * a**2).sum(), torch.sum, w, a, lambda g: w - g)
    assert unused.tolist() == [0, 0, 0]
    assert by_hand.tolist() == [-4, -4, -4]  # w* = w - sum(a^2), F = sum w*, dF/da = - 2 * 2 a


def test_directional_derivative_builds_no_graph():
    net = torch.nn.Linear(2, 1)
    flat = FlatParameters(net)
    inputs = torch.tensor([[1.0, 2.0]])
    along = directional_derivative(
        lambda w: torch.func.functional_call(net, w, (inputs,)),
        dict(net.named_parameters()),
        flat.unflatten(torch.ones(3)),
    )
    assert along.tolist() == [[4.0]]
    assert not along.requires_grad


def test_what_does_not_depend_on_the_weights_does_not_change():
    weights = {"a": torch.ones(3, dtype=torch.float64)}
    change = directional_derivative(lambda at: torch.ones(2, 4, dtype=torch.float64), weights, weights)
    assert torch.equal(change, torch.zeros(2, 4, dtype=torch.float64))
