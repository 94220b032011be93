"""The label correction network: given label and features in, label distribution out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebomlc.errors import InputError


@dataclass(frozen=True)
class CorrectorSettings:
    """Shape of the corrector.

    Attributes
    ----------
    embedding, hidden : int
        Width of the label embedding and of the two hidden layers.
    dropout : float in [0, 1)
        After each hidden layer.
    batch_norm : bool
        Before each activation.
    skip : bool
        Adds a gate s(h, y') in (0, 1): the output is s onehot(y') + (1 - s) g(h, y').
    """

    embedding: int = 128
    hidden: int = 128
    dropout: float = 0.0
    batch_norm: bool = False
    skip: bool = False

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.embedding < 1 or self.hidden < 1:
            raise InputError(f"[corrector] embedding is {self.embedding} and hidden {self.hidden}: both must be >= 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"[corrector] dropout is {self.dropout}: must be in [0, 1)")


class Corrector(nn.Module):
    """g_a(h, y'): a distribution over the K classes from features and the given label (Zheng et al. 2021).

    Each row of features is brought to mean 0 and deviation 1 first. The pooled features of a convolutional network are
    small beside the label embedding, and a corrector that hardly sees them copies the given label (results/LOG.md).

    Parameters
    ----------
    feature_dim, n_classes : int
        Width of the main model's features, and K.
    settings : CorrectorSettings
        Its shape.
    """

    def __init__(self, feature_dim: int, n_classes: int, settings: CorrectorSettings) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.embedding = nn.Embedding(n_classes, settings.embedding)
        layers: list[nn.Module] = []
        before = feature_dim + settings.embedding
        for _ in range(2):
            layers.append(nn.Linear(before, settings.hidden))
            if settings.batch_norm:
                layers.append(nn.BatchNorm1d(settings.hidden))
            layers.append(nn.Tanh())
            if settings.dropout:
                layers.append(nn.Dropout(settings.dropout))
            before = settings.hidden
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(before, n_classes)
        self.gate = nn.Linear(before, 1) if settings.skip else None

    def forward(self, features: Tensor, given: Tensor) -> Tensor:
        """Corrected labels.

        Parameters
        ----------
        features : Tensor, shape [n, feature_dim]
            Of the main model; detached here, so that no gradient reaches the main model through the corrector.
        given : Tensor of int64 in [0, K), shape [n]
            Given labels.

        Returns
        -------
        Tensor, shape [n, K]
            Rows sum to 1.
        """
        seen = F.layer_norm(features.detach().to(self.embedding.weight.dtype), features.shape[1:])
        joined = torch.cat([seen, self.embedding(given)], dim=1)
        hidden = self.hidden(joined)
        corrected = self.head(hidden).softmax(dim=1)
        if self.gate is None:
            return corrected
        keep = self.gate(hidden).sigmoid()
        return keep * F.one_hot(given, self.n_classes) + (1 - keep) * corrected
