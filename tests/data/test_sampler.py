import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.data import MetaSampler, TrainSampler


class Clock:
    """Stands for the trainer's step count."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


def train_sampler(clock, size=23, batch_size=4, seed=0, drop_last=True):
    rows = torch.arange(100, 100 + size)
    return TrainSampler(rows, batch_size=batch_size, seed=seed, step=clock, drop_last=drop_last)


def meta_sampler(clock, size=7, batch_size=3, steps=5, seed=0):
    rows = torch.arange(200, 200 + size)
    return MetaSampler(rows, batch_size=batch_size, steps_per_epoch=steps, seed=seed, step=clock)


def epochs(sampler, clock, count):
    """All batches of ``count`` epochs without a stop."""
    batches = []
    for _ in range(count):
        clock.now = len(batches)
        batches += [batch.tolist() for batch in sampler]
    return batches


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.booleans(), st.integers(0, 2))
def test_every_epoch_holds_every_row_once(size, batch_size, seed, drop_last, epoch):
    batch_size = min(batch_size, size)
    clock = Clock()
    sampler = train_sampler(clock, size, batch_size, seed, drop_last)
    clock.now = epoch * len(sampler)
    batches = [batch.tolist() for batch in sampler]
    rows = [row for batch in batches for row in batch]
    assert len(batches) == len(sampler)
    assert len(set(rows)) == len(rows)
    assert len(rows) == (size - size % batch_size if drop_last else size)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@pytest.mark.parametrize("make", [train_sampler, meta_sampler])
def test_resuming_at_any_step_continues_the_order(make):
    clock = Clock()
    sampler = make(clock)
    steps = len(sampler)
    assert steps == 5
    whole = epochs(sampler, clock, 3)
    assert len(whole) == 3 * steps
    for step in range(3 * steps):
        clock = Clock()
        clock.now = step
        fresh = make(clock)
        assert len(fresh) == steps
        end = (step // steps + 1) * steps
        assert [batch.tolist() for batch in fresh] == whole[step:end]


@pytest.mark.parametrize("make", [train_sampler, meta_sampler])
def test_order_changes_with_epoch_and_seed_and_spares_global_state(make):
    clock = Clock()
    state = torch.get_rng_state()
    whole = epochs(make(clock), clock, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert whole[:5] != whole[5:]
    assert whole != epochs(make(clock, seed=1), clock, 2)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 6))
def test_meta_stream_has_no_break_at_the_epoch(size, batch_size, steps):
    clock = Clock()
    batches = epochs(meta_sampler(clock, size, batch_size, steps), clock, 4)
    assert all(len(batch) == batch_size for batch in batches)
    stream = [row for batch in batches for row in batch]
    for start in range(0, len(stream) - size + 1, size):
        assert sorted(stream[start : start + size]) == list(range(200, 200 + size))
    # The length of an epoch does not matter.
    clock = Clock()
    assert next(iter(meta_sampler(clock, size, batch_size, 4 * steps))).tolist() == batches[0]
    assert [b.tolist() for b in meta_sampler(clock, size, batch_size, 4 * steps)] == batches


@pytest.mark.parametrize("batch_size", [0, 24])
def test_bad_batch_sizes_are_refused(batch_size):
    with pytest.raises(
        ValueError, match=f"between 1 and the 23 training samples, got {batch_size}"
    ):
        train_sampler(Clock(), batch_size=batch_size)


def test_empty_meta_set_is_refused():
    with pytest.raises(ValueError, match="needs samples"):
        meta_sampler(Clock(), size=0)
