"""Dry runs: a request is checked as always, and ends where it would begin to change something.

    handler -> checks -> ending(what it would answer) -> changes
                              |
                              +- in a dry run: DryRunEnd, which the control server answers

A request that has a dry run passes `ending` before its first change. What writes files refuses to
do so in a dry run (`forbid`), so that a request that forgets it fails and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["DryRunEnd", "dry", "ending", "forbid", "run_dry"]

_DRY: ContextVar[bool] = ContextVar("dry_run", default=False)


class DryRunEnd(BaseException):
    """The end of a dry run: all checks have passed; carries what the request would answer."""

    def __init__(self, answer: object) -> None:
        super().__init__("the end of a dry run")
        self.answer = answer


@contextmanager
def run_dry(wanted: bool) -> Iterator[None]:
    """Whether what is called in the block, tasks and threads that it starts included, is a dry
    run."""
    token = _DRY.set(wanted)
    try:
        yield
    finally:
        _DRY.reset(token)


def dry() -> bool:
    """True in a dry run."""
    return _DRY.get()


def ending(answer: object) -> None:
    """End a dry run here with the answer; otherwise nothing."""
    if _DRY.get():
        raise DryRunEnd(answer)


def forbid() -> None:
    """Raise RuntimeError in a dry run: a request has passed its checks and goes on."""
    if _DRY.get():
        raise RuntimeError("a dry run would change something")
