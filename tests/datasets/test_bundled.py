import numpy as np
import torch
from sklearn.datasets import load_digits

from mln_lightning.datasets import blobs, digits


def test_digits_are_those_of_scikit_learn():
    splits = digits()
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    bunch = load_digits()

    def keyed(images, labels):
        return sorted(
            (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
        )

    images = torch.cat([splits.train.images, splits.test.images])[:, 0].numpy()
    labels = torch.cat([splits.train.labels, splits.test.labels])
    assert images.max() == 255
    grey = np.rint(images.astype(np.float64) * 16 / 255).astype(np.uint8)
    assert keyed(grey, labels) == keyed(bunch.images.astype(np.uint8), bunch.target)


def test_digits_test_set_is_fixed_and_stratified():
    first, second = digits(), digits()
    assert torch.equal(first.test.images, second.test.images)
    fair = torch.from_numpy(load_digits().target).bincount() * 360 / 1797
    assert bool(((first.test.labels.bincount() - fair).abs() < 1).all())


def test_blobs():
    splits = blobs()
    assert splits.train.labels.bincount().tolist() == [100] * 4
    assert splits.train.images.shape == (400, 1, 8, 8)
    assert torch.equal(splits.train.images, blobs().train.images)
    assert not torch.equal(splits.train.images, blobs(seed=1).train.images)
    # Learnable: the nearest class mean of the training set finds the class.
    means = torch.stack(
        [splits.train.images[splits.train.labels == c].float().mean(0) for c in range(4)]
    )
    distance = torch.cdist(splits.test.images.flatten(1).float(), means.flatten(1))
    assert (distance.argmin(1) == splits.test.labels).double().mean() > 0.95
