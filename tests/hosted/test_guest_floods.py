"""Guests that do all the harm that they can, for a while: nobody else notices.

A real guest writes to its panic device, its serial line and its virtio devices as fast as it can;
beside it runs a QEMU that its guest has taken over. The vmkernel's memory stays as it is, the run
folder as well, and another user's requests are answered within a second.

Both guests and whatever else runs share the machine's processors. What a process that has nothing
to do with Mica loses to them (control_process.py) is no waiting for Mica, and is taken off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_api.client.sdk import Mica
from tests.framework.control_process import ControlProcess
from tests.framework.guest.flooder import flooder_disk
from tests.framework.hosted import HostedMica, hosted_mica, qemu_programs
from tests.framework.taken_over_qemu import NAME, wrapper
from tests.framework.talk import Talk
from vmkernel.model import (
    BootSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskBus,
    DiskSpec,
    DisplayModel,
    Firmware,
    ImageFormat,
    Role,
    TokenSpec,
    VmSpec,
    VmState,
    VolumeSpec,
)

pytestmark = pytest.mark.alone

MIB = 1 << 20
FLOOD_S = 40.0
WARM_S = 6.0
"""Until buffers have the size that they keep."""
GROWTH_MAX_BYTES = 12 * MIB
"""What a request or two more at a time may leave; a flood that was kept made 40 MiB a second."""
GET_MAX_S = 1.0
RUN_MAX_BYTES = MIB
REQUESTS = ("metrics", "vms", "operations", "vm")


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostedMica, Mica]]:
    """A host with both, which are off."""
    folder = tmp_path_factory.mktemp("f")
    real = qemu_programs(folder)["qemu-system-x86_64"]
    qemu = wrapper(folder / "qemu-of-all", real)
    with hosted_mica(folder, "--qemu", str(qemu)) as host, host.client() as mica:
        place = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(host.datastore_folder("main")))
        mica.wait(mica.create_datastore("main", place))
        mica.upload_image("flooder", flooder_disk(), datastore="main", image_format=ImageFormat.RAW)
        size = flooder_disk().stat().st_size
        volume = VolumeSpec(datastore="main", size_bytes=size, source_image="flooder")
        mica.wait(mica.create_volume("flooder", volume))
        common = {
            "datastore": "main",
            "memory_bytes": 64 * MIB,
            "firmware": Firmware.BIOS,
            "boot": BootSpec(),
            "display": DisplayModel.NONE,
        }
        disk = DiskSpec(volume="flooder", bus=DiskBus.IDE)
        mica.create_vm("flooder", VmSpec(**common, disks=(disk,)))  # type: ignore[arg-type]
        mica.create_vm(NAME, VmSpec(**common))  # type: ignore[arg-type]
        yield host, mica


def _client(host: HostedMica, token: str) -> Mica:
    """One that holds no answer against the document: that takes longer than the answer."""
    return Mica(host.address, token=token, fingerprint=host.fingerprint)


def _resident_bytes(pid: int) -> int:
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) << 10


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _used_bytes(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def test_hostile_guests_cost_nobody_else_anything(
    flooded: tuple[HostedMica, Mica],
) -> None:
    host, mica = flooded
    issued = mica.create_token("other", TokenSpec(role=Role.VIEWER))
    pid = host.pid("vmkernel")
    before = _resident_bytes(pid)
    mica.wait(mica.start_vm("flooder"))
    with Talk(mica, "flooder") as talk:
        assert "panic yes virtio yes" in talk.until("MICA FLOOD")
    mica.wait(mica.start_vm(NAME))
    with _client(host, issued.secret) as other, ControlProcess() as control:
        took: list[tuple[float, float, str]] = []
        ends = time.monotonic() + FLOOD_S
        warm = time.monotonic() + WARM_S
        settled, cpu_s = 0, 0.0
        number = 0
        while (now := time.monotonic()) < ends:
            number += 1
            began = time.monotonic()
            name = REQUESTS[number % len(REQUESTS)]
            match name:
                case "metrics":
                    assert f'vm="{NAME}"' in other.metrics()
                case "vms":
                    assert {vm.id for vm in other.vms()} == {"flooder", NAME}
                case "operations":
                    assert list(other.operations())
                case "vm":
                    assert other.vm("flooder").status.state is VmState.RUNNING
            took.append((began, time.monotonic(), name))
            if now > warm and not settled:
                settled, cpu_s = _resident_bytes(pid), _cpu_s(pid)
            time.sleep(0.2)
        after, used_s = _resident_bytes(pid), _cpu_s(pid) - cpu_s
        took_s, own_s = control.own_s((began, ended) for began, ended, _ in took)
    slow = [
        (name, round(seconds, 2), round(own, 2))
        for (_, _, name), seconds, own in zip(took, took_s, own_s, strict=True)
        if seconds > GET_MAX_S / 2
    ]
    run_bytes = _used_bytes(host.folder / "state/run/vm")
    told = {
        "rss_bytes": [before, settled, after],
        "cpu_share": used_s / (FLOOD_S - WARM_S),
        "get_s": [statistics.median(took_s), sorted(took_s)[-len(took_s) // 20], max(took_s)],
        "get_own_s": [statistics.median(own_s), max(own_s)],
        "slow": slow,
        "run_bytes": run_bytes,
    }
    print(told)
    assert after - settled < GROWTH_MAX_BYTES, told
    assert max(own_s) < GET_MAX_S, told
    assert run_bytes < RUN_MAX_BYTES, told
    # All of it has come.
    assert "reported a panic" in (mica.vm("flooder").status.reason or "")
    said = host.folder / "state/run/vm/flooder/qemu.log.last"
    assert "virtio" in said.read_text().lower()
    # What it said has not been believed, nor has it reached a terminal.
    status = mica.vm(NAME).status
    assert "\x1b" not in (status.reason or "")
    assert not mica.vm_statistics(NAME).complete
    # Both can still be ended.
    for vm in ("flooder", NAME):
        mica.wait(mica.power_off_vm(vm))
        assert mica.vm(vm).status.state is VmState.STOPPED
