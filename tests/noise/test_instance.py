import math

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm

from mln_lightning.data import ImageArrays
from mln_lightning.noise import InstanceNoise, expected_instance_rate, noise_rate
from mln_lightning.noise import thumbnails as thumbnails_module
from mln_lightning.seeding import generator


def photographs(number, shape=(3, 12, 10), seed=0):
    images = torch.randint(256, (number, *shape), generator=generator(seed), dtype=torch.uint8)
    return ImageArrays(images, torch.arange(number) % 5)


def recipe(images, labels, num_classes, rate, draws):
    """Xia et al., appendix, an image at a time, with the random numbers that the noise draws."""
    pixels = images.double()
    mean = pixels.mean(dim=(0, 2, 3), keepdim=True)
    std = pixels.std(dim=(0, 2, 3), keepdim=True, unbiased=False)
    x = ((pixels - mean) / std).flatten(1)
    lots = torch.rand(3, len(labels), generator=draws, dtype=torch.float64)
    low, high = -rate / 0.1, (1 - rate) / 0.1
    q = torch.from_numpy(truncnorm.ppf(lots[1].numpy(), low, high, loc=rate, scale=0.1))
    projections = [
        torch.randn(x.shape[1], num_classes, generator=draws, dtype=torch.float64)
        for _ in range(num_classes)
    ]
    observed = []
    for i, clean in enumerate(labels.tolist()):
        scores = x[i] @ projections[clean]
        scores[clean] = -math.inf
        probabilities = scores.softmax(dim=0)
        if lots[0, i] >= q[i]:
            observed.append(clean)
            continue
        below = torch.cumsum(probabilities, 0) <= lots[2, i]
        observed.append(int(below.sum()))
    return torch.tensor(observed)


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_labels_are_those_of_the_recipe(rate):
    data = photographs(400)
    observed = InstanceNoise(5, rate)(data.labels, data, generator=generator(3))
    expected = recipe(data.images, data.labels, 5, rate, generator(3))
    assert torch.equal(observed, expected)
    assert bool((observed != data.labels).any())


def test_where_wrong_labels_go_depends_on_the_image():
    # Images of a class that are equal go the same way; with W alone they would be spread.
    pattern = torch.randint(256, (2, 3, 8, 8), generator=generator(1), dtype=torch.uint8)
    data = ImageArrays(pattern.repeat(300, 1, 1, 1), torch.zeros(600, dtype=torch.int64))
    observed = InstanceNoise(6, 0.5)(data.labels, data, generator=generator(0))
    for first in (0, 1):
        wrong = observed[first::2]
        wrong = wrong[wrong != 0]
        assert len(wrong) > 100
        assert int(wrong.bincount().max()) / len(wrong) > 0.9


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.95])
def test_the_expected_rate_is_the_truncated_normals_mean(rate):
    mean = truncnorm.mean(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
    assert expected_instance_rate(rate) == pytest.approx(mean, abs=1e-12)
    data = photographs(20_000, shape=(1, 2, 2))
    observed = InstanceNoise(5, rate)(data.labels, data, generator=generator(0))
    deviation = math.sqrt(mean * (1 - mean) / len(data))
    assert noise_rate(observed, data.labels) == pytest.approx(mean, abs=4 * deviation)


def test_the_documented_rates():
    shown = {0.0: 0.0, 0.05: 0.101, 0.1: 0.129, 0.2: 0.206, 0.4: 0.4}
    assert {rate: round(expected_instance_rate(rate), 3) for rate in shown} == shown


def test_labels_do_not_depend_on_chunks_or_threads(monkeypatch):
    data = photographs(200, shape=(3, 34, 20))
    noise = InstanceNoise(5, 0.4)
    first = noise(data.labels, data, generator=generator(0))
    monkeypatch.setattr(thumbnails_module, "_CHUNK", 17)
    try:
        torch.set_num_threads(2)
        assert torch.equal(noise(data.labels, data, generator=generator(0)), first)
    finally:
        torch.set_num_threads(1)


def test_large_images_are_averaged_down():
    small = photographs(60, shape=(1, 32, 32))
    large = ImageArrays(
        small.images.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3), small.labels
    )
    noise = InstanceNoise(5, 0.5)
    assert torch.equal(
        noise(small.labels, small, generator=generator(0)),
        noise(large.labels, large, generator=generator(0)),
    )


def test_a_constant_channel_is_no_division_by_zero():
    images = torch.from_numpy(np.full((50, 2, 4, 4), 77, dtype=np.uint8))
    images[:, 1] = photographs(50, shape=(1, 4, 4)).images[:, 0]
    data = ImageArrays(torch.cat([images, images[:, :1]], dim=1), torch.arange(50) % 2)
    observed = InstanceNoise(2, 0.5)(data.labels, data, generator=generator(0))
    assert 0.2 < noise_rate(observed, data.labels) < 0.8


def test_bad_requests_are_refused():
    data = photographs(10)
    noise = InstanceNoise(5, 0.2)
    with pytest.raises(ValueError, match="looks at the images, and was given none"):
        noise(data.labels, generator=generator(0))
    with pytest.raises(ValueError, match="10 images and 9 labels"):
        noise(data.labels[:9], data, generator=generator(0))
    with pytest.raises(ValueError, match="knows classes 0 to 2"):
        InstanceNoise(3, 0.2)(data.labels, data, generator=generator(0))
    with pytest.raises(ValueError, match="below 1, got 1"):
        InstanceNoise(3, 1)
