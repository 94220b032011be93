import re

import pytest
import torch
from torch import nn

from ebomlc.bilevel import SGD, AdamW, FlatParameters, InnerState, initial_state, inner_step, step_sensitivity

RATES = [0.1, 0.1, 0.05, 0.2, 0.01, 0.01, 0.3]
SGDS = [
    SGD(momentum=0, weight_decay=0),
    SGD(momentum=0, weight_decay=0.1),
    SGD(momentum=0.9, weight_decay=0),
    SGD(),
    SGD(momentum=0.8, dampening=0.3, weight_decay=0.05),
    SGD(momentum=0, dampening=0.3),
    SGD(momentum=0.9, nesterov=True, weight_decay=0.01),
]
ADAMS = [AdamW(), AdamW(beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0), AdamW(beta1=0.0, weight_decay=0.3)]


def torch_optimizer(parameters, optimizer, **options):
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(parameters, lr=1.0, **vars(optimizer), **options)
    betas = (optimizer.beta1, optimizer.beta2)
    return torch.optim.AdamW(
        parameters, lr=1.0, betas=betas, eps=optimizer.eps, weight_decay=optimizer.weight_decay, **options
    )


def random_vector(size=37):
    return torch.randn(size, dtype=torch.float64)


def walk(optimizer, gradients, rates=RATES):
    """Weights and state after some steps from fixed weights."""
    weights, state = torch.linspace(-1, 1, len(gradients[0]), dtype=torch.float64), initial_state()
    for gradient, lr in zip(gradients, rates, strict=False):
        weights, state = inner_step(weights, gradient, state, optimizer, lr)
    return weights, state


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("optimizer", [*SGDS, *ADAMS], ids=str)
def test_equals_torch_optim_bit_for_bit(optimizer, foreach):
    weights, state = random_vector(), initial_state()
    parameter = nn.Parameter(weights.clone())
    reference = torch_optimizer([parameter], optimizer, foreach=foreach)
    for step, lr in enumerate(RATES, start=1):
        gradient = random_vector()
        parameter.grad = gradient.clone()
        reference.param_groups[0]["lr"] = lr
        reference.step()
        weights, state = inner_step(weights, gradient, state, optimizer, lr)
        assert torch.equal(weights, parameter.detach()), f"step {step}"
        assert state.steps == step


@pytest.mark.parametrize("optimizer", [SGDS[3], SGDS[6], ADAMS[0]], ids=str)
def test_one_flat_step_equals_torch_optim_on_a_module(optimizer):
    net = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    twin = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    twin.load_state_dict(net.state_dict())
    flat, state, reference = FlatParameters(net), initial_state(), torch_optimizer(twin.parameters(), optimizer)
    for lr in RATES:
        inputs = torch.randn(5, 3, dtype=torch.float64)
        weights, state = inner_step(flat.vector, flat.gradient(net(inputs).square().mean()), state, optimizer, lr)
        flat.assign(weights)
        reference.param_groups[0]["lr"] = lr
        reference.zero_grad()
        twin(inputs).square().mean().backward()
        reference.step()
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("optimizer", [*SGDS, *ADAMS], ids=str)
def test_arguments_stay_untouched_and_results_are_new(optimizer):
    gradients = [random_vector(), random_vector()]
    weights, state = walk(optimizer, gradients[:1])
    arguments = [t for t in (weights, *gradients, state.first, state.second) if t is not None]
    kept = [t.clone() for t in arguments]
    _, first = inner_step(weights, gradients[0], initial_state(), optimizer, 0.1)
    new, second = inner_step(weights, gradients[1], state, optimizer, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(kept, arguments, strict=True))
    given = {t.data_ptr() for t in arguments}
    made = {t.data_ptr() for t in (new, first.first, second.first, second.second) if t is not None}
    assert not given & made


@pytest.mark.parametrize("steps_before", [0, 1, 4])
@pytest.mark.parametrize("optimizer", SGDS, ids=str)
def test_sgd_sensitivity_equals_finite_differences(optimizer, steps_before):
    weights, state = walk(optimizer, [random_vector() for _ in range(steps_before)] or [random_vector()])
    state = initial_state() if steps_before == 0 else state
    gradient, direction = random_vector(), random_vector()
    ahead, behind = (inner_step(weights, gradient + h * direction, state, optimizer, 0.3)[0] for h in (0.5, -0.5))
    sensitivity = step_sensitivity(gradient, state, optimizer, 0.3)
    assert isinstance(sensitivity, float)
    assert torch.allclose(ahead - behind, sensitivity * direction, rtol=1e-10, atol=1e-12)


def test_sgd_sensitivity_in_numbers():
    later = InnerState(1, torch.zeros(1), None)
    assert step_sensitivity(torch.ones(1), initial_state(), SGD(0.9, 0.25), 0.1) == pytest.approx(-0.1)
    assert step_sensitivity(torch.ones(1), later, SGD(0.9, 0.25), 0.1) == pytest.approx(-0.075)
    assert step_sensitivity(torch.ones(1), initial_state(), SGD(0.9, nesterov=True), 0.1) == pytest.approx(-0.19)
    assert step_sensitivity(torch.ones(1), later, SGD(0.9, nesterov=True), 0.1) == pytest.approx(-0.19)


@pytest.mark.parametrize("optimizer", [*SGDS, *ADAMS], ids=str)
def test_step_is_differentiable_in_the_gradient(optimizer):
    weights, state = walk(optimizer, [random_vector(5), random_vector(5)])
    gradient = random_vector(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: inner_step(weights, g, state, optimizer, 0.2)[0], (gradient,))


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("optimizer", ADAMS, ids=str)
def test_adamw_sensitivity_equals_autograd_with_a_constant_second_moment(optimizer, steps_before):
    gradients = [random_vector() for _ in range(steps_before)]
    mean = square = torch.zeros(37, dtype=torch.float64)
    state = walk(optimizer, gradients)[1] if gradients else initial_state()
    gradient = random_vector().requires_grad_()
    for past in [*gradients, gradient]:
        mean = optimizer.beta1 * mean + (1 - optimizer.beta1) * past
        square = optimizer.beta2 * square + (1 - optimizer.beta2) * past.detach() ** 2
    t = steps_before + 1
    root = (square / (1 - optimizer.beta2**t)).sqrt() + optimizer.eps
    moved = -0.2 * mean / (1 - optimizer.beta1**t) / root
    expected = torch.autograd.grad(moved.sum(), gradient)[0]
    sensitivity = step_sensitivity(gradient, state, optimizer, 0.2)
    assert torch.allclose(sensitivity, expected, rtol=1e-12)
    assert not sensitivity.requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "momentum must be in [0, 1), got 1.0"),
        (lambda: SGD(momentum=-0.1), "momentum must be in [0, 1), got -0.1"),
        (lambda: SGD(dampening=-0.1), "dampening must be in [0, 1], got -0.1"),
        (lambda: SGD(dampening=1.5), "dampening must be in [0, 1], got 1.5"),
        (lambda: SGD(weight_decay=-1), "weight_decay must be at least 0, got -1"),
        (lambda: SGD(weight_decay=float("nan")), "weight_decay must be at least 0, got nan"),
        (lambda: SGD(weight_decay=float("inf")), "weight_decay must be at least 0, got inf"),
        (lambda: SGD(momentum=0, nesterov=True), "nesterov needs a momentum above 0 and a dampening of 0"),
        (lambda: SGD(dampening=0.1, nesterov=True), "nesterov needs a momentum above 0 and a dampening of 0"),
        (lambda: AdamW(beta1=1), "beta1 must be in [0, 1), got 1"),
        (lambda: AdamW(beta1=-0.5), "beta1 must be in [0, 1), got -0.5"),
        (lambda: AdamW(beta2=1), "beta2 must be in [0, 1), got 1"),
        (lambda: AdamW(beta2=-0.5), "beta2 must be in [0, 1), got -0.5"),
        (lambda: AdamW(eps=0), "eps must be above 0, got 0"),
        (lambda: AdamW(eps=float("inf")), "eps must be above 0, got inf"),
        (lambda: AdamW(weight_decay=-0.5), "weight_decay must be at least 0, got -0.5"),
        (lambda: AdamW(weight_decay=float("inf")), "weight_decay must be at least 0, got inf"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(momentum=0, dampening=0, weight_decay=0),
        lambda: SGD(momentum=0.999, dampening=1, weight_decay=1e6),
        lambda: AdamW(beta1=0, beta2=0, eps=1e-30, weight_decay=0),
        lambda: AdamW(beta1=0.999, beta2=0.9999, eps=1e6, weight_decay=1e6),
    ],
)
def test_settings_at_the_edge_of_their_range_are_taken(make):
    assert make() == make()
