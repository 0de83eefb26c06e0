"""Random numbers as functions of counters, never of what ran before.

Every random choice of this package is made from integers that name it: (seed, epoch) for an order,
(seed, epoch, sample) for an augmentation. The hash is the finaliser of SplitMix64 (Steele, Lea &
Flood, OOPSLA 2014), once on Python integers and once on tensors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def derive_seed(*counters: int) -> int:
    """One seed out of several integers, in 0…2⁶³ - 1; their order matters."""
    state = 0
    for counter in counters:
        state = ((state ^ (counter & _MASK)) + _GAMMA) & _MASK
        for shift, factor in _ROUNDS:
            state = ((state ^ (state >> shift)) * factor) & _MASK
        state ^= state >> _LAST_SHIFT
    return state >> 1


def generator(*counters: int) -> torch.Generator:
    """A fresh CPU generator seeded with `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*counters))


def beta(alpha: float, draws: torch.Generator) -> float:
    """One number of Beta(α, α), from a generator, which torch's own distribution cannot take.

    Args:
        alpha: α, positive.
        draws: of the CPU.
    """
    seed = int(torch.randint(2**62, (), generator=draws))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def hashed_bits(key: int, counters: Tensor) -> Tensor:
    """64 random bits for each counter, the same on every device.

    Args:
        key: names the stream, e.g. from `derive_seed`.
        counters: any shape, int64.

    Returns:
        The same shape, int64, each bit uniform.
    """
    bits = counters * _signed(_GAMMA) + _signed(key & _MASK)
    for shift, factor in _ROUNDS:
        bits = (bits ^ _shift_right(bits, shift)) * _signed(factor)
    return bits ^ _shift_right(bits, _LAST_SHIFT)


def _shift_right(bits: Tensor, shift: int) -> Tensor:
    """Shift that fills with zeros; torch's own copies the sign bit."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)
