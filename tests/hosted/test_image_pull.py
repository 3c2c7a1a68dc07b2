"""Images that the host fetches itself: from good servers, and from all the others."""

from __future__ import annotations

import gzip
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from remote_api.client.errors import OperationFailedError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica
from tests.framework.web_server import WebServer, web_server
from vmkernel.model import Compression, ImageFormat, ImagePull, OperationState, SourceFormat

MIB = 1 << 20
DATA = os.urandom(3 * MIB + 77)
FILES = {"disk.raw": DATA, "disk.gz": gzip.compress(DATA, 1), "empty": b""}


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    """A server on loopback; the tests' host may fetch from there."""
    with web_server(FILES) as web:
        yield web


@pytest.fixture(autouse=True)
def _tidy(host: HostedMica, mica: Mica) -> Iterator[None]:
    """Take away what the test has made; nothing else may be left."""
    yield
    for image in list(mica.images()):
        mica.delete_image(image.id)
    main = host.folder / "datastores/main"
    left = [p for name in (".incoming", "uploads", "images") for p in (main / name).iterdir()]
    assert left == []


def _pull(url: str, name: str = "disk.raw", **fields: object) -> ImagePull:
    values: dict[str, object] = {
        "datastore": "main",
        "url": url,
        "sha256": hashlib.sha256(FILES[name]).hexdigest(),
        "format": SourceFormat.RAW,
        **fields,
    }
    return ImagePull(**values)  # type: ignore[arg-type]


def _fails(mica: Mica, pull: ImagePull) -> str:
    with pytest.raises(OperationFailedError) as failed:
        mica.wait(mica.pull_image("no", pull), timeout_s=60)
    error = failed.value.operation.error
    assert error is not None
    return f"{error.code}: {error.detail}"


def test_files_as_they_are_packed_and_behind_redirects(mica: Mica, web: WebServer) -> None:
    base = f"http://{web.address}"
    operation = mica.wait(mica.pull_image("raw", _pull(f"{base}/to//plain/disk.raw")))
    assert operation.kind == "image.pull"
    image = mica.image("raw")
    assert image.spec.sha256 == hashlib.sha256(DATA).hexdigest()
    assert image.status.origin is not None
    assert image.status.origin.url == f"{base}/plain/disk.raw"
    mica.wait(mica.pull_image("gz", _pull(f"{base}/file/disk.gz", "disk.gz")))
    packed = mica.image("gz")
    assert (packed.spec.format, packed.spec.sha256) == (ImageFormat.RAW, image.spec.sha256)
    assert packed.status.origin is not None
    assert packed.status.origin.compression is Compression.GZIP


def test_a_connection_that_breaks_is_taken_up_where_it_broke(mica: Mica, web: WebServer) -> None:
    web.asked.clear()
    mica.wait(mica.pull_image("again", _pull(f"http://{web.address}/break/disk.raw")))
    assert [asked for _, asked in web.asked] == [
        None,
        *(f"bytes={n * MIB}-" for n in (1, 2, 3)),
    ]


def test_what_is_refused(mica: Mica, web: WebServer) -> None:
    base = f"http://{web.address}"
    for url, words in (
        ("file:///etc/passwd", "scheme 'file'"),
        (f"{base}/to/file:///etc/passwd", "redirect leads to the scheme 'file'"),
        (f"{base}/loop/x", "more than 5 times"),
        ("http://169.254.169.254/latest/meta-data", "this host itself"),
        ("http://user:word@192.0.2.1/x", "credentials"),
        (f"{base}/status/404", "answers 404"),
        (f"{base}/encoded/disk.raw", "encodes"),
        (f"{base}/file/empty", "empty"),
    ):
        assert words in _fails(mica, _pull(url)), url
    assert "digest-mismatch" in _fails(mica, _pull(f"{base}/file/disk.raw", "disk.gz"))
    small = _pull(f"{base}/file/disk.raw", max_bytes=MIB)
    assert "more than its `max_bytes` of 1048576" in _fails(mica, small)


def test_a_pull_is_cancelled_in_the_middle(mica: Mica, web: WebServer) -> None:
    operation = mica.pull_image("slow", _pull(f"http://{web.address}/slow/disk.raw"))
    for _ in range(100):
        if mica.operation(operation.id).progress.done:
            break
        time.sleep(0.05)
    assert mica.operation(operation.id).progress.total == len(DATA)
    assert mica.cancel(operation.id).state is OperationState.CANCELLED


def test_https_is_checked(mica: Mica, tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    authority = _certificate(pem)
    with web_server(FILES, certificate=pem) as web:
        url = f"https://{web.address}/file/disk.raw"
        assert "not trusted" in _fails(mica, _pull(url))
        mica.wait(mica.pull_image("tls", _pull(url, ca_pem=authority)))
        down = f"https://{web.address}/to/http://{web.address}/file/disk.raw"
        assert "from https to http" in _fails(mica, _pull(down, ca_pem=authority))


def _certificate(path: Path) -> str:
    """A self-signed certificate of 127.0.0.1 with its key in `path`; the certificate alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        encoded
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return encoded.decode()


def test_the_digest_of_what_was_fetched_is_not_told(mica: Mica, web: WebServer) -> None:
    said = _fails(mica, _pull(f"http://{web.address}/plain/disk.raw", sha256="0" * 64))
    assert said.startswith("digest-mismatch: ")
    assert hashlib.sha256(DATA).hexdigest()[:16] not in said
