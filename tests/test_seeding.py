"""The tensor hash against plain integer arithmetic, and the quality of its draws."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.seeding import derive_seed, generator, hashed_bits

MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """Plain transcription of the finaliser, on unsigned integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_first_number_of_the_published_sequence():
    # Output of the reference generator for seed 1234567.
    assert splitmix64(1234567 + 0x9E3779B97F4A7C15) == 6457827717110365317
    bits = hashed_bits(1234567, torch.tensor([1, 2, 3, 4, 5]))
    assert [int(b) & MASK for b in bits] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20))
def test_tensors_hash_like_integers(key, counters):
    bits = hashed_bits(key, torch.tensor(counters))
    expected = [splitmix64(key + c * 0x9E3779B97F4A7C15) for c in counters]
    assert [int(b) & MASK for b in bits] == expected


def test_derived_seeds_differ_and_are_valid():
    seeds = {derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(1) != derive_seed(1, 0)


def test_generator_is_a_function_of_its_counters():
    first = torch.rand(5, generator=generator(3, 4))
    torch.rand(7)
    assert torch.equal(first, torch.rand(5, generator=generator(3, 4)))
    assert not torch.equal(first, torch.rand(5, generator=generator(4, 3)))
