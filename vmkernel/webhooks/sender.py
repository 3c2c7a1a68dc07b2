"""Sends by a confined worker: the vmkernel makes no connection to a receiver itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import msgspec

from vmkernel.host.worker import Confinement, Workers
from vmkernel.model import MicaError
from vmkernel.text import clean
from vmkernel.webhooks.target import Message, Receipt

__all__ = ["Sender"]

_PLACES = 8
"""Workers at once, of about 20 MiB each; a receiver that hangs has one for 15 s, then pauses."""
_MEMORY_BYTES = 512 << 20
"""Of address space, as for fetching images: Python with TLS maps 200 MiB."""
_TIMEOUT_S = 45.0
"""A worker begins no message after 15 s, and each may take 15 s and its TLS."""


class Sender:
    """Shared by all webhooks."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._places = asyncio.Semaphore(_PLACES)

    async def send(self, url: str, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Send messages one after the other until one is not taken; never raises MicaError."""
        taken = 0

        def count(done: int, _total: int) -> None:
            nonlocal taken
            taken = min(done, len(messages))

        async with self._places:
            fd = os.memfd_create("webhook", os.MFD_CLOEXEC)
            try:
                os.pwrite(fd, _encoded(messages), 0)
                outcome = await self._workers.run(
                    "deliver",
                    {
                        "url": url,
                        "messages": fd,
                        "allow_loopback": self._workers.allow_loopback,
                    },
                    Confinement(memory_bytes=_MEMORY_BYTES, network=True),
                    fds=(fd,),
                    user=self._workers.pull_uid,
                    on_progress=count,
                    timeout_s=_TIMEOUT_S,
                )
            except MicaError as error:
                # Those that it said were taken were; the next one was not, as far as is known.
                return [*[Receipt(status=200)] * taken, Receipt(error=clean(str(error), 500))][
                    : len(messages)
                ]
            finally:
                os.close(fd)
        receipts = [
            Receipt(
                status=each.status,
                error=None if each.error is None else clean(each.error, 500),
                retry_after_s=each.retry_after_s,
            )
            for each in outcome.receipts
        ]
        return receipts or [Receipt(error="The worker said nothing.")]


def _encoded(messages: Sequence[Message]) -> bytes:
    return msgspec.json.encode(
        [{"headers": each.headers, "body": each.body.decode()} for each in messages]
    )
