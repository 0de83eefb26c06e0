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


def train_sampler(clock, size=23, batch_size=4, seed=0, drop_last=True, **options):
    rows = torch.arange(100, 100 + size)
    return TrainSampler(
        rows, batch_size=batch_size, seed=seed, step=clock, drop_last=drop_last, **options
    )


def mixed(clock, seed=0, **options):
    return train_sampler(clock, 12, seed=seed, unlabelled=torch.arange(500, 511), **options)


def sequential(clock, seed=0, **options):
    """Three batches of labelled rows, two of unlabelled ones."""
    unlabelled = torch.arange(500, 511)
    return train_sampler(
        clock, 12, seed=seed, unlabelled=unlabelled, unlabelled_order="sequential", **options
    )


def meta_sampler(clock, size=7, batch_size=3, steps=5, seed=0, **options):
    rows = torch.arange(200, 200 + size)
    return MetaSampler(
        rows, batch_size=batch_size, steps_per_epoch=steps, seed=seed, step=clock, **options
    )


samplers = pytest.mark.parametrize("make", [train_sampler, mixed, sequential, meta_sampler])


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


@samplers
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


@samplers
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


def test_order_of_published_results():
    """The order of a seed is part of every result table."""
    clock = Clock()
    clock.now = 2
    batches = [batch.tolist() for batch in train_sampler(clock, 9, 2, seed=3)]
    assert batches == [[101, 106], [108, 103]]
    batches = [batch.tolist() for batch in meta_sampler(clock, 5, 3, seed=3)]
    assert batches == [[202, 200, 201], [204, 202, 200], [204, 201, 203]]


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 9),
    st.sampled_from(["mixed", "sequential"]),
    st.booleans(),
    st.integers(0, 2),
)
def test_unlabelled_rows_come_once_an_epoch_too(
    labelled, pool, batch_size, order, drop_last, epoch
):
    sizes = [labelled + pool] if order == "mixed" else [labelled, pool]
    batch_size = min(batch_size, *sizes)
    clock = Clock()
    sampler = train_sampler(
        clock,
        labelled,
        batch_size,
        drop_last=drop_last,
        unlabelled=torch.arange(500, 500 + pool),
        unlabelled_order=order,
    )
    clock.now = epoch * len(sampler)
    batches = [batch.tolist() for batch in sampler]
    rows = [row for batch in batches for row in batch]
    assert len(batches) == len(sampler)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= {*range(100, 100 + labelled), *range(500, 500 + pool)}
    assert len(rows) == sum(size - size % batch_size if drop_last else size for size in sizes)
    if order == "sequential":
        kinds = [{row >= 500 for row in batch} for batch in batches]
        assert all(len(kind) == 1 for kind in kinds)
        assert kinds == sorted(kinds, key=max)


def test_mixed_and_sequential_orders():
    clock = Clock()
    kinds = [[row >= 500 for row in batch] for batch in epochs(mixed(clock), clock, 1)]
    assert any(len(set(kind)) == 2 for kind in kinds)
    # The labelled rows come as they do without the others, and the two kinds not in one order.
    alone = [batch.tolist() for batch in train_sampler(Clock(), 12)]
    twin = train_sampler(
        Clock(), 12, unlabelled=torch.arange(500, 512), unlabelled_order="sequential"
    )
    batches = [batch.tolist() for batch in twin]
    assert batches[:3] == alone
    assert [[row - 400 for row in batch] for batch in batches[3:]] != alone


def test_no_unlabelled_rows_change_nothing():
    plain = [batch.tolist() for batch in train_sampler(Clock())]
    empty = torch.empty(0, dtype=torch.int64)
    for order in ("mixed", "sequential"):
        sampler = train_sampler(Clock(), unlabelled=empty, unlabelled_order=order)
        assert [batch.tolist() for batch in sampler] == plain


@samplers
@given(st.integers(1, 5), st.integers(1, 11), st.integers(0, 14), st.booleans())
def test_shares_of_all_processes_are_the_batches_of_one(make, processes, each, step, drop_last):
    clock = Clock()
    options = {"batch_size": max(each, processes)}
    if make is not meta_sampler:
        options["drop_last"] = drop_last
    one = make(clock, **options)
    shared = [make(clock, rank=r, num_processes=processes, **options) for r in range(processes)]
    clock.now = step
    assert {len(sampler) for sampler in shared} == {len(one)}
    for batch, shares in zip(one, zip(*shared, strict=True), strict=True):
        assert torch.cat(shares).tolist() == batch.tolist()
        lengths = {len(share) for share in shares}
        assert max(lengths) <= min(lengths) + 1  # a short last batch may leave some without any


@pytest.mark.parametrize("make", [train_sampler, meta_sampler])
def test_batches_that_processes_cannot_share_are_refused(make):
    with pytest.raises(ValueError, match="must be at least their number, got 4 for 5"):
        make(Clock(), batch_size=4, num_processes=5)
    for rank, processes in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"got rank {rank} of {processes} processes"):
            make(Clock(), batch_size=4, rank=rank, num_processes=processes)


def test_bad_unlabelled_options_are_refused():
    with pytest.raises(ValueError, match="'mixed' or 'sequential', got 'first'"):
        train_sampler(Clock(), unlabelled_order="first")
    with pytest.raises(ValueError, match="the 11 unlabelled training samples, got 12"):
        sequential(Clock(), batch_size=12)
    assert len(mixed(Clock(), batch_size=12)) == 1


@pytest.mark.parametrize("batch_size", [0, 24])
def test_bad_batch_sizes_are_refused(batch_size):
    with pytest.raises(
        ValueError, match=f"between 1 and the 23 training samples, got {batch_size}"
    ):
        train_sampler(Clock(), batch_size=batch_size)


def test_empty_meta_set_is_refused():
    with pytest.raises(ValueError, match="needs samples"):
        meta_sampler(Clock(), size=0)
