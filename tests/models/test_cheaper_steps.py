"""Cheaper meta steps in every meta method: fewer of them, and in less memory."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models import (
    MLC,
    MSLC,
    MSLG,
    LearningToReweight,
    MetaLabelNet,
    MetaModule,
    MetaWeightNet,
)
from tests.models.recorded import C, fit, network

RATE = 0.5
SGD = functools.partial(torch.optim.SGD, lr=0.3, momentum=0.9)
META_SGD = functools.partial(torch.optim.SGD, lr=RATE)
KINDS: dict[str, Callable[..., MetaModule]] = {
    "metalabelnet": functools.partial(MetaLabelNet, warmup_epochs=0, meta_weight=0.0),
    "mlc": MLC,
    "mslc": functools.partial(MSLC, warmup_epochs=0),
    "mw_net": MetaWeightNet,
}
WITHOUT_META_OPTIMIZER: dict[str, Callable[..., MetaModule]] = {
    "l2r": LearningToReweight,
    "mslg": functools.partial(MSLG, warmup_epochs=0),
}


def trained(
    kind: str, *, rest: int = 1, **options: int
) -> tuple[dict[str, Tensor], list[StepOutput]]:
    """One epoch; ``rest``: φ stays where it is but in every such step, by a rate of zero."""
    torch.manual_seed(0)
    model = KINDS[kind](network(), C, SGD, META_SGD, **options)
    step = model.noisy_step

    def noisy_step(batch: TrainBatch) -> StepOutput:
        rate = 0.0 if model.global_step % rest else RATE
        model.trainer.optimizers[1].param_groups[0]["lr"] = rate
        return step(batch)

    model.noisy_step = noisy_step  # type: ignore[method-assign]
    recorder, _ = fit(model, 1)
    return model.state_dict(), recorder.outputs


@pytest.mark.parametrize("kind", KINDS)
def test_steps_between_are_those_with_resting_meta_parameters(kind: str) -> None:
    found, outputs = trained(kind, meta_every=2)
    expected, _ = trained(kind, rest=2)
    every, _ = trained(kind)
    own = [name for name in found if not name.startswith("epoch_means")]
    assert all(torch.equal(found[name], expected[name]) for name in own)
    assert any(not torch.equal(found[name], every[name]) for name in own)
    assert ["meta_loss" in output for output in outputs] == [True, False, True, False, True]


@pytest.mark.parametrize("kind", [*KINDS, *WITHOUT_META_OPTIMIZER])
def test_lean_memory_changes_nothing_but_the_rounding(kind: str) -> None:
    states = []
    for lean in (False, True):
        torch.manual_seed(0)
        if kind in KINDS:
            model = KINDS[kind](network(), C, SGD, META_SGD, lean_memory=lean)
        else:
            model = WITHOUT_META_OPTIMIZER[kind](network(), C, SGD, lean_memory=lean)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, 1)
        states.append(model.state_dict())
    own = [name for name in start if not name.startswith("epoch_means")]
    for name in own:
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-10, atol=1e-12)
    assert any(not torch.equal(start[name].double(), states[0][name]) for name in own)
