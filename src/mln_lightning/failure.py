"""What is said and kept of an error."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass

from mln_lightning.errors import UserError


@dataclass(frozen=True)
class Failure:
    """How a run failed, in a form that other processes can read.

    Attributes:
        sentence: what to tell the user; None for an error that only its traceback explains.
        trace: the traceback, or what else is known.
        exit_code: 2 if the request was wrong, else 1.
    """

    sentence: str | None
    trace: str
    exit_code: int

    @property
    def line(self) -> str:
        """The sentence, or else the last line of the traceback."""
        return self.sentence or self.trace.strip().rpartition("\n")[2]


class ProcessFailedError(Exception):
    """One of the processes of a run failed, and the run with it.

    Args:
        failure: of the process that failed first.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.line)


def describe(error: Exception) -> Failure:
    """What to say and keep of an error."""
    if isinstance(error, ProcessFailedError):
        return error.failure
    trace = "".join(traceback.format_exception(error))
    if lost := _lost_connection(error):
        return Failure(lost, trace, exit_code=1)
    text = sentence(error)
    return Failure(text, trace, exit_code=1 if text is None else 2)


def sentence(error: Exception) -> str | None:
    """What to tell the user, or None for an error only a traceback explains."""
    from hydra.errors import InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException  # imports torch

    cause: BaseException | None = error
    while isinstance(cause, InstantiationException):
        cause = cause.__cause__
    match cause:
        case UserError() | ValueError() | MisconfigurationException():
            text = str(cause)
        case OSError(filename=None) | OSError(strerror=None):
            text = cause.strerror or str(cause)
        case OSError():
            text = f"cannot use {cause.filename}: {cause.strerror}"
        case TypeError() if isinstance(error, InstantiationException):  # wrong constructor argument
            where = str(error).rpartition("full_key: ")[2]
            text = f"{where}: {cause}"
        case Exception() if type(cause).__module__.startswith("wandb."):  # not imported for this
            text = f"Weights & Biases: {cause} logger.offline=true needs no account."
        case _:
            return None
    return " ".join(text.split())


def _lost_connection(error: Exception) -> str | None:
    """What to say if the error only tells that another process has gone."""
    if not isinstance(error, RuntimeError):
        return None
    from torch import distributed

    # gloo has no exception of its own: its errors name the file of its sources that noticed.
    if not (
        "gloo/transport" in str(error)
        or (distributed.is_available() and isinstance(error, distributed.DistError))
    ):
        return None
    reason = re.sub(r"^\[\S+\]\s*", "", str(error).strip().partition("\n")[0])
    return (
        f"The processes of the run cannot reach each other any more: {reason}. Another may have "
        "ended and said why."
    )
