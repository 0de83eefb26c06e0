import warnings

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from mln_lightning.meta import stateless
from tests.meta.problems import problem, relative


class TwiceTanh(torch.autograd.Function):
    """No forward mode; a backward that can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh() ** 2)


class OnceTanh(TwiceTanh):
    """Neither forward mode nor a second derivative."""

    backward = staticmethod(once_differentiable(TwiceTanh.backward))


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def networks(function):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    custom = nn.Sequential(plain[0], plain[1], Apply(function), plain[3])
    return plain, custom


@pytest.mark.parametrize(
    ("function", "messages", "tolerance"),
    [
        (TwiceTanh, ["'jvp' cannot pass TwiceTanh; using 'autograd'"], 1e-12),
        (
            OnceTanh,
            [
                "'jvp' cannot pass OnceTanh; using 'autograd'",
                "'autograd' cannot pass OnceTanh; using 'finite_difference'",
            ],
            1e-7,
        ),
    ],
)
def test_the_next_back_end_takes_over_once_and_says_so(function, messages, tolerance):
    plain, custom = networks(function)
    expected = problem("generator", plain).step("jvp").grads
    case = problem("generator", custom)
    network = stateless(custom, buffers="share")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = case.step("jvp", network=network).grads
        again = case.step("jvp", network=network).grads
    assert [str(w.message).partition("back end ")[2] for w in caught] == [
        f"{m} for this network from now on." for m in messages
    ]
    assert all(w.filename == __file__.replace("test_fallback", "problems") for w in caught)
    assert relative(first, expected) < tolerance
    assert relative(again, expected) < tolerance


def test_an_operator_without_second_derivative_is_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Hardsigmoid(), nn.Linear(5, 3)).double()
    with pytest.warns(UserWarning, match=r"'autograd' cannot pass aten::hardsigmoid_backward"):
        problem("table", net).step("autograd")


def test_other_errors_are_not_swallowed():
    class FailsTheSecondTime(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:  # training forward, meta forward, tangent pass
                raise RuntimeError("out of memory")
            return x

    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), FailsTheSecondTime()).double()
    case = problem("table", net)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of memory"):
        case.step("jvp")
    assert torch.equal(torch.get_rng_state(), state)


def test_differences_of_half_precision_parameters_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"needs parameters of float32 or float64, got .*bfloat16"):
        problem("table", net).step("finite_difference")


def test_differences_are_taken_in_full_precision_under_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, 3))
    case = problem("table", net)
    expected = case.step("finite_difference").grads
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.step("finite_difference").grads
    assert relative(found, expected) < 0.05  # the rest of the step is in bfloat16
