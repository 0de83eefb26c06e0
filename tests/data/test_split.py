import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from mln_lightning.data import stratified_split
from mln_lightning.seeding import generator


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.floats(0, 1), st.integers(0, 99))
def test_split_is_disjoint_complete_and_fair(labels, share, seed):
    strata = torch.tensor(labels)
    size = round(share * len(labels))
    drawn, rest = stratified_split(strata, size, generator=generator(seed))
    assert sorted(drawn.tolist() + rest.tolist()) == list(range(len(labels)))
    assert drawn.tolist() == sorted(drawn.tolist())
    assert len(drawn) == size
    fair = strata.bincount(minlength=5).double() * size / len(labels)
    assert bool(((strata[drawn].bincount(minlength=5) - fair).abs() < 1).all())


def test_class_counts_agree_with_scikit_learn():
    strata = torch.arange(1000) % 10
    _, theirs = train_test_split(strata.numpy(), test_size=200, stratify=strata.numpy())
    ours, _ = stratified_split(strata, 200, generator=generator(0))
    assert strata[ours].bincount().tolist() == torch.from_numpy(theirs).bincount().tolist()


def test_function_of_the_seed_only():
    strata = torch.arange(300) % 3
    state = torch.get_rng_state()
    first, _ = stratified_split(strata, 60, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    again, _ = stratified_split(strata, 60, generator=generator(1))
    other, _ = stratified_split(strata, 60, generator=generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [-1, 5])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"Cannot draw {size} of 4"):
        stratified_split(torch.zeros(4, dtype=torch.int64), size, generator=generator(0))
