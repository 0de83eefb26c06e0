"""Checkpoints that an interrupted run continues from, bit for bit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from torch import Tensor

from mln_lightning import processes
from mln_lightning.batch import TrainBatch
from mln_lightning.errors import RunStopped
from mln_lightning.files import replacing, shown
from mln_lightning.models.base import NoisyLabelModule, NonFiniteLossError
from mln_lightning.stopping import SIGNALS

_ASK = 1.0  # seconds between two questions to the other processes


class Checkpoint(lightning_callbacks.Checkpoint):
    """Writes ``last.ckpt`` and ``best.ckpt`` and stops cleanly on SIGINT and SIGTERM.

    ``last.ckpt`` is written at the end of every epoch and every ``every_n_steps`` steps between;
    ``best.ckpt`` at the end of an epoch whose validation accuracy is at least as good as all
    before; warm-up epochs do not compete, as in the published code. Runs last of all callbacks. A
    step whose loss was not finite stops the run before any checkpoint is overwritten.

    Args:
        every_n_steps: steps between two writes within an epoch, at least 1.
        monitor: name of the metric, larger is better, that selects the best epoch.

    Raises:
        ValueError: ``every_n_steps`` is smaller than 1.
    """

    def __init__(self, every_n_steps: int = 100, monitor: str = "val/accuracy") -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.best_score = float("-inf")
        self.best_epoch = -1  # from 0
        self.seconds = 0.0
        self.seconds_before = 0.0
        self._clock = time.monotonic()
        self._signal: int | None = None  # that this process got
        self._stop: int | None = None  # that some process got, as all of them know
        self._asked_at, self._asked_step, self._ask_at = 0.0, 0, 0
        self._previous: dict[int, Any] = {}

    # -- saving -----------------------------------------------------------------------------------

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: TrainBatch,
        batch_idx: int,
    ) -> None:
        """Save in mid-epoch, when it is time or a signal has come."""
        # An epoch's last batch is left to on_train_epoch_end: a checkpoint taken here would skip
        # the validation and the schedule of that epoch when it is resumed.
        if batch_idx + 1 >= trainer.num_training_batches:
            return
        self._agree(trainer)
        if self._stop is not None or trainer.global_step % self.every_n_steps == 0:
            self._save(trainer, pl_module, "last.ckpt")
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, and the best epoch so far."""
        score = trainer.callback_metrics.get(self.monitor)
        if (
            score is not None
            and float(score) >= self.best_score
            and self._competes(trainer, pl_module)
        ):
            self.best_score, self.best_epoch = float(score), trainer.current_epoch
            self._save(trainer, pl_module, "best.ckpt")
        self._save(trainer, pl_module, "last.ckpt")
        self._agree(trainer, now=True)
        self._stop_if_asked(trainer)

    @staticmethod
    def _competes(trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether the epoch is one of the method's own, unless the whole run is warm-up."""
        warmup = pl_module.warmup_epochs if isinstance(pl_module, NoisyLabelModule) else 0
        return trainer.current_epoch >= warmup or warmup >= (trainer.max_epochs or 0)

    def _save(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        path = self._folder(trainer) / name
        if isinstance(pl_module, NoisyLabelModule):
            try:
                pl_module.check_finite()
            except NonFiniteLossError as error:
                last = self._folder(trainer) / "last.ckpt"
                kept = (
                    f"The last good checkpoint is {shown(last)}."
                    if last.exists()
                    else "There is no checkpoint yet."
                )
                raise NonFiniteLossError(f"{error} {kept}") from None
            pl_module.complete_tables()
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        if trainer.is_global_zero:
            with replacing(path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(path)  # takes part, and writes nothing

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir)

    # -- signals ----------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning's hands off the signals of several processes.

        Lightning 2.6 asks before every step whether the first process got SIGTERM, which waits for
        the device, and sends messages from within a signal handler, which may cross others.
        """
        if trainer.world_size > 1:
            loop, connector = trainer.fit_loop.epoch_loop, trainer._signal_connector
            loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
            connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; SIGINT and SIGTERM now set a flag that is acted on between two steps."""
        self._clock = self._asked_at = time.monotonic()
        self._asked_step = self._ask_at = trainer.global_step
        if not (self._folder(trainer) / "best.ckpt").exists():
            self.best_score = float("-inf")  # resumed from the checkpoint of another folder
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._remember)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = number

    def _agree(self, trainer: Trainer, *, now: bool = False) -> None:
        """Learn of a signal, at the same step in every process.

        Asking the other processes waits for them and for the device; so that is done about once a
        second, at a step that all can reckon.

        Args:
            trainer: which trains.
            now: ask even if it is not time; all processes do then.
        """
        if processes.count() == 1:
            self._stop = self._signal
            return
        if trainer.global_step < self._ask_at and not now:
            return
        since = time.monotonic() - self._asked_at
        here = [since, *(float(number == self._signal) for number in SIGNALS)]
        device = trainer.strategy.root_device
        seconds, *signals = processes.total(torch.tensor(here, device=device)).tolist()
        self._stop = next((n for n, got in zip(SIGNALS, signals, strict=True) if got), None)
        # Seconds are summed over the processes, and steps of each since it asked last.
        steps = max(1, trainer.global_step - self._asked_step) * processes.count()
        self._asked_step, self._asked_at = trainer.global_step, time.monotonic()
        self._ask_at = trainer.global_step + max(1, int(_ASK * steps / max(seconds, _ASK / 1000)))

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._stop is not None:
            raise RunStopped(self._stop, self._folder(trainer) / "last.ckpt")

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far and the seconds spent."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best epoch and the clock of a checkpoint."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self.seconds = self.seconds_before = state_dict["seconds"]
