"""Draws docs/noise/<kind>.png: what each kind of label noise looks like.

Run: python docs/noise_pictures.py [folder] [kind …]. It reads Fashion-MNIST from MLN_DATA_DIR (or
data/), and beside it the published teacher scores, student_logits/fashion_mnist.npy, and CIFAR-10N,
cifar-n/CIFAR-10_human.pt. Of CIFAR it shows no image: those have no licence.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from PIL import Image

from mln_lightning.config import compose
from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.export import export_noise
from mln_lightning.noise import noise_rate
from mln_lightning.pictures import noise_figure, save_figure
from mln_lightning.seeding import generator
from mln_lightning.unpickle import load_arrays

DATA = Path(os.environ.get("MLN_DATA_DIR", "data"))
FASHION: dict[str, tuple[str, ...]] = {  # kind of noise: what its command says besides
    "sym": (),
    "asym": (),
    "pair": (),
    "random_matrix": (),
    "instance": (),
    "teacher": (f"noise.scores={DATA / 'student_logits' / 'fashion_mnist.npy'}",),
    "cluster": (),
}
MATRIX_ONLY = {"superclass": "cifar100", "human": "cifar10"}


def fashion(kind: str) -> NoisyLabelDataModule:
    """Fashion-MNIST with 40 % noise, as ``noise=<kind>`` makes it."""
    cfg = compose(["dataset=fashion_mnist", f"noise={kind}", "rate=0.4", *FASHION[kind]])
    data: NoisyLabelDataModule = instantiate(cfg.dataset, _partial_=True)(
        noise=instantiate(cfg.noise)
    )
    data.setup()
    return data


def labels_alone(kind: str, path: Path) -> float:
    """Draw the matrix of a noise on CIFAR, whose images are not needed; returns the noise rate."""
    cfg = compose([f"dataset={MATRIX_ONLY[kind]}", f"noise={kind}"])
    info, noise = instantiate(cfg.dataset.info), instantiate(cfg.noise)
    if kind == "human":
        with zipfile.ZipFile(cfg.noise.file) as file, file.open(_pickle_in(file)) as content:
            clean = torch.from_numpy(load_arrays(content)["clean_label"]).long()
    else:
        clean = torch.arange(info.num_classes).repeat(info.num_train // info.num_classes)
    observed = noise(clean, generator=generator(0))
    figure = noise_figure(None, observed, clean, info, generator=generator(0))
    save_figure(figure, path)
    return noise_rate(observed, clean)


def _pickle_in(file: zipfile.ZipFile) -> str:
    return next(name for name in file.namelist() if name.endswith("/data.pkl"))


def main(folder: Path, kinds: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds or (*FASHION, *MATRIX_ONLY):
        path = folder / f"{kind}.png"
        if kind in MATRIX_ONLY:
            rate = labels_alone(kind, path)
        else:
            data = fashion(kind)
            export_noise(folder, data)
            (folder / "noise.png").replace(path)
            (folder / "noise.npz").unlink()
            rate = data.noise_rate or 0.0
        with Image.open(path) as picture:  # a third of the size
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{kind:<14} {100 * rate:.2f} % wrong, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "noise", sys.argv[2:])
