"""The residual network in which most noisy-label papers report CIFAR results."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from mln_lightning.networks.sizes import check_sizes


class PreActResNet18(nn.Module):
    """ResNet-18 with pre-activation blocks and a 3×3 stem that keeps 32×32 images large.

    Sources: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016; stem and final
    pooling as is usual for CIFAR. No normalisation follows the last block.

    Args:
        shape: K, H, W of the images; height and width at least 8.
        num_classes: C, at least 2.
        width: channels of the first stage, doubled in each of the three others.

    Raises:
        ValueError: a size is out of range.
    """

    def __init__(self, shape: Sequence[int], num_classes: int, width: int = 64) -> None:
        channels, _, _ = check_sizes("PreActResNet18", shape, num_classes, smallest=8)
        if width < 1:
            raise ValueError(f"PreActResNet18 needs width >= 1, got {width}.")
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks += [
                PreActBlock(inputs, outputs, stride=1 if stage == 0 else 2),
                PreActBlock(outputs, outputs, stride=1),
            ]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → logits ``(B, C)``."""
        maps = self.blocks(self.stem(images))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class PreActBlock(nn.Module):
    """Batch-norm, ReLU, convolution, twice; the shortcut is projected where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            None
            if stride == 1 and inputs == outputs
            else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, inputs, H, W)`` → ``(B, outputs, H / stride, W / stride)``."""
        active = relu(self.norm1(maps), inplace=True)
        short = maps if self.shortcut is None else self.shortcut(active)
        inner = self.conv1(active)
        out: Tensor = self.conv2(relu(self.norm2(inner), inplace=True)) + short
        return out
