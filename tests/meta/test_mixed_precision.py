"""The meta gradient under autocast, against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from mln_lightning.labels import LabelGenerator
from mln_lightning.losses import reverse_kl
from mln_lightning.meta import Backend, MetaStep, meta_step, stateless
from mln_lightning.networks import CNN6, PreActResNet18, SmallCNN

BATCH, FEATURES, CLASSES = 32, 64, 10
Shape = tuple[int, int, int]


def vision_transformer(shape: Shape) -> nn.Module:
    from torchvision.models import VisionTransformer

    network = VisionTransformer(
        shape[1], 4, num_layers=3, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=CLASSES
    )
    nn.init.normal_(network.heads.head.weight, std=0.02)  # torchvision starts with zeros
    return network


def resnet50(shape: Shape) -> nn.Module:
    from torchvision import models

    return models.resnet50(num_classes=CLASSES)


@dataclass
class Trained:
    """A network that knows random images by heart, and a meta problem.

    The hardest state we found: on images it has not seen bfloat16 is ten to a hundred times better.
    """

    network: nn.Module
    generator: LabelGenerator
    images: Tensor
    features: Tensor
    meta_images: Tensor
    meta_labels: Tensor

    def gradient(
        self,
        dtype: torch.dtype = torch.float32,
        half: torch.dtype | None = None,
        backend: Backend = "jvp",
        scale: float = 1.0,
    ) -> Tensor:
        step = self.step(dtype, half, backend, scale)
        return torch.cat([grad.flatten().double() for grad in step.grads])

    def step(
        self,
        dtype: torch.dtype = torch.float32,
        half: torch.dtype | None = None,
        backend: Backend = "jvp",
        scale: float = 1.0,
    ) -> MetaStep:
        device = self.images.device
        net, phi = (copy.deepcopy(module).to(dtype) for module in (self.network, self.generator))
        at_virtual, x_meta = stateless(net), self.meta_images.to(dtype)
        with torch.autocast(device.type, half, enabled=half is not None):
            return meta_step(
                stateless(net, buffers="share"),
                dict(net.named_parameters()),
                self.images.to(dtype),
                lambda logits: reverse_kl(logits, phi(self.features.to(dtype))),
                lambda params: cross_entropy(at_virtual(params, x_meta), self.meta_labels),
                tuple(phi.parameters()),
                lr=0.1,
                backend=backend,
                scale=scale,
            )


def trained(
    make: Callable[[Shape], nn.Module],
    shape: Shape,
    device: str = "cpu",
    *,
    batch: int = BATCH,
    steps: int = 40,
) -> Trained:
    torch.manual_seed(0)
    network, generator = make(shape).to(device), LabelGenerator(FEATURES, CLASSES).to(device)
    images, meta_images = torch.randn(2, batch, *shape).to(device)
    labels, meta_labels = torch.randint(CLASSES, (2, batch)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()
    features = torch.randn(batch, FEATURES).to(device)
    return Trained(network, generator, images, features, meta_images, meta_labels)


NETWORKS = [
    pytest.param(lambda shape: SmallCNN(shape, CLASSES, width=16), (1, 8, 8), id="small_cnn"),
    pytest.param(lambda shape: CNN6(shape, CLASSES), (3, 8, 8), id="cnn6"),
    pytest.param(
        lambda shape: PreActResNet18(shape, CLASSES, width=8), (3, 16, 16), id="preact_resnet18"
    ),
    pytest.param(vision_transformer, (3, 16, 16), id="vision_transformer"),
]


@pytest.mark.parametrize(("make", "shape"), NETWORKS)
def test_bfloat16_keeps_the_direction(make: Callable[[Shape], nn.Module], shape: Shape) -> None:
    case = trained(make, shape)
    exact = case.gradient(torch.float64)
    mixed = case.gradient(half=torch.bfloat16)
    assert cosine_similarity(mixed, exact, dim=0) > 0.999
    assert mixed.norm() == pytest.approx(exact.norm().item(), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(lambda shape: CNN6(shape, CLASSES), (3, 16, 16), id="cnn6"),
        pytest.param(lambda shape: PreActResNet18(shape, CLASSES), (3, 8, 8), id="preact"),
    ],
)
def test_bfloat16_keeps_the_direction_on_whole_networks(
    make: Callable[[Shape], nn.Module], shape: Shape
) -> None:
    case = trained(make, shape)
    found = cosine_similarity(case.gradient(half=torch.bfloat16), case.gradient(torch.float64), 0)
    assert found > 0.999


@pytest.mark.slow
def test_resnet50_is_as_good_as_double_backward() -> None:
    case = trained(resnet50, (3, 64, 64), batch=8, steps=5)
    exact = case.gradient(torch.float64)

    def error(backend: Backend) -> float:
        found = case.gradient(half=torch.bfloat16, backend=backend)
        return float((found - exact).norm() / exact.norm())

    assert error("jvp") <= 1.5 * error("autograd")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("make", "shape"), NETWORKS)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_direction_on_a_gpu(
    make: Callable[[Shape], nn.Module],
    shape: Shape,
    half: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    case = trained(make, shape, "cuda")
    exact = case.gradient(torch.float64)
    mixed = case.gradient(half=half, scale=2.0**12 if half == torch.float16 else 1.0)
    assert cosine_similarity(mixed, exact, dim=0) > 0.999


@pytest.mark.parametrize("backend", ["jvp", "autograd"])
def test_derivatives_are_of_half_precision(backend: Backend) -> None:
    """The forward passes are exact: with the right derivatives too there would be no error."""
    case = trained(lambda shape: SmallCNN(shape, CLASSES, width=8), (1, 8, 8))
    exact, single = case.gradient(torch.float64), case.gradient(backend=backend)
    mixed = case.gradient(half=torch.bfloat16, backend=backend)
    assert 1e-4 < (mixed - exact).norm() / exact.norm() < 0.03
    assert (single - exact).norm() / exact.norm() < 1e-4


def test_the_backward_pass_multiplies_in_half_precision() -> None:
    """A gradient that bfloat16 rounds to 1 arrives as 1."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1 + 2**-12)
    with torch.autocast("cpu", torch.bfloat16):
        value = torch.ones(1, 1, requires_grad=True)
        out = stateless(layer)(dict(layer.named_parameters()), value)
        (to_value,) = torch.autograd.grad(out, value)
    assert float(out.detach()) == 1 + 2**-12
    assert float(to_value) == 1.0


def test_half_precision_shares_as_much_as_single() -> None:
    case = trained(lambda shape: SmallCNN(shape, CLASSES, width=8), (1, 8, 8), steps=0)

    def flops(half: torch.dtype | None) -> int:
        with FlopCounterMode(display=False) as counter:
            case.step(half=half)
        found: int = counter.get_total_flops()
        return found

    assert flops(torch.bfloat16) == flops(None)


class Odd(nn.Module):
    """Calls of layers that `nn.Conv2d` and `nn.Linear` do not make."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.same = nn.Conv2d(shape[0], 4, 3, padding="same")
        self.grouped = nn.Conv2d(4, 8, 3, stride=(2, 1), dilation=2, groups=2, bias=False)
        self.line = nn.Conv1d(8, 8, 3, padding=1)
        self.tokens = nn.Linear(8, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.grouped(torch.relu_(self.same(images)))
        line = torch.relu_(self.line(maps.flatten(2)))
        tokens = self.tokens(line.transpose(1, 2)).tanh()  # (B, n, 8)
        weight = self.head.weight
        return torch.nn.functional.linear(self.frozen(tokens).mean(dim=1), weight, bias=None)


@pytest.mark.parametrize("backend", ["jvp", "autograd"])
def test_every_kind_of_layer_passes(backend: Backend) -> None:
    case = trained(Odd, (1, 8, 8), steps=5)
    exact = case.gradient(torch.float64)
    mixed = case.gradient(half=torch.bfloat16, backend=backend)
    assert cosine_similarity(mixed, exact, dim=0) > 0.999
    assert mixed.norm() == pytest.approx(exact.norm().item(), rel=0.02)
