"""What all methods share that has nothing to do with how they learn: prediction and evaluation."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mln_lightning.batch import Batch
from mln_lightning.meta import eagerly


class EvaluatedModule(LightningModule):
    """A classifier with validation on observed labels and a test on clean ones.

    Args:
        network: any classifier, images ``(B, K, H, W)`` → logits ``(B, C)``.
        num_classes: C, at least 2.

    Raises:
        ValueError: there are fewer than two classes.
    """

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_confusion = MulticlassConfusionMatrix(num_classes)
        self.confusion: Tensor | None = None  # of the last test, (C, C) counts, rows = clean class

    def classifier(self) -> nn.Module:
        """The network that is evaluated and exported."""
        return self.network

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the classifier for normalised images ``(B, K, H, W)``."""
        network = self.classifier()
        with eagerly(network):  # compiled code is for training
            logits: Tensor = network(images)
        return logits

    @torch.no_grad()
    def soft_labels(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → the soft labels ``(B, C)`` this method would train on, probabilities.

        A method without soft labels answers with its classifier's probabilities.
        """
        probabilities: Tensor = self(images).softmax(dim=1)
        return probabilities

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy against the *observed* labels of the validation part."""
        if len(batch.labels):  # one of several processes may have none
            self.val_accuracy.update(self(batch.images), batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/accuracy``."""
        self.log("val/accuracy", self.val_accuracy.compute())
        self.val_accuracy.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and confusions on the clean test set."""
        if len(batch.labels):
            logits = self(batch.images)
            self.test_accuracy.update(logits, batch.labels)
            self.test_confusion.update(logits, batch.labels)

    def on_test_epoch_end(self) -> None:
        """Log ``test/accuracy``, and keep the confusion matrix."""
        self.log("test/accuracy", self.test_accuracy.compute(), logger=False)
        self.confusion = self.test_confusion.compute().cpu()
        self.test_accuracy.reset()
        self.test_confusion.reset()
