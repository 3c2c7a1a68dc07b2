"""Image uploads over real HTTPS: whole, broken, refused early; nothing is left of what failed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica
from tests.hosted.raw import RawClient
from vmkernel.model import Image, ImageFormat, OperationState

MIB = 1 << 20


def _path(image_id: str, data: bytes, **other: str) -> str:
    parameters = {
        "datastore": "main",
        "format": "raw",
        "sha256": hashlib.sha256(data).hexdigest(),
        **other,
    }
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"/v1/images/{image_id}?{query}"


def _files(host: HostedMica) -> list[str]:
    main = host.folder / "datastores/main"
    return sorted(
        path.name for folder in ("images", ".incoming") for path in (main / folder).glob("*")
    )


@pytest.fixture
def no_trace(host: HostedMica, mica: Mica) -> object:
    """What failed leaves no file and no image."""
    before = _files(host)
    yield
    for _ in range(50):
        running = [o for o in mica.operations() if o.state is OperationState.RUNNING]
        if not running and _files(host) == before:
            return
        time.sleep(0.1)
    assert _files(host) == before
    assert not running


def test_upload_of_32_mib(mica: Mica, tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(os.urandom(32 * MIB))
    seen: list[int] = []
    image = mica.upload_image(
        "big", file, datastore="main", image_format=ImageFormat.RAW, on_bytes=seen.append
    )
    assert isinstance(image, Image)
    assert image.spec.size_bytes == sum(seen) == 32 * MIB
    assert image.spec.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(RefusedError) as refused:
        mica.upload_image("big", file, datastore="main", image_format=ImageFormat.RAW)
    assert (refused.value.code, refused.value.problem.status) == ("already-exists", 412)
    assert [i.id for i in mica.images(datastore="main")] == ["big"]
    mica.delete_image("big")


@pytest.mark.usefixtures("no_trace")
def test_upload_with_another_digest(mica: Mica, tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(os.urandom(2 * MIB))
    with pytest.raises(RefusedError) as refused:
        mica.upload_image(
            "wrong", file, datastore="main", image_format=ImageFormat.RAW, sha256="0" * 64
        )
    assert refused.value.code == "digest-mismatch"


@pytest.mark.usefixtures("no_trace")
def test_upload_that_is_no_iso(mica: Mica, tmp_path: Path) -> None:
    file = tmp_path / "disk.iso"
    file.write_bytes(bytes(2 * MIB))
    with pytest.raises(RefusedError) as refused:
        mica.upload_image("no-iso", file, datastore="main", image_format=ImageFormat.ISO)
    assert refused.value.problem.status == 422


@pytest.mark.usefixtures("no_trace")
def test_client_leaves_in_the_middle(host: HostedMica) -> None:
    data = os.urandom(4 * MIB)
    with RawClient(host) as raw:
        raw.send(
            f"PUT {_path('half', data)} HTTP/1.1",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(data)}",
            body=data[: 3 * MIB],
        )


@pytest.mark.usefixtures("no_trace")
def test_body_longer_than_announced_is_another_request(host: HostedMica) -> None:
    data = os.urandom(1024)
    with RawClient(host) as raw:
        raw.send(
            f"PUT {_path('long', data[:1000])} HTTP/1.1",
            "Content-Type: application/octet-stream",
            "Content-Length: 1000",
            body=data,
        )
        assert raw.status() == 201
        assert b'"malformed"' not in raw.socket.recv(10)
    with host.client() as mica:
        mica.delete_image("long")


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize("expect", [True, False])
def test_refused_before_the_data(host: HostedMica, expect: bool) -> None:
    data = b""
    with RawClient(host) as raw:
        lines = [
            f"PUT {_path('huge', data)} HTTP/1.1",
            "Content-Type: application/octet-stream",
            f"Content-Length: {1 << 49}",
        ]
        if expect:
            lines.append("Expect: 100-continue")
        raw.send(*lines, body=b"" if expect else bytes(2 * MIB))
        assert raw.status() == 409
        assert "connection: close" in raw.head.lower()
        assert b"insufficient-space" in raw.rest()


def test_continue_is_sent_once_the_image_is_welcome(host: HostedMica, mica: Mica) -> None:
    data = os.urandom(1024)
    with RawClient(host) as raw:
        raw.send(
            f"PUT {_path('asked', data)} HTTP/1.1",
            "Content-Type: application/octet-stream",
            "Content-Length: 1024",
            "Expect: 100-continue",
        )
        assert raw.status() == 100
        raw.socket.sendall(data)
        assert raw.status() == 201
    mica.delete_image("asked")


@pytest.mark.usefixtures("no_trace")
def test_length_is_required(host: HostedMica) -> None:
    with RawClient(host) as raw:
        raw.send(
            f"PUT {_path('chunks', b'x')} HTTP/1.1",
            "Content-Type: application/octet-stream",
            "Transfer-Encoding: chunked",
            body=b"1\r\nx\r\n0\r\n\r\n",
        )
        assert raw.status() == 411
