"""The meta gradient under bfloat16 autocast, against float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from mln_lightning.labels import LabelGenerator
from mln_lightning.losses import reverse_kl
from mln_lightning.meta import Backend, meta_step, stateless
from mln_lightning.networks import SmallCNN


@pytest.mark.parametrize("backend", ["jvp", "autograd"])
def test_bfloat16_keeps_the_direction(backend: Backend) -> None:
    """With losses on half-precision logits the cosine was 0.45: what this guards against."""
    torch.manual_seed(0)
    shape, size = (1, 8, 8), 64
    network, generator = SmallCNN(shape, 10), LabelGenerator(128, 10)
    images, meta_images = torch.randn(2, size, *shape)
    labels, meta_labels = torch.randint(10, (2, size))
    features = torch.randn(size, 128)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    def gradient(dtype: torch.dtype, *, autocast: bool) -> Tensor:
        net, phi = (copy.deepcopy(module).to(dtype) for module in (network, generator))
        at_virtual, x_meta = stateless(net), meta_images.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            step = meta_step(
                stateless(net, buffers="share"),
                dict(net.named_parameters()),
                images.to(dtype),
                lambda logits: reverse_kl(logits, phi(features.to(dtype))),
                lambda params: cross_entropy(at_virtual(params, x_meta), meta_labels),
                tuple(phi.parameters()),
                lr=0.1,
                backend=backend,
            )
        return torch.cat([grad.flatten().double() for grad in step.grads])

    exact = gradient(torch.float64, autocast=False)
    mixed = gradient(torch.float32, autocast=True)
    assert cosine_similarity(mixed, exact, dim=0) > 0.99
    assert mixed.norm() == pytest.approx(exact.norm().item(), rel=0.05)
