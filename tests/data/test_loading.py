"""Images that move to the device once, and the number of workers."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from mln_lightning.data import DatasetInfo, ImageArrays, NoisyLabelDataModule
from mln_lightning.data.loading import default_workers, place
from mln_lightning.datasets import blobs

INFO = DatasetInfo("blobs", 4, (1, 8, 8), (0.5,), (0.3,))


def data() -> NoisyLabelDataModule:
    module = NoisyLabelDataModule(blobs, INFO, num_meta=40, num_val=40, batch_size=32)
    module.setup()
    return module


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the tensors that were moved to a GPU, which is made up."""
    moved: list[int] = []

    def to(self: ImageArrays, device: torch.device) -> ImageArrays:
        moved.append(self.images.nbytes)
        return replace(self)

    monkeypatch.setattr(ImageArrays, "to", to)
    return moved


def test_images_that_sets_share_are_moved_once(
    moves: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 10**9))
    parts = data().parts
    before = {name: part.source.images for name, part in parts.named().items()}
    place(parts, torch.device("cuda"))
    assert moves == [400 * 64, 200 * 64]  # the training and the test set
    after = {name: part.source.images for name, part in parts.named().items()}
    assert after["train"] is after["meta"] is after["val"]
    assert all(after[name] is not images for name, images in before.items())


def test_images_that_do_not_fit_stay(moves: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 200 * 64, 10**9))
    place(data().parts, torch.device("cuda"))
    assert moves == [200 * 64]
    place(data().parts, torch.device("cpu"))
    assert moves == [200 * 64]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_from_the_device_are_those_from_memory() -> None:
    module, moved = data(), data()
    place(moved.parts, torch.device("cuda"))
    rows = torch.tensor([3, 7, 11])
    batch, on_gpu = module.parts.train.source[rows], moved.parts.train.source[rows]
    assert on_gpu.images.device.type == "cuda"
    assert torch.equal(on_gpu.images.cpu(), batch.images)


def test_workers_by_the_cores_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(3)), raising=False)
    assert default_workers() == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert default_workers() == 8
    assert NoisyLabelDataModule(blobs, INFO, num_meta=40, num_workers=None).num_workers == 8
    for processes, workers in ((4, 8), (20, 3), (99, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert default_workers() == workers
