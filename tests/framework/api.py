"""The tests' client of a host: the SDK, every exchange held against the OpenAPI document."""

from __future__ import annotations

import httpx

from remote_api.client.sdk import Mica
from tests.framework.openapi import Exchange, check

__all__ = ["check_response", "checked_client", "checked_mica"]


def checked_mica(
    address: str,
    *,
    token: str | None = None,
    fingerprint: str | None = None,
    timeout_s: float = 60.0,
) -> Mica:
    """The SDK on a host."""
    return Mica(
        address,
        token=token,
        fingerprint=fingerprint,
        timeout_s=timeout_s,
        hooks={"response": [check_response]},
    )


def checked_client(mica: Mica, *, authorized: bool = True) -> httpx.Client:
    """A bare HTTP client of the same host, for requests that the SDK would never send."""
    from remote_api.client.http.pinning import PinnedContext

    assert mica.transport.fingerprint is not None
    return httpx.Client(
        base_url=mica.transport.address,
        verify=PinnedContext(mica.transport.fingerprint),
        trust_env=False,
        timeout=60.0,
        headers=mica.transport.authorization if authorized else {},
        event_hooks={"response": [check_response]},
    )


def check_response(response: httpx.Response) -> None:
    """Hold an answer and its request against the document; a hook for httpx."""
    request = response.request
    streams = response.headers.get("content-type", "").startswith("text/event-stream")
    try:
        sent: bytes | None = request.content
    except httpx.RequestNotRead:
        sent = None
    check(
        Exchange(
            method=request.method,
            path=request.url.path,
            query=request.url.query.decode("ascii"),
            request_headers=request.headers,
            request_body=sent or None,
            status=response.status_code,
            headers=response.headers,
            body=None if streams else response.read(),
        )
    )
