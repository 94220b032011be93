import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ebomlc.bilevel import FlatParameters, barrier_coefficient, frozen_statistics, gap_pullback, mixed_cross_entropy

LR = 0.4


def cosine(left, right):
    return float(F.cosine_similarity(left, right, dim=0))


def test_mixed_cross_entropy_by_hand():
    noisy, trusted = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).log_softmax(1), torch.zeros(1, 2)
    targets = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    half, first = torch.tensor(0.5).log(), noisy[1, 0]
    loss = mixed_cross_entropy(noisy, targets, trusted, torch.tensor([1]))
    assert torch.allclose(loss, (-half - first - half) / 3)


def test_mixed_cross_entropy_with_hard_targets_is_plain_cross_entropy():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    loss = mixed_cross_entropy(logits[:4], F.one_hot(labels[:4], 3).float(), logits[4:], labels[4:])
    assert torch.allclose(loss, F.cross_entropy(logits, labels))
    alone = mixed_cross_entropy(logits, F.one_hot(labels, 3).float(), logits[:0], labels[:0])
    assert torch.allclose(alone, F.cross_entropy(logits, labels))


def look_ahead(problem, differentiate):
    """Weights before and after one plain step, and the targets at w that both points share."""
    w = problem.w.vector.clone()
    targets = problem.targets(w, problem.a.vector).detach()
    return w, w - LR * differentiate(lambda v: problem.loss(v, targets), w), targets


def test_gap_pullback_equals_finite_differences(problem, differentiate):
    """Q with log p frozen at both points and the targets moving with a."""
    before, after, _ = look_ahead(problem, differentiate)
    features = problem.outputs(before, problem.noisy[0])[0].detach()
    log_before, log_after = problem.log_probabilities(before), problem.log_probabilities(after)
    targets = problem.corrector(features, problem.noisy[1])
    found = gap_pullback(targets, log_before, log_after, problem.a, problem.n_rows)

    def gap(a):
        moved = problem.targets(before, a)
        return problem.loss(before, moved) - problem.loss(after, moved)

    slopes = [
        (gap(problem.a.vector + d) - gap(problem.a.vector - d)) / 2e-4 for d in 1e-4 * torch.eye(len(found)).double()
    ]
    assert found.norm() > 1e-4
    assert torch.allclose(found, torch.stack(slopes), rtol=1e-5, atol=1e-9)


def test_gap_pullback_treats_the_log_probabilities_as_constants(problem):
    features = torch.randn(7, 4, dtype=torch.float64)
    targets = problem.corrector(features, problem.noisy[1])
    found = gap_pullback(targets, targets.square(), torch.zeros_like(targets), problem.a, 7)
    constant = targets.square().detach()
    again = problem.corrector(features, problem.noisy[1])
    assert torch.allclose(found, problem.a.gradient(-(again * constant).sum() / 7))


def test_gap_gradient_by_w_is_the_difference_of_two_lower_gradients(problem, differentiate):
    """METHOD.md section 3, step 2: what moving both points together does to Q, dw*/dw counted as the identity."""
    before, after, targets = look_ahead(problem, differentiate)
    gap_gradient = differentiate(lambda v: problem.loss(v, targets), before) - differentiate(
        lambda v: problem.loss(v, targets), after
    )

    def gap(shift):
        return problem.loss(before + shift, targets) - problem.loss(after + shift, targets)

    for _ in range(5):
        direction = torch.randn_like(before)
        slope = (gap(1e-5 * direction) - gap(-1e-5 * direction)) / 2e-5
        assert torch.allclose(gap_gradient @ direction, slope, rtol=1e-6, atol=1e-9)


def test_coefficient_by_hand():
    gap, upper = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([-1.0, -0.5, 7.0])
    beta = barrier_coefficient(gap, upper, slice(0, 2), xi=0.5, delta=0.25, eps=1.0)
    # ||Q||^2 = 9 over both blocks, <F, Q> = -2 over the main block: 0.5 (2.25 + 2) / (9 + 1)
    assert beta.item() == pytest.approx(0.5 * 4.25 / 10)
    assert beta.shape == ()


def test_norm_is_over_both_blocks_and_alignment_over_the_main_one():
    gap, upper, main = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 5.0]), slice(0, 1)
    beta = barrier_coefficient(gap, upper, main, xi=1, delta=0.5)
    assert beta.item() == pytest.approx((0.5 * 10 + 1) / 10)
    assert barrier_coefficient(gap, upper, slice(None), xi=1, delta=0.5) == 0
    corrector = torch.tensor([-1.0, 500.0])
    assert barrier_coefficient(gap, corrector, main, xi=1, delta=0.5) == beta


def test_coefficient_is_zero_when_the_upper_step_already_closes_the_gap():
    gap = torch.randn(8)
    assert barrier_coefficient(gap, gap, slice(0, 8), xi=1, delta=0.5) == 0
    assert barrier_coefficient(gap, -gap, slice(0, 8), xi=1, delta=0.5).item() == pytest.approx(1.5)


def test_coefficient_of_a_vanished_gap_is_finite():
    assert barrier_coefficient(torch.zeros(4), torch.ones(4), slice(0, 2), xi=1, delta=0.5) == 0


def test_naive_form_is_bome():
    gap, upper = torch.randn(2, 9, dtype=torch.float64)
    expected = max(0.0, 0.5 - float(gap @ upper / gap.square().sum()))
    assert barrier_coefficient(gap, upper, slice(None), xi=1, delta=0.5).item() == pytest.approx(expected, rel=1e-6)


def test_outer_step_with_the_barrier_keeps_the_promised_descent():
    """With main=slice(None), xi=1 and F + beta Q as step: <Q, F + beta Q> >= delta ||Q||^2 (Ye et al. 2022)."""
    for _ in range(20):
        gap, upper = torch.randn(2, 9, dtype=torch.float64)
        beta = barrier_coefficient(gap, upper, slice(None), xi=1, delta=0.5)
        assert gap @ (upper + beta * gap) >= 0.5 * gap @ gap * (1 - 1e-6)


def bfloat16_autocast_works() -> bool:
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return nn.Conv2d(1, 2, 3)(torch.zeros(1, 1, 4, 4)).dtype == torch.bfloat16
    except RuntimeError:
        return False


def small_cnn(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


@pytest.mark.skipif(not bfloat16_autocast_works(), reason="no bfloat16 autocast on this CPU")
def test_direction_of_the_gap_is_lost_in_bfloat16_at_small_rates():
    """Why the gap is computed in float32: it is a small difference (METHOD.md section 3)."""
    net = small_cnn()
    flat = FlatParameters(net)
    inputs, labels = torch.randn(256, 1, 12, 12), torch.randint(10, (256,))
    targets = (F.one_hot(labels, 10) + 0.1) / 2

    def gradient(enabled):
        with frozen_statistics(net), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = net(inputs).float()
        return flat.gradient(mixed_cross_entropy(logits[:192], targets[:192], logits[192:], labels[192:]))

    start = flat.vector.clone()
    step = gradient(False)
    cosines = {}
    for lr in (0.1, 0.01, 0.001):
        gaps = []
        for enabled in (False, True):
            flat.assign(start)
            before = gradient(enabled)
            flat.assign(start - lr * step)
            gaps.append(before - gradient(enabled))
        cosines[lr] = cosine(*gaps)
    assert cosines[0.1] > 0.95
    assert cosines[0.001] < 0.95
    assert cosines[0.1] > cosines[0.01] > cosines[0.001]
