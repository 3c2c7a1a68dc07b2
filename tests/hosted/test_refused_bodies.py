"""A large body that is refused at its beginning: every client sees the answer, not a broken pipe.

Some send all of a body before they look at the answer.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests

from tests.framework.hosted import HostedMica
from vmkernel.model import ImageFormat

BODY_BYTES = 96 << 20
"""Three times what was once read on, and more than any buffer on the way."""
Refused = tuple[int, str]
Ask = Callable[[str, Path, dict[str, str], Path], Refused]


def by_requests(url: str, file: Path, headers: dict[str, str], ca: Path) -> Refused:
    with file.open("rb") as body:
        answer = requests.put(url, data=body, headers=headers, verify=str(ca), timeout=120)
    return answer.status_code, answer.json()["type"]


def by_urllib(url: str, file: Path, headers: dict[str, str], ca: Path) -> Refused:
    length = {"Content-Length": str(file.stat().st_size)}
    context = ssl.create_default_context(cafile=str(ca))
    with file.open("rb") as body:
        request = urllib.request.Request(url, body, {**headers, **length}, method="PUT")
        try:
            urllib.request.urlopen(request, timeout=120, context=context)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["type"]
    raise AssertionError("it was not refused")


def by_httpx(url: str, file: Path, headers: dict[str, str], ca: Path) -> Refused:
    with httpx.Client(verify=ssl.create_default_context(cafile=str(ca)), timeout=120) as client:
        answer = client.put(url, content=file.read_bytes(), headers=headers)
    return answer.status_code, answer.json()["type"]


def by_curl(url: str, file: Path, headers: dict[str, str], ca: Path) -> Refused:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl here")
    words = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    # Without `Expect`, it does not wait for the host's leave to send.
    argv: list[str | Path] = [curl, "-sS", "--cacert", ca, "-H", "Expect:", "-T", file, *words, url]
    answer = subprocess.run(argv, check=True, capture_output=True, timeout=120)
    told = json.loads(answer.stdout)
    return told["status"], told["type"]


CLIENTS: dict[str, Ask] = {
    "requests": by_requests,
    "urllib": by_urllib,
    "httpx": by_httpx,
    "curl": by_curl,
}


@pytest.fixture(scope="module")
def taken(host: HostedMica, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An image by the name `taken`; a large file, and the host's certificate."""
    folder = tmp_path_factory.mktemp("refused")
    small, large, ca = folder / "small", folder / "large", folder / "ca.pem"
    small.write_bytes(bytes(1 << 20))
    with large.open("wb") as file:
        file.truncate(BODY_BYTES)
    with host.client() as mica:
        mica.upload_image("taken", small, datastore="main", image_format=ImageFormat.RAW)
    address, _, port = host.address.removeprefix("https://").rpartition(":")
    ca.write_text(ssl.get_server_certificate((address, int(port))))
    return large, ca


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ({}, 412, "already-exists"),
        ({"If-Match": '"1"'}, 412, "revision-mismatch"),
        ({"Content-Type": "text/plain"}, 415, "unsupported-media-type"),
    ],
)
def test_a_refusal_is_read(
    host: HostedMica,
    taken: tuple[Path, Path],
    client: str,
    change: dict[str, str],
    status: int,
    problem: str,
) -> None:
    large, ca = taken
    headers = {
        "Authorization": f"Bearer {host.token}",
        "Content-Type": "application/octet-stream",
        "If-None-Match": "*",
        **change,
    }
    url = f"{host.address}/v1/images/taken?datastore=main&format=raw&sha256={'0' * 64}"
    assert CLIENTS[client](url, large, headers, ca) == (status, f"/v1/problems/{problem}")
