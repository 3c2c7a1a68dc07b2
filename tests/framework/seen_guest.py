"""A guest with a screen, a keyboard and a serial line, for the tests of consoles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.sync.client import ClientConnection

from remote_api.client.consoles.websocket import open_console
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica
from tests.framework.talk import said_until
from tests.framework.vm_story import folder_of_screens, vm_story
from vmkernel.model import (
    BootSpec,
    ConsoleMode,
    DiskSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    VmSpec,
    VolumeSpec,
)

__all__ = ["KEYS", "read_until", "seen_guest"]

MIB = 1 << 20
BOOT_S = 120.0
KEYS = {"h": 35, "e": 18, "l": 38, "o": 24, "f2": 60, "shift": 42}
"""Linux's numbers (input-event-codes.h)."""


@contextmanager
def seen_guest(host: HostedMica, name: str) -> Iterator[str]:
    """A running guest with a screen."""
    kernel = KernelBoot(
        kernel=f"{name}-kernel", initrd=f"{name}-initrd", cmdline="console=ttyS0 quiet panic=-1"
    )
    disk = f"{name}-disk"
    spec = VmSpec(
        datastore="main",
        memory_bytes=256 * MIB,
        firmware=Firmware.BIOS,
        boot=BootSpec(kernel=kernel),
        display=DisplayModel.STD,
        disks=(DiskSpec(volume=disk),),
    )
    with host.client() as mica:
        images = upload_guest(mica, f"{name}-")
        mica.wait(mica.create_volume(disk, VolumeSpec(datastore="main", size_bytes=8 * MIB)))
        mica.create_vm(name, spec)
        mica.wait(mica.start_vm(name))
        with open_console(mica, name, mode=ConsoleMode.WATCH) as line:
            read_until(
                line, "MICA GUEST UP", BOOT_S, lambda: vm_story(mica, name, folder_of_screens())
            )
        yield name
        mica.wait(mica.power_off_vm(name))
        mica.delete_vm(name, with_volumes=True)
        for image_id in images:
            mica.delete_image(image_id)


def read_until(
    line: ClientConnection,
    pattern: str,
    timeout_s: float = 20.0,
    story: Callable[[], str] = lambda: "",
) -> str:
    """What the line says until it has said `pattern`; notices are left out."""
    return said_until(line, pattern, timeout_s, story)
