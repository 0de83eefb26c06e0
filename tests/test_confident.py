"""Choosing the most confident samples, against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.confident import most_confident


def one_by_one(losses: list[float], labels: list[int], number: int) -> list[int]:
    """Round by round: the lowest loss left of each class, in the order of these losses."""
    left, chosen = set(range(len(labels))), []
    while len(chosen) < number:
        best: dict[int, int] = {}
        for i in sorted(left, key=lambda i: (losses[i], i)):
            best.setdefault(labels[i], i)
        for i in sorted(best.values(), key=lambda i: (losses[i], i))[: number - len(chosen)]:
            chosen.append(i)
            left.remove(i)
    return sorted(chosen)


@given(data=st.data())
def test_equals_a_loop_over_rounds(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 25))
    labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    losses = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 3.0]), min_size=n, max_size=n))
    number = data.draw(st.integers(1, n))
    got = most_confident(torch.tensor(losses), torch.tensor(labels), number)
    assert got.tolist() == one_by_one(losses, labels, number)


def test_classes_are_equally_many_until_they_run_out() -> None:
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    chosen = most_confident(torch.rand(103), labels, 23)
    assert labels[chosen].bincount().tolist() == [10, 10, 3]


@pytest.mark.parametrize("number", [0, 4])
def test_impossible_numbers_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"Of 3 samples, 1 or more can be chosen, got {number}"):
        most_confident(torch.rand(3), torch.tensor([0, 1, 1]), number)
