import pytest

from mln_lightning.sizes import SampleSize


@pytest.mark.parametrize(
    ("value", "count"),
    [(180, 180), ("180", 180), (0, 0), (0.1, 100), ("0.25", 250), ("10%", 100), ("2.5 %", 25)],
)
def test_counts_and_shares(value, count):
    assert SampleSize.parse("num_meta", value).count(1000, 7) == count


def test_so_many_of_each_class():
    size = SampleSize.parse("num_meta", "20/class")
    assert size.unit == "of each class"
    assert size.count(1000, 7) == 140


@pytest.mark.parametrize("value", [-1, "many", "", True, None, "1/2", "20 classes", "1e3"])
def test_what_is_no_size(value):
    with pytest.raises(ValueError, match=r"num_meta=.* is not a size; give a count"):
        SampleSize.parse("num_meta", value)


@pytest.mark.parametrize("value", ["0%", "100%", "150%", 1.0, "1.5"])
def test_shares_lie_between_0_and_1(value):
    with pytest.raises(ValueError, match="not a share between 0 and 1"):
        SampleSize.parse("num_val", value)


def test_a_part_of_an_image_per_class():
    with pytest.raises(ValueError, match="not a whole number"):
        SampleSize.parse("num_val", "2.5/class")
