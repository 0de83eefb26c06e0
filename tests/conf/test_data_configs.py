"""Every data set and noise configuration, composed under a small root of its own."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import own_images
from mln_lightning.config import conf_dir
from mln_lightning.data import DatasetInfo, NoisyLabelDataModule, RandomCropFlip
from mln_lightning.datasets import blobs, digits
from mln_lightning.noise import ClassConditionalNoise, symmetric

CONF = conf_dir()
DATASETS = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
NOISES = sorted(path.stem for path in (CONF / "noise").glob("*.yaml"))

ROOT = f"""
defaults:
  - _self_
  - noise: sym
  - model/network: small_cnn
  - data@dataset: default
  - dataset: digits
rate: 0.4
seed: 0
data_seed: 0
num_meta: 7
data_dir: somewhere
download: false
hydra:
  searchpath: ["file://{CONF}"]
"""


@pytest.fixture
def composed(tmp_path):
    (tmp_path / "root.yaml").write_text(ROOT)

    def build(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("root", overrides=list(overrides))

    return build


def test_all_files_are_tested():
    assert {"digits", "blobs", "fashion_mnist", "cifar10", "cifar100"} <= set(DATASETS)
    assert {"none", "sym", "asym", "pair", "superclass", "matrix", "random_matrix"} <= set(NOISES)
    assert {"instance", "teacher", "cluster", "recorded"} <= set(NOISES)


@pytest.fixture
def with_files(tmp_path):
    """The overrides that noise from a file needs, for a data set of C classes."""

    def overrides(noise, num_classes):
        path = tmp_path / "numbers.npy"
        match noise:
            case "matrix":
                np.save(path, symmetric(num_classes, 0.3).numpy())
                return [f"noise.transition.file={path}"]
            case "teacher":
                np.save(path, np.zeros((3, num_classes)))
                return [f"noise.scores={path}"]
            case "recorded":
                np.save(path, np.zeros(3, dtype=np.int64))
                return [f"noise.file={path}"]
            case _:
                return []

    return overrides


@pytest.mark.parametrize(
    ("dataset", "noise"),
    [(d, n) for d in DATASETS for n in NOISES if d in ("digits", "cifar100") or n == "asym"],
)
def test_every_option_builds(composed, with_files, tmp_path, dataset, noise):
    own = own_images.choices(tmp_path).get(dataset, [])
    choices = [f"dataset={dataset}", f"noise={noise}", *own]
    config = composed(*choices)
    if more := with_files(noise, config.dataset.info.num_classes):
        config = composed(*choices, *more)
    OmegaConf.resolve(config)
    info = instantiate(config.dataset.info)
    needs = {"asym": info.flips, "superclass": info.superclasses}
    if noise in needs and not needs[noise]:
        with pytest.raises(InstantiationException, match="this data set has none"):
            instantiate(config.noise)
        return
    made = instantiate(config.noise)
    module = instantiate(config.dataset, noise=made)
    assert isinstance(module, NoisyLabelDataModule)
    assert isinstance(module.info, DatasetInfo)
    assert len(module.info.classes) == module.info.num_classes
    assert module.noise is made
    own_rate = noise in ("none", "human", "matrix", "recorded")
    assert module.rate == config.rate == (None if own_rate else 0.4)
    if isinstance(made, ClassConditionalNoise):
        check_matrix(made.transition, noise, module.info)
    assert module.transfer.augment is None or isinstance(module.transfer.augment, RandomCropFlip)
    pool, classes = module.info.num_train, module.info.num_classes
    if pool is None or module.cut.num_meta is None:
        return
    num_meta = module.cut.num_meta.count(pool, classes)
    assert num_meta >= classes
    assert num_meta + module.cut.num_val.count(pool, classes) + module.batch_size <= pool


def check_matrix(matrix, noise, info):
    rates = 1 - matrix.diag()
    assert len(rates) == info.num_classes
    match noise:
        case "asym":
            assert set(rates.nonzero().squeeze(1).tolist()) == set(info.flips)
            assert matrix.max(dim=1).values.min() == 0.6
        case "random_matrix":
            assert float(rates.mean()) == pytest.approx(0.4)
        case _:
            rate = 0.3 if noise == "matrix" else 0.4
            assert rates.tolist() == pytest.approx([rate] * info.num_classes)


def test_the_data_set_sets_num_meta_and_the_command_line_wins(composed):
    assert composed().num_meta == 180
    assert composed("dataset=cifar10").dataset.num_meta == 1000
    config = composed("dataset=cifar10", "num_meta=50", "seed=3", "data_seed=4")
    assert config.dataset.num_meta == 50
    assert (config.dataset.seed, config.dataset.data_seed) == (3, 4)
    assert composed("noise=none").rate is None


@pytest.mark.parametrize(("dataset", "read"), [("digits", digits), ("blobs", blobs)])
def test_described_as_measured(composed, dataset, read):
    module = instantiate(composed(f"dataset={dataset}").dataset)
    measured = DatasetInfo.of(read().train.images, module.info.num_classes)
    assert module.info.shape == measured.shape
    assert module.info.num_train == measured.num_train
    assert module.info.mean == pytest.approx(measured.mean, abs=1e-4)
    assert module.info.std == pytest.approx(measured.std, abs=1e-4)


def test_digits_from_configuration(composed):
    config = composed("noise=asym")
    module = instantiate(config.dataset, noise=instantiate(config.noise))
    module.setup()
    assert [len(rows) for rows in (module.train_index, module.val_index, module.meta_index)] == [
        1077,
        180,
        180,
    ]
    # Five of ten classes flip with probability 0.4.
    assert module.noise_rate == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("noise", ["pair", "random_matrix", "instance", "cluster"])
def test_noise_of_the_whole_training_set_from_configuration(composed, noise):
    config = composed(f"noise={noise}")
    module = instantiate(config.dataset, noise=instantiate(config.noise))
    module.setup()
    wrong = float((module.labels != module.clean).double().mean())
    assert wrong == pytest.approx(0.4, abs=0.06 if noise == "instance" else 0.02)


def test_verification_can_be_switched_off(composed):
    config = composed("dataset=cifar10", "dataset.verify=false", "data_dir=/nowhere")
    module = instantiate(config.dataset, noise=instantiate(config.noise))
    assert module.verify is False
    with pytest.raises(FileNotFoundError, match="/nowhere/cifar-10-batches-py/data_batch_1"):
        module.setup()


def test_flips_of_cifar100_stay_within_families_of_five(composed):
    flips = instantiate(composed("dataset=cifar100").dataset.info).flips
    assert sorted(flips) == sorted(flips.values()) == list(range(100))
    for start in flips:
        family = [start]
        while flips[family[-1]] != start:
            family.append(flips[family[-1]])
        assert len(family) == 5
    # apple → mushroom, orange → pear, woman → baby: neighbours in the published families.
    assert (flips[0], flips[53], flips[98]) == (51, 57, 2)


def test_superclasses_of_cifar100_are_the_families_of_its_flips(composed):
    info = instantiate(composed("dataset=cifar100").dataset.info)
    assert all(info.superclasses[a] == info.superclasses[b] for a, b in info.flips.items())
    assert [info.superclasses.count(number) for number in range(20)] == [5] * 20
    # Published coarse labels: aquatic mammals come first (beaver), large vehicles last (tractor).
    assert (info.superclasses[4], info.superclasses[89]) == (0, 19)
