"""What the listener does with clients that are slow, broken or too many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from remote_api.client.errors import ClientError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica
from tests.hosted.raw import RawClient

pytestmark = pytest.mark.alone


def test_no_http_is_answered_by_a_problem(host: HostedMica) -> None:
    with RawClient(host) as raw:
        raw.socket.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert raw.status() == 400
        assert b"/v1/problems/malformed" in raw.rest()


def test_large_head_is_refused(host: HostedMica) -> None:
    with RawClient(host) as raw:
        raw.send("GET /v1 HTTP/1.1", *(f"X-{n}: {'a' * 1000}" for n in range(40)))
        assert raw.status() in (400, 431)


def test_silent_clients_are_let_go(host: HostedMica) -> None:
    parts = urlsplit(host.address)
    where = (str(parts.hostname), int(parts.port or 443))
    with socket.create_connection(where, 30) as silent, RawClient(host) as halting:
        began = time.monotonic()
        halting.socket.sendall(b"GET /v1 HTTP/1.1\r\nHost: te")
        assert silent.recv(1) == b""
        assert 2 < time.monotonic() - began < 8, "the handshake"
        assert halting.rest() == b""
        assert 8 < time.monotonic() - began < 18, "the request's head"


def test_silent_connections_cost_nothing_and_keep_nobody_out(host: HostedMica) -> None:
    parts = urlsplit(host.address)
    where = (str(parts.hostname), int(parts.port or 443))
    api = host.pid("remote_api")
    before = _rss_mib(api)
    with contextlib.ExitStack() as held:
        for number in range(600):
            source = (f"127.{number % 2 * 5}.0.1", 0)
            held.enter_context(socket.create_connection(where, 30, source_address=source))
            if number % 100 == 99:
                with host.client() as mica:
                    began = time.monotonic()
                    assert [store.id for store in mica.datastores()] == ["main"]
                    assert time.monotonic() - began < 2
        assert _rss_mib(api) - before < 10


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1 HTTP/1.1\nHost: test\n\n",
        b"GET /v1 HTTP/1.1\r\nHost: test\r\nX-A: b\r\n c\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: test\nX-A: b\r\n\r\n",
        b"POST /v1/claim HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1 HTTP/1.1\r\nHost: test\r\n\r\nGET /v1 HTTP/1.1\nHost: test\n\n",
    ],
)
def test_requests_whose_end_programs_disagree_on_are_refused(host: HostedMica, head: bytes) -> None:
    with RawClient(host) as raw:
        raw.socket.sendall(head)
        answers = raw.rest()
    last = answers[answers.rindex(b"HTTP/1.1 ") :]
    assert last.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in last.lower()


def test_what_was_turned_away_is_counted(host: HostedMica, mica: Mica) -> None:
    def counted(name: str) -> float:
        text = mica.transport.send("GET", "/metrics").body.decode()
        found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    malformed = 'mica_api_turned_away_total{reason="malformed"}'
    before = counted(malformed)
    with RawClient(host) as raw:
        raw.socket.sendall(b"no http\r\n\r\n")
        assert raw.status() == 400
    assert counted(malformed) == before + 1
    assert counted('mica_api_connections{kind="user"}') >= 1


def test_many_requests_at_once(host: HostedMica) -> None:
    def ask(_: int) -> int:
        with host.client() as mica:
            return len(list(mica.datastores()))

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert set(pool.map(ask, range(96))) == {1}


def test_connections_are_kept_alive(host: HostedMica, mica: Mica) -> None:
    with checked_client(mica) as http:
        ports = set()
        for _ in range(5):
            response = http.get("/v1")
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(ports) == 1


def test_security_headers(mica: Mica) -> None:
    with checked_client(mica) as http:
        headers = http.get("/v1").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert headers["strict-transport-security"] == "max-age=31536000"


def test_strangers_learn_no_more_than_they_need(host: HostedMica, mica: Mica) -> None:
    with host.anonymous() as stranger:
        told = stranger.transport.send("GET", "/v1").body
    assert json.loads(told) == {"product": "Mica", "api_version": "v1", "claimed": True}
    assert mica.api().mode == "hosted"
    with host.client("mica_no_such") as garbage, pytest.raises(RefusedError):
        garbage.api()


def test_crash_of_either_process_is_mended(host: HostedMica, mica: Mica) -> None:
    for name in ("remote_api", "vmkernel"):
        before = host.pid(name)
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 20
        while True:
            try:
                assert [d.id for d in mica.datastores()] == ["main"]
                if host.pid(name) != before:
                    break
            except (ClientError, AssertionError) as error:
                if time.monotonic() > end:
                    raise AssertionError(host.logs()) from error
            time.sleep(0.1)
        assert host.pid(name) != before
