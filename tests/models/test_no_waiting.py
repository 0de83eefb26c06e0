"""On a CUDA device, steps of the meta methods are queued without waiting for those before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks.steps import ADAM, NUM_CLASSES, SGD, ModuleStep, random_batch
from mln_lightning.models import MLC, MSLC, MSLG, MetaLabelNet, MetaModule, MetaWeightNet
from mln_lightning.networks import SmallCNN

SHAPE = (3, 8, 8)
CURRENT = {"order": "student_first", "virtual_lr": "current"}
MODELS: dict[str, Callable[..., MetaModule]] = {
    "metalabelnet": functools.partial(MetaLabelNet, meta_optimizer=ADAM),
    "lean": functools.partial(MetaLabelNet, meta_optimizer=ADAM, lean_memory=True),
    "folded": functools.partial(MetaLabelNet, meta_optimizer=ADAM, encoder_mode="folded"),
    "average": functools.partial(MetaLabelNet, meta_optimizer=ADAM, encoder="average"),
    "emlc": functools.partial(
        MetaLabelNet, meta_optimizer=ADAM, meta_weight=0, regenerate_labels=False, **CURRENT
    ),
    "mw_net": functools.partial(MetaWeightNet, meta_optimizer=ADAM),
    "mlc": functools.partial(MLC, meta_optimizer=ADAM),
    "mslc": functools.partial(MSLC, meta_optimizer=ADAM),
    "mslg": MSLG,
}


@pytest.fixture
def _as_in_a_run() -> Iterator[None]:
    """Without what the other tests ask of every operator."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.use_deterministic_algorithms(True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.usefixtures("_as_in_a_run")
@pytest.mark.parametrize("kind", MODELS)
def test_three_steps_are_queued_at_once(kind: str) -> None:
    device = torch.device("cuda")
    model = MODELS[kind](SmallCNN(SHAPE, NUM_CLASSES), NUM_CLASSES, SGD, warmup_epochs=0)
    model.prepare_once(torch.zeros(8, dtype=torch.int64))
    model._some_unlabelled = False  # as a fit finds out before its first step
    step, batch = ModuleStep(model.to(device)), random_batch(SHAPE, 8, device)
    step(batch)  # what is made once
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(3):
        step(batch)
