import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from mln_lightning.data import ImageArrays
from mln_lightning.noise import ClusterNoise, noise_rate
from mln_lightning.seeding import generator


@pytest.fixture(scope="module")
def handwriting():
    bunch = load_digits()
    return ImageArrays.from_numpy((bunch.images * 15).astype(np.uint8), bunch.target)


def blocks(tmp_path, sizes, labels):
    """Features whose clusters are plain to see: one point far from all others for each block."""
    points = np.repeat(np.arange(len(sizes)) * 1000.0, sizes)
    path = tmp_path / "features.npy"
    jitter = np.random.default_rng(0).random(len(points))
    np.save(path, np.stack([points + jitter, jitter], axis=1))
    return path, torch.tensor(labels).repeat_interleave(torch.tensor(sizes))


def test_the_largest_clusters_that_fit_become_one_class_each(tmp_path):
    sizes = [50, 30, 13, 7]
    path, labels = blocks(tmp_path, sizes, [0, 0, 0, 0])
    noise = ClusterNoise(5, 0.4, clusters=4, features=path)
    targets = set()
    for seed in range(20):
        parts = noise(labels, generator=generator(seed)).split(sizes)
        assert [len(part.unique()) for part in parts] == [1, 1, 1, 1]
        # 40 may go: not the 50, but the 30, not the 13, but the 7.
        assert [bool((part != 0).all()) for part in parts] == [False, True, False, True]
        targets.add(int(parts[1][0]))
    assert targets == {1, 2, 3, 4}


def test_what_one_class_cannot_use_is_left_to_the_next(tmp_path):
    path, labels = blocks(tmp_path, [20, 4, 20, 4], [0, 0, 1, 1])
    observed = ClusterNoise(2, 0.2, clusters=2, features=path)(labels, generator=generator(0))
    # 4.8 of each class: a 4 goes, the 0.8 left over is not enough for a 20, nor is the 1.6.
    assert int((observed != labels).sum()) == 8
    observed = ClusterNoise(2, 0.49, clusters=2, features=path)(labels, generator=generator(0))
    # 11.76 of each: a 4 first, then 7.76 + 11.76 are too few for a 20, so the other 4.
    assert int((observed != labels).sum()) == 8
    observed = ClusterNoise(2, 0.51, clusters=2, features=path)(labels, generator=generator(0))
    # 12.24 of each: a 4, then 8.24 + 12.24 are enough for a 20.
    assert int((observed != labels).sum()) == 24


def test_digits_flip_in_groups_up_to_the_rate(handwriting):
    for rate in (0.05, 0.2, 0.4, 0.8):
        observed = ClusterNoise(10, rate)(handwriting.labels, handwriting, generator=generator(0))
        assert rate - 0.01 < noise_rate(observed, handwriting.labels) <= rate
    # Concentrated: the nearest neighbour of a wrong label is wrong far more often than by chance.
    observed = ClusterNoise(10, 0.2)(handwriting.labels, handwriting, generator=generator(0))
    points = handwriting.images.flatten(1).double()
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    distances[handwriting.labels[:, None] != handwriting.labels] = torch.inf
    wrong = observed != handwriting.labels
    assert float(wrong[distances.argmin(dim=1)][wrong].double().mean()) > 0.7


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.floats(0, 0.95),
    st.integers(0, 5),
)
def test_never_more_than_the_rate(labels, rate, seed):
    labels = torch.tensor(labels)
    images = torch.randint(
        256, (len(labels), 1, 3, 3), generator=generator(seed), dtype=torch.uint8
    )
    data = ImageArrays(images, labels)
    observed = ClusterNoise(4, rate)(labels, data, generator=generator(seed))
    wrong = int((observed != labels).sum())
    assert wrong <= len(labels) * rate + 1e-9
    assert int(observed.max()) < 4


def test_equal_images_make_one_cluster():
    data = ImageArrays(torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2)
    observed = ClusterNoise(2, 0.4)(data.labels, data, generator=generator(0))
    assert torch.equal(observed, data.labels)  # 20 images are too many for a rate of 0.4


def test_labels_do_not_depend_on_threads(handwriting):
    noise = ClusterNoise(10, 0.3)
    first = noise(handwriting.labels, handwriting, generator=generator(0))
    try:
        torch.set_num_threads(2)
        assert torch.equal(noise(handwriting.labels, handwriting, generator=generator(0)), first)
    finally:
        torch.set_num_threads(1)
    assert not torch.equal(noise(handwriting.labels, handwriting, generator=generator(1)), first)


def test_bad_requests_are_refused(tmp_path, handwriting):
    with pytest.raises(ValueError, match="at least 2 clusters a class, got 1"):
        ClusterNoise(10, 0.2, clusters=1)
    with pytest.raises(ValueError, match="was given none"):
        ClusterNoise(10, 0.2)(handwriting.labels, generator=generator(0))
    with pytest.raises(FileNotFoundError, match="features does not exist"):
        ClusterNoise(10, 0.2, features=tmp_path / "nowhere.npy")
    path, labels = blocks(tmp_path, [3, 4], [0, 1])
    with pytest.raises(ValueError, match="features of 7 images and 6 labels"):
        ClusterNoise(2, 0.2, features=path)(labels[:6], generator=generator(0))
    np.save(path, np.full((7, 2), np.inf))
    with pytest.raises(ValueError, match="must be finite numbers"):
        ClusterNoise(2, 0.2, features=path)
