"""Pictures say what the labels say, for every kind of data set, and are the same files again."""

from __future__ import annotations

import io
import random
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import DatasetInfo, ImageArrays
from mln_lightning.noise import ClassConditionalNoise, symmetric
from mln_lightning.pictures import (
    confusion_figure,
    moved_figure,
    moved_labels,
    noise_figure,
    save_figure,
)

NAMES = ("cat", "dog", "bird", "horse", "frog", "ship", "truck", "deer", "plane", "car")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data_set(
    classes: int = 10,
    shape: tuple[int, int, int] = (1, 8, 8),
    size: int = 200,
    names: tuple[str, ...] | None = None,
) -> tuple[ImageArrays, DatasetInfo]:
    """Images that are all of the gray value of their row, modulo 256."""
    values = (torch.arange(size) % 256).byte().view(-1, 1, 1, 1)
    labels = torch.arange(size) % classes
    info = DatasetInfo(
        name="things",
        num_classes=classes,
        shape=shape,
        mean=(0.5,) * shape[0],
        std=(0.5,) * shape[0],
        classes=NAMES[:classes] if names is None and classes <= 10 else names or (),
    )
    return ImageArrays(values.expand(-1, *shape).contiguous(), labels), info


def noisy(labels: Tensor, classes: int, rate: float = 0.4) -> Tensor:
    return ClassConditionalNoise(symmetric(classes, rate))(labels, generator=seeded(1))


def texts(figure: Figure) -> list[str]:
    """All that is written on a figure."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def heading(figure: Figure) -> str:
    return figure.texts[0].get_text()


def shown_rows(figure: Figure) -> list[int]:
    """Rows of the images on a figure, told by their gray value."""
    pictures = [image for axes in figure.axes[1:] for image in axes.images]
    return [int(np.asarray(image.get_array())[0, 0, 0]) for image in pictures]


def captions(figure: Figure) -> list[str]:
    """Captions of the tiles, a line each."""
    return [text.get_text() for text in figure.axes[-1].texts]


def png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


# -- the noise ------------------------------------------------------------------------------------


def test_matrix_holds_the_per_cent_of_each_class() -> None:
    images, info = data_set()
    observed = noisy(images.labels, 10)
    figure = noise_figure(images, observed, images.labels, info, generator=seeded())
    expected = confusion_matrix(images.labels, observed, normalize="true") * 100
    written = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in figure.axes[0].texts
    }
    for (row, column), share in np.ndenumerate(expected):
        if share == 0:
            assert (row, column) not in written
        else:
            assert float(written[row, column]) == pytest.approx(share, abs=0.5)
    assert heading(figure) == "things: 40.0 % of 200 training labels are wrong"


def test_the_images_shown_are_wrong_ones_of_all_classes_with_both_labels() -> None:
    images, info = data_set()
    observed = noisy(images.labels, 10)
    figure = noise_figure(images, observed, images.labels, info, generator=seeded())
    rows = shown_rows(figure)
    assert len(set(rows)) == 20
    assert all(observed[row] != images.labels[row] for row in rows)
    assert set(Counter(images.labels[rows].tolist()).values()) == {2}, "two of each of ten classes"
    expected = [
        line for row in rows for line in (NAMES[images.labels[row]], f"→ {NAMES[observed[row]]}")
    ]
    assert captions(figure) == expected


def test_few_wrong_labels_are_all_shown() -> None:
    images, info = data_set()
    observed = images.labels.clone()
    observed[[7, 30, 31]] = (observed[[7, 30, 31]] + 1) % 10
    figure = noise_figure(images, observed, images.labels, info, generator=seeded())
    assert sorted(shown_rows(figure)) == [7, 30, 31]


def test_the_choice_is_the_generators() -> None:
    images, info = data_set()
    observed = noisy(images.labels, 10)
    chosen = [
        shown_rows(noise_figure(images, observed, images.labels, info, generator=seeded(seed)))
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_no_wrong_label() -> None:
    images, info = data_set()
    figure = noise_figure(images, images.labels, images.labels, info, generator=seeded())
    assert heading(figure) == "things: none of 200 training labels are wrong"
    assert [text for text in captions(figure) if "→" in text] == []
    assert len(shown_rows(figure)) == 20


def test_unknown_truth_shows_how_often_each_label_occurs() -> None:
    images, info = data_set(size=205)
    unknown = torch.full_like(images.labels, UNKNOWN)
    observed = images.labels.clone()
    observed[:5] = UNKNOWN
    figure = noise_figure(images, observed, unknown, info, generator=seeded())
    assert heading(figure) == (
        "things: 200 training labels, 5 more are unlabelled; which ones are wrong is not known"
    )
    counts = torch.bincount(observed[5:], minlength=10).tolist()
    assert captions_of_bars(figure) == [
        x for n, c in zip(NAMES, counts, strict=True) for x in (n, str(c))
    ]
    assert min(shown_rows(figure)) >= 5, "an unlabelled image has no label to show"


def captions_of_bars(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_many_classes_of_unknown_truth_show_the_rarest() -> None:
    images, info = data_set(classes=100, size=1000)
    observed = torch.where(images.labels == 42, 41, images.labels)
    unknown = torch.full_like(observed, UNKNOWN)
    written = captions_of_bars(noise_figure(images, observed, unknown, info, generator=seeded()))
    assert written[:2] == ["class 41", "20"]
    assert written[-2:] == ["class 42", "0"]


def test_partly_known_truth_counts_what_is_known() -> None:
    images, info = data_set()
    clean = images.labels.clone()
    clean[50:] = UNKNOWN
    clean[clean == 3] = UNKNOWN
    observed = images.labels.clone()
    observed[0] = 1
    figure = noise_figure(images, observed, clean, info, generator=seeded())
    assert heading(figure) == "things: 2.2 % of 45 training labels of known truth are wrong"
    assert "no images" in texts(figure), "of the class of which no truth is known"
    assert shown_rows(figure) == [0]


# -- corrected labels ------------------------------------------------------------------------------


def probabilities_of(corrected: Tensor, confidence: Tensor, classes: int) -> Tensor:
    rest = (1 - confidence) / (classes - 1)
    result = rest[:, None].repeat(1, classes)
    return result.scatter(1, corrected[:, None], confidence[:, None])


def test_moved_labels_are_the_surest_changes_in_order() -> None:
    observed = torch.tensor([0, 1, 2, UNKNOWN, 0, 1])
    corrected = torch.tensor([1, 1, 0, 2, 2, 0])
    confidence = torch.tensor([0.6, 0.99, 0.9, 0.95, 0.8, 0.9])
    clean = torch.tensor([1, 1, UNKNOWN, 2, 0, 0])
    moved = moved_labels(
        torch.arange(6) + 10, observed, probabilities_of(corrected, confidence, 3), clean, most=3
    )
    assert [label.row for label in moved] == [12, 15, 14], "equal ones in the order of their rows"
    assert [label.observed for label in moved] == [2, 1, 0]
    assert [label.corrected for label in moved] == [0, 0, 2]
    assert [label.truth for label in moved] == [UNKNOWN, 0, 0]
    assert [label.confidence for label in moved] == pytest.approx([0.9, 0.9, 0.8])


def test_moved_figure_says_before_after_confidence_and_truth() -> None:
    images, info = data_set(classes=3, size=4)
    observed = torch.tensor([0, 1, 2, 0])
    corrected = torch.tensor([1, 0, 0, 0])
    clean = torch.tensor([1, 2, UNKNOWN, 0])
    sure = probabilities_of(corrected, torch.tensor([0.7, 0.98, 0.9, 0.99]), 3)
    figure = moved_figure(images, torch.arange(4), observed, sure, clean, info)
    assert heading(figure) == (
        "things: 3 of 4 training labels changed, 50.0 % of the changes are right "
        "(of 2 of known truth)"
    )
    assert captions(figure) == [
        *("dog", "→ cat", "98 % ✗ bird"),
        *("bird", "→ cat", "90 %"),
        *("cat", "→ dog", "70 % ✓"),
    ]
    colours = [text.get_color() for text in figure.axes[-1].texts[::3]]
    assert len(set(colours)) == 3


def test_no_label_moved() -> None:
    images, info = data_set(size=20)
    sure = torch.eye(10)[images.labels]
    figure = moved_figure(images, torch.arange(20), images.labels, sure, images.labels, info)
    assert heading(figure) == "things: 0 of 20 training labels changed"
    assert "The classifier agrees with every observed label." in texts(figure)


# -- the classifier --------------------------------------------------------------------------------


def test_confusion_names_the_most_frequent_mistakes_first() -> None:
    _, info = data_set(classes=3)
    counts = torch.tensor([[8, 2, 0], [0, 10, 0], [1, 0, 1]])
    figure = confusion_figure(counts, info)
    assert heading(figure) == "things: 86.4 % of 22 test images are classified correctly"
    mistakes = [text.get_text() for text in figure.axes[1].texts]
    assert mistakes == ["bird → cat", "50.0 %", "cat → dog", "20.0 %"]


def test_confusion_without_mistakes_or_without_images_of_a_class() -> None:
    _, info = data_set(classes=3)
    figure = confusion_figure(torch.diag(torch.tensor([3, 0, 4])), info)
    assert "No mistakes" in texts(figure)
    assert "no images" in texts(figure)
    assert "100.0 %" in heading(figure)


# -- all of them -----------------------------------------------------------------------------------

SIZES = [(1, 8, 8), (3, 32, 32), (3, 224, 224), (1, 1, 1), (4, 12, 40), (2, 31, 5)]


@settings(max_examples=5, deadline=None)
@given(
    classes=st.sampled_from([2, 3, 10, 20, 21, 40, 100, 300]),
    shape=st.sampled_from(SIZES),
    size=st.integers(1, 40),
    named=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_whatever_the_data_there_is_a_picture(
    classes: int, shape: tuple[int, int, int], size: int, named: bool, seed: int
) -> None:
    """Any labels, known or not, of any classes; classes without images; any odd names."""
    odd = ("猫", "", "$x_", "two\nlines", "x" * 60, "_", "%s", "\\frac", "#", "a")
    names = tuple(odd[number % 10] for number in range(classes)) if named else ()
    images, info = data_set(classes, shape, size, names)
    draw = seeded(seed)
    observed, clean = (torch.randint(UNKNOWN, classes, (size,), generator=draw) for _ in range(2))
    sure = torch.rand(size, classes, generator=draw)
    counts = torch.randint(0, 2, (classes, classes), generator=draw)
    png(noise_figure(images, observed, clean, info, generator=draw))
    png(moved_figure(images, torch.arange(size), observed, sure, clean, info))
    png(confusion_figure(counts, info))


@pytest.mark.parametrize("classes", [2, 20, 40, 100])
def test_nothing_written_is_cut_off_or_covers_its_neighbour(classes: int) -> None:
    images, info = data_set(
        classes,
        size=max(200, classes),
        names=tuple(f"{NAMES[n % 10]} with a rather long name {n}" for n in range(classes)),
    )
    observed = noisy(images.labels, classes)
    figure = noise_figure(images, observed, images.labels, info, generator=seeded())
    confusion = torch.ones(classes, classes).long() + 10 * torch.eye(classes).long()
    for drawn in (figure, confusion_figure(confusion, info)) if classes == 20 else (figure,):
        png(drawn)
        width, height = drawn.canvas.get_width_height()
        boxes = [t.get_window_extent() for t in drawn.findobj(Text) if t.get_text().strip()]
        assert min(min(box.x0, box.y0) for box in boxes) >= 0
        assert max(box.x1 for box in boxes) <= width
        assert max(box.y1 for box in boxes) <= height
        matrix = drawn.axes[0]
        rows = [label.get_window_extent() for label in matrix.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 - 2 for upper, lower in pairwise(rows))
        assert max(box.x1 for box in rows) <= matrix.get_window_extent().x0
        assert min(box.x0 for box in rows) >= matrix.yaxis.label.get_window_extent().x1 - 1
        columns = [label.get_window_extent() for label in matrix.get_xticklabels()]
        assert min(box.y0 for box in columns) >= matrix.xaxis.label.get_window_extent().y1 - 1


def test_the_same_picture_is_the_same_file_and_tells_no_date(tmp_path: Path) -> None:
    images, info = data_set(shape=(3, 32, 32))
    observed = noisy(images.labels, 10)
    for name in ("a.png", "b.png"):
        figure = noise_figure(images, observed, images.labels, info, generator=seeded())
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert not {"Software", "Creation Time", "date"} & picture.info.keys()
        assert picture.size == (1300, 700)


def test_a_failed_write_leaves_the_old_picture_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = confusion_figure(torch.eye(3).long(), data_set(classes=3)[1])
    path = tmp_path / "confusion.png"
    path.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device.*confusion\.png"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.png"]


def test_drawing_leaves_all_that_is_global_alone(tmp_path: Path) -> None:
    images, info = data_set()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), dict(matplotlib.rcParams)
    pyplot = sys.modules.get("matplotlib.pyplot")
    open_figures = pyplot.get_fignums() if pyplot else []
    figure = noise_figure(images, noisy(images.labels, 10), images.labels, info, generator=seeded())
    save_figure(figure, tmp_path / "noise.png")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert dict(matplotlib.rcParams) == before[2]
    if pyplot:
        assert pyplot.get_fignums() == open_figures


def test_a_users_matplotlibrc_changes_nothing(tmp_path: Path) -> None:
    _, info = data_set(classes=3)
    counts = torch.tensor([[8, 2, 0], [0, 10, 0], [1, 0, 1]])
    save_figure(confusion_figure(counts, info), tmp_path / "plain.png")
    style = {"text.usetex": True, "font.size": 30, "font.family": "serif", "figure.dpi": 30}
    with matplotlib.rc_context(style):
        save_figure(confusion_figure(counts, info), tmp_path / "styled.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()
