"""The CIFAR-10 network of the MSLG and MetaLabelNet papers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mln_lightning.networks.sizes import check_sizes


class CNN6(nn.Module):
    """Three pairs of 3×3 convolutions (64, 128, 196), each pair pooled, and two linear layers.

    1,639,794 parameters for 3×32×32 images and 10 classes. Convolutions start Kaiming-normal over
    their outputs. Features: 256 values after the hidden layer's ReLU.

    Source: Algan & Ulusoy, "Meta Soft Label Generation for Noisy Labels", ICPR 2020.

    Args:
        shape: K, H, W of the images; height and width at least 8.
        num_classes: C, at least 2.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, shape: Sequence[int], num_classes: int) -> None:
        channels, height, width = check_sizes("CNN6", shape, num_classes, smallest=8)
        super().__init__()
        self.layers = nn.Sequential(
            *_block(channels, 64),
            *_block(64, 128),
            *_block(128, 196),
            nn.Flatten(),
            nn.Linear(196 * (height // 8) * (width // 8), 256),
            nn.BatchNorm1d(256),
            nn.ReLU(inplace=True),
            nn.Linear(256, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → logits ``(B, C)``."""
        return self.layers(images)  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
