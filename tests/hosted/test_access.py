"""Claiming, tokens and roles over HTTPS."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from remote_api.client.errors import RefusedError, UntrustedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica, unclaimed_mica
from vmkernel.model import Role, TokenSpec, VmSpec


def test_claim_once(tmp_path: Path) -> None:
    with unclaimed_mica(tmp_path) as fresh, fresh.anonymous() as mica:
        assert not mica.api().claimed
        with pytest.raises(RefusedError) as refused:
            mica.claim("00000-00000")
        assert refused.value.code in ("forbidden", "unauthenticated", "invalid")
        issued = mica.claim(fresh.claim_code)
        assert issued.token.spec.role is Role.ADMIN
        assert mica.api().claimed
        with pytest.raises(RefusedError):
            mica.claim(fresh.claim_code)
        with fresh.client(issued.secret) as admin:
            assert admin.whoami().id == "admin"


def test_other_certificate_is_noticed_before_anything_is_sent(host: HostedMica) -> None:
    other = "0" * 64
    with Mica(host.address, token=host.token, fingerprint=other) as mica:
        with pytest.raises(UntrustedError):
            mica.api()


def test_everything_else_needs_a_token(host: HostedMica) -> None:
    with host.anonymous() as mica, checked_client(mica) as http:
        for path in ("/v1/host", "/v1/vms", "/v1/openapi.json", "/v1/events", "/v1/tokens"):
            assert http.get(path).status_code == 401, path
        forged = {"authorization": "Bearer mica_admin_" + "A" * 43}
        assert http.get("/v1/host", headers=forged).status_code == 401


def test_roles(host: HostedMica, mica: Mica) -> None:
    viewer = mica.create_token("eye", TokenSpec(role=Role.VIEWER))
    operator = mica.create_token("hand", TokenSpec(role=Role.OPERATOR))
    try:
        with host.client(viewer.secret) as client:
            assert client.host().status.hostname
            with pytest.raises(RefusedError) as refused:
                client.create_vm("no", VmSpec(datastore="main"))
            assert refused.value.problem.status == 403
        with host.client(operator.secret) as client:
            with pytest.raises(RefusedError) as refused:
                list(client.tokens())
            assert refused.value.code == "forbidden"
    finally:
        mica.delete_token("eye")
        mica.delete_token("hand")
    with host.client(viewer.secret) as client, pytest.raises(RefusedError) as refused:
        client.host()
    assert refused.value.code == "unauthenticated"


def test_token_that_has_expired(host: HostedMica, mica: Mica) -> None:
    with pytest.raises(RefusedError) as refused:
        mica.create_token("past", TokenSpec(role=Role.VIEWER, expires_at="2020-01-01T00:00:00Z"))
    assert refused.value.code == "invalid"


def test_tls_is_modern(host: HostedMica) -> None:
    parts = urlsplit(host.address)
    where = (str(parts.hostname), int(parts.port or 443))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(where, 5) as plain:
        with context.wrap_socket(plain) as wrapped:
            assert wrapped.version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(where, 5) as plain:
        with context.wrap_socket(plain) as wrapped:
            assert wrapped.version() == "TLSv1.2"
            assert "GCM" in wrapped.cipher()[0] or "CHACHA" in wrapped.cipher()[0]  # type: ignore[index]
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(where, 5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)
