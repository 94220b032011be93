import pytest
import torch
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import directional_derivative, frozen_statistics, fused_tangents

NETS = {
    "after a layer": lambda: (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()), (3,)),
    "first layer": lambda: (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4)), (3,)),
    "without weights": lambda: (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Tanh()), (3,)),
    "sequences": lambda: (nn.Sequential(nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.Tanh()), (3, 5)),
    "images": lambda: (nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, eps=0.1), nn.ReLU()), (3, 5, 5)),
    "volumes": lambda: (nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4, momentum=None), nn.Tanh()), (3, 4, 4, 4)),
}


def along_a_tangent(net, shape, held=()):
    """Derivative in forward mode, with the weights named in `held` not moving, and a central difference."""
    for p in net.parameters():
        p.data += 0.5 * torch.randn_like(p)  # a fresh batch norm multiplies by 1 and adds 0
    inputs = torch.randn(6, *shape, dtype=torch.float64)
    weights = {name: p.detach() for name, p in net.double().named_parameters() if name not in held}
    tangent = {name: torch.randn_like(p) for name, p in weights.items()}

    def outputs(w):
        return functional_call(net, w, (inputs,))

    with frozen_statistics(net):
        with fused_tangents(net):
            along = directional_derivative(outputs, weights, tangent)
        with torch.no_grad():
            ahead, behind = (outputs({k: w + h * tangent[k] for k, w in weights.items()}) for h in (1e-6, -1e-6))
    return along, (ahead - behind) / 2e-6


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
def test_the_fused_rule_is_the_derivative(make):
    torch.manual_seed(0)
    net, shape = make()
    before = {name: b.clone() for name, b in net.named_buffers()}
    along, expected = along_a_tangent(net, shape)
    assert torch.allclose(along, expected, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(before[name], b) for name, b in net.named_buffers())


@pytest.mark.parametrize("held", [("1.weight",), ("1.bias",), ("1.weight", "1.bias"), ("0.weight", "0.bias")], ids=str)
def test_weights_that_do_not_move_have_no_part_in_it(held):
    torch.manual_seed(0)
    net, shape = NETS["images"]()
    along, expected = along_a_tangent(net, shape, held)
    assert torch.allclose(along, expected, rtol=1e-6, atol=1e-7)


def test_layers_are_themselves_again_after_an_exception():
    net = nn.Sequential(nn.BatchNorm1d(2))
    with pytest.raises(RuntimeError, match="stop"), fused_tangents(net):
        assert "forward" in vars(net[0])
        raise RuntimeError("stop")
    assert "forward" not in vars(net[0])


class Doubled(nn.BatchNorm1d):
    def forward(self, input):
        return 2 * super().forward(input)


def test_layers_in_eval_mode_and_of_other_makes_are_left_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Doubled(4)).double()
    net(torch.randn(8, 3, dtype=torch.float64) * 3 + 1)
    net[1].eval()
    along, expected = along_a_tangent(net, (3,))
    assert torch.allclose(along, expected, rtol=1e-6, atol=1e-7)


def test_autocast_keeps_the_direction():
    torch.manual_seed(0)
    net = nn.Sequential(
        *(layer for _ in range(6) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()))
    )
    inputs = torch.randn(32, 8, 8, 8)
    weights = {name: p.detach() for name, p in net.named_parameters()}
    tangent = {name: 1e-3 * torch.randn_like(p) for name, p in weights.items()}

    def outputs(w):
        return functional_call(net, w, (inputs,)).float().mean((2, 3))

    with frozen_statistics(net), fused_tangents(net):
        exact = directional_derivative(outputs, weights, tangent)
        with torch.autocast("cpu", torch.bfloat16):
            half = directional_derivative(outputs, weights, tangent)
    cosine = torch.cosine_similarity(exact.flatten(), half.flatten(), dim=0)
    assert 0.95 < cosine < 1 - 1e-7
