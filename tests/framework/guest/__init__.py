"""Owns the tiny Linux guest that tests boot; it must not know of the appliance's API.

Debian's kernel with one static program as its whole user space (init.c says what it understands).
`guest_files()` makes every form of it: kernel and initrd, uncompressed kernel, BIOS disk, UEFI
disk.
"""

from tests.framework.guest.build import GuestFiles, guest_files
from tests.framework.guest.pattern import pattern_crc

__all__ = ["GuestFiles", "guest_files", "pattern_crc"]
