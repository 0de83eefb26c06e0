"""Speed of the input pipeline: whole batches as tensors, or one PIL image after another."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from benchmarks.report import Report, Table
from benchmarks.steps import NUM_CLASSES, plain, random_batch
from benchmarks.timing import Range, ratio, take_turns
from mln_lightning.batch import UNKNOWN
from mln_lightning.data import Augment, ImageArrays, Normalize, RandomCropFlip, StrongAugment
from mln_lightning.data.parts import BatchSource
from mln_lightning.networks import CNN6

OURS, PER_SAMPLE = "whole batches (ours)", "image by image (PIL)"
STRONG, RAND_AUGMENT = "whole batches, strong (ours)", "image by image, RandAugment (PIL)"
MEAN = STD = (0.5, 0.5, 0.5)
PADDING, NUM_OPS = 4, 2


def report(device: torch.device) -> Report:
    """Images per second of each way, and what that is beside a plain step."""
    shape, size = (3, 32, 32), 128 if device.type == "cpu" else 512
    times = measure_input(shape, size, device)
    speed = {name: Range.of(size / t for t in found) for name, found in times.items()}
    gain = {OURS: ratio(times[PER_SAMPLE], times[OURS])}
    gain[STRONG] = ratio(times[RAND_AUGMENT], times[STRONG])
    step = plain(CNN6(shape, NUM_CLASSES).to(device))
    batch = random_batch(shape, size, device)
    step(batch)
    (steps,) = take_turns({"plain": partial(step, batch)}, 3.0, device).values()
    share = {
        way: statistics.median(times[way]) / statistics.median(steps) for way in (OURS, STRONG)
    }
    rows = [
        (
            name,
            f"{found.median:,.0f} ({found.min:,.0f}-{found.max:,.0f})",
            f"{gain[name].median:.1f}" if name in gain else "1",
            f"{share[name]:.2%}" if name in share else "",
        )
        for name, found in speed.items()
    ]
    header = ("input on one thread", "images/s (min-max)", "times PIL", "of a plain step")
    note = f"Plain step: cnn6, batch {size}, all threads."
    return Report(
        {"input": Table("images in memory, 32 x 32", header, rows, note)},
        {
            "images_per_second": {name: asdict(found) for name, found in speed.items()},
            "times_pil": {name: asdict(found) for name, found in gain.items()},
            "share_of_plain_step": share,
        },
    )


def measure_input(
    shape: tuple[int, int, int], size: int, device: torch.device, seconds: float = 4.0
) -> dict[str, list[float]]:
    """Seconds per batch of B = ``size`` augmented and normalised images, for each way.

    On one thread, like a worker of a loader.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    pool = torch.randint(0, 256, (10_000, *shape), dtype=torch.uint8, generator=draws)
    rows = torch.randperm(len(pool), generator=draws)[:size]
    crop_flip = RandomCropFlip(PADDING)
    crop = transforms.RandomCrop(shape[-1], PADDING)
    mirror, turn_over = transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()
    rand_augment = transforms.RandAugment(NUM_OPS, interpolation=InterpolationMode.BILINEAR)
    ways = {
        OURS: _whole(pool, rows, device, crop_flip),
        # The transforms of the published code, in its order.
        PER_SAMPLE: _image_by_image(pool, rows, device, [mirror, turn_over, crop]),
        STRONG: _whole(pool, rows, device, StrongAugment(NUM_OPS, first=crop_flip)),
        RAND_AUGMENT: _image_by_image(pool, rows, device, [mirror, crop, rand_augment]),
    }
    for way in ways.values():
        way()
    times = take_turns(ways, seconds, device)
    torch.set_num_threads(threads)
    return times


def _whole(
    pool: Tensor, rows: Tensor, device: torch.device, augment: Augment
) -> Callable[[], Tensor]:
    unknown = torch.full((len(pool),), UNKNOWN)
    source = BatchSource(ImageArrays(pool, torch.zeros_like(unknown)), unknown, unknown)
    normalize = Normalize(MEAN, STD)

    def batch() -> Tensor:
        found = source[rows]
        images, index = found.images.to(device), found.index.to(device)
        return normalize(augment(images, index, seed=0, epoch=0))

    return batch


def _image_by_image(
    pool: Tensor, rows: Tensor, device: torch.device, changes: Sequence[Callable]
) -> Callable[[], Tensor]:
    arrays = pool.permute(0, 2, 3, 1).numpy()
    transform = transforms.Compose(
        [*changes, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )

    def batch() -> Tensor:
        images = [transform(Image.fromarray(arrays[row])) for row in rows.tolist()]
        return torch.stack(images).to(device)

    return batch
