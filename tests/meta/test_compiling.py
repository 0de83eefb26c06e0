"""Compiled steps do what the others do."""

import copy

import pytest
import torch
from problems import smooth_network

from benchmarks.steps import ADAM, SGD, ModuleStep, random_batch
from mln_lightning.meta import is_compiled
from mln_lightning.models import MetaLabelNet

SHAPE = (2, 4, 4)


def float64_batch(size=6):
    batch = random_batch(SHAPE, size)
    for name, part in batch.items():
        batch[name] = part._replace(images=part.images.double(), labels=part.labels % 3)
    return batch


@pytest.fixture
def pair():
    """The same MetaLabelNet twice."""
    torch.manual_seed(0)
    model = MetaLabelNet(smooth_network(), 3, SGD, ADAM, warmup_epochs=0).double()
    return ModuleStep(model), ModuleStep(copy.deepcopy(model))


def after(step, batch, steps=3):
    for number in range(steps):
        torch.manual_seed(number)
        step(batch)
    return step.model.state_dict()


def test_same_state_after_steps(pair):
    """Parameters, φ and batch-norm statistics; dropout draws the same masks in the derivative."""
    batch = float64_batch()
    before = copy.deepcopy(pair[1].model.state_dict())
    pair[1].model.compile_pieces(batch, "aot_eager")
    torch.testing.assert_close(pair[1].model.state_dict(), before, rtol=0, atol=0)
    assert is_compiled(pair[1].model.network)
    assert pair[1].model._at_theta.tangent is not None
    plain, compiled = (after(step, batch) for step in pair)
    torch.testing.assert_close(compiled, plain, rtol=1e-10, atol=1e-13)
    assert not torch.equal(compiled["generator.linear.weight"], before["generator.linear.weight"])
