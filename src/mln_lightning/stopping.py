"""SIGINT and SIGTERM end a run in a sentence, wherever it is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mln_lightning.errors import RunStopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable(checkpoint: Path | None) -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise `RunStopped` at once.

    All files of a run appear complete or not at all, so it may be left anywhere; while it trains,
    the `Checkpoint` callback takes the signals over to save the step first.

    Args:
        checkpoint: where the run will continue, if that exists by then; None where that is not a
            single file.

    Raises:
        RunStopped: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # an impatient second Ctrl-C adds nothing
        raise RunStopped(number, checkpoint if checkpoint and checkpoint.exists() else None)

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
