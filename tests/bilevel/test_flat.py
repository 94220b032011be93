import copy
import re

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import FlatParameters, directional_derivative


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Flatten(), nn.Linear(80, 2)
    )


def test_module_and_vector_share_memory():
    net = make_net()
    before = copy.deepcopy(net)
    flat = FlatParameters(net)
    assert len(flat) == sum(p.numel() for p in net.parameters()) == flat.vector.numel()
    assert flat.names == tuple(name for name, _ in net.named_parameters())
    assert not flat.vector.requires_grad
    for p, q in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.requires_grad and p.is_leaf
    flat.vector.zero_()
    assert all((p == 0).all() for p in net.parameters())
    with torch.no_grad():
        net[0].weight.fill_(2.0)
    assert flat.vector.sum() == 2 * net[0].weight.numel()


def test_round_trip_and_assign():
    net = make_net()
    flat = FlatParameters(net)
    saved = flat.vector.clone()
    vector = torch.randn(len(flat))
    parts = flat.unflatten(vector)
    assert torch.equal(flat.flatten(list(parts.values())), vector)
    flat.assign(vector)
    assert all(torch.equal(p, parts[name]) for name, p in net.named_parameters())
    flat.assign(saved)
    assert torch.equal(flat.vector, saved)


def test_flatten_takes_none_for_zeros_and_returns_a_copy():
    flat = FlatParameters(nn.Linear(2, 3))
    bias = torch.ones(3)
    vector = flat.flatten([None, bias])
    bias.zero_()
    assert vector.tolist() == [0] * 6 + [1] * 3


def test_flatten_refuses_wrong_shapes_and_numbers():
    flat = FlatParameters(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=re.escape("'weight' has shape [3, 2], got [2, 3]")):
        flat.flatten([torch.zeros(2, 3), torch.zeros(3)])
    with pytest.raises(ValueError, match="shorter"):
        flat.flatten([torch.zeros(3, 2)])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradient_equals_autograd_of_each_parameter(memory_format):
    net = make_net().double().to(memory_format=memory_format)
    plain = copy.deepcopy(net)
    flat = FlatParameters(net)
    inputs = torch.randn(4, 3, 4, 4, dtype=torch.float64).to(memory_format=memory_format)
    gradient = flat.gradient(net(inputs).square().sum())
    expected = torch.autograd.grad(plain(inputs).square().sum(), list(plain.parameters()))
    for (name, part), by_autograd in zip(flat.unflatten(gradient).items(), expected, strict=True):
        assert part.abs().sum() > 0, name
        assert torch.allclose(part, by_autograd, rtol=1e-12, atol=1e-12), name
    assert all(p.grad is None for p in net.parameters())


def test_gradient_of_unused_parameters_is_zero_and_graph_can_be_kept():
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    flat = FlatParameters(net)
    loss = net["used"](torch.ones(1, 2)).sum()
    first = flat.gradient(loss, retain_graph=True)
    assert torch.equal(first, flat.gradient(loss))
    assert first.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        flat.gradient(loss)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_of_one_channel_keeps_its_layout(memory_format):
    net = nn.Conv2d(1, 4, 3).to(memory_format=memory_format)
    maps = torch.randn(2, 1, 6, 6)
    before = net(maps).stride()
    FlatParameters(net)
    assert net(maps).stride() == before


def test_channels_last_strides_stay():
    net = make_net().to(memory_format=torch.channels_last)
    strides = {name: p.stride() for name, p in net.named_parameters()}
    flat = FlatParameters(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()
    assert {name: p.stride() for name, p in net.named_parameters()} == strides
    assert {name: part.stride() for name, part in flat.unflatten(torch.randn(len(flat))).items()} == strides
    low, high = flat.vector.data_ptr(), flat.vector.data_ptr() + 4 * len(flat)
    assert all(low <= p.data_ptr() and p.data_ptr() + 4 * p.numel() <= high for p in net.parameters())


@pytest.mark.parametrize("seed", range(20))
def test_any_dense_or_gappy_layout_round_trips(seed):
    generator = torch.Generator().manual_seed(seed)
    dims = int(torch.randint(0, 5, (), generator=generator))
    shape = [int(torch.randint(1, 4, (), generator=generator)) for _ in range(dims)]
    values = torch.randn(shape, generator=generator).permute(torch.randperm(dims, generator=generator).tolist())
    if dims and seed % 4 == 0:
        values = values[..., ::2]  # gaps in memory: laid out row-major instead
    net = nn.ParameterDict({"x": nn.Parameter(values), "y": nn.Parameter(torch.zeros(2))})
    flat = FlatParameters(net)
    assert torch.equal(net["x"], values)
    assert torch.equal(flat.unflatten(flat.vector)["x"], values)


def test_frozen_parameters_stay_outside_and_shared_ones_count_once():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    net[2].requires_grad_(False)
    outside = net[2].weight.data_ptr()
    flat = FlatParameters(net)
    assert flat.names == ("0.weight", "1.bias")
    assert net[1].weight is net[0].weight
    assert net[2].weight.data_ptr() == outside


def test_what_cannot_be_flattened_is_refused():
    with pytest.raises(ValueError, match="no trainable parameters"):
        FlatParameters(nn.Linear(2, 2).requires_grad_(False))
    both = (
        r"one dtype and device; '0\.bias' is torch\.float32 on cpu, '1\.bias' is torch\.float64 on cpu: call module\.to"
    )
    with pytest.raises(ValueError, match=both):
        FlatParameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = nn.Parameter(tied[0].weight.data)
    with pytest.raises(ValueError, match="same memory"):
        FlatParameters(tied)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.to(torch.float64),
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: setattr(net, "0", nn.Conv2d(3, 8, 3, padding=1)),
        lambda net: net[0].requires_grad_(False),
        lambda net: net.append(nn.Linear(2, 2)),
    ],
    ids=["dtype", "memory_format", "replaced", "frozen", "added"],
)
def test_check_names_a_parameter_that_left_the_vector(change):
    net = make_net()
    flat = FlatParameters(net)
    flat.check()
    change(net)
    with pytest.raises(RuntimeError, match=r"'(0|6)\.weight' no longer lies .* build FlatParameters again"):
        flat.check()


def test_a_parameter_of_one_number_is_watched_and_an_empty_one_is_anywhere():
    net = nn.ParameterDict({"empty": torch.zeros(0), "one": torch.ones(1), "none": torch.zeros(2, 0)})
    flat = FlatParameters(net)
    assert flat.vector.tolist() == [1]
    net["empty"].data = torch.zeros(0)
    flat.check()
    net["one"].data = torch.ones(1)
    with pytest.raises(RuntimeError, match=r"'one' no longer lies in the flat vector \(1 in all\)"):
        flat.check()


def test_optimizer_and_state_dict_keep_the_views():
    net = make_net()
    flat = FlatParameters(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = flat.vector.clone()
    net(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(flat.vector, before)
    net.load_state_dict(make_net().state_dict())
    flat.check()


def test_unflatten_is_differentiable_twice():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    flat = FlatParameters(net)
    inputs = torch.randn(4, 3, dtype=torch.float64)
    vector = flat.vector.clone().requires_grad_()

    def loss(v):
        return functional_call(net, flat.unflatten(v), (inputs,)).square().sum()

    assert torch.equal(torch.autograd.grad(loss(vector), vector)[0], flat.gradient(net(inputs).square().sum()))
    assert torch.autograd.gradgradcheck(loss, (vector,))
    tangent = torch.randn_like(vector)
    along = directional_derivative(
        lambda w: functional_call(net, w, (inputs,)).square().sum(), flat.unflatten(vector), flat.unflatten(tangent)
    )
    assert torch.allclose(along, torch.autograd.grad(loss(vector), vector)[0] @ tangent)


def test_graphs_from_before_assign_are_void():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    flat = FlatParameters(net)
    loss = net(torch.ones(1, 2)).sum()
    flat.assign(flat.vector + 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        flat.gradient(loss)


def test_autocast_gives_float32_gradients_and_sees_new_weights_at_once():
    net = make_net()
    flat = FlatParameters(net)
    inputs = torch.randn(4, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = net(inputs)
        before = flat.gradient(outputs.float().square().sum())
        flat.assign(torch.zeros(len(flat)))
        after = net(inputs)
    assert outputs.dtype == torch.bfloat16
    assert before.dtype == torch.float32 and before.abs().sum() > 0
    assert (after == 0).all()
