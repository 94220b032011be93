"""Methods that train on labels as they stand or through a transition matrix: ce, oracle, trusted-only, glc."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ebomlc.errors import InputError
from ebomlc.methods.base import Entry, EpochContext, Setup, StepContext, register
from ebomlc.methods.learner import Learner
from ebomlc.models import MainModel
from ebomlc.records import NO_LABEL, Batch, StepReport


@dataclass(frozen=True)
class NoSettings:
    """A method without hyper-parameters of its own."""


def noisy_labels(batch: Batch) -> Tensor:
    """The labels that came with the rows."""
    return batch.given


def right_labels(batch: Batch) -> Tensor:
    """The true labels."""
    return batch.right


class CrossEntropy:
    """Cross-entropy, mean over the noisy rows with the labels `noisy_target` gives and all trusted rows.

    Parameters
    ----------
    setup : Setup
        Makes the model.
    noisy_target : callable, optional
        Labels to train the noisy rows on; None leaves the noisy rows out.
    """

    def __init__(self, setup: Setup, noisy_target: Callable[[Batch], Tensor] | None) -> None:
        self.learner = Learner(setup)
        self.noisy_target = noisy_target

    @property
    def model(self) -> MainModel:
        """The main model."""
        return self.learner.model

    def begin_epoch(self, context: EpochContext) -> None:
        """Nothing changes between epochs."""

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step on the mean cross-entropy."""
        if self.noisy_target is None:
            loss = F.cross_entropy(self.learner.forward(trusted.inputs).logits, trusted.right)
        else:
            output = self.learner.forward_lower(noisy, trusted)
            logits = torch.cat([output.noisy.logits, output.trusted.logits])
            loss = F.cross_entropy(logits, torch.cat([self.noisy_target(noisy), trusted.right]))
        self.learner.take_step(context.reduce(self.learner.flat.gradient(loss)), context.lr)
        return StepReport(loss.detach())

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """p_w: the given label is not looked at."""
        return self.learner.probabilities(inputs)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing beside the main model."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""


UNCHECKED_ROWS = 1e6


def count_pairs(right: Tensor, given: Tensor, n_classes: int) -> Tensor:
    """Number of trusted rows [K, K] with a right label (row) and the label it was given (column).

    Parameters
    ----------
    right, given : Tensor of int64, shape [n]
        Rows whose given label is `NO_LABEL` are not counted.
    n_classes : int
        K.
    """
    known = given != NO_LABEL
    cells = right[known] * n_classes + given[known]
    return torch.bincount(cells, minlength=n_classes**2).view(n_classes, n_classes).double()


def transition_from_trusted(
    batches: Iterator[Batch], probabilities: Callable[[Tensor], Tensor], n_classes: int
) -> Tensor:
    """T[true, given] from the trusted rows (Hendrycks et al. 2018, equation 1).

    A row that carries its given label counts for that label; one without counts for the noisy model's prediction
    p(given | x). A class without any trusted row is taken as never mislabelled.

    Parameters
    ----------
    batches : iterator of Batch
        One pass over the trusted rows.
    probabilities : callable
        The noisy model's p(given | x) of inputs.
    n_classes : int
        K.

    Returns
    -------
    Tensor of float64, shape [K, K]
        Rows sum to 1; no cell is zero, so that its logarithm is finite.
    """
    sums = torch.zeros(n_classes, n_classes, dtype=torch.float64)
    for batch in batches:
        unseen = batch.given == NO_LABEL
        if bool(unseen.any()):
            predicted = probabilities(batch.inputs[unseen]).double().cpu()
            sums.index_add_(0, batch.right[unseen].cpu(), predicted)
        sums += count_pairs(batch.right.cpu(), batch.given.cpu(), n_classes)
    # a class nobody checked counts as if very many rows of it had kept their label
    empty = sums.sum(1) == 0
    sums[empty] = UNCHECKED_ROWS * torch.eye(n_classes, dtype=torch.float64)[empty]
    # one row's worth of smoothing: a cell never seen among few trusted rows is rare, not impossible
    sums += 1 / n_classes
    return sums / sums.sum(1, keepdim=True)


def forward_corrected_loss(logits: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """- log (p^T T)[given] per row [n]: what a model of right labels says of noisy ones (Patrini et al. 2017).

    Parameters
    ----------
    logits : Tensor, shape [n, K]
        Of the right label.
    given : Tensor of int64, shape [n]
        Given labels.
    transition : Tensor, shape [K, K]
        T[true, given].
    """
    log_columns = transition.log().T[given]
    return -torch.logsumexp(logits.log_softmax(dim=1) + log_columns, dim=1)


def bayes_posterior(probabilities: Tensor, given: Tensor, transition: Tensor) -> Tensor:
    """p(right | x, given) [n, K], proportional to p(right | x) T[right, given]."""
    joint = probabilities * transition.T[given]
    return joint / joint.sum(1, keepdim=True)


@dataclass(frozen=True)
class GlcSettings:
    """Gold loss correction.

    Attributes
    ----------
    first_phase : float in (0, 1)
        Share of the epochs in which a first model learns the noisy labels.
    """

    first_phase: float = 1 / 3

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.first_phase < 1:
            raise InputError(f"[method.settings] first_phase is {self.first_phase}: must lie between 0 and 1")


class Glc:
    """Gold loss correction (Hendrycks et al. 2018).

    A first model learns the noisy labels; seen on the trusted rows it tells the transition matrix; a fresh second
    model then trains on noisy rows through that matrix, and on trusted rows as they are.
    """

    def __init__(self, settings: GlcSettings, setup: Setup) -> None:
        self.settings = settings
        self.setup = setup
        self.learner = Learner(setup)
        self.transition: Tensor | None = None

    @property
    def model(self) -> MainModel:
        """The model of the present phase."""
        return self.learner.model

    def begin_epoch(self, context: EpochContext) -> None:
        """Start the second phase when its epoch has come."""
        first_epochs = min(max(1, round(self.settings.first_phase * context.epochs)), context.epochs - 1)
        if self.transition is None and context.epoch >= first_epochs:
            self.model.eval()
            with torch.no_grad():
                transition = transition_from_trusted(
                    context.trusted(), self.learner.probabilities, self.setup.n_classes
                )
            self.learner = Learner(self.setup)
            self.transition = transition.to(self.learner.flat.vector)

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step: on noisy labels in the first phase, on the corrected loss in the second."""
        if self.transition is None:
            loss = F.cross_entropy(self.learner.forward(noisy.inputs).logits, noisy.given)
        else:
            output = self.learner.forward_lower(noisy, trusted)
            rows = forward_corrected_loss(output.noisy.logits, noisy.given, self.transition)
            trusted_sum = F.cross_entropy(output.trusted.logits, trusted.right, reduction="sum")
            loss = (rows.sum() + trusted_sum) / (len(noisy) + len(trusted))
        self.learner.take_step(context.reduce(self.learner.flat.gradient(loss)), context.lr)
        return StepReport(loss.detach())

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """The Bayes rule of the second model and the matrix."""
        probabilities = self.learner.probabilities(inputs)
        if self.transition is None:
            return probabilities
        return bayes_posterior(probabilities, given, self.transition)

    def state_dict(self) -> dict[str, Tensor]:
        """The transition matrix, once it is known."""
        return {} if self.transition is None else {"transition": self.transition}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the transition matrix."""
        self.transition = state.get("transition")


register(
    Entry(
        "ce",
        "plain cross-entropy on noisy and trusted rows together",
        NoSettings,
        lambda _, setup: CrossEntropy(setup, noisy_labels),
    )
)
register(
    Entry(
        "oracle",
        "plain cross-entropy on the right labels of all rows: an upper bound, for benchmarks only",
        NoSettings,
        lambda _, setup: CrossEntropy(setup, right_labels),
        needs_truth=True,
    )
)
register(
    Entry(
        "trusted-only",
        "plain cross-entropy on the trusted rows alone",
        NoSettings,
        lambda _, setup: CrossEntropy(setup, None),
    )
)
register(Entry("glc", "gold loss correction: transition matrix from the trusted rows", GlcSettings, Glc, min_epochs=2))
