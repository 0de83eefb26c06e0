import numpy as np
import pytest
import torch

from mln_lightning.noise import (
    ClassConditionalNoise,
    NoiseRecord,
    RecordedLabels,
    symmetric,
)
from mln_lightning.seeding import generator

CLEAN = torch.arange(12) % 3
OBSERVED = ClassConditionalNoise(symmetric(3, 0.4))(CLEAN, generator=generator(0))


def labels_from(path, clean=CLEAN, **options):
    return RecordedLabels(path, 3, **options)(clean, generator=generator(0))


def record(path, **changes):
    fields = {"observed": OBSERVED, "clean": CLEAN, "index": torch.tensor([1, 5])}
    NoiseRecord(**(fields | changes), data_seed=0, rate_asked=0.4, rate_measured=0.4).save(path)
    return path


def table(path, header, rows):
    lines = [",".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def test_every_kind_of_file(tmp_path):
    values = OBSERVED.numpy()
    np.save(tmp_path / "a.npy", values.astype(np.int32))
    np.savez(tmp_path / "b.npz", labels=values)
    np.savez(tmp_path / "c.npz", observed=values, clean=CLEAN.numpy())
    rows = list(enumerate(values.tolist()))
    table(tmp_path / "d.csv", ["observed_label"], [row[1:] for row in rows])
    table(tmp_path / "e.csv", ["index", "observed_label"], rows[::-1])
    table(tmp_path / "f.csv", ["sample", "name", "observed_label"], [(i, "x", o) for i, o in rows])
    files = sorted(tmp_path.iterdir())
    for path in (*files, record(tmp_path / "noise.npz")):
        assert torch.equal(labels_from(path), OBSERVED), path
    assert len(files) == 6


def test_a_named_column(tmp_path):
    rows = [(i, 0, c) for i, c in enumerate(CLEAN.tolist())]
    path = table(tmp_path / "l.csv", ["sample", "observed_label", "corrected_label"], rows)
    assert torch.equal(labels_from(path, column="corrected_label"), CLEAN)
    np.savez(tmp_path / "l.npz", labels=CLEAN.numpy(), mine=OBSERVED.numpy())
    assert torch.equal(labels_from(tmp_path / "l.npz", column="mine"), OBSERVED)


def test_unlabelled_images_and_unknown_classes(tmp_path):
    hidden = OBSERVED.clone()
    hidden[3] = -1
    unknown = CLEAN.clone()
    unknown[4] = -1
    path = record(tmp_path / "noise.npz", observed=hidden, clean=unknown)
    assert torch.equal(labels_from(path), hidden)
    path = table(tmp_path / "l.csv", ["sample", "observed_label"], [(2, 1), (7, 0)])
    with pytest.raises(ValueError, match=r"labels 2 of the 12 training images, .* is row 0"):
        labels_from(path)
    partly = labels_from(path, missing="unlabelled")
    assert {i: v for i, v in enumerate(partly.tolist()) if v != -1} == {2: 1, 7: 0}


def test_a_table_may_name_classes_and_leave_labels_out(tmp_path):
    # Names go before numbers: here class 0 is called 2.
    names = ("2", "cat", "-")
    rows = [(0, "cat"), (3, "2"), (5, ""), (7, "-"), (8, 1)]
    path = table(tmp_path / "l.csv", ["sample", "observed_label"], rows)
    found = labels_from(path, classes=names, missing="unlabelled").tolist()
    assert [found[row] for row, _ in rows] == [1, 0, -1, 2, 1]
    assert found.count(-1) == 12 - 4


def test_a_file_of_other_data_is_refused(tmp_path):
    path = record(tmp_path / "noise.npz")
    with pytest.raises(ValueError, match="differ from the data set's in 2 of 12 rows, first in"):
        labels_from(path, CLEAN[[0, 2, 1, *range(3, 12)]])
    with pytest.raises(ValueError, match="holds 12 labels, the training set has 11 images"):
        labels_from(path, CLEAN[:11])
    rows = list(zip(range(12), OBSERVED.tolist(), CLEAN.tolist(), strict=True))[::-1]
    path = table(tmp_path / "l.csv", ["index", "observed_label", "clean_label"], rows)
    assert torch.equal(labels_from(path), OBSERVED)
    with pytest.raises(ValueError, match="other data, or another order"):
        labels_from(path, CLEAN.flip(0))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 1), (12, 1)], "index .* runs from 0 to 12, the training set has rows 0 to 11"),
        ([(-1, 1), (3, 1)], "runs from -1 to 3"),
        ([(3, 1), (5, 0), (3, 0)], "names row 3 2 times"),
        ([(0, 1), (1, "two")], "line 3: observed_label must be a class .* '1,two'"),
        ([(0, 1), ("", 1)], "line 3: index must be a whole number"),
        ([(0, 1), (1,)], "line 3: observed_label"),
        ([(0, 1), (1, 3)], "run from 1 to 3; the data set's classes are 0 to 2"),
        ([(0, -2)], "run from -2"),
    ],
)
def test_bad_tables_are_refused(tmp_path, rows, message):
    path = table(tmp_path / "l.csv", ["index", "observed_label"], rows)
    with pytest.raises(ValueError, match=message):
        labels_from(path, missing="unlabelled")


def test_bad_files_are_refused(tmp_path):
    def refused(name, message, **options):
        with pytest.raises(ValueError, match=message):
            labels_from(tmp_path / name, **options)

    with pytest.raises(ValueError, match=r"Say which file .* noise\.file=<file>"):
        RecordedLabels(None, 3)
    with pytest.raises(FileNotFoundError, match="recorded labels does not exist"):
        labels_from(tmp_path / "nowhere.npy")
    with pytest.raises(ValueError, match="must be error or unlabelled, got 'drop'"):
        RecordedLabels(None, 3, missing="drop")
    (tmp_path / "a.txt").write_text("1")
    refused("a.txt", r"must be \.npz, \.npy or \.csv")
    (tmp_path / "a.csv").write_text("")
    refused("a.csv", "no labels named observed or .*, only nothing")
    table(tmp_path / "b.csv", ["path", "label"], [])
    refused("b.csv", r"only path, label; name them with noise\.column")
    (tmp_path / "c.csv").write_bytes(b"observed_label\n\xff\n")
    refused("c.csv", "line 2: observed_label must be a class")
    np.save(tmp_path / "d.npy", np.array([0.5, 1.0]))
    refused("d.npy", r"must be one whole number for each image, got float64 of shape \(2,\)")
    np.savez(tmp_path / "e.npz", observed=np.zeros(12, int), clean=np.zeros(11, int))
    refused("e.npz", "12 observed and 11 clean labels")
    np.savez(tmp_path / "f.npz", observed=np.array([print], dtype=object))
    refused("f.npz", r"cannot be read as \.npz")
    path = record(tmp_path / "g.npz")
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files}
    fields["observed"] = np.roll(fields["observed"], 1)
    np.savez(path, **fields)
    refused("g.npz", "damaged: its checksum")
