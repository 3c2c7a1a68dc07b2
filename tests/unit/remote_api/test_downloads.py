"""Downloads that break off: what comes is whole, and of one file."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from remote_api.client.errors import UnexpectedError, UnreachableError
from remote_api.client.http.transport import Download
from remote_api.client.sdk import Mica

OLD, NEW = bytes(range(100)), bytes(range(100, 180))


class Host:
    """Breaks off after some bytes of each answer; the file is another one from an answer on."""

    def __init__(self, piece: int, changes_at: int = 10**9) -> None:
        self.piece, self.changes_at, self.asked = piece, changes_at, 0

    @contextmanager
    def download(self, _: str, *, headers: Mapping[str, str]) -> Iterator[Download]:
        self.asked += 1
        data, etag = (NEW, '"new"') if self.asked >= self.changes_at else (OLD, '"old"')
        start, end, status = 0, len(data), 200
        if headers.get("if-range") == etag:
            first, _, last = headers["range"].removeprefix("bytes=").partition("-")
            start, end, status = int(first), int(last) + 1, 206

        def parts() -> Iterator[bytes]:
            if self.piece:
                yield data[start : min(end, start + self.piece)]
            if start + self.piece < end:
                raise UnreachableError("gone")

        yield Download(status=status, etag=etag, length=end - start, parts=parts())


def _mica(host: Any, monkeypatch: pytest.MonkeyPatch) -> Mica:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    mica = Mica("127.0.0.1:1")
    mica.transport = host
    return mica


@pytest.mark.parametrize("piece", [1, 7, 100, 1000])
def test_a_stream_goes_on_where_it_broke_off(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host, stream = Host(piece), io.BytesIO()
    told: list[int] = []
    _mica(host, monkeypatch).download_volume("v", stream, on_bytes=told.append)
    assert stream.getvalue() == OLD
    assert sum(told) == len(OLD)
    assert host.asked == -(-len(OLD) // piece)


def test_a_stream_of_a_file_that_changes_is_no_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnexpectedError, match="changed during the download"):
        _mica(Host(30, changes_at=2), monkeypatch).download_volume("v", io.BytesIO())


def test_a_host_that_is_gone_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(0)
    with pytest.raises(UnreachableError):
        _mica(host, monkeypatch).download_volume("v", io.BytesIO())
    assert host.asked == 9
