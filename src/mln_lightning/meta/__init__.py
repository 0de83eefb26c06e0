"""The meta gradient: how the clean loss after one virtual step changes with the label side.

Imports nothing but torch.
"""

from __future__ import annotations

from mln_lightning.meta.compiled_tangent import compile_stateless
from mln_lightning.meta.compiling import COMPILER, compile_network, eagerly, is_compiled
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
    "COMPILER",
    "Backend",
    "Buffers",
    "MetaStep",
    "Params",
    "Reduce",
    "Stateless",
    "Update",
    "along",
    "compile_network",
    "compile_stateless",
    "copies",
    "eagerly",
    "is_compiled",
    "meta_step",
    "plain_step",
    "stateless",
    "virtual_update",
]
