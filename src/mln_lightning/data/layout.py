"""Layout and type of images and labels."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.listing.layout import channels_last


def channels_first(images: Tensor) -> Tensor:
    """``(N, H, W)`` or ``(N, H, W, K)`` → ``(N, K, H, W)``; that layout stays as it is."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    return images.permute(0, 3, 1, 2) if channels_last(images.shape) else images


def integers(name: str, values: ArrayLike | Tensor) -> Tensor:
    """Whole numbers of any width → int64.

    Raises:
        ValueError: they are of another type.
    """
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {tensor.dtype}.")
    return tensor.long()


def check_images(images: Tensor) -> None:
    """Refuse images that are not ``(N, K, H, W)`` uint8.

    Raises:
        ValueError: says what they are.
    """
    if images.dtype != torch.uint8:
        raise ValueError(
            f"Images must be uint8 with values 0 to 255, got {images.dtype}; "
            "scale and convert them."
        )
    if images.ndim != 4:
        raise ValueError(f"Images must have the shape (N, K, H, W), got {tuple(images.shape)}.")


def check_labels(name: str, labels: Tensor, num_images: int) -> None:
    """Refuse labels that are not ``(N,)`` int64 classes or ``UNKNOWN``.

    Raises:
        ValueError: says what they are.
    """
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {labels.dtype}.")
    if labels.shape != (num_images,):
        raise ValueError(
            f"{name} must be one number for each of the {num_images} images, "
            f"got the shape {tuple(labels.shape)}."
        )
    if len(labels) and int(labels.min()) < UNKNOWN:
        raise ValueError(f"{name} must be classes from 0 up, got {int(labels.min())}.")


def check_trusted(trusted: Tensor | None, clean: Tensor | None, num_images: int) -> None:
    """Refuse a mask of trusted samples that does not fit, or trusts samples of unknown class.

    Raises:
        ValueError: says how many samples are affected.
    """
    if trusted is None:
        return
    if trusted.dtype != torch.bool or trusted.shape != (num_images,):
        raise ValueError(
            f"Trusted must be a bool for each of the {num_images} images, got {trusted.dtype} of "
            f"shape {tuple(trusted.shape)}."
        )
    known = torch.zeros_like(trusted) if clean is None else clean != UNKNOWN
    if bool((trusted & ~known).any()):
        raise ValueError(
            f"{int((trusted & ~known).sum())} trusted images have no clean label: give one, or "
            "do not trust them."
        )
