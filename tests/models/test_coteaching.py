"""Co-teaching and co-teaching+ against transcriptions in plain torch."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.data import DataLoader

from mln_lightning.batch import Batch, TrainBatch
from mln_lightning.models import CoTeaching, CoTeachingPlus
from tests.models.test_base import trainer

B, C, LR = 9, 3, 0.3
SGD = functools.partial(torch.optim.SGD, lr=LR)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, C)).double()


def batches(number: int) -> list[TrainBatch]:
    generator = torch.Generator().manual_seed(3)

    def batch() -> Batch:
        images = torch.randn(B, 1, 4, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(C, (B,), generator=generator)
        return Batch(images, labels, labels, torch.arange(B))

    return [TrainBatch(train=batch(), meta=batch()) for _ in range(number)]


def predict(weights: list[Tensor], images: Tensor) -> Tensor:
    w, b, v, c = weights
    return linear(torch.tanh(linear(images.flatten(1), w, b)), v, c)


def transcribed(
    both: list[list[Tensor]], batch: Batch, *, forget: float, among_disagreed: bool
) -> tuple[list[list[Tensor]], list[list[int]]]:
    """Weights of both networks after one step, and the samples that each has picked."""
    leaves = [[w.clone().requires_grad_() for w in weights] for weights in both]
    logits = [predict(weights, batch.images) for weights in leaves]
    losses = [torch.logsumexp(o, 1) - o[torch.arange(B), batch.labels] for o in logits]
    rows = list(range(B))
    if among_disagreed:
        classes = [o.argmax(1).tolist() for o in logits]
        rows = [i for i in rows if classes[0][i] != classes[1][i]] or rows
    number = math.ceil((1 - forget) * len(rows) - 1e-6)
    picks = [sorted(rows, key=own.tolist().__getitem__)[:number] for own in losses]
    after = []
    for weights, own, picked in zip(leaves, losses, reversed(picks), strict=True):
        loss = sum(own[i] for i in picked) / len(picked)
        grads = torch.autograd.grad(loss, weights)
        after.append([(w - LR * g).detach() for w, g in zip(weights, grads, strict=True)])
    return after, picks


def weights_of(*networks: nn.Module) -> list[list[Tensor]]:
    return [[p.detach().clone() for p in net.parameters()] for net in networks]


def assert_close(got: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    pairs = (zip(*both, strict=True) for both in zip(got, expected, strict=True))
    for left, right in itertools.chain.from_iterable(pairs):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


def fit(model: CoTeaching, made: list[TrainBatch], epochs: int) -> int:
    fitted = trainer(epochs)
    fitted.fit(model, DataLoader(made, batch_size=None))  # type: ignore[arg-type]
    return fitted.global_step


def test_every_step_of_three_epochs_equals_the_transcription() -> None:
    made = batches(2)
    model = CoTeaching(network(0), network(1), C, SGD, 0.6, ramp_epochs=2)
    both = weights_of(model.network, model.peer)
    picked = []
    for forget in (0.0, 0.3, 0.6):  # by the epochs that are over
        for batch in made:
            both, picks = transcribed(both, batch["train"], forget=forget, among_disagreed=False)
            picked.append(picks)
    assert fit(model, made, epochs=3) == 6
    assert_close(weights_of(model.network, model.peer), both)
    assert [len(pick) for pick, _ in picked] == [9, 9, 7, 7, 4, 4]
    assert any(set(left) != set(right) for left, right in picked), "whose choice it is matters"


def test_plus_equals_the_transcription_from_its_first_epoch_of_disagreement_on() -> None:
    made = batches(2)
    model = CoTeachingPlus(network(0), network(1), C, SGD, 0.4, ramp_epochs=1, coteaching_epochs=2)
    both = weights_of(model.network, model.peer)
    sizes = []
    for forget, among_disagreed in ((0.0, False), (0.4, False), (0.4, True), (0.4, True)):
        for batch in made:
            both, picks = transcribed(
                both, batch["train"], forget=forget, among_disagreed=among_disagreed
            )
            sizes.append(len(picks[0]))
    fit(model, made, epochs=4)
    assert_close(weights_of(model.network, model.peer), both)
    assert sizes[:4] == [9, 9, 6, 6]
    assert all(size < 6 for size in sizes[4:]), "some must agree, or nothing is tested"


def test_networks_that_agree_everywhere_go_on_with_the_whole_batch() -> None:
    made = batches(1)
    plus = CoTeachingPlus(network(0), network(0), C, SGD, 0.4, ramp_epochs=0)
    plain = CoTeaching(network(0), network(0), C, SGD, 0.4, ramp_epochs=0)
    fit(plus, made, epochs=1)
    fit(plain, made, epochs=1)
    assert_close(weights_of(plus.network, plus.peer), weights_of(plain.network, plain.peer))
    assert_close(weights_of(plus.network), weights_of(plus.peer))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"forget_rate": None}, "fraction of wrong labels as model.forget_rate"),
        ({"forget_rate": 1.0}, r"forget_rate must be in \[0, 1\), got 1.0"),
        ({"forget_rate": 0.2, "ramp_epochs": -1}, "ramp_epochs must be 0 or more, got -1"),
        ({"forget_rate": 0.2, "coteaching_epochs": -2}, "coteaching_epochs must be 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CoTeachingPlus(network(0), network(1), C, SGD, **arguments)  # type: ignore[arg-type]


def test_one_network_cannot_be_its_own_peer() -> None:
    same = network(0)
    with pytest.raises(ValueError, match="peer must be a network of its own"):
        CoTeaching(same, same, C, SGD, 0.2)
