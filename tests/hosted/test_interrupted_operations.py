"""Operations over the end of the vmkernel that ran them."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from remote_api.client.errors import RefusedError, UnreachableError
from remote_api.client.sdk import Mica
from tests.framework.hosted import HostedMica
from tests.framework.web_server import WebServer, web_server
from vmkernel.model import ImagePull, Operation, OperationState, SourceFormat, VolumeSpec

MIB = 1 << 20
DATA = os.urandom(3 * MIB)


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A server on loopback; the tests' host may fetch from there."""
    with web_server({"disk.raw": DATA}) as web:
        yield web


def _again(mica: Mica, operation_id: str) -> Operation:
    end = time.monotonic() + 30
    while True:
        try:
            return mica.operation(operation_id)
        except (RefusedError, UnreachableError):
            assert time.monotonic() < end
            time.sleep(0.2)


def test_killed_vmkernel_leaves_its_operations_known(
    host: HostedMica, mica: Mica, web: WebServer
) -> None:
    made = mica.wait(mica.create_volume("kept", VolumeSpec(datastore="main", size_bytes=MIB)))
    pull = ImagePull(
        datastore="main",
        url=f"http://{web.address}/slow/disk.raw",
        sha256=hashlib.sha256(DATA).hexdigest(),
        format=SourceFormat.RAW,
    )
    running = mica.pull_image("cut-off", pull)
    end = time.monotonic() + 20
    while not mica.operation(running.id).progress.done:
        assert time.monotonic() < end
        time.sleep(0.05)
    after = mica.event_position()
    os.kill(host.pid("vmkernel"), signal.SIGKILL)
    now = _again(mica, running.id)
    assert now.state is OperationState.FAILED
    assert now.error is not None
    assert now.error.code == "interrupted"
    assert mica.operation(made.id) == made
    assert {made.id, running.id} <= {each.id for each in mica.operations()}
    with pytest.raises(RefusedError) as caught:
        next(mica.events(after, reconnect=False))
    assert caught.value.code == "gone", "that process's events are"
    web.ending.set()
    mica.delete_volume("kept")
    left = [path.name for path in (host.folder / "datastores/main/.incoming").iterdir()]
    assert left == []
    with pytest.raises(RefusedError):
        mica.image("cut-off")
