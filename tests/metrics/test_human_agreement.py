import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import entropy
from sklearn.metrics import log_loss

from mln_lightning.datasets import cifar10
from mln_lightning.metrics import human_agreement, read_soft_labels


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(2, 12), st.booleans())
@settings(max_examples=30, deadline=None)
def test_against_scipy(seed, size, classes, float32):
    draws = np.random.default_rng(seed)
    p = draws.dirichlet(np.ones(classes), size)
    h = draws.dirichlet(np.full(classes, 0.3), size)
    h[:, 0] = 0  # a class that nobody saw counts as nothing, not as NaN
    h[:, 1] += 1e-3
    h /= h.sum(axis=1, keepdims=True)
    if float32:
        p = p.astype(np.float32)
    found = human_agreement(torch.from_numpy(p), torch.from_numpy(h))
    p = p.astype(np.float64)
    kl = rel_entr(h, p).sum(axis=1).mean()
    assert found["kl"] == pytest.approx(kl, abs=1e-9)
    assert found["cross_entropy"] == pytest.approx(kl + entropy(h, axis=1).mean(), abs=1e-9)


def test_one_hot_labels_give_the_log_loss():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]], dtype=torch.float64)
    labels = [0, 2, 2]
    found = human_agreement(p, torch.eye(3)[labels])
    expected = log_loss(labels, p.numpy(), labels=[0, 1, 2])
    assert found["cross_entropy"] == pytest.approx(expected, abs=1e-12)
    assert found["kl"] == pytest.approx(expected, abs=1e-12)


def test_perfect_agreement():
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert human_agreement(p, p) == pytest.approx({"cross_entropy": np.log(2) / 2, "kl": 0})


def test_a_prediction_of_zero_is_finite():
    found = human_agreement(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert found["kl"] == pytest.approx(-np.log(torch.finfo(torch.float32).tiny))


@pytest.mark.parametrize(
    ("p", "h", "message"),
    [
        ([[0.5, 0.5]], [[1.0]], r"got \(1, 2\) and \(1, 1\)"),
        ([0.5, 0.5], [0.5, 0.5], r"must both be \(N, C\)"),
        ([[0.5, 0.4]], [[1, 0]], "The predictions must be .* row 0 has 0.4 .* sums to 0.9"),
        ([[0.5, 0.5]], [[1.5, -0.5]], "The human labels must be .* row 0 has -0.5"),
        ([[0.5, float("nan")]], [[1, 0]], "row 0 has nan"),
    ],
)
def test_what_is_no_distribution(p, h, message):
    with pytest.raises(ValueError, match=message):
        human_agreement(torch.tensor(p), torch.tensor(h))


def test_no_image():
    with pytest.raises(ValueError, match="N above 0"):
        human_agreement(torch.zeros(0, 3), torch.zeros(0, 3))


SOFT = np.array([[0.8, 0.2, 0], [0, 1, 0], [0.1, 0.5, 0.4], [0, 0, 1]])
LABELS = torch.tensor([0, 1, 2, 2])


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4"])
def test_reads_an_array(tmp_path, dtype):
    np.save(tmp_path / "soft.npy", SOFT.astype(dtype))
    found = read_soft_labels(tmp_path / "soft.npy", LABELS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.from_numpy(SOFT), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (SOFT[:3], r"each of the 4 test images, it holds float64 \(3, 3\)"),
        (SOFT[:, 0], r"float64 \(4,\)"),
        (SOFT > 0, "it holds bool"),
        (SOFT * 10, "row 0 has .* sums to 10. Divide counts by the sums of their rows"),
        (np.round(SOFT[:, :2] + 0.5), "knows 2 classes, the test labels go up to 2"),
        (SOFT[::-1] * [1, 1, 1], "test label for 25.0% of the images"),
        (np.array([{}]), "cannot be read as an array: Object arrays"),
    ],
)
def test_an_array_of_something_else(tmp_path, array, message):
    np.save(tmp_path / "soft.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"soft.npy.*{message}"):
        read_soft_labels(tmp_path / "soft.npy", LABELS)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "soft.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"soft.npy cannot be read"):
        read_soft_labels(tmp_path / "soft.npy", LABELS)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no soft test labels at .*soft.npy"):
        read_soft_labels(tmp_path / "soft.npy", LABELS)


DATA = Path(os.environ.get("MLN_DATA_DIR", "nowhere"))


@pytest.fixture
def cifar10h():
    path = DATA / "cifar-10h" / "cifar10h-probs.npy"
    if not path.is_file():
        pytest.skip("no CIFAR-10H under MLN_DATA_DIR")
    return path


def test_real_cifar10h(cifar10h):
    counts = np.load(cifar10h.with_name("cifar10h-counts.npy"))
    labels = torch.from_numpy(counts.argmax(axis=1))
    found = read_soft_labels(cifar10h, labels)
    votes = counts / counts.sum(axis=1, keepdims=True)
    torch.testing.assert_close(found, torch.from_numpy(votes), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="Divide counts"):
        read_soft_labels(cifar10h.with_name("cifar10h-counts.npy"), labels)
    with pytest.raises(ValueError, match=r"for 1\d\.\d% of the images only"):
        read_soft_labels(cifar10h, labels.flip(0))
    # No prediction is better than people's own; a sure one is worse than a smoothed one.
    own = human_agreement(found, found)
    assert own["kl"] == pytest.approx(0, abs=1e-12)
    assert own["cross_entropy"] == pytest.approx(entropy(votes, axis=1).mean(), abs=1e-9)
    sure = torch.eye(10, dtype=torch.float64)[labels]
    smooth = human_agreement(0.95 * sure + 0.005, found)
    assert 0 < smooth["kl"] < human_agreement(sure, found)["kl"]


@pytest.mark.slow
def test_cifar10h_is_about_the_test_images_of_cifar10(cifar10h, real_cifar10):
    labels = cifar10(real_cifar10, verify=False).test.labels
    found = read_soft_labels(cifar10h, labels)
    assert float((found.argmax(dim=1) == labels).double().mean()) == pytest.approx(0.9921)
    assert float(found[torch.arange(10_000), labels].mean()) == pytest.approx(0.9523, abs=1e-4)
