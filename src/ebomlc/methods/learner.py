"""The main model in training: model, flat parameters and optimizer state, as every method needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ebomlc.bilevel.barrier import mixed_cross_entropy
from ebomlc.bilevel.batch_norm import fused_tangents
from ebomlc.bilevel.flat import FlatParameters
from ebomlc.bilevel.hypergradient import forward_hypergradient
from ebomlc.bilevel.inner import InnerState, initial_state, inner_step, step_sensitivity
from ebomlc.bilevel.lookahead import RandomReplay, frozen_statistics
from ebomlc.methods.base import Setup, StepContext
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
        return self.forward_through(self.model, inputs)

    def forward_through(self, model: MainModel, inputs: Tensor) -> MainOutput:
        """The same of another model, such as a teacher, in the mode that one is in."""
        with self.setup.autocast() if model.training else nullcontext():
            output = model(inputs)
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
        """Log p_w(x') [n, K] as a function of the weights by name, batched as `forward_lower` batches it."""
        if not self.setup.joint_forward:
            return self.log_probabilities_at(noisy.inputs)
        of_both = self.log_probabilities_at(torch.cat([noisy.inputs, trusted.inputs]))
        return lambda weights: of_both(weights)[: len(noisy)]

    def log_probabilities_at(self, inputs: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
        """Log p_w [n, K] of one batch as a function of the weights by name, for forward mode; see `fused_tangents`."""

        def at(weights: dict[str, Tensor]) -> Tensor:
            with self.setup.autocast(), fused_tangents(self.model):
                output: MainOutput = functional_call(self.model, weights, (inputs,))
            return output.logits.to(self.flat.vector.dtype).log_softmax(dim=1)

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

    def state_dict(self) -> dict[str, Tensor]:
        """What the optimizer remembers; the weights are the model's own."""
        moments = {"first": self.state.first, "second": self.state.second}
        kept = {name: moment for name, moment in moments.items() if moment is not None}
        return {"steps": torch.tensor(self.state.steps), **kept}

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back what `state_dict` gave."""
        self.state = InnerState(int(state["steps"]), state.get("first"), state.get("second"))


class _AdamLearner:
    """Parameters of a network as one vector that Adam moves."""

    flat: FlatParameters
    adam: torch.optim.Adam

    def take_step(self, gradient: Tensor) -> None:
        """One Adam step."""
        self.flat.vector.grad = gradient
        self.adam.step()  # pyright: ignore[reportUnknownMemberType]

    def state_dict(self) -> dict[str, Tensor]:
        """What Adam remembers; empty before the first step."""
        return dict(self.adam.state.get(self.flat.vector, {}))

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        """Take back what `state_dict` gave."""
        # torch counts Adam's steps on the processor, wherever the parameters are
        self.adam.state[self.flat.vector] = {name: v.cpu() if name == "step" else v for name, v in state.items()}


def halve(trusted: Batch) -> tuple[Batch, Batch]:
    """Training half and held-out half of a trusted batch: disjoint, the first the larger by at most one row."""
    middle = (len(trusted) + 1) // 2
    return trusted[:middle], trusted[middle:]


class CorrectorLearner(_AdamLearner):
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


class NetworkLearner(_AdamLearner):
    """A network beside the main model that is moved by flat gradients with Adam: it weighs rows, or teaches.

    Parameters
    ----------
    main : Learner
        The main model, whose device and dtype the network takes.
    network : nn.Module
        Freshly initialised.
    lr : float
        Adam's learning rate.
    """

    def __init__(self, main: Learner, network: nn.Module, lr: float) -> None:
        self.network = network.to(main.flat.vector.device, main.flat.vector.dtype)
        self.flat = FlatParameters(self.network)
        self.adam = torch.optim.Adam([self.flat.vector], lr=lr)


@dataclass(frozen=True)
class Lookahead:
    """A lower loss and what is needed to differentiate one optimizer step on it by whatever made its targets.

    Attributes
    ----------
    lower : Tensor, shape []
        The loss at w, by constant targets; the main model's graph hangs on it.
    targets : Tensor, shape [n, K]
        Class-weighted targets of the noisy rows, with the graph of the network that made them.
    log_probabilities : callable (named weights) -> Tensor, shape [n, K]
        log p of the noisy rows, batched as in the lower loss.
    replay : RandomReplay
        Made before the first forward of the step.
    n_rows : int
        Rows that the lower loss is a mean over.
    """

    lower: Tensor
    targets: Tensor
    log_probabilities: Callable[[dict[str, Tensor]], Tensor]
    replay: RandomReplay
    n_rows: int


def step_and_differentiate(
    main: Learner, lookahead: Lookahead, heldout: Batch, source: FlatParameters, context: StepContext
) -> tuple[Tensor, Tensor]:
    """One step of the main optimizer on the lower loss, kept, and the upper loss's exact gradient through it.

    Parameters
    ----------
    main : Learner
        Moved to w*; before the step its weights are those `lookahead` was computed with.
    lookahead : Lookahead
        The lower loss; its graphs are freed.
    heldout : Batch
        Rows of the plain upper loss, with right labels.
    source : FlatParameters
        The A parameters that the targets depend on.
    context : StepContext
        Rate of the step and average over ranks.

    Returns
    -------
    Tensor, shape []
        Upper loss at w*, without graph.
    Tensor, shape [A]
        dF(w*)/da in forward mode (METHOD.md section 2, `mlc`), averaged over ranks.
    """
    gradient = context.reduce(main.flat.gradient(lookahead.lower))
    weights = main.flat.vector.clone()
    after, state = main.look_ahead(gradient, context.lr)

    main.flat.assign(after)
    with frozen_statistics(main.model):
        upper = F.cross_entropy(main.forward(heldout.inputs).logits, heldout.right)
    upper_gradient = context.reduce(main.flat.gradient(upper))

    # the Jacobian-vector product belongs to the weights before the step
    main.flat.assign(weights)
    sensitivity = step_sensitivity(gradient, main.state, main.setup.optimizer, context.lr)
    with frozen_statistics(main.model), lookahead.replay.again():
        hypergradient = forward_hypergradient(
            lookahead.log_probabilities,
            main.flat.unflatten(main.flat.vector),
            main.flat.unflatten(sensitivity * upper_gradient),
            lookahead.targets,
            source,
            lookahead.n_rows,
        )
    main.flat.assign(after)
    main.state = state
    return upper.detach(), context.reduce(hypergradient)


def suggest_with(main: Learner, corrector: CorrectorLearner, inputs: Tensor, given: Tensor) -> Tensor:
    """g_a(h_w(x), y') [n, K]: the suggestion of every method that has a corrector."""
    return corrector(main.forward(inputs).features, given)


def lower_loss(output: LowerOutput, targets: Tensor, trusted: Batch) -> Tensor:
    """L(w; q) of METHOD.md section 1: `targets` [n, K] are constants here."""
    return mixed_cross_entropy(output.noisy.logits, targets.detach(), output.trusted.logits, trusted.right)


def given_cross_entropy(main: Learner, noisy: Batch) -> Tensor:
    """Mean class-weighted cross-entropy of noisy rows alone, with the labels that came with them."""
    logits = main.forward(noisy.inputs).logits
    if main.setup.class_weights is None:
        return F.cross_entropy(logits, noisy.given)
    rows = F.cross_entropy(logits, noisy.given, reduction="none")
    return main.setup.weigh_rows(rows, noisy.given).mean()


def mean_with_trusted(noisy_losses: Tensor, output: LowerOutput, trusted: Batch) -> Tensor:
    """Mean over noisy rows, by their losses [n], and trusted rows, by cross-entropy with their right labels."""
    trusted_sum = F.cross_entropy(output.trusted.logits, trusted.right, reduction="sum")
    return (noisy_losses.sum() + trusted_sum) / (len(noisy_losses) + len(trusted))


def log_probabilities(output: LowerOutput) -> Tensor:
    """Log p_w(x') [n, K]."""
    return output.noisy.logits.log_softmax(dim=1)


def gap_measures(before: Tensor, after: Tensor, beta: Tensor, upper: Tensor) -> dict[str, Tensor]:
    """Figures to report of a step with a gap: its value, how often it is negative, the barrier, the upper loss."""
    gap = (before - after).detach()
    return {"gap": gap, "gap_negative": (gap < 0).to(gap.dtype), "beta": beta, "upper_loss": upper.detach()}
