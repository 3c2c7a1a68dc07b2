"""Whether the API answers, seen from outside its process: it must take a connection and react."""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["api_answers"]

_TIMEOUT_S = 2.0


async def api_answers(port: int = 443, host: str = "127.0.0.1") -> bool:
    """Send something that is not TLS; a running server refuses it at once.

    An open port proves nothing: PID 1 holds it before the API has started.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"\n" * 16)
                await reader.read(1)
                return True
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        return isinstance(error, ConnectionResetError)
