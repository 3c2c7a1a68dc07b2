"""What the running appliance takes and gives: memory, a guest's first line, API latency, writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.benchmarks.records import REPEATS, Record, percentile
from tests.framework import inputs
from tests.framework.appliance import Appliance
from tests.framework.drives import Bus, Drive, blank_disk
from tests.framework.guest import guest_files
from tests.framework.guest.build import COMMAND_LINE
from tests.framework.machine import Firmware
from tests.framework.plugged_in import Setup, plugged_in
from tests.framework.variant import Agent, variant

GIB, MIB = 1 << 30, 1 << 20
DISK = "BENCHDISK01"
GUEST_MIB = 256
SETTLED_S = 20.0
IDLE_S = 120.0
GETS = 200
FIRST_LINE = "MICA GUEST READY"
IMAGES = "/run/mica/datastores/main/images"


@dataclass(frozen=True)
class Inside:
    """The variant of the image with its agent, and a datastore with the guest's files."""

    appliance: Appliance
    agent: Agent


@pytest.fixture(scope="module")
def inside() -> Iterator[Inside]:
    """The machine that bare QEMU and the appliance's VMs are compared on."""
    folder = inputs.work_folder("bench-inside")
    socket = folder / "agent.sock"
    socket.unlink(missing_ok=True)
    disk = Drive("main", blank_disk(folder / "main.img", 4 * GIB), Bus.VIRTIO, DISK)
    extra = variant().arguments(socket)
    setup = Setup(folder=folder, firmware=Firmware.BIOS, disks=(disk,), extra=extra)
    guest = guest_files()
    with plugged_in(setup) as appliance:
        agent = Agent(socket)
        appliance.create_datastore("main", DISK)
        appliance.upload("kernel", guest.kernel, "linux-kernel")
        appliance.upload("vmlinux", guest.vmlinux, "linux-kernel")
        appliance.upload("initrd", guest.initrd, "linux-initrd")
        yield Inside(appliance, agent)
        agent.close()


@pytest.mark.timeout(600)
def test_idle_memory_and_stick_writes() -> None:
    record = Record("idle")
    with plugged_in(Setup(folder=inputs.work_folder("bench-idle"))) as appliance:
        time.sleep(SETTLED_S)
        used = []
        for _ in range(REPEATS):
            memory = appliance.host()["memory"]
            used.append((memory["total_bytes"] - memory["available_bytes"]) / MIB)
            time.sleep(2)
        record.figure("memory in use (MemTotal - MemAvailable)", "MiB", used)
        written = appliance.machine.written_bytes("stick")
        record.figure("written to the stick by first start and claim", "bytes", [written])
        time.sleep(IDLE_S)
        idle = appliance.machine.written_bytes("stick") - written
        record.figure(f"written to the stick in {IDLE_S:g} idle seconds", "bytes", [idle])
    record.write()


def test_memory_holders(inside: Inside) -> None:
    record = Record("memory-holders")
    memory = inside.agent.ask({"do": "memory"})
    own = {name: mib for name, mib in memory["processes"].items() if "mica-test" not in name}
    record.figure("sum of the processes' shares", "MiB", [sum(own.values())])
    for name in ("MemTotal", "MemAvailable", "Slab", "KernelStack", "PageTables", "Percpu"):
        record.figure(name, "MiB", [memory["meminfo"].get(name, 0.0)])
    for name in ("Shmem", "Cached", "AnonPages", "Unevictable"):
        record.figure(name, "MiB", [memory["meminfo"].get(name, 0.0)])
    ordered = sorted(own.items(), key=lambda item: -item[1])
    record.note("processes_mib", dict(ordered[:25]))
    record.write()


def _first_line_by_api(inside: Inside, kernel: str, number: int) -> float:
    name = f"bench-{kernel}-{number}"
    boot = {"kernel": kernel, "initrd": "initrd", "cmdline": COMMAND_LINE}
    appliance = inside.appliance
    appliance.create_vm(
        name,
        firmware="bios",
        memory_bytes=GUEST_MIB * MIB,
        boot={"kernel": boot},
        nics=[{}],
    )
    began = time.monotonic()
    operation = appliance.call("POST", f"/v1/vms/{name}/start", expect=(200, 202)).json()
    appliance.settle(operation)
    with appliance.console(name) as console:
        _, line = console.expect(FIRST_LINE, timeout_s=120, what="the guest's first line")
    seconds = line.time_s - began
    appliance.power_off(name)
    appliance.wait_vm_state(name, "stopped", timeout_s=60)
    appliance.call("DELETE", f"/v1/vms/{name}", expect=204)
    return seconds


def _first_line_by_hand(inside: Inside, kernel: str) -> float:
    names = inside.agent.ask({"do": "list", "path": IMAGES})

    def path(image: str) -> str:
        (found,) = [n for n in names if n.startswith(f"{image}.") and not n.endswith(".json")]
        return f"{IMAGES}/{found}"

    argv = [
        *("/usr/bin/qemu-system-x86_64", "-accel", "kvm", "-machine", "q35", "-cpu", "host"),
        *("-m", str(GUEST_MIB), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-serial", "stdio", "-kernel", path(kernel), "-initrd", path("initrd")),
        *("-append", COMMAND_LINE),
    ]
    request = {"do": "seconds_until", "argv": argv, "text": FIRST_LINE, "timeout_s": 120}
    return float(inside.agent.ask(request, timeout_s=150))


@pytest.mark.timeout(1800)
def test_request_to_the_guests_first_line(inside: Inside) -> None:
    record = Record("first-line")
    for kernel in ("kernel", "vmlinux"):
        ours, bare = [], []
        for number in range(REPEATS):
            ours.append(_first_line_by_api(inside, kernel, number))
            bare.append(_first_line_by_hand(inside, kernel))
        record.figure(f"{kernel}: request to first line", "s", ours)
        record.figure(f"{kernel}: bare QEMU inside the same machine", "s", bare)
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        record.figure(f"{kernel}: ratio to bare QEMU", "", ratios)
    record.write()


def test_api_latency(inside: Inside) -> None:
    record = Record("api-latency")
    appliance = inside.appliance
    appliance.create_vm("latency")
    for name, path in (("list with one VM", "/v1/vms"), ("API info", "/v1")):
        times = []
        for _ in range(GETS):
            began = time.perf_counter()
            appliance.get(path)
            times.append((time.perf_counter() - began) * 1000)
        record.figure(f"{name}, TLS kept open", "ms", times, p99=percentile(times, 0.99))
    times = []
    for _ in range(REPEATS * 5):
        fresh = Appliance(appliance.machine, token=appliance.token)
        began = time.perf_counter()
        fresh.get("/v1/vms")
        times.append((time.perf_counter() - began) * 1000)
        fresh.close()
    record.figure("list with one VM, new TLS each", "ms", times, p99=percentile(times, 0.99))
    record.write()
