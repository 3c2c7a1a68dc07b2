"""Resumable uploads: the protocol word by word, outside clients, crashes in the middle."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from remote_api.client.errors import ClientError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.browser import opened_page
from tests.framework.hosted import HostedMica
from tests.framework.npm import NpmPackage, unpacked_package
from tests.hosted.raw import RawClient
from vmkernel.model import Image, OperationState

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
TUS_JS_CLIENT = NpmPackage(
    name="tus-js-client",
    version="4.3.1",
    sha512="ZLeYmjrkaU1fUsKbIi8JML52uAocjEZtBx4DKjRrqzrZa0O4MYwT6db+oqePlspV+FxXJAyFBc/L5gwUi2OFsg==",
)
PART = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture(autouse=True)
def _tidy(host: HostedMica, mica: Mica) -> Iterator[None]:
    """Take away what the test has made; nothing else may be left."""
    yield
    for upload in list(mica.uploads()):
        mica.delete_upload(upload.id)
    for image in list(mica.images()):
        mica.delete_image(image.id)
    main = host.folder / "datastores/main"
    left = [p for name in (".incoming", "uploads", "images") for p in (main / name).iterdir()]
    assert left == []


@pytest.fixture
def client(mica: Mica) -> Iterator[httpx.Client]:
    """A bare client, held against the document."""
    with checked_client(mica) as client:
        yield client


def _metadata(**values: str) -> str:
    return ",".join(
        f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items()
    )


def _create(client: httpx.Client, image: str, size: int, **metadata: str) -> httpx.Response:
    values = {"image": image, "datastore": "main", "format": "raw", **metadata}
    return client.post(
        "/v1/uploads",
        headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": _metadata(**values)},
    )


def _sum(data: bytes, name: str = "sha1") -> str:
    return f"{name} {base64.b64encode(hashlib.new(name, data).digest()).decode()}"


def test_the_protocol(client: httpx.Client, mica: Mica) -> None:
    able = httpx.Client(base_url=client.base_url, verify=False).options("/v1/uploads")
    assert able.status_code == 204
    assert able.headers["tus-version"] == able.headers["tus-resumable"] == "1.0.0"
    assert set(able.headers["tus-extension"].split(",")) == {
        *("creation", "creation-with-upload", "termination", "checksum", "expiration")
    }
    old = client.post("/v1/uploads", headers={"Tus-Resumable": "0.2.2", "Upload-Length": "1"})
    assert (old.status_code, old.headers["tus-version"]) == (412, "1.0.0")
    data = os.urandom(3 * MIB)
    digest = hashlib.sha256(data).hexdigest()
    assert _create(client, "x", 0).status_code == 422
    assert _create(client, "x", 1, datastore="nope").status_code == 422
    assert _create(client, "x", 1 << 49).status_code == 409
    made = _create(client, "disk", len(data), sha256=digest, filename="disk.raw")
    assert made.status_code == 201
    where = made.headers["location"]
    assert "GMT" in made.headers["upload-expires"]
    twice = _create(client, "disk", 7)
    assert twice.status_code == 409
    assert where.rpartition("/")[2] in twice.json()["detail"]
    assert client.patch(where, headers=TUS, content=b"x").status_code == 415

    def send(offset: int, part: bytes, **more: str) -> httpx.Response:
        headers = {**PART, "Upload-Offset": str(offset), **more}
        return client.patch(where, headers=headers, content=part)

    first = send(0, data[:MIB], **{"Upload-Checksum": _sum(data[:MIB])})
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(MIB))
    assert send(0, data[:1]).status_code == 409
    wrong = send(MIB, data[MIB : 2 * MIB], **{"Upload-Checksum": _sum(b"", "sha256")})
    assert (wrong.status_code, wrong.headers["tus-resumable"]) == (460, "1.0.0")
    assert send(MIB, b"x", **{"Upload-Checksum": "md4 eA=="}).status_code == 400
    assert send(MIB, data[MIB:] + b"x").status_code == 422
    head = client.head(where, headers=TUS)
    assert head.headers["upload-offset"] == str(MIB)
    assert head.headers["upload-length"] == str(len(data))
    assert head.headers["cache-control"] == "no-store"
    headers = {**PART, "Upload-Offset": str(MIB), "X-HTTP-Method-Override": "PATCH"}
    assert client.post(where, headers=headers, content=data[MIB : 2 * MIB]).status_code == 204
    last = send(2 * MIB, data[2 * MIB :])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(data)))
    assert mica.image("disk").spec.sha256 == digest
    assert client.head(where, headers=TUS).status_code == 404

    whole = client.post(
        "/v1/uploads",
        headers={
            **PART,
            "Upload-Length": str(MIB),
            "Upload-Metadata": _metadata(image="one", datastore="main", format="raw"),
        },
        content=data[:MIB],
    )
    assert (whole.status_code, mica.image("one").spec.size_bytes) == (201, MIB)

    where = _create(client, "bad", 1000, sha256="0" * 64).headers["location"]
    refused = send(0, bytes(1000))
    assert refused.status_code == 422
    assert refused.json()["type"] == "/v1/problems/digest-mismatch"
    assert client.head(where, headers=TUS).status_code == 404
    where = _create(client, "given-up", 1000).headers["location"]
    assert client.delete(where, headers=TUS).status_code == 204
    assert client.head(where, headers=TUS).status_code == 404


def test_tuspy(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    from tusclient.client import TusClient
    from urllib3.exceptions import InsecureRequestWarning

    data = os.urandom(9 * MIB + 5)
    file = tmp_path / "disk.raw"
    file.write_bytes(data)
    warnings.simplefilter("ignore", InsecureRequestWarning)
    tus = TusClient(f"{host.address}/v1/uploads", headers={"Authorization": f"Bearer {host.token}"})
    metadata = {"image": "by-tuspy", "datastore": "main", "format": "raw"}
    options = {"chunk_size": 4 * MIB, "verify_tls_cert": False, "upload_checksum": True}
    first = tus.uploader(str(file), metadata=metadata, **options)
    first.upload_chunk()  # type: ignore[no-untyped-call]
    again = tus.uploader(str(file), url=first.url, **options)
    assert again.offset == 4 * MIB
    again.upload()
    assert mica.image("by-tuspy").spec.sha256 == hashlib.sha256(data).hexdigest()


TUS_PAGE = """<!DOCTYPE html><script src="dist/tus.min.js"></script><script>
window.send = (endpoint, token, size, stop_at) => new Promise((resolve, reject) => {
    window.bytes ??= Uint8Array.from({length: size}, (_, i) => i * 31 % 251);
    const upload = new tus.Upload(new Blob([bytes]), {
        endpoint, chunkSize: 1 << 20, retryDelays: [0, 1000],
        uploadUrl: window.upload_url ?? null,
        headers: {Authorization: "Bearer " + token},
        metadata: {image: "by-tus-js", datastore: "main", format: "raw"},
        onChunkComplete: (_, sent) => {
            if (stop_at && sent >= stop_at) {
                window.upload_url = upload.url;
                upload.abort().then(() => resolve(sent));
            }
        },
        onError: reject, onSuccess: () => resolve(size),
    });
    upload.start();
});
</script>"""


def test_tus_js_client(host: HostedMica, mica: Mica, tmp_path: Path) -> None:
    """npm's client in a browser gives up in the middle, and goes on from where it was."""
    size = 5 * MIB + 3
    scripts = unpacked_package(TUS_JS_CLIENT, tmp_path)
    # The page is not the host's own, and Mica answers no other page's requests.
    with opened_page(TUS_PAGE, scripts, "--disable-web-security") as page:
        page.wait_for("!!(window.tus && window.send)")
        call = f"send({json.dumps(f'{host.address}/v1/uploads')}, {json.dumps(host.token)}, {size}"
        assert page.evaluate(f"{call}, {2 * MIB})") == 2 * MIB
        (upload,) = mica.uploads()
        assert 2 * MIB <= upload.status.offset_bytes < size
        assert page.evaluate(f"{call}, 0)") == size
    content = bytes(i * 31 % 251 for i in range(size))
    assert mica.image("by-tus-js").spec.sha256 == hashlib.sha256(content).hexdigest()


def _wait_for_answers(mica: Mica) -> None:
    for _ in range(100):
        try:
            mica.host()
        except ClientError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the host did not come back")


def test_an_upload_outlives_connections_and_both_processes(
    host: HostedMica, mica: Mica, tmp_path: Path
) -> None:
    data = os.urandom(24 * MIB)
    file = tmp_path / "disk.raw"
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    upload = mica.create_upload(
        "long", len(data), datastore="main", image_format="raw", sha256=digest
    )
    with RawClient(host) as raw:
        raw.send(
            f"PATCH /v1/uploads/{upload} HTTP/1.1",
            "Tus-Resumable: 1.0.0",
            "Upload-Offset: 0",
            "Content-Type: application/offset+octet-stream",
            f"Content-Length: {len(data)}",
            body=data[: 10 * MIB],
        )
    # What was in flight when the connection went is lost; the rest is kept.
    for _ in range(100):
        if kept := mica.upload(upload).status.offset_bytes:
            break
        time.sleep(0.1)
    assert MIB <= kept <= 10 * MIB
    for name in ("vmkernel", "remote_api"):
        os.kill(host.pid(name), 9)
    _wait_for_answers(mica)
    assert mica.upload(upload).status.offset_bytes == kept
    told: list[int] = []
    image = mica.resumable_upload(
        "long", file, datastore="main", image_format="raw", on_offset=told.append
    )
    assert told[0] == kept
    assert image.spec.sha256 == digest
    with pytest.raises(RefusedError, match="There is an image"):
        mica.resumable_upload("long", file, datastore="main", image_format="raw")


def test_an_import_goes_on_after_the_vmkernel_died(host: HostedMica, mica: Mica) -> None:
    data = gzip.compress(bytes(512 * MIB), 1)
    upload = mica.create_upload("zeros", len(data), datastore="main", image_format="raw")

    def send() -> None:
        with checked_client(mica) as client:
            try:
                headers = {**PART, "Upload-Offset": "0"}
                client.patch(f"/v1/uploads/{upload}", headers=headers, content=data)
            except httpx.TransportError:
                pass

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(200):
        running = [o for o in mica.operations() if o.state is OperationState.RUNNING]
        if any(o.kind == "image.upload" for o in running):
            break
        time.sleep(0.01)
    os.kill(host.pid("vmkernel"), 9)
    sender.join()
    _wait_for_answers(mica)
    image: Image | None = None
    for _ in range(100):
        try:
            image = mica.image("zeros")
            break
        except ClientError:
            time.sleep(0.1)
    assert image is not None
    assert image.spec.size_bytes == 512 * MIB
    for _ in range(50):
        if not list(mica.uploads()):
            break
        time.sleep(0.1)
