"""The counter of what whole runs cost."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.method_costs import Stage, idle, in_plain_steps, lengths, measure, row
from mln_lightning.models import Supervised
from mln_lightning.networks import evaluating

SMALL = ("dataset=blobs", "trainer.max_epochs=10")


class WithPasses(Supervised):
    """A pass over the training images after the warm-up, and one in every later epoch."""

    passes: list[int] = []  # noqa: RUF012  # FLOPs of each, for the test

    def on_warmup_end(self) -> None:
        self.look()

    def on_noisy_epoch(self) -> None:
        self.look()

    def look(self) -> None:
        with evaluating(self.network), FlopCounterMode(display=False) as counter:
            for images in self.data.images_of(self.data.parts.train, torch.device("cpu")):
                self.network(images)
        self.passes.append(counter.get_total_flops())


def test_stages_of_a_run() -> None:
    model = OmegaConf.create({"relabel_epochs": 12, "x": 1, "ramp_epochs": 0, "warmup_epochs": 8})
    assert lengths(model, 40) == {"warmup": 8, "relabel": 12, "last": 20}
    assert lengths(model, 15) == {"warmup": 8, "relabel": 7, "last": 0}
    assert lengths(OmegaConf.create({"x": 1}), 40) == {"last": 40}


def test_a_run_is_put_together_from_its_stages() -> None:
    plain = [Stage("last", 10, 6, 6)]
    stages = [Stage("warmup", 4, 6, 6), Stage("last", 6, 30, 12)]
    assert in_plain_steps(stages, plain) == (4 * 6 + 30 + 5 * 12) / 60
    assert row("x", stages, plain) == "| `x` | 1.90 | warmup 1.00 → last 2.00 |"
    assert Stage("last", 0, 5, 5).flops == 0, "a stage that is not reached"


@pytest.fixture(scope="module")
def plain() -> list[Stage]:
    return measure("cross_entropy", SMALL)


def test_passes_over_the_data_count(plain: list[Stage]) -> None:
    assert [(stage.name, stage.epochs) for stage in plain] == [("last", 10)]
    assert plain[0].first == plain[0].other > 0
    WithPasses.passes.clear()
    with_passes = (f"model._target_={__name__}.WithPasses", "+model.warmup_epochs=3")
    warmup, last = measure("cross_entropy", [*SMALL, *with_passes])
    assert (warmup.epochs, last.epochs) == (3, 7)
    assert warmup.first == warmup.other == plain[0].other
    first, *others = WithPasses.passes
    assert others == [first, first]
    assert last.other == plain[0].other + first
    assert last.first == plain[0].other + 2 * first


def test_metalabelnet_is_as_dear_as_its_steps(plain: list[Stage]) -> None:
    warmup, last = measure("metalabelnet", [*SMALL, "model.warmup_epochs=4"])
    assert warmup.other == plain[0].other
    assert last.other == pytest.approx(3.67 * plain[0].other, rel=0.02)
    assert in_plain_steps([warmup, last], plain) == pytest.approx(0.4 + 0.6 * 3.67, rel=0.02)


@pytest.mark.slow
def test_a_run_in_full_has_the_same_cost(plain: list[Stage]) -> None:
    overrides = ("dataset=blobs", "trainer.max_epochs=4", "model.warmup_epochs=2")
    whole = measure("finetune", overrides, in_full=True)
    assert whole == measure("finetune", overrides)
    assert [stage.epochs for stage in whole] == [2, 2]
    assert not idle(whole, plain)
    assert idle([*whole, Stage("last", 3, 9, 0)], plain)
