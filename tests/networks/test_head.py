import copy

import pytest
import torch
from torch import nn

from mln_lightning.networks import features, find_head


def two_layers():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


class Reversed(nn.Module):
    """The head is registered before the layer that feeds it."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.first = nn.Linear(4, 3)

    def forward(self, images):
        return self.last(self.first(images.flatten(1)).tanh())


class Scaled(nn.Module):
    """Something follows the last linear layer."""

    def __init__(self):
        super().__init__()
        self.inner = two_layers()

    def forward(self, images):
        return self.inner(images) * 2


def hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_features_enter_the_head():
    net = two_layers()
    images = torch.rand(5, 1, 2, 2)
    assert find_head(net) == "3"
    seen = features(net, "3", images)
    assert torch.equal(seen, net[:3](images))
    assert hooks(net) == 0


def test_frozen_copies_work_and_carry_no_graph():
    net = copy.deepcopy(two_layers()).eval().requires_grad_(False)
    assert not features(net, find_head(net), torch.rand(5, 1, 2, 2)).requires_grad


def test_a_head_registered_early_is_named_by_the_user():
    net = Reversed()
    images = torch.rand(5, 1, 2, 2)
    with pytest.raises(ValueError, match="'first' of Reversed does not make the network's logits"):
        features(net, find_head(net), images)
    assert hooks(net) == 0
    seen = features(net, find_head(net, "last"), images)
    torch.testing.assert_close(net.last(seen), net(images))


def test_a_network_that_goes_on_after_the_head_is_refused():
    net = Scaled()
    assert find_head(net) == "inner.3"
    with pytest.raises(ValueError, match="name the linear layer that does"):
        features(net, "inner.3", torch.rand(5, 1, 2, 2))


def test_hooks_go_even_when_the_network_fails():
    net = two_layers()
    with pytest.raises(RuntimeError, match="shapes"):
        features(net, "3", torch.rand(5, 7))
    assert hooks(net) == 0


def test_missing_heads_are_named():
    with pytest.raises(ValueError, match=r"Sequential has no nn\.Linear, so its features"):
        find_head(nn.Sequential(nn.Flatten()))
    with pytest.raises(ValueError, match=r"no nn\.Linear named 'fc'; it has '1', '3'\."):
        find_head(two_layers(), "fc")
