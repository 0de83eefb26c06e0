import os
import socket
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_deterministic():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Whatever tries to reach another machine fails at once, as it would on a machine alone."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise OSError(f"a test tried to connect to {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local)
        yield


@pytest.fixture(scope="session")
def real_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with the real CIFAR-10; unpacking it takes ten seconds."""
    data_dir = Path(os.environ.get("MLN_DATA_DIR", "nowhere"))
    if (data_dir / "cifar-10-batches-py").is_dir():
        return data_dir
    packed = data_dir / "cifar-10-batches-py.tar.xz"
    if not packed.is_file():
        pytest.skip("no CIFAR-10 under MLN_DATA_DIR")
    unpacked = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, filter="data")
    return unpacked


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs go: the working folder is a temporary one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.fixture
def mln(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> Callable[..., int]:
    """Call the command line in this process; returns its exit code."""
    from mln_lightning import run

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["mln", *arguments])
        try:
            run.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call
