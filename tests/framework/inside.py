"""An appliance with a hand inside: the variant of the image (variant.py) and its agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.framework.appliance import Appliance
from tests.framework.drives import Drive
from tests.framework.guest import GuestFiles
from tests.framework.machine import Firmware
from tests.framework.plugged_in import Setup, plugged_in
from tests.framework.variant import Agent, variant

__all__ = ["plugged_in_with_agent", "upload_boot_files"]


@contextmanager
def plugged_in_with_agent(
    folder: Path, *, disks: Sequence[Drive] = (), extra: Sequence[str] = ()
) -> Iterator[tuple[Appliance, Agent]]:
    """The variant started to its API and claimed, and its agent; `extra` is for QEMU."""
    socket = folder / "agent.sock"
    socket.unlink(missing_ok=True)
    setup = Setup(
        folder=folder,
        firmware=Firmware.BIOS,
        disks=tuple(disks),
        extra=(*variant().arguments(socket), *extra),
    )
    with plugged_in(setup) as appliance, closing(Agent(socket)) as agent:
        yield appliance, agent


def upload_boot_files(appliance: Appliance, guest: GuestFiles) -> None:
    """The tiny guest as the images `kernel` and `initrd`, on the datastore `main`."""
    appliance.upload("kernel", guest.kernel, "linux-kernel")
    appliance.upload("initrd", guest.initrd, "linux-initrd")
