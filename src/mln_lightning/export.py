"""What a run leaves for others to use: corrected labels, pictures and a classifier."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mln_lightning.batch import UNKNOWN
from mln_lightning.data import (
    CachedImages,
    DatasetInfo,
    EncodedImages,
    LabeledImages,
    NoisyLabelDataModule,
    Normalize,
)
from mln_lightning.files import replacing
from mln_lightning.metrics.label_quality import CorrectionCounts, correction_counts
from mln_lightning.models import NoisyLabelModule
from mln_lightning.pictures import (
    MovedLabel,
    confusion_figure,
    moved_figure,
    moved_labels,
    noise_figure,
    save_figure,
)
from mln_lightning.seeding import generator

_PICTURE = 100  # stream of the data seed that chooses the images of noise.png


@dataclass(frozen=True, eq=False)
class CorrectedLabels:
    """The labels of the training part as the trained model sees them.

    The corrected label is the classifier's own class for the training image, without augmentation:
    the soft label is its training signal, and less often right (see the README's table).

    Attributes:
        index: ``(n,)`` int64 rows of the full training set.
        observed: ``(n,)`` int64, or ``UNKNOWN`` where there was no label.
        clean: ``(n,)`` int64 true classes or ``UNKNOWN``.
        soft_labels: ``(n, C)`` training signal of the last epoch, probabilities.
        probabilities: ``(n, C)`` of the classifier; the argmax is the corrected label, the maximum
            its confidence.
    """

    index: Tensor
    observed: Tensor
    clean: Tensor
    soft_labels: Tensor
    probabilities: Tensor

    @property
    def counts(self) -> CorrectionCounts:
        """Quality of the corrected labels where the true classes are known."""
        return correction_counts(self.probabilities.argmax(dim=1), self.observed, self.clean)

    def moved(self, most: int) -> list[MovedLabel]:
        """The labels that changed most, see `moved_labels`."""
        return moved_labels(self.index, self.observed, self.probabilities, self.clean, most=most)


def export_labels(
    run_dir: Path,
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    *,
    device: torch.device | None = None,
) -> CorrectedLabels:
    """Write ``labels.csv``, ``soft_labels.npz`` and ``moved.png``; see `write_labels`.

    Args:
        run_dir: existing folder.
        model: trained; put in eval mode for the pass and back.
        data: set up.
        device: where to compute; None = where the model is. The model stays there.

    Returns:
        what was written.
    """
    labels = correct_labels(model, data, device=device)
    images = data.parts.train.source.images
    write_labels(run_dir, labels, images, data.info)
    figure = moved_figure(
        images, labels.index, labels.observed, labels.probabilities, labels.clean, data.info
    )
    save_figure(figure, run_dir / "moved.png")
    return labels


@torch.no_grad()
def correct_labels(
    model: NoisyLabelModule, data: NoisyLabelDataModule, *, device: torch.device | None = None
) -> CorrectedLabels:
    """Look at every training image once.

    Args:
        model: trained; put in eval mode for the pass and back.
        data: set up.
        device: where to compute; None = where the model is. The model stays there.
    """
    training = model.training
    model.to(device or model.device).eval()
    index, soft, corrected = [], [], []
    for batch in data.in_order(data.parts.train):
        images = data.normalize(batch.images.to(model.device)).to(model.dtype)
        index.append(batch.index)
        soft.append(model.soft_labels(images).float().cpu())
        corrected.append(model(images).softmax(dim=1).float().cpu())
    model.train(training)
    rows = torch.cat(index)
    return CorrectedLabels(
        index=rows,
        observed=data.labels[rows],
        clean=data.clean[rows],
        soft_labels=torch.cat(soft),
        probabilities=torch.cat(corrected),
    )


def write_labels(
    run_dir: Path, labels: CorrectedLabels, images: LabeledImages, info: DatasetInfo
) -> None:
    """Write ``soft_labels.npz`` and ``labels.csv``.

    The table names classes where they have names, else it numbers them. An image without a label
    has an empty ``observed_label``, and counts as changed. Images that are files have a ``path``.

    Args:
        run_dir: existing folder.
        labels: to write, a line each.
        images: the full training set.
        info: names of the classes.
    """
    with replacing(run_dir / "soft_labels.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, index=labels.index.numpy(), soft_labels=labels.soft_labels.numpy())
    names = info.class_names
    files = isinstance(images, EncodedImages | CachedImages)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    path = ["path"] if files else []
    writer.writerow(["sample", *path, "observed_label", "corrected_label", "confidence", "changed"])
    confidence, corrected = labels.probabilities.max(dim=1)
    columns = (labels.index, labels.observed, corrected, confidence)
    for row, before, after, sure in zip(*(column.tolist() for column in columns), strict=True):
        path = [images.name(row)] if files else []
        old = "" if before == UNKNOWN else names[before]
        writer.writerow([row, *path, old, names[after], f"{sure:.4f}", int(before != after)])
    with replacing(run_dir / "labels.csv") as temporary:
        # Paths are written as the file system has them, be they proper UTF-8 or not.
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def export_noise(run_dir: Path, data: NoisyLabelDataModule) -> None:
    """Write ``noise.npz``, all that is needed to repeat the noise, and ``noise.png``.

    Args:
        run_dir: existing folder.
        data: set up.
    """
    record = data.noise_record()
    record.save(run_dir / "noise.npz")
    figure = noise_figure(
        data.parts.train.source.images,
        record.observed,
        record.clean,
        data.info,
        rows=record.index,
        generator=generator(data.data_seed, _PICTURE),
    )
    save_figure(figure, run_dir / "noise.png")


def export_confusion(run_dir: Path, confusion: Tensor | None, info: DatasetInfo) -> None:
    """Write ``confusion.png``; nothing without a test.

    Args:
        run_dir: existing folder.
        confusion: ``(C, C)`` counts, a row for each clean class.
        info: names of the classes.
    """
    if confusion is not None:
        save_figure(confusion_figure(confusion, info), run_dir / "confusion.png")


def write_classifier(run_dir: Path, network: nn.Module) -> None:
    """Write ``classifier.pt``, the plain state dict of the network on the CPU."""
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    content = io.BytesIO()  # written in one go: torch.save into a file hides why a write failed
    torch.save(state, content)
    with replacing(run_dir / "classifier.pt") as temporary:
        temporary.write_bytes(content.getvalue())


class TrainedClassifier:
    """A trained network with its normalisation and class names.

    Args:
        network: classifier in eval mode.
        info: of the data set it was trained on.
    """

    def __init__(self, network: nn.Module, info: DatasetInfo) -> None:
        self.network = network
        self.info = info

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities ``(B, C)`` of uint8 images ``(B, K, H, W)``.

        Raises:
            ValueError: the images have another type or shape than those trained on.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != torch.Size(self.info.shape):
            raise ValueError(
                f"images must be uint8 of shape (B, {', '.join(map(str, self.info.shape))}), got "
                f"{images.dtype} of shape {tuple(images.shape)}."
            )
        inputs = Normalize(self.info.mean, self.info.std)(images)
        result: Tensor = self.network(inputs).softmax(dim=1)
        return result

    def predict(self, images: Tensor) -> Tensor:
        """Class numbers ``(B,)`` int64 of uint8 images ``(B, K, H, W)``; see `probabilities`."""
        return self.probabilities(images).argmax(dim=1)


def load(run_dir: str | Path) -> TrainedClassifier:
    """The classifier of a finished run, after its last epoch, on the CPU.

    Args:
        run_dir: folder of the run, with ``config.yaml`` and ``classifier.pt``.

    Raises:
        FileNotFoundError: the folder does not hold a finished run.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = Path(run_dir)
    missing = [name for name in ("config.yaml", "classifier.pt") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} does not hold a finished run: {' and '.join(missing)} missing."
        )
    config = OmegaConf.load(folder / "config.yaml")
    network: nn.Module = instantiate(config.model.network)
    network.load_state_dict(torch.load(folder / "classifier.pt", weights_only=True))
    return TrainedClassifier(network.eval(), instantiate(config.dataset.info))
