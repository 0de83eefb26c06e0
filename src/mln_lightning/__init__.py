"""Train on wrong image labels with a few hundred you trust.

Importing this package imports nothing heavy: torch and Lightning load with the submodule you use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mln_lightning.export import TrainedClassifier

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(run_dir: str | Path) -> TrainedClassifier:
    """The trained classifier of a finished run, ready for new images.

    See `mln_lightning.export.load`.
    """
    from mln_lightning.export import load as load_run

    return load_run(run_dir)
