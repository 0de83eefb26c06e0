"""Small pictures and folders of them, for tests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mln_lightning.data import EncodedImages, ImageFiles, ImageFormat


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    out = BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def scene(width: int = 30, height: int = 20) -> Image.Image:
    """Without any symmetry: red grows to the right, green downwards, with a blue corner."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(20, 235, width)
    pixels[..., 1] = np.linspace(20, 235, height)[:, None]
    pixels[: height // 4, : width // 4, 2] = 200
    return Image.fromarray(pixels)


def tree(root: Path, number: int, size: tuple[int, int] = (30, 20)) -> EncodedImages:
    """A folder of different PNG files; the label of image i is i mod 3."""
    root.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    names = [f"{row}.png" for row in range(number)]
    for name in names:
        pixels = draws.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    labels = torch.arange(number) % 3
    return EncodedImages(ImageFiles(root, names), labels, labels, image_format=ImageFormat(16))
