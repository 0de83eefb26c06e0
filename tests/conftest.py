import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_deterministic():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
