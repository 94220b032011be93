"""The main model in training: model, flat parameters and optimizer state, as every method needs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from ebomlc.bilevel.barrier import mixed_cross_entropy
from ebomlc.bilevel.flat import FlatParameters
from ebomlc.bilevel.inner import InnerState, initial_state, inner_step
from ebomlc.methods.base import Setup
from ebomlc.models import CorrectorSettings, MainModel, MainOutput
from ebomlc.records import Batch


@dataclass(frozen=True)
class LowerOutput:
    """What the main model says of the noisy rows and of the trusted training rows of a step."""

    noisy: MainOutput
    trusted: MainOutput


class Learner:
    """A main model that is moved by flat gradients.

    Parameters
    ----------
    setup : Setup
        Makes the model and says how it is run.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model: MainModel = setup.make_model()
        self.flat = FlatParameters(self.model)
        self.state = initial_state()

    def forward(self, inputs: Tensor) -> MainOutput:
        """Features and logits in the parameters' dtype: under the run's precision in training, else in full."""
        with self.setup.autocast() if self.model.training else nullcontext():
            output = self.model(inputs)
        dtype = self.flat.vector.dtype
        return MainOutput(output.features.to(dtype), output.logits.to(dtype))

    def forward_lower(self, noisy: Batch, trusted: Batch) -> LowerOutput:
        """Forward of the rows of the lower loss: as two batches, or as one where `Setup.joint_forward` says so."""
        if not self.setup.joint_forward:
            return LowerOutput(self.forward(noisy.inputs), self.forward(trusted.inputs))
        both = self.forward(torch.cat([noisy.inputs, trusted.inputs]))
        n = len(noisy)
        return LowerOutput(
            MainOutput(both.features[:n], both.logits[:n]), MainOutput(both.features[n:], both.logits[n:])
        )

    def noisy_log_probabilities(self, noisy: Batch, trusted: Batch) -> Callable[[dict[str, Tensor]], Tensor]:
        """Log p_w(x') [n, K] as a function of the weights by name, batched as `forward_lower` batches it.

        In full precision: torch's autocast casts weights but not their tangents, and then fails.
        """
        inputs = torch.cat([noisy.inputs, trusted.inputs]) if self.setup.joint_forward else noisy.inputs

        def at(weights: dict[str, Tensor]) -> Tensor:
            output: MainOutput = functional_call(self.model, weights, (inputs,))
            return output.logits[: len(noisy)].log_softmax(dim=1)

        return at

    def look_ahead(self, gradient: Tensor, lr: float) -> tuple[Tensor, InnerState]:
        """Weights and optimizer state after one optimizer step, without taking it."""
        return inner_step(self.flat.vector, gradient, self.state, self.setup.optimizer, lr)

    def take_step(self, gradient: Tensor, lr: float) -> None:
        """One optimizer step."""
        weights, self.state = self.look_ahead(gradient, lr)
        self.flat.assign(weights)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """p_w of a batch [n, K], in the mode the model is in."""
        return self.forward(inputs).logits.softmax(dim=1)


def halve(trusted: Batch) -> tuple[Batch, Batch]:
    """Training half and held-out half of a trusted batch: disjoint, the first the larger by at most one row."""
    middle = (len(trusted) + 1) // 2
    return trusted[:middle], trusted[middle:]


class CorrectorLearner:
    """A corrector that is moved by flat gradients, with Adam in its AMSGrad form as in the papers.

    Parameters
    ----------
    main : Learner
        The main model whose features the corrector reads.
    settings : CorrectorSettings
        The corrector's shape.
    lr : float
        Adam's learning rate.
    """

    def __init__(self, main: Learner, settings: CorrectorSettings, lr: float) -> None:
        self.main = main
        self.network = main.setup.make_corrector(main.model, settings)
        self.flat = FlatParameters(self.network)
        self.adam = torch.optim.Adam([self.flat.vector], lr=lr, amsgrad=True)

    def __call__(self, features: Tensor, given: Tensor) -> Tensor:
        """g_a(h, y') [n, K] in the mode the main model is in; see `Corrector.forward`."""
        self.network.train(self.main.model.training)
        return self.network(features, given)

    def take_step(self, gradient: Tensor) -> None:
        """One Adam step."""
        self.flat.vector.grad = gradient
        self.adam.step()  # pyright: ignore[reportUnknownMemberType]


def suggest_with(main: Learner, corrector: CorrectorLearner, inputs: Tensor, given: Tensor) -> Tensor:
    """g_a(h_w(x), y') [n, K]: the suggestion of every method that has a corrector."""
    return corrector(main.forward(inputs).features, given)


def lower_loss(output: LowerOutput, targets: Tensor, trusted: Batch) -> Tensor:
    """L(w; q) of METHOD.md section 1: `targets` [n, K] are constants here."""
    return mixed_cross_entropy(output.noisy.logits, targets.detach(), output.trusted.logits, trusted.right)


def log_probabilities(output: LowerOutput) -> Tensor:
    """Log p_w(x') [n, K]."""
    return output.noisy.logits.log_softmax(dim=1)


def gap_measures(before: Tensor, after: Tensor, beta: Tensor, upper: Tensor) -> dict[str, Tensor]:
    """Figures to report of a step with a gap: its value, how often it is negative, the barrier, the upper loss."""
    gap = (before - after).detach()
    return {"gap": gap, "gap_negative": (gap < 0).to(gap.dtype), "beta": beta, "upper_loss": upper.detach()}
