"""Virtual machines over HTTPS, with real guests on TCG."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator

import pexpect
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from remote_api.client.consoles.websocket import open_console
from remote_api.client.errors import RefusedError
from remote_api.client.http.pinning import PinnedContext
from remote_api.client.sdk import Mica
from tests.framework.api import checked_client
from tests.framework.guest import GuestFiles, guest_files
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from tests.framework.repository import REPOSITORY
from vmkernel.model import (
    BootSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    NicSpec,
    VmSpec,
    VmState,
    VolumeSpec,
)

MIB = 1 << 20
BOOT_S = 120.0


@pytest.fixture(scope="module")
def guest(host: HostedMica) -> Iterator[GuestFiles]:
    """The tiny guest's kernel and initrd as images of the host."""
    files = guest_files()
    with host.client() as mica:
        images = upload_guest(mica, "guest-")
        yield files
        for image_id in images:
            mica.delete_image(image_id)


def _spec(tag: str = "t", **other: object) -> VmSpec:
    boot = BootSpec(
        kernel=KernelBoot(
            kernel="guest-kernel",
            initrd="guest-initrd",
            cmdline=f"console=ttyS0 quiet panic=-1 mica.tag={tag}",
        )
    )
    return VmSpec(
        datastore="main",
        memory_bytes=256 * MIB,
        firmware=Firmware.BIOS,
        boot=boot,
        display=DisplayModel.NONE,
        **other,  # type: ignore[arg-type]
    )


def _until(console: ClientConnection, pattern: str, timeout_s: float = BOOT_S) -> str:
    """What the console says until it has said `pattern`."""
    text = ""
    end = time.monotonic() + timeout_s
    while not re.search(pattern, text):
        left = end - time.monotonic()
        assert left > 0, f"{pattern!r} did not come:\n{text[-3000:]}"
        data = console.recv(timeout=left)
        text += data if isinstance(data, str) else data.decode(errors="replace")
    return text


def _ticks(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"tick (\d+)\r?\n", text)]


def test_spec_is_kept_and_changed(mica: Mica) -> None:
    made = mica.create_vm("plain", VmSpec(datastore="main", labels={"team": "a"}))
    try:
        assert made.status.state is VmState.STOPPED
        again = mica.vm("plain")
        assert again == made
        assert [v.id for v in mica.vms()] == ["plain"]
        changed = mica.patch_vm("plain", {"cpus": {"count": 2}}, revision=made.revision)
        assert (changed.spec.cpus.count, changed.revision) == (2, made.revision + 1)
        with pytest.raises(RefusedError) as refused:
            mica.replace_vm(made, made.spec)
        assert refused.value.problem.status == 412
        with pytest.raises(RefusedError) as refused:
            mica.patch_vm("plain", {"disks": [{"volume": "none-such"}]})
        assert [e.pointer for e in refused.value.problem.errors] == ["/spec/disks/0/volume"]
        with checked_client(mica) as http:
            body = {"spec": {"datastore": "main"}}
            assert http.put("/v1/vms/plain", json=body).status_code == 428
            new = http.put("/v1/vms/plain", json=body, headers={"if-none-match": "*"})
            assert new.status_code == 412
    finally:
        mica.delete_vm("plain")
    with pytest.raises(RefusedError) as refused:
        mica.vm("plain")
    assert refused.value.code == "not-found"


@pytest.mark.usefixtures("guest")
def test_life_of_a_guest(host: HostedMica, mica: Mica) -> None:
    mica.wait(mica.create_volume("data", VolumeSpec(datastore="main", size_bytes=8 * MIB)))
    spec = _spec("life", disks=(), nics=(NicSpec(),))
    mica.create_vm("life", spec)
    mica.patch_vm("life", {"disks": [{"volume": "data"}]})
    mica.wait(mica.start_vm("life"))
    assert mica.vm("life").status.state is VmState.RUNNING
    with pytest.raises(RefusedError) as refused:
        mica.delete_vm("life")
    assert refused.value.problem.status == 409
    with pytest.raises(RefusedError):
        mica.delete_volume("data")
    with open_console(mica, "life") as console:
        text = _until(console, r"MICA GUEST UP")
        assert "MICA GUEST READY life" in text
        console.send(b"echo over the wire\n")
        _until(console, r"over the wire\r?\n", 20)
    with open_console(mica, "life") as console:
        assert "MICA GUEST READY life" in _until(console, r"tick \d+", 20), "no scrollback"
    mica.wait(mica.reset_vm("life"))
    with open_console(mica, "life") as console:
        _until(console, r"(?s)MICA GUEST UP.*MICA GUEST UP.*tick 1\b")
    mica.wait(mica.shut_down_vm("life", timeout_s=60))
    assert mica.vm("life").status.state is VmState.STOPPED
    mica.delete_vm("life", with_volumes=True)
    assert [v.id for v in mica.volumes()] == []


@pytest.mark.usefixtures("guest")
def test_crashes_of_ours_touch_no_guest(host: HostedMica, mica: Mica) -> None:
    mica.create_vm("count", _spec("count"))
    mica.wait(mica.start_vm("count"))
    with open_console(mica, "count") as console:
        _until(console, r"tick 2\b")
    for name in ("remote_api", "vmkernel"):
        before = host.pid(name)
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 20
        while True:
            try:
                if host.pid(name) != before and mica.vm("count").status.state is VmState.RUNNING:
                    break
            except Exception as error:
                if time.monotonic() > end:
                    raise AssertionError(host.logs()) from error
            time.sleep(0.1)
    with open_console(mica, "count") as console:
        first = _ticks(_until(console, r"tick \d+\r?\n", 20))[-1]
        text = _until(console, rf"tick {first + 3}\b", 20)
    ticks = _ticks(text)
    assert ticks == sorted(set(ticks))
    assert "READY" not in text
    mica.wait(mica.power_off_vm("count"))
    mica.delete_vm("count")


@pytest.mark.usefixtures("guest")
def test_console_tickets(host: HostedMica, mica: Mica) -> None:
    mica.create_vm("door", _spec("door"))
    with pytest.raises(RefusedError) as refused:
        mica.console_ticket("door")
    assert refused.value.problem.status == 409
    mica.wait(mica.start_vm("door"))
    ticket = mica.console_ticket("door")
    uri = host.address.replace("https", "wss") + ticket.websocket
    with connect(uri, ssl=PinnedContext(host.fingerprint), proxy=None) as console:
        assert console.recv(timeout=30)
    for other in (uri, uri.replace("/door/", "/other/"), uri[:-4]):
        with pytest.raises(InvalidStatus) as refusal:
            connect(other, ssl=PinnedContext(host.fingerprint), proxy=None)
        assert refusal.value.response.status_code == 401
        assert b"/v1/problems/unauthenticated" in (refusal.value.response.body or b"")
    with checked_client(mica, authorized=False) as http:
        assert http.get(ticket.websocket).status_code == 426
    _use_terminal(host)
    mica.wait(mica.power_off_vm("door"))
    mica.delete_vm("door")


def _use_terminal(host: HostedMica) -> None:
    """The console as a person has it: a terminal, typing, Ctrl-] to leave."""
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "remote_api.client", "vm", "console", "door"],
        cwd=str(REPOSITORY),
        timeout=BOOT_S,
        env={
            **os.environ,
            "MICA_HOST": host.address,
            "MICA_TOKEN": str(host.token),
            "MICA_FINGERPRINT": host.fingerprint,
        },
    )
    try:
        terminal.expect_exact("leave with Ctrl-]")
        terminal.expect_exact("MICA GUEST UP")
        terminal.send("echo typed by hand\r")
        terminal.expect(r"echo typed by hand[^e]+echo typed by hand|typed by hand\r\n")
        terminal.send("\x1d")
        terminal.expect_exact("console of VM door: disconnected")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close()
    assert terminal.exitstatus == 0
