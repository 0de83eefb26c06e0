"""The label generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mln_lightning.labels import LabelGenerator


def test_log_probabilities_of_a_linear_layer() -> None:
    generator, features = LabelGenerator(7, 3), torch.randn(5, 7)
    expected = (features @ generator.linear.weight.T + generator.linear.bias).softmax(dim=1)
    torch.testing.assert_close(generator(features).exp(), expected)
    assert sum(p.numel() for p in generator.parameters()) == 7 * 3 + 3


def test_start_from_copies_the_head() -> None:
    generator, head = LabelGenerator(7, 3), nn.Linear(7, 3)
    generator.start_from(head)
    features = torch.randn(5, 7)
    torch.testing.assert_close(generator(features), head(features).log_softmax(dim=1))
    with torch.no_grad():
        head.weight.zero_()
    assert generator.linear.weight.abs().sum() > 0, "a copy, not the same tensor"


def test_start_from_a_head_without_bias() -> None:
    generator, head = LabelGenerator(7, 3), nn.Linear(7, 3, bias=False)
    generator.start_from(head)
    assert torch.equal(generator.linear.bias, torch.zeros(3))


def test_a_head_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="maps 7 features to 4 classes"):
        LabelGenerator(7, 3).start_from(nn.Linear(7, 4))


@pytest.mark.parametrize(("feature_dim", "num_classes"), [(0, 3), (7, 1)])
def test_impossible_sizes_are_refused(feature_dim: int, num_classes: int) -> None:
    with pytest.raises(ValueError, match="feature_dim >= 1 and num_classes >= 2"):
        LabelGenerator(feature_dim, num_classes)
