"""CIFAR-10N and CIFAR-100N: small files in the published format, and the real ones."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mln_lightning.noise import HumanLabels
from mln_lightning.unpickle import load_arrays

CLEAN = np.array([0, 1, 2, 0, 1, 2])
SETS_10 = {
    "clean_label": CLEAN,
    "aggre_label": np.array([0, 1, 2, 0, 1, 0]),
    "worse_label": np.array([1, 2, 0, 0, 1, 0]),
    "random_label1": np.array([0, 1, 2, 0, 0, 0]),
    "random_label2": np.array([0, 1, 2, 1, 1, 0]),
    "random_label3": np.array([0, 1, 0, 0, 1, 0]),
}
SETS_100 = {  # as published, the coarse labels are lists
    "clean_label": CLEAN,
    "noisy_label": np.array([2, 1, 2, 0, 1, 0]),
    "clean_coarse_label": [0, 0, 1, 0, 0, 1],
    "noisy_coarse_label": [1, 0, 1, 0, 0, 0],
}


def write(path, content, name="archive"):
    """What torch.save writes for numpy arrays: a pickle in a zip archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr(f"{name}/version", "3\n")
    return path


def observed(noise, clean=CLEAN):
    labels = torch.from_numpy(np.asarray(clean))
    draws = torch.Generator().manual_seed(0)
    before = draws.get_state()
    found = noise(labels, generator=draws)
    assert torch.equal(draws.get_state(), before)  # nothing is drawn
    assert found.dtype == torch.int64
    return found.tolist()


@pytest.fixture
def cifar10n(tmp_path):
    return write(tmp_path / "CIFAR-10_human.pt", SETS_10)


@pytest.fixture
def cifar100n(tmp_path):
    return write(tmp_path / "CIFAR-100_human.pt", SETS_100, "CIFAR-100_human")


@pytest.mark.parametrize(
    ("label_set", "key"),
    [
        ("aggre", "aggre_label"),
        ("rand1", "random_label1"),
        ("rand2", "random_label2"),
        ("rand3", "random_label3"),
        ("worst", "worse_label"),
        (None, "worse_label"),
    ],
)
def test_label_sets_of_cifar10n(cifar10n, label_set, key):
    assert observed(HumanLabels(cifar10n, label_set)) == SETS_10[key].tolist()


@pytest.mark.parametrize("label_set", ["fine", None])
def test_fine_labels_of_cifar100n(cifar100n, label_set):
    assert observed(HumanLabels(cifar100n, label_set)) == [2, 1, 2, 0, 1, 0]


def test_torch_writes_such_files(tmp_path):
    torch.save(SETS_10, tmp_path / "saved.pt")
    assert observed(HumanLabels(tmp_path / "saved.pt")) == SETS_10["worse_label"].tolist()


def test_unknown_label_set(cifar10n):
    with pytest.raises(ValueError, match="one of aggre, rand1, rand2, rand3, worst, fine, got 'x'"):
        HumanLabels(cifar10n, "x")


def test_the_label_set_of_the_other_file(cifar10n, cifar100n):
    with pytest.raises(ValueError, match=r"CIFAR-100_human.pt has no labels worst; it has fine\."):
        observed(HumanLabels(cifar100n, "worst"))
    with pytest.raises(
        ValueError, match="has no labels fine; it has aggre, rand1, rand2, rand3, w"
    ):
        observed(HumanLabels(cifar10n, "fine"))


def test_labels_of_other_images(cifar10n):
    with pytest.raises(ValueError, match="labels 6 images, the training set has 4"):
        observed(HumanLabels(cifar10n), CLEAN[:4])
    with pytest.raises(
        ValueError, match=r"differ from those of the .* at 4 of 6 places, first at r"
    ):
        observed(HumanLabels(cifar10n), [0, 2, 1, 0, 2, 1])


def test_missing_file(tmp_path):
    noise = HumanLabels(tmp_path / "CIFAR-10_human.pt")
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10_human.pt\. Get .* CIFAR-10N project"):
        observed(noise)


class Danger:
    """Pickles to a call of ``os.mkdir``."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_of_a_file_is_run(tmp_path):
    path = write(tmp_path / "x.pt", SETS_10 | {"extra": Danger(tmp_path / "owned")})
    with pytest.raises(ValueError, match="mkdir, which is no plain data"):
        observed(HumanLabels(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "os\nsystem", "numpy\nload", "numpy\nndarray.dump", "torch\nload"],
)
@pytest.mark.parametrize("protocol", [0, 4])
def test_names_that_are_refused(name, protocol):
    module, attribute = name.split("\n")
    if protocol == 0:
        content = f"c{module}\n{attribute}\n.".encode()
    else:
        strings = b"".join(bytes([0x8C, len(s)]) + s.encode() for s in (module, attribute))
        content = b"\x80\x04" + strings + b"\x93."  # STACK_GLOBAL, which may follow dots
    with pytest.raises(pickle.UnpicklingError, match="no plain data"):
        load_arrays(io.BytesIO(content))


@given(
    st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=5),
    st.sampled_from(["<i8", "<u4", "<f4"]),
)
@settings(max_examples=20, deadline=None)
def test_arrays_come_back(values, dtype):
    array = np.array(values).astype(dtype)
    for protocol in (2, 5):
        again = load_arrays(io.BytesIO(pickle.dumps({"a": array}, protocol=protocol)))["a"]
        assert again.dtype == array.dtype
        assert np.array_equal(again, array, equal_nan=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"\(0 bytes\) is not the published file: File is not a zip file"),
        (b"<html>", "File is not a zip file"),
        ({"x/other": b""}, "it holds no data.pkl"),
        ({"x/data.pkl": b""}, "is not the published file"),
        ({"x/data.pkl": pickle.dumps([1])}, "holds a list, not named labels"),
        ({"x/data.pkl": pickle.dumps({})}, "has no labels that we know; it has none"),
        ({"x/data.pkl": pickle.dumps({"noisy_label": CLEAN})}, "clean_label is no list of classes"),
        ({"x/data.pkl": pickle.dumps(SETS_10 | {"worse_label": CLEAN / 2})}, "worse_label is no l"),
        ({"x/data.pkl": pickle.dumps(SETS_10 | {"worse_label": CLEAN[1:]})}, "a label is missing"),
        ({"x/data.pkl": pickle.dumps(SETS_10 | {"worse_label": CLEAN + 1})}, "or no class"),
        ({"x/data.pkl": pickle.dumps(SETS_10 | {"worse_label": CLEAN - 1})}, "or no class"),
    ],
)
def test_damaged_file(tmp_path, content, reason):
    path = tmp_path / "CIFAR-10_human.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    with pytest.raises(ValueError, match=f"CIFAR-10_human.pt .*{reason}"):
        observed(HumanLabels(path))


def test_a_file_cut_off(cifar10n):
    whole = cifar10n.read_bytes()
    for size in (len(whole) // 2, len(whole) - 1):
        cifar10n.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not the published file"):
            observed(HumanLabels(cifar10n))


def test_tensors_in_the_file(tmp_path):
    torch.save({"clean_label": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="not the published file"):
        observed(HumanLabels(tmp_path / "x.pt"))


# The real files.

DATA = Path(os.environ.get("MLN_DATA_DIR", "nowhere"))


def real(name):
    path = DATA / "cifar-n" / name
    if not path.is_file():
        pytest.skip(f"no {name} under MLN_DATA_DIR")
    # Independently of the class: torch's own reader, told to trust the file.
    return path, torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    ("name", "label_set", "key", "rate"),
    [
        ("CIFAR-10_human.pt", "aggre", "aggre_label", 0.0901),
        ("CIFAR-10_human.pt", "rand1", "random_label1", 0.17234),
        ("CIFAR-10_human.pt", "rand2", "random_label2", 0.18122),
        ("CIFAR-10_human.pt", "rand3", "random_label3", 0.1764),
        ("CIFAR-10_human.pt", "worst", "worse_label", 0.40208),
        ("CIFAR-100_human.pt", "fine", "noisy_label", 0.402),
    ],
)
def test_real_files(name, label_set, key, rate):
    path, sets = real(name)
    clean = sets["clean_label"]
    found = np.array(observed(HumanLabels(path, label_set), clean))
    assert np.array_equal(found, sets[key])
    assert np.mean(found != clean) == pytest.approx(rate, abs=1e-9)


def test_rate_of_the_coarse_labels():
    """They are for CIFAR-100 with 20 classes, which is not offered."""
    _, sets = real("CIFAR-100_human.pt")
    wrong = np.mean(np.array(sets["noisy_coarse_label"]) != np.array(sets["clean_coarse_label"]))
    assert wrong == pytest.approx(0.26404, abs=1e-9)


def test_a_file_for_the_other_data_set():
    path, _ = real("CIFAR-100_human.pt")
    _, sets = real("CIFAR-10_human.pt")
    with pytest.raises(ValueError, match=r"about other images: .* at 495\d\d of 50000 places"):
        observed(HumanLabels(path), sets["clean_label"])


@pytest.mark.slow
def test_the_real_clean_labels_are_those_of_cifar10(cifar10_labels):
    path, _ = real("CIFAR-10_human.pt")
    clean = cifar10_labels.numpy()
    assert len(clean) == 50000
    wrong = np.mean(np.array(observed(HumanLabels(path), clean)) != clean)
    assert wrong == pytest.approx(0.40208, abs=1e-9)
