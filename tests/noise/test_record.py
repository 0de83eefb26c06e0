import numpy as np
import pytest
import torch

from mln_lightning.noise import NoiseRecord, empirical_transition, noise_rate


def record(**changes):
    fields = {
        "observed": torch.tensor([1, 0, 2, 2]),
        "clean": torch.tensor([0, 0, 2, -1]),
        "index": torch.tensor([0, 2, 3]),
        "data_seed": 7,
        "rate_asked": 0.4,
        "rate_measured": 0.5,
    }
    return NoiseRecord(**(fields | changes))


@pytest.mark.parametrize("rate", [0.25, None])
def test_round_trip(tmp_path, rate):
    saved = record(rate_asked=rate, rate_measured=rate)
    saved.save(tmp_path / "noise.npz")
    loaded = NoiseRecord.load(tmp_path / "noise.npz")
    assert torch.equal(loaded.observed, saved.observed)
    assert torch.equal(loaded.clean, saved.clean)
    assert torch.equal(loaded.index, saved.index)
    assert (loaded.data_seed, loaded.rate_asked, loaded.rate_measured) == (7, rate, rate)
    assert loaded.sha256 == saved.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["noise.npz"]


def test_plain_numpy_reads_the_file(tmp_path):
    record().save(tmp_path / "noise.npz")
    with np.load(tmp_path / "noise.npz") as file:
        assert file["observed"].tolist() == [1, 0, 2, 2]
        assert str(file["sha256"]) == record().sha256


@pytest.mark.parametrize(
    "change",
    [
        {"observed": torch.tensor([1, 0, 2, 1])},
        {"clean": torch.tensor([0, 0, 2, 1])},
        {"index": torch.tensor([0, 2])},
        {"data_seed": 8},
        {"rate_asked": 0.41},
        {"rate_measured": None},
    ],
)
def test_every_field_is_in_the_checksum(tmp_path, change):
    assert record(**change).sha256 != record().sha256
    path = tmp_path / "noise.npz"
    record(**change).save(path)
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files}
    np.savez(path, **(fields | {"sha256": np.array(record().sha256)}))
    with pytest.raises(ValueError, match="damaged: its checksum"):
        NoiseRecord.load(path)


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "noise.npz"
    with pytest.raises(FileNotFoundError, match="no noise record"):
        NoiseRecord.load(path)
    record().save(path)
    whole = path.read_bytes()
    for content in (b"", b"no zip file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or is not a noise record"):
            NoiseRecord.load(path)
    np.savez(path, observed=np.arange(3))
    with pytest.raises(ValueError, match="not a noise record"):
        NoiseRecord.load(path)


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "noise.npz"
    record().save(path)

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        record(data_seed=8).save(path)
    assert NoiseRecord.load(path).data_seed == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["noise.npz"]


def test_unknown_classes_are_left_out_of_the_measurement():
    observed = torch.tensor([1, 0, 2, 2, 1])
    clean = torch.tensor([0, 0, 2, -1, -1])
    assert noise_rate(observed, clean) == pytest.approx(1 / 3)
    expected = [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]
    torch.testing.assert_close(
        empirical_transition(observed, clean, 3), torch.tensor(expected, dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="no labelled image's class is known"):
        noise_rate(observed, torch.full((5,), -1))
    with pytest.raises(ValueError, match="pair up, got 5 and 3"):
        noise_rate(observed, clean[:3])
