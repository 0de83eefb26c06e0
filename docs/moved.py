"""Draw docs/moved.png: photos in wrong folders, and the surest corrections of a run.

    MLN_DATA_DIR=<folder with FashionMNIST/> python docs/moved.py

Took 8.5 minutes on one busy core of an AMD EPYC (2026-11-21).
Fashion-MNIST is MIT licensed (Zalando SE).
"""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from mln_lightning.datasets import fashion_mnist

CLASSES = {"T-shirt": 0, "dress": 3, "coat": 4, "sneaker": 7, "bag": 8}
EACH, VERIFIED, WRONG = 300, 18, 0.25


def main() -> None:
    train = fashion_mnist(os.environ["MLN_DATA_DIR"]).train
    draws = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        photos, verified = Path(folder, "photos"), []
        for name in CLASSES:
            (photos / name).mkdir(parents=True)
        for name, number in CLASSES.items():
            rows = (train.labels == number).nonzero().squeeze(1)[:EACH].tolist()
            for place, row in enumerate(rows):
                others = [other for other in CLASSES if other != name]
                seen = draws.choice(others) if draws.random() < WRONG else name
                path = photos / seen / f"{row:05d}.png"
                Image.fromarray(train.images[row, 0].numpy()).save(path)
                if place < VERIFIED:
                    verified.append((path.relative_to(photos).as_posix(), name))
        with Path(folder, "verified.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *verified])
        command = [
            *(sys.executable, "-m", "mln_lightning.run", "dataset=folder"),
            *("dataset.source.folder=photos", "dataset.source.verified=verified.csv"),
            *("dataset.source.image_format.size=28", "dataset.source.image_format.channels=1"),
            *("model/network=small_cnn", "dataset.num_workers=0", "trainer.accelerator=cpu"),
        ]
        subprocess.run(command, cwd=folder, check=True)
        (run_dir,) = (path.parent for path in Path(folder).rglob("results.json"))
        with (run_dir / "labels.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        for column in ("observed_label", "corrected_label"):
            right = sum(
                CLASSES[line[column]] == int(train.labels[int(Path(line["path"]).stem)])
                for line in lines
            )
            print(f"{column}: {right} of {len(lines)} right, {100 * right / len(lines):.1f} %")
        shutil.copy(run_dir / "moved.png", Path(__file__).with_name("moved.png"))


if __name__ == "__main__":
    main()
