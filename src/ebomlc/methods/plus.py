"""Cross-fitted label correction: every noisy row is judged by a network that has not seen its label.

Derivation
----------
Let p(k | x) be the right label's distribution, T[k, y'] the transition matrix. The noisy rows' likelihood is
sum_i log sum_k p(k | x_i) T[k, y'_i], and expectation maximisation climbs it by two steps in turn:

    E   q_i(k) = p(k | x_i) T[k, y'_i] / sum_l p(l | x_i) T[l, y'_i]        Bayes' rule, `bayes_posterior`
    M   p by cross-entropy with targets q, and with the right labels of the trusted rows.

Where p is a network, this fails (results/LOG.md): sooner or later p(. | x_i) has learned y'_i by heart, the E step
counts that label twice, and what it gives is learned as if it were evidence. Half of the mischief is the matrix, which
is read off a model that has seen the noisy labels, or too few right ones; the other half is the E step itself. Both are
cured by what statistics calls cross-fitting (Schick 1986; Chernozhukov et al. 2018): a quantity is never taken from a
model at rows that the model was trained on.

1. *Warm-up.* Two twins train on the trusted rows for a short while. Neither has seen any noisy label, so their mean
   probabilities of the noisy rows are independent evidence, and T is the maximum of the likelihood above with p held
   fixed (`transition_from_predictions`; pairs of right and given label are counted in where trusted rows carry them).
2. *Cross-fitting.* Each twin has one half of the noisy rows, and all trusted ones. Its targets are the E step by the
   *other* twin's probabilities. What a twin learns by heart thus never comes back to it as a target of the same row.
3. *Training.* Every noisy row gets its target once, from the twin that has not trained on it, with T estimated again
   from those probabilities. A fresh main model learns the fixed targets and the trusted rows' right labels, from
   mixtures of two rows each (`mix_rows`), which are harder to learn by heart. It goes through the whole schedule of
   the learning rate, which begins anew for it.

The E step takes mistakes to depend on the right label alone. Where trusted rows carry the label they were given, that
can be put to the test, and cross-fitting makes the test honest: in the warm-up a trusted row belongs to one of the
twins, and the other's opinion of it tells how much the given label adds to the input (`weight_of_given`). Where that is
all it should, trusted rows are everybody's again, for the twins need them. Where it is less, as on labels made by
keywords, T enters with the weight as its exponent, trusted rows stay apart, and each epoch of the second phase weighs
anew.

The mixtures and the averaged weights bring most of the accuracy. Beside them cross-fitting brings right labels, most
where mistakes depend on the row, and costs nothing (docs/results.md, plus-ablation).

Probabilities come from averaged weights, which costs no pass over any image and takes the place of a schedule that ends
in each of the phases. Image-passes a step at 100 noisy and 100 trusted rows: 100, then 200 + 100/3, then 200; with the
default shares 199 on average, where `ce` has 200.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ebomlc.bilevel.flat import FlatParameters
from ebomlc.errors import InputError
from ebomlc.methods.base import (
    Entry,
    EpochContext,
    Part,
    Setup,
    StepContext,
    check_range,
    load_module_state,
    module_state,
    register,
)
from ebomlc.methods.learner import Learner, halve, lower_loss
from ebomlc.methods.transition import (
    bayes_posterior,
    count_pairs,
    transition_from_pairs,
    transition_from_predictions,
    weight_of_given,
)
from ebomlc.models import MainModel
from ebomlc.records import NO_LABEL, Batch, StepReport

FEWEST_ROUNDS, MOST_ROUNDS, ROUND_CELLS = 10, 200, 500_000_000
"""Rounds of the estimate of T; between these bounds, rows times classes times rounds is at most the last: seconds."""

FEWEST_PAIRS = 100
"""Fewer pairs tell too little to keep a small trusted set apart for them."""

FULL_WEIGHT = 0.9
"""From this weight on given labels count as Bayes' rule has it. Trusted rows kept apart for nothing cost .8 points."""


@dataclass(frozen=True)
class PlusSettings:
    """Cross-fitted label correction.

    Attributes
    ----------
    warm_up, cross_fitting : float in (0, 1)
        Shares of the epochs of the first two phases, each at least one epoch; together below 1.
    averaging : float in [0, 1]
        How far back the averaged weights look, as a share of the whole training; 0 takes the weights as they are.
    mixup : float >= 0
        Strength of the mixing of rows in the third phase, see `mix_rows`; 0 leaves them as they are.
    cross_fitted : bool
        Off, every row is judged by the twin that trains on it, for the ablation.
    """

    warm_up: float = 0.08
    cross_fitting: float = 0.2
    averaging: float = 0.1
    mixup: float = 0.3
    cross_fitted: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range("warm_up", self.warm_up, 0, 1)
        check_range("cross_fitting", self.cross_fitting, 0, 1)
        check_range("averaging", self.averaging, 0, 1)
        check_range("mixup", self.mixup, 0)
        if self.warm_up + self.cross_fitting >= 1:
            raise InputError(
                f"[method.settings] warm_up {self.warm_up} and cross_fitting {self.cross_fitting} must add up to less "
                f"than 1: the rest of the epochs train the main model"
            )


class AveragedLearner:
    """A learner and the running average of its weights and batch-norm statistics, which predictions are made with.

    Parameters
    ----------
    setup : Setup
        Makes the model.
    horizon : float in [0, 1]
        Share of the training after which old weights count 1/e.
    """

    def __init__(self, setup: Setup, horizon: float) -> None:
        self.learner = Learner(setup)
        self.learner.model.train()
        self.model: MainModel = copy.deepcopy(self.learner.model)
        self.flat = FlatParameters(self.model)
        self.horizon = horizon
        self.begun: Tensor = torch.zeros((), dtype=torch.float64)
        self.progress: Tensor = torch.zeros((), dtype=torch.float64)
        self.steps = torch.zeros((), dtype=torch.int64)

    def take_step(self, gradient: Tensor, context: StepContext) -> float:
        """One optimizer step, whose rate it returns; the average follows, faster while there is little to average."""
        if not int(self.steps):
            self.begun = torch.tensor(context.progress, dtype=torch.float64)
        lr = context.lr_since(float(self.begun))
        self.learner.take_step(gradient, lr)
        self.steps += 1
        elapsed = context.progress - float(self.progress) if int(self.steps) > 1 else 0.0
        self.progress = torch.tensor(context.progress, dtype=torch.float64)
        share = 1 - math.exp(-elapsed / self.horizon) if self.horizon else 1.0
        share = max(share, 9 / (9 + int(self.steps)))
        self.flat.assign(torch.lerp(self.flat.vector, self.learner.flat.vector, share))
        for average, buffer in zip(self.model.buffers(), self.learner.model.buffers(), strict=True):
            average.copy_(torch.lerp(average, buffer, share) if buffer.is_floating_point() else buffer)
        return lr

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of a batch [n, K] by the averaged weights."""
        self.model.eval()
        return self.learner.forward_through(self.model, inputs).logits

    def state_dict(self) -> dict[str, Tensor]:
        """Both sets of weights, the optimizer's state and how far the average has come."""
        modules = module_state({"model": self.learner.model, "average": self.model})
        optimizer = {f"optimizer.{name}": value for name, value in self.learner.state_dict().items()}
        state = {**modules, **optimizer, "begun": self.begun, "progress": self.progress, "taken": self.steps}
        # a network's own state shares memory with this one while it is the method's model, and files hold no aliases
        return {name: value.clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back what `state_dict` gave."""
        load_module_state({"model": self.learner.model, "average": self.model}, state)
        prefix = "optimizer."
        self.learner.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.begun, self.progress, self.steps = (state[name].cpu() for name in ("begun", "progress", "taken"))


class Twins:
    """Two networks that share the rows between them, and give them up when they are done.

    Parameters
    ----------
    setup : Setup
        Makes the models.
    horizon : float
        Of the averaged weights.
    """

    def __init__(self, setup: Setup, horizon: float) -> None:
        self.setup, self.horizon = setup, horizon
        self.networks: tuple[AveragedLearner, ...] = ()

    def begin(self) -> None:
        """Make the networks."""
        self.networks = tuple(AveragedLearner(self.setup, self.horizon) for _ in range(2))

    def end(self) -> None:
        """Free the networks."""
        self.networks = ()

    def state_dict(self) -> dict[str, Tensor]:
        """Both networks, as long as they are there."""
        states = [(k, network.state_dict()) for k, network in enumerate(self.networks)]
        return {f"{k}.{name}": value for k, state in states for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back what `state_dict` gave."""
        if not state:
            self.end()
            return
        self.begin()
        for k, network in enumerate(self.networks):
            prefix = f"{k}."
            network.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})


class RowTargets:
    """Fixed targets of the noisy rows, by their place among these.

    Attributes
    ----------
    values : Tensor, shape [N, K]
        Empty until they are known.
    """

    def __init__(self, like: Tensor, n_classes: int) -> None:
        self.values = like.new_zeros(0, n_classes)

    def state_dict(self) -> dict[str, Tensor]:
        """The targets."""
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back the targets."""
        self.values = state["values"]


def fold(index: Tensor) -> Tensor:
    """Whose rows at these positions [n] are: 0 or 1 [n], by a hash, so that no order of the rows matters."""
    # Fibonacci hashing: the high bits of the position times 2^32 over the golden ratio
    return (index * 2654435769 >> 31) & 1


def mix_rows(inputs: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Every row mixed with another, drawn at random, and its targets likewise (Zhang et al. 2018, "mixup").

    Parameters
    ----------
    inputs : Tensor, shape [n, ...]
        Floats, or uint8 pixels.
    targets : Tensor, shape [n, K]
        Distributions, weighted or not.
    strength : float > 0
        a of the Beta(a, a) that the share of the second row is drawn from, once a batch; at most a half.
    """
    drawn = float(torch.distributions.Beta(strength, strength).sample())
    share = min(drawn, 1 - drawn)
    other = torch.randperm(len(inputs), device=inputs.device)
    inputs = inputs.to(targets.dtype)
    return torch.lerp(inputs, inputs[other], share), torch.lerp(targets, targets[other], share)


class Plus:
    """Cross-fitted label correction: see the derivation at the top of this file.

    Parity: a method of our own; nothing published to compare with.
    """

    def __init__(self, settings: PlusSettings, setup: Setup) -> None:
        self.settings = settings
        self.setup = setup
        self.main = AveragedLearner(setup, settings.averaging)
        self.twins = Twins(setup, settings.averaging)
        self.targets = RowTargets(self.main.flat.vector, setup.n_classes)
        self.transition: Tensor | None = None
        self.given_weight = torch.ones((), dtype=torch.float64)
        self.apart = torch.tensor(False)
        self.class_weights = setup.weigh(self.main.flat.vector.new_ones(setup.n_classes))

    @property
    def model(self) -> MainModel:
        """The averaged main model; one of the twins as long as they train."""
        return self.twins.networks[0].model if self.twins.networks else self.main.model

    @property
    def parts(self) -> Mapping[str, Part]:
        """Main model, twins and targets."""
        return {"main": self.main, "twins": self.twins, "targets": self.targets}

    def begin_epoch(self, context: EpochContext) -> None:
        """Begin a phase when its epoch has come."""
        warm_up = max(1, round(self.settings.warm_up * context.epochs))
        cross_fitting = max(1, round(self.settings.cross_fitting * context.epochs))
        if context.epoch == 0:
            self.twins.begin()
            n_pairs = sum(int((batch.given != NO_LABEL).sum()) for batch in context.trusted())
            self.apart.fill_(n_pairs >= FEWEST_PAIRS)
        elif context.epoch == warm_up:
            seen = [(self._agreed(batch.inputs), batch.given) for batch in context.noisy()]
            predicted, given = _joined(seen, context)
            self.transition = self._estimate(predicted, given, context)
            self._weigh_given(context, self.transition)
        elif context.epoch == warm_up + cross_fitting:
            self._fix_targets(context)
            self.twins.end()
        elif self.twins.networks and self.transition is not None:
            self._weigh_given(context, self.transition)

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step of the main model, or of both twins."""
        if not self.twins.networks:
            return self._train(noisy, trusted, context)
        if self.transition is None:
            return self._warm_up(trusted, context)
        return self._cross_fit(noisy, trusted, self.transition, context)

    def _warm_up(self, trusted: Batch, context: StepContext) -> StepReport:
        """Each twin on its share of the trusted rows of the step."""
        twins = self.twins.networks
        losses: list[Tensor] = []
        for twin, own in zip(twins, self._shares(trusted), strict=True):
            loss = twin.flat.vector.new_zeros(())
            if len(own) >= self.setup.least_rows:
                loss = F.cross_entropy(twin.learner.forward(own.inputs).logits, own.right, reduction="sum")
            losses.append(loss / (len(trusted) / 2))
        return _move(twins, losses, context)

    def _cross_fit(self, noisy: Batch, trusted: Batch, transition: Tensor, context: StepContext) -> StepReport:
        """Each twin on its own noisy rows, by the other's judgement, and on its share of the trusted rows."""
        twins = self.twins.networks
        folds = fold(noisy.index)
        losses: list[Tensor] = []
        for k, checked in enumerate(self._shares(trusted)):
            own, twin = noisy[folds == k], twins[k]
            judge = twins[1 - k] if self.settings.cross_fitted else twin
            loss = twin.flat.vector.new_zeros(())
            if min(len(own), len(checked)) >= self.setup.least_rows:
                predicted = self._right(judge.logits(own.inputs))
                targets = bayes_posterior(predicted, own.given, transition, float(self.given_weight))
                output = twin.learner.forward_lower(own, checked)
                loss = (len(own) + len(checked)) * lower_loss(output, self.setup.weigh(targets), checked)
            losses.append(loss / ((len(noisy) + len(trusted)) / 2))
        return _move(twins, losses, context)

    def _train(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """The main model on mixtures of rows with fixed targets and of trusted rows."""
        known = F.one_hot(trusted.right, self.setup.n_classes).to(self.targets.values)
        targets = torch.cat([self.setup.weigh(self.targets.values[noisy.index]), known])
        inputs = torch.cat([noisy.inputs, trusted.inputs])
        if self.settings.mixup:
            inputs, targets = mix_rows(inputs, targets, self.settings.mixup)
        logits = self.main.learner.forward(inputs).logits
        loss = -(targets * logits.log_softmax(1)).sum() / len(targets)
        return _move((self.main,), [loss], context)

    def _right(self, logits: Tensor) -> Tensor:
        """p(right | x) [n, K] of a network that the class weights have biased, without that bias.

        A cross-entropy by weighted targets is least at p times the weights, normalised. Bayes' rule with that, whose
        result is weighted again in training, would favour rare classes more and more.
        """
        return (logits - self.class_weights.log()).softmax(1)

    def _agreed(self, inputs: Tensor) -> Tensor:
        """Mean of the twins' probabilities [n, K]."""
        return torch.stack([self._right(twin.logits(inputs)) for twin in self.twins.networks]).mean(0)

    def _estimate(self, predicted: Tensor, given: Tensor, context: EpochContext) -> Tensor:
        """T from probabilities and given labels of the noisy rows, and from the trusted rows' pairs."""
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, ROUND_CELLS // predicted.numel()))
        expected = transition_from_predictions(predicted, given, rounds=rounds)
        pairs = torch.zeros_like(expected)
        for batch in context.trusted():
            pairs += count_pairs(batch.right, batch.given, self.setup.n_classes)
        return transition_from_pairs(pairs, expected).to(self.main.flat.vector)

    def _fix_targets(self, context: EpochContext) -> None:
        """Every noisy row's target, by the twin that has not trained on it."""
        seen = [(self._unfitted(batch), batch.given, batch.index) for batch in context.noisy()]
        predicted, given, index = _joined(seen, context)
        self.transition = self._estimate(predicted, given, context)
        self._weigh_given(context, self.transition)
        values = self.targets.values.new_zeros(1 + int(index.max()), self.setup.n_classes)
        values[index] = bayes_posterior(predicted, given, self.transition, float(self.given_weight))
        self.targets.values = values

    def _shares(self, trusted: Batch) -> tuple[Batch, Batch]:
        """Which trusted rows of a step each twin has: those of its fold where they are kept apart, else one half."""
        if not self.apart:
            return halve(trusted)
        folds = fold(trusted.index)
        return trusted[folds == 0], trusted[folds == 1]

    def _weigh_given(self, context: EpochContext, transition: Tensor) -> None:
        """What given labels are worth, by the trusted rows that carry them and the twin that each is unknown to."""
        if not self.apart:
            return
        batches = [batch[batch.given != NO_LABEL] for batch in context.trusted()]
        checked = [(self._unfitted(batch), batch.right, batch.given) for batch in batches if len(batch)]
        predicted, right, given = (torch.cat(parts) for parts in zip(*checked, strict=True))
        weight = weight_of_given(predicted, right, given, transition)
        self.apart.fill_(weight < FULL_WEIGHT)
        self.given_weight.fill_(weight if self.apart else 1.0)

    def _unfitted(self, rows: Batch) -> Tensor:
        """Probabilities [n, K] of rows, by the twin of the other fold, or their own where nothing is cross-fitted."""
        first, second = (self._right(twin.logits(rows.inputs)) for twin in self.twins.networks)
        by_first = fold(rows.index) == int(self.settings.cross_fitted)
        return torch.where(by_first[:, None], first, second)

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """The E step by the model and the matrix; p_w alone before the first estimate."""
        probabilities = self._right(self.main.learner.forward_through(self.model, inputs).logits)
        if self.transition is None:
            return probabilities
        return bayes_posterior(probabilities, given, self.transition, float(self.given_weight))

    def state_dict(self) -> dict[str, Tensor]:
        """The transition matrix, once it is known, what was found out about given labels, and the class weights."""
        known = {} if self.transition is None else {"transition": self.transition}
        found = {"given_weight": self.given_weight, "apart": self.apart}
        return {**known, **found, "class_weights": self.class_weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave; runs of before given labels were weighed have the matrix alone."""
        self.transition = state.get("transition")
        if "given_weight" in state:
            self.given_weight.copy_(state["given_weight"])
            self.apart.copy_(state["apart"])
            self.class_weights = state["class_weights"]


def _joined(seen: Sequence[tuple[Tensor, ...]], context: EpochContext) -> tuple[Tensor, ...]:
    """Figures of the batches of a pass, each joined over all rows of all ranks."""
    return tuple(context.gather(torch.cat(parts)) for parts in zip(*seen, strict=True))


def _move(networks: Sequence[AveragedLearner], losses: list[Tensor], context: StepContext) -> StepReport:
    """One step of each network on its loss, all by the weights as they were; a loss without a graph has no gradient."""
    flats = [network.learner.flat for network in networks]
    gradients = [
        flat.gradient(loss) if loss.requires_grad else torch.zeros_like(flat.vector)
        for flat, loss in zip(flats, losses, strict=True)
    ]
    rates = [
        network.take_step(gradient, context)
        for network, gradient in zip(networks, context.reduce_together(gradients), strict=True)
    ]
    return StepReport(torch.stack(losses).detach().mean(), lr=rates[0])


register(
    Entry(
        "plus",
        "cross-fitted label correction: targets from a network that has not seen the row's label",
        PlusSettings,
        Plus,
        min_epochs=3,
    )
)
