"""Features in inference, and networks that follow another."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mln_lightning.networks import (
    CNN6,
    InferenceFeatures,
    PreActResNet18,
    SmallCNN,
    features,
    find_head,
    follow,
)

SHAPE = (1, 8, 8)


def trained(network: nn.Module) -> nn.Module:
    """With batch-norm statistics and weights unlike those of the start, frozen."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "running_var", "bias")):
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return network.double().requires_grad_(False).eval()


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("make", "shape", "left"),
    [
        (lambda: SmallCNN(SHAPE, 3, width=4), SHAPE, 0),
        (lambda: CNN6((3, 8, 8), 3), (3, 8, 8), 0),
        # Those before the first convolution of its eight blocks stay.
        (lambda: PreActResNet18((3, 8, 8), 3, width=4), (3, 8, 8), 8),
    ],
)
def test_folded_features_are_the_same_up_to_rounding(make, shape, left: int) -> None:
    torch.manual_seed(0)
    network = trained(make())
    head = find_head(network)
    before = copy.deepcopy(network.state_dict())
    folded = InferenceFeatures(network, head, "folded")
    images = torch.randn(2, *shape, dtype=torch.float64)
    expected = features(network, head, images)
    torch.testing.assert_close(folded(images), expected, rtol=1e-10, atol=1e-12)
    assert batch_norms(folded._folded) == left < batch_norms(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_folding_follows_the_network() -> None:
    torch.manual_seed(0)
    network, other = (trained(SmallCNN(SHAPE, 3, width=4)) for _ in range(2))
    folded = InferenceFeatures(network, find_head(network), "folded")
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    folded(images)
    once = folded._folded
    folded(images)
    assert folded._folded is once, "made once"
    network.load_state_dict(other.state_dict())
    expected = features(other, find_head(other), images)
    torch.testing.assert_close(folded(images), expected, rtol=1e-10, atol=1e-12)
    network.float()
    assert folded(images.float()).dtype == torch.float32


class Branching(nn.Module):
    """Cannot be traced: which way it goes depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
        self.head = nn.Linear(72, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layer(images if images.sum() > 0 else -images))


class Twice(nn.Module):
    """One convolution with two batch-norms: it cannot take both in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 3)
        self.first, self.second = nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        images = self.second(self.conv(self.first(self.conv(images))))
        return self.head(images.flatten(1))


@pytest.mark.parametrize(
    ("make", "reason"), [(Branching, "control flow"), (Twice, "conv is used more than once")]
)
def test_what_cannot_be_folded_runs_as_it_is(make, reason: str) -> None:
    network = trained(make())
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    folded = InferenceFeatures(network, "head", "folded")
    with pytest.warns(UserWarning, match=f"batch-norm of {make.__name__} cannot.*{reason}"):
        found = folded(images)
    assert torch.equal(found, features(network, "head", images))
    folded(images)  # said once


def test_bfloat16_features_keep_the_type_of_the_images() -> None:
    network = trained(SmallCNN(SHAPE, 3, width=4)).float()
    images = torch.randn(4, *SHAPE)
    exact = InferenceFeatures(network, find_head(network))(images)
    found = InferenceFeatures(network, find_head(network), "bf16")(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert torch.equal(found, found.bfloat16().float())
    assert (found - exact).norm() < 0.02 * exact.norm()


def test_a_network_in_training_is_looked_at_in_eval_mode_without_gradients() -> None:
    network = SmallCNN(SHAPE, 3, width=4).train()
    before = copy.deepcopy(network.state_dict())
    found = InferenceFeatures(network, find_head(network))(torch.randn(4, *SHAPE))
    assert not found.requires_grad
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_an_average_moves_and_counts_are_copied(decay: float) -> None:
    torch.manual_seed(0)
    average, network = SmallCNN(SHAPE, 3, width=4), SmallCNN(SHAPE, 3, width=4)
    network(torch.randn(4, *SHAPE))
    before = copy.deepcopy(average.state_dict())
    follow(average, network, decay)
    counts = 0
    for name, value in average.state_dict().items():
        target = network.state_dict()[name]
        if value.is_floating_point():
            target = decay * before[name] + (1 - decay) * target
        else:
            counts += 1
        torch.testing.assert_close(value, target)
    assert counts > 0
