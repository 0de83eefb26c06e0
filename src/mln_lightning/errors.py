"""The two ways a run ends early on purpose: the user asked for something impossible, or to stop."""

from __future__ import annotations

import signal
from pathlib import Path

from mln_lightning.files import shown


class UserError(Exception):
    """One sentence: what was wrong, the value, what is allowed, what to do. Exit code 2."""


class RunStopped(BaseException):
    """A signal stopped the run; like `KeyboardInterrupt`, nothing on the way may swallow it.

    Args:
        signum: the signal's number, such as `signal.SIGINT`.
        checkpoint: where the run will continue; None when there is none yet.
    """

    def __init__(self, signum: int, checkpoint: Path | None = None) -> None:
        self.signum = signum
        self.checkpoint = checkpoint
        name = signal.Signals(signum).name
        if checkpoint is None:
            sentence = f"Stopped by {name} before the first checkpoint; the same command starts it."
        else:
            sentence = f"Stopped by {name}; the same command continues from {shown(checkpoint)}."
        super().__init__(sentence)

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it."""
        return 128 + self.signum
