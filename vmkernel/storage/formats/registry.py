"""Every image format, one line each, in no particular order."""

from __future__ import annotations

from vmkernel.model import SourceFormat
from vmkernel.storage.formats.base import Format
from vmkernel.storage.formats.iso import Iso
from vmkernel.storage.formats.linux_initrd import LinuxInitrd
from vmkernel.storage.formats.linux_kernel import LinuxKernel
from vmkernel.storage.formats.luks import Luks
from vmkernel.storage.formats.parallels import Parallels
from vmkernel.storage.formats.qcow2 import Qcow2
from vmkernel.storage.formats.qed import Qed
from vmkernel.storage.formats.raw import Raw
from vmkernel.storage.formats.vdi import Vdi
from vmkernel.storage.formats.vhd import Vhd
from vmkernel.storage.formats.vhdx import Vhdx
from vmkernel.storage.formats.vmdk import Vmdk

__all__ = ["FORMATS", "format_named", "format_of_source"]

FORMATS: tuple[Format, ...] = (
    Iso(),
    LinuxInitrd(),
    LinuxKernel(),
    Luks(),
    Parallels(),
    Qcow2(),
    Qed(),
    Raw(),
    Vdi(),
    Vhd(),
    Vhdx(),
    Vmdk(),
)

_BY_SOURCE = {item.source: item for item in FORMATS if item.source is not None}
_BY_QEMU_NAME = {item.qemu_name: item for item in FORMATS if item.qemu_name is not None}


def format_of_source(source: SourceFormat) -> Format:
    """The format for this source format."""
    return _BY_SOURCE[source]


def format_named(qemu_name: str) -> Format | None:
    """The format with this name in QEMU."""
    return _BY_QEMU_NAME.get(qemu_name)
