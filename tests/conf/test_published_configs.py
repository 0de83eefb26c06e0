"""The configurations of published data sets and of human labels, composed as a run would."""

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from mln_lightning.config import plan
from mln_lightning.data import ImageFormat, NoisyLabelDataModule
from mln_lightning.noise import HumanLabels
from mln_lightning.preflight import check

LARGE = {"clothing1m": 14, "food101n": 101, "webvision": 50}


def job(line):
    (only,) = plan(line.split()).jobs
    check(only)
    return only


def module(cfg):
    return instantiate(cfg.dataset, _partial_=True)(noise=instantiate(cfg.noise))


@pytest.mark.parametrize(("name", "classes"), LARGE.items())
def test_large_sets(name, classes):
    one = job(f"dataset={name} data_dir=nowhere")
    assert (one.choices["noise"], one.choices["model/network"]) == ("none", "torchvision")
    assert one.cfg.rate is None
    data = module(one.cfg)
    assert isinstance(data, NoisyLabelDataModule)
    assert data.noise is None
    assert data.info.num_classes == len(set(data.info.classes)) == classes
    assert data.info.num_train is None
    image_format = data.source.keywords["image_format"]
    assert isinstance(image_format, ImageFormat)
    assert image_format.shape == data.info.shape
    assert data.transfer.augment.padding == 0
    assert data.transfer.augment.flip
    assert data.duplicates == "ignore"
    with pytest.raises(FileNotFoundError, match=r"nowhere.* missing"):
        data.setup()


def test_classes_are_numbered_as_the_source_numbers_them():
    assert (names := list(job("dataset=food101n").cfg.dataset.info.classes)) == sorted(names)
    assert len(names) == 101
    # In the published order.
    names = job("dataset=clothing1m").cfg.dataset.info.classes
    assert (names[0], names[8], names[13]) == ("T-Shirt", "Downcoat", "Underwear")


def test_the_command_line_wins_over_what_a_data_set_chooses():
    one = job("dataset=clothing1m noise=sym rate=0.2 model/network=small_cnn num_meta=140")
    assert (one.choices["noise"], one.choices["model/network"]) == ("sym", "small_cnn")
    assert one.cfg.rate == 0.2
    assert one.cfg.dataset.num_meta == 140
    line = "dataset=webvision dataset.source.image_format.size=64 dataset.info.shape=[3,64,64]"
    data = module(job(f"{line} dataset.meta_from=train").cfg)
    assert data.source.keywords["image_format"].shape == data.info.shape == (3, 64, 64)
    assert data.cut.meta_from == "train"


def test_webvision_cuts_the_meta_set_from_the_validation_images():
    cut = module(job("dataset=webvision").cfg).cut
    assert cut.meta_from == "test"
    assert cut.num_meta.count(2500, 50) == 1000


@pytest.mark.parametrize(("number", "hardest"), [(10, "worst"), (100, "fine")])
def test_human_labels(number, hardest):
    short = job(f"dataset=cifar{number}n data_dir=/data noise.label_set={hardest}")
    long = job(f"dataset=cifar{number} noise=human data_dir=/data noise.label_set={hardest}")
    assert short.cfg == long.cfg  # the preset too
    assert short.run_dir.parts[-4:-2] == (f"cifar{number}n", "human")
    noise = instantiate(short.cfg.noise)
    assert isinstance(noise, HumanLabels)
    assert str(noise.file) == f"/data/cifar-n/CIFAR-{number}_human.pt"
    assert noise.label_set == hardest
    assert short.cfg.rate is None
    assert module(short.cfg).info.num_classes == number


def test_other_noise_on_the_same_images():
    one = job("dataset=cifar100n noise=sym rate=0.3")
    assert instantiate(one.cfg.noise).transition.shape == (100, 100)
    assert OmegaConf.select(one.cfg, "noise.file") is None


def test_the_published_protocol_of_food101n():
    one = job("experiment=food101n_published")
    assert one.choices["dataset"] == "food101n"
    assert one.choices["model"] == "metalabelnet"
    data = module(one.cfg)
    assert data.source.keywords["protocol"] == "published"
    assert data.cut.num_meta.count(101_000, 101) == 10_000
    model, trainer = one.cfg.model, one.cfg.trainer
    assert (model.warmup_epochs, trainer.max_epochs) == (6, 20)
    assert list(model.scheduler.milestones) == [5, 10]
    assert module(job("dataset=food101n").cfg).source.keywords["protocol"] == "own"
