"""What MetaLabelNet's own training step costs, encoder included, counted rather than timed."""

import gc

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import live_memory
from benchmarks.published import PublishedStep
from benchmarks.steps import metalabelnet, plain, random_batch
from mln_lightning.batch import TrainBatch
from mln_lightning.networks import CNN6, PreActResNet18, SmallCNN

SHAPE = (3, 32, 32)
SMALL = (1, 8, 8)


STUDENT_FIRST = {  # those of model=emlc
    "order": "student_first",
    "virtual_lr": "current",
    "meta_weight": 0.0,
    "regenerate_labels": False,
}


def flops(step, batch, steps=1):
    """Mean over some steps."""
    with FlopCounterMode(display=False) as counter:
        for _ in range(steps):
            step(batch)
    return counter.get_total_flops() / steps


def live_bytes(step, batch):
    """Most bytes alive at once."""
    step(random_batch(SHAPE, 2))  # optimisers have made their state in the first step
    gc.collect()
    with live_memory(step, batch) as memory:
        step(batch)
    return memory.peak


@pytest.mark.parametrize("network", [CNN6, PreActResNet18])
def test_flops(network):
    batch = random_batch(SHAPE, 2)
    base = flops(plain(network(SHAPE, 10)), batch)
    step = metalabelnet(network(SHAPE, 10), meta_every=5)
    meta, between = flops(step, batch), flops(step, batch)
    for every, bound in ((1, 3.70), (2, 2.55), (5, 1.85)):
        assert (meta + (every - 1) * between) / every <= bound * base
    # The meter sees what the published way pays for.
    assert flops(PublishedStep(network(SHAPE, 10)), batch) > 5.5 * base


def test_every_kth_step_is_a_meta_step():
    batch = random_batch(SMALL, 4)
    costs = {}
    for every in (1, 3):
        step = metalabelnet(SmallCNN(SMALL, 10), meta_every=every)
        costs[every] = [flops(step, batch) for _ in range(7)]
    meta, between = costs[3][:2]
    assert costs[1] == [meta] * 7
    assert costs[3] == [meta, between, between, meta, between, between, meta]


THIRD = 1 / 3  # of a plain step: a forward, and so the encoder


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (STUDENT_FIRST, 8 * THIRD),  # the real step is the virtual one: a backward is saved
        ({**STUDENT_FIRST, "meta_every": 2}, (8 * THIRD + 1) / 2),
        ({"lean_memory": True}, 12 * THIRD),  # two forwards more
        ({**STUDENT_FIRST, "lean_memory": True}, 9 * THIRD),  # one forward more
    ],
)
def test_flops_of_the_options(options, expected):
    batch = random_batch(SHAPE, 2)
    base = flops(plain(CNN6(SHAPE, 10)), batch)
    step = metalabelnet(CNN6(SHAPE, 10), **options)
    found = flops(step, batch, steps=options.get("meta_every", 1)) / base
    assert found == pytest.approx(expected + THIRD, rel=0.01)


def test_a_meta_batch_of_another_size_costs_in_proportion():
    """A plain step for each image."""
    batch = random_batch(SMALL, 16)
    base = flops(plain(SmallCNN(SMALL, 10)), batch)
    quarter = TrainBatch(train=batch["train"], meta=random_batch(SMALL, 4)["meta"])
    step = metalabelnet(SmallCNN(SMALL, 10))
    saved = flops(step, batch) - flops(step, quarter)
    assert saved == pytest.approx(0.75 * base, rel=0.02)


@pytest.mark.slow
def test_live_memory():
    batch = random_batch(SHAPE, 32)
    base = live_bytes(plain(CNN6(SHAPE, 10)), batch)
    assert live_bytes(metalabelnet(CNN6(SHAPE, 10)), batch) <= 2.0 * base
    assert live_bytes(metalabelnet(CNN6(SHAPE, 10), **STUDENT_FIRST), batch) <= 1.6 * base
    assert live_bytes(PublishedStep(CNN6(SHAPE, 10)), batch) > 4 * base


@pytest.mark.slow
@pytest.mark.parametrize("network", [CNN6, PreActResNet18])
def test_lean_memory(network):
    batch = random_batch(SHAPE, 32)
    base = live_bytes(plain(network(SHAPE, 10)), batch)
    for options in ({}, STUDENT_FIRST):
        step = metalabelnet(network(SHAPE, 10), lean_memory=True, **options)
        assert live_bytes(step, batch) <= 1.3 * base


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
