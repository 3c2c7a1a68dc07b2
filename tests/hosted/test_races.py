"""Two requests at once, one of them held at a gate: the second succeeds or is refused in words.
Whether the first is cancelled, its client leaves or the vmkernel is killed, nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_api.client.errors import ClientError, OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema.console import ConsoleTicket
from tests.framework.hosted import HostedMica
from tests.hosted.raw import RawClient
from vmkernel.model import (
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageCapture,
    ImageFormat,
    Operation,
    VmSpec,
    VmState,
    VolumeFormat,
    VolumeSpec,
)

MIB = 1 << 20
_DATA_BYTES = 64 * MIB
"""More than the buffers of a connection hold."""
_OTHER = {"root": VolumeFormat.RAW, "data": VolumeFormat.QCOW2}
HONEST = {
    "already-exists",
    "conflict",
    "in-use",
    "invalid",
    "not-found",
    "truncated",
    "unavailable",
}
_PROMPT_S = 10.0
_END_S = 60.0


class Gate:
    """Holds up a program of the host at its start."""

    def __init__(self, program: Path) -> None:
        self._closed = program.with_name(f"{program.name}.closed")
        self._program = str(program)
        real = program.with_name(f"{program.name}.real")
        if not real.exists():
            program.rename(real)
            program.write_text(
                f"#!/bin/sh\nwhile [ -e {self._closed} ]; do /bin/sleep 0.02; done\n"
                f'exec {real} "$@"\n'
            )
            program.chmod(0o755)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let none through until the block is left."""
        self._closed.touch()
        try:
            yield
        finally:
            self._closed.unlink()

    def reached(self) -> None:
        """Wait until one stands before it."""
        _until(lambda: self._program in _words(), "nothing came to the gate")


@dataclass
class Case:
    """A VM that is off, `web`, with the volume `root`, and a raw volume `data`."""

    host: HostedMica
    mica: Mica
    qemu_img: Gate
    qemu: Gate
    volume: str = "root"
    """Which volume is asked for."""
    connections: list[RawClient] = field(default_factory=list)
    """Of the request that is held."""

    def connect(self) -> RawClient:
        """One that `leave` breaks."""
        found = RawClient(self.host)
        self.connections.append(found)
        return found

    def leave(self) -> None:
        """The client goes away."""
        for connection in self.connections:
            connection.socket.close()

    @property
    def main(self) -> Path:
        """The datastore's folder."""
        return self.host.folder / "datastores/main"


def _until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while True:
        with contextlib.suppress(ClientError):  # it is starting again
            if condition():
                return
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture
def case(host: HostedMica, mica: Mica) -> Iterator[Case]:
    """Whatever becomes of it, all can be taken away afterwards, and nothing is left."""
    found = Case(
        host, mica, Gate(host.folder / "qemu-img"), Gate(host.folder / "qemu-system-x86_64")
    )
    mica.wait(mica.create_volume("root", VolumeSpec(datastore="main", size_bytes=2 * MIB)))
    raw = VolumeSpec(datastore="main", size_bytes=_DATA_BYTES, format=VolumeFormat.RAW)
    mica.wait(mica.create_volume("data", raw))
    spec = VmSpec(
        datastore="main",
        memory_bytes=64 * MIB,
        firmware=Firmware.BIOS,
        display=DisplayModel.NONE,
        disks=(DiskSpec(volume="root"),),
    )
    mica.create_vm("web", spec)
    yield found
    found.leave()
    _until(lambda: _running(mica) == [], "operations go on")
    for vm in list(mica.vms()):
        for backup in mica.backups(vm.id):
            mica.end_backup(backup)
        if vm.status.state is not VmState.STOPPED:
            mica.wait(mica.power_off_vm(vm.id))
        for snapshot in list(mica.snapshots(vm.id)):
            mica.wait(mica.delete_snapshot(vm.id, snapshot.id))
        mica.delete_vm(vm.id)
    for upload in list(mica.uploads()):
        mica.delete_upload(upload.id)
    _until(lambda: _emptied(mica), "images and volumes can't be deleted")
    _until(lambda: _left(host) == [], f"left: {_left(host)}", 10)
    assert _processes(host) == []


def _running(mica: Mica) -> list[str]:
    return [f"{o.kind} {o.subject.id}" for o in mica.operations() if not o.state.finished]


def _emptied(mica: Mica) -> bool:
    """Images and volumes are deleted; a stream that has broken may hold one for a moment."""
    for image in list(mica.images()):
        mica.delete_image(image.id)
    for volume in list(mica.volumes()):
        mica.delete_volume(volume.id)
    return True


def _left(host: HostedMica) -> list[str]:
    folders = [
        host.folder / "datastores/main" / name
        for name in (".incoming", "uploads", "images", "volumes", "vms")
    ]
    found = [path for folder in folders for path in folder.iterdir()]
    found += (host.folder / "state/run/vm").iterdir()
    return [str(path.relative_to(host.folder)) for path in found]


def _words() -> set[str]:
    """All words of the command lines of processes."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.update(path.read_bytes().decode(errors="replace").split("\0"))
    return found


def _processes(host: HostedMica) -> list[str]:
    """What QEMU and qemu-img are told of the host's files."""
    return [word for word in _words() if f"{host.folder}/datastores/" in word]


# --- what is held -----------------------------------------------------------------------------

Held = AbstractContextManager[Operation | None]


@contextmanager
def _at(gate: Gate, begin: Callable[[], Operation]) -> Iterator[Operation]:
    with gate.closed():
        operation = begin()
        gate.reached()
        yield operation


@contextmanager
def _backup(case: Case) -> Iterator[None]:
    case.mica.begin_backup("web")
    yield


@contextmanager
def _export(case: Case) -> Iterator[None]:
    client = case.connect()
    client.send("GET /v1/volumes/data/data HTTP/1.1")
    assert client.status() == 200
    yield


@contextmanager
def _write(case: Case) -> Iterator[None]:
    client = case.connect()
    client.send(
        "PATCH /v1/volumes/data/data HTTP/1.1",
        f"Content-Range: bytes 0-{MIB - 1}/*",
        f"Content-Length: {MIB}",
        "Content-Type: application/octet-stream",
        body=bytes(MIB // 2),
    )
    _until(lambda: _refused(lambda: _extents(case)), "the write did not begin")
    yield


def _extents(case: Case) -> None:
    case.mica.transport.send("GET", "/v1/volumes/data/extents")


@contextmanager
def _upload(case: Case) -> Iterator[None]:
    client = case.connect()
    client.send(
        f"PUT /v1/images/image?datastore=main&format=raw&sha256={'0' * 64} HTTP/1.1",
        "If-None-Match: *",
        f"Content-Length: {MIB}",
        "Content-Type: application/octet-stream",
        body=bytes(MIB // 2),
    )
    _until(lambda: list((case.main / ".incoming").iterdir()), "the upload did not begin")
    yield


OF_THE_VM: dict[str, Callable[[Case], Held]] = {
    "clone": lambda c: _at(c.qemu_img, lambda: c.mica.clone_vm("web", "copy")),
    "snapshot": lambda c: _at(c.qemu_img, lambda: c.mica.create_snapshot("web", "one")),
    "move": lambda c: _at(c.qemu_img, lambda: _move(c)),
    "capture": lambda c: _at(c.qemu_img, lambda: _capture(c, "image")),
    "start": lambda c: _at(c.qemu, lambda: c.mica.start_vm("web")),
    "backup": _backup,
}
OF_A_VOLUME: dict[str, Callable[[Case], Held]] = {"export": _export, "write": _write}
OF_AN_IMAGE: dict[str, Callable[[Case], Held]] = {"upload": _upload}
HELD = OF_THE_VM | OF_A_VOLUME | OF_AN_IMAGE


# --- what comes against it --------------------------------------------------------------------


def _move(case: Case) -> Operation:
    return case.mica.move_volume(case.volume, volume_format=_OTHER[case.volume])


def _capture(case: Case, image: str) -> Operation:
    return case.mica.capture_image(
        image, ImageCapture(volume=case.volume, format=ImageFormat.QCOW2)
    )


def _upload_again(case: Case) -> None:
    file = case.host.folder / "again.raw"
    file.write_bytes(bytes(MIB))
    case.mica.upload_image("image", file, datastore="main", image_format=ImageFormat.RAW)


REQUESTS: dict[str, Callable[[Case], object]] = {
    "delete": lambda c: c.mica.delete_vm("web"),
    "delete with volumes": lambda c: c.mica.delete_vm("web", with_volumes=True),
    "start": lambda c: c.mica.start_vm("web"),
    "power off": lambda c: c.mica.power_off_vm("web"),
    "change": lambda c: c.mica.patch_vm("web", {"memory_bytes": 128 * MIB}),
    "detach": lambda c: c.mica.patch_vm("web", {"disks": []}),
    "clone": lambda c: c.mica.clone_vm("web", "copy"),
    "snapshot": lambda c: c.mica.create_snapshot("web", "one"),
    "backup": lambda c: c.mica.begin_backup("web"),
    "delete volume": lambda c: c.mica.delete_volume(c.volume),
    "resize": lambda c: c.mica.resize_volume(c.volume, 128 * MIB),
    "move": _move,
    "check": lambda c: c.mica.check_volume(c.volume),
    "capture": lambda c: _capture(c, "image"),
    "write": lambda c: c.mica.write_volume(c.volume, 0, 512, [bytes(512)]),
    "export": lambda c: c.mica.volume_size(c.volume),
    "upload": _upload_again,
    "delete image": lambda c: c.mica.delete_image("image"),
}
TO_A_VOLUME = ("delete volume", "resize", "move", "capture", "write", "export")
PAIRS = [
    *((held, request) for held in OF_THE_VM for request in list(REQUESTS)[:14]),
    *((held, request) for held in OF_A_VOLUME for request in TO_A_VOLUME),
    *((held, request) for held in OF_AN_IMAGE for request in ("capture", "upload", "delete image")),
]


def _refused(request: Callable[[], object]) -> str | None:
    """Why a request is refused, by its code."""
    try:
        request()
    except RefusedError as refusal:
        return _honest(refusal)
    return None


def _honest(failure: object) -> str | None:
    """The code of a failure, which is one that a client can do something about, in words."""
    if isinstance(failure, OperationFailedError):
        error = failure.operation.error
        code = None if error is None else error.code.value
    else:
        assert isinstance(failure, RefusedError), failure
        code = failure.code
    assert code is None or code in HONEST, failure
    assert len(str(failure)) > 20, failure
    return code


def _finished(case: Case, operation: Operation | None) -> None:
    """The operation has ended, in success or with an honest error."""
    if operation is None:
        return
    try:
        case.mica.wait(operation, timeout_s=_END_S)
    except (OperationFailedError, RefusedError) as failure:
        _honest(failure)


@pytest.mark.parametrize(("held", "against"), PAIRS)
def test_two_requests_at_once(case: Case, held: str, against: str) -> None:
    answers: list[object] = []

    def come() -> None:
        with case.host.client() as other:
            second = Case(case.host, other, case.qemu_img, case.qemu)
            second.volume = "data" if held in OF_A_VOLUME else "root"
            try:
                answers.append(REQUESTS[against](second))
            except ClientError as error:
                answers.append(error)

    with HELD[held](case) as operation:
        coming = threading.Thread(target=come)
        coming.start()
        coming.join(0.5)  # what waits for the gate goes on behind it
    case.leave()
    coming.join(_PROMPT_S)
    assert answers, f"{against} has no answer"
    (answer,) = answers
    if isinstance(answer, Operation):
        _finished(case, answer)
    elif isinstance(answer, ClientError):
        _honest(answer)
    _finished(case, operation)


@pytest.mark.parametrize("held", ["clone", "snapshot", "move", "capture"])
def test_one_that_is_cancelled(case: Case, held: str) -> None:
    with HELD[held](case) as operation:
        assert operation is not None
        shown = case.mica.operation(operation.id)
        refused = _refused(lambda: case.mica.cancel(operation.id))
        assert refused == (None if shown.cancellable else "conflict")
    _finished(case, operation)


@pytest.mark.parametrize("held", HELD)
def test_one_whose_vmkernel_is_killed(case: Case, held: str) -> None:
    with HELD[held](case):
        os.kill(case.host.pid("vmkernel"), signal.SIGKILL)
    _until(lambda: case.mica.vm("web").status.state, "the vmkernel does not come again")


# --- streams whose clients leave --------------------------------------------------------------


def _tus(case: Case) -> None:
    upload_id = case.mica.create_upload(
        "image", _DATA_BYTES, datastore="main", image_format=ImageFormat.RAW
    )
    client = case.connect()
    client.send(
        f"PATCH /v1/uploads/{upload_id} HTTP/1.1",
        "Tus-Resumable: 1.0.0",
        "Upload-Offset: 0",
        f"Content-Length: {_DATA_BYTES}",
        "Content-Type: application/offset+octet-stream",
        body=bytes(MIB),
    )
    uploads = case.main / "uploads"
    _until(lambda: any(p.stat().st_size >= MIB for p in uploads.rglob("*")), "nothing came")


def _backup_data(case: Case) -> None:
    case.mica.wait(case.mica.move_volume("root", volume_format=VolumeFormat.RAW))
    case.mica.wait(case.mica.resize_volume("root", _DATA_BYTES))
    backup = case.mica.begin_backup("web")
    client = case.connect()
    client.send(
        f"GET /v1/vms/web/backups/{backup.id}/disks/disk0/data HTTP/1.1",
        f"Range: bytes=0-{_DATA_BYTES - 1}",
    )
    assert client.status() in (200, 206)


def _events(case: Case) -> None:
    client = case.connect()
    client.send("GET /v1/events HTTP/1.1", "Accept: text/event-stream")
    assert client.status() == 200


def _console(case: Case) -> None:
    case.mica.wait(case.mica.start_vm("web"))
    ticket = case.mica.transport.send(
        "POST", "/v1/vms/web/console", body={"kind": "serial", "mode": "write"}
    ).read(ConsoleTicket)
    client = case.connect()
    client.send(
        f"GET {ticket.websocket} HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        token=False,
    )
    assert client.status() == 101


STREAMS: dict[str, Callable[[Case], None]] = {
    "tus": _tus,
    "backup": _backup_data,
    "events": _events,
    "console": _console,
}


@pytest.mark.parametrize("killed", [False, True], ids=["leaves", "vmkernel killed"])
@pytest.mark.parametrize("stream", STREAMS)
def test_one_whose_stream_breaks(case: Case, stream: str, killed: bool) -> None:
    """The client goes, or the host's end does."""
    if killed:
        STREAMS[stream](case)
        os.kill(case.host.pid("vmkernel"), signal.SIGKILL)
        _until(lambda: case.mica.vm("web").status.state, "the vmkernel does not come again")
        return
    STREAMS[stream](case)
    before = _descriptors(case.host)
    case.leave()
    _until(lambda: _descriptors(case.host) < before, "its descriptors are not closed")


def _descriptors(host: HostedMica) -> int:
    """Of both services."""
    folders = [Path(f"/proc/{host.pid(name)}/fd") for name in ("vmkernel", "remote_api")]
    return sum(1 for folder in folders for _ in folder.iterdir())
