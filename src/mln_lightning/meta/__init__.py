"""The meta gradient: how the clean loss after one virtual step changes with the label side.

Imports nothing but torch.
"""

from __future__ import annotations

from mln_lightning.meta.stateless import (
    Buffers,
    Params,
    Stateless,
    along,
    copies,
    stateless,
    virtual_update,
)
from mln_lightning.meta.step import MetaStep, Reduce, Update, meta_step, plain_step
from mln_lightning.meta.tangent import Backend

__all__ = [
    "Backend",
    "Buffers",
    "MetaStep",
    "Params",
    "Reduce",
    "Stateless",
    "Update",
    "along",
    "copies",
    "meta_step",
    "plain_step",
    "stateless",
    "virtual_update",
]
