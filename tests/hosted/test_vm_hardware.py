"""Every kind of virtual hardware, as a real QEMU takes it and a real guest sees it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from firmware.guest_firmware.secure_boot_keys import MICROSOFT_2023
from tests.framework import inputs
from tests.framework.guest import guest_files, pattern_crc
from tests.framework.guest.old_pc import old_pc_disk, old_pc_lacks
from tests.framework.guest.signed import signed_disk
from tests.framework.hosted import qemu_programs
from tests.unit.vm.folder_storage import FolderStorage
from vmkernel.events import EventBus
from vmkernel.host import Runner
from vmkernel.model import (
    DATA,
    MAX_CONSOLE_BYTES,
    BootSpec,
    CdromSpec,
    Clock,
    ClockSpec,
    ConsoleKind,
    CpuSpec,
    DiskBus,
    DiskCache,
    DiskLimits,
    DiskSpec,
    DisplayModel,
    Firmware,
    HostMode,
    ImageFormat,
    KernelBoot,
    MemorySpec,
    NicModel,
    NicSpec,
    OperationState,
    Rate,
    VmAction,
    VmSpec,
    VmState,
    WatchdogAction,
    WatchdogSpec,
)
from vmkernel.operations import OperationRegistry
from vmkernel.qemu.answers import Balloon, GuestStatistics
from vmkernel.qemu.block_graph import top_format_node
from vmkernel.vm.assembly import AcceleratorWish, assemble_vms
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.nonvolatile import tpm_state
from vmkernel.vm.side import VmSide
from vmkernel.vm.states import VmRequest

MIB = 1 << 20
BOOT_S = 150.0


class Bench:
    """A vmkernel's VM side on TCG, without the rest."""

    def __init__(self, root: Path) -> None:
        self.storage = FolderStorage(root / "ds")
        self.bus = EventBus()
        self.operations = OperationRegistry(self.bus)
        self.asked = 0
        self.vms: VmSide = assemble_vms(
            HostMode.HOSTED,
            run_dir=root / "run",
            runner=Runner(programs=qemu_programs(root)),
            storage=self.storage,
            operations=self.operations,
            events=self.bus,
            wish=AcceleratorWish.TCG,
            data_dir=inputs.tools() / "usr/share",
        )
        files = guest_files()
        self.storage.add_image("kernel", ImageFormat.LINUX_KERNEL, files.vmlinux)
        self.storage.add_image("bzimage", ImageFormat.LINUX_KERNEL, files.kernel)
        self.storage.add_image("initrd", ImageFormat.LINUX_INITRD, files.initrd)
        self.storage.add_image("cd", ImageFormat.ISO, files.bios_disk)

    async def act(self, action: VmAction) -> None:
        operation = await self.vms.power.act("web", action, timeout_s=60, actor="test")
        ended = await self.operations.wait(operation.id, 180)
        assert ended.state is OperationState.SUCCEEDED, ended.error

    async def says(self, pattern: str) -> str:
        """What the guest's serial line said until it had said `pattern`."""
        loop, text = asyncio.get_running_loop(), ""
        with await self.vms.consoles.open(
            "web", ConsoleKind.SERIAL, actor="test", origin=""
        ) as console:
            console.setblocking(False)
            async with asyncio.timeout(BOOT_S):
                while not re.search(pattern, text):
                    data = await loop.sock_recv(console, MAX_CONSOLE_BYTES)
                    assert data, f"the console ended:\n{text[-2000:]}"
                    text += data.removeprefix(DATA).decode(errors="replace")
        return text

    async def asks(self, command: str, pattern: str) -> str:
        """What the guest answers to a command, until it has said `pattern`."""
        loop, text = asyncio.get_running_loop(), ""
        self.asked += 1
        mark = f"echo asked {self.asked}"
        with await self.vms.consoles.open(
            "web", ConsoleKind.SERIAL, actor="test", origin=""
        ) as console:
            console.setblocking(False)
            await loop.sock_sendall(console, DATA + f"{mark}\n{command}\n".encode())
            async with asyncio.timeout(BOOT_S):
                while not re.search(pattern, text.partition(f"{mark}\r\n")[2]):
                    data = await loop.sock_recv(console, MAX_CONSOLE_BYTES)
                    assert data, f"the console ended:\n{text[-2000:]}"
                    text += data.removeprefix(DATA).decode(errors="replace")
        return text.partition(f"{mark}\r\n")[2]

    async def reports(self, wanted: set[int]) -> str:
        """The guest's report once it has all these disks: some buses take their time."""
        loop, text = asyncio.get_running_loop(), ""
        with await self.vms.consoles.open(
            "web", ConsoleKind.SERIAL, actor="test", origin=""
        ) as console:
            console.setblocking(False)
            async with asyncio.timeout(BOOT_S):
                while not wanted <= set(sizes(text)):
                    await loop.sock_sendall(console, DATA + b"report\n")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            while data := await loop.sock_recv(console, MAX_CONSOLE_BYTES):
                                text += data.removeprefix(DATA).decode(errors="replace")
        return text


def run(root: Path, story: Callable[[Bench], Awaitable[None]], **fields: Any) -> None:
    """A VM `web` with these fields, and a story about it."""

    async def whole() -> None:
        bench = Bench(root)
        for index in range(len(fields.get("disks", ()))):
            bench.storage.add_volume(f"v{index}", size_bytes=(index + 1) * MIB)
        await bench.vms.start()
        try:
            spec = VmSpec(**{"datastore": "main", "memory_bytes": 256 * MIB, **fields})
            await bench.vms.changes.create("web", spec, actor="test")
            await story(bench)
        finally:
            await bench.vms.power.shutdown_all(timeout_s=0.1, force=True)
            await bench.operations.close()
            await bench.vms.stop()

    asyncio.run(whole())


def kernel(image: str = "kernel") -> BootSpec:
    """The tiny guest, told to load the drivers that it doesn't find by itself."""
    drivers = "ata_piix,ahci,xhci-pci,usb-storage,sd_mod,usbhid,hid-generic"
    cmdline = f"console=ttyS0 quiet panic=-1 mica.load={drivers}"
    return BootSpec(kernel=KernelBoot(kernel=image, initrd="initrd", cmdline=cmdline))


def disks(*buses: DiskBus) -> tuple[DiskSpec, ...]:
    return tuple(DiskSpec(volume=f"v{i}", bus=bus) for i, bus in enumerate(buses))


def sizes(text: str) -> list[int]:
    return sorted(int(size) for size in re.findall(r"guest disk \S+ (\d+)", text))


async def format_nodes(running: RunningVm) -> list[str]:
    return [await top_format_node(running.qmp, f"disk{number}") for number in range(5)]


def test_every_bus_and_card_of_q35(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.act(VmAction.START)
        assert "cpus 2" in await bench.says("MICA GUEST UP")
        text = await bench.reports({(i + 1) * MIB for i in range(5)})
        nodes = await bench.vms.inventory.use("web", VmRequest.QUERY, format_nodes)
        assert nodes == [f"disk{number}-format-0" for number in range(5)]
        macs = {nic.mac for nic in bench.vms.inventory.get("web").spec.nics}
        assert macs <= set(re.findall(r"guest nic \S+ (\S+)", text))
        await bench.act(VmAction.SHUTDOWN)
        assert bench.vms.inventory.get("web").status.state is VmState.STOPPED

    run(
        tmp_path,
        story,
        firmware=Firmware.BIOS,
        boot=kernel(),
        cpus=CpuSpec(count=2),
        disks=disks(
            DiskBus.VIRTIO_BLK, DiskBus.VIRTIO_SCSI, DiskBus.NVME, DiskBus.SATA, DiskBus.USB
        ),
        cdroms=(
            CdromSpec(image="cd"),
            CdromSpec(bus=DiskBus.VIRTIO_SCSI),
            CdromSpec(image="cd", bus=DiskBus.USB),
        ),
        nics=tuple(NicSpec(model=model) for model in NicModel),
        display=DisplayModel.STD,
    )


def test_a_guest_of_32_bits(tmp_path: Path) -> None:
    """Memtest86+, which Debian still builds for 32 bits, to its screen."""

    async def story(bench: Bench) -> None:
        program = inputs.guests() / "boot/memtest86+ia32.bin"
        bench.storage.add_image("memtest", ImageFormat.LINUX_KERNEL, program)
        await bench.vms.changes.update("web", MEMTEST, 1, actor="test")
        await bench.act(VmAction.START)
        await bench.says(r"Memtest86\+")
        await bench.act(VmAction.POWER_OFF)

    run(tmp_path, story)


MEMTEST = VmSpec(
    datastore="main",
    firmware=Firmware.BIOS,
    memory_bytes=256 * MIB,
    display=DisplayModel.STD,
    boot=BootSpec(kernel=KernelBoot(kernel="memtest", cmdline="console=ttyS0,115200")),
)


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float = BOOT_S) -> None:
    for _ in range(int(timeout_s * 2)):
        if await check():
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{check.__name__} never came true")


async def balloon_of(running: RunningVm) -> tuple[int, dict[str, int]]:
    """The guest's memory as the balloon leaves it, and the guest's own figures."""
    now = await running.qmp.ask("query-balloon", Balloon)
    arguments = {"path": "/machine/peripheral/balloon", "property": "guest-stats"}
    told = await running.qmp.ask("qom-get", GuestStatistics, arguments)
    stats = {name: value for name, value in told.stats.items() if isinstance(value, int)}
    return now.actual, stats


def test_small_devices(tmp_path: Path) -> None:
    """TPM, watchdog, balloon, random numbers, serial lines, keyboard, clock, cable; then the
    watchdog bites."""

    async def story(bench: Bench) -> None:
        await bench.act(VmAction.START)
        await bench.says("MICA GUEST UP")
        text = ""

        async def usb_is_there() -> bool:
            nonlocal text
            text = await bench.asks("hardware", "hardware done")
            return "QEMU USB Tablet" in text and "QEMU USB Keyboard" in text

        await eventually(usb_is_there)
        found = set(re.findall(r"guest (tpm 2|watchdog i6300ESB timer|rng virtio_rng\S*)", text))
        assert len(found) == 3, text
        assert sorted(re.findall(r"guest serial (ttyS\d)", text)) == ["ttyS0", "ttyS1", "ttyS2"]
        assert re.findall(r"guest carrier \S+ (\d)", text) == ["0"]
        local = int(re.search(r"guest clock (\d+)", text)[1])  # type: ignore[index]
        assert 88 * 60 < local - time.time() < 92 * 60
        disks_seen = dict(re.findall(r"guest read-only (vd\w) (\d)", text))
        assert disks_seen == {"vda": "1", "vdb": "0"}

        async def guest_has_told() -> bool:
            _, stats = await bench.vms.inventory.use("web", VmRequest.QUERY, balloon_of)
            return stats.get("stat-total-memory", 0) > 100 * MIB

        async def is_off() -> bool:
            return bench.vms.inventory.get("web").status.state is VmState.CRASHED

        await eventually(guest_has_told)
        await bench.asks("watchdog 2", "watchdog: 2 seconds")
        await eventually(is_off)
        assert "watchdog" in (bench.vms.inventory.get("web").status.reason or "")

    run(
        tmp_path,
        story,
        boot=kernel("bzimage"),
        cpus=CpuSpec(count=1, max_count=4),
        memory=MemorySpec(max_bytes=1024 * MIB),
        clock=ClockSpec(base=Clock.LOCAL, utc_offset_minutes=90),
        serial_ports=3,
        keyboard=True,
        tpm=True,
        watchdog=WatchdogSpec(action=WatchdogAction.POWER_OFF),
        disks=(
            DiskSpec(volume="v0", bus=DiskBus.VIRTIO_BLK, read_only=True),
            DiskSpec(
                volume="v1",
                bus=DiskBus.VIRTIO_BLK,
                key="disk7",
                cache=DiskCache.WRITETHROUGH,
                discard=False,
                limits=DiskLimits(iops=Rate(per_s=100, burst_per_s=500, burst_s=10)),
            ),
        ),
        nics=(NicSpec(connected=False),),
    )


def test_the_old_pc(tmp_path: Path) -> None:
    """Linux comes off an IDE disk by BIOS, and uses that disk and its e1000 by their drivers."""

    async def story(bench: Bench) -> None:
        bench.storage.add_volume("v0", source=guest_files().bios_disk)
        await bench.act(VmAction.START)
        assert bench.vms.inventory.get("web").status.machine_type.startswith("pc-i440fx-")
        await bench.says("MICA GUEST READY bios-disk[^$]*MICA GUEST UP")
        for driver in ("ata_piix", "ahci", "sd_mod"):
            await bench.asks(f"load {driver}", "load .*done")
        text = await bench.reports({guest_files().bios_disk.stat().st_size, 2 * MIB, 3 * MIB})
        mac = bench.vms.inventory.get("web").spec.nics[0].mac
        nic = re.search(rf"guest nic (\S+) {mac}", text)
        disk = re.search(rf"guest disk (\S+) {32 * MIB}", text)
        assert nic is not None
        assert disk is not None
        text = await bench.asks("hardware", "hardware done")
        assert f"guest driver {disk[1]} ata_piix" in text
        assert f"guest driver {nic[1]} e1000\r" in text
        await bench.asks(f"write {disk[1]} {16 * MIB} {MIB} 3", "write .*done")
        await bench.asks(f"sum {disk[1]} {16 * MIB} {MIB}", pattern_crc(16 * MIB, MIB, 3))
        await bench.asks(f"net {nic[1]}", rf"net {nic[1]} address 10\.0\.2\.")
        await bench.act(VmAction.SHUTDOWN)

    run(
        tmp_path,
        story,
        firmware=Firmware.BIOS,
        disks=disks(DiskBus.IDE, DiskBus.SATA, DiskBus.VIRTIO_BLK),
        cdroms=(CdromSpec(image="cd", bus=DiskBus.IDE),),
        nics=(NicSpec(model=NicModel.E1000), NicSpec(model=NicModel.RTL8139)),
    )


def test_a_guest_of_32_bits_on_ide(tmp_path: Path) -> None:
    """Without an operating system, as tests/boot starts it on KVM."""

    async def story(bench: Bench) -> None:
        bench.storage.add_volume("v0", source=old_pc_disk())
        await bench.act(VmAction.START)
        text = await bench.says("MICA OLD PC DONE")
        assert not old_pc_lacks(text, str(bench.vms.inventory.get("web").spec.nics[0].mac)), text
        await bench.act(VmAction.POWER_OFF)

    run(
        tmp_path,
        story,
        firmware=Firmware.BIOS,
        disks=disks(DiskBus.IDE),
        nics=(NicSpec(model=NicModel.E1000),),
    )


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"disks": disks(*[DiskBus.VIRTIO_BLK] * 64), "nics": (NicSpec(),) * 16}, 64),
        ({"disks": disks(*[DiskBus.VIRTIO_SCSI] * 64)}, 64),
        ({"disks": disks(*[DiskBus.USB] * 8), "firmware": Firmware.BIOS}, 8),
        (
            {
                "disks": disks(*[DiskBus.IDE] * 4, *[DiskBus.NVME] * 8, *[DiskBus.SATA] * 6),
                "nics": (NicSpec(),) * 16,
                "firmware": Firmware.BIOS,
                "display": DisplayModel.VIRTIO,
            },
            18,
        ),
    ],
    ids=["virtio-blk", "virtio-scsi", "usb", "pc"],
)
def test_qemu_takes_as_much_as_we_allow(tmp_path: Path, fields: dict[str, Any], count: int) -> None:
    """The limits that a spec is checked against are no larger than QEMU's own."""

    async def story(bench: Bench) -> None:
        await bench.act(VmAction.START)
        vm = bench.vms.inventory.get("web")
        assert vm.status.state is VmState.RUNNING, vm.status.reason
        assert len(vm.spec.disks) == count
        await bench.act(VmAction.POWER_OFF)

    run(tmp_path, story, **fields)


def test_uefi_starts_from_a_disk(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.storage.add_volume("v0", source=guest_files().uefi_disk)
        await bench.act(VmAction.START)
        assert "firmware uefi" in await bench.says("MICA GUEST UP")
        with await bench.vms.consoles.open(
            "web", ConsoleKind.VNC, actor="test", origin=""
        ) as screen:
            screen.settimeout(10)
            assert screen.recv(12) == b"RFB 003.008\n"
        await bench.act(VmAction.RESET)
        await bench.says(r"(?s)MICA GUEST UP.*MICA GUEST UP")
        await bench.act(VmAction.SHUTDOWN)

    run(tmp_path, story, disks=disks(DiskBus.VIRTIO_BLK), display=DisplayModel.VIRTIO)


def test_secure_boot_and_tpm(tmp_path: Path) -> None:
    """What nobody has signed isn't started; Debian's shim is, and the TPM has measured it. The
    firmware trusts Microsoft's certificates of 2023 as well as those of 2011. The VM keeps its
    TPM's state and its variables apart from those of other firmware."""

    async def story(bench: Bench) -> None:
        bench.storage.add_volume("v0", source=guest_files().uefi_disk)
        await bench.act(VmAction.START)
        refused = await bench.says("(?i)access denied|security violation")
        assert "MICA GUEST READY" not in refused
        await bench.act(VmAction.POWER_OFF)
        bench.storage.add_volume("v0", source=signed_disk(tmp_path))
        await bench.act(VmAction.START)
        await bench.says("MICA GUEST READY signed-disk[^$]*MICA GUEST UP")
        text = await bench.asks("hardware", "hardware done")
        assert "guest tpm 2" in text
        for name in ("UEFI CA 2011", *(key.name for key in MICROSOFT_2023 if key.variable == "db")):
            assert re.search(rf"guest certificate '.*{name}", text), text
        measured = re.search(r"guest pcr7 (\w+)", text)
        assert measured is not None
        assert len(set(measured[1])) > 1, "the TPM has measured nothing"
        await bench.act(VmAction.SHUTDOWN)
        folder = bench.storage.vms_folder("main") / "web"
        assert {path.name for path in folder.iterdir()} >= {"nvram-secure-boot.fd", "tpm.state"}
        assert "permall" in tpm_state.decode((folder / "tpm.state").read_bytes())

    run(
        tmp_path,
        story,
        firmware=Firmware.UEFI_SECURE_BOOT,
        tpm=True,
        disks=disks(DiskBus.VIRTIO_BLK),
    )


@pytest.mark.parametrize("damage", ["cut off", "torn"])
def test_a_damaged_tpm_gets_its_last_good_state(tmp_path: Path, damage: str) -> None:
    """Also where only libtpms can see it: the lengths are right, a part of the data is old."""

    async def story(bench: Bench) -> None:
        path = bench.storage.vms_folder("main") / "web/tpm.state"
        for _ in range(2):
            await bench.act(VmAction.START)
            await bench.act(VmAction.POWER_OFF)
        good = path.with_name("tpm.state.good").read_bytes()
        assert "permall" in tpm_state.decode(good)
        whole = path.read_bytes()
        at = 192 + 64
        broken = whole[:400] if damage == "cut off" else whole[:at] + bytes(800) + whole[at + 800 :]
        path.write_bytes(broken)
        heard = bench.bus.subscribe()
        await bench.act(VmAction.START)
        types = []
        while (event := heard.poll()) is not None:
            types.append(event.type)
        assert "vm.tpm-restored" in types
        assert path.with_name("tpm.state.damaged").read_bytes() == broken
        await bench.act(VmAction.POWER_OFF)

    run(tmp_path, story, firmware=Firmware.BIOS, tpm=True)
