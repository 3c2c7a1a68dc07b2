"""Debian's own guest agent in a guest: what it tells, what it is asked for, and that it may hang
or be gone."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance_build.tools.sandbox import ToolsSandbox
from remote_api.client.errors import RefusedError
from remote_api.client.sdk import Mica
from tests.framework import inputs
from tests.framework.guest import guest_files
from tests.framework.guest.agent import OS_NAME, agent_initrd
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import qemu_programs
from tests.framework.talk import Talk
from vmkernel.model import (
    AgentStatus,
    BootSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageFormat,
    KernelBoot,
    NicSpec,
    SnapshotSpec,
    VmSpec,
    VmState,
    VolumeSpec,
)

MIB = 1 << 20
DISK_BYTES = 16 * MIB
NAME = "told"
"""Also the guest's host name, which it takes from its command line."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an empty ext4."""
    folder = tmp_path_factory.mktemp("disk")
    image = folder / "ext4.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    sandbox = ToolsSandbox(inputs.tools(), writable=[folder])
    sandbox.run(["mkfs.ext4", "-q", "-F", image], timeout_s=60)
    return image


@pytest.fixture
def told(mica: Mica, disk: Path) -> Iterator[Talk]:
    """The guest, up and without its agent; its disk is not mounted."""
    images = upload_guest(mica, "told-", initrd=agent_initrd(guest_files()))
    mica.upload_image("told-disk", disk, datastore="main", image_format=ImageFormat.RAW)
    volume = VolumeSpec(datastore="main", size_bytes=DISK_BYTES, source_image="told-disk")
    mica.wait(mica.create_volume("told-data", volume))
    kernel = KernelBoot(
        kernel="told-kernel",
        initrd="told-initrd",
        cmdline=f"console=ttyS0 quiet panic=-1 mica.tag={NAME} mica.load=crc32c_generic,ext4",
    )
    spec = VmSpec(
        datastore="main",
        memory_bytes=256 * MIB,
        firmware=Firmware.BIOS,
        boot=BootSpec(kernel=kernel),
        display=DisplayModel.NONE,
        disks=(DiskSpec(volume="told-data"),),
        nics=(NicSpec(),),
    )
    mica.create_vm(NAME, spec)
    mica.wait(mica.start_vm(NAME))
    with Talk(mica, NAME) as talk:
        talk.until("MICA GUEST UP")
        yield talk
    with contextlib.suppress(RefusedError):  # it is off where the test came to its end
        mica.wait(mica.power_off_vm(NAME))
    mica.delete_vm(NAME, with_volumes=True)
    for name in (*images, "told-disk"):
        mica.delete_image(name)


def _agent(mica: Mica, wanted: Callable[[AgentStatus], object]) -> AgentStatus:
    """What the VM's status says of its agent, once it is as wanted."""
    end = time.monotonic() + 60
    while True:
        status = mica.vm(NAME).status.agent
        assert status is not None
        if wanted(status):
            return status
        assert time.monotonic() < end, f"the agent's status stays {status}"
        time.sleep(0.2)


def _snapshot(mica: Mica, name: str) -> tuple[bool, str | None]:
    """Whether the guest stood still for a snapshot, and why not."""
    mica.wait(mica.create_snapshot(NAME, name, SnapshotSpec(quiesce=True, best_effort=True)))
    status = mica.snapshot(NAME, name).status
    return status.quiesced, status.reason


def _is_clean(mica: Mica, folder: Path, name: str) -> bool:
    """Whether the disk's file system needs no recovery, after it was frozen or unmounted."""
    mica.download_volume("told-data", folder / f"{name}.qcow2")
    raw = folder / f"{name}.img"
    convert = [str(qemu_programs(folder)["qemu-img"]), "convert", "-f", "qcow2", "-O", "raw"]
    subprocess.run([*convert, str(folder / f"{name}.qcow2"), str(raw)], check=True)
    sandbox = ToolsSandbox(inputs.tools(), readable=[folder])
    features = re.search(r"features:.*", sandbox.run(["dumpe2fs", "-h", raw], timeout_s=60))
    assert features
    return "needs_recovery" not in features[0]


def test_the_real_agent(mica: Mica, told: Talk, tmp_path: Path) -> None:
    assert not _agent(mica, lambda _: True).connected
    assert "mount vda: done" in told.ask("mount vda ext4", "mount vda: ")
    told.ask("net", r"net \w+ address ")
    started = re.search(r"agent (\d+)", told.ask("agent", r"agent \d+"))
    assert started
    process = int(started[1])

    # What it tells.
    status = _agent(mica, lambda agent: agent.interfaces and agent.interfaces[0].addresses)
    assert (status.connected, status.reason, status.hostname) == (True, None, NAME)
    assert re.match(r"10\.\d+", status.version or "")
    assert status.system is not None
    assert (status.system.name, status.system.version) == (OS_NAME, "7")
    assert status.system.kernel == inputs.kernel_release()
    (card,) = status.interfaces
    assert card.mac == mica.vm(NAME).spec.nics[0].mac
    assert any(re.fullmatch(r"10\.0\.2\.\d+/24", address) for address in card.addresses)

    # Its file system stands still for a snapshot, and goes on.
    told.ask("append one", "append: done")
    assert _snapshot(mica, "quiet") == (True, None)
    told.ask("append two", "append: done", 30)

    # The time comes back after a pause.
    assert "time 1000000" in told.ask("time 1000000000", r"time \d+")
    mica.wait(mica.pause_vm(NAME))
    mica.wait(mica.resume_vm(NAME))
    end = time.monotonic() + 60
    while abs(int(told.ask("time 0", r"time \d+").rpartition("time ")[2]) - time.time()) > 10:
        assert time.monotonic() < end, "nobody set the guest's clock"
        time.sleep(0.5)

    # One that hangs costs one time-out; one that is gone costs nothing.
    told.ask(f"signal {process} {int(signal.SIGSTOP)}", "signal 19: done")
    began = time.monotonic()
    assert _snapshot(mica, "hanging") == (False, "The guest agent: it does not answer.")
    assert time.monotonic() - began < 15
    told.ask(f"signal {process} 9", "signal 9: done")
    gone = _agent(mica, lambda agent: not agent.connected)
    assert (gone.hostname, gone.system, gone.interfaces) == (None, None, ())
    assert _snapshot(mica, "absent") == (False, "No agent is running in the guest.")

    # Its successor ends the guest; the file system stays mounted to the end.
    told.ask("agent", r"agent \d+")
    _agent(mica, lambda agent: agent.connected and agent.version)
    ended = mica.shut_down_vm(NAME, timeout_s=60)
    told.until("shutdown: asked by a program")
    mica.wait(ended)
    assert mica.vm(NAME).status.state is VmState.STOPPED
    assert not _is_clean(mica, tmp_path, "now")
    mica.wait(mica.revert_to_snapshot(NAME, "absent", start=False))
    assert not _is_clean(mica, tmp_path, "absent")
    mica.wait(mica.revert_to_snapshot(NAME, "quiet", start=False))
    assert _is_clean(mica, tmp_path, "quiet")
    for name in ("quiet", "hanging", "absent"):
        mica.wait(mica.delete_snapshot(NAME, name))
