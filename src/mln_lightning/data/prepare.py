"""What happens to the images of a data set before anything is drawn."""

from __future__ import annotations

from pathlib import Path

from mln_lightning.data.cache import cached
from mln_lightning.data.encoded import EncodedImages
from mln_lightning.data.scan import drop_unreadable
from mln_lightning.data.source import LabeledImages, Splits


def prepared(
    splits: Splits, *, cache_dir: str | None, skip_unreadable: bool, workers: int
) -> tuple[Splits, list[str]]:
    """Decode images into a cache, and leave out those that cannot be read, if that is asked for.

    Args:
        splits: parts of a data set.
        cache_dir: folder of the cache; None = no cache.
        skip_unreadable: leave them out. Otherwise they stop the run when they are needed.
        workers: threads that decode.

    Returns:
        the parts, and what was left out: a name and a reason each.

    Raises:
        ValueError: a part has no readable image, or the cache is damaged.
        OSError: the cache could not be written.
    """
    left_out: list[str] = []

    def prepare(name: str, part: LabeledImages) -> LabeledImages:
        if cache_dir is not None and isinstance(part, EncodedImages):
            part = cached(part, Path(cache_dir), workers=workers)
        if skip_unreadable:
            part, bad = drop_unreadable(part, workers=workers)
            left_out.extend(bad)
        return part

    return splits.each(prepare), left_out
