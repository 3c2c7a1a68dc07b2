"""Every kind of virtual hardware, as a real QEMU takes it and a real guest sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.framework import inputs
from tests.framework.guest import guest_files
from tests.framework.hosted import qemu_programs
from tests.unit.vm.folder_storage import FolderStorage
from vmkernel.events import EventBus
from vmkernel.host import Runner
from vmkernel.model import (
    DATA,
    MAX_CONSOLE_BYTES,
    BootSpec,
    CdromSpec,
    ConsoleKind,
    CpuSpec,
    DiskBus,
    DiskSpec,
    DisplayModel,
    Firmware,
    HostMode,
    ImageFormat,
    KernelBoot,
    NicModel,
    NicSpec,
    OperationState,
    VmAction,
    VmSpec,
    VmState,
)
from vmkernel.operations import OperationRegistry
from vmkernel.qemu.block_graph import top_format_node
from vmkernel.vm import AcceleratorWish, VmService, assemble_vms
from vmkernel.vm.running import Running
from vmkernel.vm.states import VmRequest

MIB = 1 << 20
BOOT_S = 150.0


class Bench:
    """A vmkernel's VM side on TCG, without the rest."""

    def __init__(self, root: Path) -> None:
        self.storage = FolderStorage(root / "ds")
        self.operations = OperationRegistry(EventBus())
        self.vms: VmService = assemble_vms(
            HostMode.HOSTED,
            run_dir=root / "run",
            runner=Runner(programs=qemu_programs(root)),
            storage=self.storage,
            operations=self.operations,
            events=EventBus(),
            wish=AcceleratorWish.TCG,
            data_dir=inputs.tools() / "usr/share",
        )
        files = guest_files()
        self.storage.add_image("kernel", ImageFormat.LINUX_KERNEL, files.vmlinux)
        self.storage.add_image("initrd", ImageFormat.LINUX_INITRD, files.initrd)
        self.storage.add_image("cd", ImageFormat.ISO, files.bios_disk)

    async def act(self, action: VmAction) -> None:
        operation = await self.vms.act("web", action, timeout_s=60, actor="test")
        ended = await self.operations.wait(operation.id, 180)
        assert ended.state is OperationState.SUCCEEDED, ended.error

    async def says(self, pattern: str) -> str:
        """What the guest's serial line said until it had said `pattern`."""
        loop, text = asyncio.get_running_loop(), ""
        with await self.vms.open_console("web", ConsoleKind.SERIAL) as console:
            console.setblocking(False)
            async with asyncio.timeout(BOOT_S):
                while not re.search(pattern, text):
                    data = await loop.sock_recv(console, MAX_CONSOLE_BYTES)
                    assert data, f"the console ended:\n{text[-2000:]}"
                    text += data.removeprefix(DATA).decode(errors="replace")
        return text

    async def reports(self, wanted: set[int]) -> str:
        """The guest's report once it has all these disks: some buses take their time."""
        loop, text = asyncio.get_running_loop(), ""
        with await self.vms.open_console("web", ConsoleKind.SERIAL) as console:
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
            await bench.vms.create("web", spec, actor="test")
            await story(bench)
        finally:
            await bench.vms.shutdown_all(timeout_s=0.1, force=True)
            await bench.operations.close()
            await bench.vms.stop()

    asyncio.run(whole())


def kernel() -> BootSpec:
    """The tiny guest, told to load the drivers that it doesn't find by itself."""
    drivers = "ata_piix,ahci,xhci-pci,usb-storage,sd_mod"
    cmdline = f"console=ttyS0 quiet panic=-1 mica.load={drivers}"
    return BootSpec(kernel=KernelBoot(kernel="kernel", initrd="initrd", cmdline=cmdline))


def disks(*buses: DiskBus) -> tuple[DiskSpec, ...]:
    return tuple(DiskSpec(volume=f"v{i}", bus=bus) for i, bus in enumerate(buses))


def sizes(text: str) -> list[int]:
    return sorted(int(size) for size in re.findall(r"guest disk \S+ (\d+)", text))


async def format_nodes(running: Running) -> list[str]:
    return [await top_format_node(running.qmp, f"disk{number}") for number in range(5)]


def test_every_bus_and_card_of_q35(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.act(VmAction.START)
        assert "cpus 2" in await bench.says("MICA GUEST UP")
        text = await bench.reports({(i + 1) * MIB for i in range(5)})
        nodes = await bench.vms.use("web", VmRequest.QUERY, format_nodes)
        assert nodes == [f"disk{number}-format-0" for number in range(5)]
        macs = {nic.mac for nic in bench.vms.get("web").spec.nics}
        assert macs <= set(re.findall(r"guest nic \S+ (\S+)", text))
        await bench.act(VmAction.SHUTDOWN)
        assert bench.vms.get("web").status.state is VmState.STOPPED

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


def test_the_old_pc(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        await bench.act(VmAction.START)
        assert bench.vms.get("web").status.machine_type.startswith("pc-i440fx-")
        await bench.says("MICA GUEST UP")
        await bench.reports({MIB, 2 * MIB, 3 * MIB})
        await bench.act(VmAction.POWER_OFF)

    run(
        tmp_path,
        story,
        firmware=Firmware.BIOS,
        boot=kernel(),
        disks=disks(DiskBus.IDE, DiskBus.SATA, DiskBus.VIRTIO_BLK),
        cdroms=(CdromSpec(image="cd", bus=DiskBus.IDE),),
        nics=(NicSpec(model=NicModel.E1000), NicSpec(model=NicModel.RTL8139)),
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
        vm = bench.vms.get("web")
        assert vm.status.state is VmState.RUNNING, vm.status.reason
        assert len(vm.spec.disks) == count
        await bench.act(VmAction.POWER_OFF)

    run(tmp_path, story, **fields)


def test_uefi_starts_from_a_disk(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        bench.storage.add_volume("v0", source=guest_files().uefi_disk)
        await bench.act(VmAction.START)
        assert "firmware uefi" in await bench.says("MICA GUEST UP")
        with await bench.vms.open_console("web", ConsoleKind.VNC) as screen:
            screen.settimeout(10)
            assert screen.recv(12) == b"RFB 003.008\n"
        await bench.act(VmAction.RESET)
        await bench.says(r"(?s)MICA GUEST UP.*MICA GUEST UP")
        await bench.act(VmAction.SHUTDOWN)

    run(tmp_path, story, disks=disks(DiskBus.VIRTIO_BLK), display=DisplayModel.VIRTIO)
