"""What the meta gradient may do without: the graph of the training batch, and its memory format."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mln_lightning.meta import along, copies, virtual_update
from tests.meta.problems import Problem, problem, relative, smooth_network

BACKENDS = ("jvp", "autograd", "finite_difference")


def twins(seed: int = 0) -> tuple[Problem, Problem]:
    """The same problem twice, with dropout and batch-norm."""
    torch.manual_seed(seed)
    network = smooth_network().train()
    return tuple(problem("generator", copy.deepcopy(network)) for _ in range(2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_lean_finds_the_same(backend):
    whole, lean = twins()
    steps, states = [], []
    for case, options in ((whole, {}), (lean, {"lean": True})):
        torch.manual_seed(3)
        step = case.step(backend, **options)
        step.logits.square().sum().backward()
        steps.append(step)
        states.append(torch.get_rng_state())
    for kind in ("meta_loss", "logits"):
        assert torch.equal(getattr(steps[0], kind), getattr(steps[1], kind)), kind
    assert torch.equal(*states)
    assert relative(steps[1].grads, steps[0].grads) < 1e-12
    assert steps[0].virtual_grads.keys() == steps[1].virtual_grads.keys()
    for name, v in steps[0].virtual_grads.items():
        assert torch.equal(steps[1].virtual_grads[name], v), name
    for one, other in zip(whole.network.parameters(), lean.network.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for name, buffer in lean.network.named_buffers():  # updated once
        assert torch.equal(buffer, whole.network.get_buffer(name)), name


@pytest.mark.parametrize("lean", [False, True])
def test_logits_without_their_graph(lean):
    whole, case = twins()
    torch.manual_seed(3)
    expected = whole.step("jvp")
    torch.manual_seed(3)
    found = case.step("jvp", graph=False, lean=lean)
    assert torch.equal(found.logits, expected.logits)
    assert not found.logits.requires_grad
    assert relative(found.grads, expected.grads) < 1e-12


def test_channels_last_stays_and_changes_only_the_rounding():
    plain, case = twins()
    for network in (plain.network, case.network):
        network[3].eval()  # dropout, whose masks are drawn in the order of memory
    case.network.to(memory_format=torch.channels_last)
    last = {name for name, p in case.network.named_parameters() if p.ndim == 4}
    assert last
    torch.manual_seed(3)
    expected = plain.step("jvp")
    torch.manual_seed(3)
    found = case.step("jvp")
    assert relative(found.grads, expected.grads) < 1e-12
    params = dict(case.network.named_parameters())
    moved = virtual_update(params, found.virtual_grads, 0.1)
    for name in last:
        for tensors in (params, found.virtual_grads, moved, copies(params)):
            assert tensors[name].is_contiguous(memory_format=torch.channels_last), name


def test_copies_are_copies():
    tensors = {
        "a": torch.randn(3, 2, requires_grad=True),
        "b": torch.tensor(4),
        "c": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    made = copies(tensors)
    assert copies({}) == {}
    assert list(made) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(made[name], tensor)
        assert made[name].stride() == tensor.stride()
        assert made[name].data_ptr() != tensor.data_ptr()
        assert not made[name].requires_grad


def test_virtual_update_is_differentiable_in_all_its_tensors():
    a = torch.randn(3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)
    grads = {"b": torch.randn(2, dtype=torch.float64, requires_grad=True)}
    moved = virtual_update({"a": a, "b": b}, grads, 0.5)
    assert moved["a"] is a
    torch.testing.assert_close(moved["b"], b - 0.5 * grads["b"])
    found = torch.autograd.grad(moved["b"].sum(), [b, grads["b"]])
    assert [g.tolist() for g in found] == [[1.0, 1.0], [-0.5, -0.5]]


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_known_gradient_is_added(factor):
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    known = {"weight": torch.randn(2, 3, dtype=torch.float64)}
    expected = factor * known["weight"]
    loss = layer(torch.ones(1, 3, dtype=torch.float64)).square().sum()
    plain = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    whole = loss + factor * along(dict(layer.named_parameters()), known)
    assert torch.equal(whole, loss)
    whole.backward()
    torch.testing.assert_close(layer.weight.grad, plain[0] + expected, rtol=1e-14, atol=0)
    assert torch.equal(layer.bias.grad, plain[1])
