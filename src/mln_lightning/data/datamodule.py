"""The data module: one data set, one noise, one split, batches that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mln_lightning.batch import UNKNOWN, Batch, TrainBatch
from mln_lightning.data import loading
from mln_lightning.data.augment import Augment, Normalize
from mln_lightning.data.cut import Cut, one_of, size
from mln_lightning.data.notes import notes, without_duplicates
from mln_lightning.data.partition import partition
from mln_lightning.data.parts import BatchSource, Part, Partition
from mln_lightning.data.prepare import prepared
from mln_lightning.data.sampler import train_samplers
from mln_lightning.data.source import DatasetInfo, LabeledImages, Splits
from mln_lightning.data.transfer import Transfer
from mln_lightning.noise.base import NoiseModel
from mln_lightning.noise.record import NoiseRecord


class NoisyLabelDataModule(LightningDataModule):
    """Training with observed labels beside a small trusted set.

    Noise is put on the whole training set once, before the meta set (clean labels) and the
    validation set (observed labels) are cut from it; a source may bring its own. Test images are
    used for nothing else. Without noise the labels are taken as the observed ones.

    After `setup`, ``notes`` says what a user should know about the data, a sentence each, and
    ``unreadable`` names the images that were left out. `Batch.index` is the row in the full
    training set, or in the part that the source brings.

    A size is a count (180), a share (0.1 or ``"10%"``) or a number of each class (``"20/class"``).

    Args:
        source: reads the data set.
        info: its description.
        noise: noise model, or None if the source's labels are observed ones.
        num_meta: size of the meta set, an image of each class at least; None = all of the source's
            own, or all trusted images.
        num_val: size of the validation set, a share being one of the training images: of the
            source's own, None or a share = all; where it brings none, None = none.
        num_test: trusted images to test on, if the source brings no test set; None = no test.
        meta_from: where the meta set is cut from. ``test`` is the published code's way: its results
            do not compare with those of a whole test set.
        meta_list: text file of the meta images, rows or names; ``num_meta`` is not used then.
        meta_in_train: leave the meta images in the training set too, with their observed labels.
        num_unlabelled: training images whose labels are hidden, besides those that have none.
        num_train: labelled training images that are kept, to try things faster; None = all.
        unlabelled_order: ``mixed``: anywhere in an epoch; ``sequential``: after the labelled ones,
            in batches of their own without augmentation, as published.
        duplicates: ``drop`` leaves a copy in the later of train, validation, meta, test only.
        on_bad_image: ``skip`` leaves unreadable images out.
        cache_dir: folder for decoded images; None = decode them in every epoch.
        batch_size: B.
        meta_batch_size: None = ``batch_size``, but no more than there are meta samples.
        rate: noise rate asked for, 0…1; for the record only.
        augment: augmentation of training images (meta images are never changed).
        num_workers: worker processes per loader, None = cores, up to 8; images in memory need none.
        drop_last: leave out a short last batch.
        test_soft_labels: file of people's label distributions for the test images (CIFAR-10H).
        verify: handed to a source that can check its files; None = it has no such choice.
        seed: seed of order and augmentation.
        data_seed: seed of noise and splits.

    Raises:
        ValueError: in the constructor or in `setup`, if a size or a part does not fit.
    """

    def __init__(
        self,
        source: Callable[..., Splits],
        info: DatasetInfo,
        noise: NoiseModel | None = None,
        *,
        num_meta: int | float | str | None = None,
        num_val: int | float | str | None = None,
        num_test: int | float | str | None = None,
        meta_from: Literal["train", "test"] = "train",
        meta_list: str | None = None,
        meta_in_train: bool = False,
        num_unlabelled: int | float | str | None = None,
        num_train: int | float | str | None = None,
        unlabelled_order: Literal["mixed", "sequential"] = "mixed",
        duplicates: Literal["ignore", "report", "drop"] = "ignore",
        on_bad_image: Literal["error", "skip"] = "error",
        cache_dir: str | None = None,
        batch_size: int = 128,
        meta_batch_size: int | None = None,
        rate: float | None = None,
        augment: Augment | None = None,
        num_workers: int | None = 0,
        drop_last: bool = True,
        test_soft_labels: str | None = None,
        verify: bool | None = None,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        loading.check_batches(batch_size, meta_batch_size, num_workers)
        one_of("unlabelled_order", unlabelled_order, ("mixed", "sequential"))
        one_of("duplicates", duplicates, ("ignore", "report", "drop"))
        one_of("on_bad_image", on_bad_image, ("error", "skip"))
        self.source = source
        self.info = info
        self.noise = noise
        self.cut = Cut(
            num_meta=size("num_meta", num_meta),
            num_val=size("num_val", num_val),
            num_test=size("num_test", num_test),
            meta_from=meta_from,
            meta_list=meta_list,
            meta_in_train=meta_in_train,
            num_unlabelled=size("num_unlabelled", num_unlabelled),
            num_train=size("num_train", num_train),
        )
        self.unlabelled_order = unlabelled_order
        self.duplicates = duplicates
        self.on_bad_image = on_bad_image
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.meta_batch_size = meta_batch_size
        self.rate = rate
        self.num_workers = loading.default_workers() if num_workers is None else num_workers
        self.drop_last = drop_last
        self.test_soft_labels = test_soft_labels
        self.verify = verify
        self.seed = seed
        self.data_seed = data_seed
        self.normalize = Normalize(info.mean, info.std)
        self.transfer = Transfer(
            self.normalize, augment, seed=seed, spare_unlabelled=unlabelled_order == "sequential"
        )
        self.notes: list[str] = []
        self.unreadable: list[str] = []
        self._splits: Splits | None = None
        self._parts: Partition | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, corrupt and split the data, once; put what fits onto the trainer's device."""
        if self._parts is None:
            self._splits, self._parts = self._read()
        if not self.num_workers:
            loading.place(self._parts, loading.device_of(self.trainer))

    def _read(self) -> tuple[Splits, Partition]:
        splits = self.source() if self.verify is None else self.source(verify=self.verify)
        splits, self.unreadable = prepared(
            splits,
            cache_dir=self.cache_dir,
            skip_unreadable=self.on_bad_image == "skip",
            workers=self.num_workers,
        )
        parts = partition(splits, self.info, self.noise, self.cut, data_seed=self.data_seed)
        self.notes = notes(splits, parts, self.cut, self.unreadable)
        if self.duplicates != "ignore":
            parts, found = without_duplicates(parts, drop=self.duplicates == "drop")
            self.notes += found
        loading.check_batch_fits(self.batch_size, parts)
        return splits, parts

    @property
    def parts(self) -> Partition:
        """All sets with their rows.

        Raises:
            RuntimeError: `setup` was not called.
        """
        if self._parts is None:
            raise RuntimeError("The data are not read yet: call setup() first.")
        return self._parts

    @property
    def labels(self) -> Tensor:
        """``(N,)`` int64 observed labels of the full training set."""
        return self.parts.train.source.labels

    @property
    def train_labels(self) -> Tensor:
        """``(N,)`` int64, the same, ``UNKNOWN`` outside the training part."""
        hidden = torch.full_like(self.labels, UNKNOWN)
        return hidden.index_copy(0, self.train_index, self.parts.train.labels)

    @property
    def clean(self) -> Tensor:
        """``(N,)`` int64 true classes of the full training set or ``UNKNOWN``; for metrics only."""
        return self.parts.train.source.clean

    @property
    def train_index(self) -> Tensor:
        """``(n,)`` int64 rows of the training part."""
        return self.parts.train.index

    @property
    def val_index(self) -> Tensor:
        """``(v,)`` int64 rows of the validation set."""
        return self.parts.val.index

    @property
    def meta_index(self) -> Tensor:
        """``(m,)`` int64 rows of the meta set."""
        return self.parts.meta.index

    @property
    def noise_rate(self) -> float | None:
        """Measured fraction of wrong labels in the training part; None if no class is known."""
        return self.parts.train.noise_rate

    def noise_record(self) -> NoiseRecord:
        """All that is needed to repeat this noise."""
        return NoiseRecord(
            observed=self.labels,
            clean=self.clean,
            index=self.train_index,
            data_seed=self.data_seed,
            rate_asked=self.rate,
            rate_measured=self.noise_rate,
        )

    def train_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """``{"train": …, "meta": …}``, equally long, going on where the trainer stands."""
        order, meta_order = train_samplers(
            self.parts,
            batch_size=self.batch_size,
            meta_batch_size=self.meta_batch_size,
            seed=self.seed,
            step=lambda: 0 if self.trainer is None else self.trainer.global_step,
            drop_last=self.drop_last,
            unlabelled_order=self.unlabelled_order,
            share=loading.share_of(self.trainer),
        )
        return {
            "train": self._loader(self.parts.train.source, order),
            "meta": self._loader(self.parts.meta.source, meta_order),
        }

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """This process's share of the validation set, in order; an empty list if there is none."""
        return self._in_shares(self.parts.val) if len(self.parts.val) else []

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """This process's share of the test set, in order; an empty list if there is none."""
        return [] if self.parts.test is None else self._in_shares(self.parts.test)

    @property
    def also_test(self) -> Mapping[str, LabeledImages]:
        """Further clean test sets, by name."""
        return {} if self._splits is None else self._splits.also_test

    def on_after_batch_transfer(
        self, batch: TrainBatch | Batch, dataloader_idx: int = 0
    ) -> TrainBatch | Batch:
        """Augment the training images of a training step, and normalise all images."""
        if isinstance(batch, Batch):
            return self.transfer.batch(batch, self._dtype())
        epoch = None if self.trainer is None else self.trainer.current_epoch
        return self.transfer.train(batch, epoch=epoch, dtype=self._dtype())

    def _dtype(self) -> torch.dtype | None:
        known = None if self.trainer is None else self.trainer.lightning_module.dtype
        return known if isinstance(known, torch.dtype) else None

    def images_of(self, part: Part, device: torch.device) -> Iterator[Tensor]:
        """Normalised images ``(b, K, H, W)`` of a set in the order of its rows, not augmented."""
        on_device = (b._replace(images=b.images.to(device)) for b in self.in_order(part))
        return (self.transfer.batch(batch, self._dtype()).images for batch in on_device)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data: no positions, only which data they were."""
        return self.parts.state(self.info.name)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other data.

        Raises:
            ValueError: the checkpoint belongs to another data set, noise or split.
        """
        if self._parts is not None:
            self._parts.check_state(state_dict, self.info.name)

    def in_order(self, part: Part) -> DataLoader[Batch]:
        """All samples of a set in the order of their rows, once, never augmented."""
        return self._loader(part.source, torch.split(part.index, self.batch_size))

    def _in_shares(self, part: Part) -> DataLoader[Batch]:
        rank, number = loading.share_of(self.trainer)
        return self.in_order(Part(part.source, torch.tensor_split(part.index, number)[rank]))

    def _loader(
        self, source: BatchSource, batches: Sampler[Tensor] | tuple[Tensor, ...]
    ) -> DataLoader[Batch]:
        device = loading.device_of(self.trainer)
        return loading.batch_loader(source, batches, workers=self.num_workers, device=device)
