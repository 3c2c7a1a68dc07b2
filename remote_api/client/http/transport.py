"""HTTPS to one host: pinned certificate, bounded time, problems as exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec

from remote_api.client.errors import (
    MisuseError,
    RefusedError,
    TimedOutError,
    UnexpectedError,
    UnreachableError,
    UntrustedError,
)
from remote_api.client.http.names import check_path
from remote_api.client.http.pinning import PinnedContext, normal_address
from remote_api.client.http.reading import read
from remote_api.schema import Problem

__all__ = ["Answer", "Download", "LineStream", "Transport"]

T = TypeVar("T")
Parameters = Mapping[str, str | int | float | bool | Sequence[str] | None]

CONNECT_TIMEOUT_S = 10.0
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
ANSWER_TIMEOUT_S = 60.0


class Answer:
    """A successful answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.etag = response.headers.get("etag")
        self.event_id = response.headers.get("mica-event-id")
        """The last event before this was read."""
        self.location = response.headers.get("location")
        self.body: bytes = response.content
        self._headers = response.headers

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        value = self._headers.get(name)
        return None if value is None else str(value)

    def read(self, wire: type[T]) -> T:
        """The body as a wire type."""
        return read(self.body, wire)


@dataclass(frozen=True)
class Download:
    """An answer whose body is read as it arrives."""

    status: int
    """200 or 206."""
    etag: str | None
    length: int
    """Of this answer's body."""
    parts: Iterator[bytes]


@dataclass(frozen=True)
class LineStream:
    """A response of lines without an end."""

    event_id: str | None
    """The last event before it began."""
    lines: Iterator[str]


class Transport:
    """Sends requests to one host. Close it, or use it as a context."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        fingerprint: str | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        hooks: Mapping[str, list[Any]] | None = None,
    ) -> None:
        """A way to the host at `address`.

        The host is trusted by `fingerprint`; by the system's certificate authorities without one.
        """
        if token is not None and not _TOKEN.match(token):
            raise MisuseError(
                "the token is empty or contains invalid characters; copy it as it was issued"
            )
        self.address = normal_address(address)
        self.fingerprint = fingerprint
        self._token = token
        self._timeout_s = timeout_s
        self._pinned = None if fingerprint is None else PinnedContext(fingerprint)
        self._client = httpx.Client(
            base_url=self.address,
            verify=self._pinned or True,
            timeout=self._timeout(timeout_s),
            trust_env=False,
            follow_redirects=False,
            event_hooks=dict(hooks or {}),
            headers={"user-agent": "mica-client"},
        )

    def trust(self, fingerprint: str) -> None:
        """Pin another certificate, from the next connection on."""
        self.fingerprint = fingerprint
        if self._pinned is not None:
            self._pinned.pin(fingerprint)

    @property
    def authorization(self) -> dict[str, str]:
        """The header that carries the token."""
        return {} if self._token is None else {"authorization": f"Bearer {self._token}"}

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters | None = None,
        body: msgspec.Struct | dict[str, Any] | None = None,
        content: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> Answer:
        """One exchange. Raises ClientError."""
        check_path(path)
        sent = {**self.authorization, **(headers or {})}
        data: Any = content
        if body is not None:
            data = msgspec.json.encode(body)
            sent.setdefault("content-type", "application/json")
        with _failures(self.address):
            response = self._client.request(
                method,
                path,
                params=_parameters(parameters),
                content=data,
                headers=sent,
                timeout=self._timeout(self._timeout_s + wait_s),
            )
        _check(response)
        return Answer(response)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        headers: Mapping[str, str],
        idle_timeout_s: float,
        parameters: Sequence[tuple[str, str]] = (),
    ) -> Iterator[LineStream]:
        """An endless answer, line by line."""
        with self._open(path, headers, idle_timeout_s, (200,), parameters) as response:
            yield LineStream(
                event_id=response.headers.get("mica-event-id"), lines=response.iter_lines()
            )

    @contextmanager
    def download(
        self, path: str, *, headers: Mapping[str, str], idle_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> Iterator[Download]:
        """The body of a GET, read as it arrives."""
        with self._open(path, headers, idle_timeout_s, (200, 206)) as response:
            yield Download(
                status=response.status_code,
                etag=response.headers.get("etag"),
                length=int(response.headers.get("content-length", "-1")),
                parts=response.iter_bytes(1 << 18),
            )

    @contextmanager
    def _open(
        self,
        path: str,
        headers: Mapping[str, str],
        idle_timeout_s: float,
        good: tuple[int, ...],
        parameters: Sequence[tuple[str, str]] = (),
    ) -> Iterator[httpx.Response]:
        check_path(path)
        with _failures(self.address):
            with self._client.stream(
                "GET",
                path,
                params=list(parameters),
                headers={**self.authorization, **headers},
                timeout=self._timeout(idle_timeout_s),
            ) as response:
                if response.status_code not in good:
                    response.read()
                    _check(response)
                    raise UnexpectedError(f"unexpected status {response.status_code} for {path}")
                yield response

    @staticmethod
    def _timeout(answer_s: float) -> httpx.Timeout:
        return httpx.Timeout(
            connect=min(CONNECT_TIMEOUT_S, answer_s),
            read=answer_s,
            write=min(ANSWER_TIMEOUT_S, answer_s),
            pool=answer_s,
        )


@contextmanager
def _failures(address: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOutError(
            f"{address} did not answer in time; try again, or give a longer --timeout"
        ) from error
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise UntrustedError(
                f"the certificate of {address} is signed by no authority that this computer"
                " trusts; pin it by its fingerprint: set MICA_FINGERPRINT, or use a context"
            ) from error
        raise UnreachableError(f"{address} can't be reached: {error}") from error
    except httpx.TransportError as error:
        raise UnreachableError(f"{address} can't be reached: {error}") from error


def _check(response: httpx.Response) -> None:
    if response.status_code < 300:
        return
    if response.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        raise UnexpectedError(
            f"{response.request.url.host} answered {response.status_code} and not like a Mica host;"
            " check the address"
        )
    raise RefusedError(read(response.content, Problem))


def _parameters(parameters: Parameters | None) -> dict[str, str | list[str]]:
    written: dict[str, str | list[str]] = {}
    for name, value in (parameters or {}).items():
        if isinstance(value, bool):
            written[name] = "true" if value else "false"
        elif isinstance(value, Sequence) and not isinstance(value, str):
            written[name] = list(value)  # repeated
        elif value is not None:
            written[name] = str(value)
    return written
