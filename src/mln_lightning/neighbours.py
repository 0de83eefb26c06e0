"""Which samples lie near each other."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, number: int) -> Tensor:
    """The nearest other points of each point, by Euclidean distance.

    Args:
        points: ``(n, F)`` on the CPU.
        number: k, at least 1 and below n.

    Returns:
        ``(n, k)`` int64 rows of ``points``, nearest first; a point is never its own neighbour.

    Raises:
        ValueError: there are too few points.
    """
    if not 1 <= number < len(points):
        raise ValueError(
            f"The number of neighbours must be from 1 to {len(points) - 1} for {len(points)} "
            f"points, got {number}."
        )
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=number).fit(points.numpy())
    # Without an argument it leaves each point itself out, also where there is a copy of it.
    return torch.from_numpy(found.kneighbors(return_distance=False).astype("int64"))
