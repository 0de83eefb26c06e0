"""Speed of reading a folder of photographs: torchvision's ImageFolder, ours, and ours cached."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.goals import folder_goals
from benchmarks.report import Report, Table, spread
from benchmarks.timing import Range, ratio, take_turns
from mln_lightning.data import (
    EncodedImages,
    ImageFiles,
    ImageFormat,
    LabeledImages,
    Normalize,
    cached,
)
from mln_lightning.data.parts import BatchSource

FOLDER, FILES, CACHE = "ImageFolder", "files (ours)", "cached (ours)"
WAYS, WORKERS = (FOLDER, FILES, CACHE), (0, 1, 2)
NUM_IMAGES, BATCH, WIDTH, HEIGHT = 128, 32, 500, 375
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def report() -> Report:
    """Photographs per second, and how many times as fast as ImageFolder with as many workers."""
    found = measure_folder()
    rows = [
        (
            way,
            str(workers),
            f"{1 / statistics.median(times):,.0f}",
            spread(ratio(found[FOLDER, workers], times)),
        )
        for (way, workers), times in found.items()
    ]
    header = ("way", "workers", "images/s", "times ImageFolder (min-max)")
    gain = {way: ratio(found[FOLDER, 0], found[way, 0]) for way in (FILES, CACHE)}
    return Report(
        {"folder": Table("folder of 500 x 375 JPEGs, to 224 x 224", header, rows)},
        {
            "images_per_second": {
                f"{way}, {workers} workers": asdict(Range.of(1 / t for t in times))
                for (way, workers), times in found.items()
            },
            "times_image_folder": {way: asdict(range_) for way, range_ in gain.items()},
        },
        folder_goals(gain[FILES], gain[CACHE]),
    )


def measure_folder(seconds: float = 12.0) -> dict[tuple[str, int], list[float]]:
    """Seconds per image, batched and normalised on one thread, by way and number of workers.

    The files lie in the memory of the operating system, and the worker processes have started.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        _write_photos(root)
        files = datasets.ImageFolder(root, _usual_transforms())
        paths = [path for path, _ in files.samples]
        images = EncodedImages(
            ImageFiles(root, paths),
            torch.tensor(files.targets),
            image_format=ImageFormat(224, resize=256),
        )
        passes: dict[tuple[str, int], Callable[[], None]] = {}
        for workers in WORKERS:
            passes[FOLDER, workers] = _one_by_one(files, workers)
            passes[FILES, workers] = _whole(images, workers)
            passes[CACHE, workers] = _whole(cached(images, Path(folder) / "cache"), workers)
        for one in passes.values():
            one()
        named = {f"{way} {workers}": one for (way, workers), one in passes.items()}
        times = list(take_turns(named, seconds, torch.device("cpu")).values())
        del passes, named  # ends the worker processes before their files go
    torch.set_num_threads(threads)
    keys = [(way, workers) for workers in WORKERS for way in WAYS]
    return {
        key: [one / NUM_IMAGES for one in found] for key, found in zip(keys, times, strict=True)
    }


def _usual_transforms() -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def _one_by_one(files: datasets.ImageFolder, workers: int) -> Callable[[], None]:
    loader = DataLoader(files, BATCH, num_workers=workers, persistent_workers=workers > 0)

    def read() -> None:
        for images, _ in loader:
            assert images.dtype == torch.float32

    return read


def _whole(images: LabeledImages, workers: int) -> Callable[[], None]:
    loader = DataLoader(
        BatchSource(images, images.labels, images.labels),
        batch_size=None,
        sampler=torch.arange(len(images)).split(BATCH),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    normalize = Normalize(MEAN, STD)

    def read() -> None:
        for batch in loader:
            assert normalize(batch.images).dtype == torch.float32

    return read


def _write_photos(root: Path) -> None:
    """Smooth shapes with some grain, of about the size that photographs of shops have."""
    draws = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        coarse = draws.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        grain = draws.normal(0, 8, (HEIGHT, WIDTH, 1))
        photo = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        path = root / f"class{number % 4}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path, quality=80)
