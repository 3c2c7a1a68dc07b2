"""Drives an ASGI application by hand: bodies in parts, clients that leave, answers that stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.framework.openapi import Exchange, check

__all__ = ["Answer", "request"]

Message = MutableMapping[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass
class Answer:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The problem's code, which its type ends in."""
        assert self.json["type"] == f"/v1/problems/{self.json['code']}"
        return str(self.json["code"])

    @property
    def pointers(self) -> list[str]:
        """The fields at fault."""
        return [error["pointer"] for error in self.json["errors"]]


async def request(
    application: Application,
    method: str,
    path: str,
    *,
    token: str | None = "mica_root_secret",
    headers: Mapping[str, str] | None = None,
    body: bytes | Sequence[bytes] = b"",
    leave: bool = False,
    leave_after_answer_s: float | None = None,
) -> Answer:
    """One request; `leave` goes away after the last part instead of ending the body."""
    parts = [body] if isinstance(body, bytes) else list(body)
    sent = {"host": "test", **(headers or {})}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    if body and "content-length" not in sent and "transfer-encoding" not in sent:
        sent["content-length"] = str(sum(map(len, parts)))
    raw_path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": raw_path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "client": ("192.0.2.1", 4711),
    }
    queue: asyncio.Queue[Message] = asyncio.Queue()
    for number, part in enumerate(parts):
        last = number == len(parts) - 1 and not leave
        queue.put_nowait({"type": "http.request", "body": part, "more_body": not last})
    if leave:
        queue.put_nowait({"type": "http.disconnect"})
    answer = Answer()
    answered = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            answered.set()
        else:
            answer.body += message.get("body", b"")
            answer.whole = not message.get("more_body", False)

    async def go_away() -> None:
        await answered.wait()
        await asyncio.sleep(leave_after_answer_s or 0)
        queue.put_nowait({"type": "http.disconnect"})

    leaving = asyncio.create_task(go_away()) if leave_after_answer_s is not None else None
    try:
        await application(scope, queue.get, send)
    finally:
        if leaving is not None:
            leaving.cancel()
    if answer.status:
        _check(method, raw_path, query, sent, parts, answer)
    return answer


def _check(
    method: str,
    path: str,
    query: str,
    sent: Mapping[str, str],
    parts: Sequence[bytes],
    answer: Answer,
) -> None:
    streams = answer.headers.get("content-type", "").startswith("text/event-stream")
    check(
        Exchange(
            method=method,
            path=path,
            query=query,
            request_headers={name.lower(): value for name, value in sent.items()},
            request_body=b"".join(parts) or None,
            status=answer.status,
            headers=answer.headers,
            body=None if streams else answer.body,
        )
    )
