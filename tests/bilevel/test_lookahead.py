from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import RandomReplay, directional_derivative, frozen_statistics


class Plain(nn.Module):
    """Attention, dropout and a class of somebody else's with its own name for the probability."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.layer(x, x, x)[0]
        if isinstance(self.layer, nn.RNNBase):
            return self.layer(x)[0]
        return self.layer(x * self.weight)


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1) > self.drop_prob)


class StochasticDrop(nn.Module):
    def forward(self, x):
        return x * torch.randint(2, (len(x), 1, 1))


class StochasticDepth(nn.Module):
    """As torchvision's: no "drop" in its name."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1) > self.p)


def buffers(net):
    return {name: b.clone() for name, b in net.named_buffers()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


NORMS = {
    "2d": lambda: nn.BatchNorm2d(3),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "instance": lambda: nn.InstanceNorm2d(3, track_running_stats=True),
    "untracked": lambda: nn.BatchNorm2d(3, track_running_stats=False),
}


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())
def test_batch_statistics_are_used_but_not_written(make):
    net = nn.Sequential(nn.Conv2d(2, 3, 1), make()).train()
    inputs = torch.randn(4, 2, 3, 3) * 3 + 1
    before, tracks = buffers(net), net[1].track_running_stats
    with frozen_statistics(net):
        frozen = net(inputs)
    assert same(before, buffers(net))
    assert net[1].track_running_stats is tracks
    assert torch.equal(frozen, net(inputs))
    if tracks:
        assert not same(before, buffers(net))


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())
def test_layers_in_eval_mode_keep_their_running_statistics(make):
    net = nn.Sequential(make())
    net(torch.randn(4, 3, 3, 3) * 3 + 1)
    net.eval()
    inputs = torch.randn(4, 3, 3, 3)
    with frozen_statistics(net):
        frozen = net(inputs)
    assert torch.equal(frozen, net(inputs))


def test_statistics_are_tracked_again_after_an_exception_and_after_nesting():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(RuntimeError, match="stop"), frozen_statistics(net):
        raise RuntimeError("stop")
    with frozen_statistics(net):
        with frozen_statistics(net):
            pass
        assert net[0].track_running_stats is False
    assert [layer.track_running_stats for layer in net] == [True, False]


def test_forward_mode_passes_through_batch_norm():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).double()
    inputs = torch.randn(6, 3, dtype=torch.float64)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    tangent = {name: torch.randn_like(p) for name, p in weights.items()}
    before = buffers(net)

    def outputs(w):
        return functional_call(net, w, (inputs,))

    with frozen_statistics(net):
        along = directional_derivative(outputs, weights, tangent)
        ahead, behind = (outputs({k: w + h * tangent[k] for k, w in weights.items()}) for h in (1e-6, -1e-6))
    assert torch.allclose(along, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-8)
    assert same(before, buffers(net))


ACTIVE = {
    "dropout": nn.Dropout(0.5),
    "dropout1d": nn.Dropout1d(0.5),
    "alpha": nn.AlphaDropout(0.5),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.5),
    "recurrent": nn.GRU(4, 4, num_layers=2, dropout=0.5),
    "foreign": DropPath(0.5),
    "foreign without a known probability": StochasticDrop(),
    "stochastic depth": StochasticDepth(0.5),
    "rrelu": nn.RReLU(),
}


@pytest.mark.parametrize("layer", ACTIVE.values(), ids=ACTIVE.keys())
def test_masks_replay(layer):
    net = Plain(layer).train()
    inputs = torch.randn(32, 4, 4)
    replay = RandomReplay(net)
    first = net(inputs)
    after_first = torch.get_rng_state()
    with replay.again():
        again = net(inputs)
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), after_first)
    assert not torch.equal(first, net(inputs))


def test_random_state_is_restored_after_an_exception():
    replay = RandomReplay(nn.Dropout(0.5))
    torch.rand(3)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), replay.again():
        torch.rand(1)
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), state)


INACTIVE = {
    "none": nn.Linear(2, 2),
    "zero": nn.Dropout(0.0),
    "eval": nn.Dropout(0.5).eval(),
    "attention": nn.MultiheadAttention(4, 2),
    "foreign": DropPath(0.0),
}


@pytest.mark.parametrize("layer", INACTIVE.values(), ids=INACTIVE.keys())
def test_without_active_dropout_nothing_is_remembered_or_rewound(layer, monkeypatch):
    monkeypatch.setattr(torch, "get_rng_state", lambda: pytest.fail("costs something"))
    replay = RandomReplay(layer)
    with replay.again():
        first = torch.rand(3)
    with replay.again():
        assert not torch.equal(first, torch.rand(3))


class OnTwoGpus(nn.Dropout):
    def parameters(self, recurse=True):
        return iter([SimpleNamespace(device=torch.device("cuda", 0)), torch.zeros(1)])

    def buffers(self, recurse=True):
        return iter([SimpleNamespace(device=torch.device("cuda", 1))])


def test_the_generators_of_a_modules_gpus_are_rewound_and_no_others(monkeypatch):
    """No GPU is needed to see whose generator is asked for and set: a table stands for them."""
    numbers = {torch.device("cuda", n): torch.tensor(n) for n in range(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: numbers[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: numbers.update({device: state}))
    replay = RandomReplay(OnTwoGpus(0.5))
    numbers.update({device: number + 10 for device, number in numbers.items()})
    with replay.again():
        assert [int(number) for number in numbers.values()] == [0, 1, 12]
        numbers.update({device: number + 5 for device, number in numbers.items()})
    assert [int(number) for number in numbers.values()] == [10, 11, 17]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_masks_replay_on_cuda():
    net = Plain(nn.Dropout(0.5)).cuda()
    inputs = torch.randn(32, 4, device="cuda")
    replay = RandomReplay(net)
    first = net(inputs)
    with replay.again():
        assert torch.equal(first, net(inputs))
    assert not torch.equal(first, net(inputs))
