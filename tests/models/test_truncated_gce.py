"""Truncated GCE against its equations, and when it prunes what."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from mln_lightning.models import TruncatedGCE
from tests.models.watched import C, forward, leaves, small_network, watched

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def test_steps_and_pruning_equal_the_equations(tmp_path: Path) -> None:
    """Warm-up in epoch 0, all kept in 1 and 2, pruned before 3 and 5."""
    model = TruncatedGCE(
        small_network(),
        C,
        functools.partial(torch.optim.SGD, lr=0.01),  # slow enough to change its mind
        warmup_epochs=1,
        unpruned_epochs=2,
        pruning_interval=2,
        q=0.6,
        threshold=0.4,
    )
    steps, data = watched(model, tmp_path, epochs=6)
    assert {step.epoch for step in steps} == {1, 2, 3, 4, 5}
    train = data.train_index
    images = data.normalize(data.parts.train.source[train].images).double()
    kept = torch.ones(400, dtype=torch.bool)
    seen: dict[int, torch.Tensor] = {}
    for step in steps:
        if step.epoch not in seen and step.epoch in (3, 5):
            p = forward(step.before, images).softmax(1)
            kept[train] = p[torch.arange(len(p)), data.labels[train]] > 0.4
        seen.setdefault(step.epoch, kept.clone())
        assert torch.equal(step.before["kept"], kept)
        theta = leaves(step.before)
        p = forward(theta, step.batch.images).softmax(1)
        p_y = p[torch.arange(len(p)), step.batch.labels]
        weight = kept[step.batch.index].double()
        terms = weight * (1 - p_y**0.6) / 0.6 + (1 - weight) * (1 - 0.4**0.6) / 0.6
        terms.mean().backward()
        torch.testing.assert_close(step.output["loss"], terms.mean().detach(), rtol=1e-9, atol=0)
        for name, parameter in theta.items():
            assert parameter.grad is not None
            expected = parameter.detach() - 0.01 * parameter.grad
            torch.testing.assert_close(step.after[name], expected, rtol=1e-9, atol=1e-11)
    assert seen[2].all()
    assert torch.equal(seen[3], seen[4]), "between two prunings nothing changes"
    assert not torch.equal(seen[4], seen[5])
    wrong = data.labels != data.clean
    assert kept[train][wrong[train]].float().mean() < kept[train][~wrong[train]].float().mean()


def test_nothing_moves_where_all_is_pruned(tmp_path: Path) -> None:
    """Not even by momentum or weight decay; the steps still count."""
    decaying = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)
    model = TruncatedGCE(small_network(), C, decaying, unpruned_epochs=1, threshold=0.9999999)
    steps, _ = watched(model, tmp_path, epochs=2)
    late = [step for step in steps if step.epoch == 1]
    assert not late[0].before["kept"][late[0].batch.index].any()
    assert all(step.output == {} for step in late)
    for name, value in late[0].before.items():
        if name.startswith("network"):
            assert torch.equal(value, late[-1].after[name]), name
    assert model.trainer.global_step == len(steps)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"unpruned_epochs": -1}, "unpruned_epochs must be 0 or more, got -1"),
        ({"pruning_interval": 0}, "pruning_interval must be at least 1, got 0"),
        ({"threshold": 1.0}, "threshold must be above 0 and below 1, got 1.0"),
        ({"q": 1.5}, "q must be above 0 and at most 1, got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TruncatedGCE(small_network(), C, SGD, **arguments)  # type: ignore[arg-type]
