"""The audit trail and the claim under attack, over HTTPS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica, unclaimed_mica
from tests.hosted.raw import RawClient
from vmkernel.model import AuditOutcome, Role, TokenSpec


def test_a_viewers_refusal_is_found_among_garbage(host: HostedMica, mica: Mica) -> None:
    viewer = mica.create_token("watcher", TokenSpec(role=Role.VIEWER)).secret
    with RawClient(host) as raw:
        for number in range(60):
            raw.send("GET /v1/vms HTTP/1.1", f"Authorization: Bearer mica_no_{number}", token=False)
            assert raw.status() == 401
            raw.socket.recv(4096)
    with host.client(viewer) as watching, pytest.raises(RefusedError):
        watching.delete_token("admin")
    (denied, *_) = list(mica.audit(actor="watcher", outcome=AuditOutcome.DENIED))
    assert (denied.request, denied.subject.id, denied.code) == (
        "access.delete-token",
        "admin",
        "forbidden",
    )
    (garbage, *_) = [r for r in mica.audit(actor="anonymous") if r.request == "vm.list"]
    assert garbage.count >= 60
    mica.delete_token("watcher")
    changes = [(r.request, r.actor) for r in mica.audit(outcome=AuditOutcome.CHANGED)]
    assert changes[:2] == [("access.delete-token", "admin"), ("access.create-token", "admin")]


def test_the_command_lists_it(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    mica.create_token("short-lived", TokenSpec(role=Role.VIEWER))
    mica.delete_token("short-lived")
    done = subprocess.run(
        [sys.executable, "-m", "remote_api.client", "-o", "json", "audit", "list", "--limit", "1"],
        env={
            "HOME": str(tmp_path),
            "MICA_HOST": host.address,
            "MICA_TOKEN": str(host.token),
            "MICA_FINGERPRINT": host.fingerprint,
        },
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    (record,) = json.loads(done.stdout)
    assert (record["request"], record["subject"]["id"]) == ("access.delete-token", "short-lived")


def test_wrong_codes_do_not_keep_the_owner_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with unclaimed_mica(tmp_path_factory.mktemp("c")) as host, host.anonymous() as mica:
        codes = []
        for _ in range(12):
            with pytest.raises(RefusedError) as caught:
                mica.claim("AAAAABBBBB")
            codes.append(caught.value.code)
        assert codes[-1] == "rate-limited"
        assert mica.claim(host.claim_code).token.id == "admin"
