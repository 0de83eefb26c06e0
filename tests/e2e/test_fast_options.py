"""Options of speed, from the command line to the weights that are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch


def test_channels_last_and_fused_optimisers(mln: Callable[..., int], outputs: Path) -> None:
    code = mln(
        *("dataset=blobs", "model=emlc", "model.network.width=4", "model.warmup_epochs=1"),
        *("channels_last=true", "model.meta_every=2", "model.lean_memory=true"),
        *("+model.optimizer.fused=true", "+model.meta_optimizer.fused=true"),
        "trainer.max_epochs=2",
    )
    assert code == 0
    (path,) = outputs.rglob("last.ckpt")
    saved = torch.load(path, weights_only=True)
    weights = [w for w in saved["state_dict"].values() if w.ndim == 4 and w.shape[1] > 1]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert all(o["param_groups"][0]["fused"] for o in saved["optimizer_states"])
