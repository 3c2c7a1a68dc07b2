"""The addresses that the host has now, on every link but those of guests."""

from __future__ import annotations

from pathlib import Path

from vmkernel.host import rtnetlink
from vmkernel.host.sysfs import SYS, read_int, read_text, subfolders
from vmkernel.network.policy import HostIdentity

__all__ = ["read_host_identity"]

_NONE = "00:00:00:00:00:00"


def read_host_identity(sys: Path = SYS) -> HostIdentity:
    """Everything that a guest must not claim: addresses that are still being checked for
    duplicates included, else a guest could make the host give them up. OSError."""
    macs: set[str] = set()
    own: set[int] = set()
    for name in subfolders(sys / "class/net"):
        folder = sys / "class/net" / name
        if name == "lo" or (folder / "tun_flags").exists():
            continue
        own.add(read_int(folder / "ifindex") or 0)
        macs |= {
            mac
            for file in ("address", "bonding_slave/perm_hwaddr")
            if len(mac := read_text(folder / file) or "") == len(_NONE) and mac != _NONE
        }
    known = rtnetlink.addresses(usable=False)
    return HostIdentity.of(macs, (a for index in own for a in known.get(index, ())))
