"""The guest with Debian's own qemu-ga in it, and what that needs: libraries, `shutdown`, `hwclock`
(programs.c), and drivers to mount a disk."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from appliance_build.assemble.cpio import CpioEntry, write_cpio
from tests.framework import inputs
from tests.framework.guest.build import EPOCH, GuestFiles
from tests.framework.guest.modules import GUEST_MODULES, ModuleSet

__all__ = ["OS_NAME", "agent_initrd"]

OS_NAME = "Mica test guest with an agent"
OS_RELEASE = f'ID=mica-test-guest\nPRETTY_NAME="{OS_NAME}"\nVERSION_ID=7\n'
LIBRARIES = (
    "libatomic.so.1",
    "libc.so.6",
    "libcap.so.2",
    "libglib-2.0.so.0",
    "libgmodule-2.0.so.0",
    "libm.so.6",
    "libnuma.so.1",
    "libpcre2-8.so.0",
    "libudev.so.1",
    "liburing.so.2",
)
"""What qemu-ga is linked with; a missing one ends it at once."""
LOADER = "ld-linux-x86-64.so.2"
MODULES = ("crc32c_generic", "ext4")


def agent_initrd(files: GuestFiles) -> Path:
    """The guest's initrd with the agent, made now if it is not there yet."""
    agent = inputs.provisioning() / "usr/sbin/qemu-ga"
    digest = hashlib.sha256(Path(__file__).read_bytes() + str(agent).encode()).hexdigest()[:16]
    target = files.initrd.with_name(f"initrd-agent-{digest}")
    if target.exists():
        return target
    tree = inputs.donor() / "usr/lib"
    modules = ModuleSet(tree / "modules" / inputs.kernel_release())
    wanted = (*GUEST_MODULES, *MODULES)
    folders = ("etc", "lib", "lib/x86_64-linux-gnu", "lib64", "sbin", "usr", "usr/sbin")
    entries = [CpioEntry.folder(name) for name in folders]
    entries += [
        CpioEntry.bytes("etc/os-release", OS_RELEASE.encode()),
        CpioEntry.file("usr/sbin/qemu-ga", agent, 0o755),
        CpioEntry.file("sbin/shutdown", files.init, 0o755),
        CpioEntry.file("sbin/hwclock", files.init, 0o755),
        CpioEntry.file(f"lib64/{LOADER}", tree / "x86_64-linux-gnu" / LOADER, 0o755),
        CpioEntry.bytes("modules/index", modules.index(wanted).encode()),
    ]
    for name in LIBRARIES:
        library = (tree / "x86_64-linux-gnu" / name).resolve()
        entries.append(CpioEntry.file(f"lib/x86_64-linux-gnu/{name}", library, 0o755))
    for path in modules.files(wanted):
        entries.append(CpioEntry.file(f"modules/{path.name}", path))
    part = target.with_suffix(".part")
    more = target.with_suffix(".more")
    write_cpio(more, entries, epoch=EPOCH)
    with part.open("wb") as whole:  # the kernel unpacks one archive after the other
        for path in (files.initrd, more):
            whole.write(path.read_bytes())
            whole.write(b"\0" * (-whole.tell() % 512))
    more.unlink()
    shutil.move(part, target)
    return target
