"""EBOMLC's steps against a plain reimplementation with torch.optim, module copies and .backward()."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ebomlc.bilevel import frozen_statistics
from ebomlc.errors import InputError
from ebomlc.methods import StepContext, find_method
from ebomlc.methods.ebomlc import Ebomlc, EbomlcLiteral, EbomlcLiteralSettings, EbomlcSettings, mixture_loss
from ebomlc.methods.learner import halve
from ebomlc.records import NO_LABEL
from tests.methods.conftest import CLASS_WEIGHTS, MODELS, Problem

RATES = (0.3, 0.2, 0.05)


class Reference:
    """METHOD.md section 3 written once more, naively, for one inner step."""

    def __init__(self, method, settings, problem) -> None:
        self.settings = settings
        weights = problem.setup.class_weights
        self.class_weights = torch.ones(3) if weights is None else weights
        self.model = copy.deepcopy(method.model)
        self.corrector = copy.deepcopy(method.corrector.network)
        optimizer = problem.optimizer
        self.sgd = torch.optim.SGD(
            self.model.parameters(), 0.1, momentum=optimizer.momentum, weight_decay=optimizer.weight_decay
        )
        self.adam = torch.optim.Adam(self.corrector.parameters(), lr=settings.corrector_lr, amsgrad=True)

    def lower(self, model, noisy, trusted, targets):
        noisy_log = model(noisy.inputs).logits.log_softmax(1)
        trusted_log = model(trusted.inputs).logits.log_softmax(1)
        total = (
            -(self.class_weights * targets * noisy_log).sum()
            - trusted_log[torch.arange(len(trusted)), trusted.right].sum()
        )
        return total / (len(noisy) + len(trusted)), noisy_log

    def step(self, noisy, trusted, lr) -> None:
        settings = self.settings
        first, second = halve(trusted)
        parameters, meta = list(self.model.parameters()), list(self.corrector.parameters())
        n_rows = len(noisy) + len(first)

        before_model = copy.deepcopy(self.model)
        features = before_model(noisy.inputs).features.detach()
        targets = self.corrector(features, noisy.given)
        fixed = targets.detach()
        loss, log_before = self.lower(self.model, noisy, first, fixed)
        gradient = torch.autograd.grad(loss, parameters)
        self.sgd.param_groups[0]["lr"] = lr
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = g
        self.sgd.step()

        with frozen_statistics(self.model):
            loss_after, log_after = self.lower(self.model, noisy, first, fixed)
            gradient_after = torch.autograd.grad(loss_after, parameters)
            output = self.model(second.inputs)
        difference = (log_before - log_after).detach()
        gap_meta = torch.autograd.grad(-(self.class_weights * targets * difference).sum() / n_rows, meta)
        shown = second.right
        if settings.show_given:
            shown = torch.where(second.given == NO_LABEL, second.right, second.given)
        corrected = self.corrector(output.features.detach(), shown)
        mixed = settings.rho * output.logits + (1 - settings.rho) * corrected
        upper = F.nll_loss(mixed.log_softmax(1), second.right)
        upper_main = torch.autograd.grad(upper, parameters, retain_graph=True)
        upper_meta = torch.autograd.grad(upper, meta, allow_unused=True)
        upper_meta = [torch.zeros_like(p) if g is None else g for p, g in zip(meta, upper_meta, strict=True)]

        gap_main = [a - b for a, b in zip(gradient, gradient_after, strict=True)]
        if settings.gap_gradient == "constant":
            gap_main = list(gradient)
        norm = sum((g**2).sum() for g in gap_main) + sum((g**2).sum() for g in gap_meta)
        inner = sum((f * q).sum() for f, q in zip(upper_main, gap_main, strict=True))
        if settings.barrier == "joint":
            inner = inner + sum((f * q).sum() for f, q in zip(upper_meta, gap_meta, strict=True))
        self.beta = settings.xi * torch.clamp(settings.delta * norm - inner, min=0) / (norm + 1e-8)
        if settings.barrier == "none":
            self.beta = torch.zeros(())
        with torch.no_grad():
            for parameter, f, q in zip(parameters, upper_main, gap_main, strict=True):
                parameter -= lr * (f + self.beta * q)
        for parameter, f, q in zip(meta, upper_meta, gap_meta, strict=True):
            parameter.grad = f + self.beta * q
        self.adam.step()


VARIANTS = {
    "default": {},
    "authors": {"rho": 0.2, "xi": 0.5, "delta": 0.25},
    "no mixture": {"rho": 1.0},
    "joint alignment": {"barrier": "joint", "delta": 5.0},
    "no barrier": {"barrier": "none"},
    "constant gap": {"gap_gradient": "constant"},
    "strong barrier": {"delta": 20.0},
    "right labels shown": {"show_given": False},
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("variant", "weights"), [*((name, None) for name in VARIANTS), ("default", CLASS_WEIGHTS)])
def test_steps_equal_the_naive_form(kind, variant, weights):
    problem = Problem(kind, class_weights=weights)
    settings = EbomlcSettings(corrector_lr=0.05, **VARIANTS[variant])
    method = Ebomlc(settings, problem.setup)
    reference = Reference(method, settings, problem)
    method.model.train()
    reference.model.train()
    betas = []
    for index, lr in enumerate(RATES):
        noisy, trusted = problem.batches(index, pairs=True)
        report = method.step(noisy, trusted, StepContext(lr, 0.0))
        reference.step(noisy, trusted, lr)
        betas.append(float(report.measures["beta"]))
        torch.testing.assert_close(report.measures["beta"], reference.beta.double(), rtol=1e-8, atol=1e-12)
    for ours, theirs in zip(method.model.state_dict().values(), reference.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(method.corrector.network.parameters(), reference.corrector.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    if variant == "strong barrier":
        assert max(betas) > 0, "the barrier never acted, so it was not tested"


def test_barrier_looks_at_the_main_block_only(problem):
    outcomes = []
    for barrier in ("main", "main", "joint"):
        torch.manual_seed(0)
        method = Ebomlc(EbomlcSettings(barrier=barrier, delta=5.0), problem.setup)
        noisy, trusted = problem.batches(0)
        outcomes.append(float(method.step(noisy, trusted, StepContext(0.3, 0.0)).measures["beta"]))
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_several_inner_steps_are_kept(problem):
    noisy, trusted = problem.batches(0)
    moved = []
    for inner_steps in (1, 1, 5):
        torch.manual_seed(0)
        method = Ebomlc(EbomlcSettings(inner_steps=inner_steps, barrier="none"), problem.setup)
        method.step(noisy, trusted, StepContext(0.1, 0.0))
        assert method.main.state.steps == inner_steps
        moved.append(method.main.flat.vector.clone())
    assert torch.equal(moved[0], moved[1])
    assert not torch.allclose(moved[0], moved[2])


def test_only_the_forwards_before_the_step_move_the_statistics(problem):
    method = Ebomlc(EbomlcSettings(), problem.setup)
    method.model.train()
    noisy, trusted = problem.batches(0)
    expected = copy.deepcopy(method.model)
    first, _ = halve(trusted)
    expected(noisy.inputs)
    expected(first.inputs)
    method.step(noisy, trusted, StepContext(0.1, 0.0))
    for ours, theirs in zip(method.model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_mixture_adds_logits_and_probabilities():
    logits, corrected = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.25, 0.75]])
    expected = -torch.log_softmax(0.4 * logits + 0.6 * corrected, 1)[0, 1]
    assert mixture_loss(logits, corrected, torch.tensor([1]), 0.4) == pytest.approx(float(expected))


class LiteralReference(Reference):
    """The seven lines of METHOD.md on the published code, with separate module parameters."""

    def direction(self, gradients):
        states = [self.sgd.state[p].get("momentum_buffer") for p in self.model.parameters()]
        momentum, decay = self.sgd.param_groups[0]["momentum"], self.sgd.param_groups[0]["weight_decay"]
        return [
            (0 if buffer is None else momentum * buffer) + g + decay * p.detach()
            for buffer, g, p in zip(states, gradients, self.model.parameters(), strict=True)
        ]

    def gradients(self, noisy, first):
        output = self.model(noisy.inputs)
        trusted_logits = self.model(first.inputs).logits
        targets = self.class_weights * self.corrector(output.features.detach(), noisy.given)
        log, n_rows = output.logits.log_softmax(1), len(noisy) + len(first)
        trusted_sum = F.cross_entropy(trusted_logits, first.right, reduction="sum")
        main = torch.autograd.grad(
            (-(targets.detach() * log).sum() + trusted_sum) / n_rows, list(self.model.parameters()), retain_graph=True
        )
        meta = torch.autograd.grad(-(targets * log.detach()).sum() / n_rows, list(self.corrector.parameters()))
        return main, meta

    def step(self, noisy, trusted, lr) -> None:
        settings = self.settings
        first, second = halve(trusted)
        parameters, meta = list(self.model.parameters()), list(self.corrector.parameters())
        output = self.model(second.inputs)
        upper = mixture_loss(output.logits, self.corrector(output.features, second.right), second.right, settings.rho)
        upper_main = torch.autograd.grad(upper, parameters, retain_graph=True)
        upper_meta = torch.autograd.grad(upper, meta)
        upper_step = [-lr * d for d in self.direction(upper_main)]
        main_1, meta_1 = self.gradients(noisy, first)
        with torch.no_grad():
            for p, d in zip(parameters, self.direction(main_1), strict=True):
                p -= lr * d
        main_2, meta_2 = self.gradients(noisy, first)
        gap_main = [a - b for a, b in zip(main_1, main_2, strict=True)]
        gap_meta = [a - b for a, b in zip(meta_1, meta_2, strict=True)]
        norm = sum((g**2).sum() for g in [*gap_main, *gap_meta])
        inner = sum((a * b).sum() for a, b in zip(gap_main, upper_step, strict=True))
        beta = settings.xi * torch.clamp(settings.delta * norm - inner, min=0) / (norm + 1e-8)
        if settings.step_on_gap:
            gap_main = [-lr * d for d in self.direction(gap_main)]
        self.sgd.param_groups[0]["lr"] = lr
        for p, q, f in zip(parameters, gap_main, upper_step, strict=True):
            p.grad = beta * q + f
        self.sgd.step()
        for p, q, f in zip(meta, gap_meta, upper_meta, strict=True):
            p.grad = beta * q + f
        self.adam.step()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("step_on_gap", "weights"), [(False, None), (True, None), (False, CLASS_WEIGHTS)])
def test_literal_steps_equal_the_naive_form(kind, step_on_gap, weights):
    problem = Problem(kind, class_weights=weights)
    settings = EbomlcLiteralSettings(corrector_lr=0.05, delta=3.0, step_on_gap=step_on_gap)
    method = EbomlcLiteral(settings, problem.setup)
    reference = LiteralReference(method, settings, problem)
    for index, lr in enumerate(RATES):
        noisy, trusted = problem.batches(index)
        method.step(noisy, trusted, StepContext(lr, 0.0))
        reference.step(noisy, trusted, lr)
    for ours, theirs in zip(method.model.state_dict().values(), reference.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(method.corrector.network.parameters(), reference.corrector.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "values", [{"rho": 1.2}, {"xi": -1.0}, {"inner_steps": 0}, {"barrier": "mian"}, {"gap_gradient": "no"}, {"rhoo": 1}]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(InputError):
        find_method("ebomlc").parse_settings(values)
