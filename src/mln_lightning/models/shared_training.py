"""A method's training shared out to several processes, so that they equal one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mln_lightning import processes
from mln_lightning.batch import StepOutput
from mln_lightning.networks import synchronise_batch_norm

if TYPE_CHECKING:
    from mln_lightning.models.base import NoisyLabelModule


class SharedTraining:
    """Weights of a process's samples, and tables of which each process changes its own rows.

    Each process has some samples of every batch, perhaps none, and the mean of a loss over them.
    Its share of the batch makes that the process's part of the mean over all. In the course of an
    epoch no two processes see the same sample, so that rows of tables are exchanged only at its
    end and before a checkpoint.

    Attributes:
        train_share: fraction of the present training batch that this process has, a number or
            ``()``; 1 on one process.
        meta_share: the same for the meta batch.
        tables: names of the module's buffers with a row for every sample.
    """

    def __init__(self) -> None:
        self.train_share: float | Tensor = 1.0
        self.meta_share: float | Tensor = 1.0
        self.tables: list[str] = []
        self._seen = torch.zeros(0, dtype=torch.bool)  # (N,), samples since the last exchange

    def keep_rows(self, tables: Sequence[str], number: int) -> None:
        """Name the module's buffers with a row for each of ``number`` samples."""
        self.tables = list(tables)
        self._seen = torch.zeros(number, dtype=torch.bool)

    def start(self, module: NoisyLabelModule) -> None:
        """Prepare a module for training on several processes.

        Batch-norm becomes that over all processes, everything starts as in the first process, and
        what the main optimiser does not update is hidden from DDP.

        Raises:
            ValueError: the strategy is not plain DDP, Lightning would replace our samplers, or the
                method couples the samples of a batch.
        """
        strategy, name = module.trainer.strategy, type(module).__name__
        if type(strategy) is not DDPStrategy:
            raise ValueError(
                f"strategy={type(strategy).__name__} cannot train here: the virtual update needs "
                "all parameters whole in every process; use strategy='ddp'."
            )
        if strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ValueError(
                "find_unused_parameters=True is not supported, and not needed: leave it out of the "
                "DDP strategy."
            )
        if module.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "Lightning would replace the samplers, which share out the batches themselves: use "
                "Trainer(use_distributed_sampler=False)."
            )
        if module.whole_batch:
            raise ValueError(
                f"{name} cannot train on {module.trainer.world_size} processes: "
                f"{module.whole_batch}; set trainer.devices=1."
            )
        trained = {id(p) for p in module.trained_parameters()}
        for part in module.children():  # a frozen encoder has nothing to synchronise
            if any(id(p) in trained for p in part.parameters()):
                synchronise_batch_norm(part)
        hidden = [name for name, p in module.named_parameters() if id(p) not in trained]
        hidden += [name for name, _ in module.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            module, hidden
        )
        self.follow_first(module)

    def follow_first(self, module: nn.Module) -> None:
        """Take over the state of the first process, which may have drawn or rounded otherwise."""
        if processes.count() > 1:
            state = module.state_dict().values()
            processes.follow_first(tensor for tensor in state if isinstance(tensor, Tensor))

    def weigh(self, num_train: int, num_meta: int, device: torch.device) -> None:
        """Find this process's shares: numbers on the device, nobody waits for them.

        Args:
            num_train: samples that this process learns from in this step.
            num_meta: its samples of the meta batch.
            device: of the losses.
        """
        if processes.count() == 1:
            return
        here = torch.tensor([num_train, num_meta], dtype=torch.float64)
        here = here.to(device, non_blocking=True)
        self.train_share, self.meta_share = here / processes.total(here).clamp(min=1)

    def losses(self, output: StepOutput) -> StepOutput:
        """The output of a step with losses that are means over the whole batches."""
        if processes.count() == 1 or "loss" not in output:
            return output
        parts = {"loss": _part(output["loss"], self.train_share)}
        if "meta_loss" in output:
            parts["meta_loss"] = _part(output["meta_loss"], self.meta_share)
        sums = dict(zip(parts, processes.totals(list(parts.values())), strict=True))
        whole: StepOutput = {**output, "loss": sums["loss"]}
        if "meta_loss" in sums:
            whole["meta_loss"] = sums["meta_loss"]
        return whole

    def mark(self, index: Tensor) -> None:
        """Note that this process sees these samples ``(B,)``, by number."""
        if self.tables and processes.count() > 1:
            self._seen = self._seen.to(index.device)
            self._seen[index] = True

    @torch.no_grad()
    def exchange_rows(self, module: nn.Module) -> None:
        """Give every process the rows that others have changed."""
        if processes.count() == 1 or not self.tables:
            return
        tables = [module.get_buffer(name) for name in self.tables]
        self._seen = self._seen.to(tables[0].device)
        changed = [torch.where(_rows(self._seen, table), table, 0) for table in tables]
        sums = processes.totals([self._seen.long(), *(_summable(table) for table in changed)])
        seen = sums[0] > 0
        for table, whole in zip(tables, sums[1:], strict=True):
            table.copy_(torch.where(_rows(seen, table), whole.to(table.dtype), table))
        self._seen.zero_()


def _part(loss: Tensor, share: float | Tensor) -> Tensor:
    """A process without samples has a share of 0, and as its loss the mean of nothing."""
    return torch.where(torch.as_tensor(share, device=loss.device) > 0, loss * share, 0.0)


def _rows(seen: Tensor, table: Tensor) -> Tensor:
    """``(N,)`` → ``(N, 1, …)``, to be compared with a table."""
    return seen.view(-1, *[1] * (table.dim() - 1))


def _summable(table: Tensor) -> Tensor:
    return table.long() if table.dtype == torch.bool else table
