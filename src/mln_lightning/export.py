"""What a run leaves for others to use: corrected labels and a classifier."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mln_lightning.data import DatasetInfo, NoisyLabelDataModule, Normalize
from mln_lightning.files import replacing, write_atomically
from mln_lightning.metrics.label_quality import CorrectionCounts, correction_counts
from mln_lightning.models import NoisyLabelModule


@torch.no_grad()
def export_labels(
    run_dir: Path,
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    *,
    device: torch.device | None = None,
) -> CorrectionCounts:
    """Write the labels of the training part as the trained model sees them.

    The corrected label is the classifier's own class for the training image, without augmentation:
    the soft label is its training signal, and less often right (see the README's table).

    Args:
        run_dir: existing folder.
        model: trained; put in eval mode for the pass and back.
        data: set up.
        device: where to compute; None = where the model is. The model stays there.

    Returns:
        Quality of the corrected labels where the true classes are known.
    """
    training = model.training
    model.to(device or model.device).eval()
    index, soft, corrected = [], [], []
    for batch in data.train_eval_dataloader():
        images = data.normalize(batch.images.to(model.device))
        index.append(batch.index)
        soft.append(model.soft_labels(images).cpu())
        corrected.append(model(images).softmax(dim=1).cpu())
    model.train(training)
    rows = torch.cat(index)
    probabilities = torch.cat(corrected)
    observed = data.labels[rows]
    write_labels(run_dir, rows, observed, torch.cat(soft), probabilities)
    return correction_counts(probabilities.argmax(dim=1), observed, data.clean[rows])


def write_labels(
    run_dir: Path, index: Tensor, observed: Tensor, soft_labels: Tensor, corrected: Tensor
) -> None:
    """Write ``soft_labels.npz`` and ``labels.csv``.

    Args:
        run_dir: existing folder.
        index: ``(n,)`` int64 rows of the full training set.
        observed: ``(n,)`` int64.
        soft_labels: ``(n, C)`` training signal of the last epoch, probabilities.
        corrected: ``(n, C)`` probabilities whose argmax is the corrected label and whose maximum
            is the confidence.
    """
    with replacing(run_dir / "soft_labels.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, index=index.numpy(), soft_labels=soft_labels.numpy())
    confidence, label = corrected.max(dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample", "observed_label", "corrected_label", "confidence", "changed"])
    for row in zip(
        index.tolist(), observed.tolist(), label.tolist(), confidence.tolist(), strict=True
    ):
        sample, before, after, sure = row
        writer.writerow([sample, before, after, f"{sure:.4f}", int(before != after)])
    write_atomically(run_dir / "labels.csv", text.getvalue())


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
