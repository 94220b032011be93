"""One small bilevel problem in float64, with everything METHOD.md section 1 says about what is frozen."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ebomlc.bilevel import FlatParameters, frozen_statistics, mixed_cross_entropy

CLASSES = 3
FEATURES = 4


class Corrector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 2)
        self.hidden = nn.Linear(FEATURES + 2, 4)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, features: Tensor, given: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(torch.cat([features, self.embedding(given)], dim=1)))
        return self.out(hidden).softmax(dim=1)


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, FEATURES), nn.Tanh())


def make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Softplus(),
        nn.Conv2d(3, FEATURES, 3, stride=2, padding=1),
        nn.BatchNorm2d(FEATURES),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class Main(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(inputs)
        return features, self.head(features)


@dataclass
class Problem:
    """Main model and corrector with one noisy batch, a training half and a held-out half of a trusted one."""

    main: nn.Module
    corrector: nn.Module
    noisy: tuple[Tensor, Tensor]
    trusted: tuple[Tensor, Tensor]
    heldout: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        self.w = FlatParameters(self.main)
        self.a = FlatParameters(self.corrector)
        self.n_rows = len(self.noisy[0]) + len(self.trusted[0])

    def outputs(self, weights: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        with frozen_statistics(self.main):
            return functional_call(self.main, self.w.unflatten(weights), (inputs,))

    def targets(self, weights: Tensor, a: Tensor) -> Tensor:
        features = self.outputs(weights, self.noisy[0])[0].detach()
        return functional_call(self.corrector, self.a.unflatten(a), (features, self.noisy[1]))

    def loss(self, weights: Tensor, targets: Tensor) -> Tensor:
        """L(w; q)."""
        noisy = self.outputs(weights, self.noisy[0])[1]
        trusted = self.outputs(weights, self.trusted[0])[1]
        return mixed_cross_entropy(noisy, targets, trusted, self.trusted[1])

    def lower(self, weights: Tensor, a: Tensor) -> Tensor:
        """G(w, a)."""
        return self.loss(weights, self.targets(weights, a))

    def upper(self, weights: Tensor) -> Tensor:
        """F(w)."""
        return F.cross_entropy(self.outputs(weights, self.heldout[0])[1], self.heldout[1])

    def log_probabilities(self, weights: Tensor) -> Tensor:
        return self.outputs(weights, self.noisy[0])[1].log_softmax(dim=1)


def gradient_by(function, point: Tensor) -> Tensor:
    leaf = point.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[make_mlp, make_cnn], ids=["mlp", "cnn"])
def problem(request) -> Problem:
    def rows(n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, 1, 6, 6, dtype=torch.float64), torch.randint(CLASSES, (n,))

    main = Main(request.param()).double().train()
    return Problem(main, Corrector().double(), rows(7), rows(5), rows(6))


@pytest.fixture
def differentiate():
    """Gradient of a scalar function by one vector, by autograd."""
    return gradient_by
