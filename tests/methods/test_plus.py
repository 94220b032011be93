"""Cross-fitted label correction, each phase against explicit sums."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from ebomlc.errors import InputError
from ebomlc.methods import EpochContext, StepContext, find_method
from ebomlc.methods.plus import AveragedLearner, fold, mix_rows
from ebomlc.methods.transition import bayes_posterior, transition_from_predictions
from ebomlc.records import NO_LABEL, Batch
from tests.methods.conftest import CLASS_WEIGHTS, N_CLASSES, Problem, create

EPOCHS = 15
"""One of warm-up, three of cross-fitting."""


def begun(problem, *, epochs_done=0, noisy=None, trusted=None, **settings):
    """A method with the noisy and trusted rows it was begun with, before the step of an epoch."""
    drawn = problem.batches(0, n_noisy=40, n_trusted=12)
    noisy, trusted = noisy or drawn[0], trusted or drawn[1]
    method = create("plus", problem, **settings)
    for epoch in range(epochs_done + 1):
        method.begin_epoch(EpochContext(epoch, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
        if epoch < epochs_done:
            method.step(noisy, trusted, StepContext(0.1, epoch / EPOCHS))
    return method, noisy, trusted


def gradients_of_step(method, noisy, trusted, progress):
    """What the step hands to `reduce`, in one piece: a gradient for each network it moves."""
    seen = []

    def reduce(gradient):
        seen.append(gradient.clone())
        return gradient

    method.step(noisy, trusted, StepContext(0.1, progress, reduce))
    assert len(seen) == 1
    return seen[0]


def by_hand(network, loss_of_logits, *batches):
    """Gradient of a loss of one copy of a network at its present weights, flat."""
    model = copy.deepcopy(network.learner.model).train()
    loss = loss_of_logits(*(model(batch.inputs).logits for batch in batches))
    found = torch.autograd.grad(loss, list(model.parameters()))
    return network.learner.flat.flatten(found)


def without_class_weights(logits):
    p = logits.softmax(1) / CLASS_WEIGHTS
    return p / p.sum(1, keepdim=True)


def test_warm_up_gives_each_twin_one_half_of_the_trusted_rows(problem):
    method, noisy, trusted = begun(problem)
    halves = trusted[:6], trusted[6:]
    expected = [
        by_hand(twin, lambda z, half=half: F.cross_entropy(z, half.right), half)
        for twin, half in zip(method.twins.networks, halves, strict=True)
    ]
    torch.testing.assert_close(gradients_of_step(method, noisy, trusted, 0.0), torch.cat(expected))


def test_the_first_matrix_comes_from_the_mean_of_the_twins():
    method, noisy, _ = begun(Problem("mlp"), epochs_done=1)
    with torch.no_grad():
        p = sum(copy.deepcopy(twin.model).eval()(noisy.inputs).logits.softmax(1) for twin in method.twins.networks) / 2
    torch.testing.assert_close(method.transition, transition_from_predictions(p, noisy.given))


@pytest.mark.parametrize("cross_fitted", [True, False])
def test_cross_fitting_takes_targets_from_the_other_twin(cross_fitted):
    problem = Problem("norm_cnn", class_weights=CLASS_WEIGHTS)
    method, noisy, trusted = begun(problem, epochs_done=2, cross_fitted=cross_fitted)
    twins, folds = method.twins.networks, fold(noisy.index)
    expected = []
    for k, half in enumerate((trusted[:6], trusted[6:])):
        own = noisy[folds == k]
        judge = copy.deepcopy(twins[1 - k if cross_fitted else k].model).eval()
        with torch.no_grad():
            p = without_class_weights(judge(own.inputs).logits)
        q = bayes_posterior(p, own.given, method.transition) * CLASS_WEIGHTS

        def loss(noisy_logits, trusted_logits, q=q, half=half):
            of_noisy = -(q * noisy_logits.log_softmax(1)).sum()
            return (of_noisy + F.cross_entropy(trusted_logits, half.right, reduction="sum")) / ((40 + 12) / 2)

        expected.append(by_hand(twins[k], loss, own, half))
    seen = gradients_of_step(method, noisy, trusted, 0.2)
    torch.testing.assert_close(seen, torch.cat(expected))


def test_a_label_never_reaches_the_judge_of_its_row_in_the_same_step():
    """Other given labels of one fold change that fold's twin in a step, and leave the other as it is."""
    problem = Problem("mlp")
    moved = []
    for change in (0, 1):
        method, noisy, trusted = begun(problem, epochs_done=1)
        given = torch.where(fold(noisy.index) == 0, (noisy.given + change) % N_CLASSES, noisy.given)
        method.step(Batch(noisy.inputs, given, noisy.right, noisy.index), trusted, StepContext(0.1, 0.1))
        moved.append([twin.learner.flat.vector.clone() for twin in method.twins.networks])
    assert not torch.equal(moved[0][0], moved[1][0])
    assert torch.equal(moved[0][1], moved[1][1])


@pytest.mark.parametrize("cross_fitted", [True, False])
def test_targets_are_fixed_once_by_the_twin_of_the_other_fold(cross_fitted):
    method, noisy, trusted = begun(Problem("mlp"), epochs_done=3, cross_fitted=cross_fitted)
    first, second = (copy.deepcopy(twin.model).eval() for twin in method.twins.networks)
    with torch.no_grad():
        of_first, of_second = (model(noisy.inputs).logits.softmax(1) for model in (first, second))
    own = torch.where(fold(noisy.index)[:, None] == 0, of_first, of_second)
    other = torch.where(fold(noisy.index)[:, None] == 0, of_second, of_first)
    judged = other if cross_fitted else own
    method.begin_epoch(EpochContext(4, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
    expected = transition_from_predictions(judged, noisy.given)
    torch.testing.assert_close(method.transition, expected)
    torch.testing.assert_close(method.targets.values, bayes_posterior(judged, noisy.given, expected))
    assert method.twins.networks == (), "the twins are given up"


def test_training_is_cross_entropy_with_fixed_targets_and_right_labels(problem):
    method, noisy, trusted = begun(problem, epochs_done=4, mixup=0.0)
    q = method.targets.values[noisy.index]

    both = Batch(torch.cat([noisy.inputs, trusted.inputs]), noisy.given, noisy.right, noisy.index)

    def loss(logits):
        of_noisy = -(q * logits[:40].log_softmax(1)).sum()
        return (of_noisy + F.cross_entropy(logits[40:], trusted.right, reduction="sum")) / (40 + 12)

    expected = by_hand(method.main, loss, both)
    torch.testing.assert_close(gradients_of_step(method, noisy, trusted, 0.4), expected)


def test_pairs_of_right_and_given_label_are_counted_in():
    problem = Problem("mlp")
    noisy, pairs = problem.batches(3, n_noisy=40, n_trusted=60, pairs=True)
    method, *_ = begun(problem, epochs_done=1, noisy=noisy, trusted=pairs)
    with torch.no_grad():
        p = sum(copy.deepcopy(twin.model).eval()(noisy.inputs).logits.softmax(1) for twin in method.twins.networks) / 2
    counts = torch.zeros(N_CLASSES, N_CLASSES, dtype=torch.float64)
    counts.index_put_((pairs.right, pairs.given), torch.ones(60, dtype=torch.float64), accumulate=True)
    predicted = transition_from_predictions(p, noisy.given)
    expected = (counts + N_CLASSES * predicted) / (counts.sum(1, keepdim=True) + N_CLASSES)
    torch.testing.assert_close(method.transition, expected)


@pytest.fixture
def few_pairs_will_do(monkeypatch):
    monkeypatch.setattr("ebomlc.methods.plus.FEWEST_PAIRS", 1)


def unfitted_by_hand(method, rows):
    first, second = (copy.deepcopy(twin.model).eval() for twin in method.twins.networks)
    with torch.no_grad():
        of_first, of_second = (model(rows.inputs).logits.softmax(1) for model in (first, second))
    return torch.where(fold(rows.index)[:, None] == 0, of_second, of_first)


@pytest.mark.usefixtures("few_pairs_will_do")
def test_checked_pairs_belong_to_the_twin_of_their_fold(problem):
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=12, pairs=True)
    method, *_ = begun(problem, noisy=noisy, trusted=trusted)
    expected = []
    for k, twin in enumerate(method.twins.networks):
        own = trusted[fold(trusted.index) == k]
        expected.append(by_hand(twin, lambda z, own=own: F.cross_entropy(z, own.right, reduction="sum") / 6, own))
    torch.testing.assert_close(gradients_of_step(method, noisy, trusted, 0.0), torch.cat(expected))


@pytest.fixture
def weighings(monkeypatch, few_pairs_will_do):
    """What the method asks about the given label's weight; the answers are .4, .5, .6 and so on."""
    asked = []

    def answer(*arguments):
        asked.append(arguments)
        return (3 + len(asked)) / 10

    monkeypatch.setattr("ebomlc.methods.plus.weight_of_given", answer)
    return asked


def test_pairs_are_weighed_by_the_twin_they_are_unknown_to_at_every_epoch(weighings):
    problem = Problem("mlp")
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=60, pairs=True)
    for epochs_done in (1, 2, 3):
        weighings.clear()
        method, *_ = begun(problem, epochs_done=epochs_done, noisy=noisy, trusted=trusted)
        assert len(weighings) == epochs_done
        asked = weighings[-1]
        expected = unfitted_by_hand(method, trusted), trusted.right, trusted.given, method.transition
        for found, wanted in zip(asked, expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_targets_and_suggestions_have_the_weight(weighings):
    problem = Problem("mlp")
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=60, pairs=True)
    method, *_ = begun(problem, epochs_done=3, noisy=noisy, trusted=trusted)
    p = unfitted_by_hand(method, noisy)
    method.begin_epoch(EpochContext(4, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
    assert float(method.given_weight) == 0.7, "found once more before the targets are fixed"
    expected = bayes_posterior(p, noisy.given, method.transition, 0.7)
    torch.testing.assert_close(method.targets.values[noisy.index], expected)
    with torch.no_grad():
        p = method.model.eval()(noisy.inputs).logits.softmax(1)
        suggested = method.suggest(noisy.inputs, noisy.given)
    torch.testing.assert_close(suggested, bayes_posterior(p, noisy.given, method.transition, 0.7))


def test_cross_fitting_takes_the_weight_and_keeps_trusted_rows_apart(weighings):
    problem = Problem("norm_cnn", class_weights=CLASS_WEIGHTS)
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=12, pairs=True)
    method, *_ = begun(problem, epochs_done=1, noisy=noisy, trusted=trusted)
    twins, expected = method.twins.networks, []
    p = without_class_weights(unfitted_by_hand(method, noisy).log())
    q = bayes_posterior(p, noisy.given, method.transition, 0.4) * CLASS_WEIGHTS
    for k, twin in enumerate(twins):
        mine, checked = fold(noisy.index) == k, trusted[fold(trusted.index) == k]

        def loss(noisy_logits, trusted_logits, q=q[mine], checked=checked):
            of_noisy = -(q * noisy_logits.log_softmax(1)).sum()
            return (of_noisy + F.cross_entropy(trusted_logits, checked.right, reduction="sum")) / ((40 + 12) / 2)

        expected.append(by_hand(twin, loss, noisy[mine], checked))
    torch.testing.assert_close(gradients_of_step(method, noisy, trusted, 0.1), torch.cat(expected))


def test_where_given_labels_tell_all_they_should_the_twins_share_trusted_rows(monkeypatch, few_pairs_will_do):
    monkeypatch.setattr("ebomlc.methods.plus.weight_of_given", lambda *_: 0.95)
    problem = Problem("mlp")
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=12, pairs=True)
    hidden = Batch(trusted.inputs, torch.full_like(trusted.given, NO_LABEL), trusted.right, trusted.index)
    method, *_ = begun(problem, epochs_done=1, noisy=noisy, trusted=trusted)
    assert float(method.given_weight) == 1.0
    copied = copy.deepcopy(method)
    torch.testing.assert_close(
        gradients_of_step(method, noisy, trusted, 0.1), gradients_of_step(copied, noisy, hidden, 0.1)
    )
    monkeypatch.setattr("ebomlc.methods.plus.weight_of_given", lambda *_: pytest.fail("judged by who has seen it"))
    for epoch in (2, 3, 4, 5):
        method.begin_epoch(EpochContext(epoch, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
        method.step(noisy, trusted, StepContext(0.1, epoch / EPOCHS))


def test_matrix_targets_and_suggestions_are_free_of_class_weights():
    problem = Problem("mlp", class_weights=CLASS_WEIGHTS)
    method, noisy, trusted = begun(problem, epochs_done=3)
    p = without_class_weights(unfitted_by_hand(method, noisy).log())
    method.begin_epoch(EpochContext(4, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
    expected = transition_from_predictions(p, noisy.given)
    torch.testing.assert_close(method.transition, expected)
    torch.testing.assert_close(method.targets.values[noisy.index], bayes_posterior(p, noisy.given, expected))
    restored = create("plus", Problem("mlp"))  # a run is read back without knowing its class weights
    restored.load_state_dict(method.state_dict())
    restored.model.load_state_dict(method.model.state_dict())
    with torch.no_grad():
        p = without_class_weights(method.model.eval()(noisy.inputs).logits)
        for one in (method, restored):
            one.model.eval()
            suggested = one.suggest(noisy.inputs, noisy.given)
            torch.testing.assert_close(suggested, bayes_posterior(p, noisy.given, expected))


@pytest.mark.parametrize("n_pairs", [0, 99])
def test_without_enough_pairs_the_given_label_has_its_full_weight(n_pairs):
    problem = Problem("mlp")
    noisy, trusted = problem.batches(3, n_noisy=40, n_trusted=120, pairs=True)
    given = torch.where(torch.arange(120) < n_pairs, trusted.given, NO_LABEL)
    trusted = Batch(trusted.inputs, given, trusted.right, trusted.index)
    for epochs_done in (0, 1, 4):
        method, *_ = begun(problem, epochs_done=epochs_done, noisy=noisy, trusted=trusted)
        assert float(method.given_weight) == 1.0
        assert not bool(method.apart)


def test_what_was_found_out_is_kept_and_missing_in_old_runs():
    method, *_ = begun(Problem("mlp"), epochs_done=4)
    method.given_weight.fill_(0.3)
    method.apart.fill_(True)
    state = method.state_dict()
    other = create("plus", Problem("mlp"))
    other.load_state_dict(state)
    assert (float(other.given_weight), bool(other.apart)) == (0.3, True)
    old = create("plus", Problem("mlp"))
    old.load_state_dict({"transition": state["transition"]})
    assert (float(old.given_weight), bool(old.apart)) == (1.0, False)


def test_folds_are_even_whatever_the_stride():
    rows = torch.arange(100_000)
    for stride in (1, 2, 3, 10, 1000):
        assert float(fold(rows[::stride]).double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("horizon", [0.0, 0.05, 0.2])
def test_averages_look_back_on_a_share_of_the_training(horizon):
    learner = AveragedLearner(Problem("mlp").setup, horizon)
    generator = torch.Generator().manual_seed(0)
    average = learner.flat.vector.clone()
    for step in range(40):
        gradient = torch.randn(len(learner.flat), generator=generator, dtype=torch.float64)
        learner.take_step(gradient, StepContext(0.1, step / 40))
        lasting = math.exp(-1 / 40 / horizon) if horizon and step else float(not step and horizon > 0)
        share = max(1 - lasting, 9 / (10 + step))
        average = share * learner.learner.flat.vector + (1 - share) * average
    torch.testing.assert_close(learner.flat.vector, average)


def test_batch_norm_statistics_are_averaged_with_the_weights():
    learner = AveragedLearner(Problem("norm_cnn").setup, 0.5)
    start = learner.model.state_dict()["body.1.running_mean"].clone()
    learner.learner.model(torch.randn(8, 2, 6, 6, dtype=torch.float64))
    learner.take_step(torch.zeros(len(learner.flat), dtype=torch.float64), StepContext(0.1, 0.0))
    now = learner.learner.model.state_dict()["body.1.running_mean"]
    torch.testing.assert_close(learner.model.state_dict()["body.1.running_mean"], 0.9 * now + 0.1 * start)


def test_mixing_takes_inputs_and_targets_in_the_same_shares():
    torch.manual_seed(0)
    pixels = torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8)
    targets = torch.eye(50, dtype=torch.float64)
    for _ in range(20):
        mixed, shares = mix_rows(pixels, targets, 0.3)
        torch.testing.assert_close(mixed.flatten(1), shares @ pixels.flatten(1).double())
        torch.testing.assert_close(shares.sum(1), torch.ones(50, dtype=torch.float64))
        assert float(shares.diagonal().min()) >= 0.5, "a row counts for itself at least as much as the other"
    assert bool((shares.diagonal() < 1).any())


def test_settings_out_of_range_are_refused():
    for bad in ({"warm_up": -0.1}, {"cross_fitting": 1.5}, {"averaging": 2.0}, {"warm_up": 0.6, "cross_fitting": 0.5}):
        with pytest.raises(InputError, match="must"):
            find_method("plus").parse_settings(bad)


def test_every_network_goes_through_the_whole_schedule():
    method, noisy, trusted = begun(Problem("mlp"))
    rates = []
    for epoch in range(EPOCHS):
        if epoch:
            method.begin_epoch(EpochContext(epoch, EPOCHS, lambda: iter([noisy]), lambda: iter([trusted])))
        context = StepContext(0.7, epoch / EPOCHS, schedule=lambda done: 0.1 * (1 - done))
        rates.append(method.step(noisy, trusted, context).lr)
    twins, main = rates[:4], rates[4:]
    assert twins == pytest.approx([0.1 * (1 - k / 15) for k in range(4)])
    assert main == pytest.approx([0.1 * (1 - k / 11) for k in range(11)])


def test_without_a_schedule_the_rate_is_the_one_that_is_told():
    method, noisy, trusted = begun(Problem("mlp"), epochs_done=5)
    assert method.step(noisy, trusted, StepContext(0.05, 0.9)).lr == 0.05
