import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mln_lightning.datasets.files import require_files, require_folders
from mln_lightning.datasets.lists import known_labels, labels_of, read_keys, read_labels

NAMES = st.text(string.ascii_letters + " ,./_-é", min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(NAMES, st.integers(0, 13), min_size=1), st.sampled_from([" ", "\t"]))
@settings(max_examples=30, deadline=None)
def test_labels_come_back_in_order(labels, separator):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kv.txt"
        path.write_text("".join(f"{key}{separator}{n}\n" for key, n in labels.items()))
        assert list(read_labels(path, 14, separator=separator).items()) == list(labels.items())
        keys = Path(folder) / "keys.txt"
        keys.write_text("\n".join(labels))
        assert list(read_keys(keys).items()) == [(key, n) for n, key in enumerate(labels, 1)]
        found = labels_of(read_keys(keys), labels, keys_path=keys, labels_path=path)
        assert found.tolist() == list(labels.values())


def test_empty_lines_windows_line_ends_and_byte_order_marks(tmp_path):
    path = tmp_path / "kv.txt"
    path.write_bytes(b"\xef\xbb\xbfa.jpg 1\r\n\r\nb c.jpg 0\r\n\r\n")
    assert read_labels(path, 2) == {"a.jpg": 1, "b c.jpg": 0}
    path.write_bytes(b"\xef\xbb\xbfclass_name\r\nx/a.jpg\r\n\r\nx/b.jpg\r\nx/a.jpg")
    assert read_keys(path, header="class_name") == {"x/a.jpg": 2, "x/b.jpg": 4}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.jpg", "expected a path, a space and a label from 0 to 13"),
        ("a.jpg 14", "a label from 0 to 13"),
        ("a.jpg -1", "a label from 0 to 13"),
        ("a.jpg 1.0", "a label from 0 to 13"),
        ("a.jpg\t3", "a space"),
        ("3", "a path"),
        ("ok.jpg 4", "expected the label 3 of an earlier line"),
        ("x" * 100, r"x{80}…'"),
    ],
)
def test_malformed_label_line(tmp_path, line, reason):
    path = tmp_path / "kv.txt"
    path.write_text(f"ok.jpg 3\n\nok.jpg 3\n{line}\n")
    with pytest.raises(ValueError, match=rf"kv.txt, line 4: '.*{reason}"):
        read_labels(path, 14)


def test_header(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_text("x/a.jpg\n")
    with pytest.raises(ValueError, match=r"list.tsv, line 1: 'x/a.jpg', expected the header"):
        read_keys(path, header="class_name")


@pytest.mark.parametrize(("content", "reason"), [(b"\n \n", "no image"), (b"\xff\xfe", "no text")])
def test_unusable_file(tmp_path, content, reason):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"list.txt .*{reason}"):
        read_keys(path)


def test_image_without_label(tmp_path):
    keys = {"a": 1, "b": 3}
    with pytest.raises(ValueError, match=r"list.txt, line 3: 'b', .* has a label in kv.txt"):
        labels_of(keys, {"a": 0}, keys_path=tmp_path / "list.txt", labels_path=tmp_path / "kv.txt")
    assert known_labels(keys, {"a": 0}).tolist() == [0, -1]


def test_all_that_is_missing_is_named(tmp_path):
    (tmp_path / "b").touch()
    (tmp_path / "d").mkdir()
    a, b, c, d = (tmp_path / name for name in "abcd")
    require_files(b, name="Set", advice="Get it")
    require_folders(d, name="Set", advice="Get it")
    with pytest.raises(FileNotFoundError) as error:
        require_files(a, b, c, d, name="Set", advice="Get it")
    assert str(error.value) == f"Set is not complete: {a}, {c} and {d} are missing. Get it."
    with pytest.raises(FileNotFoundError) as error:
        require_folders(b, d, name="Set", advice="Get it")
    assert str(error.value) == f"Set is not complete: {b} is missing. Get it."
    many = [tmp_path / f"x{number}" for number in range(101)]
    with pytest.raises(FileNotFoundError, match="x9 and 91 more are missing"):
        require_folders(*many, name="Set", advice="Get it")
