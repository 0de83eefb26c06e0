"""Which checkpoint a run continues from, and whether it fits."""

from __future__ import annotations

from pathlib import Path

import torch

from mln_lightning.data import NoisyLabelDataModule
from mln_lightning.models import NoisyLabelModule


def checkpoint_to_resume(ckpt_path: str | None, run_dir: Path) -> Path | None:
    """The checkpoint a run starts from: the named one, else the folder's last one, else none."""
    if ckpt_path not in (None, "last"):
        return Path(ckpt_path)
    last = run_dir / "last.ckpt"
    return last if ckpt_path == "last" or last.exists() else None


def check_checkpoint(
    path: Path,
    model: NoisyLabelModule,
    data: NoisyLabelDataModule,
    *,
    max_epochs: int | None = None,
) -> None:
    """Refuse a checkpoint of another network, method or data set, or of a longer run.

    Raises:
        ValueError: says what differs.
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}; give the path of a .ckpt file.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state, trained_on = saved["state_dict"], saved[type(data).__qualname__]
        epoch = int(saved["epoch"])
    except Exception as error:  # a file of another kind may fail in any way
        raise ValueError(
            f"{path} is not a checkpoint of a run, or is damaged ({type(error).__name__}); "
            "delete it to start from the beginning."
        ) from error
    data.load_state_dict(trained_on)  # refuses other data
    if max_epochs is not None and 0 <= max_epochs <= epoch:
        raise ValueError(
            f"{path} was saved in epoch {epoch + 1} and trainer.max_epochs is {max_epochs}; raise "
            "that, or start anew."
        )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    saved_shapes = {name: tuple(value.shape) for name, value in state.items()}
    if shapes != saved_shapes:
        different = sorted(
            name
            for name in shapes.keys() | saved_shapes.keys()
            if shapes.get(name) != saved_shapes.get(name)
        )
        raise ValueError(
            f"{path} belongs to another model or network: {len(different)} of its tensors differ, "
            f"the first is {different[0]}; resume with the same model and model/network."
        )
