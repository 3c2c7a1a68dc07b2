"""What every area of the SDK is made of: one call, a list, an operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from remote_api.client.errors import OperationFailedError, TimedOutError
from remote_api.client.http.transport import ANSWER_TIMEOUT_S, Answer, Transport
from remote_api.client.sdk.queries import parameters_of
from remote_api.schema import PageOf
from vmkernel.model import Operation, OperationState

__all__ = ["CREATE", "Calls", "MERGE_PATCH", "OnBytes", "OnProgress", "POLL_S"]

T = TypeVar("T")
OnBytes = Callable[[int], None]
"""Called with the number of bytes sent or received since the last call."""
OnProgress = Callable[[Operation], None]

CREATE = {"if-none-match": "*"}
MERGE_PATCH = {"content-type": "application/merge-patch+json"}
POLL_S = 1.0
_PAGE = 200


class Calls:
    """What every area of the SDK is made of: one call, a list, an operation."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        fingerprint: str | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        hooks: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """A client of the host at `address`, trusted by `fingerprint` (see Transport)."""
        self.transport = Transport(
            address, token=token, fingerprint=fingerprint, timeout_s=timeout_s, hooks=hooks
        )

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def operation(self, operation_id: str, *, wait_s: float = 0.0) -> Operation:
        """One operation, once it has finished or the wait is over."""
        return self.transport.send(
            "GET", f"/v1/operations/{operation_id}", parameters={"wait": wait_s}, wait_s=wait_s
        ).read(Operation)

    def wait(
        self,
        operation: Operation,
        *,
        timeout_s: float = 3600.0,
        on_progress: OnProgress | None = None,
    ) -> Operation:
        """The operation once it has succeeded.

        Raises OperationFailedError if it fails, TimedOutError if it still runs then.
        """
        end = time.monotonic() + timeout_s
        poll_s = POLL_S if on_progress else 30.0
        while not operation.state.finished:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TimedOutError(
                    f"timed out: operation {operation.id} ({operation.kind}) still runs"
                    f" after {timeout_s:g} s"
                )
            operation = self.operation(operation.id, wait_s=min(poll_s, left_s))
            if on_progress is not None:
                on_progress(operation)
        if operation.state is not OperationState.SUCCEEDED:
            raise OperationFailedError(operation)
        return operation

    def _operation(
        self,
        method: str,
        path: str,
        *,
        body: msgspec.Struct | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: str | float | bool | None,
    ) -> Operation:
        answer: Answer = self.transport.send(
            method, path, body=body, headers=headers, parameters=parameters
        )
        return answer.read(Operation)

    def in_part(
        self, path: str, *, fields: str | Iterable[str] = "", view: str = "full", **query: object
    ) -> Iterator[dict[str, Any]]:
        """The items of a list by the path of the API, with some of their members only: those of
        `fields`, or with `view="summary"` those of a table."""
        wanted: dict[str, object] = {**query, "view": view}
        if fields:
            wanted["fields"] = fields
        return self._all(path, PageOf[dict[str, Any]], wanted)

    def _all(
        self, path: str, page_type: type[Any], query: Mapping[str, object] | None = None
    ) -> Iterator[Any]:
        parameters = parameters_of(query or {})
        token: str | None = None
        while True:
            page = self.transport.send(
                "GET", path, parameters={"limit": _PAGE, "page": token, **parameters}
            ).read(page_type)
            yield from page.items
            token = page.next
            if token is None:
                return
