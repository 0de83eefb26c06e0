"""Checks that the networks share."""

from __future__ import annotations

from collections.abc import Sequence


def check_sizes(
    network: str, shape: Sequence[int], num_classes: int, smallest: int
) -> tuple[int, int, int]:
    """``(K, H, W)`` as a tuple of integers.

    Args:
        network: its name, for the message.
        shape: K, H, W; height and width at least ``smallest`` pixels.
        num_classes: C, at least 2.
        smallest: pixels that survive the network's pooling.

    Raises:
        ValueError: a size is out of range.
    """
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < smallest:
        raise ValueError(
            f"{network} needs a shape (channels, height, width) of at least "
            f"(1, {smallest}, {smallest}), got {tuple(shape)}."
        )
    if num_classes < 2:
        raise ValueError(f"{network} needs num_classes >= 2, got {num_classes}.")
    channels, height, width = shape
    return channels, height, width
