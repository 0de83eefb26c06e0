"""What MetaLabelNet's own training step costs, encoder included, counted rather than timed."""

import gc

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import count, live_memory
from benchmarks.published import PublishedStep
from benchmarks.steps import ADAM, SGD, ModuleStep, metalabelnet, plain, random_batch
from mln_lightning.models import MetaLabelNet
from mln_lightning.networks import CNN6, PreActResNet18, SmallCNN

SHAPE = (3, 32, 32)
SMALL = (1, 8, 8)


@pytest.mark.parametrize("network", [CNN6, PreActResNet18])
def test_flops(network):
    batch = random_batch(SHAPE, 2)
    base = count(plain(network(SHAPE, 10)), batch).flops
    assert count(metalabelnet(network(SHAPE, 10)), batch).flops <= 3.75 * base
    # The meter sees what the published way pays for.
    assert count(PublishedStep(network(SHAPE, 10)), batch).flops > 5.5 * base


def student_first(network):
    """MetaLabelNet with the order of ``model=emlc``."""
    model = MetaLabelNet(
        network,
        10,
        SGD,
        ADAM,
        warmup_epochs=0,
        order="student_first",
        virtual_lr="current",
        meta_weight=0.0,
        regenerate_labels=False,
    )
    return ModuleStep(model)


def test_flops_of_the_student_first():
    """The real step is the virtual one: a backward is saved. The encoder's forward is a third."""
    batch = random_batch(SHAPE, 2)
    base = count(plain(CNN6(SHAPE, 10)), batch).flops
    assert count(student_first(CNN6(SHAPE, 10)), batch).flops <= 3.05 * base


@pytest.mark.slow
def test_live_memory():
    batch = random_batch(SHAPE, 32)
    base = count(plain(CNN6(SHAPE, 10)), batch).live_bytes
    assert count(metalabelnet(CNN6(SHAPE, 10)), batch).live_bytes <= 2.1 * base
    assert count(PublishedStep(CNN6(SHAPE, 10)), batch).live_bytes > 4 * base


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jvp", "autograd", "finite_difference"])
def test_no_memory_growth_over_200_steps(backend):
    batch = random_batch(SMALL, 4)
    step = metalabelnet(SmallCNN(SMALL, 10), backend)
    step(batch)
    alive = []
    with live_memory(step, batch) as memory:
        for steps in (20, 180):
            for _ in range(steps):
                step(batch)
            gc.collect()
            alive.append(memory.now)
    assert alive[1] == alive[0] > 0


def test_one_training_forward_serves_all():
    calls = []
    network = SmallCNN(SMALL, 10)
    step = metalabelnet(network)
    network.register_forward_hook(lambda *call: calls.append(call[-1].requires_grad))
    with FlopCounterMode(display=False):
        step(random_batch(SMALL, 4))
    assert calls == [True, True, False]  # training, meta, tangent


def test_the_measured_step_is_the_one_of_a_fit():
    """The same bits as a fit of one epoch with one batch."""
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    batch = random_batch(SMALL, 4)
    networks = []
    for fit in (False, True):
        torch.manual_seed(0)
        network = SmallCNN(SMALL, 10)
        step = metalabelnet(network)
        if fit:
            Trainer(
                max_epochs=1,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(step.model, DataLoader([batch], batch_size=None))
        else:
            step(batch)
        networks.append(network.state_dict())
    for name, value in networks[0].items():
        assert torch.equal(value, networks[1][name]), name
