"""One iteration of MetaLabelNet against a plain transcription of the published procedure."""

from __future__ import annotations

import functools

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, cross_entropy, linear, max_pool2d, relu
from torch.utils.data import DataLoader

from mln_lightning.batch import Batch, TrainBatch
from mln_lightning.models import MetaLabelNet
from mln_lightning.networks import CNN6

B, M, C = 6, 5, 10


def cnn6(weights: dict[str, Tensor], stats: dict[str, Tensor] | None, x: Tensor) -> list[Tensor]:
    """Features and logits of the six-convolution network, written out by hand.

    ``weights`` in the order of the module's parameters; ``stats`` are updated in place, or None.
    """
    names = iter(weights)
    running = iter(stats or {})

    def norm(h: Tensor) -> Tensor:
        w, b = weights[next(names)], weights[next(names)]
        mean, var = (stats[next(running)], stats[next(running)]) if stats else (None, None)
        return relu(batch_norm(h, mean, var, w, b, training=True, momentum=0.1, eps=1e-5))

    h = x
    for layer in range(6):
        h = conv2d(h, weights[next(names)], weights[next(names)], padding=1)
        h = norm(h)
        if layer % 2:
            h = max_pool2d(h, 2)
    f = norm(linear(h.flatten(1), weights[next(names)], weights[next(names)]))
    return [f, linear(f, weights[next(names)], weights[next(names)])]


def published_step(
    theta: dict[str, Tensor],
    stats: dict[str, Tensor],
    encoder_features: Tensor,
    generator: list[Tensor],
    batch: TrainBatch,
    *,
    share: bool,
) -> dict[str, Tensor]:
    """The published iteration: α = 1, class-averaged losses, entropy weight 1, double backward."""
    x, (xm, ym) = batch["train"].images, (batch["meta"].images, batch["meta"].labels)
    theta = {k: v.clone().requires_grad_() for k, v in theta.items()}
    w, b = (t.clone().requires_grad_() for t in generator)
    logits = cnn6(theta, stats, x)[1]
    p, log_p = logits.softmax(1), logits.log_softmax(1)

    def fit(w: Tensor, b: Tensor) -> Tensor:
        soft = linear(encoder_features, w, b).softmax(1)
        return (p * (log_p - (soft + 1e-10).log())).sum() / (B * C)

    grads = torch.autograd.grad(fit(w, b), list(theta.values()), create_graph=True)
    virtual = {k: v - g for (k, v), g in zip(theta.items(), grads, strict=True)}
    meta_stats = stats if share else {k: v.clone() for k, v in stats.items()}
    meta_loss = cross_entropy(cnn6(virtual, meta_stats, xm)[1], ym)
    meta_grads = torch.autograd.grad(meta_loss, [w, b], retain_graph=True)

    adam = torch.optim.Adam([w, b], lr=1e-2, weight_decay=1e-4)
    w.grad, b.grad = meta_grads
    adam.step()
    loss = fit(w.detach(), b.detach()) - (p * log_p).sum() / (B * C)
    sgd = torch.optim.SGD(theta.values(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    for parameter, grad in zip(
        theta.values(), torch.autograd.grad(loss, list(theta.values())), strict=True
    ):
        parameter.grad = grad
    sgd.step()
    soft = linear(encoder_features, w, b).softmax(1)
    reverse_cross_entropy = -(p * (soft + 1e-10).log()).sum() / (B * C)
    return {
        "loss": loss.detach(),
        "meta_loss": meta_loss.detach(),
        "reverse_cross_entropy": reverse_cross_entropy.detach(),
        "generator.weight": w.detach(),
        "generator.bias": b.detach(),
        **{k: v.detach() for k, v in theta.items()},
    }


@pytest.mark.parametrize("meta_buffers", ["copy", "share"])
def test_step_equals_the_published_procedure(meta_buffers: str) -> None:
    torch.manual_seed(0)
    network = CNN6(shape=(3, 32, 32), num_classes=C)
    model = MetaLabelNet(
        network,
        C,
        functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4),
        functools.partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-4),
        warmup_epochs=0,
        meta_weight=0.0,
        reduction="element",
        label_eps=1e-10,
        generator_start="random",
        meta_buffers=meta_buffers,
    ).double()
    unknown = torch.full((B,), -1)
    batch: TrainBatch = {
        "train": Batch(torch.randn(B, 3, 32, 32).double(), unknown, unknown, torch.arange(B)),
        "meta": Batch(
            torch.randn(M, 3, 32, 32).double(), torch.randint(C, (M,)), unknown[:M], torch.arange(M)
        ),
    }
    theta = {k: v.detach().clone() for k, v in network.named_parameters()}
    stats = {k: v.clone() for k, v in network.named_buffers() if "num_batches" not in k}
    frozen = network.eval()
    from mln_lightning.networks import features

    encoded = features(frozen, model.head, batch["train"].images).detach()
    network.train()
    generator = [p.detach().clone() for p in model.generator.parameters()]

    expected = published_step(
        theta, stats, encoded, generator, batch, share=meta_buffers == "share"
    )
    outputs: list[dict[str, Tensor]] = []
    record = model.noisy_step
    model.noisy_step = lambda b: outputs.append(record(b)) or outputs[-1]  # type: ignore[method-assign]
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader([batch], batch_size=None))

    got = {
        "loss": outputs[0]["loss"],
        "meta_loss": outputs[0]["meta_loss"],
        "reverse_cross_entropy": outputs[0]["loss"],  # KL + entropy collapses to it
        "generator.weight": model.generator.linear.weight.detach(),
        "generator.bias": model.generator.linear.bias.detach(),
        **{k: v.detach() for k, v in network.named_parameters()},
    }
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-11, msg=name)
    for name, value in network.named_buffers():
        if "num_batches" in name:  # the published code never counts; it matters to no network
            assert int(value) == (2 if meta_buffers == "share" else 1), name
        else:
            torch.testing.assert_close(value, stats[name], rtol=1e-9, atol=1e-12, msg=name)
    assert not torch.equal(generator[0], model.generator.linear.weight)
