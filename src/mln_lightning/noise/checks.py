"""Checks that several kinds of noise share."""

from __future__ import annotations

from torch import Tensor

from mln_lightning.noise.base import Images


def check_rate(num_classes: int, rate: float) -> None:
    """Refuse a rate, or a number of classes, that no noise can work with.

    Raises:
        ValueError: there are fewer than 2 classes, or the rate is not in [0, 1).
    """
    if num_classes < 2:
        raise ValueError(f"Label noise needs at least 2 classes, got {num_classes}.")
    if not 0 <= rate < 1:
        raise ValueError(f"The noise rate must be at least 0 and below 1, got {rate}.")


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Refuse clean labels that the noise does not know.

    Args:
        labels: ``(N,)`` int64.
        num_classes: C.

    Raises:
        ValueError: a label lies outside 0…C-1.
    """
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(
            f"The noise model knows classes 0 to {num_classes - 1}, the labels run from "
            f"{int(labels.min())} to {int(labels.max())}."
        )


def check_transition(transition: Tensor) -> Tensor:
    """The matrix in float64, if it is a transition matrix.

    Args:
        transition: ``(C, C)``, ``T[i, j]`` = P(observed = j | clean = i).

    Raises:
        ValueError: the matrix is not square, has entries outside 0…1, or rows that do not sum to 1.
    """
    matrix = transition.double()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"A transition matrix must be square, got {tuple(matrix.shape)}.")
    if not bool(((matrix >= 0) & (matrix <= 1)).all()):
        raise ValueError("Transition probabilities must lie between 0 and 1.")
    row_error = (matrix.sum(dim=1) - 1).abs()
    if float(row_error.max()) > 1e-6:
        row = int(row_error.argmax())
        hint = ""
        if float((matrix.sum(dim=0) - 1).abs().max()) <= 1e-6:
            hint = " Its columns do: transpose it, rows are clean classes."
        raise ValueError(
            "Each row of a transition matrix must sum to 1, "
            f"row {row} sums to {float(matrix[row].sum()):.6g}.{hint}"
        )
    return matrix


def check_images(images: Images | None, labels: Tensor, *, noise: str) -> Images:
    """The images, if they pair up with the labels.

    Args:
        images: as handed to a noise model.
        labels: ``(N,)``.
        noise: what a message calls the noise.

    Raises:
        ValueError: there are none, or not as many as labels.
    """
    if images is None:
        raise ValueError(f"{noise} looks at the images, and was given none.")
    if len(images) != len(labels):
        raise ValueError(
            f"{noise} needs one image for each label, got {len(images)} images and {len(labels)} "
            "labels."
        )
    return images
