"""From a VM's spec to QEMU's whole command line: everything of a start but the disks and QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from firmware.guest_firmware import UefiFiles
from tests.unit.vm.fake_qemu import FakeLauncher
from tests.unit.vm.folder_storage import FolderStorage
from tests.unit.vm.world import World
from vmkernel.devices import Accelerator, Family
from vmkernel.devices.plan import BootTopology
from vmkernel.model import ImageFormat, NicSpec, VmSpec, VolumeFormat
from vmkernel.network import NetworkPort, UserNetwork
from vmkernel.qemu import QemuProgram, build_arguments
from vmkernel.storage.ports import ImageFile, VolumeFile, VolumeLayer
from vmkernel.vm.context import VmContext
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.start import plan as start_plan
from vmkernel.vm.start.files import find_files
from vmkernel.vm.store.definition import FIRST_UID, VmDefinition

__all__ = ["LINKED", "UUID", "command_line", "host_of"]

UUID = "00000000-0000-4000-8000-000000000001"

NOON = 1_795_435_200.0
"""2026-11-23T12:00:00Z, when every machine here starts."""
MACHINES = {Family.Q35: "pc-q35-10.0", Family.PC: "pc-i440fx-10.0"}
LINKED = "linked"
"""The volume that stands on others."""


class _Storage(FolderStorage):
    """Every volume and image that is asked for; none of them exists."""

    def volume(self, volume: str, *, while_busy: bool = False) -> VolumeFile:  # noqa: ARG002
        backing = (
            VolumeLayer(path=Path("/ds/volumes/middle.qcow2"), format=VolumeFormat.QCOW2),
            VolumeLayer(path=Path("/ds/volumes/base.raw"), format=VolumeFormat.RAW),
        )
        return VolumeFile(
            id=volume,
            datastore="main",
            path=Path(f"/ds/volumes/{volume}.qcow2"),
            format=VolumeFormat.QCOW2,
            size_bytes=1 << 30,
            backing=backing if volume == LINKED else (),
        )

    def image(self, image: str) -> ImageFile:
        return ImageFile(
            id=image,
            datastore="main",
            path=Path(f"/ds/images/{image}"),
            format=ImageFormat.ISO,
            size_bytes=1 << 20,
        )


class _Taps(UserNetwork):
    """Taps, as the appliance has them."""

    async def open_ports(self, vm_id: str, nics: Sequence[NicSpec]) -> list[NetworkPort]:
        return [
            NetworkPort(
                port_group=nic.port_group,
                tap=f"{vm_id}-{nic.key}",
                tap_fd=os.open(os.devnull, os.O_RDWR),
                vhost_fd=os.open(os.devnull, os.O_RDWR),
            )
            for nic in nics
        ]


class _Launcher(FakeLauncher):
    """Numbers descriptors as systemd does, from 3 on."""

    def fd_number(self, index: int, fd: int) -> int:  # noqa: ARG002
        return 3 + index


def host_of(root: Path, *, taps: bool = True) -> VmContext:
    """A host that has whatever a spec may name."""
    world = World(root)
    secure = UefiFiles(Path("/fw/SECURE_CODE.fd"), Path("/fw/SECURE_VARS.fd"))
    return replace(
        world.host,
        storage=_Storage(root / "storage"),
        network=_Taps() if taps else UserNetwork(),
        launcher=_Launcher(),
        uefi=UefiFiles(Path("/fw/CODE.fd"), Path("/fw/VARS.fd")),
        uefi_secure_boot=secure,
    )


def command_line(
    spec: VmSpec,
    *,
    family: Family = Family.Q35,
    accelerator: Accelerator = Accelerator.KVM,
    taps: bool = True,
    incoming: BootTopology | None = None,
) -> list[str]:
    """The words of a start with this spec on a made-up host; its paths are always the same."""
    definition = VmDefinition(
        id="web",
        uuid=UUID,
        revision=1,
        created_at="2026-11-23T12:00:00Z",
        machine_type=MACHINES[family],
        uid=FIRST_UID,
        spec=with_defaults(spec),
    )
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_plan, "open_vhost_vsock", lambda: os.open(os.devnull, os.O_RDWR))
        host = host_of(Path(root), taps=taps)
        return asyncio.run(_words(host, definition, accelerator, incoming))


async def _words(
    host: VmContext,
    definition: VmDefinition,
    accelerator: Accelerator,
    incoming: BootTopology | None,
) -> list[str]:
    files = find_files(host, definition, Path("/ds/vms/web"))
    async with contextlib.AsyncExitStack() as opened:
        ports = await host.network.open_ports(definition.id, definition.spec.nics)
        for port in ports:
            opened.callback(port.close)
        plan = start_plan.make_plan(
            host,
            definition,
            accelerator=accelerator,
            program=QemuProgram(version=(10, 0)),
            files=files,
            ports=ports,
            folder=host.folder(definition.id),
            opened=opened,
            incoming=incoming,
            now=NOON,
        )
        return build_arguments(plan.machine)
