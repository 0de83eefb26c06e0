import io
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error

from mln_lightning.metrics import LabelQuality, correction_counts
from mln_lightning.seeding import generator

C = 5


def random_epoch(size=400, unknown=0.1, seed=0):
    draws = generator(seed)
    clean = torch.randint(C, (size,), generator=draws)
    observed = torch.where(
        torch.rand(size, generator=draws) < 0.4, torch.randint(C, (size,), generator=draws), clean
    )
    soft = torch.softmax(2 * torch.randn(size, C, generator=draws), dim=1)
    logits = torch.randn(size, C, generator=draws)
    hidden = torch.rand(size, generator=draws) < unknown
    return logits, observed, torch.where(hidden, -1, clean), soft


def test_against_numpy_scipy_and_scikit_learn():
    epoch = random_epoch()
    metric = LabelQuality(C)
    for start in range(0, 400, 64):
        metric.update(*(values[start : start + 64] for values in epoch))
    logits, observed, clean, soft = (values.numpy().astype(np.float64) for values in epoch)
    known = clean >= 0
    choice = soft.argmax(1)
    wrong = known & (observed != clean)
    right = known & (observed == clean)
    expected = {
        "labels/accuracy": accuracy_score(clean[known], choice[known]),
        "labels/recovered": (choice == clean)[wrong].mean(),
        "labels/damaged": (choice != clean)[right].mean(),
        "labels/entropy": scipy_entropy(soft, axis=1).mean(),
        "labels/marginal_kl": scipy_entropy(soft.mean(0), np.full(C, 1 / C)),
        "labels/calibration": float(
            multiclass_calibration_error(epoch[3][known], epoch[2][known], C, n_bins=15)
        ),
        "memorized/noisy": (logits.argmax(1) == observed)[wrong].mean(),
    }
    assert 0.2 < wrong.mean() < 0.4
    measured = {key: float(value) for key, value in metric.compute().items()}
    assert measured == pytest.approx(expected, abs=2e-6)


def test_collapsed_and_uniform_labels():
    clean = torch.arange(10) % C
    metric = LabelQuality(C)
    metric.update(torch.zeros(10, C), clean, clean, torch.eye(C)[torch.zeros(10, dtype=torch.long)])
    result = metric.compute()
    assert float(result["labels/marginal_kl"]) == pytest.approx(math.log(C))
    assert float(result["labels/entropy"]) == 0
    assert float(result["labels/accuracy"]) == pytest.approx(0.2)
    metric.reset()
    metric.update(torch.zeros(10, C), clean, clean, torch.full((10, C), 1 / C))
    result = metric.compute()
    assert float(result["labels/marginal_kl"]) == pytest.approx(0, abs=1e-6)
    assert float(result["labels/entropy"]) == pytest.approx(math.log(C))


def test_nothing_wrong_gives_no_nan():
    clean = torch.arange(10) % C
    metric = LabelQuality(C)
    metric.update(torch.eye(C)[clean], clean, clean, torch.eye(C)[clean])
    result = {key: float(value) for key, value in metric.compute().items()}
    assert result["labels/recovered"] == 1
    assert result["labels/damaged"] == 0
    assert result["memorized/noisy"] == 0
    assert all(math.isfinite(value) for value in result.values())


def test_keys_say_what_was_seen():
    logits, observed, clean, soft = random_epoch()
    metric = LabelQuality(C)
    metric.update(logits, observed, clean)
    assert set(metric.compute()) == {"memorized/noisy"}
    metric.reset()
    metric.update(logits, observed, torch.full_like(clean, -1), soft)
    assert set(metric.compute()) == {"labels/entropy", "labels/marginal_kl"}


def test_counts_survive_a_checkpoint():
    epoch = random_epoch()
    first, second = ([v[:200] for v in epoch], [v[200:] for v in epoch])
    whole = LabelQuality(C)
    whole.update(*first)
    buffer = io.BytesIO()
    torch.save(whole.state_dict(), buffer)
    buffer.seek(0)
    whole.update(*second)
    resumed = LabelQuality(C)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    resumed.update(*second)
    expected = whole.compute()
    assert len(expected) == 7
    assert all(torch.equal(value, expected[key]) for key, value in resumed.compute().items())


def test_correction_counts_by_hand():
    clean = torch.tensor([0, 1, 2, 0, 1, -1])
    observed = torch.tensor([0, 2, 1, 0, 1, 0])
    corrected = torch.tensor([0, 1, 0, 2, 1, 1])
    assert correction_counts(corrected, observed, clean) == {
        "changed": 4,
        "accuracy_before": 0.6,
        "accuracy_after": 0.6,
        "recovered": 1,
        "damaged": 1,
    }
    unknown = correction_counts(corrected, observed, torch.full((6,), -1))
    assert unknown.pop("changed") == 4
    assert set(unknown.values()) == {None}
    with pytest.raises(ValueError, match="pair up, got 5, 6 and 6"):
        correction_counts(corrected[:5], observed, clean)


def test_a_sample_without_a_label_is_neither_right_nor_wrong_before():
    clean, observed = torch.tensor([0, 1, 2]), torch.tensor([0, 2, -1])
    assert correction_counts(clean, observed, clean) == {
        "changed": 2,
        "accuracy_before": 0.5,
        "accuracy_after": 1.0,
        "recovered": 1,
        "damaged": 0,
    }
    metric = LabelQuality(C)
    logits = torch.eye(C)[clean]
    metric.update(logits, observed, clean, logits)
    assert float(metric.compute()["labels/accuracy"]) == 1
    assert int(metric.num_known) == 2
    assert int(metric.num_soft) == 3


def test_labels_that_are_not_numbers_do_not_crash():
    metric = LabelQuality(C)
    logits, observed, clean, soft = random_epoch()
    metric.update(logits * torch.nan, observed, clean, soft * torch.nan)
    assert metric.compute()["labels/calibration"].isnan()


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="num_classes >= 2"):
        LabelQuality(1)
