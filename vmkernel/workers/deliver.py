"""Send messages to one receiver by POST, one after the other, until one is not taken.

JOB: url, messages (descriptor of JSON: a list of {headers, body}), allow_loopback.
Outcome: receipts, one for each message that was tried; `done` tells how many were taken.

Connected as workers/outbound.py says; each message has a connection of its own. Redirects are not
followed: a receiver that moved is given its new URL by whoever may. Of an answer only the head is
read: this process is what a receiver may attack, and everything beyond its status is ignored.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from typing import Any
from urllib.parse import SplitResult

import h11

from vmkernel.workers.outbound import BrokenError, connected, judge_url, untrusted, words_of
from vmkernel.workers.report import Refusal, run, say

__all__ = ["deliver", "main"]

_CONNECT_S = 5.0
_ANSWER_S = 15.0
"""From the connection to the head of the answer. A receiver that has more to do answers first."""
_BUDGET_S = 15.0
"""After so long no further message is begun."""
_MAX_MESSAGES_BYTES = 2 << 20
_HEAD_BYTES = 32 << 10
_PART_BYTES = 16 << 10


def deliver(
    url: str,
    messages: list[dict[str, Any]],
    *,
    allow_loopback: bool,
    answer_s: float = _ANSWER_S,
    budget_s: float = _BUDGET_S,
) -> list[dict[str, Any]]:
    """What became of each message that was tried."""
    begun = time.monotonic()
    receipts: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        if number and time.monotonic() - begun > budget_s:
            break
        receipt = _attempt(url, message, allow_loopback, answer_s)
        receipts.append(receipt)
        if not 200 <= receipt.get("status", 0) < 300:
            break
        say({"done": number + 1, "total": len(messages)})
    return receipts


def _attempt(
    url: str, message: dict[str, Any], allow_loopback: bool, answer_s: float
) -> dict[str, Any]:
    try:
        parts = judge_url(url)
        with connected(parts, allow_loopback=allow_loopback, connect_s=_CONNECT_S) as sock:
            return _exchange(sock, parts, message, time.monotonic() + answer_s)
    except Refusal as refusal:
        return {"error": str(refusal)}
    except ssl.SSLCertVerificationError as error:
        return {"error": str(untrusted(error))}
    except TimeoutError:
        return {"error": f"The receiver did not answer within {answer_s:g} s."}
    except (BrokenError, OSError, h11.RemoteProtocolError) as error:
        return {"error": f"The receiver can't be reached: {words_of(error)}."}


def _exchange(
    sock: socket.socket, parts: SplitResult, message: dict[str, Any], end_s: float
) -> dict[str, Any]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
    body = message["body"].encode()
    request = h11.Request(
        method="POST",
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        headers=[
            ("Host", parts.netloc),
            ("User-Agent", "mica-webhooks"),
            ("Accept", "*/*"),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            *message["headers"].items(),
        ],
    )
    sent = b"".join(
        connection.send(each) or b"" for each in (request, h11.Data(data=body), h11.EndOfMessage())
    )
    _bound(sock, end_s)
    sock.sendall(sent)
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            _bound(sock, end_s)
            data = sock.recv(_PART_BYTES)
            if not data:
                raise BrokenError("it closed the connection without an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            return _receipt(event)


def _bound(sock: socket.socket, end_s: float) -> None:
    """The next call ends with the whole time, however slowly the receiver goes on."""
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    sock.settimeout(left_s)


def _receipt(response: h11.Response) -> dict[str, Any]:
    receipt: dict[str, Any] = {"status": response.status_code}
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 9:
            receipt["retry_after_s"] = int(value)
    return receipt


def main(argv: list[str]) -> int:
    """The program."""

    def work(given: dict[str, Any]) -> dict[str, Any]:
        data = os.pread(given["messages"], _MAX_MESSAGES_BYTES, 0)
        return {
            "receipts": deliver(
                given["url"], json.loads(data), allow_loopback=given["allow_loopback"]
            )
        }

    return run(work, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
