"""Any torchvision classifier, unmodified, by its name."""

from __future__ import annotations

from difflib import get_close_matches

from torch import nn

from mln_lightning.networks.head import find_head, head_of


def torchvision_classifier(
    name: str, num_classes: int, weights: str | None = None, image_size: int | None = None
) -> nn.Module:
    """A network of ``torchvision.models`` with a new head for ``num_classes`` classes.

    Args:
        name: as in ``torchvision.models.list_models()``, for example ``resnet18``.
        num_classes: C, at least 2.
        weights: None for a random start, or the name of published weights such as ``DEFAULT``;
            these are downloaded unless torch's cache has them, and all but the head is kept.
        image_size: height and width, for the networks that must know it (vision transformers);
            None for their default, 224 or more.

    Raises:
        ValueError: an unknown network or weights name, a network that is not a classifier, too few
            classes, or (with weights) a head that cannot be found.
    """
    if num_classes < 2:
        raise ValueError(f"torchvision_classifier needs num_classes >= 2, got {num_classes}.")
    # Imported here: torchvision is slow to load and most runs do without it.
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        near = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {len(names)} names."
        raise ValueError(f"torchvision has no classifier named {name!r}; {hint}")
    size = {} if image_size is None else {"image_size": image_size}
    if weights is None:
        network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **size)
        return network
    if weights != "DEFAULT" and weights not in models.get_model_weights(name).__members__:
        known = ", ".join(models.get_model_weights(name).__members__)
        raise ValueError(f"{name} has no weights named {weights!r}; there are {known} and DEFAULT.")
    network = models.get_model(name, weights=weights, **size)
    replace_head(network, num_classes)
    return network


def replace_head(network: nn.Module, num_classes: int) -> None:
    """Put a fresh linear layer with ``num_classes`` outputs in place of the network's head.

    Raises:
        ValueError: the network has no linear layer.
    """
    path = find_head(network)
    head = head_of(network, path)
    parent, _, leaf = path.rpartition(".")
    fresh = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    network.get_submodule(parent).register_module(leaf, fresh)
