"""One virtual step and its meta gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mln_lightning.meta.compiling import eagerly, is_compiled
from mln_lightning.meta.randomness import preserved, random_state, restore
from mln_lightning.meta.sharing import Recorder
from mln_lightning.meta.stateless import Params, Stateless, call, copies, virtual_update
from mln_lightning.meta.tangent import BACKENDS, Backend, logit_tangent

Reduce = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Sum of each tensor over the processes; returns the same number of tensors."""

Update = Callable[[dict[str, Tensor]], Params]
"""Gradients of the training loss by name ↦ all parameters after the step, in new tensors."""


class MetaStep(NamedTuple):
    """What `meta_step` or `plain_step` found.

    Attributes:
        meta_loss: ``()`` on the meta batch at the virtual parameters, detached; with ``reduce``
            this process's part of it; None in a plain step.
        grads: its derivatives, one per tensor in ``wrt`` and of its shape; none in a plain step.
        logits: ``(B, C)`` of the training batch at θ with their graph, for the conventional loss,
            or without it, see ``graph``; float32 or float64, also under autocast.
        virtual_grads: v = ∂L_meta/∂θ' by name, for the parameters that require grad; none in a
            plain step.
    """

    meta_loss: Tensor | None
    grads: tuple[Tensor, ...]
    logits: Tensor
    virtual_grads: dict[str, Tensor]


def plain_step(network: Stateless, params: Params, images: Tensor) -> MetaStep:
    """The training forward alone, for a step without a meta gradient; arguments as `meta_step`."""
    return MetaStep(None, (), _at_least_float32(network(params, images)), {})


def meta_step(
    network: Stateless,
    params: Params,
    images: Tensor,
    head_loss: Callable[[Tensor], Tensor],
    meta_loss: Callable[[Params], Tensor],
    wrt: Sequence[Tensor],
    *,
    lr: float,
    backend: Backend = "jvp",
    update: Update | None = None,
    reduce: Reduce | None = None,
    scale: float = 1.0,
    graph: bool = True,
    lean: bool = False,
) -> MetaStep:
    """How does the meta loss after one virtual SGD step on θ change with φ?

    φ (``wrt``) acts on θ only through the loss on the logits, ℓ(o, φ) with o = network(θ, images).
    With θ' = θ − lr · ∂ℓ/∂θ, v = ∂L_meta/∂θ' and the directional derivative t = (∂o/∂θ) v,

        ∂L_meta/∂φ = −lr · ∂/∂φ ⟨∂ℓ/∂o, t⟩,

    which is exact for every ℓ and needs no second-order graph through the network. (The reverse KL
    case is in Algan & Ulusoy, IEEE TIP 2022, as differentiation through the step.)

    Writes no ``.grad`` and no parameter. Buffers change as by one call of ``network`` and one of
    ``meta_loss``; so does the random state: the directional derivative repeats the draws of the
    training forward. ``head_loss`` and ``meta_loss`` are called once each.

    Limits: attention with dropout on a CUDA device draws other masks in the fused kernel than in
    the plain formula; a ``no_grad`` block inside the network is not respected by ``jvp``.

    Args:
        network: of `stateless`, normally with ``buffers="share"``.
        params: θ by name; those that require grad take the virtual step.
        images: ``(B, K, H, W)`` float training batch.
        head_loss: logits ``(B, C)`` ↦ training loss ``()``; closes over φ.
        meta_loss: θ' ↦ loss ``()`` on the clean meta batch.
        wrt: φ, tensors that require grad.
        lr: virtual learning rate.
        update: takes the step in place of θ − lr · ∂ℓ/∂θ; anything whose derivative in the gradient
            is −lr, such as a step of SGD with momentum and weight decay.
        backend: see `Backend`; an unsupported one is replaced by the next, with one warning.
        reduce: sum over processes, applied to the virtual gradient and to v. Each process then has
            its part of both losses, whose sums are the losses of the whole batches, and ``grads``
            are what its own part of the training loss contributes.
        scale: factor on both losses while they are differentiated, divided out afterwards; for
            float16, where small gradients vanish. A result that overflowed is not finite.
        graph: whether the logits returned have their graph; without it memory is let go early.
        lean: nothing of the training batch is kept in memory during the meta loss and the
            tangent: what is needed later is computed again, with the same random draws and to the
            same result. Costs two forwards, one without ``graph``.

    Raises:
        ValueError: an unknown back end, a scale that is not positive, no parameter that requires
            grad, or a head loss that does not depend on φ.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}.")
    names = [name for name, p in params.items() if p.requires_grad]
    if not names:
        raise ValueError("No tensor in params requires grad, so there is no virtual step to take.")
    total = reduce or _identity

    buffers, draws = network.snapshot(), random_state(images.device)
    recorder = Recorder()
    # Nothing can look into compiled code.
    watched = not (lean or is_compiled(network.network))
    if backend == "jvp" and "jvp" not in network.unsupported and watched:
        with recorder:
            logits = _at_least_float32(network(params, images))
    else:
        logits = _at_least_float32(network(params, images))

    leaf = logits.detach().requires_grad_()
    (pull,) = torch.autograd.grad(head_loss(leaf) * scale, leaf, create_graph=True)

    step = update or (lambda grads: virtual_update(params, grads, lr))
    keep = graph and not lean
    virtual = _virtual(params, names, logits, pull.detach(), total, step, scale, keep=keep)
    if not keep:
        logits = logits.detach()
    loss = meta_loss(virtual)
    v = _gradient(loss * scale, [virtual[name] for name in names], None, total, scale)
    loss = loss.detach()
    del virtual

    # The length is kept apart: half precision and the finite difference want a moderate direction.
    length = torch.stack(torch._foreach_norm(list(v))).norm()
    unit = length.clamp(min=torch.finfo(length.dtype).tiny)
    direction = dict(zip(names, torch._foreach_div(list(v), unit), strict=True))
    del v

    def forward(point: Params) -> Tensor:
        restore(draws)
        return call(network.network, point, copies(buffers), images)

    with preserved(images.device):
        if backend == "jvp" and network.tangent is not None:
            restore(draws)
            tangent = network.tangent(params, direction, buffers, images)
        else:
            with eagerly(network.network):
                tangent = logit_tangent(
                    backend, network.unsupported, forward, params, direction, recorder
                )
        if lean and graph:
            logits = _at_least_float32(forward(params))
    grads = _label_gradient(pull, wrt, tangent.to(pull.dtype))
    factor = -lr * length / scale
    meta_grads = tuple(torch._foreach_mul(grads, factor))
    torch._foreach_mul_(list(direction.values()), unit)
    return MetaStep(loss, meta_grads, logits, direction)


def _virtual(
    params: Params,
    names: list[str],
    logits: Tensor,
    pull: Tensor,
    total: Reduce,
    update: Update,
    scale: float,
    *,
    keep: bool,
) -> dict[str, Tensor]:
    """θ' by name; the moved parameters are leaves that require grad."""
    inputs = [params[name] for name in names]
    grads = _gradient(logits, inputs, pull, total, scale, keep=keep)
    with torch.no_grad():
        moved = update(dict(zip(names, grads, strict=True)))
    return {name: p.requires_grad_() if name in names else p for name, p in moved.items()}


def _gradient(
    output: Tensor,
    inputs: list[Tensor],
    pull: Tensor | None,
    total: Reduce,
    scale: float,
    *,
    keep: bool = False,
) -> Sequence[Tensor]:
    grads = torch.autograd.grad(
        output, inputs, grad_outputs=pull, retain_graph=keep, materialize_grads=True
    )
    # torch 2.6 makes zeros that require grad for what the output does not depend on.
    grads = tuple(grad.detach() for grad in grads)
    return total(torch._foreach_div(grads, scale) if scale != 1.0 else grads)


def _at_least_float32(logits: Tensor) -> Tensor:
    """Under autocast logits are of half precision; the losses on them must not be."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _label_gradient(pull: Tensor, wrt: Sequence[Tensor], tangent: Tensor) -> list[Tensor]:
    """∂/∂φ ⟨pull, tangent⟩."""
    found = torch.autograd.grad(pull, list(wrt), grad_outputs=tangent, allow_unused=True)
    if all(g is None for g in found):
        raise ValueError("The gradient of head_loss does not depend on wrt; was φ detached?")
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, wrt, strict=True)]


def _identity(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return tensors
