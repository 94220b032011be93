"""Meta soft label correction: targets between given label, running and present prediction, mixed by learned weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebomlc.bilevel.lookahead import RandomReplay
from ebomlc.methods.base import (
    Entry,
    EpochContext,
    Part,
    Setup,
    StepContext,
    check_range,
    check_rate,
    load_module_state,
    module_state,
    register,
)
from ebomlc.methods.learner import Learner, Lookahead, NetworkLearner, halve, lower_loss, step_and_differentiate
from ebomlc.methods.reweight import weight_network
from ebomlc.models import MainModel
from ebomlc.records import Batch, StepReport


@dataclass(frozen=True)
class MslcSettings:
    """Meta soft label correction.

    Attributes
    ----------
    start : float in [0, 1]
        Share of the steps before correction starts; until then noisy rows train on their given labels.
    decay : float in [0, 1]
        Of the running average of a row's predictions, each time the row is seen.
    hidden : int >= 1
        Width of the two weight networks' hidden layer.
    weight_lr : float > 0
        Adam's learning rate of the weight networks, which have a third of the steps to learn in: on digits 0.01 was
        better than 0.001 under each of two kinds of noise (results/LOG.md).
    """

    start: float = 2 / 3
    decay: float = 0.9
    hidden: int = 100
    weight_lr: float = 1e-2

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range("start", self.start, 0, 1)
        check_range("decay", self.decay, 0, 1)
        check_range("hidden", self.hidden, 1)
        check_rate("weight_lr", self.weight_lr)


class SoftLabels(nn.Module):
    """b [a onehot(y') + (1 - a) p_t] + (1 - b) p_w, with a and b from the row's losses against y' and p_t.

    Parameters
    ----------
    hidden : int
        Width of each network's hidden layer.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.keep = weight_network(2, hidden)
        self.trust = weight_network(2, hidden)

    def forward(self, log: Tensor, given: Tensor, average: Tensor) -> Tensor:
        """Targets of rows.

        Parameters
        ----------
        log : Tensor, shape [n, K]
            log p_w; a constant here.
        given : Tensor of int64, shape [n]
            y'.
        average : Tensor, shape [n, K]
            p_t, the running average of the rows' predictions.

        Returns
        -------
        Tensor, shape [n, K]
            Rows sum to 1.
        """
        log = log.detach()
        one_hot = F.one_hot(given, log.shape[1]).to(log)
        losses = -torch.stack([(one_hot * log).sum(1), (average * log).sum(1)], dim=1)
        a, b = self.keep(losses), self.trust(losses)
        return b * (a * one_hot + (1 - a) * average) + (1 - b) * log.exp()


class RowAverages:
    """Running averages of the predictions of the noisy rows, by their place among these.

    Parameters
    ----------
    like : Tensor
        Of the dtype and on the device that the averages take.
    n_classes : int
        K.
    decay : float in [0, 1]
        Share of the old average when a row is seen again; the first time the average is the prediction itself.

    Attributes
    ----------
    values : Tensor, shape [N, K]
        Zero for rows not yet seen. N grows with the largest position met.
    """

    def __init__(self, like: Tensor, n_classes: int, decay: float) -> None:
        self.values = like.new_zeros(0, n_classes)
        self.decay = decay

    def cover(self, index: Tensor) -> None:
        """Make room for rows at these positions [n]."""
        missing = int(index.max()) + 1 - len(self.values)
        if missing > 0:
            self.values = torch.cat([self.values, self.values.new_zeros(missing, self.values.shape[1])])

    def update(self, index: Tensor, predicted: Tensor) -> None:
        """Take in predictions [n, K] of rows at positions [n]."""
        old = self.values[index]
        is_new = old.sum(1, keepdim=True) == 0
        self.values[index] = torch.where(is_new, predicted, self.decay * old + (1 - self.decay) * predicted)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages."""
        return {"values": self.values}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back the averages."""
        self.values = state["values"]


class Mslc:
    """Meta soft label corrector (Wu et al. 2021), METHOD.md section 2.

    A target lies between the given label, the running average of the row's own predictions and the present
    prediction. Two small networks, which see the row's losses, say where, and follow the exact gradient of the upper
    loss through one step of the main optimizer. Before correction starts, a step is one on the given labels.

    Parity: ResNet-34, symmetric 0.2 / 0.4 / 0.6 / 0.8, best epoch on test, published 93.5 / 91.4 / 87.4 / 69.9 % on
    CIFAR-10 and 72.5 / 69.0 / 60.8 / 24.3 on CIFAR-100; ours, the last epoch, is not measured on CIFAR yet. Different:
    the training half of the trusted batch takes part in the lower loss, both networks see both losses, and the step
    that is differentiated is also the one that is taken.

    Attributes
    ----------
    averages : RowAverages
        State of the training only: suggestions do not need it and `state_dict` leaves it out. Every rank holds those
        of all rows.
    """

    def __init__(self, settings: MslcSettings, setup: Setup) -> None:
        self.settings = settings
        self.main = Learner(setup)
        self.mixer = NetworkLearner(self.main, SoftLabels(settings.hidden), settings.weight_lr)
        self.averages = RowAverages(self.main.flat.vector, setup.n_classes, settings.decay)

    @property
    def model(self) -> MainModel:
        """The main model."""
        return self.main.model

    @property
    def parts(self) -> Mapping[str, Part]:
        """Main optimizer, that of the networks, and the rows' averages."""
        return {"main": self.main, "mixer": self.mixer, "averages": self.averages}

    def begin_epoch(self, context: EpochContext) -> None:
        """Make room for every noisy row, once: later steps then need not ask the device how far positions reach."""
        if len(self.averages.values) == 0:
            last = torch.stack([batch.index.max() for batch in context.noisy()])
            self.averages.cover(context.gather(last))

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step on the lower loss; once correction has started, one Adam step of the networks too."""
        main = self.main
        training_half, heldout_half = halve(trusted)
        replay = RandomReplay(main.model)
        output = main.forward_lower(noisy, training_half)
        log = output.noisy.logits.log_softmax(dim=1)
        index = context.gather(noisy.index)
        if len(self.averages.values) == 0:
            self.averages.cover(index)
        self.averages.update(index, context.gather(log.detach().exp()))
        average = self.averages.values[noisy.index]
        if context.progress < self.settings.start:
            targets = main.setup.weigh(F.one_hot(noisy.given, main.setup.n_classes).to(log))
            lower = lower_loss(output, targets, training_half)
            main.take_step(context.reduce(main.flat.gradient(lower)), context.lr)
            return StepReport(lower.detach(), {"upper_loss": torch.zeros_like(lower)})
        targets = main.setup.weigh(self.mixer.network(log, noisy.given, average))
        lower = lower_loss(output, targets, training_half)
        rows = main.noisy_log_probabilities(noisy, training_half)
        lookahead = Lookahead(lower, targets, rows, replay, len(noisy) + len(training_half))
        upper, hypergradient = step_and_differentiate(main, lookahead, heldout_half, self.mixer.flat, context)
        self.mixer.take_step(hypergradient)
        return StepReport(lower.detach(), {"upper_loss": upper})

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """The target with the present prediction in the place of its running average."""
        log = self.main.forward(inputs).logits.log_softmax(dim=1)
        return self.mixer.network(log, given, log.exp())

    def state_dict(self) -> dict[str, Tensor]:
        """The two networks."""
        return module_state({"mixer": self.mixer.network})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the two networks."""
        load_module_state({"mixer": self.mixer.network}, state)


register(
    Entry(
        "mslc",
        "meta soft label correction: mixes given label and own predictions by learned weights",
        MslcSettings,
        Mslc,
        uses_forward_mode=True,
    )
)
