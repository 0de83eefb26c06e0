"""One run: build, fit, test, export."""

from __future__ import annotations

import copy
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import distributed

from mln_lightning.callbacks import Checkpoint, CompilePieces, History
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.evaluation import further_metrics, soft_test_labels, test_accuracy
from mln_lightning.export import (
    export_confusion,
    export_labels,
    export_noise,
    write_classifier,
)
from mln_lightning.files import shown, write_atomically
from mln_lightning.launch import number_started
from mln_lightning.models import NoisyLabelModule
from mln_lightning.precision import format_lines, use_tf32
from mln_lightning.results import RunResults, commit, last_values, versions, write_results
from mln_lightning.resuming import check_checkpoint, checkpoint_to_resume
from mln_lightning.summary import data_lines, summary_rows, summary_table
from mln_lightning.wandb_pictures import log_pictures, tables_in

UNREADABLE = "unreadable.txt"  # names and reasons of images left out


def run_job(
    cfg: DictConfig, run_dir: Path, *, choices: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Train, test and export one composed configuration into ``run_dir``.

    Of several processes all train and test, and the first writes and prints. Continues from
    ``cfg.ckpt_path``, or from ``run_dir/last.ckpt`` where that exists.

    Args:
        cfg: composed and checked configuration.
        run_dir: the run's folder; made here.
        choices: chosen configuration groups, for the record.
        overrides: command-line overrides, for the record.

    Raises:
        ValueError: something in the data, the configuration or the checkpoint does not fit.
        FileNotFoundError: a file of the data set or the checkpoint is missing.
        OSError: a file could not be written.
        RunStopped: a signal stopped the run after a checkpoint was written.
    """
    started = time.monotonic()
    quiet()
    use_tf32(cfg.tf32)
    callbacks: list[Callback] = list(instantiate(cfg.callbacks).values())
    history = next(c for c in callbacks if isinstance(c, History))
    checkpoint = next(c for c in callbacks if isinstance(c, Checkpoint))
    trainer = build_trainer(cfg, run_dir, callbacks)
    torch.manual_seed(cfg.seed)
    data: NoisyLabelDataModule = instantiate(cfg.dataset, _partial_=True)(
        noise=instantiate(cfg.noise)  # an object in the call; as an override Hydra would unpack it
    )
    with first_alone(trainer) if cfg.download else nullcontext():
        data.setup("fit")  # what is wrong with the data is said before anything is written
    human = soft_test_labels(data)
    model: NoisyLabelModule = instantiate(cfg.model)
    if cfg.channels_last:
        model.to(memory_format=torch.channels_last)  # images follow their convolutions
    model.prepare_once(data.train_labels)
    trainer.precision_plugin.convert_module(model)  # before Lightning would round a checkpoint's
    # The first process decides: it may have set aside a finished run that another still saw.
    resume = trainer.strategy.broadcast(checkpoint_to_resume(cfg.ckpt_path, run_dir))
    if resume is not None:
        max_epochs = OmegaConf.select(cfg, "trainer.max_epochs")
        check_checkpoint(resume, model, data, max_epochs=max_epochs)

    composed = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    console = Console(highlight=False)
    if trainer.is_global_zero:
        start_folder(run_dir, composed, data)
        console.print("\n".join(data_lines(data)), end="\n\n", no_wrap=True)
    if trainer.logger is not None:
        trainer.logger.log_hyperparams(composed)
    trainer.fit(model, datamodule=data, ckpt_path=resume)

    at_last = test_accuracy(trainer, model, data)
    confusion, last = model.confusion, copy.deepcopy(model.state_dict())
    if trainer.is_global_zero and (run_dir / "best.ckpt").exists():  # not without validation
        best = torch.load(run_dir / "best.ckpt", map_location="cpu", weights_only=True)
        model.load_state_dict(best["state_dict"])
    model.shared.follow_first(model)
    at_best = test_accuracy(trainer, model, data)
    number = trainer.world_size
    if number > 1:
        distributed.destroy_process_group()  # what is left takes one process, however long
    if not trainer.is_global_zero:
        return

    device = trainer.strategy.root_device
    at_best |= further_metrics(model, data, device, human=human)
    if checkpoint.best_epoch >= 0:  # not without a validation part
        at_best["val/accuracy"] = checkpoint.best_score
    model.load_state_dict(last)
    at_last |= further_metrics(model, data, device, human=human)
    export_confusion(run_dir, confusion, data.info)
    labels = export_labels(run_dir, model, data, device=device)
    write_classifier(run_dir, model.classifier())
    results: RunResults = {
        "choices": dict(choices),
        "overrides": list(overrides),
        "seeds": {"seed": cfg.seed, "data_seed": cfg.data_seed},
        "metrics": last_values(history.rows)
        | {f"{name}_last": value for name, value in at_last.items()}
        | {f"{name}_selected": value for name, value in at_best.items()},
        "epochs": {
            "last": trainer.current_epoch,
            "selected": checkpoint.best_epoch + 1 or trainer.current_epoch,
        },
        "noise": {"rate_asked": cfg.rate, "rate_measured": data.noise_rate},
        "labels": labels.counts,
        "seconds": {
            "fit": round(checkpoint.seconds, 2),
            "total": round(time.monotonic() - started + checkpoint.seconds_before, 2),
        },
        "versions": versions(),
        "commit": commit(),
        "device": device_name(trainer),
        "processes": number,
    }
    if isinstance(trainer.logger, WandbLogger):
        with tables_in(run_dir / "wandb"):
            log_pictures(trainer.logger, run_dir, labels, data)
            log_final_table(trainer.logger, results)
    write_results(run_dir, results)
    console.print(summary_table(results))
    skipped = round(sum(row.get("train/skipped_steps", 0) for row in history.rows))
    for line in format_lines(
        cfg.precision, trainer.precision, cfg.tf32, device, skipped, trainer.global_step
    ):
        console.print(line, soft_wrap=True)
    console.print(f"Everything is in {shown(run_dir)}", soft_wrap=True)


def build_trainer(cfg: DictConfig, run_dir: Path, callbacks: list[Callback]) -> Trainer:
    """The trainer of a run; where there are several processes, they have met.

    Args:
        cfg: composed configuration.
        run_dir: the run's folder.
        callbacks: of the run.
    """
    if cfg.compile:
        callbacks = [CompilePieces(), *callbacks]
    logger: Logger | None = instantiate(cfg.logger) if cfg.logger else None
    if isinstance(logger, WandbLogger):
        silence_wandb()
    several = (number_started() or 1) > 1
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=run_dir,
        strategy=OmegaConf.select(cfg, "trainer.strategy", default="auto") if several else "auto",
    )
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()  # before training: there are things to agree upon
    if not trainer.is_global_zero:
        warnings.simplefilter("ignore")
    return trainer


@contextmanager
def first_alone(trainer: Trainer) -> Iterator[None]:
    """Let the first process go ahead, and the others when it is done."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()


def start_folder(run_dir: Path, composed: Mapping[str, Any], data: NoisyLabelDataModule) -> None:
    """Write what is known before the first step.

    Args:
        run_dir: the run's folder; made here.
        composed: configuration, resolved.
        data: set up.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(run_dir / "config.yaml", OmegaConf.to_yaml(composed))
    export_noise(run_dir, data)
    if data.unreadable:
        write_atomically(run_dir / UNREADABLE, "\n".join(data.unreadable) + "\n")


def quiet() -> None:
    """Leave the screen to the run: no adverts, tips and advice of the libraries below."""
    for name in ("lightning.pytorch", "lightning.fabric", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for chatter in (
        ".*does not have many workers.*",  # small data sets need none
        ".*checkpoint that ended before the epoch ended.*",  # our samplers resume in mid-epoch
        ".*Total length of `list` across ranks is zero.*",  # no validation part
        ".*smaller than the logging interval.*",  # metrics are logged by epoch
        ".*recommended to use `self.log.*sync_dist=True.*",  # what is logged is of all processes
        ".*AMP with fp16 is not supported on CPU.*",  # said in the end
        ".*The `srun` command is available.*",  # the processes are started without it
        ".*in eval mode at the start of training.*",  # the encoder belongs there
        ".*LeafSpec.*is deprecated.*",  # between Lightning and torch
    ):
        warnings.filterwarnings("ignore", chatter)


def silence_wandb() -> None:
    """Let W&B speak in its files only."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    if os.environ["WANDB_SILENT"] == "true":  # W&B reads it later than its first words
        wandb.termsetup(wandb.Settings(silent=True), None)


def log_final_table(logger: WandbLogger, results: RunResults) -> None:
    """Send the final table to W&B and close its run, so that a sweep's next one is another."""
    tests = {k: v for k, v in results["metrics"].items() if k.startswith("test/")}
    logger.log_metrics(tests)
    rows = [list(row) for row in summary_rows(results)]
    logger.log_table("results", columns=["quantity", "value"], data=rows)
    logger.experiment.finish()


def device_name(trainer: Trainer) -> str:
    """Name of the GPU, or of the kind of device."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
