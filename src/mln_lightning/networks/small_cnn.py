"""A small convolutional network for small images; minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mln_lightning.networks.sizes import check_sizes


class SmallCNN(nn.Module):
    """Four 3×3 convolutions (w, w, pool, 2w, 2w, pool), a hidden layer of 4w and a head.

    Batch-norm and ReLU follow each of them but the head.

    Args:
        shape: K, H, W of the images; height and width at least 4, meant for 8 to 32.
        num_classes: C, at least 2.
        width: w, channels of the first convolution, at least 1.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, shape: Sequence[int], num_classes: int, width: int = 32) -> None:
        channels, height, columns = check_sizes("SmallCNN", shape, num_classes, smallest=4)
        if width < 1:
            raise ValueError(f"SmallCNN needs width >= 1, got {width}.")
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, width),
            *_convolution(width, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (columns // 4), 4 * width, bias=False),
            nn.BatchNorm1d(4 * width),
            nn.ReLU(inplace=True),
            nn.Linear(4 * width, num_classes),
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
