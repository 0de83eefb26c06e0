import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mln_lightning.meta import sharing
from tests.meta.problems import problem, relative


def vgg_like():
    """An in-place activation right after a convolution overwrites what was remembered."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
    )


def tied():
    layer = nn.Linear(32, 32)
    return nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(32, 3))


def unbiased():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)
    )


def half_frozen():
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    net[1].requires_grad_(False)
    net[3].weight.requires_grad_(False)  # its bias moves
    return net


@pytest.mark.parametrize("make", [vgg_like, tied, unbiased, half_frozen])
def test_sharing_changes_nothing_and_equals_autograd(make, monkeypatch):
    torch.manual_seed(0)
    net = make().double()
    shared = problem("generator", net).step("jvp").grads
    exact = problem("generator", net).step("autograd").grads
    monkeypatch.setattr(sharing, "BILINEAR", frozenset())
    alone = problem("generator", net).step("jvp").grads
    assert relative(shared, alone) < 1e-15
    assert relative(shared, exact) < 1e-12


def test_the_training_graph_survives_the_tangent_pass():
    torch.manual_seed(0)
    net = vgg_like().double()
    twin = copy.deepcopy(net)
    case = problem("table", net)
    case.step("jvp").logits.sum().backward()
    twin(case.images).sum().backward()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_sharing_saves_the_convolutions(monkeypatch):
    def flops():
        torch.manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            problem("table", unbiased().double()).step("jvp")
        return counter.get_total_flops()

    shared = flops()
    monkeypatch.setattr(sharing, "BILINEAR", frozenset())
    with FlopCounterMode(display=False) as counter:
        unbiased().double()(torch.zeros(6, 2, 4, 4, dtype=torch.float64))
    assert flops() - shared >= counter.get_total_flops() > 0
