import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mln_lightning.noise import (
    ClassConditionalNoise,
    pair,
    random_transition,
    read_transition,
    symmetric,
    within_superclass,
)

RATES = st.floats(0, 0.99)


def test_symmetric_noise_in_both_conventions():
    quarter = [[0.8 if i == j else 0.2 / 3 for j in range(4)] for i in range(4)]
    drawn_among_all = [[0.85 if i == j else 0.05 for j in range(4)] for i in range(4)]
    torch.testing.assert_close(symmetric(4, 0.2), torch.tensor(quarter, dtype=torch.float64))
    torch.testing.assert_close(
        symmetric(4, 0.2, include_own=True), torch.tensor(drawn_among_all, dtype=torch.float64)
    )


def test_pair_and_superclass_by_hand():
    expected = [[0.7, 0.3, 0], [0, 0.7, 0.3], [0.3, 0, 0.7]]
    torch.testing.assert_close(pair(3, 0.3), torch.tensor(expected, dtype=torch.float64))
    # Families {0, 2, 4} and {1, 5}; class 3 is alone and stays clean.
    families = within_superclass(6, 0.4, [7, 1, 7, 3, 7, 1])
    expected = [
        [0.6, 0, 0.2, 0, 0.2, 0],
        [0, 0.6, 0, 0, 0, 0.4],
        [0.2, 0, 0.6, 0, 0.2, 0],
        [0, 0, 0, 1, 0, 0],
        [0.2, 0, 0.2, 0, 0.6, 0],
        [0, 0.4, 0, 0, 0, 0.6],
    ]
    torch.testing.assert_close(families, torch.tensor(expected, dtype=torch.float64))


@given(st.integers(2, 30), RATES, st.integers(0, 99))
def test_random_matrices_are_valid_and_have_the_trace_asked_for(num_classes, rate, seed):
    matrix = random_transition(num_classes, rate, seed)
    assert torch.equal(ClassConditionalNoise(matrix).transition, matrix)  # its own checks pass
    assert float(matrix.trace()) == pytest.approx(num_classes * (1 - rate))
    assert torch.equal(matrix, random_transition(num_classes, rate, seed))


def test_random_matrices_are_random():
    first, second = random_transition(10, 0.4, 0), random_transition(10, 0.4, 1)
    assert not torch.allclose(first, second)
    for matrix in (first, second):
        assert float(matrix.diagonal().std()) > 0.1
        assert len(matrix.argsort(dim=1)[:, -2].unique()) > 3  # look-alikes of their own
    # No class is preferred: over many matrices each cell off the diagonal has the same mean.
    mean = torch.stack([random_transition(4, 0.3, seed) for seed in range(2000)]).mean(dim=0)
    torch.testing.assert_close(mean, symmetric(4, 0.3), atol=0.02, rtol=0)


@given(st.integers(2, 12), RATES)
def test_every_matrix_has_rows_that_sum_to_one(num_classes, rate):
    for matrix in (
        symmetric(num_classes, rate),
        symmetric(num_classes, rate, include_own=True),
        pair(num_classes, rate),
        within_superclass(num_classes, rate, [0] * num_classes),
    ):
        ClassConditionalNoise(matrix)
    torch.testing.assert_close(
        within_superclass(num_classes, rate, [0] * num_classes), symmetric(num_classes, rate)
    )


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".txt"])
def test_a_matrix_from_a_file(tmp_path, suffix):
    matrix = random_transition(5, 0.3, 2).numpy()
    path = tmp_path / f"übergang{suffix}"
    if suffix == ".npy":
        np.save(path, matrix)
    else:
        np.savetxt(path, matrix, delimiter="," if suffix == ".csv" else " ", fmt="%.17g")
    read = read_transition(path, 5)
    assert np.array_equal(read.numpy(), matrix)
    ClassConditionalNoise(read)


def test_a_spreadsheet_with_a_mark_of_byte_order_is_read(tmp_path):
    path = tmp_path / "matrix.csv"
    path.write_text("\ufeff0.9, 0.1\r\n0, 1\r\n", encoding="utf-8")
    assert read_transition(path, 2).tolist() == [[0.9, 0.1], [0.0, 1.0]]


def test_bad_matrix_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Say which file .* noise.transition.file=<file>"):
        read_transition(None, 3)
    with pytest.raises(FileNotFoundError, match=r"matrix does not exist: .*nowhere\.npy"):
        read_transition(tmp_path / "nowhere.npy", 3)

    def refused(name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_transition(tmp_path / name, 3)

    refused("a.xls", b"", r"must be .npy, .csv or .txt, got")
    refused("a.csv", b"", "cannot be read: .*it is empty")
    refused("b.csv", b"a,b,c\n1,0,0\n", "cannot be read")
    refused("c.csv", b"1,0,0\n0,1\n", "cannot be read")
    refused("d.csv", b"1,0\n0,1\n", r"needs a 3 by 3 transition matrix, .* shape \(2, 2\)")
    refused("e.npy", b"no array", "cannot be read")
    np.save(tmp_path / "f.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        read_transition(tmp_path / "f.npy", 3)
    np.save(tmp_path / "g.npy", np.array([["a"]]))
    with pytest.raises(ValueError, match="must hold numbers"):
        read_transition(tmp_path / "g.npy", 3)
    # cleanlab's noise matrix is the transpose of ours.
    np.save(tmp_path / "h.npy", random_transition(3, 0.4, 0).numpy().T)
    with pytest.raises(ValueError, match="transpose it, rows are clean classes"):
        ClassConditionalNoise(read_transition(tmp_path / "h.npy", 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pair(1, 0.1), "at least 2 classes"),
        (lambda: random_transition(4, 1.0, 0), "below 1, got 1.0"),
        (lambda: within_superclass(4, -0.1, [0] * 4), "at least 0"),
        (lambda: within_superclass(4, 0.1, []), "this data set has none"),
        (lambda: within_superclass(4, 0.1, None), "this data set has none"),
        (lambda: within_superclass(4, 0.1, [0, 0, 1]), "each of the 4 classes, got 3"),
        (lambda: within_superclass(4, 0.1, [0, 1, 2, 3]), "No two classes share a superclass"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
