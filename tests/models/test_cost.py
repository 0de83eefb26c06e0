"""What a MetaLabelNet step costs, encoder included, counted rather than timed."""

import gc

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import count
from benchmarks.steps import Data, MetaLabelNetStep, PlainStep, PublishedStep
from mln_lightning.networks import CNN6, PreActResNet18, SmallCNN

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("network", [CNN6, PreActResNet18])
def test_flops(network):
    data = Data(SHAPE, 2)
    plain, _ = count(PlainStep(network(SHAPE, 10)), data)
    ours, _ = count(MetaLabelNetStep(network(SHAPE, 10)), data)
    published, _ = count(PublishedStep(network(SHAPE, 10)), data)
    assert ours <= 3.75 * plain
    assert published > 5.6 * plain  # the meter sees what the published way pays for


def test_live_memory():
    data = Data(SHAPE, 32)
    _, plain = count(PlainStep(CNN6(SHAPE, 10)), data)
    _, ours = count(MetaLabelNetStep(CNN6(SHAPE, 10)), data)
    _, published = count(PublishedStep(CNN6(SHAPE, 10)), data)
    assert ours <= 2.1 * plain
    assert published > 4 * plain


@pytest.mark.parametrize("backend", ["jvp", "autograd", "finite_difference"])
def test_no_memory_growth_over_200_steps(backend):
    data = Data((1, 8, 8), 4)
    step = MetaLabelNetStep(SmallCNN((1, 8, 8), 10), backend)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    for _ in range(3):
        step(data)
    before = alive()
    for _ in range(200):
        step(data)
    assert alive() == before


def test_one_training_forward_serves_all():
    calls = []
    net = SmallCNN((1, 8, 8), 10)
    step = MetaLabelNetStep(net)
    net.register_forward_hook(lambda module, inputs, output: calls.append(output.requires_grad))
    with FlopCounterMode(display=False):
        step(Data((1, 8, 8), 4))
    assert calls == [True, True, False]  # training, meta, tangent
