"""Features and head of any network: what enters its last linear layer, and that layer's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mln_lightning.meta import eagerly


def find_head(network: nn.Module, name: str | None = None) -> str:
    """Dotted name of the linear layer that makes the logits.

    Args:
        network: any classifier.
        name: the layer's name, or None for the last ``nn.Linear`` of the network. That is a guess,
            which `features` checks at every call.

    Raises:
        ValueError: there is no such layer.
    """
    linear: list[str] = [
        path for path, module in network.named_modules() if isinstance(module, nn.Linear)
    ]
    if name is None:
        if not linear:
            raise ValueError(
                f"{type(network).__name__} has no nn.Linear, so its features cannot be found; "
                "end the network with an nn.Linear."
            )
        return linear[-1]
    if name not in linear:
        raise ValueError(
            f"{type(network).__name__} has no nn.Linear named {name!r}; "
            f"it has {', '.join(repr(path) for path in linear) or 'none'}."
        )
    return name


def head_of(network: nn.Module, head: str) -> nn.Linear:
    """The linear layer of that dotted name.

    Raises:
        ValueError: there is no such layer.
    """
    module = network.get_submodule(find_head(network, head))
    assert isinstance(module, nn.Linear)
    return module


def features(network: nn.Module, head: str, images: Tensor) -> Tensor:
    """``(B, K, H, W)`` images → ``(B, F)`` features, the input of the head.

    Runs the network as it stands (mode, gradients); the caller freezes it if it should be frozen.

    Args:
        network: any classifier.
        head: dotted name of its last linear layer, see `find_head`.
        images: as the network takes them.

    Raises:
        ValueError: the layer is not the network's last step or does not see one vector per image.
    """
    with next_features(network, head) as seen:
        network(images)
    return seen[0]


@contextmanager
def next_features(network: nn.Module, head: str) -> Iterator[list[Tensor]]:
    """Inside, the network's first call leaves its features ``(B, F)`` in the list; others do not.

    So features cost no forward of their own where the network is called anyway.

    Args:
        network: any classifier.
        head: dotted name of its last linear layer, see `find_head`.

    Raises:
        ValueError: in that call, as `features`.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    found: list[Tensor] = []

    def of_head(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    def of_network(module: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        for hook in hooks:
            hook.remove()
        if len(calls) != 1 or calls[0][1] is not logits or calls[0][0].ndim != 2:
            raise ValueError(
                f"The layer {head!r} of {type(network).__name__} does not make the network's "
                "logits from one feature vector per image; name the linear layer that does."
            )
        found.append(calls[0][0])

    layer = head_of(network, head)
    hooks = [layer.register_forward_hook(of_head), network.register_forward_hook(of_network)]
    try:
        with eagerly(network):  # compiled code calls no hooks
            yield found
    finally:
        for hook in hooks:
            hook.remove()
