import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from mln_lightning.networks import (
    CNN6,
    PreActResNet18,
    SmallCNN,
    features,
    find_head,
    torchvision_classifier,
)

CIFAR = (3, 32, 32)


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 9, 11)])
@pytest.mark.parametrize(("network", "dim"), [(SmallCNN, 128), (CNN6, 256), (PreActResNet18, 512)])
def test_every_shape_gives_logits_and_features(network, dim, shape):
    net = network(shape, 7)
    images = torch.rand(2, *shape)
    assert net(images).shape == (2, 7)
    assert features(net.eval(), find_head(net), images).shape == (2, dim)


def test_parameter_counts():
    # Six 3×3 convolutions with bias and batch-norm, two linear layers: the published count.
    assert count(CNN6(CIFAR, 10)) == 1_639_794
    # Stem, 8 blocks of two 3×3 convolutions, 3 projections, norms, head; by hand:
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = sum(9 * i * o + 9 * o * o + 2 * i + 2 * o for i, o in pairwise(widths))
    shortcuts = 64 * 128 + 128 * 256 + 256 * 512
    assert count(PreActResNet18(CIFAR, 10)) == 27 * 64 + blocks + shortcuts + 5130
    convolutions = 9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (32 + 32 + 64 + 64)
    assert count(SmallCNN((1, 8, 8), 10)) == convolutions + 256 * 128 + 256 + 1290
    half = 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32) + 2 * (16 + 16 + 32 + 32)
    assert count(SmallCNN((1, 8, 8), 10, width=16)) == half + 128 * 64 + 128 + 650


def test_cnn6_starts_kaiming_normal_over_outputs():
    torch.manual_seed(0)
    weight = next(m for m in CNN6(CIFAR, 10).modules() if isinstance(m, nn.Conv2d)).weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_preact_blocks_are_the_identity_plus_a_residual():
    torch.manual_seed(0)
    net = PreActResNet18(CIFAR, 10, width=4).eval()
    block = net.blocks[1]
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(maps), maps)
    images = torch.randn(2, *CIFAR)
    stem = net.stem(images)
    norm, conv, relu = torch.nn.functional.batch_norm, torch.nn.functional.conv2d, torch.relu
    first = net.blocks[0]

    def normed(x, layer):
        return norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    inner = conv(relu(normed(stem, first.norm1)), first.conv1.weight, padding=1)
    expected = stem + conv(relu(normed(inner, first.norm2)), first.conv2.weight, padding=1)
    torch.testing.assert_close(first(stem), expected)


@pytest.mark.parametrize("network", [SmallCNN, CNN6, PreActResNet18])
def test_sizes_out_of_range_are_refused(network):
    with pytest.raises(ValueError, match=r"got \(3, 2, 32\)"):
        network((3, 2, 32), 10)
    with pytest.raises(ValueError, match="num_classes >= 2, got 1"):
        network(CIFAR, 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchvision_networks_by_name(name):
    net = torchvision_classifier(name, 7).eval()
    images = torch.rand(2, 3, 64, 64)
    logits = net(images)
    assert logits.shape == (2, 7)
    head = find_head(net)
    seen = features(net, head, images)
    torch.testing.assert_close(net.get_submodule(head)(seen), logits)


def test_a_vision_transformer_takes_its_image_size():
    net = torchvision_classifier("vit_b_32", 3, image_size=32)
    assert net.eval()(torch.rand(1, *CIFAR)).shape == (1, 3)


def test_published_weights_keep_all_but_the_head(monkeypatch):
    from torchvision import models

    torch.manual_seed(0)
    source = models.get_model("resnet18", weights=None)
    asked = []

    def get_model(name, weights=None, **options):
        asked.append((name, weights))
        return copy.deepcopy(source)

    monkeypatch.setattr(models, "get_model", get_model)
    net = torchvision_classifier("resnet18", 7, weights="IMAGENET1K_V1")
    assert asked == [("resnet18", "IMAGENET1K_V1")]
    assert net.fc.weight.shape == (7, 512)
    assert torch.equal(net.conv1.weight, source.conv1.weight)
    with pytest.raises(ValueError, match="resnet18 has no weights named 'V3'; there are IMAGENET1"):
        torchvision_classifier("resnet18", 7, weights="V3")


def test_unknown_names_get_the_near_match():
    with pytest.raises(ValueError, match=r"no classifier named 'resnet_18'; did you mean resnet18"):
        torchvision_classifier("resnet_18", 10)
    with pytest.raises(ValueError, match=r"no classifier named 'zzz'; there are \d+ names"):
        torchvision_classifier("zzz", 10)
    with pytest.raises(ValueError, match="needs num_classes >= 2, got 0"):
        torchvision_classifier("resnet18", 0)
