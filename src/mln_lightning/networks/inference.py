"""Networks in inference: in eval mode for a while, as a source of features, or as a follower."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.experimental.optimization import fuse

from mln_lightning.meta import COMPILER, eagerly
from mln_lightning.meta.compiling import compiler_options, quietly, say_why
from mln_lightning.networks.head import features

InferenceMode = Literal["exact", "folded", "bf16"]
"""``exact``: the network as it is. ``folded``: each batch-norm is made part of the convolution or
linear layer right before it, the same up to rounding. ``bf16``: under bfloat16 autocast."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every submodule gets its own mode back afterwards."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), eagerly(network):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


class InferenceFeatures:
    """Images ``(B, K, H, W)`` → features ``(B, F)`` of a network in eval mode, without gradients.

    The network is looked at anew in every call: it may be trained, loaded or moved between them.

    Args:
        network: any classifier; its mode is left as it was.
        head: dotted name of its last linear layer, see `find_head`.
        mode: see `InferenceMode`. ``folded`` costs a copy of the network; where torch cannot trace
            it, ``exact`` is used instead, with one warning.
    """

    def __init__(self, network: nn.Module, head: str, mode: InferenceMode = "exact") -> None:
        self.network = network
        self.head = head
        self.mode = mode
        self._folded = network
        self._folded_from: list[tuple[int, int]] = []
        self._compiled: Callable[[dict[str, Tensor], Tensor], Tensor] | None = None
        self._compiled_for: tuple[torch.Size, torch.device] | None = None

    def compile(self, images: Tensor, backend: str = COMPILER) -> None:
        """Compile for images of this shape and device, if that is possible; others run as before.

        Args:
            images: ``(B, K, H, W)`` of a training batch.
            backend: see `torch.compile`.
        """
        without_head = copy.deepcopy(self._up_to_date() if self.mode == "folded" else self.network)
        without_head.to("meta").eval().set_submodule(self.head, nn.Identity())

        def run(state: dict[str, Tensor], images: Tensor) -> Tensor:
            found: Tensor = functional_call(without_head, state, (images,), tie_weights=False)
            return found

        self(images)  # refuses a head that is not the last step
        self._compiled = torch.compile(run, fullgraph=True, **compiler_options(backend))
        self._compiled_for = images.shape, images.device
        try:
            with quietly():
                self(images)
        except Exception as error:  # the compilers below may fail in any way
            self._compiled = None
            say_why(f"The encoder {type(self.network).__name__} cannot be compiled", error)

    def __call__(self, images: Tensor) -> Tensor:
        """Features of ``images``, of their dtype with ``bf16``."""
        network = self.network
        with evaluating(network) if network.training else torch.no_grad():
            if self.mode == "folded":
                network = self._up_to_date()
            if self.mode == "bf16":
                with torch.autocast(images.device.type, torch.bfloat16):
                    return self._find(network, images).to(images.dtype)
            return self._find(network, images)

    def _find(self, network: nn.Module, images: Tensor) -> Tensor:
        if self._compiled is None or self._compiled_for != (images.shape, images.device):
            return features(network, self.head, images)
        state = itertools.chain(
            network.named_parameters(remove_duplicate=False),
            network.named_buffers(remove_duplicate=False),
        )
        own = {f"{self.head}.weight", f"{self.head}.bias"}
        return self._compiled({name: t for name, t in state if name not in own}, images)

    def _up_to_date(self) -> nn.Module:
        """The folded network, made again if any tensor was moved or written to."""
        tensors = itertools.chain(self.network.parameters(), self.network.buffers())
        seen = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if seen != self._folded_from:
            self._folded, self._folded_from = fold(self.network), seen
        return self._folded


def fold(network: nn.Module) -> nn.Module:
    """A copy with each batch-norm in the layer right before it, or the network if that cannot be.

    Args:
        network: in eval mode.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(network))
        layers = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
        twice = [name for name, count in layers.items() if count > 1 and _has_weights(traced, name)]
        if twice:
            raise ValueError(f"layer {twice[0]} is used more than once")
        folded: nn.Module = fuse(traced, inplace=True, no_trace=True)
    except Exception as error:  # tracing runs the network's own code, which may fail in any way
        warnings.warn(
            f"The batch-norm of {type(network).__name__} cannot be folded ({error}); the encoder "
            "runs as it is.",
            stacklevel=2,
        )
        return network
    return folded.eval()


def _has_weights(network: nn.Module, name: str) -> bool:
    return any(True for _ in network.get_submodule(name).parameters())


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Average ← decay · average + (1 − decay) · network; buffers of integers are copied.

    Args:
        average: of the same structure as ``network``; changed in place.
        network: followed.
        decay: 0…1; 0 copies.
    """
    mine, target = average.state_dict(), network.state_dict()
    moving = [name for name, value in mine.items() if value.is_floating_point()]
    counts = [name for name in mine if name not in moving]
    torch._foreach_lerp_([mine[k] for k in moving], [target[k] for k in moving], 1 - decay)
    if counts:
        torch._foreach_copy_([mine[k] for k in counts], [target[k] for k in counts])
