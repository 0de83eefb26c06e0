"""Look at every image once, before anything depends on it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from mln_lightning.data.encoded import Inspection
from mln_lightning.data.source import LabeledImages

CHUNK = 32  # images that a thread takes at a time

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, eq=False)
class Scan:
    """What N images are.

    Attributes:
        width: ``(N,)`` int64, of the upright image in its file; 0 if it cannot be used.
        height: ``(N,)`` int64, likewise.
        modes: how many images have which kind of pixels, by Pillow's names; the most frequent
            first.
        problems: row → "name: reason" of each image that cannot be used.
    """

    width: Tensor
    height: Tensor
    modes: Mapping[str, int]
    problems: Mapping[int, str]


@runtime_checkable
class Inspectable(Protocol):
    """Images that can be looked at one by one."""

    def inspect(self, row: int) -> Inspection:
        """Size, kind or problem of an image; never raises for a bad one."""
        ...


def scan(
    images: LabeledImages, *, workers: int = 0, progress: Callable[[int], None] | None = None
) -> Scan:
    """Decode every image once.

    Args:
        images: N images. Sets without a method ``inspect``, such as arrays in memory, consist of
            good images of one size.
        workers: threads; 0 = the calling one. The result does not depend on it.
        progress: told how many more images are done, in the calling thread.

    Raises:
        ValueError: ``workers`` is negative.
    """
    if workers < 0:
        raise ValueError(f"The number of threads must not be negative, got {workers}.")
    seen: list[Inspection] = []
    if isinstance(images, Inspectable):
        inspect = images.inspect  # bound here: a thread gets rows only
        for chunk in in_order(lambda rows: [inspect(row) for row in rows], chunks(images), workers):
            seen += chunk
            if progress is not None:
                progress(len(chunk))
    elif len(images):
        channels, height, width = images.fetch(torch.tensor([0])).shape[1:]
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")
        seen = [Inspection(width, height, mode)] * len(images)
        if progress is not None:
            progress(len(images))
    return Scan(
        width=torch.tensor([one.width for one in seen], dtype=torch.int64),
        height=torch.tensor([one.height for one in seen], dtype=torch.int64),
        modes=dict(Counter(one.mode for one in seen if not one.problem).most_common()),
        problems={
            row: f"{images.name(row)}: {one.problem}" for row, one in enumerate(seen) if one.problem
        },
    )


def drop_unreadable(
    images: LabeledImages, *, workers: int = 0, progress: Callable[[int], None] | None = None
) -> tuple[LabeledImages, list[str]]:
    """Leave out images that cannot be used; to be done before noise and splits.

    Args:
        images: N images.
        workers: threads; 0 = the calling one.
        progress: told how many more images are done.

    Returns:
        The good images in their order, and "name: reason" of each one left out.

    Raises:
        ValueError: no image can be used.
    """
    problems = scan(images, workers=workers, progress=progress).problems
    if not problems:
        return images, []
    dropped = list(problems.values())
    if len(dropped) == len(images):
        raise ValueError(
            f"None of the {len(images)} images can be used: look at the first, {dropped[0]}."
        )
    good = [row for row in range(len(images)) if row not in problems]
    return images.select(torch.tensor(good)), dropped


def chunks(images: LabeledImages) -> Iterator[range]:
    """All rows, in order, some at a time."""
    for start in range(0, len(images), CHUNK):
        yield range(start, min(start + CHUNK, len(images)))


def in_order(function: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Iterator[_Out]:
    """Map in ``workers`` threads, or in this one if 0; in the order of ``items``, little ahead."""
    if not workers:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[_Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
