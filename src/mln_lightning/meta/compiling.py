"""torch.compile for the parts of a training step; imports only torch.

A network is compiled in place, so names and checkpoints stay. Compiled code is for training: what
looks inside a network (hooks, forward derivatives) or runs it in eval mode does so `eagerly`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from mln_lightning.meta.randomness import preserved

COMPILER = "inductor"
"""torch's own compiler: C++ on a CPU, Triton on a GPU."""


def compile_network(network: nn.Module, images: Tensor, backend: str = COMPILER) -> bool:
    """`torch.compile` a network in place, if a forward and a backward of it then run.

    Compiling happens here, in the mode, precision context and batch size of the call; other sizes
    are compiled when they come. Parameters, buffers and random state are as before. A network that
    is compiled already is left alone.

    Args:
        network: any module, images → logits.
        images: ``(B, K, H, W)`` of a training batch.
        backend: see `torch.compile`.

    Returns:
        Whether the network is compiled now; if not, a warning has said why.
    """
    if is_compiled(network):
        return True
    # A meta step goes back through the training graph twice; read whenever something is compiled.
    torch._functorch.config.donated_buffer = False
    network.compile(**compiler_options(backend))
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with quietly(), preserved(images.device), torch.enable_grad():
            wanted = [p for p in network.parameters() if p.requires_grad]
            torch.autograd.grad(network(images).sum(), wanted, allow_unused=True)
    except Exception as error:  # the compilers below may fail in any way
        network._compiled_call_impl = None
        say_why(f"{type(network).__name__} cannot be compiled", error)
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
    return is_compiled(network)


def is_compiled(network: nn.Module) -> bool:
    """Whether `torch.nn.Module.compile` was called on the network."""
    return network._compiled_call_impl is not None


@contextmanager
def eagerly(network: nn.Module) -> Iterator[None]:
    """Inside, nothing runs compiled if ``network`` is; costs nothing if it is not."""
    if not is_compiled(network):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, nobody hears the advice that compilers and what they trace give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def say_why(what: str, error: Exception) -> None:
    """Warn in one sentence that something runs eagerly, with the first line of the reason."""
    error = getattr(error, "inner_exception", error)  # without the compiler's own framing
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    warnings.warn(f"{what}, and runs without ({reason[:200]}).", stacklevel=3)


def compiler_options(backend: str) -> dict[str, Any]:
    """Arguments of `torch.compile`.

    With torch's own random numbers, so that the derivative, which is another compiled graph, draws
    the dropout masks of the training forward.
    """
    own = {"options": {"fallback_random": True}} if backend == COMPILER else {}
    return {"backend": backend, **own}
