from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("MLN_DATA_DIR", "nowhere"))
    if not folder.is_dir():
        pytest.skip("MLN_DATA_DIR names no folder of real data")
    return folder


@pytest.fixture(scope="session")
def cifar10_labels(real_cifar10: Path) -> Tensor:
    """The 50,000 training labels."""
    from mln_lightning.datasets import cifar10

    return cifar10(data_dir=real_cifar10, verify=False).train.labels


@pytest.fixture(autouse=True)
def _global_random_state_is_left_alone():
    """No noise reads or changes it: every test of this folder is a test of that, too."""
    import random

    import numpy as np

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), torch.get_rng_state()
    numpy_before = np.random.get_state()  # noqa: NPY002
    yield
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    numpy_after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, numpy_after, strict=True))
