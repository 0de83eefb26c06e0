"""Batch-norm over the samples of all processes, on any device and with a forward derivative."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mln_lightning import processes


class SyncBatchNorm(_BatchNorm):
    """Batch-norm whose statistics in train mode are those of all processes' samples together.

    torch's own runs on GPUs only and has no forward derivative, which the meta gradient takes. This
    one is plain arithmetic around one summed vector, so autograd knows all its derivatives; for
    them it keeps one array of the input's size in float32, as torch's does. A process may have no
    sample. On one process, and in eval mode, it is torch's batch-norm.

    Args: those of `torch.nn.BatchNorm2d`.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"Batch-norm needs a batch and channels, got {input.dim()} axes.")

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, …)`` → the same shape and dtype."""
        use_batch = self.training or self.running_mean is None
        if processes.count() == 1 or not use_batch:
            normalized: Tensor = super().forward(input)
            return normalized
        self._check_input_dim(input)
        channels = input.shape[1]
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        centre = wide.new_zeros(channels) if self.running_mean is None else self.running_mean
        # Near the mean a sum of squares keeps its digits.
        moved = wide - _by_channel(centre.to(wide.dtype).clone(), wide)
        axes = [0, *range(2, wide.dim())]
        number = wide.new_full((1,), wide.numel() // channels)
        sums = processes.total(torch.cat([moved.sum(axes), moved.square().sum(axes), number]))
        first, second, number = torch.split(sums, [channels, channels, 1])
        mean = first / number
        variance = (second / number - mean.square()).clamp(min=0)
        if self.training and self.running_mean is not None:
            self._remember(centre + mean.detach(), variance.detach(), number.detach())
        scale = (variance + self.eps).rsqrt()
        shift = -mean
        if self.weight is not None:
            scale = scale * self.weight
        shift = shift * scale
        if self.bias is not None:
            shift = shift + self.bias
        return (moved * _by_channel(scale, wide) + _by_channel(shift, wide)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """Move the running statistics towards these; the variance is made unbiased, as torch's."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share: float | Tensor = self.momentum if self.momentum is not None else 0.0
        if self.momentum is None:  # the plain mean over all batches
            share = 1 / self.num_batches_tracked.to(self.running_mean.dtype)
        unbiased = variance * (number / (number - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _by_channel(vector: Tensor, like: Tensor) -> Tensor:
    """``(C,)`` → ``(1, C, 1, …)``."""
    return vector.view(1, -1, *[1] * (like.dim() - 2))


def synchronise_batch_norm(module: nn.Module) -> None:
    """Put a `SyncBatchNorm` in the place of every batch-norm below ``module``.

    Parameters, buffers and their names stay.

    Raises:
        ValueError: ``module`` itself is a batch-norm, which nothing here could replace.
    """
    if isinstance(module, _BatchNorm):
        raise ValueError("A network that is a single batch-norm layer cannot be synchronised.")
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    made: dict[int, SyncBatchNorm] = {}
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) in kinds:
                if id(child) not in made:
                    made[id(child)] = _synchronised(child)
                setattr(parent, name, made[id(child)])


def _synchronised(layer: nn.Module) -> SyncBatchNorm:
    assert isinstance(layer, _BatchNorm)
    new = SyncBatchNorm(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
    )
    if layer.affine:
        new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    return new.train(layer.training)
