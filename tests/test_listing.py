"""Lists of a user's own images: what is found, and the sentences where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mln_lightning.data.decode import decode
from mln_lightning.data.image_format import ImageFormat
from mln_lightning.listing import Classes, Labels, list_folder, list_table
from mln_lightning.listing.classes import nearest
from mln_lightning.listing.columns import read_columns
from mln_lightning.listing.parts import true_class
from mln_lightning.listing.tree import tree


def files(root: Path, *paths: str) -> Path:
    """Empty files: a listing opens no image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two cats and three dogs; their paths in order are cat/1, cat/2, dog/1, dog/2, dog/old/3."""
    dogs = ("dog/1.png", "dog/2.JPG", "dog/old/3.jpeg")
    return files(tmp_path / "pets", "cat/1.jpg", "cat/2.jpg", *dogs)


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def said(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The one sentence of an error."""
    text = str(error.value)
    assert "\n" not in text
    assert text[-1] in ".:"
    return text


# Classes


@given(st.sets(st.integers(0, 10**12), min_size=2).map(lambda found: {str(n) for n in found}))
def test_whole_numbers_are_in_order_of_their_values(names: set[str]) -> None:
    assert [int(name) for name in Classes.of(names).names] == sorted(map(int, names))


@given(st.sets(st.text("abc10Ää-", min_size=1), min_size=2))
def test_other_names_are_in_order_of_code_points(names: set[str]) -> None:
    names = {name for name in names if not name.lstrip("-").isdecimal()} | {"a", "Ä"}
    assert list(Classes.of([*names, *names]).names) == sorted(names)


@given(st.permutations(["cat", "7", "dog", "größer"]))
def test_a_number_is_the_place_of_the_name(names: list[str]) -> None:
    classes = Classes.of(["x", "y"], names)
    assert [classes.number(name, "here") for name in names] == [0, 1, 2, 3]
    assert classes.number("gro\u0308ßer", "here") == names.index("größer")  # o and two dots


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"line 3: 'Dgo' is not among") as error:
        Classes(("cat", "dog")).number("Dgo", "line 3")
    assert "did you mean 'dog'" in said(error)
    assert nearest("zebra", ["cat", "dog"]) == ""
    many = Classes(tuple(f"class {n}" for n in range(30)))
    with pytest.raises(ValueError, match=r"class 7 and 22 more"):
        many.number("x", "here")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "at least 2 classes, found none"),
        (["a"], "at least 2 classes, found a"),
        (["a", "b", "a"], "'a' is named 2 times"),
        (["gr\u00fcn", "gru\u0308n"], "named 2 times"),
        (["0", "-1"], "-1 cannot be a class: leave the label of an unlabelled image empty"),
        (["a", ""], "'' cannot be the name"),
        (["a", "${b}"], "cannot be the name"),
        (["a", "b\n"], "cannot be the name"),
        (["a", os.fsdecode(b"\xff")], "cannot be the name"),
    ],
)
def test_names_that_cannot_be(names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        Classes.of([], names)
    assert words in said(error)


# What is known of an image


def test_who_is_trusted() -> None:
    def known(*cells: int | bool | None) -> tuple[int | None, bool]:
        return true_class(*cells, "here")  # type: ignore[arg-type]

    assert known(1, None, None) == (None, False)
    assert known(1, None, True) == (1, True)
    assert known(1, None, False) == (None, False)
    assert known(1, 2, None) == (2, True)
    assert known(1, 2, False) == (2, False)
    assert known(2, 2, True) == (2, True)
    assert known(None, 2, True) == (2, True)
    for label, true in ((None, None), (1, 2)):
        with pytest.raises(ValueError, match=r"here: is_clean says") as error:
            known(label, true, True)
        said(error)


@given(st.lists(st.tuples(*[st.none() | st.integers(0, 2)] * 2, st.none() | st.just(False))))
def test_rows_are_judged_alone(rows: list[tuple[int | None, int | None, bool | None]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    labels = Labels.of(*columns, lambda row: f"row {row}")  # type: ignore[arg-type]
    found = zip(labels.truth, labels.trusted, strict=True)
    assert list(found) == [true_class(*row, "here") for row in rows]
    assert labels.observed == columns[0]


# Files


def test_a_tree_holds_images_by_suffix_and_no_hidden_files(tmp_path: Path) -> None:
    files(tmp_path, "b.JPG", "a/ü .webp", "a/a/c.Tiff", "a/notes.txt", "Thumbs.db", "none")
    files(tmp_path, ".d.jpg", ".hidden/e.jpg", "a/.f/g.jpg")
    (tmp_path / "a/back").symlink_to(tmp_path)  # must not be followed for ever
    found = tree(tmp_path)
    assert found.images == ["a/a/c.Tiff", "a/ü .webp", "b.JPG"]
    assert found.others == {".txt": 1, ".db": 1, "": 1}
    assert tree(tmp_path, deep=False).images == ["b.JPG"]


def test_folders_behind_links_are_searched(tmp_path: Path) -> None:
    files(tmp_path / "elsewhere", "1.jpg", "more/2.jpg")
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "elsewhere")
    assert tree(tmp_path / "here").images == ["link/1.jpg", "link/more/2.jpg"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".ppm"])
def test_suffixes_are_those_of_images_that_are_decoded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (3, 3)).save(path)
    assert tree(tmp_path).images == [path.name]
    assert decode(path.read_bytes(), ImageFormat(3)).width == 3


# Folders


def test_a_folder_of_classes(pets: Path) -> None:
    files(pets, "cat/notes.txt", "README.md", ".git/x.jpg")
    found = list_folder(pets)
    assert found.classes.names == ("cat", "dog")
    assert found.train.root == pets
    assert found.train.paths == [
        *("cat/1.jpg", "cat/2.jpg", "dog/1.png", "dog/2.JPG", "dog/old/3.jpeg")
    ]
    assert found.train.labels.observed == [0, 0, 1, 1, 1]
    assert found.train.labels.truth == [None] * 5
    assert (found.val, found.meta, found.test) == (None, None, None)
    assert found.notes == ("files beside the images that were left aside: 2 (.md 1, .txt 1)",)
    assert list_folder(pets, classes=["dog", "owl", "cat"]).train.labels.observed == [2, 2, 0, 0, 0]


def test_parts_in_folders_of_their_own_may_lie_inside(pets: Path, tmp_path: Path) -> None:
    files(pets, "trusted/dog/7.jpg", "trusted/cat/8.jpg", "unknown/a/9.jpg", "unknown/10.jpg")
    files(tmp_path, "val/cat/1.jpg", "test/dog/x/2.jpg")
    found = list_folder(
        pets,
        meta=pets / "trusted",
        val=tmp_path / "val",
        test=tmp_path / "test",
        unlabelled=pets / "unknown",
    )
    assert found.classes.names == ("cat", "dog")
    assert found.train.paths[5:] == [str(pets / f"unknown/{n}.jpg") for n in ("10", "a/9")]
    assert found.train.labels.observed == [0, 0, 1, 1, 1, None, None]
    assert found.meta is not None
    assert found.meta.paths == ["cat/8.jpg", "dog/7.jpg"]
    assert found.meta.labels.observed == [0, 1]
    assert found.val is not None
    assert found.test is not None
    assert (found.val.labels.observed, found.test.labels.observed) == ([0], [1])


@pytest.mark.parametrize("style", ["folder", "table", "absolute", "through"])
def test_verified_images(pets: Path, tmp_path: Path, style: str) -> None:
    start = {"folder": "", "table": "../pets/", "absolute": f"{pets}/", "through": "cat/../"}[style]
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists/verified.csv"
    csv(path, "path", f"{start}dog/1.png", f"{start}cat/2.jpg")
    found = list_folder(pets, verified=path).train.labels
    assert found.truth == [None, 0, 1, None, None]
    assert found.trusted == [False, True, True, False, False]
    csv(path, "path,label,who", f"{start}dog/1.png,cat,me", f"{start}cat/2.jpg,cat,me")
    found = list_folder(pets, verified=path).train.labels
    assert found.observed == [0, 0, 1, 1, 1]  # the folder stays the observed label
    assert found.truth == [None, 0, 0, None, None]
    assert found.trusted == [False, True, True, False, False]


def test_verified_images_may_be_unlabelled_ones(pets: Path, tmp_path: Path) -> None:
    new = files(tmp_path / "new", "x.jpg", "y.jpg")
    path = csv(tmp_path / "v.csv", "path,label", "new/y.jpg,dog")
    found = list_folder(pets, verified=path, unlabelled=new).train.labels
    assert found.observed[5:] == [None, None]
    assert found.truth[5:] == [None, 1]
    csv(path, "path", "new/y.jpg")
    with pytest.raises(ValueError, match=r"line 2: 'new/y.jpg' is unlabelled; add a column label"):
        list_folder(pets, verified=path, unlabelled=new)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path", "cat/1.jpg", "old/3.jpeg"], ["line 3", "did you mean 'dog/old/3.jpeg'"]),
        (["path", "nowhere.jpg"], ["line 2", "'nowhere.jpg' is not one of the training images. "]),
        (["path", "cat/1.jpg", "", "cat/1.jpg"], ["line 4", "verified in line 2 too"]),
        (["path,label", "cat/1.jpg,dgo"], ["line 2", "'dgo' is not among", "did you mean 'dog'"]),
        (["path,label", "cat/1.jpg,"], ["line 2", "there is no label"]),
        (["file,label", "cat/1.jpg,cat"], ["no column 'path'", "file, label"]),
        (["path,lable", "cat/1.jpg,cat"], ["column 'lable', which is not read", "mean 'label'"]),
        (["path"], ["has no row below"]),
    ],
)
def test_verified_tables_that_do_not_fit(
    pets: Path, tmp_path: Path, lines: list[str], words: list[str]
) -> None:
    path = csv(tmp_path / "verified.csv", *lines)
    with pytest.raises(ValueError, match=r".") as error:
        list_folder(pets, verified=path)
    text = said(error)
    assert str(path) in text
    assert [word for word in words if word not in text] == [], text


def test_folders_that_are_not_there(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets)
    with pytest.raises(FileNotFoundError, match=r"'phtos' in .*pets; correct .*source.folder"):
        list_folder("phtos")
    with pytest.raises(FileNotFoundError, match=r"correct dataset.source.test"):
        list_folder(".", test="cat/none")
    with pytest.raises(FileNotFoundError, match=r"correct dataset.source.verified"):
        list_folder(".", verified="v.csv")
    with pytest.raises(
        ValueError, match=r"dataset.source.folder=cat/1.jpg is a file, not a folder"
    ):
        list_folder("cat/1.jpg")
    with pytest.raises(ValueError, match=r"dataset.source.verified=cat is a folder, not a file"):
        list_folder(".", verified="cat")
    assert list_folder(".").train.paths[0] == "cat/1.jpg"


def test_a_path_may_start_at_home(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    assert len(list_folder("~/pets").train) == 5


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], ["has no folder in it", "a folder for each class"]),
        (["a.heic", "b.heic"], ["has no folder in it, only 2 files", ".heic"]),
        (["a.jpg"], ["1 images lie in", "such as a.jpg", "dataset=table"]),
        (["a.jpg", "cat/1.jpg", "dog/1.jpg"], ["1 images lie in", "such as a.jpg"]),
        (["cat/1.jpg"], ["one class only, cat", "at least 2"]),
        (["cat/1.jpg", "dog/x.heic"], ["dog holds no image, only 1 files", ".heic"]),
        (["train/cat/1.jpg", "test/cat/2.jpg"], ["test, train", "look like parts", "=/"]),
        (["-1/1.jpg", "1/1.jpg"], ["-1 cannot be a class"]),
    ],
)
def test_folders_that_do_not_fit(tmp_path: Path, paths: list[str], words: list[str]) -> None:
    root = files(tmp_path / "here", *paths)
    root.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=r".") as error:
        list_folder(root)
    text = said(error)
    assert [word for word in words if word not in text] == [], text


def test_named_classes_are_taken_at_their_word(pets: Path) -> None:
    files(pets, "owl/none.txt")
    with pytest.raises(ValueError, match=r"owl holds no image"):
        list_folder(pets)
    assert list_folder(pets, classes=["cat", "dog", "owl"]).train.labels.observed == [0, 0, 1, 1, 1]
    files(pets, "train/1.jpg", "test/1.jpg")
    for name in ("cat", "dog", "owl"):
        os.rename(pets / name, pets.parent / name)
    assert len(list_folder(pets, classes=["test", "train"]).train) == 2


def test_a_class_of_another_part_must_be_known(pets: Path, tmp_path: Path) -> None:
    for key in ("meta", "val", "test"):
        other = files(tmp_path / key, "cats/1.jpg", "dog/1.jpg")
        with pytest.raises(ValueError, match=rf"{key}: 'cats' is not among .* mean 'cat'"):
            list_folder(pets, **{key: other})
        os.rename(other / "cats", other / "cat")
        list_folder(pets, **{key: other})
    with pytest.raises(ValueError, match=r"'dog' is not among the classes cat, owl"):
        list_folder(pets, classes=["cat", "owl"])
    (tmp_path / "empty/cat").mkdir(parents=True)
    for key in ("meta", "val", "test", "unlabelled"):
        with pytest.raises(ValueError, match=r"empty holds no image"):
            list_folder(pets, **{key: tmp_path / "empty"})


# Tables


def test_a_table(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "labels.csv",
        "path,label,is_clean,split,clean_label,comment",
        "a.jpg,dog,,,,",
        "b.jpg,cat,true,train,,",
        "c.jpg,cat,,,dog,",
        "d.jpg,cat,no,TRAIN,dog,",
        ' e é.jpg ,,,,,"with, comma"',
        "f.jpg,,,,cat,",
        "g.jpg,dog,False,val,,",
        "h.jpg,dog,,meta,cat,",
        "i.jpg,dog,1,meta,,",
        "j.jpg,cat,,test,,",
        "k.jpg,,,test,dog,",
    )
    found = list_table(path)
    assert found.classes.names == ("cat", "dog")
    train = found.train
    assert train.root == tmp_path
    assert train.paths == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e é.jpg", "f.jpg"]
    assert train.labels.observed == [1, 0, 0, 0, None, None]
    assert train.labels.truth == [None, 0, 1, 1, None, 0]
    assert train.labels.trusted == [False, True, True, False, False, True]
    assert found.val is not None
    assert found.meta is not None
    assert found.test is not None
    assert (found.val.paths, found.val.labels.observed) == (["g.jpg"], [1])
    assert found.meta.labels.observed == [0, 1]
    assert found.test.labels.observed == [0, 1]
    with pytest.raises(FileNotFoundError, match=r"line 2: there is no image 'a.jpg' .* 11 of 11"):
        list_table(path, must_exist=True)
    other = files(tmp_path / "other", *(f"{name}.jpg" for name in "abcdfghijk"), "e é.jpg")
    assert list_table(path, folder=other, must_exist=True).train.root == other


def test_numbers_stay_numbers_whoever_wrote_them(tmp_path: Path) -> None:
    """Pandas writes 10.0 for 10 if a cell of the column is empty."""
    path = csv(tmp_path / "t.csv", "path,label,clean_label", "a,10.0,2", "b,2.0,", "c,,10", "d,9,")
    found = list_table(path)
    assert found.classes.names == ("2", "9", "10")
    assert found.train.labels.observed == [2, 0, None, 1]
    assert found.train.labels.truth == [0, None, 2, None]


@pytest.mark.parametrize(("separator", "mark"), [(",", ""), (";", "\ufeff"), ("\t", "")])
def test_separators_and_byte_order_marks(tmp_path: Path, separator: str, mark: str) -> None:
    rows = [["path", " label"], ["a", "x"], ["b", '"y, z"' if separator == "," else "y, z"]]
    path = csv(tmp_path / "t.csv", mark + "\n".join(separator.join(row) for row in rows))
    assert list_table(path).classes.names == ("x", "y, z")


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "heavy": [b"\xff"] * 4,
        "path": ["a", "b", "c", "d"],
        "label": [0, 1, None, 0],
        "is_clean": [True, None, None, False],
        "clean_label": [None, 0.0, float("nan"), 1.0],
        "split": pyarrow.array(["train", "train", None, "val"]).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    csv(
        tmp_path / "t.csv",
        "path,label,is_clean,clean_label,split",
        *("a,0,true,,train", "b,1,,0.0,train", "c,,,,", "d,0,false,1.0,val"),
    )
    read, written = list_table(tmp_path / "t.parquet"), list_table(tmp_path / "t.csv")
    assert read.classes == written.classes
    assert read.val is not None
    assert written.val is not None
    for part, other in ((read.train, written.train), (read.val, written.val)):
        assert part.paths == other.paths
        assert part.labels.observed == other.labels.observed
        assert part.labels.truth == other.labels.truth
        assert part.labels.trusted == other.labels.trusted
    assert read.train.labels.truth == [0, 0, None]
    columns["label"] = ["x", "y", "", "z"]
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t.parquet, row 2: '0' is not among the classes x, y"):
        list_table(tmp_path / "t.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"cannot be read as Parquet"):
        list_table(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow") as error:
        list_table(tmp_path / "t.parquet")
    assert "mln-lightning[parquet]" in said(error)


GOOD = ["path,label,is_clean,split,clean_label", "a,cat,,,", "b,dog,,,"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("b,cat,,,", ["line 4", "'b' is listed in line 3 too"]),
        ("./x/../b,cat,,,", ["line 4", "is listed in line 3 too"]),
        (",cat,,,", ["line 4", "there is no path"]),
        ("c,ca,,val,", ["line 4", "'ca' is not among the classes cat, dog", "mean 'cat'"]),
        ("c,cat,,,dgo", ["line 4", "'dgo' is not among", "mean 'dog'"]),
        ("c,owl,,test,", ["line 4", "'owl' is not among the classes"]),
        ("c,-1,,,", ["-1 cannot be a class", "empty"]),
        ("c,cat,maybe,,", ["line 4", "is_clean is 'maybe'", "true or false"]),
        ("c,cat,,valid,", ["line 4", "'valid' is unknown; did you mean 'val'", "meta, test"]),
        ("c,cat,true,,dog", ["line 4", "is_clean says that the label is right"]),
        ("c,,true,,", ["line 4", "is_clean says that the label is right, but there is none"]),
        ("c,,,val,", ["line 4", "split=val must have a label"]),
        ("c,cat,false,meta,", ["line 4", "split=meta must have a right label"]),
        ("c,cat,0,test,", ["line 4", "split=test must have a right label"]),
        ("c,cat", ["line 4", "2 cells", "5 columns"]),
        ('c,"cat,,,', ["line 4", "cannot be read"]),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, line: str, words: list[str]) -> None:
    path = csv(tmp_path / "labels.csv", *GOOD, line)
    with pytest.raises(ValueError, match=r".") as error:
        list_table(path)
    text = said(error)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["path,labels", "a,x"], ["no column 'label'; did you mean 'labels'", "path, labels"]),
        (["Path,label", "a,x"], ["no column 'path'; did you mean 'Path'"]),
        (["path label", "a x"], ["no column 'path'; did you mean 'path label'"]),
        (["path,label,label", "a,x,x"], ["two columns 'label'"]),
        (["path,label,isclean", "a,x,1"], ["'isclean', which is not read", "mean 'is_clean'"]),
        (["path,label"], ["names its columns and has no row below"]),
        ([""], ["is empty"]),
        (["path,label,split", "a,x,val"], ["no training image"]),
        (["path,label", "a,x", "b,x"], ["at least 2 classes, found x"]),
        (["path,label", "a,", "b,"], ["at least 2 classes, found none"]),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, lines: list[str], words: list[str]) -> None:
    path = csv(tmp_path / "labels.csv", *lines)
    with pytest.raises(ValueError, match=r".") as error:
        list_table(path)
    text = said(error)
    assert [word for word in words if word not in text] == [], text


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("path,label\nä,x".encode("latin1"))
    with pytest.raises(ValueError, match=r"no text in UTF-8.*at byte 11.*save it as CSV in UTF-8"):
        list_table(path)
    with pytest.raises(ValueError, match=r"is a folder, not a file"):
        list_table(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"correct dataset.source.table"):
        list_table(tmp_path / "lables.csv")
    with pytest.raises(FileNotFoundError, match=r"correct dataset.source.folder"):
        list_table(csv(path, *GOOD), folder=tmp_path / "no")


def test_a_message_names_the_line_that_a_row_ends_in(tmp_path: Path) -> None:
    path = csv(tmp_path / "t.csv", "path,label", '"a', 'b",x', "", "c,y")
    table = read_columns(path, key="k", required=["path"], optional=["label", "split"])
    assert table["path"] == ["a\nb", "c"]
    assert table["split"] == ["", ""]
    assert [table.where(row) for row in (0, 1)] == [f"{path}, line 3", f"{path}, line 5"]


def test_listing_needs_no_torch(pets: Path) -> None:
    """The command line refuses a folder before it imports anything heavy."""
    program = (
        "import sys; from mln_lightning.config import compose; "
        f"c = compose(['dataset=folder', 'dataset.source.folder={pets}']); "
        "print(c.model.num_classes, *{'torch', 'numpy', 'PIL', 'pyarrow'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("2\n", "")
