from types import SimpleNamespace

import pytest
import torch

from mln_lightning.batch import UNKNOWN, Batch
from mln_lightning.data import (
    DatasetInfo,
    ImageArrays,
    NoisyLabelDataModule,
    RandomCropFlip,
    Splits,
)
from mln_lightning.datasets import blobs, digits
from mln_lightning.noise import ClassConditionalNoise, NoiseRecord, asymmetric, symmetric
from mln_lightning.seeding import generator

DIGITS = DatasetInfo("digits", 10, (1, 8, 8), (0.3051,), (0.3757,), 1437)
BLOBS = DatasetInfo("blobs", 4, (1, 8, 8), (0.5,), (0.3,), 400)
SYM = ClassConditionalNoise(symmetric(4, 0.4))


def blobs_of_unknown_class():
    splits = blobs()
    return splits._replace(train=ImageArrays(splits.train.images, splits.train.labels))


def blobs_module(noise=SYM, source=blobs, **options):
    sizes = {"num_meta": 40, "num_val": 40, "batch_size": 32}
    module = NoisyLabelDataModule(source, BLOBS, noise, **(sizes | options))
    module.setup()
    return module


def at_step(module, step, epoch=0):
    """Stands for a trainer that has finished ``step`` steps."""
    module.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        global_step=step,
        current_epoch=epoch,
        lightning_module=SimpleNamespace(dtype=torch.float32),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return module


def joined(loader):
    return Batch(*(torch.cat(values) for values in zip(*loader, strict=True)))


@pytest.mark.parametrize(
    "noise",
    [
        ClassConditionalNoise(symmetric(10, 0.4)),
        ClassConditionalNoise(asymmetric(10, 0.4, {2: 7, 3: 8, 5: 6, 6: 5, 7: 1})),
        ClassConditionalNoise(symmetric(10, 0.0)),
    ],
    ids=["sym", "asym", "none"],
)
def test_digits_parts(noise):
    module = NoisyLabelDataModule(digits, DIGITS, noise, num_meta=180, num_val=180, batch_size=128)
    module.setup()
    train, val, meta = (
        set(rows.tolist()) for rows in (module.train_index, module.val_index, module.meta_index)
    )
    assert (len(train), len(val), len(meta)) == (1077, 180, 180)
    assert len(train | val | meta) == 1437
    assert len(joined(module.test_dataloader()).labels) == 360
    # The noise was put on the whole set before the split, from the data seed.
    assert torch.equal(module.clean, digits().train.labels)
    wrong = (module.labels != module.clean).double()
    assert float(wrong.mean()) == pytest.approx(float(1 - noise.transition.diag().mean()), abs=0.01)
    assert module.noise_rate == pytest.approx(float(wrong[module.train_index].mean()))
    # Stratified: the meta set by true classes, the validation set by observed labels.
    fair = module.clean.bincount() * 180 / 1437
    assert bool(((module.clean[module.meta_index].bincount() - fair).abs() < 1).all())
    pool = torch.tensor(sorted(train | val))
    fair = module.labels[pool].bincount() * 180 / 1257
    assert bool(((module.labels[module.val_index].bincount() - fair).abs() < 1).all())


def test_no_image_is_in_two_parts():
    module = blobs_module()
    parts = [
        joined(module.in_order(module.parts.train)),
        joined(module.val_dataloader()),
        Batch(*module.parts.meta.source[module.meta_index]),
        joined(module.test_dataloader()),
    ]
    images = [image.numpy().tobytes() for part in parts for image in part.images]
    assert len(images) == 400 + 200
    assert len(set(images)) == len(images)


def test_who_sees_which_label():
    module = blobs_module()
    source = blobs()
    train = joined(module.in_order(module.parts.train))
    assert torch.equal(train.index, module.train_index)
    assert torch.equal(train.images, source.train.images[train.index])
    assert torch.equal(train.labels, module.labels[train.index])
    assert torch.equal(train.clean, source.train.labels[train.index])
    val = joined(module.val_dataloader())
    assert torch.equal(val.index, module.val_index)
    assert torch.equal(val.labels, module.labels[val.index])
    assert bool((val.labels != val.clean).any())
    meta = joined(module.train_dataloader()["meta"])
    assert set(meta.index.tolist()) == set(module.meta_index.tolist())
    assert torch.equal(meta.labels, source.train.labels[meta.index])
    assert torch.equal(meta.labels, meta.clean)
    test = joined(module.test_dataloader())
    assert torch.equal(test.index, torch.arange(200))
    assert torch.equal(test.labels, source.test.labels)


def test_seeds_have_separate_jobs():
    base = blobs_module()
    state = torch.get_rng_state()
    same, training, data = blobs_module(), blobs_module(seed=1), blobs_module(data_seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for module in (same, training):
        assert torch.equal(module.labels, base.labels)
        assert torch.equal(module.train_index, base.train_index)
        assert torch.equal(module.meta_index, base.meta_index)
    assert not torch.equal(data.labels, base.labels)
    assert not torch.equal(data.meta_index, base.meta_index)
    orders = [next(iter(m.train_dataloader()["train"])).index for m in (base, same, training)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_meta_set_does_not_depend_on_the_noise():
    clean = blobs_module(ClassConditionalNoise(symmetric(4, 0.0)))
    assert torch.equal(clean.meta_index, blobs_module().meta_index)
    assert clean.noise_rate == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_resume_at_any_step(workers):
    def epoch(module, step):
        loaders = at_step(module, step).train_dataloader()
        return list(zip(loaders["train"], loaders["meta"], strict=True))

    whole = [pair for start in (0, 10) for pair in epoch(blobs_module(), start)]
    assert len(whole) == 20
    for step in (3, 10, 19) if workers else range(20):
        rest = epoch(blobs_module(num_workers=workers), step)
        expected = whole[step : (step // 10 + 1) * 10]
        assert len(rest) == len(expected)
        for got, want in zip(rest, expected, strict=True):
            for mine, theirs in zip(got, want, strict=True):
                assert isinstance(mine, Batch)
                assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_only_training_images_are_augmented():
    augment = RandomCropFlip(2)
    module = at_step(blobs_module(augment=augment, seed=5), 20, epoch=2)
    loaders = module.train_dataloader()
    raw = {name: next(iter(loader)) for name, loader in loaders.items()}
    step = module.on_after_batch_transfer(raw)
    train = raw["train"]
    expected = module.normalize(augment(train.images, train.index, seed=5, epoch=2))
    assert torch.equal(step["train"].images, expected)
    assert torch.equal(step["meta"].images, module.normalize(raw["meta"].images))
    assert not torch.equal(step["train"].images, module.normalize(train.images))
    for loader in (module.in_order(module.parts.train), module.val_dataloader()):
        batch = next(iter(loader))
        plain = module.on_after_batch_transfer(batch)
        assert torch.equal(plain.images, module.normalize(batch.images))
        assert torch.equal(plain.index, batch.index)


def test_record(tmp_path):
    module = blobs_module(rate=0.4, data_seed=3)
    module.noise_record().save(tmp_path / "noise.npz")
    record = NoiseRecord.load(tmp_path / "noise.npz")
    assert torch.equal(record.observed, module.labels)
    assert torch.equal(record.clean, module.clean)
    assert torch.equal(record.index, module.train_index)
    assert (record.data_seed, record.rate_asked) == (3, 0.4)
    assert record.rate_measured == module.noise_rate


def own_arrays(clean_known=False):
    draws = generator(9)
    images = torch.randint(256, (130, 8, 8, 3), dtype=torch.uint8, generator=draws).numpy()
    labels = (torch.arange(130) % 3).numpy()
    part = ImageArrays.from_numpy
    clean = labels[::-1][:60].copy() if clean_known else None
    return Splits(
        train=part(images[:60], labels[:60], clean),
        val=part(images[60:80], labels[60:80]),
        meta=part(images[80:100], labels[80:100]),
        test=part(images[100:], labels[100:]),
    )


def test_own_noisy_arrays_with_own_parts():
    splits = own_arrays()
    info = DatasetInfo.of(splits.train.images, 3)
    module = NoisyLabelDataModule(lambda: splits, info, batch_size=16)
    module.setup()
    assert (len(module.train_index), len(module.val_index), len(module.meta_index)) == (60, 20, 20)
    assert torch.equal(module.labels, splits.train.labels)
    assert bool((module.clean == UNKNOWN).all())
    assert module.noise_rate is None
    assert module.noise_record().rate_measured is None
    meta = next(iter(module.train_dataloader()["meta"]))
    assert torch.equal(meta.images, splits.meta.images[meta.index])
    val = joined(module.val_dataloader())
    assert torch.equal(val.labels, splits.val.labels)
    assert bool((val.clean == UNKNOWN).all())
    smaller = NoisyLabelDataModule(lambda: splits, info, batch_size=16, num_meta=6, num_val=5)
    smaller.setup()
    labels = splits.meta.labels[smaller.meta_index]
    assert labels.bincount().tolist() == [2, 2, 2]
    assert len(smaller.val_index) == 5


def test_known_clean_labels_measure_the_noise_of_own_arrays():
    splits = own_arrays(clean_known=True)
    info = DatasetInfo.of(splits.train.images, 3)
    module = NoisyLabelDataModule(lambda: splits, info, batch_size=16)
    module.setup()
    wrong = splits.train.labels != splits.train.clean
    assert module.noise_rate == pytest.approx(float(wrong.double().mean()))


def test_without_validation_set():
    assert blobs_module(num_val=0).val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_meta": 3}, "at least one sample of each of the 4 classes, num_meta is 3"),
        ({"num_meta": None}, "brings no meta set"),
        ({"num_meta": 380, "num_val": 20}, "ask for 400 of 400"),
        ({"num_meta": 500}, "ask for 540 of 400"),
        ({"num_val": -1}, "num_val=-1 is not a size"),
        ({"batch_size": 321}, "batch size 321 is larger than the training part, which has 320"),
        ({"batch_size": 0}, "at least 1, got 0"),
        ({"meta_batch_size": 0}, "at least 1, got 32 and 0"),
        ({"num_workers": -1}, "num_workers must not be negative"),
        (
            {"noise": None, "source": blobs_of_unknown_class},
            "clean labels of the training images are not known",
        ),
        ({"noise": ClassConditionalNoise(symmetric(3, 0.1))}, "knows classes 0 to 2"),
        ({"source": lambda: blobs(num_classes=5)}, "must be classes 0 to 3, they run from 0 to 4"),
        ({"source": lambda: blobs(num_train=300)}, "should have 400 training images, found 300"),
        ({"source": lambda: blobs()._replace(test=digits().test)}, "classes 0 to 3"),
        ({"source": lambda: blobs()._replace(val=own_arrays().val)}, r"shape \(3, 8, 8\), desc"),
        ({"source": lambda: blobs()._replace(meta=blobs(30).train)}, "own meta set has 30"),
        ({"source": lambda: blobs()._replace(test=blobs(0).train)}, "test part of blobs is empty"),
    ],
)
def test_bad_sizes_and_parts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        blobs_module(**options)


def test_data_before_setup():
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        _ = NoisyLabelDataModule(blobs, BLOBS, SYM, num_meta=40).labels
