"""Training on labels as they stand, against torch.optim and explicit sums."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ebomlc.errors import InputError
from ebomlc.methods import StepContext, find_method
from ebomlc.methods.supervised import generalised_cross_entropy
from ebomlc.records import NO_LABEL, Batch
from tests.methods.conftest import CLASS_WEIGHTS, MODELS, Problem, create

WEIGHTED = [
    *((name, None) for name in ("ce", "oracle", "trusted-only")),
    ("ce", CLASS_WEIGHTS),
    ("oracle", CLASS_WEIGHTS),
]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("name", "weights"), WEIGHTED)
def test_step_is_one_of_torch_optim(kind, name, weights):
    problem = Problem(kind, class_weights=weights)
    method = create(name, problem)
    method.model.train()
    twin = copy.deepcopy(method.model)
    sgd = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    for index, lr in enumerate((0.3, 0.1, 0.2)):
        noisy, trusted = problem.batches(index)
        right = (noisy.given + 1) % 3
        noisy = Batch(noisy.inputs, noisy.given, right, noisy.index)
        losses = [] if name == "trusted-only" else [(noisy, right if name == "oracle" else noisy.given, weights)]
        losses.append((trusted, trusted.right, None))
        total = sum(F.cross_entropy(twin(b.inputs).logits, y, weight=w, reduction="sum") for b, y, w in losses)
        sgd.zero_grad()
        (total / sum(len(b) for b, *_ in losses)).backward()
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


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_finetune_leaves_the_noisy_rows_for_the_trusted_ones_at_a_tenth_of_the_rate(weights):
    problem = Problem("mlp", class_weights=weights)
    method = create("finetune", problem)
    twin = copy.deepcopy(method.model)
    sgd = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    for index, progress in enumerate((0.0, 0.79, 0.8, 0.99)):
        noisy, trusted = problem.batches(index)
        method.step(noisy, trusted, StepContext(0.3, progress))
        early = progress < 0.8
        rows, labels = (noisy, noisy.given) if early else (trusted, trusted.right)
        sgd.param_groups[0]["lr"] = 0.3 if early else 0.03
        sgd.zero_grad()
        losses = F.cross_entropy(twin(rows.inputs).logits, labels, weight=weights if early else None, reduction="none")
        losses.mean().backward()
        sgd.step()
    for ours, theirs in zip(method.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("q", [1e-9, 0.7, 1.0])
def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error(q):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    p = logits.softmax(1)[torch.arange(6), labels]
    expected = -p.log() if q < 1e-6 else (1 - p**q) / q
    torch.testing.assert_close(generalised_cross_entropy(logits, labels, q), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_gce_step_is_one_on_the_mean_of_all_rows(weights):
    problem = Problem("mlp", class_weights=weights)
    method = create("gce", problem)
    noisy, trusted = problem.batches(0)
    model = copy.deepcopy(method.model)
    total = torch.zeros((), dtype=torch.float64)
    for k in range(len(noisy)):
        p = model(noisy.inputs[k : k + 1]).logits.softmax(1)[0, noisy.given[k]]
        total = total + (1 if weights is None else weights[noisy.given[k]]) * (1 - p**0.7) / 0.7
    total = total + F.cross_entropy(model(trusted.inputs).logits, trusted.right, reduction="sum")
    gradient = torch.autograd.grad(total / (len(noisy) + len(trusted)), list(model.parameters()))
    expected, _ = method.learner.look_ahead(method.learner.flat.flatten(gradient), 0.3)
    method.step(noisy, trusted, StepContext(0.3, 0.0))
    torch.testing.assert_close(method.learner.flat.vector, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "values"),
    [("finetune", {"noisy_share": 1.5}), ("finetune", {"rate_factor": 0.0}), ("gce", {"q": 0.0}), ("gce", {"q": 2.0})],
)
def test_settings_out_of_range_are_refused(name, values):
    with pytest.raises(InputError, match=next(iter(values))):
        find_method(name).parse_settings(values)
