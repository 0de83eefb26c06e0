"""What holds for every kind of noise on every distribution of classes."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mln_lightning.data import ImageArrays
from mln_lightning.datasets import fashion_mnist
from mln_lightning.noise import (
    ClassConditionalNoise,
    ClusterNoise,
    InstanceNoise,
    TeacherNoise,
    asymmetric,
    expected_instance_rate,
    noise_rate,
    pair,
    random_transition,
    symmetric,
    within_superclass,
)
from mln_lightning.seeding import generator

RATES = (0.01, 0.1, 0.4, 0.8)
EXACT = ("sym", "sym_own", "pair", "superclass", "random_matrix", "teacher")
KINDS = (*EXACT, "instance", "cluster")
LABELS = {
    "digits": torch.from_numpy(load_digits().target),
    # The published sets have equally many images of each class, in random order.
    "fashion_mnist": torch.arange(60_000)[torch.randperm(60_000, generator=generator(0))] % 10,
    "cifar10": torch.arange(50_000)[torch.randperm(50_000, generator=generator(1))] % 10,
    "cifar100": torch.arange(50_000)[torch.randperm(50_000, generator=generator(2))] % 100,
}


class SmallImages:
    """As many random 2 × 2 images as labels; the real digits where they are."""

    def __init__(self, name):
        number = len(LABELS[name])
        shape = (number, 1, 2, 2)
        self.images = torch.randint(256, shape, generator=generator(3), dtype=torch.uint8)
        if name == "digits":
            self.images = torch.from_numpy(load_digits().images * 15).byte().unsqueeze(1)

    def __len__(self):
        return len(self.images)

    def fetch(self, rows):
        return self.images[rows]


@pytest.fixture
def build(tmp_path):
    """Noise by kind, data set and rate."""

    def noise(kind, name, rate):
        labels = LABELS[name]
        c = int(labels.max()) + 1
        if kind == "instance":
            return InstanceNoise(c, rate)
        if kind == "cluster":
            return ClusterNoise(c, rate)
        if kind == "teacher":
            path = tmp_path / "scores.npy"
            if not path.exists():
                scores = np.random.default_rng(0).random((len(labels), c), dtype=np.float32)
                scores[np.arange(len(labels)), labels.numpy()] += 0.9
                np.save(path, scores)
            return TeacherNoise(path, c, rate)
        return ClassConditionalNoise(matrix(kind, c, rate))

    return noise


def matrix(kind, c, rate):
    return {
        "sym": lambda: symmetric(c, rate),
        "sym_own": lambda: symmetric(c, rate, include_own=True),
        "asym": lambda: asymmetric(c, rate, {0: 1, 2: 3}),
        "pair": lambda: pair(c, rate),
        "superclass": lambda: within_superclass(c, rate, [label // 5 for label in range(c)]),
        "random_matrix": lambda: random_transition(c, rate, 0),
    }[kind]()


def expected(kind, name, rate):
    """The rate asked for, and what may be missing from it."""
    labels = LABELS[name]
    sizes, c = labels.bincount(), int(labels.max()) + 1
    one = 1 / len(labels)
    if kind == "random_matrix":
        stays = random_transition(c, rate, 0).diagonal()
        wrong = float((sizes * (1 - stays)).sum() / len(labels))
        assert wrong == pytest.approx(rate, rel=0.05)
        return wrong, one
    if kind == "instance":
        mean = expected_instance_rate(rate)
        return mean, 4 * math.sqrt(mean * (1 - mean) / len(labels))
    if kind == "cluster":  # short of the rate by less than a cluster
        return rate, float(sizes.max()) / 10 * one
    return (rate * (c - 1) / c if kind == "sym_own" else rate), one


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", EXACT)
def test_the_measured_rate_is_the_rate_asked_for(build, kind, name):
    for rate in RATES:
        measured = noise_rate(
            build(kind, name, rate)(LABELS[name], generator=generator(0)), LABELS[name]
        )
        asked, slack = expected(kind, name, rate)
        assert measured == pytest.approx(asked, abs=slack)


@pytest.mark.parametrize("rate", [0.01, 0.4])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("instance", "digits"),
        ("instance", "cifar10"),
        ("instance", "cifar100"),
        ("cluster", "digits"),
        pytest.param("cluster", "cifar10", marks=pytest.mark.slow),
        pytest.param("cluster", "cifar100", marks=pytest.mark.slow),
    ],
)
def test_the_measured_rate_of_noise_that_looks_at_images(build, kind, name, rate):
    labels = LABELS[name]
    observed = build(kind, name, rate)(labels, SmallImages(name), generator=generator(0))
    asked, slack = expected(kind, name, rate)
    assert noise_rate(observed, labels) == pytest.approx(asked, abs=slack)


@pytest.mark.parametrize("kind", [*KINDS, "asym"])
def test_rate_0_changes_nothing_and_labels_are_not_overwritten(build, kind):
    labels = LABELS["digits"]
    before = labels.clone()
    images = SmallImages("digits")
    observed = build(kind, "digits", 0.0)(labels, images, generator=generator(0))
    assert torch.equal(observed, before)
    assert observed is not labels
    noise = build(kind, "digits", 0.4)
    observed = noise(labels, images, generator=generator(0))
    assert torch.equal(labels, before)
    assert observed.dtype == torch.int64
    assert not torch.equal(observed, before)
    assert torch.equal(observed, noise(labels, images, generator=generator(0)))
    if kind != "teacher":  # with hardly a tie, hardly anything is left to chance
        assert not torch.equal(observed, noise(labels, images, generator=generator(1)))


def test_the_real_labels_of_fashion_mnist_are_distributed_as_assumed(real_data):
    labels = fashion_mnist(data_dir=real_data).train.labels
    assert torch.equal(labels.bincount(), LABELS["fashion_mnist"].bincount())


@pytest.mark.slow
def test_instance_noise_on_the_real_images_of_fashion_mnist(real_data):
    train = fashion_mnist(data_dir=real_data).train
    assert isinstance(train, ImageArrays)
    observed = InstanceNoise(10, 0.4)(train.labels, train, generator=generator(0))
    assert noise_rate(observed, train.labels) == pytest.approx(0.4, abs=0.01)
