"""A small convolutional network for small images; minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mln_lightning.networks.sizes import check_sizes


class SmallCNN(nn.Module):
    """Four 3×3 convolutions (32, 32, pool, 64, 64, pool), a hidden layer of 128 and a head.

    Batch-norm and ReLU follow each of them but the head.

    Args:
        shape: K, H, W of the images; height and width at least 4, meant for 8 to 32.
        num_classes: C, at least 2.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, shape: Sequence[int], num_classes: int) -> None:
        channels, height, width = check_sizes("SmallCNN", shape, num_classes, smallest=4)
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
            *_convolution(64, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 128, bias=False),
            nn.BatchNorm1d(128),
            nn.ReLU(inplace=True),
            nn.Linear(128, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → logits ``(B, C)``."""
        return self.layers(images)  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    # The shift of batch-norm replaces the bias.
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
