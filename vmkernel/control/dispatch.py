"""The table of request types and their handlers."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vmkernel.auth.caller import Caller
from vmkernel.control.requests import Done, Request
from vmkernel.dry_run import DryRunEnd, run_dry
from vmkernel.model import ErrorCode, MicaError

__all__ = ["Dispatcher", "Handler", "Streamed"]

Handler = Callable[[Any, Caller], Awaitable[object]]
HandlerT = TypeVar("HandlerT", bound=Handler)


@dataclass(frozen=True)
class Streamed:
    """A reply with a stream; the server sends the socket on and closes its copy."""

    value: object
    stream: socket.socket


class Dispatcher:
    def __init__(self) -> None:
        self._handlers: dict[type[Request[Any]], Handler] = {}

    def handler(self, handle: HandlerT) -> HandlerT:
        """Decorator: register this function for the type of its first parameter."""
        first = next(iter(inspect.signature(handle).parameters.values())).annotation
        kind = handle.__globals__[first] if isinstance(first, str) else first
        self.register(kind, handle)
        return handle

    def register(self, kind: type[Request[Any]], handle: Handler) -> None:
        """Register the only handler of a request type."""
        if kind in self._handlers:
            raise ValueError(f"{kind.__name__} has a handler already")
        self._handlers[kind] = handle

    @property
    def names(self) -> tuple[str, ...]:
        """The wire tags of the requests that are handled, sorted."""
        return tuple(sorted(str(kind.__struct_config__.tag) for kind in self._handlers))

    async def handle(
        self, request: Request[Any], caller: Caller, *, dry_run: bool = False
    ) -> object:
        """Answer one authorised request, or say what a change would answer."""
        handler = self._handlers.get(type(request))
        if handler is None:
            raise MicaError(
                ErrorCode.UNSUPPORTED, f"This host does not support {request_name(request)}."
            )
        if not dry_run or type(request).READ_ONLY:
            return await handler(request, caller)
        if not type(request).DRY_RUN:
            raise MicaError(
                ErrorCode.UNSUPPORTED, f"{request_name(request)} has no dry run; omit `dry_run`."
            )
        with run_dry(True):
            try:
                return await handler(request, caller)
            except DryRunEnd as end:
                return Done() if end.answer is None else end.answer


def request_name(request: Request[Any]) -> str:
    """The wire tag of a request, for logs and the audit trail."""
    return str(type(request).__struct_config__.tag)
