"""Ready-made networks, unmodified: the forward-mode pass equals differentiation, draws included."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu6
from torchvision import models

from tests.meta.problems import problem, relative

SLOW = ("vit_b_16", "resnet50", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t")


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    size = {"image_size": 32} if name.startswith("vit") else {}
    return models.get_model(name, weights=None, num_classes=3, **size).double()


def difference(jvp: nn.Module, autograd: nn.Module) -> float:
    found, expected = (problem("generator", n, size=3, image=(3, 32, 32)) for n in (jvp, autograd))
    torch.manual_seed(1)
    grads = found.step("jvp").grads
    torch.manual_seed(1)
    return relative(grads, expected.step("autograd").grads)


@pytest.mark.parametrize(
    "name",
    ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_forward_mode_equals_autograd(name):
    net = network(name)
    assert difference(net, net) < 1e-12


class HardSigmoid(nn.Module):
    """relu6(x + 3) / 6, which unlike torch's own can be differentiated twice.

    Args:
        slope: the derivative in the middle; torch's kernel takes one sixth in float32, whatever the
            type of its input.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        ramp = relu6(x + 3)
        return ramp * self.slope + (ramp / 6 - ramp * self.slope).detach()


@pytest.mark.parametrize(
    ("slope", "tolerance"),
    [(torch.tensor(1 / 6, dtype=torch.float32).item(), 1e-12), (1 / 6, 1e-6)],
)
def test_forward_mode_equals_autograd_where_torch_has_no_second_derivative(slope, tolerance):
    smooth = network("mobilenet_v3_small")
    for module in list(smooth.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, nn.Hardsigmoid):
                module.register_module(child_name, HardSigmoid(slope))
    assert difference(network("mobilenet_v3_small"), smooth) < tolerance
