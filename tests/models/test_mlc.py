"""MLC against a transcription with a second-order graph, and its label corrector by hand."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from mln_lightning.correctors import LabelCorrector
from mln_lightning.models import MLC
from mln_lightning.networks import next_features
from tests.models.soft_label_runs import (
    LR,
    MOMENTUM,
    SGD,
    C,
    Fit,
    by_hand,
    fit,
    network,
    same,
    start,
)

META_LR = 20.0  # of plain SGD, which shows the scale of the meta gradient
META = functools.partial(torch.optim.SGD, lr=META_LR)


def corrected(phi: dict[str, Tensor], features: Tensor, labels: Tensor) -> Tensor:
    """The label correction network, written out."""
    joined = torch.cat([features, phi["embedding.weight"][labels]], dim=1)
    hidden = linear(joined, phi["layers.0.weight"], phi["layers.0.bias"]).tanh()
    hidden = linear(hidden, phi["layers.2.weight"], phi["layers.2.bias"]).tanh()
    logits = linear(hidden, phi["layers.4.weight"], phi["layers.4.bias"])
    soft = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    if "share" not in phi:
        return soft
    share = 1 / (1 + (-phi["share"]).exp())
    return share * torch.eye(C, dtype=soft.dtype)[labels] + (1 - share) * soft


def transcribed(theta: list[Tensor], phi: dict[str, Tensor], run: Fit, alpha: float) -> Tensor:
    """Steps by double backward; moves ``theta`` and ``phi``, returns the losses."""
    sgd = torch.optim.SGD(theta, lr=LR, momentum=MOMENTUM)
    losses = []
    for batch in run.batches:
        train, meta = batch["train"], batch["meta"]
        features, logits = by_hand(theta, train.images)
        log_p, frozen = logits.log_softmax(1), features.detach()

        loss = -(corrected(phi, frozen, train.labels) * log_p).sum(1).mean()
        grads = torch.autograd.grad(loss, theta, create_graph=True)
        virtual = [t - alpha * g for t, g in zip(theta, grads, strict=True)]
        meta_loss = cross_entropy(by_hand(virtual, meta.images)[1], meta.labels)
        found = torch.autograd.grad(meta_loss, list(phi.values()), retain_graph=True)
        with torch.no_grad():
            for tensor, grad in zip(phi.values(), found, strict=True):
                assert grad.abs().max() > 0
                tensor -= META_LR * grad

        soft = corrected(phi, frozen, train.labels).detach()
        loss = -(soft * log_p).sum(1).mean()
        sgd.zero_grad()
        loss.backward(inputs=theta)
        sgd.step()
        losses.append(torch.stack([loss.detach(), meta_loss.detach()]))
    return torch.stack(losses)


@pytest.mark.parametrize(("skip", "alpha"), [(False, "current"), (True, 0.7)])
def test_two_epochs_equal_the_transcription(skip: bool, alpha: str | float) -> None:
    model = MLC(
        network(),
        C,
        SGD,
        META,
        virtual_lr=alpha,  # type: ignore[arg-type]
        skip=skip,
    )
    theta = start(model.network)
    phi = dict(zip(dict(model.corrector.named_parameters()), start(model.corrector), strict=True))
    first = {name: tensor.detach().clone() for name, tensor in phi.items()}
    run = fit(model)
    losses = transcribed(theta, phi, run, LR if alpha == "current" else float(alpha))
    same(torch.stack([torch.stack([o["loss"], o["meta_loss"]]) for o in run.outputs]), losses)
    for got, expected in zip(model.network.parameters(), theta, strict=True):
        same(got.detach(), expected.detach())
    for name, tensor in model.corrector.named_parameters():
        same(tensor.detach(), phi[name].detach())
        assert not torch.equal(tensor.detach(), first[name]), f"{name} was not learned"


def test_samples_without_a_label_are_left_out() -> None:
    model = MLC(network(), C, SGD, META)
    run = fit(model, epochs=1, steps=2, unlabelled=200)
    for batch, output in zip(run.batches, run.outputs, strict=True):
        known = batch["train"].labels >= 0
        assert 0 < known.sum() < len(known)
        assert len(output["soft_labels"]) == known.sum()


def test_the_corrector_starts_with_half_of_the_observed_label_if_it_skips() -> None:
    corrector, labels = LabelCorrector(5, C, skip=True), torch.tensor([2, 0])
    soft = corrector(torch.randn(2, 5), labels)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2))
    assert (soft[torch.arange(2), labels] >= 0.5).all()


@pytest.mark.parametrize("sizes", [(0, 4), (5, 1)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="feature_dim >= 1 and num_classes >= 2"):
        LabelCorrector(*sizes)


def test_only_the_first_call_leaves_its_features() -> None:
    net = network().eval()
    images = torch.randn(2, 3, 1, 8, 8)
    with next_features(net, "4") as seen:
        assert seen == []
        net(images[0])
        net(images[1])
    assert len(seen) == 1
    assert torch.equal(seen[0], net[:4](images[0]))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_is_not_the_head_is_refused() -> None:
    net = network()
    model = MLC(net, C, SGD, META, head="1")
    assert model.corrector.layers[0].in_features == 64 + 64
    with (
        pytest.raises(ValueError, match="'1' of Sequential does not make the network's logits"),
        next_features(net, "1"),
    ):
        net(torch.randn(3, 1, 8, 8))
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(ValueError, match=r"has no nn\.Linear"):
        MLC(nn.Sequential(nn.Flatten()), C, SGD, META)
