"""Enhanced meta label correction: a teacher with a backbone of its own and a gate that keeps given labels."""

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
from ebomlc.models import MainModel
from ebomlc.records import Batch, StepReport


@dataclass(frozen=True)
class EmlcSettings:
    """Enhanced meta label correction.

    Attributes
    ----------
    teacher_lr : float > 0
        Adam's learning rate of the teacher and its gate.
    embedding, hidden : int >= 1
        Width of the gate's label embedding and of its hidden layer.
    corrupted : float in [0, 1]
        Share of the trusted rows that are shown to the gate with a wrong label.
    """

    teacher_lr: float = 1e-3
    embedding: int = 64
    hidden: int = 128
    corrupted: float = 0.5

    def __post_init__(self) -> None:
        """Check ranges."""
        check_rate("teacher_lr", self.teacher_lr)
        check_range("embedding", self.embedding, 1)
        check_range("hidden", self.hidden, 1)
        check_range("corrupted", self.corrupted, 0, 1)


class Teacher(nn.Module):
    """A second main model and a gate: q = r onehot(y') + (1 - r) p_teacher, with r(h_t, y') in (0, 1).

    Parameters
    ----------
    model : MainModel
        The teacher's own, freshly initialised.
    embedding, hidden : int
        Widths of the gate.
    """

    def __init__(self, model: MainModel, embedding: int, hidden: int) -> None:
        super().__init__()
        self.model = model
        self.embedding = nn.Embedding(model.n_classes, embedding)
        self.gate = nn.Sequential(nn.Linear(model.feature_dim + embedding, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def keep(self, features: Tensor, given: Tensor) -> Tensor:
        """Logit [n] of keeping labels [n], from the teacher's features [n, d]."""
        return self.gate(torch.cat([features, self.embedding(given)], dim=1)).squeeze(1)

    def correct(self, features: Tensor, logits: Tensor, given: Tensor) -> Tensor:
        """Targets q [n, K] from the teacher's features [n, d] and logits [n, K] and given labels [n]."""
        r = self.keep(features, given).sigmoid()[:, None]
        return r * F.one_hot(given, logits.shape[1]) + (1 - r) * logits.softmax(dim=1)


def corrupt_labels(labels: Tensor, n_classes: int, share: float) -> Tensor:
    """Labels [n] of which each is, with probability `share`, another class, any of them alike; torch's random state."""
    shift = torch.randint(1, max(n_classes, 2), labels.shape, device=labels.device)
    is_hit = torch.rand(labels.shape, device=labels.device) < share
    return torch.where(is_hit, (labels + shift) % n_classes, labels)


class Emlc:
    """Enhanced meta label correction (Taraday and Baskin 2023), METHOD.md section 2.

    The student, which is the main model, trains on the teacher's targets. The teacher follows the exact gradient of
    the upper loss through one step of the student, plus the cross-entropy of the trusted training half, plus the gate's
    binary cross-entropy on those rows when some of their labels are made wrong on purpose.

    Parity: published with a self-supervised start, 93.6 / 92.2 / 91.0 / 90.1 % on CIFAR-10 at symmetric 0.2 / 0.5 / 0.8
    / 0.9 with 1,000 trusted rows; we have no such start, so the figures do not compare, and ours on CIFAR is not
    measured yet. Different, besides: the teacher moves by Adam, the gate reads the features through a tanh layer, the
    hypergradient goes through the student's momentum, and the step that is differentiated is also the one taken.
    """

    def __init__(self, settings: EmlcSettings, setup: Setup) -> None:
        self.settings = settings
        self.main = Learner(setup)
        self.network = Teacher(setup.make_model(), settings.embedding, settings.hidden)
        self.teacher = NetworkLearner(self.main, self.network, settings.teacher_lr)

    @property
    def model(self) -> MainModel:
        """The student."""
        return self.main.model

    @property
    def parts(self) -> Mapping[str, Part]:
        """Main optimizer and the teacher's."""
        return {"main": self.main, "teacher": self.teacher}

    def begin_epoch(self, context: EpochContext) -> None:
        """Nothing changes between epochs."""

    def step(self, noisy: Batch, trusted: Batch, context: StepContext) -> StepReport:
        """One optimizer step of the student on the teacher's targets, one Adam step of the teacher."""
        main, teacher = self.main, self.teacher
        training_half, heldout_half = halve(trusted)
        replay = RandomReplay(main.model)
        output = main.forward_lower(noisy, training_half)
        targets = main.setup.weigh(self._correct(noisy.inputs, noisy.given))
        lower = lower_loss(output, targets, training_half)
        rows = main.noisy_log_probabilities(noisy, training_half)
        lookahead = Lookahead(lower, targets, rows, replay, len(noisy) + len(training_half))
        upper, hypergradient = step_and_differentiate(main, lookahead, heldout_half, teacher.flat, context)
        loss, gate_loss = self._supervised(training_half)
        supervised = context.reduce(teacher.flat.gradient(loss + gate_loss))
        teacher.take_step(hypergradient + supervised)
        measures = {"upper_loss": upper, "teacher_loss": loss.detach(), "gate_loss": gate_loss.detach()}
        return StepReport(lower.detach(), measures)

    def _look(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features and logits, run as the main model is and in the mode that it is in."""
        self.network.train(self.model.training)
        return self.main.forward_through(self.network.model, inputs)

    def _correct(self, inputs: Tensor, given: Tensor) -> Tensor:
        features, logits = self._look(inputs)
        return self.network.correct(features, logits, given)

    def _supervised(self, trusted: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the teacher, and of the gate on labels some of which are made wrong."""
        features, logits = self._look(trusted.inputs)
        shown = corrupt_labels(trusted.right, self.model.n_classes, self.settings.corrupted)
        is_kept = (shown == trusted.right).to(logits)
        gate_loss = F.binary_cross_entropy_with_logits(self.network.keep(features, shown), is_kept)
        return F.cross_entropy(logits, trusted.right), gate_loss

    def suggest(self, inputs: Tensor, given: Tensor) -> Tensor:
        """The teacher's targets."""
        return self._correct(inputs, given)

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher and its gate."""
        return module_state({"teacher": self.network})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the teacher and its gate."""
        load_module_state({"teacher": self.network}, state)


register(
    Entry(
        "emlc",
        "enhanced meta label correction: a teacher with its own backbone and a gate that keeps labels",
        EmlcSettings,
        Emlc,
        uses_forward_mode=True,
    )
)
