"""Compiled steps do what the others do."""

import copy
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from benchmarks.steps import ADAM, SGD, ModuleStep, random_batch
from mln_lightning.meta import is_compiled
from mln_lightning.models import MetaLabelNet
from mln_lightning.networks import features

SHAPE = (2, 4, 4)


def batch(size=6, meta_size=6):
    """Float64 images of three classes."""
    made = random_batch(SHAPE, size)
    made["meta"] = random_batch(SHAPE, meta_size)["meta"]
    return {
        name: part._replace(images=part.images.double(), labels=part.labels % 3)
        for name, part in made.items()
    }


class Network(nn.Module):
    """Whatever differs between modes or draws: batch-norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Flatten(),
        )
        self.head = nn.Linear(48, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class DataDependent(Network):
    """A way through the network that depends on the images, which no single graph can be."""

    def forward(self, images: Tensor) -> Tensor:
        seen = self.body(images)
        return self.head(seen if seen.sum() > 0 else seen * 1.5)


class Square(torch.autograd.Function):
    """x², with derivatives of its own."""

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.detach() ** 2

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * tangent


class OwnDerivatives(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(32, 4), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(Square.apply(self.body(images.flatten(1))))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def pair(network):
    """The same MetaLabelNet twice, the second to be compiled."""
    model = MetaLabelNet(network, 3, SGD, ADAM, warmup_epochs=0).double()
    return ModuleStep(model), ModuleStep(copy.deepcopy(model))


def after(step, batch, steps=3):
    for number in range(steps):
        torch.manual_seed(number)
        step(batch)
    return step.model.state_dict()


def broken(*_):
    raise RuntimeError("no compiler here\nand more lines")


def assert_same(step, compiled, data):
    """Parameters, φ and batch-norm statistics; dropout draws the same masks in the derivative."""
    before = copy.deepcopy(compiled.model.state_dict())
    torch.testing.assert_close(
        after(compiled, data), after(step, data), rtol=1e-10, atol=1e-13, check_stride=False
    )
    after_ = compiled.model.state_dict()
    assert not torch.equal(after_["generator.linear.weight"], before["generator.linear.weight"])


def test_a_compiled_step_is_the_same_step(network):
    plain, compiled = pair(network)
    data = batch(meta_size=4)
    before, draws = copy.deepcopy(compiled.model.state_dict()), torch.get_rng_state()
    compiled.model.compile_pieces(data, "aot_eager")
    torch.testing.assert_close(compiled.model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), draws)
    assert is_compiled(compiled.model.network)
    assert compiled.model._at_theta.tangent is not None
    assert compiled.model._features._compiled is not None
    assert_same(plain, compiled, data)
    # What looks inside still can.
    images = data["train"].images
    inside = [features(step.model.network.eval(), "head", images) for step in (plain, compiled)]
    torch.testing.assert_close(*inside, rtol=1e-10, atol=1e-13)


def test_without_a_compiler_a_step_is_as_it_was(network):
    plain, compiled = pair(network)
    data = batch()
    message = r"^Network cannot be compiled, and runs without \(.*no compiler here\)\.$"
    with pytest.warns(UserWarning, match=message) as said:
        compiled.model.compile_pieces(data, broken)
    assert len(said) == 1
    assert not is_compiled(compiled.model.network)
    torch.testing.assert_close(after(compiled, data), after(plain, data), rtol=0, atol=0)


def test_what_is_no_single_graph_keeps_the_eager_derivative():
    torch.manual_seed(0)
    plain, compiled = pair(DataDependent())
    data = batch()
    with pytest.warns(UserWarning, match="DataDependent cannot be compiled, and runs") as said:
        compiled.model.compile_pieces(data, "aot_eager")
    assert [str(warning.message)[:9] for warning in said] == ["The meta ", "The encod"]
    assert is_compiled(compiled.model.network)
    assert compiled.model._at_theta.tangent is None
    assert_same(plain, compiled, data)


def test_a_derivative_that_comes_out_wrong_is_not_used():
    torch.manual_seed(0)
    plain, compiled = pair(OwnDerivatives())
    data = batch()
    with warnings.catch_warnings():  # whether it does is up to torch
        warnings.filterwarnings("ignore", "The meta gradient of OwnDerivatives cannot be compiled")
        compiled.model.compile_pieces(data, "aot_eager")
    assert_same(plain, compiled, data)


@pytest.mark.slow
def test_compiled_code_is_the_same_step(network):
    plain, compiled = pair(network)
    data = batch()
    compiled.model.compile_pieces(data)
    assert compiled.model._at_theta.tangent is not None
    assert_same(plain, compiled, data)


@pytest.mark.slow
def test_a_run_without_a_compiler_says_so_once_and_goes_on(tmp_path):
    command = ["compile=true", "model/network=small_cnn", "model.network.width=2"]
    command += ["trainer.max_epochs=1", "trainer=cpu", f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "mln_lightning.run", *command],
        env={**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SmallCNN cannot be compiled, and runs without") == 1
    assert "Everything is in" in done.stdout
