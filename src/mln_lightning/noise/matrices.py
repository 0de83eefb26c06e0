"""Transition matrices ``T[i, j]`` = P(observed = j | clean = i): rows are clean classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mln_lightning.noise.checks import check_rate
from mln_lightning.noise.files import existing, read_array
from mln_lightning.seeding import generator

_RANDOM_MATRIX = 11  # its stream of the data seed, apart from those of noise and splits


def symmetric(num_classes: int, rate: float, include_own: bool = False) -> Tensor:
    """Every class turns into each *other* class with the same probability.

    The own class is excluded, so ``rate`` is the expected fraction of wrong labels. Papers that
    draw the new label among *all* classes mean less by the same number: with ``include_own`` the
    expected fraction of wrong labels is ``rate · (C - 1) / C``. Rate 0 is the identity.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.
        include_own: draw the new label among all classes, the own one included.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: an argument is out of range.
    """
    check_rate(num_classes, rate)
    each = rate / num_classes if include_own else rate / (num_classes - 1)
    matrix = torch.full((num_classes, num_classes), each, dtype=torch.float64)
    return matrix.fill_diagonal_(1 - each * (num_classes - 1))


def asymmetric(num_classes: int, rate: float, flips: Mapping[int, int] | None) -> Tensor:
    """Look-alike classes turn into each other; all other classes stay clean.

    The whole data set's noise is ``rate`` times the share of the classes that flip.

    Args:
        num_classes: C, at least 2.
        rate: probability that a sample of a flipping class flips, 0 ≤ rate < 1.
        flips: class → the class it turns into; keys and values may be digits in a string; None
            = the data set has no such map.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: the rate is out of range, the map is empty, a class flips to itself, or there
            are fewer classes than the map needs.
    """
    check_rate(num_classes, rate)
    pairs = {int(source): int(target) for source, target in (flips or {}).items()}
    if not pairs:
        raise ValueError(
            "Asymmetric noise needs a map from class to look-alike class, and this data set has "
            "none: fill in its flips, or use symmetric noise."
        )
    used = {*pairs, *pairs.values()}
    if max(used) >= num_classes or min(used) < 0:
        raise ValueError(
            f"The data set has fewer classes than the noise map needs: {num_classes} classes are "
            f"numbered 0 to {num_classes - 1}, the map names "
            f"{sorted(c for c in used if not 0 <= c < num_classes)}."
        )
    matrix = torch.eye(num_classes, dtype=torch.float64)
    for source, target in pairs.items():
        if source == target:
            raise ValueError(f"Class {source} flips to itself in the noise map; remove the entry.")
        matrix[source, source] = 1 - rate
        matrix[source, target] = rate
    return matrix


def pair(num_classes: int, rate: float) -> Tensor:
    """Every class turns into the next one, the last into the first.

    "Pair flipping" of Han et al., *Co-teaching*, NeurIPS 2018. From rate 0.5 on, the next class is
    more frequent than the own one.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: an argument is out of range.
    """
    check_rate(num_classes, rate)
    return asymmetric(num_classes, rate, {c: (c + 1) % num_classes for c in range(num_classes)})


def within_superclass(num_classes: int, rate: float, superclasses: Sequence[int] | None) -> Tensor:
    """Every class turns into each other class of its superclass with the same probability.

    A class that is alone in its superclass stays clean.

    Args:
        num_classes: C, at least 2.
        rate: 0 ≤ rate < 1.
        superclasses: C numbers, the superclass of each class; None = the data set has none.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: the rate is out of range, there is not one superclass for each class, or no
            two classes share one.
    """
    check_rate(num_classes, rate)
    if not superclasses:
        raise ValueError(
            "Noise within superclasses needs the superclass of each class, and this data set has "
            "none: fill in its superclasses, or use symmetric noise."
        )
    if len(superclasses) != num_classes:
        raise ValueError(
            f"Noise within superclasses needs one number for each of the {num_classes} classes, "
            f"got {len(superclasses)}."
        )
    families = torch.tensor([int(number) for number in superclasses])
    others = (families[:, None] == families).double().fill_diagonal_(0)
    sizes = others.sum(dim=1)
    if not bool(sizes.any()):
        raise ValueError("No two classes share a superclass, so no label can flip within one.")
    matrix = rate * others / sizes.clamp(min=1)[:, None]
    matrix.diagonal().copy_(torch.where(sizes > 0, 1 - rate, 1.0))
    return matrix


def random_transition(num_classes: int, rate: float, seed: int) -> Tensor:
    """A random matrix whose trace is ``C · (1 - rate)``.

    The noise rates of the classes are drawn uniformly and then scaled so that their mean is
    ``rate``: some classes are cleaner than others, and each rate stays within 0…1 for every mean.
    Where a wrong label goes is uniform over all distributions on the other classes (Dirichlet with
    parameter 1). On classes of equal size the fraction of wrong labels is ``rate``. At high rates a
    class may be more often seen as another than as itself.

    Args:
        num_classes: C, at least 2.
        rate: mean noise rate of the classes, 0 ≤ rate < 1.
        seed: of the matrix.

    Returns:
        ``(C, C)`` float64, rows sum to one.

    Raises:
        ValueError: an argument is out of range.
    """
    check_rate(num_classes, rate)
    draws = generator(seed, _RANDOM_MATRIX)
    uniform = torch.rand(num_classes, generator=draws, dtype=torch.float64)
    mean = uniform.mean()
    # Scaled towards the end that is nearer, so that no rate leaves 0…1.
    rates = (
        uniform * (rate / mean) if rate <= mean else 1 - (1 - uniform) * ((1 - rate) / (1 - mean))
    )
    # Exponential draws, divided by their sum, are Dirichlet(1); 1 - uniform is never 0.
    shares = -torch.log1p(
        -torch.rand(num_classes, num_classes, generator=draws, dtype=torch.float64)
    )
    shares.fill_diagonal_(0)
    matrix = rates[:, None] * shares / shares.sum(dim=1, keepdim=True)
    matrix.diagonal().copy_(1 - rates)
    return matrix


def read_transition(file: str | os.PathLike[str] | None, num_classes: int) -> Tensor:
    """A transition matrix from a file: rows are clean classes and sum to one.

    cleanlab's ``noise_matrix`` is the transpose of this: its *columns* are the clean classes.

    Args:
        file: ``.npy``, ``.csv`` (commas) or ``.txt`` (blanks), C rows of C numbers without header.
        num_classes: C.

    Returns:
        ``(C, C)`` float64; `ClassConditionalNoise` checks that its rows are distributions.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file is named, it cannot be read, or the matrix has another size.
    """
    what = "transition matrix"
    path = existing(file, what=what, key="noise.transition.file")
    array = read_array(path, what=what)
    if array.shape != (num_classes, num_classes):
        raise ValueError(
            f"The data set has {num_classes} classes and needs a {num_classes} by {num_classes} "
            f"transition matrix, {path} holds an array of shape {array.shape}."
        )
    return torch.from_numpy(array.astype("<f8"))
