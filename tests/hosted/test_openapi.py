"""The whole API against its own document, by schemathesis with all checks: no 5xx, no surprise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from remote_api.client.http.pinning import fetch_fingerprint
from tests.framework.api import checked_client
from tests.framework.hosted import HostedMica, hosted_mica
from tests.framework.openapi import DOCUMENT
from tests.framework.repository import REPOSITORY
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    ImageFormat,
    Role,
    TokenSpec,
    VmSpec,
    VolumeSpec,
)

CONFIG = Path(__file__).parent / "schemathesis.toml"
EXAMPLE = "web-1"
"""The id that the document gives as an example; there is one of each kind by this name."""
MIB = 1 << 20


def test_the_host_serves_the_committed_document(host: HostedMica) -> None:
    with host.client() as mica, checked_client(mica) as http:
        assert http.get("/v1/openapi.json").content == DOCUMENT.read_bytes()


@pytest.mark.timeout(960)  # six minutes on a machine with much else to do
def test_no_answer_surprises(tmp_path: Path) -> None:
    with hosted_mica(tmp_path) as host:
        token = _populate(host, tmp_path)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli"),
                *("--config-file", str(CONFIG)),
                *("run", str(DOCUMENT), "--url", host.address, "--tls-verify", "false"),
                *("--header", f"Authorization: Bearer {token}"),
                # One worker: CPython 3.11 parses source in threads unsafely, and hypothesis does.
                *("--checks", "all", "--max-examples", "5", "--seed", "1", "--workers", "1"),
                *("--continue-on-failure", "--request-timeout", "30"),
                # One ends the host, the other never ends; both have tests of their own.
                *("--exclude-path", "/v1/host/power", "--exclude-path", "/v1/events"),
            ],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "SCHEMATHESIS_HOOKS": "tests.hosted.fuzz_hooks",
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
        # The fuzzer is an administrator: it may have rotated the key and revoked any token.
        host.fingerprint = fetch_fingerprint(host.address)
        with host.anonymous() as mica:
            assert mica.api().claimed


def _populate(host: HostedMica, folder: Path) -> str:
    """One object of each kind by the example's name; a token for the fuzzer."""
    file = folder / "image.raw"
    file.write_bytes(bytes(MIB))
    with host.client() as mica:
        spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder(EXAMPLE)))
        mica.wait(mica.create_datastore(EXAMPLE, spec))
        mica.upload_image(EXAMPLE, file, datastore=EXAMPLE, image_format=ImageFormat.RAW)
        mica.wait(mica.create_volume(EXAMPLE, VolumeSpec(datastore=EXAMPLE, size_bytes=MIB)))
        mica.create_vm(EXAMPLE, VmSpec(datastore=EXAMPLE, memory_bytes=32 * MIB))
        return mica.create_token("fuzzer", TokenSpec(role=Role.ADMIN)).secret


def test_events_answer_as_documented(host: HostedMica) -> None:
    with host.client() as mica, checked_client(mica) as http:
        with http.stream("GET", "/v1/events", headers={"accept": "text/event-stream"}) as stream:
            assert stream.status_code == 200
            assert next(stream.iter_lines()).startswith(":")
        wrong = http.get("/v1/events", headers={"accept": "application/json"})
        assert wrong.status_code == 406
