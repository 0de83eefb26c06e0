"""Which operator lacks the derivative that a back end needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.autograd.graph import Node

_MESSAGE = re.compile(
    r"forward AD with (?P<forward>\S+) that does not support it"
    r"|derivative for (?P<backward>\S+) is not implemented"
    r"|implement the jvp function for custom autograd"
)


@once_differentiable
def _sample(ctx: Any) -> None:
    """Shows the code object that all functions with this mark share."""


def missing_operator(error: RuntimeError) -> str | None:
    """The operator whose derivative torch says is missing; None for any other error."""
    found = _MESSAGE.search(str(error))
    if found is None:
        return None
    operator: str | None = found["forward"] or found["backward"]
    if operator is not None:
        return operator
    # Custom functions are not named in the message, but they are in the traceback.
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, BackwardCFunction):
            return _name(owner)
        trace = trace.tb_next
    return "a custom autograd function"


def refuse_once_differentiable(output: Tensor) -> None:
    """Raise for custom functions in the graph that forbid a second derivative.

    torch raises only if the second pass comes by the mark; a pass towards selected tensors leaves
    the marked part out without a word, and the result would be wrong.

    Raises:
        NotImplementedError: there is one.
    """
    for node in _nodes(output):
        if isinstance(node, BackwardCFunction) and _marked(node._forward_cls.backward):
            raise NotImplementedError(f"the derivative for {_name(node)} is not implemented")


def _nodes(output: Tensor) -> Iterator[Node]:
    waiting = [output.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
            yield node


def _marked(function: Callable[..., Any] | None) -> bool:
    while function is not None:
        if function.__code__ is _sample.__code__:
            return True
        function = vars(function).get("__wrapped__")
    return False


def _name(node: BackwardCFunction) -> str:
    return type(node).__name__.removesuffix("Backward")
