"""The data module: one data set, one noise, one split, batches that can be resumed."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mln_lightning.batch import UNKNOWN, Batch, TrainBatch
from mln_lightning.data.augment import Normalize, RandomCropFlip
from mln_lightning.data.partition import BatchSource, Partition, partition
from mln_lightning.data.sampler import MetaSampler, TrainSampler
from mln_lightning.data.source import DatasetInfo, Splits
from mln_lightning.noise.base import NoiseModel, noise_rate
from mln_lightning.noise.record import NoiseRecord


class NoisyLabelDataModule(LightningDataModule):
    """Training with observed labels beside a small trusted set.

    Noise is put on the whole training set once, before the meta set (clean labels) and the
    validation set (observed labels) are cut from it; a source may bring its own. Test images are
    used for nothing else. Without noise the labels are taken as the observed ones.

    After `setup`:
        labels, clean: ``(N,)`` int64 over the *full* training set; ``clean`` may be ``UNKNOWN``.
        train_index, val_index, meta_index: ascending rows of each part, in the full training set or
            in the source's own part.

    `Batch.index` is the row in the full training set, or in the part that the source brings.

    Args:
        source: reads the data set.
        info: its description.
        noise: noise model, or None if the source's labels are observed ones.
        num_meta: size of the meta set, at least C; None = all of the source's own.
        num_val: size of the validation set; None = all of the source's own, or none.
        batch_size: B.
        meta_batch_size: None = ``batch_size``, but no more than there are meta samples.
        rate: noise rate asked for, 0…1; for the record only.
        augment: augmentation of training images (meta images are never changed).
        num_workers: worker processes of each loader; images in memory need none.
        drop_last: leave out an epoch's last batch if it is short.
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
        num_meta: int | None = None,
        num_val: int | None = None,
        batch_size: int = 128,
        meta_batch_size: int | None = None,
        rate: float | None = None,
        augment: RandomCropFlip | None = None,
        num_workers: int = 0,
        drop_last: bool = True,
        verify: bool | None = None,
        seed: int = 0,
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, batch_size if meta_batch_size is None else meta_batch_size) < 1:
            raise ValueError(
                f"Batch sizes must be at least 1, got {batch_size} and {meta_batch_size}."
            )
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, got {num_workers}.")
        self.source = source
        self.info = info
        self.noise = noise
        self.num_meta = num_meta
        self.num_val = num_val
        self.batch_size = batch_size
        self.meta_batch_size = meta_batch_size
        self.rate = rate
        self.augment = augment
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.verify = verify
        self.seed = seed
        self.data_seed = data_seed
        self.normalize = Normalize(info.mean, info.std)
        self._parts: Partition | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read, corrupt and split the data; a second call does nothing."""
        if self._parts is not None:
            return
        splits = self.source() if self.verify is None else self.source(verify=self.verify)
        parts = partition(
            splits,
            self.info,
            self.noise,
            num_meta=self.num_meta,
            num_val=self.num_val,
            data_seed=self.data_seed,
        )
        if self.batch_size > len(parts.train_index):
            raise ValueError(
                f"The batch size {self.batch_size} is larger than the training part, which has "
                f"{len(parts.train_index)} samples: lower batch_size, num_meta or num_val."
            )
        self._parts = parts

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
        return self.parts.train.labels

    @property
    def clean(self) -> Tensor:
        """``(N,)`` int64 true classes of the full training set or ``UNKNOWN``; for metrics only."""
        return self.parts.train.clean

    @property
    def train_index(self) -> Tensor:
        """``(n,)`` int64 rows of the training part."""
        return self.parts.train_index

    @property
    def val_index(self) -> Tensor:
        """``(v,)`` int64 rows of the validation set."""
        return self.parts.val_index

    @property
    def meta_index(self) -> Tensor:
        """``(m,)`` int64 rows of the meta set."""
        return self.parts.meta_index

    @property
    def noise_rate(self) -> float | None:
        """Measured fraction of wrong labels in the training part; None if no class is known."""
        clean = self.clean[self.train_index]
        if not bool((clean != UNKNOWN).any()):
            return None
        return noise_rate(self.labels[self.train_index], clean)

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
        order = TrainSampler(
            self.train_index,
            batch_size=self.batch_size,
            seed=self.seed,
            step=self._finished_steps,
            drop_last=self.drop_last,
        )
        meta_order = MetaSampler(
            self.meta_index,
            batch_size=self.meta_batch_size or min(self.batch_size, len(self.meta_index)),
            steps_per_epoch=len(order),
            seed=self.seed,
            step=self._finished_steps,
        )
        return {
            "train": self._loader(self.parts.train, order),
            "meta": self._loader(self.parts.meta, meta_order),
        }

    def train_eval_dataloader(self) -> DataLoader[Batch]:
        """The training part in the order of its rows, once, never augmented."""
        return self._in_order(self.parts.train, self.train_index)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation set with observed labels, in order; an empty list if there is none."""
        return self._in_order(self.parts.val, self.val_index) if len(self.val_index) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test set, in order."""
        return self._in_order(self.parts.test, torch.arange(len(self.parts.test.labels)))

    def on_after_batch_transfer(
        self, batch: TrainBatch | Batch, dataloader_idx: int = 0
    ) -> TrainBatch | Batch:
        """Augment the training images of a training step, and normalise all images."""
        if isinstance(batch, Batch):
            return self._normalized(batch)
        train = batch["train"]
        if self.augment is not None and self.trainer is not None:
            images = self.augment(
                train.images, train.index, seed=self.seed, epoch=self.trainer.current_epoch
            )
            train = train._replace(images=images)
        return {"train": self._normalized(train), "meta": self._normalized(batch["meta"])}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data: no positions, only which data they were."""
        return {"name": self.info.name, "labels_sha256": self._fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other data.

        Raises:
            ValueError: the checkpoint belongs to another data set, noise or split.
        """
        if self._parts is None:
            return
        if state_dict["name"] != self.info.name:
            raise ValueError(
                f"The checkpoint was trained on {state_dict['name']}, the data set is "
                f"{self.info.name}: choose the matching data set or start anew."
            )
        if state_dict["labels_sha256"] != self._fingerprint():
            raise ValueError(
                f"The checkpoint was trained on {self.info.name} with other labels or another "
                "split: use the same noise, rate, data_seed, num_meta and num_val, or start anew."
            )

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for values in (self.labels, self.train_index, self.val_index, self.meta_index):
            digest.update(values.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def _finished_steps(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_step

    def _normalized(self, batch: Batch) -> Batch:
        images = self.normalize(batch.images)
        # Lightning has converted inputs to the model's precision before, when these were bytes.
        if self.trainer is not None:
            images = images.to(self.trainer.lightning_module.dtype)
        return batch._replace(images=images)

    def _in_order(self, source: BatchSource, rows: Tensor) -> DataLoader[Batch]:
        return self._loader(source, torch.split(rows, self.batch_size))

    def _loader(
        self, source: BatchSource, batches: Sampler[Tensor] | tuple[Tensor, ...]
    ) -> DataLoader[Batch]:
        return DataLoader(
            source,
            batch_size=None,
            sampler=batches,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_interrupts_to_the_main_process,
        )


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one finishes its step with its workers.

    Args:
        worker: number of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
