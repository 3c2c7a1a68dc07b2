"""The certificate of the API is replaced through the API."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.cli.contexts import ContextStore, KnownHost
from remote_api.client.errors import ClientError, RefusedError, UntrustedError
from remote_api.client.http.pinning import fetch_fingerprint
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica, hosted_mica
from tests.hosted.raw import RawClient
from vmkernel.model import Event, Role, TokenSpec


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedMica]:
    """A host whose certificate nobody else needs."""
    with hosted_mica(tmp_path_factory.mktemp("c")) as host:
        yield host


def test_who_rotates_goes_on_and_others_notice(own: HostedMica) -> None:
    before = own.fingerprint
    with own.client() as admin, own.client() as other:
        assert other.whoami().id == "admin"
        certificate = admin.rotate_certificate()
        assert certificate.fingerprint_sha256 != before
        assert fetch_fingerprint(own.address) == certificate.fingerprint_sha256
        assert admin.host().status.tls_fingerprint_sha256 == certificate.fingerprint_sha256
        with pytest.raises(UntrustedError, match=certificate.fingerprint_sha256):
            other.whoami()
    own.fingerprint = certificate.fingerprint_sha256


def test_connections_and_streams_of_the_old_certificate_end(own: HostedMica) -> None:
    with (
        RawClient(own) as idle,
        own.client() as admin,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        idle.send("GET /v1/whoami HTTP/1.1")
        assert idle.status() == 200
        idle.socket.recv(4096)
        with own.client() as watcher:
            stream = pool.submit(_until_the_end, watcher)
            admin.create_token("noise", TokenSpec(role=Role.VIEWER))
            own.fingerprint = admin.rotate_certificate().fingerprint_sha256
            idle.socket.settimeout(5)
            assert idle.rest() == b""
            types = [event.type for event in stream.result(10)]
        assert "token.created" in types
        admin.delete_token("noise")


def _until_the_end(mica: Mica) -> list[Event]:
    first = mica.event_position().rpartition("-")[0] + "-" + "0" * 12
    return list(mica.events(first, reconnect=False))


def test_the_new_one_outlives_both_processes(own: HostedMica) -> None:
    with own.client() as admin:
        own.fingerprint = admin.rotate_certificate().fingerprint_sha256
    for name in ("vmkernel", "remote_api"):
        before = own.pid(name)
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if own.pid(name) != before and fetch_fingerprint(own.address):
                    break
            except (AssertionError, ClientError):
                time.sleep(0.1)
    with own.client() as admin:
        assert admin.whoami().id == "admin"


def test_only_administrators_may(own: HostedMica) -> None:
    with own.client() as admin:
        secret = admin.create_token("hand", TokenSpec(role=Role.OPERATOR)).secret
    with own.client(secret) as operator, pytest.raises(RefusedError) as refused:
        operator.rotate_certificate()
    assert refused.value.code == "forbidden"


def test_the_command_pins_the_new_one(own: HostedMica, tmp_path: Path) -> None:
    store = ContextStore(tmp_path / "mica/contexts.json")
    known = KnownHost(address=own.address, token=own.token, fingerprint_sha256=own.fingerprint)
    store.put("other", KnownHost(address="https://192.0.2.1"))
    store.put("here", known)
    store.use("other")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "remote_api.client", "-o", "json", "--host", "here"),
            *("host", "rotate-certificate", "--yes"),
        ],
        env={"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    own.fingerprint = json.loads(done.stdout)["fingerprint_sha256"]
    current, hosts = store.load()
    assert current == "other"
    assert hosts["here"].fingerprint_sha256 == own.fingerprint
    assert hosts["here"].token == own.token
    assert fetch_fingerprint(own.address) == own.fingerprint
