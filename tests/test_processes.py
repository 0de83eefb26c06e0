"""Sums over two real processes, and batch-norm over both, against one process with everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import batch_norm

from mln_lightning import processes
from mln_lightning.meta import dual
from mln_lightning.networks import SyncBatchNorm, synchronise_batch_norm
from mln_lightning.weights import weights_against
from tests.fleet import together

SPLITS = ((5, 3), (8, 0))  # of eight samples; in the second no sample is left for one process


def problem(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Inputs, a weight on the outputs, and directions, the same in every process."""
    draws = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(*shape, generator=draws, dtype=torch.float64).mul(3).add(5).to(dtype)
        for name, shape in {
            "input": (8, 3, 2, 2),
            "outer": (8, 3, 2, 2),
            "direction": (8, 3, 2, 2),
            "weight": (3,),
            "bias": (3,),
        }.items()
    }


def layer(given: dict[str, Tensor], momentum: float | None = 0.3) -> SyncBatchNorm:
    made = SyncBatchNorm(3, momentum=momentum).to(given["weight"].dtype)
    made.weight = nn.Parameter(given["weight"].clone())
    made.bias = nn.Parameter(given["bias"].clone())
    return made


def batch_norm_on_parts(split: tuple[int, int]) -> dict[str, Tensor]:
    """All derivatives of the layer that the meta gradient takes, of this process's samples."""
    given = problem()
    rows = torch.arange(8).split(list(split))[dist.get_rank()]
    norm = layer(given)
    input = given["input"][rows].requires_grad_()
    outer = given["outer"][rows]
    output = norm(input)
    grads = torch.autograd.grad(
        (output.square() * outer).sum(), [input, norm.weight], create_graph=True
    )
    pulled = (grads[0] * given["direction"][rows]).sum() + grads[1].square().sum() / 2
    (twice,) = torch.autograd.grad(pulled, input)
    with dual.level():
        _, tangent = dual.split(norm(dual.join(input.detach(), given["direction"][rows])))
        assert tangent is not None
    found = {"output": output, "input": grads[0], "weight": grads[1], "twice": twice}
    found |= {"tangent": tangent, "mean": norm.running_mean, "var": norm.running_var}
    return {name: value.detach() for name, value in found.items()}


def everything() -> dict[str, Any]:
    """What both processes found, as the first one knows it."""
    dist.init_process_group("gloo")
    own: dict[str, Any] = {str(split): batch_norm_on_parts(split) for split in SPLITS}
    here = torch.tensor([1.0, -2.0]) * (1 + dist.get_rank())
    own["total"] = processes.total(here)
    calls = []
    real = dist.all_reduce
    dist.all_reduce = lambda *args, **options: (calls.append(1), real(*args, **options))[1]
    last = here.view(1, 2, 1, 1).expand(3, 2, 2, 2).contiguous(memory_format=torch.channels_last)
    tensors = [here, here.double(), here.view(1, 2), here.new_zeros(0), last]
    own["totals"] = processes.totals(tensors)
    dist.all_reduce = real
    own["messages"] = len(calls)
    own["largest"] = [
        processes.largest(tensor)
        for tensor in (here, -here.abs(), here if dist.get_rank() else here.new_zeros(0))
    ]
    ours = [here.clone(), torch.tensor([dist.get_rank() == 0]), torch.tensor(dist.get_rank())]
    processes.follow_first(ours)
    own["followed"] = ours
    gradient = torch.tensor([-1.0, 2.0, -3.0, -4.0])
    own["weights"] = weights_against(gradient[:1] if dist.get_rank() == 0 else gradient[1:])
    wide = layer(problem(), momentum=None)
    for scale in (1.0, 2.0):
        wide(problem()["input"][dist.get_rank() :: 2] * scale)
    own["plain mean"] = (wide.running_mean, wide.running_var)
    low = layer(problem(torch.float32))
    own["half"] = low(problem(torch.bfloat16)["input"][dist.get_rank() :: 2])
    all_found: list[Any] = [None, None]
    dist.all_gather_object(all_found, own)
    dist.destroy_process_group()
    return {"all": all_found}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fleet")
    returned = together(2, everything, folder=folder)
    assert isinstance(returned, dict)
    return returned["all"]


def reference() -> dict[str, Tensor]:
    """The same by torch's batch-norm on all samples."""
    given = problem()
    weight, bias = given["weight"].requires_grad_(), given["bias"]
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    input = given["input"].requires_grad_()
    output = batch_norm(input, mean, var, weight, bias, training=True, momentum=0.3)
    grads = torch.autograd.grad(
        (output.square() * given["outer"]).sum(), [input, weight], create_graph=True
    )
    # Each process has its part of the sums; the weight's gradient is whole only as a sum.
    with dual.level():
        moved = dual.join(input.detach(), given["direction"])
        _, tangent = dual.split(batch_norm(moved, None, None, weight.detach(), bias, training=True))
        assert tangent is not None
    batch_norm(input.detach(), mean, var, None, None, training=True, momentum=0.3)
    found = {"output": output, "input": grads[0], "weight": grads[1], "tangent": tangent}
    return {name: value.detach() for name, value in (found | {"mean": mean, "var": var}).items()}


@pytest.mark.parametrize("split", SPLITS)
def test_batch_norm_equals_that_of_one_process(
    found: list[dict[str, Any]], split: tuple[int, int]
) -> None:
    first, second = (each[str(split)] for each in found)
    expected = reference()
    for name in ("output", "input", "tangent"):
        torch.testing.assert_close(
            torch.cat([first[name], second[name]]), expected[name], rtol=1e-11, atol=1e-12, msg=name
        )
    torch.testing.assert_close(first["weight"] + second["weight"], expected["weight"])
    for name in ("mean", "var"):
        torch.testing.assert_close(first[name], expected[name], rtol=1e-12, atol=0)
        assert torch.equal(first[name], second[name])


def test_second_derivative_of_batch_norm(found: list[dict[str, Any]]) -> None:
    given = problem()
    input = given["input"].requires_grad_()

    def pulled() -> Tensor:
        total = torch.zeros(()).double()
        weights = [given["weight"].clone().requires_grad_() for _ in range(2)]
        # Each process squares its own part of the weight's gradient: give each a weight of its own.
        whole = batch_norm(input, None, None, None, None, training=True)
        parts = []
        for rows, weight in zip(torch.arange(8).split(list(SPLITS[0])), weights, strict=True):
            shape = (1, 3, 1, 1)
            parts.append(whole[rows] * weight.view(shape) + given["bias"].view(shape))
        loss = (torch.cat(parts).square() * given["outer"]).sum()
        into, *of_weights = torch.autograd.grad(loss, [input, *weights], create_graph=True)
        total = (into * given["direction"]).sum()
        return total + sum((g.square().sum() / 2 for g in of_weights), torch.zeros(()).double())

    (expected,) = torch.autograd.grad(pulled(), input)
    twice = torch.cat([each[str(SPLITS[0])]["twice"] for each in found])
    torch.testing.assert_close(twice, expected, rtol=1e-10, atol=1e-10)


def test_running_statistics_as_plain_means_and_half_precision(found: list[dict[str, Any]]) -> None:
    plain = nn.BatchNorm2d(3, momentum=None).double()
    for scale in (1.0, 2.0):
        plain(problem()["input"] * scale)
    for mean, var in (each["plain mean"] for each in found):
        torch.testing.assert_close(mean, plain.running_mean)
        torch.testing.assert_close(var, plain.running_var)
    half = torch.stack([each["half"] for each in found], dim=1).flatten(0, 1)
    assert half.dtype == torch.bfloat16
    given = problem(torch.bfloat16)
    exact = batch_norm(
        given["input"].double(), None, None, *(problem()[k] for k in ("weight", "bias")), True
    )
    torch.testing.assert_close(half.double(), exact, rtol=1e-2, atol=5e-2)


def test_sums_maxima_and_copies(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["total"].tolist() == [3.0, -6.0]
        *sums, last = each["totals"]
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert last[2].flatten(1).tolist() == [[3.0] * 4, [-6.0] * 4]
        assert [tensor.tolist() for tensor in sums] == [[3.0, -6.0], [3.0, -6.0], [[3.0, -6.0]], []]
        assert sums[1].dtype == torch.float64
        assert each["messages"] == 2, "one for each dtype"
        assert [float(value) for value in each["largest"]] == [2.0, 0.0, 2.0]
        assert [tensor.tolist() for tensor in each["followed"]] == [[1.0, -2.0], [True], 0]


def test_weights_are_normalised_over_the_whole_batch(found: list[dict[str, Any]]) -> None:
    weights = torch.cat([each["weights"] for each in found])
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.0, 1.5, 2.0]))


def test_one_process_says_nothing_and_changes_nothing() -> None:
    tensors = [torch.ones(2), torch.ones(1, dtype=torch.int64)]
    assert processes.count() == 1
    assert processes.rank() == 0
    assert processes.total(tensors[0]) is tensors[0]
    assert processes.totals(tensors) is tensors
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    keys, images = list(plain.state_dict()), torch.randn(5, 3, 6, 6)
    stats = plain[1].running_mean
    expected = plain(images)
    after = {name: value.clone() for name, value in plain.state_dict().items()}
    plain[1].reset_running_stats()
    synchronise_batch_norm(plain)
    assert isinstance(plain[1], SyncBatchNorm)
    assert plain[1].running_mean is stats
    assert torch.equal(plain(images), expected)
    assert list(plain.state_dict()) == keys
    assert all(torch.equal(value, after[name]) for name, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="single batch-norm"):
        synchronise_batch_norm(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="got 1 axes"):
        SyncBatchNorm(3)._check_input_dim(torch.zeros(3))
