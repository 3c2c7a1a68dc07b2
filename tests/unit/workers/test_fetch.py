"""Fetching from servers: what may be asked for, and what comes of servers that lie or break."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.framework.web_server import WebServer, web_server
from vmkernel.workers import outbound
from vmkernel.workers.fetch import Job, fetch
from vmkernel.workers.outbound import judge_url
from vmkernel.workers.report import Refusal, Report

MIB = 1 << 20
DATA = os.urandom(2 * MIB + 100)


class _Silent(Report):
    def progress(self, done: int, total: int) -> None:
        """Nobody asks."""


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A server on loopback."""
    with web_server({"file": DATA}) as web:
        yield web


def _fetch(web: WebServer, path: str, target: Path, **fields: object) -> tuple[Job, str]:
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    values: dict[str, object] = {
        "url": f"http://{web.address}{path}",
        "target": fd,
        "max_bytes": 1 << 30,
        "allow_loopback": True,
        "pauses_s": (0.01, 0.01, 0.01),
        **fields,
    }
    job = Job(report=_Silent(), **values)  # type: ignore[arg-type]
    try:
        return job, fetch(job)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/y",
        "file:///etc/passwd",
        "http:///x",
        "http://x:99999/",
        "http://x:0/",
        "http://u@x/",
        "http://x/a b",
        "http://x/\r\nHost: y",
        "http://[::1",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Refusal):
        judge_url(url)


def test_a_whole_file_with_and_without_ranges(web: WebServer, tmp_path: Path) -> None:
    for path in ("/file/file", "/plain/file", "/break/file"):
        job, url = _fetch(web, path, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == DATA
        assert job.done == job.total == len(DATA)
        assert url.endswith(path)


def test_a_server_that_announces_more_than_it_has(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        _fetch(web, "/longer/file", tmp_path / "got")
    assert refused.value.code in ("truncated", "unavailable", "invalid")


def test_a_server_that_is_not_there(tmp_path: Path, web: WebServer) -> None:
    with pytest.raises(Refusal) as refused:
        _fetch(web, "", tmp_path / "got", url="http://127.0.0.1:1/x")
    assert refused.value.code == "unavailable"
    with pytest.raises(Refusal, match="this host itself"):
        _fetch(web, "/file/file", tmp_path / "got", allow_loopback=False)


def test_limits_and_odd_answers(web: WebServer, tmp_path: Path) -> None:
    for path, words in (
        ("/status/404", "answers 404"),
        ("/status/503", "answers 503"),
        ("/loop/x", "more than 5 times"),
        ("/to/ftp://x/", "scheme 'ftp'"),
        ("/encoded/file", "encodes"),
    ):
        with pytest.raises(Refusal, match=words):
            _fetch(web, path, tmp_path / "got")
    with pytest.raises(Refusal) as refused:
        _fetch(web, "/file/file", tmp_path / "got", max_bytes=MIB)
    assert refused.value.code == "insufficient-space"


def test_an_address_that_changed_its_mind_is_refused_at_connect_time(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False])
    monkeypatch.setattr(outbound, "judge_address", lambda *_, **__: next(answers))
    with pytest.raises(Refusal, match="is this host itself"):
        _fetch(web, "/plain/file", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


def test_a_connection_to_ourselves_is_noticed_whatever_was_judged(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "judge_address", lambda *_, **__: True)
    with pytest.raises(Refusal, match="is this host itself"):
        _fetch(web, "/plain/file", tmp_path / "out", allow_loopback=False)
